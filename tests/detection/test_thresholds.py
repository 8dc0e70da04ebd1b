import json

import numpy as np
import pytest
import torch

from picking.detection.picker import load_picker
from picking.detection.thresholds import keep_threshold, kept_threshold, threshold_for_count
from picking.errors import UserError
from picking.formats.picks import Picks
from tests.fixtures.pickers import know, write_checkpoint


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Write a checkpoint, with ``changes``, and return its picker."""
    know(monkeypatch)

    def write_and_load(**changes):
        path = write_checkpoint(tmp_path / "best_model.pt", **changes)
        return load_picker(path, torch.device("cpu"))

    return write_and_load


def test_the_threshold_chosen_for_picking_counts_before_that_of_training(load):
    assert kept_threshold(load())[0] == 0.4
    old = load(pick_threshold=0.3)  # as older versions kept it
    assert kept_threshold(old) == (0.3, "the checkpoint's, chosen for picking")
    keep_threshold(old, 0.1 + 0.2, {})
    assert kept_threshold(old) == (0.1 + 0.2, "the checkpoint's, chosen for picking")


def test_without_any_threshold_one_must_be_given_or_chosen(load):
    with pytest.raises(UserError, match=r"best_model\.pt has no threshold: give --threshold"):
        kept_threshold(load(threshold=None))


def test_a_threshold_of_other_weights_is_refused(load):
    keep_threshold(load(), 0.7, {})
    with pytest.raises(UserError, match=r"best_model\.threshold\.json.*other weights"):
        kept_threshold(load(epoch=7))


@pytest.mark.parametrize("content", ["{", "[]", '{"threshold": "high"}'])
def test_a_damaged_threshold_is_named(load, tmp_path, content):
    (tmp_path / "best_model.threshold.json").write_text(content)
    with pytest.raises(UserError, match=r"best_model\.threshold\.json"):
        kept_threshold(load())


def test_the_threshold_of_a_checkpoint_that_training_replaced_meanwhile_is_not_kept(load, tmp_path):
    picker = load()
    load(epoch=7)
    with pytest.raises(UserError, match="was replaced while the threshold was chosen"):
        keep_threshold(picker, 0.7, {})
    assert not list(tmp_path.glob("*.json"))


def test_what_the_threshold_was_chosen_on_is_kept_with_it(load, tmp_path):
    keep_threshold(load(), 0.7, {"micrographs": ["a.jpg"]})
    kept = json.loads((tmp_path / "best_model.threshold.json").read_text())
    assert (kept["threshold"], kept["chosen_on"]) == (0.7, {"micrographs": ["a.jpg"]})


def test_more_particles_than_candidates_cannot_be_expected():
    scores = np.array([0.9, 0.5, 0.7])
    picks = Picks("a.jpg", np.zeros((3, 2)), scores, np.ones(3), None)
    assert threshold_for_count([picks], 2) == 0.7
    with pytest.raises(UserError, match="only 3 candidates on 1 micrographs"):
        threshold_for_count([picks], 4)
