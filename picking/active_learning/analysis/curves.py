"""Statistics of learning curves: data needed, area, savings, means and differences over seeds.

Nothing is extrapolated: a level that no complete iteration has reached is None.
"""

import collections
import functools
import math
from typing import Any

import numpy as np
from scipy.integrate import trapezoid
from scipy.special import stdtrit

from picking.active_learning.analysis.runs import LearningCurve

CONFIDENCE = 0.95


def crossing(x: np.ndarray, f1: np.ndarray, level: float) -> dict[str, Any]:
    """Return where a curve first reaches ``level``, interpolated between neighbouring points.

    x and f1 are (n,), x ascending. ``at`` is None where no point reaches the level. Where the first
    point does, it is x[0], and ``at_most`` is True. ``searched_to`` is the last x.
    """
    reached = np.flatnonzero(f1 >= level)
    at, at_most = None, False
    if len(reached) and reached[0] == 0:
        at, at_most = float(x[0]), True
    elif len(reached):
        k = reached[0]
        part = (level - f1[k - 1]) / (f1[k] - f1[k - 1])
        at = float(x[k - 1] + part * (x[k] - x[k - 1]))
    end, best = float(x[-1]), float(f1.max())
    return {"at": at, "at_most": at_most, "searched_to": end, "best_f1": best}


def area(x: np.ndarray, f1: np.ndarray, low: float, high: float) -> float:
    """Return the mean height of a curve between ``low`` and ``high``, by the trapezium rule."""
    x_s = np.concatenate([[low], x[(x > low) & (x < high)], [high]])
    return float(trapezoid(np.interp(x_s, x, f1), x_s) / (high - low))


def over_seeds(values: dict[int, float]) -> dict[str, Any]:
    """Return mean, standard deviation (n - 1) and 95% t interval of the mean, of values by seed.

    Deviation and interval are None for fewer than two seeds, the mean for none.
    """
    x = np.array(list(values.values()), float)
    summary: dict[str, Any] = {"n": len(x), "mean": None, "deviation": None, "interval": None}
    if len(x):
        summary["mean"] = float(x.mean())
    if len(x) > 1:
        summary["deviation"] = float(x.std(ddof=1))
        half = stdtrit(len(x) - 1, (1 + CONFIDENCE) / 2) * summary["deviation"] / math.sqrt(len(x))
        summary["interval"] = [float(x.mean() - half), float(x.mean() + half)]
    return {**summary, "by_seed": {str(seed): float(value) for seed, value in values.items()}}


def paired(one: dict[int, float], other: dict[int, float]) -> dict[str, Any]:
    """Return `over_seeds` of one minus other, over the seeds that both have."""
    return over_seeds({seed: one[seed] - other[seed] for seed in one if seed in other})


def mean_curve(curves: dict[int, LearningCurve]) -> LearningCurve:
    """Return the mean over seeds, at the numbers of images that every seed has."""
    images = functools.reduce(np.intersect1d, (curve.images for curve in curves.values()))
    kept = [(curve, np.isin(curve.images, images)) for curve in curves.values()]
    return LearningCurve(
        images,
        np.mean([curve.particles[keep] for curve, keep in kept], axis=0),
        np.mean([curve.f1[keep] for curve, keep in kept], axis=0),
    )


def areas(
    curves: dict[str, dict[int, LearningCurve]], axis: str, log: bool = False
) -> tuple[tuple[float, float] | None, dict[str, dict[int, float]]]:
    """Return the range of x that all curves of two points or more cover, and the `area` of each.

    curves, and so the areas: by label and seed. axis: what x is, a field of the curves; log: its
    natural logarithm. There is no area where no x is covered by all, or some curve does not know x.
    """
    long = {
        label: {s: c for s, c in own.items() if len(c.images) > 1} for label, own in curves.items()
    }
    xs = {label: {s: getattr(c, axis) for s, c in own.items()} for label, own in long.items()}
    every = [x for own in xs.values() for x in own.values()]
    common = None if any(x is None for x in every) else common_range(every)
    if common is None:
        return None, {label: {} for label in curves}

    def of_one(x: np.ndarray, f1: np.ndarray) -> float:
        low, high = common
        return area(np.log(x), f1, *np.log([low, high])) if log else area(x, f1, low, high)

    return common, {
        label: {s: of_one(xs[label][s], c.f1) for s, c in own.items()}
        for label, own in long.items()
    }


def common_range(xs: list[np.ndarray]) -> tuple[float, float] | None:
    """Return the range that all x of two points or more cover, or None."""
    long = [x for x in xs if len(x) > 1]
    low = max((x[0] for x in long), default=0.0)
    high = min((x[-1] for x in long), default=0.0)
    return (float(low), float(high)) if high > low else None


def saving(own: dict[str, Any], other: dict[str, Any], pool: int) -> dict[str, Any]:
    """Return the images saved between two crossings: a number, a bound, or None and why.

    own: of a strategy; other: of `random` with the same seed, or the whole pool.
    """
    images, bound, why = None, None, None
    if own["at"] is None:
        why = f"not reached within {own['searched_to'] / pool:.1%}"
    elif other["at"] is None:
        why = f"random never reached it within {other['searched_to'] / pool:.1%}"
        if other["searched_to"] > own["at"]:
            images, bound = other["searched_to"] - own["at"], "at least"
    elif own["at_most"] and other["at_most"]:
        why = "random has it with its first set too"
    else:
        images = other["at"] - own["at"]
        bound = "at least" if own["at_most"] else "at most" if other["at_most"] else "exactly"
    return {"images": images, "bound": bound, "why": why}


def savings(by_seed: dict[int, dict], minutes_per_image: float) -> dict[str, Any]:
    """Return the mean of `saving` over seeds, a bound where one of them is, and its hours."""
    bounds = {one["bound"] for one in by_seed.values()}
    counts = collections.Counter(one["why"] for one in by_seed.values() if one["why"])
    n = len(by_seed)
    whys = [f"{why} ({c} of {n} seeds)" if c < n else why for why, c in sorted(counts.items())]
    mean: dict[str, Any] = {"images": None, "hours": None, "bound": None}
    why = "; ".join(whys) or None
    if not by_seed:
        why = "no common seed"
    elif None not in bounds and not {"at least", "at most"} <= bounds:
        mean["bound"] = next(iter(bounds - {"exactly"}), "exactly")
        mean["images"] = over_seeds({seed: one["images"] for seed, one in by_seed.items()})
        mean["hours"] = mean["images"]["mean"] * minutes_per_image / 60
    return {**mean, "why": why, "by_seed": {str(seed): one for seed, one in by_seed.items()}}


def needed(curves: dict[int, LearningCurve], level: float, axis: str, whole: int) -> dict[str, Any]:
    """Return where the mean curve and each seed's curve reach a level.

    axis: `images` or `particles`; whole: how many of them the pool has.
    """

    def find(curve: LearningCurve) -> dict[str, Any]:
        there = crossing(getattr(curve, axis), curve.f1, level)
        reached = there["at"] is not None and whole > 0
        return {
            **there,
            "share": there["at"] / whole if reached else None,
            "searched_share": there["searched_to"] / whole if whole else None,
        }

    mean = mean_curve(curves)
    by_seed = {seed: find(curve) for seed, curve in curves.items()}
    exact = all(one["at"] is not None and not one["at_most"] for one in by_seed.values())
    return {
        "mean_curve": find(mean) if len(mean.f1) else None,
        "n_reached": sum(one["at"] is not None for one in by_seed.values()),
        "over_seeds": over_seeds({s: one["at"] for s, one in by_seed.items()}) if exact else None,
        "by_seed": {str(seed): one for seed, one in by_seed.items()},
    }
