"""Rates, precision-recall curve, best threshold and intervals: of patches, pixels and picks.

Three counts say all: how many are called positive, how many of those correctly, and how many are
positive. What scores at least the threshold is called positive.
"""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from picking.seeds import stream


def rates(
    n_called: ArrayLike, n_correct: ArrayLike, n_positive: ArrayLike
) -> dict[str, np.ndarray]:
    """Return precision, recall and f1 of counts, float64 (...) each; NaN without a denominator."""
    called, correct, positive = (
        np.asarray(n, dtype=np.float64) for n in (n_called, n_correct, n_positive)
    )
    with np.errstate(invalid="ignore"):
        return {
            "precision": correct / called,
            "recall": correct / positive,
            "f1": 2 * correct / (called + positive),
        }


def plain(metrics: dict[str, Any]) -> dict[str, float | None]:
    """Return numbers as JSON has them: floats, and None for NaN."""
    return {name: None if np.isnan(value) else float(value) for name, value in metrics.items()}


def ratio(part: float, whole: float) -> float | None:
    """Return part / whole; None without a denominator."""
    return float(part / whole) if whole else None


def descending(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the order from high to low, (n,), and where in it each run of ties ends."""
    order = np.argsort(-scores, kind="stable")
    return order, np.flatnonzero(np.diff(scores[order], append=-np.inf))


@dataclasses.dataclass(frozen=True)
class PRCurve:
    """Counts at every threshold that makes a difference, from the highest down, (k,) each.

    thresholds: the scores themselves. n_positive: of all, a number.
    """

    thresholds: np.ndarray
    n_called: np.ndarray
    n_correct: np.ndarray
    n_positive: int

    @classmethod
    def of(cls, scores: np.ndarray, correct: np.ndarray, n_positive: int) -> "PRCurve":
        """Return the curve of scores (n,) and whether each is of a positive, bool (n,)."""
        order, last = descending(scores)
        return cls(scores[order][last], last + 1, np.cumsum(correct[order])[last], n_positive)

    @property
    def precision(self) -> np.ndarray:
        """The fraction of what is called that is positive."""
        return self.n_correct / self.n_called

    @property
    def recall(self) -> np.ndarray:
        """The fraction of the positives that is called; NaN without any."""
        return rates(self.n_called, self.n_correct, self.n_positive)["recall"]

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall."""
        return 2 * self.n_correct / (self.n_called + self.n_positive)

    @property
    def average_precision(self) -> float | None:
        """Σ (R_k - R_{k-1}) P_k over the thresholds; None without positives."""
        if not self.n_positive:
            return None
        steps = np.diff(self.n_correct, prepend=0)
        return float(np.sum(steps * self.precision) / self.n_positive)

    def rates_at(self, threshold: float) -> dict[str, float | None]:
        """Return `rates` of what scores at least ``threshold``."""
        k = int(np.searchsorted(-self.thresholds, -threshold, side="right"))
        n_called, n_correct = (self.n_called[k - 1], self.n_correct[k - 1]) if k else (0, 0)
        return plain(rates(n_called, n_correct, self.n_positive))

    def below(self, k: int) -> float:
        """Return a threshold that calls the same as ``thresholds[k]``, with room below.

        It lies midway to the next lower score, so that other data meet no knife's edge; where all
        is called it is the lowest score.
        """
        value = float(self.thresholds[k])
        if k == len(self.thresholds) - 1:
            return value
        lower = float(self.thresholds[k + 1])
        middle = (value + lower) / 2
        return middle if middle > lower else value  # between neighbouring floats it may round down

    def best_f1_threshold(self) -> float:
        """Return the threshold of the highest F1, of equally good ones the highest; see `below`."""
        return self.below(int(np.argmax(self.f1)))


def micrograph_weights(n: int, n_bootstrap: int, seed: int) -> np.ndarray:
    """Return how often each of n micrographs is drawn in each resample, int64 (n_bootstrap, n).

    With fewer than two nothing varies: no resample, and every interval is None.
    """
    if n < 2:
        return np.zeros((0, n), dtype=np.int64)
    return stream(seed, "bootstrap").multinomial(n, np.full(n, 1 / n), size=n_bootstrap)


def interval(values: np.ndarray) -> list[float] | None:
    """Return the middle 95% of resampled values, NaN left out; None without any."""
    values = values[np.isfinite(values)]
    return np.percentile(values, [2.5, 97.5]).tolist() if len(values) else None
