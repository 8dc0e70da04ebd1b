"""The training script: where the priors come from."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from models import UNet
from picking.errors import UserError
from picking.pu_learning.inputs import Patches, open_input
from picking.pu_learning.priors import resolve_priors
from picking.runs import distributed
from tests.fixtures.pu_runs import UNET, as_windows, config_with, results_of, tiny_network, train


def resolved(config, data):
    """Return the priors that a run on the CPU would use."""
    with tiny_network():
        return resolve_priors(config, data, torch.device("cpu"))


def priors_of(store, tmp_path, *overrides):
    """Return π_T, its source, π_U, its source."""
    config = config_with(tmp_path, *overrides)
    return dataclasses.astuple(resolved(config, open_input(store, "train", config)))


def test_the_priors_come_from_where_the_config_says(store, tmp_path):
    in_data = pytest.approx(9 / 39)
    assert priors_of(store, tmp_path) == (0.5, "data", in_data, "data")
    assert priors_of(store, tmp_path, "loss.prior=0.47")[:2] == (0.47, "config")
    assert priors_of(store, tmp_path, "loss.prior=actual")[:2] == (0.35, "data")
    assert priors_of(store, tmp_path, "loss.unlabeled_prior=0.3")[2:] == (0.3, "config")
    one = ["loss.one_prior=true", "loss.prior=0.47", "loss.unlabeled_prior=0.3"]
    assert priors_of(store, tmp_path, *one) == (0.47, "config", 0.47, "config")


def test_priors_that_leave_no_negatives_are_refused(store, tmp_path):
    with pytest.raises(UserError, match=r"the priors are 1\.0 .* must lie between 0 and 1"):
        priors_of(store, tmp_path, "loss.prior=1")


class Separable:
    """A store whose positives are bright in the middle: ``n`` patches of four micrographs."""

    def __init__(self, n_labeled, n_hidden, n_negative):
        self.counts = {"unlabeled_prior": 0.5, "pool_prior": 0.7}  # the estimate is another
        n = n_labeled + n_hidden + n_negative
        rng = np.random.default_rng(1)
        self.patches = rng.normal(120, 10, (n, 32, 32))
        self.patches[: n_labeled + n_hidden, 10:22, 10:22] += 60
        self.patches = self.patches.astype(np.uint8)
        self.labeled = np.arange(n) < n_labeled
        self.names = ["a", "b", "c", "d"]
        self.micrograph = rng.permutation(n) % 4

    def __len__(self):
        return len(self.patches)

    def __getitem__(self, rows):
        return self.patches[rows]

    def as_input(self, config):
        return Patches(self, config.data.input_size_px, config.augmentation)


def test_the_estimate_finds_the_share_of_positives_among_the_unlabeled(tmp_path):
    overrides = ["loss.unlabeled_prior=estimate", "loss.estimate_steps=40"]
    config = config_with(tmp_path, *overrides, "training.batch_size=40")
    for n_hidden, n_negative in ((100, 300), (240, 160)):
        data = Separable(400, n_hidden, n_negative).as_input(config)
        found = resolved(config, data)
        assert found.unlabeled_prior_source == "estimate"
        # the held-out half has 200 unlabeled patches: a deviation of 0.03
        assert found.unlabeled_prior == pytest.approx(n_hidden / (n_hidden + n_negative), abs=0.09)
        assert resolved(config, data) == found


def test_an_estimate_from_one_micrograph_is_refused(tmp_path):
    data = Separable(20, 10, 30)
    data.names, data.micrograph = ["a"], np.zeros(60, int)
    config = config_with(tmp_path, "loss.unlabeled_prior=estimate")
    with pytest.raises(UserError, match="in both halves of the 1 training micrographs"):
        resolved(config, data.as_input(config))


def test_processes_score_the_windows_of_an_estimate_in_shares(store, tmp_path, monkeypatch):
    config = config_with(tmp_path, *UNET, "training.eval_batch_size=8")
    windows = open_input(as_windows(store, tmp_path), "train", config)
    rows, device = np.arange(3, len(windows)), torch.device("cpu")
    arguments = (UNet(width=2, depth=2), rows, config.training, device)
    alone = np.concatenate(windows.held_out(*arguments))
    shares = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "place", lambda rank=rank: (rank, 2))
        shares.append(np.concatenate(windows.held_out(*arguments)))
    assert all(0 < np.count_nonzero(share) < len(alone) for share in shares)
    np.testing.assert_array_equal(sum(shares), alone)


@pytest.mark.parametrize(
    ("given", "prior", "replaced"),
    [("0.47", 0.5, True), ("pool", 0.5, False), ("actual", 0.35, False)],
)
def test_use_data_prior_takes_the_pools_in_place_of_a_number_and_names_both(
    store, tmp_path, given, prior, replaced
):
    overrides = ["training.max_steps=1", f"loss.prior={given}"]
    folder = train(store, tmp_path, "--use-data-prior", overrides=overrides)
    results = results_of(folder)
    assert (results["prior"], results["prior_source"]) == (prior, "data")
    log = (folder / "training.log").read_text()
    assert f"Prior (π_T): {prior:.4f} from data" in log
    assert bool(re.search("--use-data-prior: .*0.5000.*0.4700.*loss.prior", log)) == replaced


def test_one_prior_for_both_warns_in_the_log(store, tmp_path, finished_run):
    overrides = ["training.max_steps=1", "loss.one_prior=true", "loss.prior=0.47"]
    folder = train(store, tmp_path, overrides=overrides)
    assert "WARNING: loss.one_prior uses one prior" in (folder / "training.log").read_text()
    assert results_of(folder)["unlabeled_prior"] == 0.47
    assert "loss.one_prior uses one prior" not in (finished_run / "training.log").read_text()
