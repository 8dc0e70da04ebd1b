"""Picking: micrographs with bad pixels are mended, those beyond help left out, the rest picked."""

import contextlib
import csv
import gzip
import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

import pick_particles
from picking.detection import output
from picking.formats.coordinates import read_picks
from picking.micrographs import reading
from picking.micrographs.mrc import write_mrc
from tests.fixtures.data_sets import DIAMETER_PX, boxes, write_coco
from tests.fixtures.pickers import assert_found, files_of
from tests.fixtures.stopping import leave

SIZE_PX = (320, 384)
NAMES = ("a.mrc", "b.mrc", "c.mrc")


@pytest.fixture
def raw(disks, tmp_path):
    """The three micrographs as MRCs, to change: the folder, with their truth in truth.json."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for jpg in disks.centres:
        image = np.asarray(Image.open(disks.folder / jpg)).astype(np.float32)
        write_mrc(folder / jpg.replace(".jpg", ".mrc"), image, 1.5)
    truth = {jpg: boxes(centres) for jpg, centres in disks.centres.items()}
    write_coco(folder / "truth.json", truth, SIZE_PX)
    return folder


@pytest.fixture
def run(checkpoint, raw, tmp_path, capsys):
    """Run the script to its exit; return its status, stderr, and what it printed."""

    def run(*flags, out=tmp_path / "out"):
        argv = [
            "pick_particles.py", "--checkpoint", checkpoint, "--micrographs", raw / "*.mrc",
            "--device", "cpu", "--diameter", f"{DIAMETER_PX}px", *flags,
        ]  # fmt: skip
        if out:
            argv += ["--output", out]
        printed = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            patch.setattr(sys, "argv", [str(arg) for arg in argv])
            left = leave(pick_particles.main, capsys)
        left.out = printed.getvalue()
        return left

    return run


def spoil(path, how):
    """Make a micrograph one that is beyond help; return what it was."""
    whole = path.read_bytes()
    values = np.full(SIZE_PX, 100, np.float32)
    if how == "nan":
        values[::2] = np.nan
    if how in ("nan", "constant"):
        write_mrc(path, values, 1.5)
    elif how == "header":
        path.write_bytes(b"no image" * 300)
    else:
        path.write_bytes(whole[:-1000])
    return whole


def summary_of(folder):
    with (folder / "summary.csv").open() as file:
        return {row["micrograph"]: row for row in csv.DictReader(file)}


BAD = pytest.mark.filterwarnings("ignore:Data array contains NaN")


@BAD
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_one_bad_pixel_is_replaced_and_said_and_changes_no_pick(run, raw, tmp_path, value):
    assert run(out=tmp_path / "whole").status == 0
    image = reading.read_mrc(raw / "b.mrc", {}).copy()
    image[100, 50] = value
    write_mrc(raw / "b.mrc", image[::-1], 1.5)
    left = run()
    assert left.status == 0
    assert left.out.count("(1 bad px replaced)") == left.out.count("px replaced") == 1
    assert left.err.count("warning: 1 bad px") == 1 and "b.mrc" in left.err
    star = [
        read_picks([tmp_path / out / "star" / "b.star"], {"b.mrc": SIZE_PX})[0]
        for out in ("whole", "out")
    ]
    np.testing.assert_allclose(star[0].centres_px, star[1].centres_px, atol=0.3)


@BAD
@pytest.mark.parametrize("how", ["nan", "constant", "header", "cut"])
@pytest.mark.parametrize("flags", [(), ("--one-file",), ("--overlay", "--heatmap")])
def test_a_micrograph_beyond_help_is_left_out_and_the_others_are_picked(
    run, raw, disks, tmp_path, how, flags
):
    spoil(raw / "b.mrc", how)
    left = run(*flags)
    assert left.status == 3
    assert left.err.count("\n") == 1 and "b.mrc" in left.err and "1 of 3" in left.err
    assert "b.mrc" in left.out.split("Finished")[0]
    summary = summary_of(tmp_path / "out")
    assert set(summary) == set(NAMES)
    assert "b.mrc" in summary["b.mrc"]["left_out"] and summary["b.mrc"]["picks"] == ""
    assert summary["a.mrc"]["left_out"] == summary["c.mrc"]["left_out"] == ""
    stars = sorted((tmp_path / "out").rglob("*.star"))
    assert [p.stem for p in stars] == (["picks"] if "--one-file" in flags else ["a", "c"])
    picks = read_picks(stars, dict.fromkeys(NAMES, SIZE_PX))
    assert_found(picks, {f"{n}.mrc": disks.centres[f"{n}.jpg"] for n in "ac"}, 8)


@BAD
@pytest.mark.parametrize("how", ["constant", "cut"])
def test_with_strict_the_first_one_ends_the_run(run, raw, tmp_path, how):
    spoil(raw / "b.mrc", how)
    left = run("--strict")
    assert left.status == 2 and "b.mrc" in left.err
    assert not (tmp_path / "out" / "summary.csv").exists()


@BAD
@pytest.mark.parametrize("how", ["nan", "header"])
def test_a_mended_one_is_picked_with_resume_and_the_rest_is_kept(run, raw, tmp_path, how):
    assert run(out=tmp_path / "whole").status == 0
    whole = spoil(raw / "b.mrc", how)
    assert run().status == 3
    again = run("--resume")
    assert again.status == 3 and "b.mrc" in again.err and "2 of " in again.out
    (raw / "b.mrc").write_bytes(whole)
    left = run("--resume")
    assert left.status == 0 and "2 of 3 micrographs are done already" in left.out
    apart = [
        {k: v for k, v in files_of(tmp_path / out).items() if not k.startswith("scored")}
        for out in ("whole", "out")
    ]
    assert apart[0] == apart[1]


def test_of_one_that_was_good_before_no_picks_stay(run, raw, tmp_path):
    assert run("--overlay").status == 0
    spoil(raw / "b.mrc", "constant")
    assert run("--overlay", "--resume").status == 3
    assert not list((tmp_path / "out" / "star").glob("b*"))
    assert not list((tmp_path / "out" / "overlays").glob("b*"))


@BAD
@pytest.mark.parametrize("how", ["constant", "header"])
def test_all_beyond_help_is_an_error(run, raw, tmp_path, how):
    for name in NAMES:
        spoil(raw / name, how)
    left = run()
    assert left.status == 2
    assert all(name in left.err for name in NAMES)
    assert not (tmp_path / "out" / "summary.csv").exists()


@pytest.mark.parametrize("how", ["constant", "cut"])
def test_evaluation_is_of_the_others_and_says_what_is_left_out(run, raw, tmp_path, how):
    spoil(raw / "b.mrc", how)
    left = run("--evaluate", raw / "truth.json")
    assert left.status == 3
    assert "b." in left.out + left.err.splitlines()[0]
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert report["n_micrographs"] == 2 and report["recall"] > 0.9
    assert "want of picks" not in left.out


@pytest.mark.parametrize("how", ["constant", "cut"])
@pytest.mark.parametrize("choice", ["--choose-threshold", "--expected-particles"])
def test_the_threshold_is_chosen_on_the_others(run, raw, checkpoint, how, choice):
    spoil(raw / "b.mrc", how)
    left = run(choice, 10 if "expected" in choice else raw / "truth.json", out=None)
    assert left.status == 3 and "b.mrc" in left.err
    kept = json.loads(checkpoint.with_name("best_model.threshold.json").read_text())
    assert sorted(name.split(".")[0] for name in kept["chosen_on"]["micrographs"]) == ["a", "c"]


@pytest.mark.parametrize("gone_at", ["size", "identity"])
def test_one_that_vanishes_meanwhile_is_left_out(run, raw, tmp_path, monkeypatch, gone_at):
    from picking.micrographs import left_out

    module, name = (left_out, "image_size") if gone_at == "size" else (output, "identity")
    real = getattr(module, name)

    def vanishing(path, *others):
        if path.name == "b.mrc":
            path.unlink(missing_ok=True)
        return real(path, *others)

    monkeypatch.setattr(module, name, vanishing)
    assert run().status == 3
    assert summary_of(tmp_path / "out")["b.mrc"]["left_out"]


def test_one_that_vanishes_once_it_is_picked_lacks_its_overlay_alone(
    run, raw, tmp_path, monkeypatch
):
    from picking.detection import run as running

    real = running.threshold_of_scores

    def vanishing(*args):
        (raw / "b.mrc").unlink()
        return real(*args)

    monkeypatch.setattr(running, "threshold_of_scores", vanishing)
    left = run("--expected-particles", 10, "--overlay")
    assert left.status == 0 and "no overlay" in left.err and "b.mrc" in left.err
    assert [path.stem for path in sorted((tmp_path / "out/star").iterdir())] == ["a", "b", "c"]
    assert len(list((tmp_path / "out/overlays").iterdir())) == 2


def test_a_stack_among_the_micrographs_is_left_out(run, raw):
    whole = (raw / "b.mrc").read_bytes()
    twice = bytearray(whole + whole[1024:])
    twice[8:12] = (2).to_bytes(4, "little")
    (raw / "b.mrc").write_bytes(twice)
    left = run()
    assert left.status == 3 and "average the movie" in left.err


def test_picks_of_others_are_evaluated_without_it(raw, tmp_path, run, capsys):
    assert run("--one-file").status == 0
    spoil(raw / "b.mrc", "cut")
    argv = [
        "pick_particles.py", "--micrographs", raw / "*.mrc", "--evaluate", raw / "truth.json",
        "--picks", tmp_path / "out" / "picks.star", "--diameter", "20px",
    ]  # fmt: skip
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", [str(arg) for arg in argv])
        left = leave(pick_particles.main, capsys)
    assert left.status == 3 and "b.mrc" in left.err
    assert "2 micrographs" in printed.getvalue()


def test_a_defect_of_ours_keeps_its_traceback(run, monkeypatch):
    from picking.detection import micrographs

    def broken(*args):
        raise ZeroDivisionError

    monkeypatch.setattr(micrographs, "pick", broken)
    with pytest.raises(pytest.fail.Exception):  # it does not leave by `sys.exit`
        try:
            run()
        except ZeroDivisionError:
            pytest.fail("")


def test_a_compressed_mrc_is_refused_with_what_to_do(run, raw, tmp_path):
    (raw / "a.mrc.gz").write_bytes(gzip.compress((raw / "a.mrc").read_bytes()))
    left = run("--micrographs", raw / "a.mrc.gz")
    assert left.status == 2 and "decompress" in left.err
