"""The record of coordinates on one micrograph: picks, or the particles of its annotation.

Inside the project centres are (y, x) in px of the original image in the JPEG's frame: origin top
left, y down. Row 0 of a JPEG is the last row of its MRC, so y of the MRC is height - y.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from picking.errors import UserError
from picking.files import LARGEST_PX

MAX_FRACTION_OUTSIDE = 0.1  # of a micrograph's centres; above, they are of another scale


@dataclasses.dataclass(frozen=True)
class Picks:
    """The picks of one micrograph, or its particles where they are the truth.

    name: the micrograph's file name.
    centres_px: float64 (n, 2), (y, x), in the JPEG's frame once `coordinates.read_picks` is done.
    scores: float64 (n,), NaN where unknown.
    diameters_px: float64 (n,), NaN where unknown.
    size_px: (height, width) of the micrograph where known.
    n_zero_area: boxes without area that the file listed beside these.
    """

    name: str
    centres_px: np.ndarray
    scores: np.ndarray
    diameters_px: np.ndarray
    size_px: tuple[int, int] | None
    n_zero_area: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Micrograph(Picks):
    """A micrograph of a data set: the particles on it, and what the data set knows besides."""

    path: Path
    empiar_id: str | None = None


def select(picks: Picks, rows: np.ndarray) -> Picks:
    """Return the picks at ``rows``, booleans (n,) or positions."""
    return dataclasses.replace(
        picks,
        centres_px=picks.centres_px[rows],
        scores=picks.scores[rows],
        diameters_px=picks.diameters_px[rows],
    )


def flip_y(picks: Picks) -> Picks:
    """Mirror picks up-down: from the JPEG's frame to the MRC's, or back; size_px must be known."""
    if picks.size_px is None:
        raise UserError(f"{picks.name}: its height is unknown: give the micrograph")
    y, x = picks.centres_px.T
    return dataclasses.replace(picks, centres_px=np.stack([picks.size_px[0] - y, x], axis=1))


def inside(picks: Picks, size_px: tuple[int, int]) -> np.ndarray:
    """Return which centres lie inside the image of (height, width) px, bool (n,).

    Raises `UserError` when more than a tenth do not, as with coordinates at another scale, or
    when the file of the coordinates states another image size.
    """
    height, width = size_px
    if picks.size_px is not None and picks.size_px != size_px:
        raise UserError(
            f"{picks.name}: annotated as {picks.size_px[1]} x {picks.size_px[0]} "
            f"px, but the image has {width} x {height} px: the coordinates are at another scale"
        )
    y, x = picks.centres_px.T
    within = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    n_outside = int((~within).sum())
    if n_outside > max(1, MAX_FRACTION_OUTSIDE * len(within)):
        raise UserError(
            f"{picks.name}: {n_outside} of {len(within)} centres lie outside the image of "
            f"{width} x {height} px (largest x {x.max():.0f}, y {y.max():.0f}; smallest x "
            f"{x.min():.0f}, y {y.min():.0f}): the coordinates are probably at another scale"
        )
    return within


# What the readers of all formats need


def from_boxes(
    name: str,
    boxes: np.ndarray,
    scores: np.ndarray,
    estimates: np.ndarray | None = None,
    size_px: tuple[int, int] | None = None,
) -> Picks:
    """Return picks from boxes, (n, 4): x and y of the corner nearest the origin, width, height.

    estimates: diameters (n,) to take instead of the mean of width and height where they are > 0.
    """
    keep = (boxes[:, 2] > 0) & (boxes[:, 3] > 0)
    sides = boxes[:, 2:].mean(axis=1)
    diameters = sides if estimates is None else np.where(estimates > 0, estimates, sides)
    centres = boxes[:, 1::-1] + boxes[:, :1:-1] / 2  # (y, x) + (h, w) / 2
    n_zero_area = int((~keep).sum())
    return Picks(name, centres[keep], scores[keep], diameters[keep], size_px, n_zero_area)


def by_micrograph(
    names: Iterable[str], centres: np.ndarray, scores: np.ndarray, diameters: np.ndarray, path: Path
) -> list[Picks]:
    """Split rows by the micrographs that they name; the order within each is kept.

    A file without rows is of one micrograph without picks, which ``path`` is named after.
    """
    if not len(centres):
        return [Picks(path.stem, centres, scores, diameters, None)]
    unique, which = np.unique(np.asarray(names, dtype=str), return_inverse=True)
    rows = np.split(np.argsort(which, kind="stable"), np.cumsum(np.bincount(which))[:-1])
    return [
        Picks(str(name), centres[row], scores[row], diameters[row], None)
        for name, row in zip(unique, rows, strict=True)
    ]


def valid(values: Any, unknown: bool = False) -> Any:
    """Return which values are finite numbers of a sane size; NaN is one too where ``unknown``."""
    return (np.abs(values) < LARGEST_PX) | (np.isnan(values) & unknown)


def known_diameters(picks: Picks) -> np.ndarray:
    """Return the diameters, for formats that must state them; raises `UserError` without."""
    if not (picks.diameters_px > 0).all():
        raise UserError(f"{picks.name}: picks without a diameter: give the particle's diameter")
    return picks.diameters_px
