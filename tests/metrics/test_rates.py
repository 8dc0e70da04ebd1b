import numpy as np
import pytest
from sklearn import metrics

from picking.metrics.rates import PRCurve, interval, micrograph_weights, plain, rates


def sample(seed, n=50, digits=None):
    """Labels and scores that are somewhat right; rounded, they tie."""
    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.4
    scores = 1 / (1 + np.exp(-(rng.normal(size=n) + 2 * y - 1)))
    return y, scores if digits is None else scores.round(digits)


def curve_of(labels, scores):
    labels = np.array(labels, dtype=bool)
    return PRCurve.of(np.array(scores), labels, int(labels.sum()))


@pytest.mark.parametrize("digits", [None, 1])
def test_the_curve_is_scikit_learns_and_its_best_threshold_has_the_highest_f1(digits):
    for seed in range(3):
        y, scores = sample(seed, digits=digits)
        curve = PRCurve.of(scores, y, int(y.sum()))
        assert (np.diff(curve.thresholds) < 0).all()
        for k, threshold in enumerate(curve.thresholds):
            called = scores >= threshold
            wanted = {
                "precision": metrics.precision_score(y, called),
                "recall": metrics.recall_score(y, called),
                "f1": metrics.f1_score(y, called),
            }
            assert curve.rates_at(threshold) == pytest.approx(wanted)
            at_k = (curve.precision[k], curve.recall[k], curve.f1[k])
            assert at_k == pytest.approx(tuple(wanted.values()))
        assert curve.average_precision == pytest.approx(metrics.average_precision_score(y, scores))
        best = metrics.f1_score(y, scores >= curve.best_f1_threshold())
        assert best == pytest.approx(curve.f1.max())


@pytest.mark.parametrize(
    ("labels", "scores", "threshold"),
    [
        ([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9], 0.4),  # midway
        # F1 is 2/3 for the first alone and for the first four, (2·1)/(1+2) and (2·2)/(4+2)
        ([1, 0, 0, 1, 0], [0.9, 0.8, 0.7, 0.6, 0.5], 0.85),
        ([1, 1, 1], [0.3, 0.2, 0.7], 0.2),  # all are called
    ],
)
def test_the_best_threshold_is_midway_the_highest_of_equals_or_the_lowest_score(
    labels, scores, threshold
):
    assert curve_of(labels, scores).best_f1_threshold() == pytest.approx(threshold)


def test_the_best_threshold_between_neighbouring_floats_keeps_them_apart():
    first = 0.3
    second = np.nextafter(first, 1)
    third = np.nextafter(second, 1)
    for low, high in ((first, second), (second, third)):  # one mean rounds up, the other down
        assert low < curve_of([0, 1], [low, high]).best_f1_threshold() <= high


def test_a_ratio_without_a_denominator_is_nan_and_none_in_json():
    assert plain(rates(0, 0, 2)) == {"precision": None, "recall": 0, "f1": 0}
    assert plain(rates(2, 0, 0)) == {"precision": 0, "recall": None, "f1": 0}
    assert set(plain(rates(0, 0, 0)).values()) == {None}
    without = curve_of([0, 0], [0.1, 0.2])
    assert without.average_precision is None and np.isnan(without.recall).all()


def test_micrographs_are_drawn_by_the_seed_and_one_alone_has_no_interval():
    weights = micrograph_weights(5, 100, seed=3)
    assert weights.shape == (100, 5) and (weights.sum(axis=1) == 5).all()
    np.testing.assert_array_equal(weights, micrograph_weights(5, 100, seed=3))
    assert (weights != micrograph_weights(5, 100, seed=4)).any()
    assert len(micrograph_weights(1, 100, seed=3)) == 0
    assert interval(np.array([])) is interval(np.array([np.nan])) is None
    assert interval(np.array([np.nan, *range(101)])) == [2.5, 97.5]
