"""The picture of benchmarks.picking: picks, and F1 on test against labels on four proteins."""

import statistics
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.common import ROOT
from benchmarks.real_sets import FOLDER
from picking.errors import UserError
from picking.files import read_json

PICTURE = ROOT / "docs" / "few_labels.png"
PICKS = ROOT / "docs" / "picks.png"  # an overlay of pick_particles.py
PROTEINS = {
    "empiar-10017": "beta-galactosidase, EMPIAR-10017",
    "apoferritin-10146": "apoferritin, EMPIAR-10146",
    "ribosome-10028": "80S ribosome, EMPIAR-10028",
    "trpv1-10059": "TRPV1, EMPIAR-10059",
}
PEERS = {  # of others, on the same micrographs
    "empiar-10017": (0.911, "crYOLO, picks as published"),
    "apoferritin-10146": (0.953, "two people, one held against the other"),
}
STYLES = {
    "few labels, from general": ("D-", "#9467bd", "ours, from the general network"),
    "few labels": ("o-", "#1f77b4", "ours, from new weights"),
    "U-Net, all labels": ("s", "#2ca02c", "ours, U-Net with all labels"),
    "Topaz, trained": ("^", "#ff7f0e", "Topaz, trained on the same picks"),
}
TICKS = (10, 40, 150, 1000, 4000)  # labels
NO_LABELS = {  # lines across
    "general network": ("#9467bd", "ours, no labels: the general network"),
    "Topaz, pretrained": ("#ff7f0e", "Topaz, pretrained, no labels"),
}


def draw() -> None:
    """Draw what results of the four sets there are; means of seeds, each seed a dot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    results = {name: results_of(name) for name in PROTEINS}
    if not any(results.values()):
        raise UserError(f"{FOLDER} holds no result on test: run the parts with --split test first")
    figure = Figure(figsize=(15, 7), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.6])
    picks = left.subplots()
    with Image.open(PICKS) as overlay:
        picks.imshow(np.asarray(overlay))
    picks.set_axis_off()
    picks.set_title("simulated: true picks blue, false orange, missed yellow", fontsize=11)
    panels = right.subplots(2, 2, sharey=True).ravel()
    handles: dict[str, Any] = {}
    for panel, (name, title) in zip(panels, PROTEINS.items(), strict=True):
        draw_set(panel, results[name], PEERS.get(name))
        panel.set_title(title, fontsize=11)
        panel.set_xscale("log")
        panel.set_xlim(TICKS[0] / 1.3, TICKS[-1] * 1.3)
        panel.set_xticks(TICKS, [f"{n:,}" for n in TICKS])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        handles |= {
            label: line for line, label in zip(*panel.get_legend_handles_labels(), strict=True)
        }
    for panel in panels[2:]:
        panel.set_xlabel("labelled particles")
    for panel in panels[::2]:
        panel.set_ylabel("F1 of picks on test")
    right.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=9)
    figure.savefig(PICTURE, dpi=80)


def results_of(name: str) -> list[dict[str, Any]]:
    """Return the results of a set on test, but for those of other settings with a --name."""
    found = [read_json(path) for path in sorted((FOLDER / name).glob("*/result_test.json"))]
    return [result for result in found if not result["name"]]


def draw_set(panel: Any, results: list[dict[str, Any]], peer: tuple[float, str] | None) -> None:
    """Draw a set's results: a line or points for each picker, lines across for peers."""
    for picker, (style, colour, label) in STYLES.items():
        by_labels: dict[int, list[float]] = {}
        for result in results:
            if result["picker"] == picker:
                by_labels.setdefault(result["labels"], []).append(result["f1"])
        labels = sorted(by_labels)
        if labels:
            means = [statistics.mean(by_labels[n]) for n in labels]
            panel.plot(labels, means, style, color=colour, label=label)
            for n in labels:
                panel.plot([n] * len(by_labels[n]), by_labels[n], ".", color=colour, alpha=0.5)
    for result in results:
        if result["picker"] in NO_LABELS:
            colour, label = NO_LABELS[result["picker"]]
            panel.axhline(result["f1"], label=label, color=colour, linestyle="--")
    if peer is not None:
        across = {"color": "#7f7f7f", "linestyle": ":" if "crYOLO" in peer[1] else "-."}
        panel.axhline(peer[0], label=peer[1], **across)
