"""Strategies compared: all that comparison_summary.json holds."""

from typing import Any

import numpy as np

from picking.active_learning.analysis.curves import (
    areas,
    crossing,
    needed,
    over_seeds,
    paired,
    saving,
    savings,
)
from picking.active_learning.analysis.runs import (
    Group,
    LearningCurve,
    Run,
    comparable,
    counterpart,
    f1_of,
    groups,
    incomplete,
    labels,
    n_seeds,
)
from picking.active_learning.analysis.verdicts import HYPOTHESIS, UNKNOWN, verdict
from picking.errors import UserError

LEVELS = (0.90, 0.95, 0.98, 1.00)  # of the full-data F1
FULL_POOL = 5172  # training images of CryoTransformer, to which the config's target_f1 applies
NO_TARGET = "run --strategy full, or give --target-f1"
REFERENCES = ("random", "random_stratified", "foreground_random")


def summarise(runs: list[Run], target_f1: float | None, minutes_per_image: float) -> dict[str, Any]:
    """Return the content of comparison_summary.json.

    runs: from `read_runs`. target_f1: given by the user, or None. Targets, levels and verdicts are
    judged on validation; `test` is None unless every compared iteration has an F1 on test. Raises
    `UserError` when no iteration can be compared.
    """
    named = labels(runs)
    missing = [text for run in runs if (text := incomplete(run, named[run.name]))]
    if not any(run.iterations for run in runs):
        text = "; ".join(missing)
        raise UserError(f"no run has a complete iteration yet ({text}): try again when one has")
    kept, left_out = comparable(runs)
    every = groups(kept, named)
    active = [group for group in every if group.first.strategy != "full"]
    full = [group for group in every if group.first.strategy == "full"]
    if not active:
        raise UserError(
            "there is nothing to compare yet, only runs of --strategy full: run others, e.g. "
            "'python train_active_learning_fixed.py --strategy random'"
        )
    pool = active[0].first.iterations[0]
    validation = compare_strategies(active, full, "val", target_f1, minutes_per_image)
    assert validation is not None
    return {
        "pool": {"images": pool["num_pool"], "particles": pool["num_particles_pool"]},
        "val_images": pool["val_images"],
        "minutes_per_image": minutes_per_image,
        "runs": [
            {
                "run": run.name,
                "label": named[run.name],
                "seed": run.seed,
                "iterations_complete": len(run.iterations),
                "compared": run.name not in left_out and bool(run.iterations),
            }
            for run in runs
        ],
        "missing": missing,
        "left_out": left_out,
        "validation": validation,
        "test": compare_strategies(active, full, "test", None, minutes_per_image),
        "hypothesis": HYPOTHESIS,
        "verdicts": {
            group.label: verdict(
                {seed: run.curve("val") for seed, run in group.runs.items()},
                validation["strategies"][group.label]["target"]["f1"],
                pool["num_pool"],
            )
            for group in active
        },
    }


def compare_strategies(
    active: list[Group], full: list[Group], split: str, given: float | None, minutes: float
) -> dict[str, Any] | None:
    """Return what each strategy reached on `val` or `test`; None if an F1 on test is missing.

    given: the target F1 of the command line; minutes: to label an image.
    """
    runs = [run for group in active for run in group.runs.values()]
    if split == "test" and any(f1_of(m, split) is None for run in runs for m in run.iterations):
        return None
    curves = {g.label: {s: run.curve(split) for s, run in g.runs.items()} for g in active}
    common, by_images = areas(curves, "images")
    common_clicks, by_clicks = areas(curves, "clicks")
    _, by_log_clicks = areas(curves, "clicks", log=True)
    of_axes = {"area": by_images, "area_clicks": by_clicks, "area_log_clicks": by_log_clicks}
    pool = active[0].first.iterations[0]["num_pool"]
    strategies = {}
    for group in active:
        own = curves[group.label]
        others = {name: counterpart(active, group, name) for name in REFERENCES}
        base = baseline(full, group.first.model, split)
        goal = target(group, given, base, split)
        strategies[group.label] = {
            "strategy": group.first.strategy,
            "seeds": list(group.runs),
            "full_data_f1": base,
            "target": goal,
            "f1": over_images(own, pool),
            "best_f1": over_seeds({seed: curve.f1.max() for seed, curve in own.items()}),
            "covered": [
                float(max(curve.images[0] for curve in own.values())) / pool,
                float(min(curve.images[-1] for curve in own.values())) / pool,
            ],
            **{name: over_seeds(of_one[group.label]) for name, of_one in of_axes.items()},
            "levels_of": "the full-data baseline" if base else "the target",
            "levels": levels(group, curves, others["random"], goal["f1"], base, minutes),
            "against": {
                name: {
                    "reference": other.label,
                    **{
                        axis: paired(of_one[group.label], of_one[other.label])
                        for axis, of_one in of_axes.items()
                    },
                    "f1": over_images(own, pool, curves[other.label]),
                }
                for name, other in others.items()
                if other
            },
        }
    return {
        "area_range": [x / pool for x in common] if common else None,
        "clicks_range": list(common_clicks) if common_clicks else None,
        "strategies": strategies,
    }


def over_images(
    own: dict[int, LearningCurve], pool: int, other: dict[int, LearningCurve] | None = None
) -> list[dict[str, Any]]:
    """Return F1 at each number of images, over the seeds that have it; with ``other``, F1 minus it.

    own, other: curves by seed; pool: its images.
    """

    def at(curves: dict[int, LearningCurve], n: float) -> dict[int, float]:
        return {s: float(c.f1[c.images == n][0]) for s, c in curves.items() if n in c.images}

    rows = []
    for n in sorted({float(n) for curve in own.values() for n in curve.images}):
        f1 = over_seeds(at(own, n)) if other is None else paired(at(own, n), at(other, n))
        there = [(c, c.images == n) for c in own.values() if n in c.images]
        if f1["n"]:
            rows.append({"images": int(n), "share": n / pool} | f1)
            if other is None:
                rows[-1]["particles"] = float(np.mean([c.particles[at_n] for c, at_n in there]))
                clicks = [c.clicks[at_n] for c, at_n in there if c.clicks is not None]
                all_known = len(clicks) == len(there)
                rows[-1]["clicks"] = float(np.mean(clicks)) if all_known else None
    return rows


def levels(
    group: Group,
    curves: dict[str, dict[int, LearningCurve]],
    random: Group | None,
    target_f1: float | None,
    base: dict[str, Any] | None,
    minutes: float,
) -> list[dict[str, Any]]:
    """Return the data needed and saved to reach the target and `LEVELS` of the full-data F1.

    Without a full-data baseline, `LEVELS` are of the target. curves: by label, then by seed;
    random: the group of `random` with the same settings; base: from `baseline`; minutes: to label
    an image.
    """
    metrics, own = group.first.iterations[0], curves[group.label]
    others = curves[random.label] if random else {}
    pool, all_particles = metrics["num_pool"], metrics["num_particles_pool"]
    whole = base["mean"] if base else target_f1
    wanted = {} if target_f1 is None else {"target": target_f1}
    wanted |= {} if whole is None else {f"{part:.0%}": part * whole for part in LEVELS}
    everything = {"at": pool, "at_most": False, "searched_to": pool}
    rows = []
    for name, level in wanted.items():
        there, theirs = (
            {s: crossing(c.images, c.f1, level) for s, c in each.items()} for each in (own, others)
        )
        to_random = {s: saving(there[s], theirs[s], pool) for s in there if s in theirs}
        to_all = {s: saving(there[s], everything, pool) for s in there}
        rows.append(
            {
                "level": name,
                "f1": level,
                "images": needed(own, level, "images", pool),
                "particles": needed(own, level, "particles", all_particles),
                "saved_against_random": savings(to_random, minutes) if random else None,
                "saved_against_everything": savings(to_all, minutes),
            }
        )
    return rows


def baseline(full: list[Group], model: tuple, split: str) -> dict[str, Any] | None:
    """Return F1 of the full-data runs of a network, over seeds; None without such runs.

    Of several groups, that with the highest validation F1 counts.
    """

    def last_f1(group: Group, split: str) -> dict[str, Any]:
        last = {seed: f1_of(run.iterations[-1], split) for seed, run in group.runs.items()}
        return over_seeds({seed: f1 for seed, f1 in last.items() if f1 is not None})

    same = [group for group in full if group.first.model == model]
    best = max(same, key=lambda group: last_f1(group, "val")["mean"], default=None)
    f1 = last_f1(best, split) if best else None
    return f1 | {"n_settings": len(same)} if f1 and f1["n"] else None


def target(group: Group, given: float | None, base: dict | None, split: str) -> dict[str, Any]:
    """Return the F1 to reach, or None, and its source; on test only a baseline gives one."""
    if given is not None:
        return {"f1": given, "source": "given by --target-f1"}
    if base:
        source = f"the full-data baseline: {base['mean']:.4f}, {n_seeds(base['n'])}"
        if base["n_settings"] > 1:
            source += f", the best of {base['n_settings']} settings"
        return {"f1": base["mean"], "source": source}
    if split == "val" and group.first.iterations[0]["num_pool"] == FULL_POOL:
        f1 = max(run.config.active_learning.target_f1 for run in group.runs.values())
        return {"f1": f1, "source": f"target_f1 of config.json, for the {FULL_POOL:,} images"}
    return {"f1": None, "source": f"{UNKNOWN}: {NO_TARGET}"}
