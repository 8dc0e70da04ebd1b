"""Picks of the micrographs in RELION's list, as its own picking would leave them: RELION cuts them.

And back: labels from RELION's extraction, with and without re-centering, have the truth's centres.
"""

import re
import shutil
import subprocess

import numpy as np
import pytest
import starfile

from picking.formats.coordinates import read_picks
from tests.fixtures import ROOT, pickers
from tests.fixtures.relion_project import (
    BOX_PX,
    DIAMETER_ANGSTROM,
    PIXEL_SIZE_ANGSTROM,
    SIZE_PX,
    extract,
    needs_relion,
    relion,
    require_particles,
)

pytestmark = needs_relion


def pick(project, output, *flags):
    """Pick what micrographs_ctf.star lists, by a network that takes what is dark for a particle."""
    with pytest.MonkeyPatch.context() as patch:
        pickers.know(patch)
        one_window = {**pickers.TILES, "side_px": 160, "tiles": 1}
        checkpoint = pickers.write_checkpoint(output.with_suffix(".pt"), input=one_window)
        return pickers.call(
            "--checkpoint", checkpoint, "--micrographs", project.micrographs_ctf,
            "--diameter", f"{DIAMETER_ANGSTROM}A", "--device", "cpu", "--output", output, *flags,
        )  # fmt: skip


@pytest.fixture(scope="module")
def picked(relion_project, tmp_path_factory):
    output = tmp_path_factory.mktemp("picked") / "picks"
    printed = pick(relion_project, output)
    n = int(re.search(r"Finished .*: ([\d,]+) picks", printed)[1].replace(",", ""))
    assert n > 200
    return output, n


def test_relion_cuts_every_pick_of_the_coordinate_folder(picked, relion_project, tmp_path):
    output, n = picked
    where = ("--coord_dir", f"{output}/coordinates/", "--coord_suffix", "_autopick.star")
    require_particles(relion_project, tmp_path / "cut", n, *where)


def test_relion_cuts_every_pick_of_particles_star(picked, relion_project, tmp_path):
    output, n = picked
    where = "--reextract_data_star", output / "particles.star"
    require_particles(relion_project, tmp_path / "cut", n, *where)


def test_the_list_of_relion_4_and_5_names_files_that_relion_cuts(picked, relion_project, tmp_path):
    output, n = picked
    listed = starfile.read(output / "autopick.star", always_dict=True)["coordinate_files"]
    micrographs = starfile.read(relion_project.micrographs_ctf)["micrographs"]["rlnMicrographName"]
    assert list(listed["rlnMicrographName"]) == list(micrographs)
    folder = tmp_path / "coords" / "Movies"
    folder.mkdir(parents=True)
    rows = zip(listed["rlnMicrographName"], listed["rlnMicrographCoordinates"], strict=True)
    for name, file in rows:
        shutil.copy(relion_project.root / file, folder / name.split("/")[-1].replace("mrc", "star"))
    where = ("--coord_dir", f"{folder.parent}/", "--coord_suffix", ".star")
    require_particles(relion_project, tmp_path / "cut", n, *where)


def test_no_pick_is_left_whose_box_relion_would_fill_up(relion_project, picked, tmp_path):
    printed = pick(relion_project, tmp_path / "picks", "--box", BOX_PX)
    cut = starfile.read(tmp_path / "picks" / "particles.star")["particles"]
    low = cut[["rlnCoordinateX", "rlnCoordinateY"]].astype(int) - BOX_PX // 2
    assert (low.to_numpy() >= 0).all()
    assert (low.to_numpy() + BOX_PX <= np.array(SIZE_PX[::-1])).all()
    all_picks = starfile.read(picked[0] / "particles.star")["particles"]
    every = all_picks[["rlnCoordinateX", "rlnCoordinateY"]].astype(int).to_numpy() - BOX_PX // 2
    whole = (every >= 0).all(axis=1) & (every + BOX_PX <= np.array(SIZE_PX[::-1])).all(axis=1)
    assert len(cut) == whole.sum()
    assert f"{len(all_picks) - len(cut)} of {picked[1]} picks" in printed


# Back


def truth_of(project):
    return {true.name: np.array(sorted(map(tuple, true.centres_px))) for true in project.truth}


def require_truth(project, file, within_px, **named):
    """Assert that the file, read as labels are, has the truth's particles and no others."""
    sizes = {path.name: SIZE_PX for path in project.micrographs}
    read = {p.name: p.centres_px for p in read_picks([file], sizes, only_known=True, **named)}
    assert set(read) == {true.name for true in project.truth}
    for true in project.truth:
        distance = np.hypot(*(true.centres_px[:, None] - read[true.name]).transpose(2, 0, 1))
        assert len(read[true.name]) == len(true.centres_px)
        assert distance.min(axis=0).max() < within_px and distance.min(axis=1).max() < within_px


@pytest.fixture(scope="module")
def moved(relion_project, tmp_path_factory):
    """Particles picked off their centres, at half the size, and moved there by a refinement.

    The refinement is made up: what it would find is known, since the truth is.
    """
    folder = tmp_path_factory.mktemp("moved")
    blocks = starfile.read(relion_project.particles)
    particles = blocks["particles"]
    off_px = np.random.default_rng(18).integers(-7, 8, (len(particles), 2))
    shifted = folder / "picked.star"
    particles[["rlnCoordinateX", "rlnCoordinateY"]] += off_px
    starfile.write(blocks, shifted)
    where = ("--reextract_data_star", shifted, "--scale", BOX_PX // 2)
    cut = extract(relion_project, folder / "cut", *where, size_px=BOX_PX, scaled_px=BOX_PX // 2)
    refined = starfile.read(cut.star)
    # RELION keeps the order of the micrographs and of the particles within each
    assert np.allclose(refined["particles"]["rlnCoordinateX"], particles["rlnCoordinateX"])
    origins = off_px * PIXEL_SIZE_ANGSTROM
    refined["particles"][["rlnOriginXAngst", "rlnOriginYAngst"]] = origins.astype(float)
    refined["optics"] = refined["optics"].drop(columns="rlnMicrographPixelSize", errors="ignore")
    starfile.write(refined, folder / "run_data.star")
    assert float(refined["optics"]["rlnImagePixelSize"].iloc[0]) == 2 * PIXEL_SIZE_ANGSTROM
    return folder / "run_data.star"


def test_labels_of_extracted_particles_are_the_truth(relion_project, tmp_path):
    particles = relion_project.particles.relative_to(relion_project.root)
    cut = extract(relion_project, tmp_path / "cut", "--reextract_data_star", particles)
    require_truth(relion_project, cut.star, 0.01)


def test_labels_of_a_refinement_are_the_truth_though_images_were_scaled(moved, relion_project):
    sizes = lambda name: PIXEL_SIZE_ANGSTROM  # noqa: E731
    require_truth(relion_project, moved, 0.01, pixel_size_of=sizes)


def test_labels_of_a_selection_are_the_truth(moved, relion_project, tmp_path):
    relion(
        relion_project, "star_handler", "--i", moved, "--o", tmp_path / "particles.star",
        "--select", "rlnCoordinateX", "--minval", "-1e6", "--maxval", "1e6",
    )  # fmt: skip
    sizes = lambda name: PIXEL_SIZE_ANGSTROM  # noqa: E731
    require_truth(relion_project, tmp_path / "particles.star", 0.01, pixel_size_of=sizes)


def test_the_same_centres_come_of_relions_own_recentering(moved, relion_project, tmp_path):
    where = ("--reextract_data_star", moved, "--recenter")
    cut = extract(relion_project, tmp_path / "cut", *where)
    require_truth(relion_project, cut.star, 0.01, pixel_size_of=lambda name: PIXEL_SIZE_ANGSTROM)


def test_labels_of_manual_picks_are_followed_from_either_list(relion_project, tmp_path):
    """Made by hand in the format of ManualPick, which asks for a screen."""
    root, job = relion_project.root, tmp_path / "ManualPick" / "job004"
    for true in relion_project.truth:
        file = job / "Movies" / true.name.replace(".mrc", "_manualpick.star")
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = [f"{x} {SIZE_PX[0] - y} -999.0 -999 -999.0" for y, x in true.centres_px]
        labels = ("CoordinateX", "CoordinateY", "AnglePsi", "ClassNumber", "AutopickFigureOfMerit")
        head = "".join(f"_rln{label} #{n}\n" for n, label in enumerate(labels, 1))
        file.write_text("\ndata_\n\nloop_\n" + head + "\n".join(rows) + "\n")
    names = starfile.read(relion_project.micrographs_ctf)["micrographs"]["rlnMicrographName"]
    files = [f"ManualPick/job004/Movies/{n.split('/')[-1][:-4]}_manualpick.star" for n in names]
    table = "\n".join(f"{name} {file}" for name, file in zip(names, files, strict=True))
    head = "loop_\n_rlnMicrographName #1\n_rlnMicrographCoordinates #2\n"
    (job / "manualpick.star").write_text(f"data_coordinate_files\n\n{head}{table}\n")
    star = relion_project.micrographs_ctf.relative_to(root)
    (job / "coords_suffix_manualpick.star").write_text(f"{star}\n")
    for name in ("manualpick.star", "coords_suffix_manualpick.star"):
        require_truth(relion_project, job / name, 0.01)


def test_our_own_lists_are_read_back(picked, relion_project):
    output, n = picked
    sizes = {path.name: SIZE_PX for path in relion_project.micrographs}
    reads = [
        read_picks([output / name], sizes, only_known=True)
        for name in ("autopick.star", "particles.star", "coordinates/coords_suffix_autopick.star")
    ]
    for read in reads:
        assert sum(len(p.scores) for p in read) == n
        assert {p.name: p.centres_px.tolist() for p in read} == {
            p.name: p.centres_px.tolist() for p in reads[0]
        }


def test_with_the_other_frame_y_is_turned(picked, relion_project, tmp_path):
    pick(relion_project, tmp_path / "picks", "--output-frame", "jpeg", "--formats", "star", "csv")
    sizes = {path.name: SIZE_PX for path in relion_project.micrographs}
    expected = read_picks([picked[0] / "particles.star"], sizes)
    for name in ("particles.star", "autopick.star", "star/mic_00000.star"):
        file = tmp_path / "picks" / name
        assert "JPEG's frame" in file.read_text().splitlines()[0]
        for p in read_picks([file], sizes, frame="jpeg"):
            (same,) = (e for e in expected if e.name == p.name)
            np.testing.assert_allclose(p.centres_px, same.centres_px, atol=1e-5)


def test_the_guides_commands_with_the_list_make_particles_of_picks(
    picked, relion_project, tmp_path
):
    guide = (ROOT / "docs" / "picking_guide.md").read_text()
    blocks = re.findall(r"```bash\n([^`]*relion_preprocess[^`]*)```", guide)
    (commands,) = (block for block in blocks if "--reextract_data_star" in block)
    for name in ("CtfFind", "MotionCorr"):
        (tmp_path / name).symlink_to(relion_project.root / name)
    (tmp_path / "Picks").symlink_to(picked[0])
    for way in (
        "--reextract_data_star Picks/particles.star",
        "--coord_dir Picks/coordinates/ --coord_suffix _autopick.star",
    ):
        one = commands.replace("--reextract_data_star Picks/particles.star", way)
        assert way in guide and way in one
        subprocess.run(["bash", "-e", "-c", one], cwd=tmp_path, check=True, capture_output=True)
        star = tmp_path / "Extract" / "job004" / "particles.star"
        assert len(starfile.read(star)["particles"]) == picked[1]
        shutil.rmtree(tmp_path / "Extract")
