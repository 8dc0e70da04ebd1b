"""Scores that mean the same from run to run: about the probability to be a particle.

A network of few labels ranks candidates well, yet scores true particles anywhere from 0.01 to 0.5,
differently in each run. `fit_calibration` finds the line in the logit that makes probabilities of
such scores, from what is known without any complete annotation.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

LEAST_SCORE = 1e-9  # and 1 less it: the logits of 0 and 1 are not finite
# Slopes to choose from, and how far their logarithm is from 0, that of the network itself, before
# any pick is seen: those of four real data sets were 0.3 to 1
SLOPES, SPREAD = np.geomspace(0.1, 10, 41), 0.7
MOST_PARTICLES = 0.95  # of the candidates
LEAST_SPREAD = 1e-6  # of logits; less is rounding


class Calibration(NamedTuple):
    """A score s becomes σ(slope logit(s) + offset); a slope above 0 leaves all ranks.

    threshold: the calibrated score from which a candidate is to be a pick, for the highest F1 that
    can be expected.
    """

    slope: float
    offset: float
    threshold: float

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Return the calibrated scores, float64 (n,), of those of a network."""
        from scipy.special import expit

        return expit(self.slope * logits(scores) + self.offset)


def logits(scores: ArrayLike) -> np.ndarray:
    """Return the logits of scores from 0 to 1, float64 (n,)."""
    from scipy.special import logit

    return logit(np.clip(np.asarray(scores, np.float64), LEAST_SCORE, 1 - LEAST_SCORE))


def fit_calibration(
    candidates: ArrayLike, picked: ArrayLike, n_particles: float, found: float = 1.0
) -> Calibration | None:
    """Return the calibration from some picks and a number of particles; None where none is told.

    Whatever the slope, the offset is the one with which the probabilities p of all candidates add
    up to the particles among them. Of the slopes the most likely one is taken: a pick is a particle
    drawn at random, which falls on a candidate in proportion to p, so the likelihood is the product
    of p / Σp over the picks. Ten picks say little: which slopes are likely at all counts too.

    The best k candidates then have an expected F1 of 2 Σp / (k + n_particles). One more raises it
    if its p is above half of it: so half of the highest is the threshold. The worse a network
    ranks, the further below 0.5 that is.

    Args:
        candidates: (n,) scores of all candidates in some places.
        picked: (m,) scores of those at some of the particles, which the network did not learn from.
        n_particles: how many particles there are in these places, about.
        found: the fraction of particles that have a candidate.
    """
    from scipy.optimize import brentq
    from scipy.special import expit

    z, z_p = logits(candidates), logits(picked)
    if len(z) < 2 or not len(z_p) or z.std() < LEAST_SPREAD or n_particles * found <= 0:
        return None
    share = min(MOST_PARTICLES, found * n_particles / len(z))

    def offset_of(slope: float) -> float:
        far = slope * np.abs(z).max() + abs(math.log(share / (1 - share)))
        return brentq(lambda offset: expit(slope * z + offset).mean() - share, -far, far)

    offsets = np.array([offset_of(slope) for slope in SLOPES])
    log_likelihood = -np.logaddexp(0, -(SLOPES[:, None] * z_p + offsets[:, None])).sum(axis=1)
    best = np.argmax(log_likelihood - (np.log(SLOPES) / SPREAD) ** 2 / 2)
    slope, offset = SLOPES[best], offsets[best]
    p = np.sort(expit(slope * z + offset))[::-1]
    f1 = 2 * np.cumsum(p) / (np.arange(1, len(p) + 1) + n_particles)
    return Calibration(float(slope), float(offset), float(f1.max() / 2))
