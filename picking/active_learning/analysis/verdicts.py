"""The verdict on the hypothesis that active learning needs at most 40% of the images."""

from typing import Any

import numpy as np

from picking.active_learning.analysis.curves import crossing, mean_curve, over_seeds
from picking.active_learning.analysis.runs import LearningCurve

LIMIT = 0.40
HYPOTHESIS = f"the target F1 with at most {LIMIT:.0%} of the images"
HOLDS, DOES_NOT_HOLD, UNKNOWN = "holds", "does not hold", "cannot be told"


def verdict(curves: dict[int, LearningCurve], level: float | None, pool: int) -> dict[str, Any]:
    """Judge the hypothesis for one strategy, on the mean curve of its seeds.

    curves: by seed. level: the target F1, None without one. pool: its images. The schedule rounds
    to whole images, so 40% may mean the rounded number: the curve must cover the smaller of the
    two, and the target counts as reached up to the larger.
    """
    limit = LIMIT * pool
    low, high = sorted([limit, float(round(limit))])

    def covers(curve: LearningCurve) -> bool:
        return len(curve.images) > 0 and curve.images[0] <= high and curve.images[-1] >= low

    def needed(curve: LearningCurve) -> float | None:
        if level is None or len(curve.f1) == 0:
            return None
        return crossing(curve.images, curve.f1, level)["at"]

    mean = mean_curve(curves)
    at = needed(mean)
    covering = {seed: curve for seed, curve in curves.items() if covers(curve)}
    seeds = [x for curve in curves.values() if (x := needed(curve)) is not None and x <= high]
    if at is not None and at <= high:
        judged = HOLDS
    elif level is not None and covers(mean):
        judged = DOES_NOT_HOLD
    else:
        judged = UNKNOWN
    return {
        "verdict": judged,
        "target": level,
        "share_needed": None if at is None else at / pool,
        "n_seeds": len(curves),
        "n_seeds_reached": None if level is None else len(seeds),
        "n_seeds_covering": len(covering),
        "f1_at_limit": over_seeds(
            {s: float(np.interp(limit, curve.images, curve.f1)) for s, curve in covering.items()}
        ),
    }
