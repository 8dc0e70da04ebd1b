"""--evaluate: what counts, and what is said of picks that fit nothing."""

import json
import warnings

import numpy as np
import pytest

from picking.errors import InputWarning, UserError
from picking.formats.coordinates import write_picks
from picking.formats.picks import Picks
from tests.fixtures.data_sets import DIAMETER_PX
from tests.fixtures.pickers import Dark, call, classifier_content, pick, refused, write_checkpoint

SIZE_PX = (1000, 1200)


def files(folder, picks_px, truth_px, scores=None, size_px=SIZE_PX):
    """Write picks and truth of one micrograph; return the flags that name them."""
    for name, centres in (("picks", picks_px), ("truth", truth_px)):
        centres, n = np.array(centres, dtype=float), len(centres)
        scored = np.linspace(1, 0, n) if scores is None or name == "truth" else np.array(scores)
        one = Picks("a.jpg", centres, scored, np.full(n, 100.0), size_px)
        write_picks(folder / name, [one], ["coco"], one_file=True)
    truth, picks = folder / "truth/picks.json", folder / "picks/picks.json"
    return "--evaluate", truth, "--picks", picks, "--output", folder / "out"


def evaluation(folder):
    return json.loads((folder / "out/evaluation.json").read_text())


def said(*flags):
    """Run the script; return its warnings, one after another."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(*flags)
    return " ".join(str(one.message) for one in caught if one.category is InputWarning)


# The margin


def test_the_automatic_margin_is_a_diameter_at_most_and_says_what_it_leaves_out(tmp_path):
    truth = [(300 + 200 * i, 400 + 300 * j) for i in (0, 1) for j in (0, 1)]
    false = [(150, x) for x in range(150, 1100, 50)]
    near_edge = [(50, x) for x in range(150, 1100, 50)]
    flags = files(tmp_path, truth + false + near_edge, truth)
    printed = call(*flags)
    report = evaluation(tmp_path)
    assert report["margin_px"] == 100 and "--annotated-margin 300" in printed
    assert report["precision"] == pytest.approx(4 / 23) and report["recall"] == 1
    assert (report["n_margin_picks"], report["n_margin_truth"]) == (19, 0)
    assert "not counted: 19 picks, 0 true particles" in printed


def test_a_margin_that_is_given_is_taken_and_says_how_many_particles_it_leaves_out(tmp_path):
    centres = [(150, 150), (500, 500), (700, 700)]
    flags = files(tmp_path, centres, centres, [0.9, 0.5, 0.2])
    call(*flags, "--annotated-margin", 200, "--threshold", 0.4)
    report = evaluation(tmp_path)
    assert (report["margin_px"], report["n_truth"], report["n_picks"]) == (200, 2, 1)
    assert (report["n_margin_picks"], report["n_margin_truth"]) == (1, 1)
    with pytest.raises(UserError, match="--annotated-margin 5000 leaves nothing of micrographs"):
        call(*flags[:-2], "--annotated-margin", 5000, "--output", tmp_path / "not_begun")
    assert not (tmp_path / "not_begun").exists()


def test_a_narrower_margin_than_a_diameter_is_that_of_the_truth(tmp_path):
    centres = [(60, 500), (500, 500)]
    assert "--annotated-margin" not in call(*files(tmp_path, centres, centres))
    assert evaluation(tmp_path)["margin_px"] == 60


# What is asked for


def test_the_diameter_that_the_checkpoint_knows_serves_truth_that_states_none(
    checkpoint, disks, tmp_path
):
    wants = {"patch_size_px": 64, "scale": 1.0, "diameter_px": float(DIAMETER_PX), "reach_px": 10.0}
    write_checkpoint(checkpoint, **classifier_content("unet", **wants))
    rows = [
        f"{name} {x} {y}" for name, centres in disks.centres.items() for y, x in centres.tolist()
    ]
    head = "data_\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n"
    (tmp_path / "truth.star").write_text(head + "\n".join(rows) + "\n")
    truth = ("--evaluate", tmp_path / "truth.star", "--truth-frame", "jpeg")
    found = ("--checkpoint", checkpoint, "--micrographs", disks.folder / "*.jpg", "--device", "cpu")
    for flags in ((), ("--resume", "--overlay")):
        call(*found, "--output", tmp_path / "out", "--threshold", 0.5, *truth, *flags)
        assert evaluation(tmp_path)["f1"] > 0.85
    call(*found, "--choose-threshold", *truth[1:])


@pytest.mark.parametrize(("threshold", "n_picks"), [("2", 2), ("-1.5", 3), ("7", 0), ("auto", 4)])
def test_picks_of_others_are_cut_at_any_finite_threshold(tmp_path, threshold, n_picks):
    centres = [(200, 200), (400, 400), (600, 600), (800, 800)]
    flags = files(tmp_path, centres, centres, [3, 2, -1.2, -2])
    warned = said(*flags, f"--threshold={threshold}")
    assert evaluation(tmp_path)["n_picks"] == n_picks
    assert ("highest score is 3" in warned) == (n_picks == 0)
    for wrong in ("inf", "nan", "high"):
        assert f"--threshold is '{wrong}'" in refused(*flags, f"--threshold={wrong}")


@pytest.mark.parametrize("name", ["picks.csv", "picks.star"])
def test_our_own_picks_without_a_pick_have_recall_0(checkpoint, disks, tmp_path, monkeypatch, name):
    sure = Dark.forward
    monkeypatch.setattr(Dark, "forward", lambda network, x: sure(network, x) - 30)
    with pytest.warns(InputWarning, match=r"highest score is 0\.0"):
        pick(checkpoint, disks.folder, tmp_path / "picks", "--one-file", "--formats", "csv")
    # As older versions wrote it
    head = "data_\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n"
    (tmp_path / "picks/picks.star").write_text(head)
    truth = ("--evaluate", disks.folder / "truth.json", "--micrographs", disks.folder / "*.jpg")
    call(*truth, "--picks", tmp_path / "picks" / name, "--output", tmp_path / "out")
    report = evaluation(tmp_path)
    assert (report["n_micrographs"], report["n_truth"], report["recall"]) == (3, 36, 0)


# What fits nothing


CHANGED = {
    "turned upside down": lambda yx: np.abs(yx - (1000, 0)),
    "mirrored left to right": lambda yx: np.abs(yx - (0, 1200)),
    "turned by 180 degrees": lambda yx: (1000, 1200) - yx,
    "with x and y swapped": lambda yx: yx[:, ::-1],
    "times 2": lambda yx: yx / 2,
    "times 8": lambda yx: yx / 8,
}


def some(rng, n=30):
    """Places at least 110 px apart."""
    places = np.empty((0, 2))
    while len(places) < n:
        one = rng.uniform(60, 940, 2)
        if (np.hypot(*(places - one).T) > 110).all():
            places = np.vstack([places, one])
    return places


@pytest.mark.parametrize("change", CHANGED)
def test_picks_that_would_fit_mirrored_swapped_or_scaled_are_said_to(tmp_path, change):
    truth = some(np.random.default_rng(0))
    flags = files(tmp_path, CHANGED[change](truth), truth)
    warned = said(*flags, "--annotated-margin", 0)
    assert f"would if the picks were {change}" in warned and "--truth-frame" in warned


def test_picks_twice_too_far_out_are_said_to_be(tmp_path):
    truth = some(np.random.default_rng(1)) / 2
    flags = files(tmp_path, truth * 2, truth)
    assert "divided by 2" in said(*flags, "--annotated-margin", 0)


def test_where_nothing_is_near_anything_the_nearest_is_named(tmp_path):
    warned = said(*files(tmp_path, [(100, 100), (100, 300)], [(700, 1100), (900, 900)]))
    assert "nearest is 1000 px" in warned


def test_good_and_middling_picks_are_left_in_peace(tmp_path):
    rng = np.random.default_rng(2)
    truth = some(rng)
    for n, picks in enumerate((truth, truth[:12], np.vstack([truth[:8], some(rng)[9:]]))):
        warned = said(*files(tmp_path / str(n), picks, truth))
        assert "--truth-frame" not in warned
