"""Metrics of patch scores, with intervals from resampling micrographs.

Everywhere: y is (n,) true labels, 0 or 1; a score that is not finite is an error; a patch is
called positive where its score is at least the threshold; a ratio without a denominator is None.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score, roc_auc_score

from picking.metrics.rates import PRCurve, descending, interval, micrograph_weights, plain, rates


def threshold_metrics(y: ArrayLike, score: ArrayLike, threshold: float) -> dict[str, float | None]:
    """Return precision, recall, f1, specificity and balanced_accuracy at ``threshold``."""
    y, score = _checked(y, score)
    return plain(_five_rates(_counts(y, score, threshold).sum(axis=0)))


def ranking_metrics(y: ArrayLike, score: ArrayLike) -> dict[str, float | None]:
    """Return auc, ap (average precision) and ap_base_rate (the AP of scores that mean nothing).

    All are None where only one class is there.
    """
    y, score = _checked(y, score)
    if not 0 < y.sum() < len(y):
        return {"auc": None, "ap": None, "ap_base_rate": None}
    return {
        "auc": float(roc_auc_score(y, score)),
        "ap": float(average_precision_score(y, score)),
        "ap_base_rate": float(y.mean()),
    }


def auc_standard_error(auc: float, n_positive: int, n_negative: int) -> float:
    """Return the standard error of an AUC of so many independent positives and negatives.

    Source: Hanley and McNeil, The meaning and use of the area under a ROC curve, Radiology 1982.
    """
    q_positive, q_negative = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (
        auc * (1 - auc)
        + (n_positive - 1) * (q_positive - auc**2)
        + (n_negative - 1) * (q_negative - auc**2)
    ) / (n_positive * n_negative)
    return max(0.0, variance) ** 0.5


def expected_calibration_error(
    y: ArrayLike, probability: ArrayLike, n_bins: int = 15
) -> float | None:
    """Return Σ_b n_b/n |mean y - mean probability| over equal bins of [0, 1]; None for n = 0.

    ``probability`` is that of the positive class, so that the error of calling too many patches
    positive does not hide in the confidence.

    Source: Naeini et al., Obtaining well calibrated probabilities using Bayesian binning, AAAI
    2015, in its binary form.
    """
    y, probability = _checked(y, probability)
    if not len(y):
        return None
    if probability.min() < 0 or probability.max() > 1:
        raise ValueError(
            f"probabilities lie in [0, 1], got {probability.min():.4g} to {probability.max():.4g}"
        )
    bins = np.minimum((probability * n_bins).astype(int), n_bins - 1)
    gap = np.bincount(bins, weights=y - probability, minlength=n_bins)
    return float(np.abs(gap).sum() / len(y))


def best_f1_threshold(y: ArrayLike, score: ArrayLike) -> float:
    """Return the threshold that maximises F1; of equally good ones the highest.

    It lies midway to the next lower score, see `PRCurve.below`. Raises ValueError without a
    positive, as F1 then has no maximum.
    """
    y, score = _checked(y, score)
    if not y.any():
        raise ValueError("no F1 without a positive: the labels are all 0")
    return PRCurve.of(score, y, int(y.sum())).best_f1_threshold()


def patch_metrics(
    y: ArrayLike,
    probability: ArrayLike,
    group: ArrayLike,
    threshold: float,
    ids: ArrayLike | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return everything that ``results.json`` says of a split, as plain floats, ints and None.

    At the top level auc, ap, ap_base_rate, the five of `threshold_metrics` at 0.5,
    n_positive, n_negative, ece and predicted_positive_share; under ``at_val_threshold`` the five at
    ``threshold``; under ``intervals`` [low, high] for auc, ap and both sets of five; with ``ids``
    under ``per_id`` what stands at the top level up to n_negative, for each id.

    Args:
        y: (n,) true labels.
        probability: (n,) of the positive class.
        group: (n,) the micrograph of each patch.
        threshold: chosen on validation, see `best_f1_threshold`.
        ids: (n,) the protein or EMPIAR id of each patch.
        n_bootstrap: resamples of the micrographs for the 95% intervals, which are None where there
            is but one micrograph.
        seed: of the resampling.

    Raises:
        ValueError: when lengths differ, a probability is not finite or lies outside [0, 1].
    """
    y, probability = _checked(y, probability)
    group = np.asarray(group)
    if group.shape != y.shape or (ids is not None and np.shape(ids) != y.shape):
        raise ValueError("labels, probabilities, groups and ids must be of one length")
    report: dict[str, Any] = {
        **_summary(y, probability),
        "ece": expected_calibration_error(y, probability),
        "predicted_positive_share": float(np.mean(probability >= 0.5)) if len(y) else None,
        "at_val_threshold": {"threshold": float(threshold)}
        | threshold_metrics(y, probability, threshold),
        "intervals": _intervals(y, probability, group, threshold, n_bootstrap, seed),
    }
    if ids is not None:
        rows = {str(name): np.asarray(ids) == name for name in np.unique(ids)}
        report["per_id"] = {name: _summary(y[own], probability[own]) for name, own in rows.items()}
    return report


def bootstrap_ranking(
    y: np.ndarray, score: np.ndarray, group: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return (n_resamples, 2) AUC and AP with each micrograph counted ``weights`` times.

    Equal to scikit-learn's with ``sample_weight=weights[i][group]``, but the scores are sorted
    once. NaN where a resample has one class only.

    Args:
        y: (n,) booleans.
        score: (n,).
        group: (n,) integers from 0, the row of ``weights.T`` that each patch belongs to.
        weights: (n_resamples, n_groups) integers, how often each micrograph was drawn.
    """
    order, last = descending(score)
    y, group = y[order], group[order]
    result = np.full((len(weights), 2), np.nan)
    for i, weight in enumerate(weights):
        each = weight[group]
        called = np.cumsum(each)[last]
        tp = np.cumsum(each * y)[last]
        fp = called - tp
        if tp[-1] == 0 or fp[-1] == 0:
            continue
        step = np.diff(tp, prepend=0)
        # Each positive beats the negatives that score lower, and half of those that tie.
        beaten = fp[-1] - (fp + np.concatenate([[0], fp[:-1]])) / 2
        auc = np.sum(step * beaten) / (tp[-1] * fp[-1])
        # A score that no drawn micrograph has may stand first: step is 0, so is its precision.
        precision = tp / np.maximum(called, 1)
        result[i] = auc, np.sum(step * precision) / tp[-1]
    return result


def _intervals(
    y: np.ndarray,
    probability: np.ndarray,
    group: np.ndarray,
    threshold: float,
    n_bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    names, group = np.unique(group, return_inverse=True)
    weights = micrograph_weights(len(names), n_bootstrap, seed)

    def of_rates(at: float) -> dict[str, list[float] | None]:
        per_group = np.zeros((len(names), 4))
        np.add.at(per_group, group, _counts(y, probability, at))
        return {name: interval(each) for name, each in _five_rates(weights @ per_group).items()}

    ranking = bootstrap_ranking(y, probability, group, weights)
    return {
        "auc": interval(ranking[:, 0]),
        "ap": interval(ranking[:, 1]),
        **of_rates(0.5),
        "at_val_threshold": of_rates(threshold),
    }


def _summary(y: np.ndarray, probability: np.ndarray) -> dict[str, float | None]:
    counts = {"n_positive": int(y.sum()), "n_negative": int((~y).sum())}
    return ranking_metrics(y, probability) | threshold_metrics(y, probability, 0.5) | counts


def _checked(y: ArrayLike, score: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return y as booleans and the scores in float64, both (n,)."""
    y, score = np.asarray(y), np.asarray(score, dtype=np.float64)
    if y.ndim != 1 or y.shape != score.shape:
        raise ValueError(f"labels {y.shape} and scores {score.shape} must be of one length")
    if not np.isin(y, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    if not np.isfinite(score).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(score))} scores are not finite")
    return y.astype(bool), score


def _counts(y: np.ndarray, score: np.ndarray, threshold: float) -> np.ndarray:
    """Return (n, 4) booleans: called positive, and correctly; positive; and any patch, always."""
    called = score >= threshold
    return np.stack([called, called & y, y, np.ones_like(y)], axis=1)


def _five_rates(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return `threshold_metrics`, (...) each, of (..., 4) counts; NaN without a denominator."""
    called, correct, positive, n = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    three = rates(called, correct, positive)
    with np.errstate(invalid="ignore"):
        specificity = (n - called - positive + correct) / (n - positive)
    balanced_accuracy = (three["recall"] + specificity) / 2
    return {**three, "specificity": specificity, "balanced_accuracy": balanced_accuracy}


def trivial_f1(prior: float) -> float:
    """Return 2π/(1+π), the F1 of calling every patch positive where a fraction π is."""
    return 2 * prior / (1 + prior)
