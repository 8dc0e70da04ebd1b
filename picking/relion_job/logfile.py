"""logfile.pdf, which RELION shows of a job: scores, picks on each micrograph, six overlays."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from picking.files import write_saved
from picking.formats.names import in_picture
from picking.formats.picks import Picks
from picking.micrographs.reading import read_micrograph

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

N_OVERLAYS = 6
OVERLAY_PX = 700
BLUE, ORANGE = "#0072B2", "#D55E00"


def write_logfile(
    path: Path, candidates: Sequence[Picks], threshold: float, micrographs: Mapping[str, Path]
) -> None:
    """Write the PDF of candidates at any score, of which those from the threshold on are picks.

    micrographs: name -> file, for the overlays.
    """
    from matplotlib.backends.backend_pdf import PdfPages

    figures = [_counts(candidates, threshold), _overlays(candidates, threshold, micrographs)]

    def save(file: object) -> None:
        with PdfPages(file, metadata={"CreationDate": None}) as pages:  # type: ignore[arg-type]
            for figure in figures:
                pages.savefig(figure)

    write_saved(path, save)


def _counts(candidates: Sequence[Picks], threshold: float) -> "Figure":
    from matplotlib.figure import Figure

    scores = np.concatenate([[], *(one.scores for one in candidates)])
    n_picks = [int((one.scores >= threshold).sum()) for one in candidates]
    figure = Figure(figsize=(8.3, 10), layout="constrained")
    above, below = figure.subplots(2)
    above.hist(scores, np.linspace(0, 1, 51), color=BLUE, log=bool(len(scores)))
    above.axvline(threshold, color=ORANGE, label=f"threshold {threshold:.3f}")
    above.set(
        xlabel="score", ylabel="candidates",
        title=f"{sum(n_picks):,} picks of {len(scores):,} candidates",
    )  # fmt: skip
    above.legend(frameon=False)
    below.plot(np.arange(1, len(n_picks) + 1), n_picks, ".", color=BLUE)
    median = np.median(n_picks) if n_picks else 0
    below.axhline(median, color=ORANGE, lw=1, label=f"median {median:g}")
    below.set(
        xlabel="micrograph", ylabel="picks", ylim=(0, None), title=f"{len(n_picks):,} micrographs"
    )
    below.legend(frameon=False)
    return figure


def _overlays(
    candidates: Sequence[Picks], threshold: float, micrographs: Mapping[str, Path]
) -> "Figure":
    """Draw micrographs spread over the list."""
    from matplotlib.figure import Figure

    chosen = np.unique(np.linspace(0, len(candidates) - 1, N_OVERLAYS).round().astype(int))
    figure = Figure(figsize=(8.3, 11), layout="constrained")
    for axis, i in zip(figure.subplots(3, 2).flat, chosen, strict=False):
        _draw(axis, candidates[i], threshold, micrographs[candidates[i].name])
    for axis in figure.axes:
        axis.set_axis_off()
    return figure


def _draw(axis: "Axes", picks: Picks, threshold: float, micrograph: Path) -> None:
    from matplotlib.collections import EllipseCollection

    image = Image.fromarray(read_micrograph(micrograph))
    height, width = image.height, image.width
    image.thumbnail((OVERLAY_PX, OVERLAY_PX), Image.Resampling.BOX)
    extent = (0, width, height, 0)
    axis.imshow(np.asarray(image), cmap="gray", vmin=0, vmax=255, extent=extent)
    called = picks.scores >= threshold
    sides = picks.diameters_px[called]
    circles = EllipseCollection(
        sides, sides, np.zeros(len(sides)), units="xy", offsets=picks.centres_px[called, ::-1],
        transOffset=axis.transData, facecolors="none", edgecolors="#56B4E9", linewidths=1,
    )  # fmt: skip
    axis.add_collection(circles)
    title = f"{in_picture(picks.name)}: {int(called.sum())} picks"
    axis.set_title(title, fontsize=7)
