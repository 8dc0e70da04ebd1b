"""A comparison of strategies as tables for a terminal of 100 columns."""

import textwrap
from typing import Any

from picking.active_learning.analysis.verdicts import LIMIT

WIDTH = 100


def report(summary: dict[str, Any]) -> str:
    """Return the tables of what comparison_summary.json holds."""
    pool, minutes = summary["pool"], summary["minutes_per_image"]
    n_runs = sum(run["compared"] for run in summary["runs"])
    lines = [
        f"{n_runs} runs compared: a pool of {pool['images']:,} images with "
        f"{pool['particles']:,} particles, {summary['val_images']:,} validation images"
    ]
    for title, split in (("VALIDATION", summary["validation"]), ("TEST", summary["test"])):
        lines += ["", f"{title}: F1 of pixels at 0.5; ± standard deviation over seeds"]
        lines += _split(split) if split else ["not every compared iteration has an F1 on it"]
    lines += ["", f"SAVED at the target on validation, at {minutes:g} minutes an image"]
    lines += _savings(summary["validation"]["strategies"])
    lines += ["", f"HYPOTHESIS: {summary['hypothesis']}; judged on validation"]
    lines += _verdicts(summary["verdicts"])
    if summary["missing"]:
        lines += ["", "NOT COMPLETE, only complete iterations count"]
        for text in summary["missing"]:
            lines += _wrapped(text)
    if summary["left_out"]:
        lines += ["", "LEFT OUT"]
        for run, why in summary["left_out"].items():
            lines += _wrapped(f"{run}: {why}")
    return "\n".join(lines)


def _split(split: dict[str, Any]) -> list[str]:
    strategies, covered = split["strategies"], split["area_range"]
    lines = []

    # Where the target comes from, once if it is the same for all
    goals = {
        ("" if goal["f1"] is None else f"F1 {goal['f1']:.4f}, ") + goal["source"]: label
        for label, strategy in reversed(strategies.items())
        for goal in [strategy["target"]]
    }
    for text, label in reversed(goals.items()):
        lines += _wrapped(f"target{'' if len(goals) == 1 else f' of {label}'}: {text}")

    # The curves
    area = "area" if covered is None else f"area {covered[0]:.0%}-{covered[1]:.0%}"
    rows = [["strategy", "seeds", "covers", "best F1", area, "area minus random's [95%]"]]
    for label, strategy in strategies.items():
        low, high = strategy["covered"]
        against = strategy["against"].get("random")
        rows.append([
            label, str(len(strategy["seeds"])), f"{low:.0%}-{high:.0%}", _mean(strategy["best_f1"]),
            _mean(strategy["area"]), _with_interval(against["area"], "+.4f") if against else "",
        ])  # fmt: skip
    lines += ["", *_table(rows)]

    # The same by what the labels cost
    if covered := split["clicks_range"]:
        low, high = covered
        rows = [[f"{low:,.0f} to {high:,.0f} clicks", "area", "over log clicks", "minus random's"]]
        for label, strategy in strategies.items():
            against = strategy["against"].get("random")
            rows.append([
                label, _mean(strategy["area_clicks"]), _mean(strategy["area_log_clicks"]),
                _with_interval(against["area_log_clicks"], "+.4f") if against else "",
            ])  # fmt: skip
        lines += ["", *_table(rows)]

    # Data needed
    first = next(iter(strategies.values()))
    names = list(dict.fromkeys(row["level"] for s in strategies.values() for row in s["levels"]))
    whole = "full" if first["full_data_f1"] else "target"
    for axis, title in (("images", "images needed"), ("particles", "particles needed")):
        rows = [[title, *(name if name == "target" else f"{name} of {whole}" for name in names)]]
        for label, strategy in strategies.items():
            cells = {row["level"]: _needed(row[axis], axis) for row in strategy["levels"]}
            rows.append([label, *(cells.get(name, "") for name in names)])
        lines += ["", *_table(rows)] if names else []
    return lines


def _savings(strategies: dict[str, Any]) -> list[str]:
    rows = [["strategy", "images against random", "hours", "images against all", "hours"]]
    notes = []
    for label, strategy in strategies.items():
        row = next((row for row in strategy["levels"] if row["level"] == "target"), None)
        if row is None:
            continue
        random, everything = row["saved_against_random"], row["saved_against_everything"]
        rows.append([label, *_saved(random), *_saved(everything)])
        why = (random or everything)["why"]
        if random is None and strategy["strategy"] != "random":
            why = f"{why}; no random run" if why else "no random run with the same settings"
        if why:
            notes += _wrapped(f"{label}: {why}")
    return [*_table(rows), *notes] if len(rows) > 1 else ["cannot be told without a target"]


def _verdicts(verdicts: dict[str, Any]) -> list[str]:
    rows = [["strategy", "verdict", "target", f"F1 at {LIMIT:.0%} [95%]", "seeds that reach it"]]
    for label, judged in verdicts.items():
        target, reached = judged["target"], judged["n_seeds_reached"]
        rows.append([
            label, judged["verdict"], "-" if target is None else f"{target:.4f}",
            _with_interval(judged["f1_at_limit"], ".4f"),
            "-" if reached is None else f"{reached} of {judged['n_seeds']}",
        ])  # fmt: skip
    return _table(rows)


def _saved(saved: dict[str, Any] | None) -> list[str]:
    if saved is None or saved["images"] is None:
        return ["-", "-"]
    sign = {"exactly": "", "at least": "≥ ", "at most": "≤ "}[saved["bound"]]
    deviation = saved["images"]["deviation"]
    images = f"{sign}{saved['images']['mean']:,.0f}"
    if deviation is not None and not sign:
        images += f" ±{deviation:,.0f}"
    return [images, f"{sign}{saved['hours']:,.1f}"]


def _needed(level: dict[str, Any], axis: str) -> str:
    """Return where the mean curve reaches a level: ≤ if the first set does, > if none did."""
    mean = level["mean_curve"]
    if mean is None:
        return "-"
    sign = "> " if mean["at"] is None else "≤ " if mean["at_most"] else ""
    if axis == "images":
        fraction = mean["searched_share"] if mean["at"] is None else mean["share"]
        return f"{sign}{fraction:.1%}"
    return f"{sign}{mean['searched_to'] if mean['at'] is None else mean['at']:,.0f}"


def _mean(metric: dict[str, Any]) -> str:
    if metric["mean"] is None:
        return "-"
    deviation = "" if metric["deviation"] is None else f" ±{metric['deviation']:.4f}"
    return f"{metric['mean']:.4f}{deviation}"


def _with_interval(metric: dict[str, Any], form: str) -> str:
    if metric["mean"] is None:
        return "-"
    interval = ", ".join(f"{end:{form}}" for end in metric["interval"] or ())
    return f"{metric['mean']:{form}}" + (f" [{interval}]" if interval else "")


def _table(rows: list[list[str]]) -> list[str]:
    """Return rows as lines of at most `WIDTH`, for which the first column is shortened."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first = min(widths[0], WIDTH - sum(widths[1:]) - 2 * len(widths[1:]))
    lines = []
    for name, *cells in rows:
        name = name if len(name) <= first else name[: first - 1] + "…"
        parts = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(first), *parts]).rstrip())
    return lines


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
