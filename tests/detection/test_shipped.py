"""The network that comes with the project: --checkpoint general."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import pick_particles
from picking.config import PUConfig, config_from_dict, read_config
from picking.detection.picker import load_picker
from picking.errors import UserError
from picking.evaluation.matching import match_picks, pick_metrics
from picking.formats.coordinates import read_picks
from picking.micrographs.mrc import write_mrc
from picking.runs.checkpoints import GENERAL, SHIPPED, load_checkpoint, named_checkpoint
from picking.simulation.plans import simulate_planned
from picking.simulation.variety import plan_varied
from tests.fixtures.plans import record
from tests.fixtures.pu_runs import call

ROOT, MOST_BYTES = SHIPPED.parents[1], 3 * 2**20


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
