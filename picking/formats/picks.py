"""The record of coordinates on one micrograph: picks, or the particles of its annotation.

Inside the project centres are (y, x) in px of the original image in the JPEG's frame: origin top
left, y down. Row 0 of a JPEG is the last row of its MRC, so y of the MRC is height - y.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from picking.errors import UserError, leave_out, warn
from picking.files import LARGEST_PX

MAX_FRACTION_OUTSIDE = 0.1  # of a micrograph's centres; above, they are of another scale
SAME_SHAPE = 0.02  # relative; a scaled image has whole px, and may be cut to multiples of some
MERGED_WITHIN = 0.1  # diameters; nearer centres are one particle, listed twice


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
    """A micrograph of a data set: the particles on it, and what the data set knows besides.

    negatives_px: float64 (n, 2), (y, x) of places that somebody said are no particle. junk: a mask
    of it (picking/inputs/junk_masks.py). complete: whether all its particles are picked.
    """

    path: Path
    empiar_id: str | None = None
    negatives_px: np.ndarray = dataclasses.field(default_factory=lambda: np.empty((0, 2)))
    junk: Path | None = None
    complete: bool = False


SomePicks = TypeVar("SomePicks", bound=Picks)


def select(picks: SomePicks, rows: np.ndarray) -> SomePicks:
    """Return the picks at ``rows``, booleans (n,) or positions."""
    return dataclasses.replace(
        picks,
        centres_px=picks.centres_px[rows],
        scores=picks.scores[rows],
        diameters_px=picks.diameters_px[rows],
    )


def typical_diameters(micrographs: Sequence[Picks]) -> list[float]:
    """Return the mean diameter of the particles on each micrograph, where it has none that of all.

    Raises `ValueError` where nobody knows a diameter.
    """
    known = [m.diameters_px[np.isfinite(m.diameters_px)] for m in micrographs]
    everywhere = np.concatenate(known)
    if not len(everywhere):
        raise ValueError("no micrograph has a particle of known diameter")
    return [float(own.mean() if len(own) else everywhere.mean()) for own in known]


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
        why = _why_other_size(picks.size_px, size_px)
        raise UserError(
            f"{picks.name}: annotated as {picks.size_px[1]} x {picks.size_px[0]} "
            f"px, but the image has {width} x {height} px: {why}"
        )
    y, x = picks.centres_px.T
    within = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    n_outside = int((~within).sum())
    if n_outside > max(1, MAX_FRACTION_OUTSIDE * len(within)):
        raise UserError(
            f"{picks.name}: {n_outside} of {len(within)} centres lie outside the image of "
            f"{width} x {height} px (x from {x.min():.0f} to {x.max():.0f}, y from "
            f"{y.min():.0f} to {y.max():.0f} counted from the top): {_why_outside(y, x, size_px)}"
        )
    return within


def _why_other_size(stated_px: tuple[int, int], size_px: tuple[int, int]) -> str:
    """Return what to do where a file of coordinates states another image size, (height, width)."""
    if stated_px == size_px[::-1]:
        return "width and height are swapped, or the image is turned by 90 degrees: mend that"
    by_height, by_width = (size_px[axis] / stated_px[axis] for axis in (0, 1))
    if abs(by_height - by_width) < SAME_SHAPE * by_width:
        return (
            "the coordinates are at another scale: multiply them and the size by "
            f"{by_width:.4g}, or give the image that they are of"
        )
    return "the coordinates are of another image, or of a part of it: give the image they are of"


def _why_outside(y: np.ndarray, x: np.ndarray, size_px: tuple[int, int]) -> str:
    """Return what centres outside the image are due to, probably; y counts from the top."""
    height, width = size_px
    either = (y, height - y)  # as a file has them whose y counts from the first row of an MRC
    fits = any(one.min() >= 0 and one.max() < width for one in either)
    if fits and x.min() >= 0 and x.max() < height:
        return "x and y are probably swapped, or the micrograph is turned by 90 degrees: mend that"
    return "the coordinates are probably at another scale"


def with_whole_box(picks: Picks, box_px: int, frame: str | None = None) -> Picks:
    """Return the picks about which a box of ``box_px`` lies in the micrograph, as RELION cuts it.

    frame: that it is cut in, the MRC's or `jpeg`; ``size_px`` must be known. A box begins
    ``box_px // 2`` before the pixel that the centre falls into.
    """
    centres = picks.centres_px if frame == "jpeg" else flip_y(picks).centres_px
    first = np.floor(centres) - box_px // 2
    return select(picks, ((first >= 0) & (first + box_px <= np.array(picks.size_px))).all(axis=1))


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
    sides = boxes[:, 2:].mean(axis=1)
    diameters = sides if estimates is None else np.where(estimates > 0, estimates, sides)
    centres = boxes[:, 1::-1] + boxes[:, :1:-1] / 2  # (y, x) + (h, w) / 2
    has_area: np.ndarray = np.all(boxes[:, 2:] > 0, axis=1)
    return with_area(Picks(name, centres, scores, diameters, size_px), has_area)


def with_area(picks: Picks, rows: np.ndarray | None = None) -> Picks:
    """Return the picks at ``rows``, bool (n,), or with a diameter above 0; count the others."""
    keep = picks.diameters_px > 0 if rows is None else rows
    return dataclasses.replace(select(picks, keep), n_zero_area=int((~keep).sum()))


def tell_of_zero_area(picks: Sequence[Picks], source: str, allow_partial: bool) -> None:
    """Say how many boxes without area ``source`` has; raises `UserError` above a tenth of all."""
    without = [one for one in picks if one.n_zero_area]
    n = sum(one.n_zero_area for one in without)
    n_all = n + sum(len(one.centres_px) for one in picks)
    examples = ", ".join(one.name for one in without[:3])
    message = f"{source}: {n:,} of {n_all:,} boxes or diameters are not above 0 px and are left out"
    leave_out(n, n_all, f"{message} (e.g. on {examples})", allow_partial)


def tell_of_outside(picks: Sequence[Picks], source: str) -> None:
    """Say how many centres lie outside the micrographs, of which the sizes are known."""
    counts = {
        one.name: int((~inside(one, one.size_px)).sum()) for one in picks if one.size_px is not None
    }
    names = [name for name, n in counts.items() if n]
    if names:
        n_all = sum(len(one.centres_px) for one in picks)
        warn(
            f"{source}: {sum(counts.values()):,} of {n_all:,} centres lie outside their micrograph "
            f"(e.g. on {', '.join(names[:3])}), where no particle can be: check them"
        )


def require_px(picks: Sequence[Picks], source: str) -> None:
    """Raise `UserError` when the coordinates of a micrograph are fractions of its size."""
    listed = [one for one in picks if len(one.centres_px)]
    tiny = [one for one in listed if _within_a_px(one)]
    if tiny and (len(tiny) == len(listed) or any(len(one.centres_px) > 2 for one in tiny)):
        raise UserError(
            f"{source}: all coordinates of {tiny[0].name} ({len(tiny[0].centres_px):,}) lie within "
            "one px, as fractions of the micrograph do, such as cryoSPARC's: multiply x by its "
            "width and y by its height"
        )


def _within_a_px(picks: Picks) -> bool:
    """Return whether all lie in one px: of the origin, or of another where there are three."""
    y, x = picks.centres_px.T
    from_top = [y] if picks.size_px is None else [y, picks.size_px[0] - y]
    at_origin = any(min(x.min(), t.min()) >= 0 and max(x.max(), t.max()) <= 1 for t in from_top)
    several = len(np.unique(picks.centres_px, axis=0)) > 2
    return at_origin or (several and np.ptp(picks.centres_px, axis=0).max() <= 1)


def known_as(picks: Picks, diameter_px: float) -> Picks:
    """Return the picks with that diameter where they state none."""
    stated = picks.diameters_px
    return dataclasses.replace(
        picks, diameters_px=np.where(np.isfinite(stated), stated, diameter_px)
    )


def merge_duplicates(
    picks: Sequence[SomePicks],
    source: str,
    diameter_px: float | None = None,
    so: str = "each counts once",
    what: str = "particles",
) -> list[SomePicks]:
    """Return the picks without those that are listed before within a tenth of a diameter.

    How many there are of ``what`` is said, and what follows, ``so``. diameter_px: of those of which
    the file says none; None: only the same place is a duplicate.
    """
    merged, examples, n = [], [], 0
    for one in picks:
        known = np.isfinite(one.diameters_px)
        reach_px = MERGED_WITHIN * np.where(known, one.diameters_px, diameter_px or 0.0)
        keep = _first_of_each(one.centres_px, reach_px)
        merged.append(select(one, keep))
        if not keep.all():
            y, x = one.centres_px[~keep][0]
            examples.append(f"x {x:.0f}, y {y:.0f} on {one.name}")
            n += int((~keep).sum())
    if n:
        n_all = sum(len(one.centres_px) for one in picks)
        warn(
            f"{source}: {n:,} of {n_all:,} {what} are listed twice, within a tenth of a "
            f"diameter (e.g. {'; '.join(examples[:3])}): {so}"
        )
    return merged


def _first_of_each(centres_px: np.ndarray, reach_px: np.ndarray) -> np.ndarray:
    """Return which centres have no earlier one that stays within its reach, bool (n,)."""
    from scipy.spatial import cKDTree

    keep = np.zeros(len(centres_px), dtype=bool)
    rows = np.sort(np.unique(centres_px, axis=0, return_index=True)[1])
    keep[rows] = True
    if len(rows) > 1 and reach_px.any():
        points = centres_px[rows]
        pairs = cKDTree(points).query_pairs(reach_px.max(), output_type="ndarray")
        near = (
            np.hypot(*(points[pairs[:, 0]] - points[pairs[:, 1]]).T) <= reach_px[rows[pairs[:, 0]]]
        )
        for i, j in sorted(map(tuple, rows[pairs[near]])):
            keep[j] &= not keep[i]
    return keep


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
