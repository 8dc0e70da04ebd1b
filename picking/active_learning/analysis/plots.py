"""The two pictures of a comparison of strategies, drawn from what comparison_summary.json holds."""

import io
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from picking.active_learning.analysis.runs import IMAGE, OPENING, n_seeds
from picking.active_learning.analysis.verdicts import LIMIT
from picking.files import write_atomically

# Colour and marker of a strategy in every picture: hues that colour-blind readers can tell apart
# (Okabe and Ito; Tol), the foreground variants in a lighter shade.
STYLES = {
    "random": ("#000000", "o"),
    "random_stratified": ("#808080", "s"),
    "foreground_random": ("#B0B0B0", "D"),
    "uncertainty": ("#0072B2", "o"),
    "foreground_uncertainty": ("#56B4E9", "^"),
    "entropy": ("#D55E00", "s"),
    "foreground_entropy": ("#F2A27A", "^"),
    "power_entropy": ("#7A3400", "v"),
    "clasp_pe": ("#A6761D", "P"),
    "margin": ("#009E73", "D"),
    "foreground_margin": ("#7FCEB9", "^"),
    "hybrid": ("#CC79A7", "P"),
    "diversity": ("#E69F00", "v"),
    "typiclust": ("#999933", "X"),
    "typical_first": ("#DDCC77", "o"),
    "bald": ("#882255", "D"),
    "badge": ("#AA4499", "X"),
    "cost_aware": ("#332288", "P"),
}
OTHER_STYLE = ("#555555", "*")  # of a strategy that has none above
LINES = ("-", "--", "-.", ":")  # for further settings of one strategy
RED = "#B2182B"


def draw_comparison(summary: dict[str, Any], path: Path) -> None:
    """Draw F1 on validation against labelled images, particles and, where known, what they cost."""
    strategies = summary["validation"]["strategies"]
    known = all(row["clicks"] is not None for s in strategies.values() for row in s["f1"])
    xs = ("share", "particles", "clicks") if known else ("share", "particles")
    figure = Figure(figsize=(6.5 * len(xs), 6.2), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(xs), sharey=True)
    by_images, by_particles = panels[:2]
    for axis, x in zip(panels, xs, strict=True):
        for label, strategy in strategies.items():
            _draw_curve(axis, x, label, strategy, _style(strategies, label))
        for name, f1, colour, dashes in _horizontal_lines(strategies):
            axis.axhline(f1, color=colour, ls=dashes, lw=1.4, label=name, zorder=1)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.02)
    by_images.axvline(LIMIT, color=RED, lw=1, ls=":", zorder=1)
    by_images.annotate(
        f" {LIMIT:.0%} of the images", (LIMIT, 0.02), xycoords=("data", "axes fraction"),
        color=RED, fontsize=9,
    )  # fmt: skip
    by_images.xaxis.set_major_formatter(PercentFormatter(1))
    for axis in panels[1:]:
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    pool = summary["pool"]
    by_images.set(
        xlabel=f"labelled fraction of the {pool['images']:,} images",
        ylabel=f"F1 of pixels at 0.5, {summary['val_images']:,} validation images",
        title="By images",
    )
    by_particles.set(xlabel=f"labelled particles, of {pool['particles']:,}", title="By particles")
    if known:
        panels[2].set(
            xlabel=f"clicks: {OPENING} a micrograph, {IMAGE} an image, 1 a particle",
            title="By clicks",
        )
    figure.suptitle(
        "Mean over seeds; bands from the lowest to the highest seed; dotted: some seeds only",
        fontsize=10,
    )
    handles, names = by_images.get_legend_handles_labels()
    _legend(figure, handles, names, ncols=5, handlelength=3)
    _write(figure, path)


def _draw_curve(axis: Any, x: str, label: str, strategy: dict, style: dict[str, Any]) -> None:
    """Draw the mean of one strategy's seeds, dotted where only some have come so far."""
    n, rows = len(strategy["seeds"]), strategy["f1"]
    colour, marker = style["colour"], style["marker"]
    whole = [row for row in rows if row["n"] == n]
    x_whole, means = [row[x] for row in whole], [row["mean"] for row in whole]
    axis.plot(x_whole, means, color=colour, ls=style["line"], lw=2, marker=marker, ms=5.5,
              label=f"{label} ({n_seeds(n)})")  # fmt: skip
    lowest, highest = ([end(row["by_seed"].values()) for row in whole] for end in (min, max))
    axis.fill_between(x_whole, lowest, highest, color=colour, alpha=0.13, lw=0)
    some = [row for row in rows if row["n"] < n]
    if some:
        joined = whole[-1:] + some
        axis.plot([row[x] for row in joined], [row["mean"] for row in joined], color=colour,
                  ls=":", lw=1.2, marker=marker, ms=4, mfc="white",
                  markevery=slice(len(joined) - len(some), None))  # fmt: skip


def _horizontal_lines(strategies: dict[str, Any]) -> list[tuple[str, float, str, str]]:
    """Return name, F1, colour and dashes of every baseline and target, each once."""
    lines = {}
    for strategy in strategies.values():
        base, goal = strategy["full_data_f1"], strategy["target"]["f1"]
        if base:
            same = "baseline and target" if base["mean"] == goal else "baseline"
            text = f"full-data {same} {base['mean']:.4f} ({n_seeds(base['n'])})"
            lines[text] = (text, base["mean"], "#444444", "--")
        if goal is not None and not (base and base["mean"] == goal):
            text = f"target {goal:.4f}"
            lines[text] = (text, goal, RED, "-.")
    return list(lines.values())


def draw_efficiency(summary: dict[str, Any], path: Path) -> None:
    """Draw how many images and particles each strategy needs for each level of validation F1.

    A bar ends where the mean curve first reaches the level; dots are single seeds. A hatched bar
    with an arrow did not reach it: more data than that are needed.
    """
    strategies = summary["validation"]["strategies"]
    names = _levels(strategies)
    figure = Figure(figsize=(13, 8), dpi=110, layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    styles = {label: _style(strategies, label) for label in strategies}
    width = 0.82 / len(strategies)
    for axis, key in zip(panels, ("images", "particles"), strict=True):
        whole = summary["pool"]["images"] if key == "images" else None
        for place, (label, style) in enumerate(styles.items()):
            for row in strategies[label]["levels"]:
                if row["level"] in names and row[key]["mean_curve"]:
                    x = names.index(row["level"]) - 0.41 + (place + 0.5) * width
                    _draw_bar(axis, x, width * 0.92, row[key], whole, style)
        axis.grid(axis="y", alpha=0.25)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(y=0.14)
    if names:
        panels[0].set_xlim(-0.5, len(names) - 0.5)
    else:
        panels[0].text(
            0.5, 0.5, "no level to reach: " + next(iter(strategies.values()))["target"]["source"],
            ha="center", transform=panels[0].transAxes,
        )  # fmt: skip
    panels[1].set_xticks(range(len(names)), [_tick(strategies, name) for name in names])
    panels[0].axhline(LIMIT, color=RED, lw=1, ls=":", zorder=1)
    panels[0].yaxis.set_major_formatter(PercentFormatter(1))
    panels[1].yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    panels[0].set_ylabel(f"fraction of the {summary['pool']['images']:,} images")
    panels[1].set_ylabel(f"particles (clicks), of {summary['pool']['particles']:,}")
    panels[1].set_xlabel("level of validation F1")
    figure.suptitle(
        "Labels needed to reach a level: mean curve; dots: single seeds that reach it; "
        f"dotted line: {LIMIT:.0%} of the images",
        fontsize=10,
    )
    handles = [Patch(facecolor=s["colour"], alpha=s["alpha"]) for s in styles.values()]
    handles.append(Patch(facecolor="white", edgecolor="#444444", hatch="////"))
    _legend(figure, handles, [*styles, "not reached so far: more than that"], ncols=6)
    _write(figure, path)


def _draw_bar(
    axis: Any, x: float, width: float, level: dict, whole: int | None, style: dict
) -> None:
    """Draw what one strategy needs for one level, as a fraction of ``whole`` if given."""
    mean = level["mean_curve"]
    reached = mean["at"] is not None
    height = (mean["at"] if reached else mean["searched_to"]) / (whole or 1)
    number = f"{height:.0%}" if whole else f"{height:,.0f}"
    if not whole and height >= 10_000:
        number = f"{height / 1000:,.0f}k"
    if reached:
        fill = {"color": style["colour"]}
        text = f"≤{number}" if mean["at_most"] else number
    else:
        fill = {"facecolor": "white", "edgecolor": style["colour"], "hatch": "////"}
        text = f"↑\n>{number}"
    axis.bar(x, height, width, alpha=style["alpha"], **fill)
    ends = [one["at"] / (whole or 1) for one in level["by_seed"].values() if one["at"] is not None]
    if len(level["by_seed"]) > 1:
        axis.plot([x] * len(ends), ends, ls="", marker="o", ms=4, mfc="white", mec="black", mew=0.8)
    axis.annotate(
        text, (x, max([height, *ends])), xytext=(0, 4), textcoords="offset points", ha="center",
        va="bottom", fontsize=8, rotation=90 if width < 0.09 else 0, linespacing=0.9,
    )  # fmt: skip


def _levels(strategies: dict[str, Any]) -> list[str]:
    """Return the levels' names from the lowest; 100% is left out where it is the target."""
    levels: dict[str, float] = {}
    for strategy in strategies.values():
        by_name = {row["level"]: row["f1"] for row in strategy["levels"]}
        if by_name and by_name["target"] == by_name["100%"]:
            del by_name["100%"]
        levels = {**by_name, **levels}
    return sorted(levels, key=lambda name: levels[name])


def _tick(strategies: dict[str, Any], name: str) -> str:
    """Return a level's name, with its F1 where that is the same for all strategies."""
    rows = [
        (row["f1"], strategy["levels_of"])
        for strategy in strategies.values()
        for row in strategy["levels"]
        if row["level"] == name
    ]
    title = name if name == "target" else f"{name} of {rows[0][1].removeprefix('the ')}"
    return f"{title}\nF1 {rows[0][0]:.4f}" if len(set(rows)) == 1 else title


def _style(strategies: dict[str, Any], label: str) -> dict[str, Any]:
    """Return colour and marker of a strategy, and a line and opacity for its further settings."""
    strategy = strategies[label]["strategy"]
    same = [name for name in strategies if strategies[name]["strategy"] == strategy]
    colour, marker = STYLES.get(strategy, OTHER_STYLE)
    place = min(same.index(label), len(LINES) - 1)
    return {"colour": colour, "marker": marker, "line": LINES[place], "alpha": 1 / (1 + place)}


def _legend(figure: Figure, handles: list, names: list[str], ncols: int, **more: Any) -> None:
    """Put a legend of at most ``ncols`` columns below the panels."""
    ncols = min(ncols, len(names))
    figure.legend(handles, names, loc="outside lower center", ncols=ncols, frameon=False, **more)


def _write(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(path, buffer.getvalue())
