"""Micrographs as a list of RELION's or cryoSPARC's names them: picking, labels, mistakes."""

import json
import os

import mrcfile
import numpy as np
import pytest
import starfile
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

import preprocess_coco_full_dataset as preprocess
from picking.errors import InputWarning, UserError
from picking.formats.coordinates import read_picks
from picking.micrographs.mrc import write_mrc
from tests.fixtures.data_sets import DIAMETER_PX
from tests.fixtures.pickers import (
    assert_found,
    call,
    classifier_content,
    files_of,
    refused,
    write_checkpoint,
)

JOB = "MotionCorr/job002/Movies"
PSIZE = 2.0
DIAMETER = f"{DIAMETER_PX * PSIZE:g}A"


def list_text(rows, pixel_sizes=(PSIZE,), columns=""):
    """micrographs_ctf.star of (name, optics group), with groups 1, 2, ... of these Å per px."""
    head = "_rlnOpticsGroupName\n_rlnOpticsGroup\n_rlnMicrographPixelSize\n_rlnVoltage\n"
    head += "_rlnSphericalAberration\n_rlnAmplitudeContrast\n"
    groups = "".join(f"og{n} {n} {size} 300 2.7 0.1\n" for n, size in enumerate(pixel_sizes, 1))
    table = "".join(f"{name} {group}\n" for name, group in rows)
    return (
        f"# version 30001\n\ndata_optics\n\nloop_\n{head}{groups}\n\n# version 30001\n\n"
        f"data_micrographs\n\nloop_\n_rlnMicrographName\n_rlnOpticsGroup\n{table}\n"
    )


class Project:
    """A RELION project of the disks: a and b listed, c lies beside them and is not."""

    def __init__(self, root, disks, names=("a", "b")):
        self.root, self.folder = root, root / JOB
        self.folder.mkdir(parents=True)
        for name in ("a", "b", "c"):
            raw = np.asarray(Image.open(disks.folder / f"{name}.jpg")).astype(float) * 7
            write_mrc(self.folder / f"{name}.mrc", raw, PSIZE)
        self.star = root / "CtfFind/job003/micrographs_ctf.star"
        self.star.parent.mkdir(parents=True)
        self.star.write_text(list_text([(f"{JOB}/{name}.mrc", 1) for name in names]))
        self.centres = {f"{name}.mrc": disks.centres[f"{name}.jpg"] for name in ("a", "b")}
        self.sizes = dict.fromkeys(self.centres, (320, 384))
        self.out = root / "Picks"

    def flags(self, checkpoint, *more, star=None):
        return (
            "--checkpoint", checkpoint, "--micrographs", star or self.star, "--diameter", DIAMETER,
            "--device", "cpu", "--output", self.out, *more,
        )  # fmt: skip


@pytest.fixture
def project(tmp_path, disks):
    return Project(tmp_path / "project", disks)


def coordinates_in(out):
    return {path.name for path in (out / "coordinates").rglob("*.star")}


WRITTEN = {"a_autopick.star", "b_autopick.star", "coords_suffix_autopick.star"}


# Picking


def test_only_what_is_listed_is_picked_and_every_name_stays_to_the_letter(project, checkpoint):
    call(*project.flags(checkpoint, "--formats", "star", "box"))
    listed = starfile.read(project.out / "autopick.star", always_dict=True)["coordinate_files"]
    names = [f"{JOB}/a.mrc", f"{JOB}/b.mrc"]
    files = [f"Picks/coordinates/Movies/{name}_autopick.star" for name in "ab"]
    assert listed["rlnMicrographName"].tolist() == names
    assert listed["rlnMicrographCoordinates"].tolist() == files
    blocks = starfile.read(project.out / "particles.star")
    assert set(blocks["particles"]["rlnMicrographName"]) == set(names)
    assert set(starfile.read(project.out / "star/a.star")["rlnMicrographName"]) == {names[0]}
    optics = blocks["optics"].iloc[0]
    assert optics["rlnOpticsGroupName"] == "og1" and optics["rlnVoltage"] == 300
    assert optics["rlnImagePixelSize"] == optics["rlnMicrographPixelSize"] == PSIZE
    assert coordinates_in(project.out) == WRITTEN
    for file in ("autopick.star", "particles.star"):
        found = read_picks([project.out / file], project.sizes, only_known=True)
        assert_found(found, project.centres, within_px=6)


def test_it_works_from_the_project_from_within_and_from_anywhere(project, checkpoint, monkeypatch):
    for folder in (project.root, project.star.parent, project.root.parent):
        monkeypatch.chdir(folder)
        star = os.path.relpath(project.star)
        printed = call(*project.flags(checkpoint, "--resume", star=star))
        assert ("names are relative to" in printed) == (folder != project.root)
        listed = starfile.read(project.out / "autopick.star", always_dict=True)["coordinate_files"]
        assert listed["rlnMicrographCoordinates"][0].startswith("Picks/coordinates/")


def test_an_output_outside_the_project_is_listed_by_its_whole_path(project, checkpoint, tmp_path):
    project.out = tmp_path / "elsewhere"
    call(*project.flags(checkpoint))
    listed = starfile.read(project.out / "autopick.star", always_dict=True)["coordinate_files"]
    assert listed["rlnMicrographCoordinates"][0].startswith(f"{project.out}/coordinates/")
    found = read_picks([project.out / "autopick.star"], project.sizes)
    assert_found(found, project.centres, within_px=6)


def test_another_threshold_renews_what_relion_takes_and_leaves_nothing_stale(project, checkpoint):
    write_checkpoint(checkpoint, network={"width": torch.tensor(0.8)})  # not sure of anything
    out = project.out
    for n, flags in enumerate((("--threshold", 0.2), ("--threshold", 0.65), ("--box", 60))):
        project.out = out.with_name(f"fresh{n}")
        call(*project.flags(checkpoint, *flags))
    fresh = [files_of(out.with_name(f"fresh{n}")) for n in range(3)]
    project.out = out
    counts = []
    for n, flags in enumerate((("--threshold", 0.2), ("--threshold", 0.65), ("--box", 60))):
        call(*project.flags(checkpoint, *flags, "--resume", "--threshold", (0.2, 0.65, 0.4)[n]))
        there = files_of(out)
        assert there.keys() == fresh[n].keys()
        same = [name for name in there if name != "autopick.star" and "manifest" not in name]
        assert all(there[name] == fresh[n][name] for name in same)
        counts.append(len(starfile.read(out / "particles.star")["particles"]))
    assert counts[0] > counts[1]


def test_micrographs_without_a_pick_leave_no_file_and_no_row(project, checkpoint):
    call(*project.flags(checkpoint))
    assert coordinates_in(project.out) == WRITTEN
    call(*project.flags(checkpoint, "--resume", "--threshold", 1))
    assert coordinates_in(project.out) == {"coords_suffix_autopick.star"}
    (blocks,) = starfile.read(project.out / "autopick.star", always_dict=True).values()
    assert len(blocks) == 0


def test_without_a_list_what_relion_takes_of_one_is_gone(project, checkpoint):
    call(*project.flags(checkpoint))
    call(*project.flags(checkpoint, "--resume", star=project.folder / "[ab].mrc"))
    assert not {"autopick.star", "particles.star", "coordinates"} & {
        path.name for path in project.out.iterdir()
    }


def test_a_list_of_relion_3_0_has_its_pixel_size_from_the_detector(project, checkpoint):
    head = "".join(
        f"_rln{label}\n"
        for label in (
            "MicrographName", "Voltage", "SphericalAberration", "AmplitudeContrast",
            "DetectorPixelSize", "Magnification",
        )
    )  # fmt: skip
    rows = "".join(f"{JOB}/{name}.mrc 300 2.7 0.1 14 70000\n" for name in "ab")
    project.star.write_text(f"data_\n\nloop_\n{head}{rows}")
    printed = call(*project.flags(checkpoint))
    assert "Pixel size: 2 Å (the list of micrographs)" in printed
    optics = starfile.read(project.out / "particles.star")["optics"].iloc[0]
    assert optics["rlnImagePixelSize"] == PSIZE and optics["rlnOpticsGroupName"] == "opticsGroup1"


def test_a_list_without_optics_is_picked_and_has_no_particles_star(project, checkpoint):
    rows = "".join(f"{JOB}/{name}.mrc\n" for name in "ab")
    project.star.write_text(f"data_\n\nloop_\n_rlnMicrographName\n{rows}")
    printed = call(*project.flags(checkpoint))  # by the headers' pixel size
    assert "No particles.star" in printed and not (project.out / "particles.star").exists()
    assert coordinates_in(project.out) == WRITTEN


# Pixel sizes


@pytest.fixture
def two_sizes(project):
    """Of b the px are half as wide: twice as many, in an optics group of its own."""
    doubled = np.kron(np.flipud(mrcfile.read(project.folder / "b.mrc")), np.ones((2, 2)))
    write_mrc(project.folder / "b.mrc", doubled, PSIZE / 2)
    project.star.write_text(
        list_text([(f"{JOB}/a.mrc", 1), (f"{JOB}/b.mrc", 2)], (PSIZE, PSIZE / 2))
    )
    project.centres["b.mrc"] = 2 * project.centres["b.mrc"] + 0.5
    project.sizes["b.mrc"] = (640, 768)
    return project


@pytest.fixture
def window_network(checkpoint):
    """A network that sees particles at one size, whatever the micrograph's px are."""
    wants = {"patch_size_px": 64, "scale": 1.0, "diameter_px": 20.0, "reach_px": 5.0}
    return write_checkpoint(checkpoint, **classifier_content("unet", **wants))


def test_each_micrograph_is_picked_by_its_own_pixel_size(two_sizes, window_network):
    flags = two_sizes.flags(window_network, "--formats", "star", "box", "--heatmap")
    assert "Pixel size: 1 to 2 Å" in call(*flags)
    found = read_picks([two_sizes.out / "particles.star"], two_sizes.sizes, only_known=True)
    for picks in found:  # of noise it picks something too, but with lower scores
        centres = two_sizes.centres[picks.name]
        best = picks.centres_px[np.argsort(-picks.scores)[: len(centres) + 6]]
        distance = np.hypot(*(centres[:, None] - best).transpose(2, 0, 1)).min(axis=1)
        assert (distance < 0.3 * DIAMETER_PX * (1 + (picks.name == "b.mrc"))).mean() > 0.8
    boxes = [(two_sizes.out / f"box/{name}.box").read_text().split()[2] for name in "ab"]
    assert float(boxes[1]) / float(boxes[0]) == pytest.approx(2, rel=0.1)
    seen = [Image.open(two_sizes.out / f"heatmaps/{name}.mrc.png").size for name in "ab"]
    assert seen[0] == seen[1]  # as the network sees them they are alike
    groups = starfile.read(two_sizes.out / "particles.star")["particles"]
    assert {(r.rlnMicrographName[-5], r.rlnOpticsGroup) for r in groups.itertuples()} == {
        ("a", 1), ("b", 2)
    }  # fmt: skip


@pytest.mark.parametrize("by", ["--diameter", "what the network learned"])
def test_each_micrograph_is_picked_by_the_pixel_size_of_its_own_header(
    two_sizes, checkpoint, window_network, by
):
    for name, psize in (("a", 3.0), ("b", 1.5)):
        with mrcfile.open(two_sizes.folder / f"{name}.mrc", "r+") as mrc:
            mrc.voxel_size = psize
    flags = two_sizes.flags(window_network, star=two_sizes.folder / "[ab].mrc")
    flags = ["60A" if flag == DIAMETER else flag for flag in flags]
    if by != "--diameter":
        wants = {"patch_size_px": 64, "scale": 1.0, "diameter_px": 20.0, "reach_px": 5.0}
        write_checkpoint(checkpoint, **classifier_content("unet", **wants, pixel_size_angstrom=3.0))
        flags = [flag for flag in flags if flag not in ("--diameter", "60A")]
    assert "Pixel size: 1.5 to 3 Å (the headers of 2 MRC files)" in call(*flags, "--heatmap")
    seen = [Image.open(two_sizes.out / f"heatmaps/{name}.mrc.png").size for name in "ab"]
    assert seen[0] == seen[1]
    for name, width in (("a", 20), ("b", 40)):
        (found,) = read_picks([two_sizes.out / f"star/{name}.star"], two_sizes.sizes)
        best = found.centres_px[np.argsort(-found.scores)[:18]]
        distance = np.hypot(*(two_sizes.centres[f"{name}.mrc"][:, None] - best).transpose(2, 0, 1))
        assert (distance.min(axis=1) < 0.3 * width).mean() > 0.8


def test_the_truth_is_matched_within_half_of_each_micrographs_own_diameter(
    two_sizes, window_network
):
    """The truth of a STAR states no diameters; on b picks lie 15 px off, more than half of a's."""
    call(*two_sizes.flags(window_network))
    truth = starfile.read(two_sizes.out / "particles.star")["particles"]
    on_b = truth["rlnMicrographName"].str.endswith("b.mrc")
    truth.loc[on_b, "rlnCoordinateX"] += 15
    truth = truth.drop(columns="pickDiameterPx", errors="ignore")
    starfile.write({"": truth}, two_sizes.root / "truth.star")
    flags = ("--resume", "--evaluate", two_sizes.root / "truth.star", "--annotated-margin", 0)
    call(*two_sizes.flags(window_network, *flags))
    report = json.loads((two_sizes.out / "evaluation.json").read_text())
    assert report["per_micrograph"]["a.mrc"]["recall"] == 1
    assert report["per_micrograph"]["b.mrc"]["recall"] > 0.9


def test_another_pixel_size_of_one_micrograph_is_picked_again(two_sizes, window_network):
    call(*two_sizes.flags(window_network))
    assert "2 of 2 micrographs are done already" in call(
        *two_sizes.flags(window_network, "--resume")
    )
    two_sizes.star.write_text(
        list_text([(f"{JOB}/a.mrc", 1), (f"{JOB}/b.mrc", 2)], (PSIZE, PSIZE / 2.04))
    )
    printed = call(*two_sizes.flags(window_network, "--resume"))
    assert "1 of 2 micrographs are done already" in printed


def test_px_of_several_sizes_have_no_one_diameter_in_px(two_sizes, window_network):
    flags = two_sizes.flags(window_network)
    flags = [f"{DIAMETER_PX}px" if flag == DIAMETER else flag for flag in flags]
    with pytest.warns(InputWarning, match=r"1 to 2 Å.*--diameter in Å"):
        call(*flags)


def test_a_pixel_size_is_held_against_the_list_and_the_list_against_headers(project, checkpoint):
    with pytest.warns(InputWarning, match=r"--pixel-size is 1 Å, but .* 2 Å \(the list"):
        call(*project.flags(checkpoint, "--pixel-size", 1, "--diameter", f"{DIAMETER_PX}A"))
    project.star.write_text(list_text([(f"{JOB}/a.mrc", 1), (f"{JOB}/b.mrc", 1)], (4,)))
    project.out = project.root / "Other"
    with pytest.warns(InputWarning, match=r"list .* 4 Å of a\.mrc, but its header 2 Å \(2 of 2"):
        call(*project.flags(checkpoint, "--diameter", f"{DIAMETER_PX * 4}A"))


# What is wrong


def test_micrographs_of_the_list_that_are_not_there_are_counted_and_named(project, checkpoint):
    (project.folder / "b.mrc").unlink()
    flags = project.flags(checkpoint)
    said = refused(*flags)
    assert "1 of 2 micrographs" in said and f"{JOB}/b.mrc" in said and "--allow-partial" in said
    with pytest.warns(InputWarning, match=r"1 of 2 micrographs .*/b\.mrc"):
        call(*flags, "--allow-partial")
    assert (project.out / "star/a.star").exists()
    (project.folder / "a.mrc").unlink()
    assert "2 of 2 micrographs" in refused(*flags, "--allow-partial")


def test_two_lists_or_a_list_and_files_are_refused(project, checkpoint):
    other = project.root / "other.star"
    other.write_text(project.star.read_text())
    for more in (other, project.folder / "c.mrc"):
        flags = list(project.flags(checkpoint))
        flags.insert(flags.index(project.star) + 1, more)
        assert str(more) in refused(*flags) and "one list" in refused(*flags)


def test_two_micrographs_of_one_name_are_refused_with_both(project, checkpoint):
    (project.root / "MotionCorr/job009").mkdir()
    second = "MotionCorr/job009/a.mrc"
    (project.root / second).write_bytes((project.folder / "a.mrc").read_bytes())
    project.star.write_text(list_text([(f"{JOB}/a.mrc", 1), (second, 1)]))
    said = refused(*project.flags(checkpoint))
    assert f"{JOB}/a.mrc" in said and second in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data_\n\nloop_\n_rlnMicrographMovieName\nMovies/a.tiff\n", "lists movies"),
        (f"data_\n\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n{JOB}/a.mrc 1\n", "coordinates"),
        (f"data_\n\nloop_\n_rlnMicrographName\n_rlnMicrographCoordinates\n{JOB}/a.mrc x\n",
         "files of coordinates"),
        ("data_\n\nloop_\n_rlnMicrographName\n", "no micrograph"),
        ("data_\n\nloop_\n_rlnMicrographName\nMovies/a.eer\n", "Movies/a.eer"),
        ("data_\n\nloop_\n_rlnVoltage\n300\n", "no table"),
        (list_text([(f"{JOB}/a.mrc", 3)]), "optics group"),
    ],
)  # fmt: skip
def test_a_list_of_something_else_is_refused(project, checkpoint, text, words):
    project.star.write_text(text)
    said = refused(*project.flags(checkpoint))
    assert words in said and "micrographs_ctf.star" in said


def test_a_row_that_stands_twice_counts_once_and_is_said(project, checkpoint):
    project.star.write_text(list_text([(f"{JOB}/a.mrc", 1)] * 2 + [(f"{JOB}/b.mrc", 1)]))
    with pytest.warns(InputWarning, match="1 of 3 rows"):
        call(*project.flags(checkpoint))


def test_picks_of_micrographs_that_the_list_has_not_are_counted(project, checkpoint):
    call(*project.flags(checkpoint))
    project.star.write_text(list_text([(f"{JOB}/a.mrc", 1)]))
    with pytest.raises(UserError, match=r"of 1 micrographs .*b\.mrc"):
        labels(project, project.out / "autopick.star")


# Labels


def labels(project, file, *more):
    flags = ("--micrographs", project.star, "--labels", file, "--diameter", DIAMETER)
    return call(
        *flags, "--output-dir", project.root / "few", "--patch-size", 32, "--num-workers", 0,
        "--windows-per-micrograph", 8, *more, main=preprocess.main,
    )  # fmt: skip


def made(project):
    return json.loads((project.root / "few/metadata.json").read_text())


def test_labels_of_relions_list_are_learned_from(project, checkpoint):
    call(*project.flags(checkpoint))
    labels(project, project.out / "autopick.star")
    n = sum(len(p.scores) for p in read_picks([project.out / "autopick.star"], project.sizes))
    assert made(project)["total"]["n_labeled"] == n
    assert made(project)["total"]["n_images"] == 2
    assert made(project)["windows"]["diameter_px"] == DIAMETER_PX


def test_particles_are_as_large_in_the_windows_of_every_micrograph(two_sizes, window_network):
    call(*two_sizes.flags(window_network))
    labels(two_sizes, two_sizes.out / "particles.star")
    assert made(two_sizes)["made_from"]["own_diameters_px"] == {"b.mrc": 2 * DIAMETER_PX}
    means = {}
    for split, of_split in made(two_sizes)["splits"].items():
        windows = np.load(two_sizes.root / "few" / split / "patches.npy")
        (one,) = of_split["micrographs"]
        mean = windows[: one["n_particles"]].mean(axis=0)
        means[one["name"]] = gaussian_filter(mean, 1.5)  # there are few
    a, b = means["a.mrc"], means["b.mrc"]
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.9


def test_particles_that_refinement_moved_are_labels_at_their_new_centres(project, checkpoint):
    call(*project.flags(checkpoint))
    blocks = starfile.read(project.out / "particles.star")
    moved = blocks["particles"]
    moved["rlnCoordinateX"] += 6
    moved["rlnOriginXAngst"] = 6 * PSIZE
    blocks["optics"]["rlnImagePixelSize"] = 4 * PSIZE
    blocks["optics"] = blocks["optics"].drop(columns="rlnMicrographPixelSize")
    starfile.write(blocks, project.root / "run_data.star")
    assert "origins are subtracted" in labels(project, project.root / "run_data.star")
    moved_hash = made(project)["content_hash"]
    project.root.joinpath("few").rename(project.root / "first")
    labels(project, project.out / "particles.star")
    assert moved_hash == made(project)["content_hash"]


def test_a_list_of_cryosparcs_gives_its_picks_the_uids_that_it_knows(project, checkpoint):
    fields = [("uid", "<u8"), ("micrograph_blob/path", "S80")]
    fields += [("micrograph_blob/shape", "<u4", (2,)), ("micrograph_blob/psize_A", "<f4")]
    rows = [(n, f"{JOB}/{name}.mrc", (320, 384), PSIZE) for n, name in enumerate("ab", 7)]
    exposures = project.root / "exposures.cs"
    with exposures.open("wb") as file:
        np.save(file, np.array(rows, dtype=fields))
    call(*project.flags(checkpoint, "--formats", "cs", star=exposures))
    picks = np.load(project.out / "particles.cs")
    assert {(int(r["location/micrograph_uid"]), r["location/micrograph_path"]) for r in picks} == {
        (n, path.encode()) for n, path, *_ in rows
    }
    assert (picks["location/micrograph_psize_A"] == PSIZE).all()
    assert not (project.out / "autopick.star").exists()
