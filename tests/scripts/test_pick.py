"""Picking: what comes out, going on, evaluating, the threshold."""

import json
import multiprocessing
import os
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from picking.errors import InputWarning, LeftOut, UserError
from picking.files import locked
from picking.formats.coordinates import FORMATS, read_picks
from picking.labelling.folder.actions import Stroke
from picking.labelling.folder.derived import junk_file, write_junk
from picking.micrographs.junk import coarseness
from picking.micrographs.mrc import write_mrc
from picking.runs.checkpoints import load_checkpoint
from tests.fixtures import run_python
from tests.fixtures.data_sets import DIAMETER_PX, boxes, picture, some_centres, write_coco
from tests.fixtures.images import grain
from tests.fixtures.pickers import (
    TILES,
    Dark,
    assert_found,
    call,
    classifier_content,
    files_of,
    flags_for,
    pick,
    refused,
    write_checkpoint,
)


def kept_in(checkpoint):
    return json.loads(checkpoint.with_name("best_model.threshold.json").read_text())


def without_marks(folder):
    """The files of picks, without what tells which files they are of."""
    return {name: b for name, b in files_of(folder).items() if not name.startswith("scored")}


# Picking


def test_picks_are_where_the_particles_are_in_every_format(checkpoint, disks, tmp_path):
    printed = pick(checkpoint, disks.folder, tmp_path / "out", "--formats", *FORMATS)
    for name, suffix in FORMATS.items():
        files = sorted((tmp_path / "out" / name).glob(f"*{suffix}"))
        if name == "cs":  # always one file of all
            files = [tmp_path / "out" / "particles.cs"]
        assert_found(read_picks(files, disks.sizes), disks.centres)
    assert "3/3 c.jpg" in printed
    assert "Threshold 0.4000 (the checkpoint's, of training" in printed


def test_one_file_holds_all_micrographs(checkpoint, disks, tmp_path):
    pick(checkpoint, disks.folder, tmp_path / "out", "--one-file", "--formats", "star", "csv")
    for name in ("picks.star", "picks.csv"):
        assert_found(read_picks([tmp_path / "out" / name], disks.sizes), disks.centres)
    assert not (tmp_path / "out" / "star").exists()


def test_a_classifier_picks_too_by_the_diameter_that_it_was_trained_on(checkpoint, disks, tmp_path):
    content = classifier_content(patch_size_px=32, diameter_px=DIAMETER_PX)
    write_checkpoint(checkpoint, **content)
    found = ("--checkpoint", checkpoint, "--micrographs", disks.folder / "*.jpg")
    assert f"diameter {DIAMETER_PX} px" in call(*found, "--output", tmp_path / "out")
    picks = read_picks(sorted((tmp_path / "out/star").iterdir()), disks.sizes)
    assert_found(picks, disks.centres)


def test_nothing_is_picked_on_foil_and_it_is_told(checkpoint, disks, tmp_path):
    rng, folder = np.random.default_rng(3), tmp_path / "some"
    folder.mkdir()
    grey = np.asarray(Image.open(disks.folder / "a.jpg")).astype(float)
    foil = np.hypot(*np.indices(grey.shape)) < 150
    spots = picture(rng, some_centres(rng, 12, grey.shape), grey.shape)
    grey[foil] = spots[foil] - 90.0
    Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(folder / "a.jpg", quality=95)
    printed = pick(checkpoint, folder, tmp_path / "out", "--overlay", "--threshold", 0)
    kept = pick(checkpoint, folder, tmp_path / "kept", "--keep-junk", "--threshold", 0)
    sizes = {"a.jpg": grey.shape}
    ours, all_of_them = (
        read_picks([tmp_path / name / "star" / "a.star"], sizes)[0].centres_px
        for name in ("out", "kept")
    )
    n_in_junk = len(all_of_them) - len(ours)
    assert n_in_junk > 0 and f"({n_in_junk} candidates in junk left out)" in printed
    assert f"Left out: {n_in_junk} candidates on carbon" in printed and "Left out" not in kept
    assert np.hypot(*ours.T).min() > 140 and np.hypot(*all_of_them.T).min() < 100
    assert (tmp_path / "out/summary.csv").read_text().strip().endswith(f",{n_in_junk}")
    again = flags_for(checkpoint, folder, tmp_path / "out")
    assert "keep_junk" in refused(*again, "--keep-junk", "--resume")


@pytest.fixture
def painted(tmp_path):
    """A folder with a mask of a.jpg, as the labelling page writes it: its left half is junk."""
    stroke = Stroke(((0.0, 96.0), (320.0, 96.0)), 96.0, erases=False)
    write_junk(junk_file(tmp_path, "a.jpg"), [stroke], (320, 384))
    return tmp_path / "junk"


def test_nothing_is_picked_where_the_labelling_page_painted_junk(
    checkpoint, disks, painted, tmp_path
):
    flags = ("--threshold", 0, "--keep-junk", "--overlay")
    pick(checkpoint, disks.folder, tmp_path / "all", *flags)
    printed = pick(checkpoint, disks.folder, tmp_path / "out", *flags, "--junk", painted)
    ours, everywhere = (
        {
            p.name: p.centres_px
            for p in read_picks(sorted((tmp_path / f / "star").iterdir()), disks.sizes)
        }
        for f in ("out", "all")
    )
    x = everywhere["a.jpg"][:, 1]
    np.testing.assert_array_equal(ours["a.jpg"], everywhere["a.jpg"][x >= 192])
    n_in_junk = int((x < 192).sum())
    assert n_in_junk > 0 and f"({n_in_junk} candidates in junk left out)" in printed
    assert f"Left out: {n_in_junk} candidates in painted junk" in printed
    assert f",,{n_in_junk}\nb.jpg," in (tmp_path / "out/summary.csv").read_text()
    for name in ("b.jpg", "c.jpg"):
        np.testing.assert_array_equal(ours[name], everywhere[name])
    before, after = ((tmp_path / f / "overlays/a.jpg.png").read_bytes() for f in ("all", "out"))
    assert before != after


def test_a_threshold_for_an_expected_number_counts_nothing_in_painted_junk(
    checkpoint, disks, painted
):
    a = disks.folder / "a.jpg"
    found = ("--checkpoint", checkpoint, "--micrographs", a, "--diameter", f"{DIAMETER_PX}px")
    thresholds = []
    for more in ((), ("--junk", painted)):
        call(*found, "--expected-particles", 6, *more)
        thresholds.append(kept_in(checkpoint)["threshold"])
    assert thresholds[1] < thresholds[0]


def test_a_micrograph_that_is_junk_all_over_is_named_and_left_out(checkpoint, disks, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    shutil.copy(disks.folder / "a.jpg", folder)
    rng = np.random.default_rng(4)
    crystals = np.kron(rng.normal(128, 30, (32, 32)), np.ones((12, 12))) + rng.normal(
        0, 2, (384, 384)
    )
    Image.fromarray(crystals.clip(0, 255).astype(np.uint8)).save(folder / "b.jpg", quality=95)
    usual = coarseness(np.asarray(Image.open(folder / "a.jpg")), DIAMETER_PX)
    write_checkpoint(checkpoint, input={**TILES, "coarseness": usual})
    with pytest.raises(
        LeftOut, match=r"1 of 2 micrographs were left out \(b\.jpg\).*junk all over"
    ):
        pick(checkpoint, folder, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out/star").iterdir()] == ["a.star"]
    kept = pick(checkpoint, folder, tmp_path / "kept", "--keep-junk", "--threshold", 0)
    assert "junk all over" not in kept
    assert len(list((tmp_path / "kept/star").iterdir())) == 2


def test_white_particles_are_picked_with_invert_and_without_it_that_is_said(
    checkpoint, disks, tmp_path
):
    (tmp_path / "white").mkdir()
    for name in disks.sizes:
        white = 255 - np.asarray(Image.open(disks.folder / name).convert("L"))
        Image.fromarray(white).save(tmp_path / "white" / name, quality=95)
    with pytest.warns(InputWarning, match="white here.*try --invert"):
        pick(checkpoint, tmp_path / "white", tmp_path / "none")
    overlay = ("--invert", "--overlay")
    pick(checkpoint, tmp_path / "white", tmp_path / "out", *overlay)
    assert_found(read_picks(sorted((tmp_path / "out/star").iterdir()), disks.sizes), disks.centres)
    assert json.loads((tmp_path / "out/manifest.json").read_text())["invert"] is True
    pick(checkpoint, tmp_path / "white", tmp_path / "out", *overlay, "--resume")
    drawn = np.asarray(Image.open(tmp_path / "out/overlays/a.jpg.png").convert("L"))
    assert drawn.mean() < 130  # the micrograph as it is: white disks on dark ground
    again = (*flags_for(checkpoint, tmp_path / "white", tmp_path / "out"), "--overlay", "--resume")
    assert "invert" in refused(*again)
    with pytest.warns(InputWarning, match="dark here.*leave --invert out"):
        pick(checkpoint, disks.folder, tmp_path / "wrong", "--invert")


def test_micrographs_without_particles_are_not_said_to_be_inverted(checkpoint, tmp_path, recwarn):
    noise = np.random.default_rng(0).normal(140, 20, (320, 384)).clip(0, 255).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    pick(checkpoint, tmp_path, tmp_path / "out")
    assert not any("inverted" in str(line.message) for line in recwarn)


def test_the_pixel_size_of_the_headers_serves_where_none_is_given(checkpoint, disks, tmp_path):
    raw = np.asarray(Image.open(disks.folder / "a.jpg")).astype(float)
    write_mrc(tmp_path / "a.mrc", raw, 1.5)
    given = (
        "--checkpoint", checkpoint, "--micrographs", tmp_path / "a.mrc", "--diameter",
        f"{DIAMETER_PX * 1.5} \u00c5", "--output",
    )  # fmt: skip
    assert "1.5 Å (the headers of 1 MRC" in call(*given, tmp_path / "one")
    with pytest.warns(InputWarning, match=r"4\.5 Å.*1\.5 Å"):
        call(*given, tmp_path / "three", "--pixel-size", 4.5)
    call(*given, tmp_path / "two", "--pixel-size", 1.5)
    assert without_marks(tmp_path / "one") == without_marks(tmp_path / "two")


def test_an_mrc_gives_the_picks_of_its_jpeg_in_the_frame_of_the_mrc(checkpoint, disks, tmp_path):
    centres, sizes = {"a.mrc": disks.centres["a.jpg"]}, {"a.mrc": disks.sizes["a.jpg"]}
    raw = np.asarray(Image.open(disks.folder / "a.jpg")).astype(float) * 7 - 300
    write_mrc(tmp_path / "a.mrc", raw, 1.5)
    call(
        "--checkpoint", checkpoint, "--micrographs", tmp_path / "a.mrc", "--output",
        tmp_path / "out", "--diameter", f"{DIAMETER_PX * 1.5}A", "--pixel-size", 1.5,
    )  # fmt: skip
    star = tmp_path / "out/star/a.star"
    assert_found(read_picks([star], sizes), centres, within_px=6)
    upside_down = {"a.mrc": np.abs(centres["a.mrc"] - (sizes["a.mrc"][0], 0))}
    assert_found(read_picks([star], sizes, frame="jpeg"), upside_down, within_px=6)


def test_a_higher_threshold_leaves_fewer_picks_and_the_table_counts_them(
    checkpoint, disks, tmp_path
):
    write_checkpoint(checkpoint, network={"width": torch.tensor(0.8)})  # not sure of anything
    counts = []
    for threshold in (0.2, 0.65):
        output = tmp_path / str(threshold)
        printed = pick(checkpoint, disks.folder, output, "--threshold", threshold, "--one-file")
        assert f"Threshold {threshold:.4f} (--threshold)" in printed
        picks = read_picks([output / "picks.star"], disks.sizes)
        assert min(p.scores.min() for p in picks) >= threshold - 1e-6
        counts.append(sum(len(p.scores) for p in picks))
        table = (output / "thresholds.csv").read_text().splitlines()
        row = next(line for line in table if line.startswith(f"{threshold},"))
        assert int(row.split(",")[1]) == counts[-1]
        summary = (output / "summary.csv").read_text().splitlines()[1:]
        assert sum(int(line.split(",")[1]) for line in summary) == counts[-1]
    assert counts[0] > counts[1] > 0


def test_pictures_are_made_when_asked_for(checkpoint, disks, tmp_path):
    pick(checkpoint, disks.folder, tmp_path / "plain")
    assert not list((tmp_path / "plain").rglob("*.png"))
    pick(checkpoint, disks.folder, tmp_path / "out", "--overlay", "--heatmap")
    assert Image.open(tmp_path / "out/heatmaps/a.jpg.png").size == (192, 192)
    overlay = np.asarray(Image.open(tmp_path / "out/overlays/a.jpg.png")).astype(int)
    assert (np.ptp(overlay, axis=2) > 60).sum() > 500  # coloured circles on grey


def test_on_a_grey_micrograph_nothing_is_picked_and_no_file_is_written_over_which_others_fall(
    checkpoint, tmp_path
):
    (tmp_path / "grey").mkdir()
    Image.fromarray(grain((320, 384))).save(tmp_path / "grey" / "a.jpg", quality=95)
    flags = ("--formats", *FORMATS, "--overlay", "--heatmap", "--threshold", 0.9)
    printed = pick(checkpoint, tmp_path / "grey", tmp_path / "out", *flags)
    assert "No star, box, cbox of 1 micrographs without a pick" in printed
    (found,) = read_picks([tmp_path / "out" / "csv" / "a.csv"], {"a.jpg": (320, 384)})
    assert len(found.scores) == 0
    assert files_of(tmp_path / "out").keys() == {
        "coco/a.json", "csv/a.csv", "heatmaps/a.jpg.png", "manifest.json", "overlays/a.jpg.png",
        "particles.cs", "particles.csg", "scored/a.jpg.npz", "summary.csv", "thresholds.csv",
    }  # fmt: skip
    assert (tmp_path / "out/summary.csv").read_text().splitlines()[1] == "a.jpg,0,,,,0"
    printed = pick(checkpoint, tmp_path / "grey", tmp_path / "out", *flags, "--resume")
    assert "1 of 1 micrographs are done already" in printed


# Going on


def test_a_resumed_run_ends_as_if_never_stopped(checkpoint, disks, tmp_path, monkeypatch):
    flags = ("--formats", "star", "coco", "--overlay", "--heatmap")
    pick(checkpoint, disks.folder, tmp_path / "whole", *flags)
    from picking.detection import micrographs as loop

    pick_one, picked = loop.pick, []

    def stopping(picker, path, *args):
        if len(picked) == 2:
            raise KeyboardInterrupt
        picked.append(path.name)
        return pick_one(picker, path, *args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "pick", stopping)
        with pytest.raises(KeyboardInterrupt):
            pick(checkpoint, disks.folder, tmp_path / "out", *flags)
    (tmp_path / "out/star/.c.star.99.tmp").write_text("half")
    printed = pick(checkpoint, disks.folder, tmp_path / "out", *flags, "--resume")
    assert "2 of 3 micrographs are done already" in printed
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_micrographs_with_another_mask_of_junk_are_picked_again_and_no_others(
    checkpoint, disks, painted, tmp_path
):
    out, junk = tmp_path / "out", ("--junk", painted)
    pick(checkpoint, disks.folder, out)
    printed = pick(checkpoint, disks.folder, out, *junk, "--resume")
    assert "2 of 3 micrographs are done already" in printed and "masks of junk" in printed
    pick(checkpoint, disks.folder, tmp_path / "whole", *junk)
    assert files_of(out) == files_of(tmp_path / "whole")
    assert "3 of 3" in pick(checkpoint, disks.folder, out, *junk, "--resume")
    Image.new("L", (384, 320), 0).save(painted / "a.png")  # all of it was erased
    assert "2 of 3" in pick(checkpoint, disks.folder, out, *junk, "--resume")
    Image.new("L", (384, 320), 0).save(painted / "c.png")
    assert "2 of 3" in pick(checkpoint, disks.folder, out, *junk, "--resume")
    assert "1 of 3" in pick(checkpoint, disks.folder, out, "--resume")


def test_masks_of_junk_of_other_micrographs_are_refused(checkpoint, disks, painted, tmp_path):
    (painted / "a.png").rename(painted / "other.png")
    flags = (*flags_for(checkpoint, disks.folder, tmp_path / "out"), "--junk", painted)
    assert "1 of 1 masks" in refused(*flags)
    assert "is no folder" in refused(*flags[:-1], painted / "a.png")


# Shared out

SHARED = ("--formats", "star", "cs", "--overlay", "--heatmap")


@pytest.mark.parametrize("more", [(), ("--expected-particles", 12)])
def test_workers_leave_the_same_files_and_go_on_where_a_run_ended(
    checkpoint, disks, tmp_path, monkeypatch, more
):
    pick(checkpoint, disks.folder, tmp_path / "whole", *SHARED, *more)
    from picking.detection import output

    save, flags = output.save_picks, (*SHARED, *more, "--num-workers", 2)

    def stopping(folder, picks, *others):
        if picks.name == "b.jpg":
            raise KeyboardInterrupt
        save(folder, picks, *others)

    with monkeypatch.context() as patch:
        patch.setattr(output, "save_picks", stopping)
        with pytest.raises(KeyboardInterrupt):
            pick(checkpoint, disks.folder, tmp_path / "out", *flags)
    assert not multiprocessing.active_children()
    printed = pick(checkpoint, disks.folder, tmp_path / "out", *flags, "--resume")
    assert "1 of 3 micrographs are done already" in printed
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_a_worker_leaves_out_what_cannot_be_read_and_passes_on_what_must_end_the_run(
    checkpoint, disks, tmp_path, monkeypatch
):
    images, flags = tmp_path / "images", ("--num-workers", 2)
    shutil.copytree(disks.folder, images)
    Image.new("L", (384, 320), 7).save(images / "b.jpg")
    arguments = flags_for(checkpoint, images, tmp_path / "out")
    with pytest.raises(LeftOut, match=r"1 of 3 micrographs were left out \(b\.jpg\)"):
        call(*arguments, *flags)
    assert sorted(path.name for path in (tmp_path / "out/star").iterdir()) == ["a.star", "c.star"]
    monkeypatch.setattr(Dark, "forward", lambda network, x: x * np.nan)
    for path in (tmp_path / "out/scored").iterdir():
        path.unlink()
    assert "a.jpg are not finite" in refused(*arguments, *flags, "--resume")


@pytest.mark.parametrize("by_number", [False, True])
def test_processes_of_torchrun_share_the_micrographs_and_leave_the_same_files(
    checkpoint, disks, tmp_path, by_number
):
    (tmp_path / "script.py").write_text(
        "import pytest, pick_particles\n"
        "from picking.errors import run_script\n"
        "from tests.fixtures.pickers import know\n"
        "know(pytest.MonkeyPatch())\n"
        "run_script(pick_particles.main)\n"
    )
    flags = ["--formats", "star", "cs", "--overlay", "--evaluate", disks.folder / "truth.json"]
    if by_number:
        flags[-2:] = ["--expected-particles", 12]
    for name, launcher in (
        ("one", []),
        ("two", ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]),
    ):
        arguments = flags_for(checkpoint, disks.folder, tmp_path / name)
        done = run_python(*launcher, tmp_path / "script.py", *arguments, *flags)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("Finished") == done.stdout.count("Threshold") == 1
        assert sorted(re.findall(r"/\d (\w\.jpg):", done.stdout)) == ["a.jpg", "b.jpg", "c.jpg"]
    assert "1/2" in done.stdout and "3/3" not in done.stdout
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")


def test_micrographs_that_came_later_are_added(checkpoint, disks, tmp_path):
    new = tmp_path / "new"
    new.mkdir()
    shutil.copy2(disks.folder / "a.jpg", new)
    pick(checkpoint, new, tmp_path / "out", "--one-file")
    for name in ("b.jpg", "c.jpg"):
        shutil.copy2(disks.folder / name, new)
    printed = pick(checkpoint, new, tmp_path / "out", "--one-file", "--resume")
    assert "1 of 3 micrographs are done already" in printed
    assert_found(read_picks([tmp_path / "out/picks.star"], disks.sizes), disks.centres)


def test_a_number_changes_all_picks_with_more_micrographs_and_leaves_what_one_run_does(
    checkpoint, disks, tmp_path
):
    new, flags = tmp_path / "new", ("--expected-particles", 20, "--overlay", "--heatmap")
    new.mkdir()
    for names in (("a.jpg",), ("b.jpg", "c.jpg")):
        for name in names:
            shutil.copy2(disks.folder / name, new)
        printed = pick(checkpoint, new, tmp_path / "out", *flags, "--resume")
    assert "Removed" in printed  # the threshold is another
    pick(checkpoint, disks.folder, tmp_path / "at_once", *flags)
    assert without_marks(tmp_path / "out") == without_marks(tmp_path / "at_once")


def test_picks_of_micrographs_that_are_not_given_any_more_go_and_their_scores_stay(
    checkpoint, disks, tmp_path, no_inference
):
    out = tmp_path / "out"
    flags = ("--overlay", "--formats", "star", "csv")
    pick(checkpoint, disks.folder, out, *flags)
    before = files_of(out)
    two = [disks.folder / name for name in ("a.jpg", "c.jpg")]
    no_inference()
    printed = pick(checkpoint, disks.folder, out, *flags, "--resume", "--micrographs", *two)
    assert (
        "Removed the picks of 1 micrographs that are not among those given now (b.jpg)" in printed
    )
    assert {name for name in before if name not in files_of(out)} == {
        "csv/b.csv", "overlays/b.jpg.png", "star/b.star"
    }  # fmt: skip
    again = pick(checkpoint, disks.folder, out, *flags, "--resume", "--micrographs", *two)
    assert "Removed" not in again
    pick(checkpoint, disks.folder, out, *flags, "--resume")
    assert files_of(out) == before


@pytest.mark.parametrize("more", [(), ("--expected-particles", 12)])
def test_other_micrographs_under_the_same_names_are_picked_again(checkpoint, disks, tmp_path, more):
    other, flags = tmp_path / "other", ("--formats", "star", "csv", *more)
    pick(checkpoint, disks.folder, tmp_path / "out", *flags)
    shutil.copytree(disks.folder, other)
    taller = np.pad(np.asarray(Image.open(other / "a.jpg")), ((0, 64), (0, 0)), mode="reflect")
    Image.fromarray(taller).save(other / "a.jpg")
    shutil.copy(disks.folder / "c.jpg", other / "b.jpg")
    os.utime(other / "c.jpg")  # the same content, at another time
    printed = pick(checkpoint, other, tmp_path / "out", *flags, "--resume")
    assert "1 of 3 micrographs are done already" in printed
    assert "Picking again" in printed and "a.jpg" in printed
    pick(checkpoint, other, tmp_path / "anew", *flags)
    assert without_marks(tmp_path / "out") == without_marks(tmp_path / "anew")


def test_a_folder_that_is_not_empty_is_left_alone(checkpoint, disks, tmp_path):
    arguments = flags_for(checkpoint, disks.folder, tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("mine")
    for flag in ((), ("--resume",)):
        assert "thesis.txt" in refused(*arguments, *flag)
    (tmp_path / "out/thesis.txt").unlink()
    call(*arguments)
    before = files_of(tmp_path / "out")
    assert "--resume" in refused(*arguments)
    other = refused(*arguments, "--resume", "--diameter", "21px", "--formats", "box")
    assert "another diameter_px:" in other
    write_checkpoint(checkpoint, epoch=7)
    assert "another checkpoint" in refused(*arguments, "--resume")
    assert files_of(tmp_path / "out") == before


@pytest.fixture
def no_inference(monkeypatch):
    """Have the network refuse to be asked, once this is called."""

    def ask(*_):
        raise AssertionError("no network is needed")

    return lambda: monkeypatch.setattr("picking.detection.micrographs.pick", ask)


def test_another_threshold_or_format_is_made_without_inference_and_leaves_nothing_stale(
    checkpoint, disks, tmp_path, no_inference
):
    truth, out = disks.folder / "truth.json", tmp_path / "out"
    commands = [
        ("--overlay",),
        ("--overlay", "--evaluate", truth),
        ("--overlay",),
        ("--threshold", 0.95, "--overlay", "--formats", "star", "box"),
        ("--one-file",),
        ("--formats", "csv", "--overlay", "--threshold", 0.2, "--evaluate", truth),
        ("--formats", "box", "coco"),
        ("--formats", "cs", "star"),
        ("--threshold", 1.0),
        ("--formats", "star"),
    ]
    for n, flags in enumerate(commands):
        pick(checkpoint, disks.folder, tmp_path / str(n), "--threshold", 0.4, *flags)
    pick(checkpoint, disks.folder, out)
    no_inference()
    for n, flags in enumerate(commands):
        printed = pick(checkpoint, disks.folder, out, "--threshold", 0.4, *flags, "--resume")
        assert "3 of 3 micrographs are done already" in printed and "Removed" in printed
        assert files_of(out) == files_of(tmp_path / str(n)), flags
        folders, wanted = (
            {path.name for path in folder.iterdir() if path.is_dir()}
            for folder in (out, tmp_path / str(n))
        )
        assert folders == wanted


def test_a_heatmap_that_is_lacking_is_made_and_one_that_is_there_is_kept(
    checkpoint, disks, tmp_path, no_inference
):
    pick(checkpoint, disks.folder, tmp_path / "anew", "--heatmap")
    pick(checkpoint, disks.folder, tmp_path / "out")
    pick(checkpoint, disks.folder, tmp_path / "out", "--resume", "--heatmap")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "anew")
    no_inference()
    pick(checkpoint, disks.folder, tmp_path / "out", "--resume", "--threshold", 0.9)
    assert len(list((tmp_path / "out/heatmaps").iterdir())) == 3


def test_a_file_that_is_gone_is_written_again(checkpoint, disks, tmp_path, no_inference):
    pick(checkpoint, disks.folder, tmp_path / "out", "--overlay")
    before = files_of(tmp_path / "out")
    (tmp_path / "out/star/b.star").unlink()
    (tmp_path / "out/overlays/c.jpg.png").unlink()
    no_inference()
    pick(checkpoint, disks.folder, tmp_path / "out", "--overlay", "--resume")
    assert files_of(tmp_path / "out") == before


def test_a_folder_of_an_older_version_is_gone_on_with(checkpoint, disks, tmp_path, no_inference):
    out = tmp_path / "out"
    pick(checkpoint, disks.folder, out)
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["evaluate"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    no_inference()
    printed = pick(checkpoint, disks.folder, out, "--resume")
    assert "3 of 3" in printed and "Removed" not in printed
    pick(checkpoint, disks.folder, out, "--resume", "--formats", "csv")
    assert (out / "csv/a.csv").exists() and not (out / "star").exists()


def test_candidates_of_an_older_version_are_made_again_for_a_threshold_that_they_do_not_reach(
    checkpoint, disks, tmp_path
):
    out = tmp_path / "out"
    pick(checkpoint, disks.folder, out)
    before = files_of(out)
    for path in (out / "scored").iterdir():
        arrays = dict(np.load(path))
        del arrays["lowest_score"]
        kept = arrays["scores"] >= 0.05
        arrays |= {name: arrays[name][kept] for name in ("centres_px", "scores", "diameters_px")}
        np.savez(path, **arrays)
    assert "3 of 3" in pick(checkpoint, disks.folder, out, "--resume", "--threshold", 0.3)
    printed = pick(checkpoint, disks.folder, out, "--resume", "--threshold", 0.02)
    assert "Picking again 3" in printed
    pick(checkpoint, disks.folder, out, "--resume", "--threshold", 0.4)
    assert files_of(out) == before


def test_a_run_that_was_killed_amid_its_first_file_can_be_gone_on_with(checkpoint, disks, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.manifest.json.99.tmp").write_text("half")
    pick(checkpoint, disks.folder, tmp_path / "out", "--resume")
    pick(checkpoint, disks.folder, tmp_path / "whole")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_two_processes_do_not_pick_into_one_folder(checkpoint, disks, tmp_path, monkeypatch):
    monkeypatch.setattr("picking.files.LOCK_PATIENCE_S", 0.0)
    with locked(tmp_path / "out"), pytest.raises(UserError, match="is in use by process"):
        pick(checkpoint, disks.folder, tmp_path / "out")


# Against the truth


def test_evaluating_says_how_good_the_picks_are(checkpoint, disks, tmp_path):
    out, truth = tmp_path / "out", disks.folder / "truth.json"
    printed = pick(checkpoint, disks.folder, out, "--evaluate", truth, "--overlay")
    report = json.loads((out / "evaluation.json").read_text())
    assert report["n_micrographs"] == 3 and report["n_truth"] == 36
    assert report["f1"] > 0.85 and report["threshold"] == 0.4
    nearest = min(min(c.min(), ((320, 384) - c).min()) for c in disks.centres.values())
    assert report["margin_px"] == int(nearest)
    assert f"f1         {report['f1']:.3f}" in printed
    assert (out / "pr_curve.png").exists() and (out / "overlays/a.jpg.png").exists()


def test_picks_in_files_get_the_same_metrics(checkpoint, disks, tmp_path):
    truth = disks.folder / "truth.json"
    flags = ("--evaluate", truth, "--formats", "star", "box")
    pick(checkpoint, disks.folder, tmp_path / "out", *flags)
    ours = json.loads((tmp_path / "out/evaluation.json").read_text())
    for n, more in enumerate((("--micrographs", disks.folder / "*.jpg"), ())):
        for suffix in ("star", "box"):
            output = tmp_path / f"{suffix}{n}"
            pattern = tmp_path / "out" / suffix / f"*.{suffix}"
            call("--evaluate", truth, "--picks", pattern, "--output", output, *more)
            report = json.loads((output / "evaluation.json").read_text())
            for name in ("precision", "recall", "f1", "n_picks", "n_found", "margin_px"):
                assert report[name] == ours[name], (suffix, name)


@pytest.mark.parametrize("flags", [("--formats", "star"), ("--formats", "cs"), ("--one-file",)])
def test_a_micrograph_that_was_picked_in_vain_counts_though_no_file_names_it(
    checkpoint, disks, tmp_path, flags
):
    images, out = tmp_path / "images", tmp_path / "out"
    shutil.copytree(disks.folder, images)
    Image.fromarray(grain((320, 384))).save(images / "b.jpg", quality=95)
    truth = images / "truth.json"
    pick(checkpoint, images, out, "--evaluate", truth, *flags)
    ours = json.loads((out / "evaluation.json").read_text())
    assert ours["n_truth"] == 36
    files = [path for path in out.rglob("*") if path.suffix in (".star", ".cs")]
    assert not any(path.stem == "b" for path in files)
    call("--evaluate", truth, "--picks", *files, "--output", tmp_path / "again")
    again = json.loads((tmp_path / "again/evaluation.json").read_text())
    assert [again[key] for key in ("n_truth", "recall")] == [ours["n_truth"], ours["recall"]]
    if len(files) > 1:  # who gives some of the files asks for these micrographs alone
        call("--evaluate", truth, "--picks", files[0], "--output", tmp_path / "one")
        assert json.loads((tmp_path / "one/evaluation.json").read_text())["n_truth"] == 12


def test_metrics_are_printed_where_no_folder_is_asked_for(disks):
    truth = disks.folder / "truth.json"
    printed = call("--evaluate", truth, "--picks", truth, "--annotated-margin", 40)
    assert "inside a margin of 40 px, all picks" in printed
    assert "f1         1.000" in printed


def test_truth_without_diameters_is_matched_and_drawn_by_the_one_given(checkpoint, disks, tmp_path):
    rows = [
        f"{name} {x} {y}" for name, centres in disks.centres.items() for y, x in centres.tolist()
    ]
    head = "data_\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n"
    (tmp_path / "truth.star").write_text(head + "\n".join(rows) + "\n")
    flags = ("--evaluate", tmp_path / "truth.star", "--truth-frame", "jpeg", "--overlay")
    pick(checkpoint, disks.folder, tmp_path / "out", *flags)
    assert json.loads((tmp_path / "out/evaluation.json").read_text())["f1"] > 0.85
    assert (tmp_path / "out/overlays/a.jpg.png").exists()


def test_coordinates_in_the_wrong_frame_are_noticed(checkpoint, disks, tmp_path):
    pick(checkpoint, disks.folder, tmp_path / "out", "--formats", "box", "cs")
    truth = ("--evaluate", disks.folder / "truth.json", "--diameter", f"{DIAMETER_PX}px")
    for pattern in ("box/*.box", "particles.cs", "particles.csg"):
        files = ("--picks", tmp_path / "out" / pattern, "--micrographs", disks.folder / "*.jpg")
        assert "give --frame mrc" in refused(*truth, *files, "--frame", "jpeg")
        assert "give --truth-frame jpeg" in refused(*truth, *files, "--truth-frame", "mrc")


def test_picks_and_truth_of_other_micrographs_are_both_named(disks, tmp_path):
    write_coco(tmp_path / "other.json", {"z.jpg": boxes([(100, 100)])}, (320, 384))
    truth = disks.folder / "truth.json"
    message = refused("--evaluate", truth, "--picks", tmp_path / "other.json")
    assert "z.jpg" in message and "a.jpg" in message


# The threshold


def test_the_chosen_threshold_lies_beside_the_checkpoint_and_is_used(checkpoint, disks, tmp_path):
    before, truth = checkpoint.read_bytes(), disks.folder / "truth.json"
    pick(checkpoint, disks.folder, tmp_path / "begun")
    arguments = (*flags_for(checkpoint, disks.folder), "--choose-threshold", truth)
    call(*arguments)
    kept = kept_in(checkpoint)
    on = kept["chosen_on"]
    assert (on["micrographs"], on["diameter_px"]) == (list(disks.sizes), 20)
    assert on["wanted_precision"] is None
    printed = pick(checkpoint, disks.folder, tmp_path / "out", "--evaluate", truth)
    assert (
        f"Threshold {kept['threshold']:.4f} (the checkpoint's, chosen for picking as the top"
        in printed
    )
    report = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert report["f1"] == pytest.approx(on["f1"]) == report["best"]["f1"]

    call(*arguments, "--precision", 1.0)
    strict = kept_in(checkpoint)
    assert strict["chosen_on"]["precision"] == 1 and strict["threshold"] >= kept["threshold"]
    assert checkpoint.read_bytes() == before
    resumed = pick(checkpoint, disks.folder, tmp_path / "begun", "--resume")
    assert "3 of 3 micrographs are done already" in resumed and "was begun" in resumed


def test_no_threshold_is_chosen_for_a_run_that_still_trains(
    checkpoint, disks, tmp_path, monkeypatch
):
    monkeypatch.setattr("picking.files.LOCK_PATIENCE_S", 0.0)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").touch()
    of_run = checkpoint.rename(run / "checkpoints" / "best_model.pt")
    (of_run.parent / ".best_model.pt.99.tmp").touch()  # by a process that was killed
    arguments = (*flags_for(of_run, disks.folder), "--expected-particles", 12)
    with locked(run):
        assert f"{run} is in use by process" in refused(*arguments)
        assert len(list(of_run.parent.iterdir())) == 2
    call(*arguments)
    there = {path.name for path in of_run.parent.iterdir()}
    assert there == {"best_model.pt", "best_model.threshold.json"}


@pytest.mark.parametrize("n_expected", [12, 2.4, 0.1])
def test_the_threshold_for_an_expected_number_gives_so_many_picks(
    checkpoint, disks, tmp_path, n_expected
):
    arguments = flags_for(checkpoint, disks.folder)
    call(*arguments, "--expected-particles", n_expected)
    kept = kept_in(checkpoint)
    assert kept["chosen_on"] == {
        "micrographs": list(disks.sizes), "diameter_px": 20, "expected_particles": n_expected,
    }  # fmt: skip
    assert load_checkpoint(checkpoint)["threshold"] == 0.4  # that of training stays
    printed = call(*arguments, "--output", tmp_path / "out")
    assert "(the checkpoint's, chosen for picking as the top" in printed
    found = read_picks(sorted((tmp_path / "out/star").iterdir()), disks.sizes)
    n_picks = sum(len(picks.centres_px) for picks in found)
    assert n_picks == max(1, round(3 * n_expected))
    scores = [np.load(path)["scores"] for path in (tmp_path / "out/scored").iterdir()]
    best = np.sort(np.concatenate(scores))[::-1]
    assert best[n_picks - 1] == kept["threshold"] > best[n_picks]


@pytest.mark.parametrize("n_expected", [12, 2.4, 30])
def test_an_expected_number_is_picked_at_once_and_nothing_is_kept_beside_the_checkpoint(
    checkpoint, disks, tmp_path, n_expected
):
    given = (*flags_for(checkpoint, disks.folder), "--expected-particles", n_expected)
    printed = call(*given, "--output", tmp_path / "out")
    assert not list(checkpoint.parent.glob("*.threshold.json"))
    assert f"{n_expected:g} picks a micrograph on average reach " in printed
    found = read_picks(sorted((tmp_path / "out/star").iterdir()), disks.sizes)
    assert sum(len(picks.centres_px) for picks in found) == round(3 * n_expected)
    files = {path: path.read_text() for path in (tmp_path / "out/star").iterdir()}
    call(*given, "--output", tmp_path / "out", "--resume")
    assert {path: path.read_text() for path in (tmp_path / "out/star").iterdir()} == files


def test_an_expected_number_is_found_where_all_scores_are_faint(
    checkpoint, disks, tmp_path, monkeypatch
):
    sure = Dark.forward
    monkeypatch.setattr(Dark, "forward", lambda network, x: sure(network, x) - 30)
    arguments = flags_for(checkpoint, disks.folder)
    call(*arguments, "--expected-particles", 12)
    assert kept_in(checkpoint)["threshold"] < 0.05
    call(*arguments, "--output", tmp_path / "out")
    assert_found(read_picks(sorted((tmp_path / "out/star").iterdir()), disks.sizes), disks.centres)


# What the files hold besides


def test_true_particles_of_the_category_count_and_each_once(disks, tmp_path):
    content = json.loads((disks.folder / "truth.json").read_text())
    n, others = len(content["annotations"]), [dict(one) for one in content["annotations"]]
    content["categories"] = [{"id": 1, "name": "particle"}, {"id": 2, "name": "ice"}]
    for one in others:
        one.update(category_id=2, bbox=[one["bbox"][0] - 9, *one["bbox"][1:]])
    content["annotations"] += [dict(one) for one in content["annotations"]] + others
    for number, one in enumerate(content["annotations"]):
        one["id"] = number
    (tmp_path / "truth.json").write_text(json.dumps(content))
    picks = disks.folder / "truth.json"
    with pytest.warns(InputWarning) as said:
        printed = call("--evaluate", tmp_path / "truth.json", "--picks", picks)
    assert "f1         1.000" in printed
    lines = [str(line.message) for line in said]
    assert any(f"{n} boxes of 'ice' are left out" in line for line in lines)
    assert any(f"{n} of {2 * n} particles are listed twice" in line for line in lines)


def test_picks_that_are_listed_twice_are_said_and_stay_false(disks, tmp_path):
    content = json.loads((disks.folder / "truth.json").read_text())
    n = len(content["annotations"])
    content["annotations"] *= 2
    (tmp_path / "picks.json").write_text(json.dumps(content))
    flags = ("--evaluate", disks.folder / "truth.json", "--picks", tmp_path / "picks.json")
    with pytest.warns(InputWarning, match=f"{n} of {2 * n} .*false picks"):
        assert "precision  0.500" in call(*flags)
    assert "--category ice chooses in COCO" in refused(
        "--evaluate", "truth.star", "--picks", "picks.box", "--category", "ice"
    )


def test_all_blocks_of_a_star_file_are_scored(disks, tmp_path):
    head = "loop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n"
    text = ""
    for name, centres in disks.centres.items():
        rows = [f"{name} {x} {320 - y}" for y, x in centres.tolist()]
        text += f"data_\n\n{head}" + "\n".join(rows) + "\n\n"
    (tmp_path / "picks.star").write_text(text)
    printed = call(
        "--evaluate", disks.folder / "truth.json", "--picks", tmp_path / "picks.star",
        "--micrographs", disks.folder / "*.jpg", "--diameter", "20px",
    )  # fmt: skip
    assert "f1         1.000" in printed and f"{len(disks.centres)} micrographs" in printed
