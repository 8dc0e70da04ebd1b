import dataclasses

import numpy as np
import pytest
import torch

from picking.errors import UserError
from picking.pu_learning.inputs import Patches, open_input
from picking.pu_learning.priors import Priors, best_bin_estimate, eta_of, resolve_priors
from tests.fixtures.pu_runs import config_with, tiny_network

# The estimate from scores


def brute_force(p, u, delta, gamma):
    width = np.sqrt(np.log(4 / delta) / 2 / len(u)) + np.sqrt(np.log(4 / delta) / 2 / len(p))
    best = (np.inf, None)
    for c in np.concatenate([p, u]):
        q_p, q_u = np.mean(p >= c), np.mean(u >= c)
        if q_p > 0:
            best = min(best, (q_u / q_p + (1 + gamma) / q_p * width, q_u / q_p))
    return min(1.0, best[1])


@pytest.mark.parametrize(("delta", "gamma"), [(0.1, 0.01), (0.3, 0.5)])
def test_best_bin_is_the_minimum_over_every_threshold_tried_one_by_one(delta, gamma):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        digits = 1 if seed % 2 else 6  # with and without ties
        p = rng.normal(1.5, 1, 300).round(digits)
        u = np.concatenate([rng.normal(1.5, 1, 60), rng.normal(0, 1, 200)]).round(digits)
        estimate = best_bin_estimate(p, u, delta, gamma)
        assert estimate == pytest.approx(brute_force(p, u, delta, gamma))


def scores(rng, distance, prior=0.231, n=20_000):
    n_hidden = round(prior * n)
    positive, hidden = rng.normal(distance, 1, n), rng.normal(distance, 1, n_hidden)
    return positive, np.concatenate([hidden, rng.normal(0, 1, n - n_hidden)])


def test_estimate_is_close_for_classes_apart_and_too_high_where_they_overlap():
    rng = np.random.default_rng(0)
    # Distances of unit Gaussians whose AUC is 0.86, 0.94 and 0.99.
    overlapping, apart, far_apart = (
        np.mean([best_bin_estimate(*scores(rng, d)) for _ in range(5)]) for d in (1.53, 2.2, 3.29)
    )
    assert far_apart == pytest.approx(0.231, abs=0.015)
    assert 0.231 < far_apart < apart < overlapping < 0.40


def test_estimate_needs_finite_scores_of_both_sides():
    with pytest.raises(ValueError, match="both sides"):
        best_bin_estimate([], [0.1])
    with pytest.raises(ValueError, match="finite"):
        best_bin_estimate([0.2, np.nan], [0.1])


def test_unlabeled_all_above_the_positives_are_estimated_as_all_positive():
    assert best_bin_estimate([0.1, 0.2], [0.8, 0.9]) == 1.0


# Where the priors come from


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
        self.about_negative, self.complete = np.zeros(n, bool), np.zeros(4, bool)

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


def test_the_estimate_is_from_nothing_that_is_known_to_be_negative(tmp_path):
    config = config_with(tmp_path, "loss.unlabeled_prior=estimate", "loss.estimate_steps=40")
    config = dataclasses.replace(
        config, training=dataclasses.replace(config.training, batch_size=40)
    )
    data = Separable(400, 200, 600)
    data.about_negative[-400:] = True  # of 800 that are not labelled
    found = resolved(config, data.as_input(config))
    assert found.unlabeled_prior == pytest.approx(200 / 400, abs=0.09)
    data.complete[:] = True
    with pytest.raises(UserError, match="needs labelled and unlabeled patches in both halves"):
        resolved(config, data.as_input(config))


def test_the_positives_among_the_unknown_places_alone_are_added_to_the_labelled(tmp_path):
    config = config_with(tmp_path, "loss.unlabeled_prior=0.2")
    data = Separable(20, 10, 30)
    data.counts = {"actual_prior": 0.1, "pool_prior": None, "unlabeled_prior": None}
    assert resolved(config, data.as_input(config)).prior == pytest.approx(0.1 + 0.9 * 0.2)
    data.counts["unknown_share"] = 0.5  # and 0.4 are known negatives
    assert resolved(config, data.as_input(config)).prior == pytest.approx(0.1 + 0.5 * 0.2)


# The weight of known negatives


def test_without_known_negatives_the_risk_is_of_positives_and_unlabeled_whatever_eta_is(tmp_path):
    data, priors = Separable(20, 10, 30), Priors(0.3, "data", 0.2, "data")
    for eta in ("auto", 0.5):
        assert eta_of(config_with(tmp_path, f"loss.eta={eta}"), priors, data) == 1


def test_known_negatives_weigh_by_their_number_and_a_click_on_one_as_much_as_a_pick(tmp_path):
    data, priors = Separable(20, 10, 30), Priors(0.3, "data", 0.2, "data")
    config = config_with(tmp_path)
    # Of the negatives 0.4 places are known and 0.5 (1 - 0.2) are not
    data.counts |= {"negative_share": 0.4, "unknown_share": 0.5}
    assert 1 - eta_of(config, priors, data) == pytest.approx(0.5)
    data.about_negative[-5:] = True  # and 20 are labelled
    assert 1 - eta_of(config, priors, data) == pytest.approx(0.5)
    data.counts |= {"negative_share": 0.001, "unknown_share": 0.9}
    assert 1 - eta_of(config, priors, data) == pytest.approx(0.3 * 5 / 20)
    data.about_negative[-25:] = True
    assert 1 - eta_of(config, priors, data) == pytest.approx(0.3)
    data.counts |= {"negative_share": 0.9, "unknown_share": 0.0}  # all micrographs are complete
    assert eta_of(config, priors, data) == 0
    assert eta_of(config_with(tmp_path, "loss.eta=0.8"), priors, data) == 0.8
