import json

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from picking.metrics.classification import (
    auc_standard_error,
    best_f1_threshold,
    bootstrap_ranking,
    expected_calibration_error,
    patch_metrics,
    ranking_metrics,
    threshold_metrics,
    trivial_f1,
)


def sample(seed=0, n=400, n_groups=8, digits=None):
    """Labels, probabilities and micrographs that are somewhat right; rounded, they tie."""
    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.4
    probability = 1 / (1 + np.exp(-(rng.normal(size=n) + 2 * y - 1)))
    if digits is not None:
        probability = probability.round(digits)
    return y, probability, rng.integers(0, n_groups, n)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.83])
def test_rates_at_a_threshold_agree_with_scikit_learn(threshold):
    y, p, _ = sample(digits=2)
    called = p >= threshold
    assert threshold_metrics(y, p, threshold) == pytest.approx(
        {
            "precision": precision_score(y, called),
            "recall": recall_score(y, called),
            "f1": f1_score(y, called),
            "specificity": recall_score(~y, ~called),
            "balanced_accuracy": balanced_accuracy_score(y, called),
        }
    )


def test_a_score_equal_to_the_threshold_is_called_positive():
    assert threshold_metrics([1, 0], [0.5, 0.4], 0.5)["recall"] == 1
    # 0.1 in float32 lies above 0.1: comparing must not round the threshold to meet it.
    assert threshold_metrics([1], np.array([0.1], np.float32), 0.1)["recall"] == 1
    assert threshold_metrics([1], np.array([0.1], np.float32), 0.1 + 1e-8)["recall"] == 0


def test_a_ratio_without_a_denominator_is_none():
    nothing_called = threshold_metrics([1, 0], [0.1, 0.2], 0.5)
    assert nothing_called["precision"] is None and nothing_called["f1"] == 0
    only_positive = threshold_metrics([1, 1], [0.9, 0.2], 0.5)
    assert only_positive["specificity"] is None and only_positive["balanced_accuracy"] is None
    assert only_positive["recall"] == 0.5
    only_negative = threshold_metrics([0, 0], [0.1, 0.2], 0.5)
    assert only_negative["recall"] is None and only_negative["f1"] is None
    assert only_negative["specificity"] == 1


def test_ranking_agrees_with_scikit_learn_and_is_none_for_a_single_class():
    y, p, _ = sample(digits=1)
    assert ranking_metrics(y, p) == pytest.approx(
        {
            "auc": roc_auc_score(y, p),
            "ap": average_precision_score(y, p),
            "ap_base_rate": y.mean(),
        }
    )
    for label in (0, 1):
        assert set(ranking_metrics([label] * 3, [0.1, 0.2, 0.3]).values()) == {None}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_an_error(bad):
    for function, more in (
        (ranking_metrics, ()), (best_f1_threshold, ()), (expected_calibration_error, ()),
        (threshold_metrics, (0.5,)), (patch_metrics, ([0, 0, 1], 0.5)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="1 scores are not finite"):
            function([0, 1, 1], [0.1, bad, 0.3], *more)


def test_labels_other_than_0_and_1_and_unequal_lengths_are_errors():
    with pytest.raises(ValueError, match="0 or 1"):
        ranking_metrics([-1, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match="one length"):
        threshold_metrics([0, 1], [0.1, 0.2, 0.3], 0.5)
    with pytest.raises(ValueError, match="one length"):
        patch_metrics([0, 1], [0.1, 0.2], [0], 0.5)


def test_calibration_error_is_the_weighted_gap_of_each_bin():
    # At 0.9 three of four are positive, at 0.1 two of four: too high there, too low here.
    y = [1, 1, 1, 0, 1, 1, 0, 0]
    p = [0.9, 0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1]
    assert expected_calibration_error(y, p) == pytest.approx(0.5 * 0.15 + 0.5 * 0.4)
    # 0.30 and 0.36 lie in one of ten bins, and in two of fifteen.
    ten, fifteen = (expected_calibration_error([0, 1], [0.30, 0.36], n) for n in (10, 15))
    assert ten == pytest.approx((0.64 - 0.30) / 2)
    assert fifteen == pytest.approx((0.64 + 0.30) / 2)


def test_calibration_error_sees_a_probability_that_is_too_high_or_certain():
    rng = np.random.default_rng(0)
    p = rng.random(100_000)
    y = rng.random(100_000) < p
    assert expected_calibration_error(y, p) < 0.01
    assert expected_calibration_error(y, np.sqrt(p)) == pytest.approx(2 / 3 - 1 / 2, abs=0.01)
    assert expected_calibration_error([1, 0], [1.0, 1.0]) == 0.5
    assert expected_calibration_error([], []) is None
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        expected_calibration_error([1, 0], [1.2, 0.0])


def test_best_threshold_is_the_curves_and_needs_a_positive():
    assert best_f1_threshold([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9]) == pytest.approx(0.4)
    with pytest.raises(ValueError, match="positive"):
        best_f1_threshold([0, 0], [0.1, 0.2])


@pytest.mark.parametrize("digits", [None, 1])
def test_resampled_ranking_equals_scikit_learn_with_weights(digits):
    y, p, group = sample(1, digits=digits)
    weights = np.random.default_rng(2).multinomial(8, np.full(8, 1 / 8), size=20)
    assert (weights == 0).any()
    expected = [
        (
            roc_auc_score(y, p, sample_weight=w[group]),
            average_precision_score(y, p, sample_weight=w[group]),
        )
        for w in weights
    ]
    np.testing.assert_allclose(bootstrap_ranking(y, p, group, weights), expected, atol=1e-12)


def test_a_resample_with_one_class_has_no_ranking():
    y, group = np.array([True, True, False]), np.array([0, 0, 1])
    weights = np.array([[2, 0], [0, 2], [1, 1]])
    ranking = bootstrap_ranking(y, np.array([0.9, 0.2, 0.4]), group, weights)
    assert np.isnan(ranking[:2]).all() and ranking[2, 0] == 0.5


def test_intervals_are_those_of_resampling_the_patches_of_whole_micrographs():
    """An independent bootstrap: concatenate the drawn micrographs and measure again."""
    y, p, group = sample(3, n=600, n_groups=12)
    y = y ^ (np.random.default_rng(1).random(600) < group / 30)  # micrographs differ
    report = patch_metrics(y, p, group, 0.4, n_bootstrap=2000)
    rng = np.random.default_rng(99)
    members = [np.flatnonzero(group == g) for g in range(12)]
    values = []
    for _ in range(1000):
        chosen = np.concatenate([members[g] for g in rng.integers(0, 12, 12)])
        positive, negative = p[chosen[y[chosen]]], p[chosen[~y[chosen]]]
        auc = (positive[:, None] > negative).mean()
        values.append((auc, (positive >= 0.4).mean()))
    low, high = np.percentile(values, [2.5, 97.5], axis=0)
    auc, recall = report["intervals"]["auc"], report["intervals"]["at_val_threshold"]["recall"]
    assert auc == pytest.approx([low[0], high[0]], abs=0.01)
    assert recall == pytest.approx([low[1], high[1]], abs=0.015)


def test_intervals_depend_on_the_seed_alone_and_surround_the_metric():
    y, p, group = sample()
    report = patch_metrics(y, p, group, 0.4, n_bootstrap=200)
    again = patch_metrics(y, p, group, 0.4, n_bootstrap=200)
    other = patch_metrics(y, p, group, 0.4, n_bootstrap=200, seed=1)
    assert report == again and report["intervals"] != other["intervals"]
    for name in ("auc", "ap", "precision", "recall", "f1", "specificity", "balanced_accuracy"):
        low, high = report["intervals"][name]
        assert low < report[name] < high
    low, high = report["intervals"]["at_val_threshold"]["f1"]
    assert low < report["at_val_threshold"]["f1"] < high


def test_one_micrograph_has_no_interval():
    y, p, _ = sample(n=50)
    intervals = patch_metrics(y, p, ["a.jpg"] * 50, 0.5)["intervals"]
    at_val = intervals.pop("at_val_threshold")
    assert set(intervals.values()) == set(at_val.values()) == {None} and "auc" in intervals


def test_report_is_plain_json_with_every_metric_in_its_place():
    y, p, group = sample()
    ids = np.where(group < 4, "10017", "10081")
    report = patch_metrics(y, p.astype(np.float32), group, np.float64(0.4), ids=ids, n_bootstrap=50)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["n_positive"] == y.sum() and report["n_negative"] == (~y).sum()
    assert report["predicted_positive_share"] == pytest.approx((p >= 0.5).mean())
    assert report["recall"] == pytest.approx(recall_score(y, p >= 0.5))
    assert report["at_val_threshold"]["threshold"] == 0.4
    assert report["at_val_threshold"]["recall"] == pytest.approx(recall_score(y, p >= 0.4))
    assert report["at_val_threshold"]["recall"] > report["recall"]
    assert report["ece"] == expected_calibration_error(y, p.astype(np.float32))
    assert list(report["per_id"]) == ["10017", "10081"]
    part = report["per_id"]["10081"]
    assert part["auc"] == pytest.approx(roc_auc_score(y[group >= 4], p[group >= 4]))
    assert part["n_positive"] == y[group >= 4].sum()


@pytest.mark.parametrize("labels", [[0] * 4, [1] * 4, []])
def test_report_of_a_single_class_or_of_nothing_is_null_where_undefined_and_still_json(labels):
    n = len(labels)
    report = patch_metrics(labels, [0.1, 0.6, 0.7, 0.2][:n], [0, 0, 1, 1][:n], 0.5, n_bootstrap=20)
    json.dumps(report, allow_nan=False)
    assert report["n_positive"] == sum(labels)
    assert report["auc"] is report["intervals"]["auc"] is report["balanced_accuracy"] is None
    assert (report["ece"] is None) == (n == 0)


@pytest.mark.parametrize(("n_positive", "n_negative"), [(13, 1000), (400, 300)])
def test_the_standard_error_of_an_auc_is_how_far_aucs_of_such_samples_scatter(
    n_positive, n_negative
):
    rng, aucs = np.random.default_rng(0), []
    y = np.repeat([1, 0], [n_positive, n_negative])
    for _ in range(2000):  # of exponential distributions, as Hanley and McNeil assume
        score = np.concatenate([rng.exponential(1, n_positive), -rng.exponential(1, n_negative)])
        score[:n_positive] -= 1
        aucs.append(ranking_metrics(y, score)["auc"])
    expected = auc_standard_error(float(np.mean(aucs)), n_positive, n_negative)
    assert np.std(aucs) == pytest.approx(expected, rel=0.25)


def test_calling_everything_positive_has_the_trivial_f1():
    # Precision π and recall 1.
    for prior in (0.231, 0.462, 0.8):
        assert trivial_f1(prior) == pytest.approx(2 / (1 / prior + 1))
    assert round(trivial_f1(0.462), 3) == 0.632
