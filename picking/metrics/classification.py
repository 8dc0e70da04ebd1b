"""Figures of merit of patch scores, with intervals from resampling micrographs.

Everywhere: y is (n,) true labels, 0 or 1; a score that is not finite is an error; a patch is
called positive where its score is at least the threshold; a ratio without a denominator is None.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import average_precision_score, roc_auc_score

from picking.seeds import stream


def threshold_metrics(y: ArrayLike, score: ArrayLike, threshold: float) -> dict[str, float | None]:
    """Return precision, recall, f1, specificity and balanced_accuracy at ``threshold``."""
    y, score = _checked(y, score)
    counts = _outcomes(y, score, threshold).sum(axis=0)
    return {name: _plain(value) for name, value in _rates(counts).items()}


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

    It lies midway between the lowest score called positive and the next one below, so that other
    data meet no knife's edge; where all are called positive it is the lowest score.

    Raises:
        ValueError: when there is no positive, as F1 then has no maximum.
    """
    y, score = _checked(y, score)
    if not y.any():
        raise ValueError("no F1 without a positive: the labels are all 0")
    order, last = _descending(score)
    n_called = last + 1
    f1 = 2 * np.cumsum(y[order])[last] / (n_called + y.sum())
    best = int(np.argmax(f1))
    values = score[order][last]
    if best == len(values) - 1:
        return float(values[best])
    middle = (values[best] + values[best + 1]) / 2
    # Between neighbouring floats the mean may round down to the score that stays out.
    return float(middle if middle > values[best + 1] else values[best])


def evaluate(
    y: ArrayLike,
    probability: ArrayLike,
    group: ArrayLike,
    threshold: float,
    ids: ArrayLike | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return everything that ``results.json`` says of a split, as plain floats, ints and None.

    At the top level auc, ap, ap_base_rate, the five figures of `threshold_metrics` at 0.5,
    n_positive, n_negative, ece and predicted_positive_share; under ``at_val_threshold`` the five at
    ``threshold``; under ``intervals`` [low, high] for auc, ap and both sets of five; with ``ids``
    under ``per_id`` what stands at the top level up to n_negative, for each id.

    Args:
        y: (n,) true labels.
        probability: (n,) of the positive class.
        group: (n,) the micrograph of each patch.
        threshold: chosen on validation, see `best_f1_threshold`.
        ids: (n,) the protein or EMPIAR id of each patch.
        n_bootstrap: resamples of the micrographs for the 95% intervals; None for each interval
            where there is but one micrograph.
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
        "predicted_positive_share": _plain(np.mean(probability >= 0.5)) if len(y) else None,
        "at_val_threshold": {
            "threshold": float(threshold),
            **threshold_metrics(y, probability, threshold),
        },
        "intervals": _intervals(y, probability, group, threshold, n_bootstrap, seed),
    }
    if ids is not None:
        ids = np.asarray(ids)
        report["per_id"] = {
            str(name): _summary(y[ids == name], probability[ids == name]) for name in np.unique(ids)
        }
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
    order, last = _descending(score)
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
    n_groups = len(names)
    # With fewer than two micrographs nothing varies: no resample, and every interval is None.
    weights = np.zeros((0, n_groups), dtype=np.int64)
    if n_groups > 1:
        rng = stream(seed, "bootstrap")
        weights = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_bootstrap)

    def of_rates(at: float) -> dict[str, list[float] | None]:
        outcomes = _outcomes(y, probability, at)
        per_group = np.zeros((n_groups, 4))
        np.add.at(per_group, group, outcomes)
        return {name: _interval(each) for name, each in _rates(weights @ per_group).items()}

    ranking = bootstrap_ranking(y, probability, group, weights)
    return {
        "auc": _interval(ranking[:, 0]),
        "ap": _interval(ranking[:, 1]),
        **of_rates(0.5),
        "at_val_threshold": of_rates(threshold),
    }


def _interval(values: np.ndarray) -> list[float] | None:
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, high = np.percentile(values, [2.5, 97.5])
    return [float(low), float(high)]


def _summary(y: np.ndarray, probability: np.ndarray) -> dict[str, float | None]:
    n_positive = int(y.sum())
    return {
        **ranking_metrics(y, probability),
        **threshold_metrics(y, probability, 0.5),
        "n_positive": n_positive,
        "n_negative": len(y) - n_positive,
    }


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


def _outcomes(y: np.ndarray, score: np.ndarray, threshold: float) -> np.ndarray:
    """Return (n, 4) booleans: true positive, false positive, false negative, true negative."""
    called = score >= threshold
    return np.stack([called & y, called & ~y, ~called & y, ~called & ~y], axis=1)


def _rates(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return the five figures, (...) each, of (..., 4) counts; NaN without a denominator."""
    tp, fp, fn, tn = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    with np.errstate(invalid="ignore"):
        recall, specificity = tp / (tp + fn), tn / (tn + fp)
        return {
            "precision": tp / (tp + fp),
            "recall": recall,
            "f1": 2 * tp / (2 * tp + fp + fn),
            "specificity": specificity,
            "balanced_accuracy": (recall + specificity) / 2,
        }


def _descending(score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the order from high to low, (n,), and where in it each run of ties ends."""
    order = np.argsort(-score, kind="stable")
    return order, np.flatnonzero(np.diff(score[order], append=-np.inf))


def _plain(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def trivial_f1(prior: float) -> float:
    """Return 2π/(1+π), the F1 of calling every patch positive where a share π is."""
    return 2 * prior / (1 + prior)
