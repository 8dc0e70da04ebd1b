import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import f1_score
from sklearn.mixture import GaussianMixture

from picking.metrics.calibration import (
    LEAST_CANDIDATES,
    Calibration,
    fit_calibration,
    part,
    probability_of_upper,
)

N, N_PARTICLES = 1200, 400


def drawn(seed, n_picked=10, distance=3.0):
    """Draw what a network of few labels may score: most below 0.5, particles higher; too sure.

    Scores of all candidates, of those picked, and the true probability of each candidate.
    """
    rng = np.random.default_rng(seed)
    is_particle = np.arange(N) < N_PARTICLES
    x = rng.normal(0, 1, N) + distance * is_particle
    picked = rng.normal(distance, 1, n_picked)
    odds = np.exp(distance * x - distance**2 / 2) * N_PARTICLES / (N - N_PARTICLES)
    scores = (expit(1.6 * distance * (one - distance) - 6) for one in (x, picked))
    return *scores, odds / (1 + odds)


def f1(called):
    """Of what is called, when the first are particles."""
    return 2 * called[:N_PARTICLES].sum() / (called.sum() + N_PARTICLES)


def best_f1(scores):
    return max(f1(scores >= threshold) for threshold in scores)


def test_scores_keep_their_ranks_and_stay_probabilities():
    scores = np.array([0, 1e-8, 1e-4, 0.3, 0.300001, 1 - 1e-8, 1])
    calibrated = Calibration(slope=0.7, offset=3.0, threshold=0.5)(scores)
    assert (np.diff(calibrated) > 0).all() and 0 <= calibrated[0] <= calibrated[-1] <= 1
    assert calibrated[3] == pytest.approx(expit(0.7 * np.log(3 / 7) + 3))


def test_known_probabilities_are_found_from_many_picks():
    scores, picked, true = drawn(0, n_picked=2000)
    found = fit_calibration(scores, picked, N_PARTICLES)
    assert np.abs(found(scores) - true).mean() < 0.02
    assert found(scores).sum() == pytest.approx(N_PARTICLES, rel=0.05)


@pytest.mark.parametrize("distance", [1.5, 3.0])
def test_ten_picks_do(distance):
    errors, lost = [], []
    for seed in range(40):
        scores, picked, true = drawn(seed, distance=distance)
        found = fit_calibration(scores, picked, N_PARTICLES)
        p, best = found(scores), best_f1(scores)
        errors.append(np.abs(p - true).mean())
        lost.append(best - f1(p >= found.threshold))
    assert np.mean(errors) < 0.1 and np.quantile(errors, 0.9) < 0.15
    assert np.quantile(lost, 0.9) < 0.08
    assert best - f1(scores >= 0.5) > 0.6  # of the network's own


@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_the_threshold_bears_a_wrong_expected_number(factor):
    lost = []
    for seed in range(20):
        scores, picked, _ = drawn(seed)
        found = fit_calibration(scores, picked, factor * N_PARTICLES)
        lost.append(best_f1(scores) - f1(found(scores) >= found.threshold))
    assert max(lost) < 0.25


def test_a_calibrated_network_stays_about_what_it_is_though_the_number_is_wrong():
    rng, is_particle = np.random.default_rng(0), np.arange(N) < N_PARTICLES
    z = rng.normal(0, 1, N) + 3 * is_particle
    scores = expit(3 * z - 4.5 + np.log(N_PARTICLES / (N - N_PARTICLES)))
    for factor in (0.7, 1, 1.4):
        found = fit_calibration(scores, scores[:10], factor * N_PARTICLES)
        p = found(scores)
        assert np.abs(p - scores).mean() < 0.05
        assert best_f1(scores) - f1(p >= found.threshold) < 0.02


def test_particles_without_a_candidate_lower_the_threshold_and_not_the_scores():
    scores, picked, _ = drawn(0)
    all_found = fit_calibration(scores, picked, N_PARTICLES)
    missed = fit_calibration(scores, picked, 1.25 * N_PARTICLES, found=0.8)
    assert missed[:2] == all_found[:2] and missed.threshold < all_found.threshold


def test_more_particles_than_candidates_make_most_of_them_picks():
    scores, picked, _ = drawn(0)
    found = fit_calibration(scores, picked, 10 * N)
    assert found.slope > 0 and (found(scores) >= found.threshold).mean() > 0.5


def test_picks_that_score_less_than_all_else_turn_no_rank_around():
    scores, _, _ = drawn(0)
    found = fit_calibration(scores, [scores.min()] * 5, N_PARTICLES)
    assert found.slope > 0 and fit_calibration(scores, [scores.min()] * 5, N_PARTICLES) == found


@pytest.mark.parametrize(
    ("scores", "picked", "n_particles"),
    [([], [0.1], 3), ([0.2], [0.1], 1), ([0.2, 0.3], [], 1), ([0.2] * 9, [0.2], 3),
     ([0.2, 0.3], [0.3], 0)],
)  # fmt: skip
def test_what_tells_nothing_gives_no_calibration(scores, picked, n_particles):
    assert fit_calibration(scores, picked, n_particles) is None


@pytest.mark.parametrize(("slope", "offset"), [(1, 0), (0.3, 4), (2, -5)])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_two_kinds_of_scores_are_parted_wherever_their_logits_lie(slope, offset, fraction):
    rng = np.random.default_rng(0)
    is_particle = np.arange(2000) < 2000 * fraction
    logits = np.where(is_particle, rng.normal(2, 1, 2000), rng.normal(-2, 1, 2000))
    scores = expit(slope * logits + offset)
    threshold = part(scores).threshold
    assert threshold in scores

    def f1_from(lowest):
        return f1_score(is_particle, scores >= lowest)

    best = max(f1_from(each) for each in scores[::10])
    assert f1_from(threshold) > best - 0.02


def test_few_or_equal_scores_are_not_parted_and_of_millions_some_are_enough():
    scores = np.linspace(0.1, 0.9, LEAST_CANDIDATES)
    assert part(scores[1:]) is None
    assert part(np.full(500, 0.7)) is None
    rng = np.random.default_rng(0)
    two = expit(np.concatenate([rng.normal(-3, 1, 1000), rng.normal(3, 1, 1000)]))
    assert part(np.repeat(two, 150)).threshold == pytest.approx(part(two).threshold, abs=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_two_normals_are_what_a_mixture_of_scikit_learn_finds(seed):
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(-2, 1.2, 900), rng.normal(1.5, 1.2, 200)])
    mixture = GaussianMixture(2, covariance_type="tied", tol=1e-10, max_iter=3000, random_state=0)
    expected = mixture.fit(values[:, None]).predict_proba(values[:, None])
    np.testing.assert_allclose(
        probability_of_upper(values), expected[:, mixture.means_.argmax()], atol=2e-3
    )


def test_two_values_are_two_kinds():
    np.testing.assert_array_equal(probability_of_upper(np.array([2.0, 2, 2, 5])), [0, 0, 0, 1])
