import numpy as np
import pytest

from picking.metrics.classification import trivial_f1
from picking.pu_learning.priors import best_bin_estimate


def test_calling_everything_positive_has_the_trivial_f1():
    # Precision π and recall 1.
    for prior in (0.231, 0.462, 0.8):
        assert trivial_f1(prior) == pytest.approx(2 / (1 / prior + 1))
    assert round(trivial_f1(0.462), 3) == 0.632


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
