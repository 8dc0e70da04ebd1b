"""Statistics of learning curves: data needed, area, savings, means and differences over seeds.

Nothing is extrapolated: what no complete iteration has shown is None, with what was seen so far.
"""

import collections
import math
from typing import Any

import numpy as np
from scipy.special import stdtrit

from picking.active_learning.analysis.runs import Curve

CONFIDENCE = 0.95


def crossing(x: np.ndarray, f1: np.ndarray, level: float) -> dict[str, Any]:
    """Return where a curve first reaches ``level``, interpolated between neighbouring points.

    x and f1 are (n,), x ascending. ``at`` is None where no point reaches the level, and x[0] with
    ``at_most`` where the first does; ``searched_to`` is the last x.
    """
    reached = np.flatnonzero(f1 >= level)
    found: dict[str, Any] = {"at": None, "at_most": False}
    if len(reached) and reached[0] == 0:
        found = {"at": float(x[0]), "at_most": True}
    elif len(reached):
        k = reached[0]
        part = (level - f1[k - 1]) / (f1[k] - f1[k - 1])
        found["at"] = float(x[k - 1] + part * (x[k] - x[k - 1]))
    return {**found, "searched_to": float(x[-1]), "best_f1": float(f1.max())}


def area(x: np.ndarray, f1: np.ndarray, low: float, high: float) -> float:
    """Return the mean height of a curve between two x within it: trapezia over their width."""
    inside = (x > low) & (x < high)
    x_s = np.concatenate([[low], x[inside], [high]])
    f1_s = np.interp(x_s, x, f1)
    return float(((f1_s[1:] + f1_s[:-1]) / 2 * np.diff(x_s)).sum() / (high - low))


def over_seeds(values: dict[int, float]) -> dict[str, Any]:
    """Return mean, standard deviation (n - 1) and the mean's 95% t interval of a figure by seed.

    Deviation and interval are None with fewer than two seeds, the mean with none.
    """
    x = np.array(list(values.values()), float)
    found: dict[str, Any] = {"n": len(x), "mean": None, "deviation": None, "interval": None}
    if len(x):
        found["mean"] = float(x.mean())
    if len(x) > 1:
        found["deviation"] = float(x.std(ddof=1))
        half = stdtrit(len(x) - 1, (1 + CONFIDENCE) / 2) * found["deviation"] / math.sqrt(len(x))
        found["interval"] = [float(x.mean() - half), float(x.mean() + half)]
    return {**found, "by_seed": {str(seed): float(value) for seed, value in values.items()}}


def paired(one: dict[int, float], other: dict[int, float]) -> dict[str, Any]:
    """Return `over_seeds` of one minus other, over the seeds that both have."""
    return over_seeds({seed: one[seed] - other[seed] for seed in one if seed in other})


def mean_curve(curves: dict[int, Curve]) -> Curve:
    """Return the mean over seeds where every seed has an iteration of as many images."""
    images = set.intersection(*(set(curve.images) for curve in curves.values()))
    kept = [np.isin(curve.images, list(images)) for curve in curves.values()]
    rows = list(zip(curves.values(), kept, strict=True))
    return Curve(
        np.array(sorted(images)),
        np.mean([curve.particles[keep] for curve, keep in rows], axis=0),
        np.mean([curve.f1[keep] for curve, keep in rows], axis=0),
    )


def common_range(curves: list[Curve]) -> tuple[float, float] | None:
    """Return the images that every curve of two points or more covers, or None."""
    long = [curve.images for curve in curves if len(curve.images) > 1]
    low = max((x[0] for x in long), default=0.0)
    high = min((x[-1] for x in long), default=0.0)
    return (float(low), float(high)) if high > low else None


def saving(own: dict[str, Any], other: dict[str, Any], pool: int) -> dict[str, Any]:
    """Return images saved between two crossings: a number, a bound of it, or None and why.

    ``other`` is random's of the same seed, or the pool where everything is labelled.
    """
    unknown = {"images": None, "bound": None}
    if own["at"] is None:
        return unknown | {"why": f"not reached within {own['searched_to'] / pool:.1%}"}
    if other["at"] is None:
        why = f"random never reached it within {other['searched_to'] / pool:.1%}"
        images = other["searched_to"] - own["at"]
        return {"images": images, "bound": "at least", "why": why} if images > 0 else (
            unknown | {"why": why}
        )  # fmt: skip
    if own["at_most"] and other["at_most"]:
        return unknown | {"why": "random has it with its first set too"}
    bound = "at least" if own["at_most"] else "at most" if other["at_most"] else "exactly"
    return {"images": other["at"] - own["at"], "bound": bound, "why": None}


def savings(by_seed: dict[int, dict], minutes_per_image: float) -> dict[str, Any]:
    """Return the mean of `saving` over seeds, as a bound where any is one, and its hours."""
    images = {seed: one["images"] for seed, one in by_seed.items()}
    bounds = {one["bound"] for one in by_seed.values()}
    counts = collections.Counter(one["why"] for one in by_seed.values() if one["why"])
    n = len(by_seed)
    whys = [f"{why} ({c} of {n} seeds)" if c < n else why for why, c in sorted(counts.items())]
    found: dict[str, Any] = {
        "images": None,
        "hours": None,
        "bound": None,
        "why": "; ".join(whys) or None,
    }
    told = bool(by_seed) and None not in bounds and not {"at least", "at most"} <= bounds
    if told:
        found["bound"] = next(iter(bounds - {"exactly"}), "exactly")
        found["images"] = over_seeds(images)
        found["hours"] = found["images"]["mean"] * minutes_per_image / 60
    elif not by_seed:
        found["why"] = "no common seed"
    return {**found, "by_seed": {str(seed): one for seed, one in by_seed.items()}}


def needed(curves: dict[int, Curve], level: float, axis: str, whole: int) -> dict[str, Any]:
    """Return where the mean curve and every seed's reach a level.

    axis: `images` or `particles`, of which the pool has ``whole``: shares are of that.
    """

    def find(curve: Curve) -> dict[str, Any]:
        found = crossing(getattr(curve, axis), curve.f1, level)
        told = found["at"] is not None and whole > 0
        return {
            **found,
            "share": found["at"] / whole if told else None,
            "searched_share": found["searched_to"] / whole if whole else None,
        }

    mean = mean_curve(curves)
    by_seed = {seed: find(curve) for seed, curve in curves.items()}
    told = all(one["at"] is not None and not one["at_most"] for one in by_seed.values())
    return {
        "mean_curve": find(mean) if len(mean.f1) else None,
        "n_reached": sum(one["at"] is not None for one in by_seed.values()),
        "over_seeds": over_seeds({s: one["at"] for s, one in by_seed.items()}) if told else None,
        "by_seed": {str(seed): one for seed, one in by_seed.items()},
    }
