"""Class priors: from the counts of a patch store, or estimated from scores."""

import math

import numpy as np
from numpy.typing import ArrayLike


def best_bin_estimate(
    scores_positive: ArrayLike, scores_unlabeled: ArrayLike, delta: float = 0.1, gamma: float = 0.01
) -> float:
    """Estimate π_U, the share of positives in U, from scores that separate P from U.

    With q_p(c) and q_u(c) the shares of P and U that score at least c, ĉ minimises ::

        q_u/q_p + (1+γ)/q_p · (sqrt(ln(4/δ) / 2n_u) + sqrt(ln(4/δ) / 2n_p))

    and the estimate is q_u(ĉ)/q_p(ĉ), at most 1. It is biased upward where the classes overlap:
    treat it as an upper bound.

    Args:
        scores_positive: (n_p,) scores of labelled positives that the scorer was not trained on.
        scores_unlabeled: (n_u,) scores of unlabeled patches, likewise held out.
        delta: δ, the probability that the bound fails.
        gamma: γ, the slack of the bound.

    Raises:
        ValueError: when a side is empty or a score is not finite.

    Source: Garg et al., Mixture proportion estimation and PU learning: a modern approach, NeurIPS
    2021, algorithm 1.
    """
    positive = np.sort(np.asarray(scores_positive, np.float64))
    unlabeled = np.sort(np.asarray(scores_unlabeled, np.float64))
    if not len(positive) or not len(unlabeled):
        raise ValueError(
            f"best bin estimation needs scores of both sides, got {len(positive)} of labelled "
            f"positives and {len(unlabeled)} of unlabeled patches"
        )
    if not (np.isfinite(positive).all() and np.isfinite(unlabeled).all()):
        raise ValueError("best bin estimation needs finite scores")

    # Shares change at scores only; above the highest score of P, q_p is 0.
    cuts = np.unique(np.concatenate([positive, unlabeled]))
    cuts = cuts[cuts <= positive[-1]]
    q_p = 1 - np.searchsorted(positive, cuts) / len(positive)
    q_u = 1 - np.searchsorted(unlabeled, cuts) / len(unlabeled)
    log_term = math.log(4 / delta)
    width = math.sqrt(log_term / (2 * len(unlabeled))) + math.sqrt(log_term / (2 * len(positive)))
    best = np.argmin((q_u + (1 + gamma) * width) / q_p)
    return min(1.0, float(q_u[best] / q_p[best]))
