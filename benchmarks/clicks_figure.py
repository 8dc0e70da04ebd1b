"""The picture of benchmarks.clicks: F1 against clicks on each set, a line for each way."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.picking_figure import PROTEINS
from picking.errors import UserError
from picking.files import read_json

COLOURS = {
    "random": "#7f7f7f", "whole": "#bcbd22", "score": "#1f77b4", "uncertain": "#d62728",
    "false": "#9467bd", "apart": "#2ca02c", "corrected": "#ff7f0e",
}  # fmt: skip
LEAST_SPAN = 0.12  # of F1


def draw(folder: Path, picture: Path, all_labels: Mapping[str, float]) -> None:
    """Draw the results on test, or on val where there are none on test; small dots are seeds.

    all_labels: F1 with all labels, by set.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for split in ("test", "val"):
        for path in sorted(folder.glob(f"*/*/results_{split}.json")):
            result = read_json(path)
            found.setdefault(result["set"], {}).setdefault(result["way"], []).append(result)
        if found:
            break
    if not found:
        raise UserError(f"{folder} holds no results: play some sets first")
    figure = Figure(figsize=(4 * len(found), 4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for panel, (name, ways) in zip(panels, sorted(found.items()), strict=True):
        for way, results in ways.items():
            rounds = list(zip(*(result["rows"] for result in results), strict=False))
            clicks = [statistics.mean(row["paid"] for row in rows) for rows in rounds]
            f1 = [statistics.mean(row["f1"] for row in rows) for rows in rounds]
            panel.plot(clicks, f1, "o-", color=COLOURS[way], label=way)
            for result in results:
                last = result["rows"][-1]
                panel.plot(last["paid"], last["f1"], ".", color=COLOURS[way], ms=4, alpha=0.6)
        if name in all_labels:
            panel.axhline(all_labels[name], color="black", ls=":", lw=1, label="all labels")
        low, high = panel.get_ylim()
        spare = max(0.0, LEAST_SPAN - (high - low)) / 2  # chance must not fill a panel
        panel.set_ylim(low - spare, high + spare)
        panel.set_title(PROTEINS.get(name, name), fontsize=10)
        panel.set_xlabel("clicks paid")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel(f"F1 of picks on {split}")
    panels[0].legend(fontsize=8)
    figure.savefig(picture, dpi=80)
