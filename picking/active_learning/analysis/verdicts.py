"""The verdict on the hypothesis that active learning needs at most 40% of the images."""

import math
from typing import Any

import numpy as np

from picking.active_learning.analysis.curves import crossing, mean_curve, over_seeds
from picking.active_learning.analysis.runs import Curve, Group, partner

LIMIT = 0.40
HYPOTHESIS = f"the target F1 with at most {LIMIT:.0%} of the images"
NO_TARGET = "run --strategy full, or give --target-f1"


def verdicts(active: list[Group], validation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return each strategy's verdict on the hypothesis, by label, with its sentences in `words`."""
    pool = active[0].first.iterations[0]["num_pool"]
    found = {}
    for group in active:
        curves = {seed: run.curve("val") for seed, run in group.runs.items()}
        level = validation["strategies"][group.label]["target"]["f1"]
        found[group.label] = verdict(curves, level, pool)
    for group in active:
        random = partner(active, group, "random")
        words = in_words(group.label, found[group.label])
        if group.first.strategy != "random":
            words += beside_random(found[group.label], found[random.label] if random else None)
        found[group.label]["words"] = words
    return found


def verdict(curves: dict[int, Curve], level: float | None, pool: int) -> dict[str, Any]:
    """Judge the hypothesis for one strategy, on the mean curve of its seeds.

    The schedule rounds to whole images, so 40% is covered from, and counts up to, the rounded
    number where that is less or more.
    """
    limit = LIMIT * pool
    low, high = sorted([limit, float(round(limit))])

    def covers(curve: Curve) -> bool:
        return len(curve.images) > 0 and curve.images[0] <= high and curve.images[-1] >= low

    mean = mean_curve(curves)
    there = {seed: curve for seed, curve in curves.items() if covers(curve)}
    f1_there = {s: float(np.interp(limit, curve.images, curve.f1)) for s, curve in there.items()}
    found: dict[str, Any] = {
        "verdict": "cannot be told",
        "target": level,
        "share_needed": None,
        "n_seeds": len(curves),
        "n_seeds_reached": None,
        "n_seeds_covering": len(there),
        "f1_at_limit": over_seeds(f1_there),
    }
    if level is None:
        return found | {"reason": f"there is no target ({NO_TARGET})"}
    by_seed = [crossing(curve.images, curve.f1, level)["at"] for curve in curves.values()]
    found["n_seeds_reached"] = sum(at is not None and at <= high for at in by_seed)
    at = crossing(mean.images, mean.f1, level)["at"] if len(mean.f1) else None
    found["share_needed"] = None if at is None else at / pool
    if at is not None and at <= high:
        at_most = "at most " if at == mean.images[0] else ""
        reason = f"the target is reached with {at_most}{at / pool:.1%} of the images"
        return found | {"verdict": "holds", "reason": reason}
    if covers(mean):
        later = f"nor with more, up to {mean.images[-1] / pool:.1%}"
        later = later if at is None else f"but with {at / pool:.1%}"
        reason = f"the target is not reached with {LIMIT:.0%} of the images, {later}"
        return found | {"verdict": "does not hold", "reason": reason}
    if len(mean.f1) and mean.images[0] > high:
        reason = f"the first iteration has {mean.images[0] / pool:.1%} of the images already"
    elif len(curves) == 1:
        reason = f"complete iterations go up to {mean.images[-1] / pool:.1%} of the images so far"
    else:
        reason = f"complete iterations reach {LIMIT:.0%} of the images on {len(there)} of "
        reason += f"{len(curves)} seeds so far"
    return found | {"reason": reason}


def in_words(label: str, found: dict[str, Any]) -> str:
    """Return a verdict as sentences, with what the seeds leave in doubt."""
    text = f"{label}: {found['verdict'].upper()}: {found['reason']}."
    if found["target"] is None:
        return text
    n, at = found["n_seeds"], found["f1_at_limit"]
    if n == 1:
        text += " One seed only: another may tell otherwise."
    else:
        text += (
            f" Mean of {n} seeds, of which {found['n_seeds_reached']} by themselves reach it with "
            f"at most {LIMIT:.0%}."
        )
    if at["n"]:
        again = found["verdict"] == "holds" and at["mean"] < found["target"]
        text += f" F1 at {LIMIT:.0%}: {at['mean']:.4f}{', less again' if again else ''}"
        low, high = at["interval"] or (math.inf, -math.inf)
        if at["interval"]:
            text += f" (95% interval {low:.4f} to {high:.4f})"
        text += f"; target {found['target']:.4f}."
        if low <= found["target"] <= high:
            text += " The target lies within the interval: more seeds are needed to be sure."
    return text


def beside_random(found: dict[str, Any], random: dict[str, Any] | None) -> str:
    """Return what random labelling with the same settings does, for a verdict that was given."""
    if found["verdict"] == "cannot be told":
        return ""
    if random is None or random["verdict"] == "cannot be told":
        return " Whether random does so too cannot be told."
    if random["verdict"] == "does not hold":
        if found["verdict"] == "holds":
            return " Random does not reach it with as little."
        return f" Nor does random reach it with {LIMIT:.0%}."
    share = f"with {random['share_needed']:.1%}"
    if found["verdict"] == "holds":
        return f" But random does so too, {share}: the active choice is not what reached it."
    return f" Random does reach it, {share}."


def n_seeds(n: int) -> str:
    """Return a number of seeds in words."""
    return "1 seed" if n == 1 else f"{n} seeds"
