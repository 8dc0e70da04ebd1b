"""The network that comes with the project: --checkpoint general."""

import argparse
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit

import pick_particles
from picking.config import PUConfig, config_from_dict, read_config
from picking.detection.picker import load_picker
from picking.detection.thresholds import threshold_file, threshold_of_scores
from picking.errors import InputWarning, UserError
from picking.evaluation.matching import match_picks, pick_metrics
from picking.files import read_json
from picking.formats.coordinates import read_picks
from picking.metrics.calibration import part
from picking.micrographs.mrc import write_mrc
from picking.runs.checkpoints import GENERAL, SHIPPED, load_checkpoint, named_checkpoint
from picking.simulation.plans import simulate_planned
from picking.simulation.variety import plan_varied
from tests.fixtures.plans import record
from tests.fixtures.pu_runs import call

ROOT, MOST_BYTES = SHIPPED.parents[1], 3 * 2**20
PLAN = next(plan for plan in plan_varied(60, seed=1001) if plan.density and not plan.junk)


def pick(*flags, checkpoint=GENERAL):
    return call("--checkpoint", checkpoint, *flags, "--device", "cpu", main=pick_particles.main)


@pytest.fixture(scope="module")
def unseen(tmp_path_factory):
    """Micrographs of structures that it did not learn from, and their truth."""
    folder, found = tmp_path_factory.mktemp("unseen"), []
    plans = [p for p in plan_varied(60, seed=1001) if p.density and not p.junk and p.snr > 0.1]
    for plan in plans[:4]:
        image = simulate_planned(plan)
        path = folder / f"{plan.stem}.mrc"
        write_mrc(path, image.raw, plan.pixel_size_angstrom)
        truth = record(path.name, image.centres_px, folder, diameter_px=image.diameter_px)
        found.append((path, dataclasses.replace(truth, size_px=plan.size_px), plan.protein))
    return found


def test_it_is_small_and_says_how_to_scale_but_not_what_was_coarse():
    assert SHIPPED.stat().st_size <= MOST_BYTES and (SHIPPED.parent / "GENERAL.md").exists()
    checkpoint = load_checkpoint(SHIPPED)
    assert "coarseness" not in checkpoint["input"]
    assert not Path(checkpoint["config"]["data"]["dir"]).is_absolute()
    picker = load_picker(named_checkpoint(GENERAL), torch.device("cpu"))
    assert picker.path == SHIPPED and picker.calibration is not None
    assert picker.for_diameter(60).input.scale == pytest.approx(20 / 60)


def test_the_config_that_learns_from_it_has_its_shape():
    config = read_config(ROOT / "configs" / "pu_from_general.yaml", [], PUConfig)
    assert config.training.initial_weights == GENERAL
    theirs = config_from_dict(load_checkpoint(SHIPPED)["config"], "", PUConfig)
    assert config.model == theirs.model and config.data.input_size_px == theirs.data.input_size_px


def test_it_picks_structures_that_it_never_saw(unseen, tmp_path):
    outcomes = []
    for path, truth, protein in unseen:
        diameter = f"{protein.diameter_angstrom:.1f}A"
        output = tmp_path / path.stem
        pick("--micrographs", path, "--diameter", diameter, "--output", output)
        files = list((output / "star").glob("*.star"))
        found = read_picks(files, {path.name: truth.size_px})[0]
        outcomes.append(match_picks(found, truth, 0))
    assert pick_metrics(outcomes, -np.inf, n_bootstrap=0)["f1"] > 0.6


def test_its_threshold_follows_from_the_scores_of_all_unless_one_is_told(unseen, tmp_path):
    """On micrographs that it never saw the scores of training mean little."""
    paths, out = [path for path, *_ in unseen], tmp_path / "out"
    diameter = f"{unseen[0][2].diameter_angstrom:.1f}A"

    def threshold_in(folder):
        return read_json(folder / "manifest.json")["threshold"]

    def files(folder):
        return {path.name: path.read_text() for path in (folder / "star").glob("*.star")}

    given = ("--diameter", diameter, "--output", out)
    pick("--micrographs", *paths[:3], *given)
    printed = pick("--micrographs", *paths, *given, "--resume")  # one more has come
    assert "3 of 4 micrographs are done already" in printed
    scores = [np.load(path)["scores"] for path in sorted((out / "scored").glob("*.npz"))]
    found = part(np.concatenate(scores)).threshold
    assert threshold_in(out) == found and f"Scores part best at {found:.4f}" in printed
    n_picks = [int((each >= found).sum()) for each in scores]
    assert [len(p.scores) for p in read_picks(sorted((out / "star").iterdir()), {
        path.name: truth.size_px for path, truth, _ in unseen})] == n_picks  # fmt: skip
    pick("--micrographs", *paths, "--diameter", diameter, "--output", tmp_path / "at_once")
    assert files(tmp_path / "at_once") == files(out)

    pick("--micrographs", *paths, *given, "--resume", "--threshold", 0.9)
    assert threshold_in(out) == 0.9
    assert "with which" in pick("--micrographs", *paths, *given, "--resume")
    assert threshold_in(out) == 0.9
    pick("--micrographs", *paths, *given, "--resume", "--threshold", "auto")
    assert threshold_in(out) == found and files(tmp_path / "at_once") == files(out)
    copy = Path(shutil.copy(SHIPPED, tmp_path / "copy.pt"))
    asked = ("--diameter", diameter, "--expected-particles", 30)
    pick("--micrographs", *paths, *asked, checkpoint=copy)
    pick("--micrographs", *paths, "--diameter", diameter, "--output", tmp_path / "kept",
         checkpoint=copy)  # fmt: skip
    assert threshold_in(tmp_path / "kept") == read_json(threshold_file(copy))["threshold"]


def test_scores_that_hardly_part_are_said(unseen, tmp_path, recwarn):
    path, _, protein = unseen[0]
    diameter = f"{protein.diameter_angstrom:.1f}A"
    pick("--micrographs", path, "--diameter", diameter, "--output", tmp_path / "right")
    assert not any("hardly part" in str(each.message) for each in recwarn)
    noise = np.random.default_rng(0).normal(100, 10, (1024, 1024))
    write_mrc(tmp_path / "noise.mrc", noise, 1.0)
    given = ("--micrographs", tmp_path / "noise.mrc", "--diameter", "56px")
    with pytest.warns(InputWarning, match=r"hardly part .* white \(--invert\)"):
        pick(*given, "--output", tmp_path / "noise")
    with pytest.warns(InputWarning, match=r"hardly part .* dark \(leave --invert out\)"):
        pick(*given, "--output", tmp_path / "inverted", "--invert")


def test_micrographs_whose_scores_hardly_part_among_others_are_named(recwarn):
    scores = [expit(np.random.default_rng(k).normal((-4, 2), 1, (200, 2)).ravel()) for k in (0, 1)]
    args = argparse.Namespace(expected_particles=None, invert=False)
    alone = threshold_of_scores(args, None, {"a.mrc": scores[0], "b.mrc": scores[1]})
    assert not recwarn
    empty = expit(np.random.default_rng(2).normal(-0.5, 0.8, 400))
    few = {"few.mrc": empty[:50]}  # nothing can be told of one
    every = {"a.mrc": scores[0], "empty.mrc": empty, "b.mrc": scores[1], **few}
    with pytest.warns(InputWarning, match=r"1 of 4 .* \(empty.mrc\), as without particles"):
        assert threshold_of_scores(args, None, every) < alone


def test_too_few_candidates_leave_the_threshold_of_training(tmp_path):
    image = simulate_planned(dataclasses.replace(PLAN, size_px=(200, 200)))
    write_mrc(tmp_path / "small.mrc", image.raw, PLAN.pixel_size_angstrom)
    diameter = f"{PLAN.protein.diameter_angstrom:.1f}A"
    printed = pick("--micrographs", tmp_path / "small.mrc", "--diameter", diameter,
                   "--output", tmp_path / "out")  # fmt: skip
    assert "candidates are too few to tell a threshold" in printed
    own = load_picker(SHIPPED, torch.device("cpu")).calibration.threshold
    assert read_json(tmp_path / "out/manifest.json")["threshold"] == own


def test_it_asks_for_the_diameter_and_keeps_no_threshold_of_one_user(unseen, tmp_path):
    path = unseen[0][0]
    copy = shutil.copy(SHIPPED, tmp_path / "copy.pt")
    for name in (GENERAL, SHIPPED, copy):
        with pytest.raises(UserError, match="--diameter is missing"):
            pick("--micrographs", path, "--output", tmp_path / "out", checkpoint=name)
    before = sorted(SHIPPED.parent.iterdir())
    (tmp_path / "link.pt").symlink_to(SHIPPED)
    asked = ("--micrographs", path, "--diameter", "100A", "--expected-particles", 30)
    for name in (GENERAL, tmp_path / "link.pt"):
        with pytest.raises(UserError, match="that of the project is everybody"):
            pick(*asked, checkpoint=name)
    assert sorted(SHIPPED.parent.iterdir()) == before and not (tmp_path / "out").exists()
