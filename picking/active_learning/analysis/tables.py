"""A comparison of strategies as plain text for a terminal of 100 columns."""

import textwrap
from typing import Any

WIDTH = 100


def report(summary: dict[str, Any]) -> str:
    """Return what comparison_summary.json holds, as tables and sentences."""
    pool, minutes = summary["pool"], summary["minutes_per_image"]
    n_runs = sum(run["compared"] for run in summary["runs"])
    lines = [
        f"{n_runs} runs compared: a pool of {pool['images']:,} images with "
        f"{pool['particles']:,} particles, {summary['val_images']:,} validation images"
    ]
    for title, split in (("VALIDATION", summary["validation"]), ("TEST", summary["test"])):
        lines += ["", f"{title}: F1 of pixels at 0.5; ± standard deviation over seeds"]
        lines += _split(split) if split else ["not every compared iteration has figures of it"]
    lines += ["", f"SAVED at the target on validation, at {minutes:g} minutes an image"]
    lines += _savings(summary["validation"]["strategies"])
    lines += ["", f"HYPOTHESIS: {summary['hypothesis']}; judged on validation"]
    for found in summary["verdicts"].values():
        lines += _wrapped(found["words"])
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
        for label, figures in reversed(strategies.items())
        for goal in [figures["target"]]
    }
    for text, label in reversed(goals.items()):
        lines += _wrapped(f"target{'' if len(goals) == 1 else f' of {label}'}: {text}")

    # The curves
    area = "area" if covered is None else f"area {covered[0]:.0%}-{covered[1]:.0%}"
    rows = [["strategy", "seeds", "covers", "best F1", area, "area minus random's [95%]"]]
    for label, figures in strategies.items():
        low, high = figures["covered"]
        against = figures["against"].get("random")
        rows.append(
            [
                label,
                str(len(figures["seeds"])),
                f"{low:.0%}-{high:.0%}",
                _mean(figures["best_f1"]),
                _mean(figures["area"]),
                _difference(against["area"]) if against else "",
            ]
        )
    lines += ["", *_table(rows)]

    # Data needed
    first = next(iter(strategies.values()))
    names = list(dict.fromkeys(row["level"] for f in strategies.values() for row in f["levels"]))
    whole = "full" if first["full_data_f1"] else "target"
    for axis, title in (("images", "images needed"), ("particles", "particles needed")):
        rows = [[title, *(name if name == "target" else f"{name} of {whole}" for name in names)]]
        for label, figures in strategies.items():
            cells = {row["level"]: _needed(row[axis], axis) for row in figures["levels"]}
            rows.append([label, *(cells.get(name, "") for name in names)])
        lines += ["", *_table(rows)] if names else []
    return lines


def _savings(strategies: dict[str, Any]) -> list[str]:
    rows = [["strategy", "images against random", "hours", "images against all", "hours"]]
    notes = []
    for label, figures in strategies.items():
        row = next((row for row in figures["levels"] if row["level"] == "target"), None)
        if row is None:
            continue
        cells = [label]
        for key in ("saved_against_random", "saved_against_everything"):
            cells += _saved(row[key])
        rows.append(cells)
        against = row["saved_against_random"] or row["saved_against_everything"]
        why = against["why"]
        if row["saved_against_random"] is None and figures["strategy"] != "random":
            why = f"{why}; no random run" if why else "no random run with the same settings"
        if why:
            notes += _wrapped(f"{label}: {why}")
    return [*_table(rows), *notes] if len(rows) > 1 else ["cannot be told without a target"]


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
    """Return where the mean curve reaches a level: ≤ the first set has it, > it never did."""
    mean = level["mean_curve"]
    if mean is None:
        return "-"
    sign = "> " if mean["at"] is None else "≤ " if mean["at_most"] else ""
    if axis == "images":
        share = mean["searched_share"] if mean["at"] is None else mean["share"]
        return f"{sign}{share:.1%}"
    return f"{sign}{mean['searched_to'] if mean['at'] is None else mean['at']:,.0f}"


def _mean(figure: dict[str, Any]) -> str:
    if figure["mean"] is None:
        return "-"
    deviation = "" if figure["deviation"] is None else f" ±{figure['deviation']:.4f}"
    return f"{figure['mean']:.4f}{deviation}"


def _difference(figure: dict[str, Any]) -> str:
    if figure["mean"] is None:
        return "-"
    interval = figure["interval"]
    text = "" if interval is None else f" [{interval[0]:+.4f}, {interval[1]:+.4f}]"
    return f"{figure['mean']:+.4f}{text}"


def _table(rows: list[list[str]]) -> list[str]:
    """Return rows as lines: the first column left, shortened where it would pass `WIDTH`."""
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
