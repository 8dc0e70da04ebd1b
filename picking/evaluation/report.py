"""Pictures and tables of picks: precision-recall curve, overlays, counts at thresholds."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from picking.evaluation.matching import Outcome, has_scores, pr_curve
from picking.files import write_atomically, write_saved
from picking.formats.names import in_picture
from picking.formats.picks import Picks
from picking.metrics.rates import PRCurve

MAX_OVERLAY_PX = 1500
LINE_PX = 2
UNKNOWN_RADIUS_PX = 8  # of a circle where the diameter is not known
# After Okabe and Ito: hues that colour-blind readers can tell apart, on grey too.
COLOURS = {"true": "#56B4E9", "false": "#D55E00", "missed": "#F0E442"}
JUNK_COLOUR, JUNK_OPACITY = "#CC79A7", 80  # of 255
CURVE_COLOUR = "#0072B2"
F1_LINES = (0.5, 0.6, 0.7, 0.8, 0.9)
N_THRESHOLDS = 19
TABLE = ("threshold", "picks", "per_micrograph", "precision", "recall", "f1")


def draw_pr_curve(curve: PRCurve, path: Path) -> None:
    """Draw precision against recall into ``path``, a PNG; nothing without particles or picks.

    A dot marks the highest F1; grey lines join points of equal F1.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 6), dpi=110, layout="constrained")
    axis = figure.subplots()
    for f1 in F1_LINES:
        recall = np.linspace(f1 / (2 - f1), 1, 100)  # where precision is 1, and on
        axis.plot(recall, f1 * recall / (2 * recall - f1), color="#BBBBBB", lw=0.8, zorder=1)
        axis.annotate(f"F1 {f1:g}", (1, f1 / (2 - f1)), color="#888888", fontsize=8)
    if curve.n_positive and len(curve.f1):
        best = int(np.argmax(curve.f1))
        label = f"picks: AP {curve.average_precision:.3f}, best F1 {curve.f1[best]:.3f}"
        axis.plot(curve.recall, curve.precision, color=CURVE_COLOUR, label=label)
        axis.plot(curve.recall[best], curve.precision[best], "o", color=CURVE_COLOUR)
        axis.legend(loc="lower left", frameon=False)
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.01))
    axis.spines[["top", "right"]].set_visible(False)
    write_saved(path, lambda file: figure.savefig(file, format="png"))


def draw_picks(image: np.ndarray, picks: Picks, path: Path, junk: np.ndarray | None = None) -> None:
    """Draw picks as circles of their diameter over the micrograph, uint8 (h, w), into a PNG.

    Scores stand beside the circles. junk: where it is, bool at any scale, is tinted.
    """
    marks = [("true", picks, np.ones(len(picks.centres_px), dtype=bool))]
    _draw_overlay(image, marks, f"{picks.name}: {len(picks.centres_px)} picks", path, True, junk)


def draw_outcome(
    image: np.ndarray, outcome: Outcome, path: Path, junk: np.ndarray | None = None
) -> None:
    """Draw true, false and missed picks in three colours over the micrograph, uint8 (h, w).

    Only what is inside the margin is drawn, since nothing else counts. For the picks above a
    threshold give the outcome of those alone. junk: as `draw_picks` takes it.
    """
    hit = outcome.matched >= 0
    missed = np.ones(len(outcome.truth.centres_px), dtype=bool)
    missed[outcome.matched[hit]] = False
    marks = [("missed", outcome.truth, missed), ("false", outcome.picks, ~hit)]
    marks.append(("true", outcome.picks, hit))
    _draw_overlay(image, marks, outcome.truth.name, path, False, junk)


def threshold_rows(
    picks: Sequence[Picks], outcomes: Sequence[Outcome] | None = None, chosen: float | None = None
) -> list[dict[str, float | int | None]]:
    """Return how many picks there are at a range of thresholds, a row each, keys of `TABLE`.

    Probabilities are cut in steps of 0.05, other scores evenly between the extremes. Where scores
    are crowded, so that most rows would be equal, they are cut at ranks in a geometric series, from
    one pick a micrograph to all. In each case there is a row for ``chosen``. Precision, recall and
    F1 are None without ``outcomes``, where these count picks inside the margin only, while
    ``picks`` are all of them. No row for picks without scores.
    """
    scores = np.concatenate([[], *(p.scores for p in picks)])
    scores = np.sort(scores[np.isfinite(scores)])
    if not len(scores):
        return []
    if scores[0] >= 0 and scores[-1] <= 1:
        thresholds = np.arange(1, N_THRESHOLDS + 1) / (N_THRESHOLDS + 1)
    else:
        thresholds = np.linspace(scores[0], scores[-1], N_THRESHOLDS)
    n_different = len(np.unique(np.searchsorted(scores, thresholds)))
    ranks = np.geomspace(min(len(picks), len(scores)), len(scores), N_THRESHOLDS)
    at_ranks = np.unique(scores[len(scores) - np.rint(ranks).astype(int)])
    if n_different < min(N_THRESHOLDS / 2, len(at_ranks)):
        thresholds = at_ranks
    if chosen is not None:
        thresholds = np.union1d(thresholds, [chosen])
    curve = pr_curve(outcomes) if outcomes and has_scores(outcomes) else None
    rows: list[dict[str, float | int | None]] = []
    for threshold in thresholds.tolist():
        n = len(scores) - int(np.searchsorted(scores, threshold))
        rates = curve.rates_at(threshold) if curve else dict.fromkeys(TABLE[3:])
        counts = dict(zip(TABLE, (threshold, n, n / len(picks)), strict=False))
        rows.append({**counts, **rates})
    return rows


def table_text(rows: Sequence[Mapping[str, Any]], chosen: float | None = None) -> str:
    """Return `threshold_rows` as lines of text; the row of ``chosen`` is marked."""
    lines = [" threshold      picks  per micrograph  precision  recall      F1"]
    for row in rows:
        rates = ["-" if row[name] is None else f"{row[name]:.3f}" for name in TABLE[3:]]
        mark = "  <- chosen" if row["threshold"] == chosen else ""
        threshold = f"{row['threshold']:.3f}"
        if abs(row["threshold"]) < 0.1 and row["threshold"] != float(threshold):
            threshold = f"{row['threshold']:.3g}"
        lines.append(
            f"{threshold:>10} {row['picks']:>10,} {row['per_micrograph']:>15,.1f} "
            f"{rates[0]:>10} {rates[1]:>7} {rates[2]:>7}{mark}"
        )
    return "\n".join(lines)


def write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write `threshold_rows` as CSV; what is not known is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, TABLE, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()})
    write_atomically(path, text.getvalue())


def _draw_overlay(
    image: np.ndarray,
    marks: Sequence[tuple[str, Picks, np.ndarray]],
    title: str,
    path: Path,
    with_scores: bool,
    junk: np.ndarray | None,
) -> None:
    """Draw circles of each kind, at the rows given, and say below how many there are."""
    height, width = image.shape
    scale = min(1.0, MAX_OVERLAY_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shown = Image.fromarray(image).resize(size, Image.Resampling.BOX)
    font = ImageFont.load_default(size=15)
    small = ImageFont.load_default(size=11)
    strip_px = 26
    canvas = Image.new("RGB", (size[0], size[1] + strip_px))
    canvas.paste(shown, (0, 0))
    has_junk = False
    if junk is not None and junk.any():
        has_junk = True
        opacity = Image.fromarray(np.where(junk, JUNK_OPACITY, 0).astype(np.uint8))
        canvas.paste(JUNK_COLOUR, (0, 0, *size), opacity.resize(size, Image.Resampling.NEAREST))
    draw = ImageDraw.Draw(canvas)
    for kind, picks, rows in marks:
        for i in np.flatnonzero(rows):
            y, x = picks.centres_px[i] * scale
            radius = picks.diameters_px[i] / 2 * scale
            if np.isnan(radius):
                radius = UNKNOWN_RADIUS_PX
            circle = (x - radius, y - radius, x + radius, y + radius)
            draw.ellipse(circle, outline=COLOURS[kind], width=LINE_PX)
            if with_scores and np.isfinite(picks.scores[i]):
                text = f"{picks.scores[i]:.2f}"
                at = (x, y + radius)
                draw.text(at, text, "white", small, "mm", stroke_width=1, stroke_fill="black")
    draw.rectangle((0, size[1], size[0], size[1] + strip_px), fill="black")
    x_text = 8.0
    legend = [(f"{kind}: {int(rows.sum())}", COLOURS[kind]) for kind, _, rows in marks[::-1]]
    legend = legend if len(marks) > 1 else []
    legend += [("junk: nothing is picked there", JUNK_COLOUR)] if has_junk else []
    for text, colour in [(in_picture(title), "white"), *legend]:
        draw.text((x_text, size[1] + strip_px / 2), text, fill=colour, font=font, anchor="lm")
        x_text += draw.textlength(text, font=font) + 24
    write_saved(path, lambda file: canvas.save(file, "PNG"))
