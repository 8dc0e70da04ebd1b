import json

import numpy as np
import pytest
import torch

from picking.detection.picker import load_picker
from picking.detection.thresholds import keep_threshold, kept_threshold, threshold_for_count
from picking.errors import UserError
from picking.formats.picks import Picks
from tests.fixtures.pickers import know, write_checkpoint


def picks_of(*scores):
    return Picks("a.jpg", np.zeros((len(scores), 2)), np.array(scores), np.ones(len(scores)), None)


PICKS = [picks_of(0.9, 0.5, 0.7), picks_of(0.1)]


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
    keep_threshold(old, 0.1 + 0.2, {}, PICKS)
    chosen = "the checkpoint's, chosen for picking as the top 75%"
    assert kept_threshold(old) == (0.1 + 0.2, chosen)


def test_the_threshold_of_calibrated_scores_counts_before_that_of_training(load):
    picker = load(calibration={"slope": 2.0, "offset": 1.0, "threshold": 0.45})
    threshold, source = kept_threshold(picker)
    assert threshold == 0.45 and "expects the highest F1" in source
    keep_threshold(picker, 0.7, {}, PICKS)
    assert kept_threshold(picker)[0] == 0.7


def test_a_threshold_is_kept_and_shown_as_a_quantile_too(load, tmp_path, capsys):
    keep_threshold(load(), 0.7, {}, PICKS)
    assert "1 of 2 candidates a micrograph reach it, the top 50%" in capsys.readouterr().out
    kept = json.loads((tmp_path / "best_model.threshold.json").read_text())
    assert (kept["top_fraction"], kept["picks_per_micrograph"]) == (0.5, 1.0)
    assert kept["candidates_per_micrograph"] == 2.0


def test_a_threshold_that_an_older_version_kept_is_read(load, tmp_path):
    picker = load()
    kept = {"threshold": 0.7, "checkpoint": picker.checksum}
    (tmp_path / "best_model.threshold.json").write_text(json.dumps(kept))
    assert kept_threshold(picker) == (0.7, "the checkpoint's, chosen for picking")


def test_without_any_threshold_one_must_be_given_or_chosen(load):
    with pytest.raises(UserError, match=r"best_model\.pt has no threshold: give --threshold"):
        kept_threshold(load(threshold=None))


def test_a_threshold_of_other_weights_is_refused(load):
    keep_threshold(load(), 0.7, {}, PICKS)
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
        keep_threshold(picker, 0.7, {}, PICKS)
    assert not list(tmp_path.glob("*.json"))


def test_what_the_threshold_was_chosen_on_is_kept_with_it(load, tmp_path):
    keep_threshold(load(), 0.7, {"micrographs": ["a.jpg"]}, PICKS)
    kept = json.loads((tmp_path / "best_model.threshold.json").read_text())
    assert (kept["threshold"], kept["chosen_on"]) == (0.7, {"micrographs": ["a.jpg"]})


def test_more_particles_than_candidates_cannot_be_expected():
    scores = [PICKS[0].scores]
    assert threshold_for_count(scores, 2) == 0.7
    with pytest.raises(UserError, match="only 3 candidates on 1 micrographs"):
        threshold_for_count(scores, 4)
