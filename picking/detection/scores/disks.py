"""Disks on a map: the means within them, and the centre and diameter of the disk about a pick.

The cells of a map that are nearer to a pick than to any other are its own.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from picking.detection.scores.score_map import ScoreMap
from picking.formats.picks import Picks

# Fractions of the particle's diameter
CENTROID_RADIUS = 0.65
WIDEST_RADIUS, RING_WIDTH = 0.75, 0.05
NARROWEST = 0.50
CELLS_AT_ONCE = 2**18  # about picks, which decides the memory


def disk_means(
    values: np.ndarray, spacing_px: np.ndarray, radii_px: Sequence[tuple[float, float]]
) -> list[np.ndarray]:
    """Return the means of ``values``, (h, w), between two radii around every cell, for each pair.

    The radii are in px of the micrograph, so that a ring is one there, whatever the map's two
    spacings. At the border the mean is over what lies inside the map. All share one Fourier
    transform of the values.
    """
    from scipy import fft

    kernels = [_disk(values.shape, spacing_px, *radii) for radii in radii_px]
    reach = np.max([kernel.shape for kernel in kernels], axis=0) // 2
    # So many zeros that nothing comes round from the other edge
    size = [fft.next_fast_len(int(n), real=True) for n in values.shape + reach]
    spectrum = fft.rfft2(values.astype(np.float64), size)
    means = []
    for kernel in kernels:
        if kernel.sum() <= 0:  # finer than the map: the cell itself
            means.append(values)
            continue
        sums = fft.irfft2(spectrum * fft.rfft2(kernel, size), size)
        first = np.array(kernel.shape) // 2
        (top, left), (bottom, right) = first, first + values.shape
        means.append(sums[top:bottom, left:right] / _inside_map(kernel, values.shape))
    return means


def _disk(
    shape: tuple[int, ...], spacing_px: np.ndarray, inner_px: float, outer_px: float
) -> np.ndarray:
    """Return the weights of cells between two radii, no further away than a map is wide.

    A cell on the rim counts in part, so that disks of any size have the right one.
    """
    reach = [min(math.ceil(outer_px / s), n - 1) for s, n in zip(spacing_px, shape, strict=True)]
    y, x = (np.arange(-n, n + 1) * s for n, s in zip(reach, spacing_px, strict=True))
    radius, cell_px = np.hypot(y[:, None], x), math.sqrt(spacing_px.prod())
    weights = np.clip((outer_px - radius) / cell_px + 0.5, 0, 1)
    if inner_px:
        weights -= np.clip((inner_px - radius) / cell_px + 0.5, 0, 1)
    return weights


def _inside_map(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the sum of the weights that lie inside the map, (h, w), for a kernel on each cell."""
    sums = np.pad(kernel, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    for axis, n in enumerate(shape):
        cell, reach = np.arange(n), kernel.shape[axis] // 2
        last = np.minimum(reach, n - 1 - cell) + reach + 1
        first = np.maximum(reach - cell, 0)
        sums = sums.take(last, axis) - sums.take(first, axis)
    return np.maximum(sums, 1e-9)


def _own_cells(
    picks: Picks, scores: ScoreMap, radius_px: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the cells nearer to a pick than to others and than a radius.

    Of each of n cells where it is in the flattened map, int (n,), the pick, int (n,), and the
    distance to it in px, (n,). Of picks equally near the first has the cell.
    """
    (height, width), centres = scores.logits.shape, picks.centres_px
    y, x = (np.arange(-n, n + 1) for n in np.ceil(radius_px / scores.spacing_px).astype(int))
    middle = np.rint((centres - scores.origin_px) / scores.spacing_px).astype(int)
    least_px, nearest = np.full(height * width, np.inf), np.full(height * width, -1)
    n_at_once = max(1, CELLS_AT_ONCE // (len(y) * len(x)))
    for start in reversed(range(0, len(middle), n_at_once)):
        some = np.arange(start, min(start + n_at_once, len(middle)))[:, None, None]
        rows, columns = middle[some, 0] + y[:, None], middle[some, 1] + x
        away = (
            scores.origin_px[axis] + at * scores.spacing_px[axis] - centres[some, axis]
            for axis, at in enumerate((rows, columns))
        )
        distance_px = np.hypot(*away)
        within = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        within = within & (distance_px < radius_px)
        cell, distance_px = (rows * width + columns)[within], distance_px[within]
        pick = np.broadcast_to(some, within.shape)[within]
        np.minimum.at(least_px, cell, distance_px)
        is_nearest = distance_px == least_px[cell]
        nearest[cell[is_nearest][::-1]] = pick[is_nearest][::-1]
    own = np.flatnonzero(nearest >= 0)
    return own, nearest[own], least_px[own]


def recentred(picks: Picks, scores: ScoreMap, p: np.ndarray, diameter_px: float) -> Picks:
    """Move each pick to the centroid of the probability in its own cells.

    Where a mask is wider than the diameter given, the contrast is highest beside its centre. Picks
    whose disk the border cuts stay, since half a disk has its centroid elsewhere.
    """
    n, reach_px = len(picks.centres_px), CENTROID_RADIUS * diameter_px
    if not n:
        return picks
    own, nearest, _ = _own_cells(picks, scores, reach_px)
    positions = scores.positions_px(np.stack(np.unravel_index(own, p.shape), axis=1))
    weight = p.ravel()[own].astype(np.float64)
    total = np.bincount(nearest, weight, n)
    sums = np.stack([np.bincount(nearest, weight * at, n) for at in positions.T], axis=1)
    edge = np.minimum(picks.centres_px, np.array(scores.size_px) - picks.centres_px).min(axis=1)
    moves = (total > 0) & (edge >= reach_px)
    centres = picks.centres_px.copy()
    centres[moves] = sums[moves] / total[moves, None]
    return dataclasses.replace(picks, centres_px=centres)


def with_diameters(
    picks: Picks, scores: ScoreMap, is_particle: np.ndarray, diameter_px: float, disk: float
) -> Picks:
    """Give each pick the diameter of a disk of its own area, over ``disk``.

    In each thin ring around a pick, the fraction of its own cells that is particle stands for the
    whole ring, so that a neighbour that takes cells away does not shrink it. Where not even the
    centre is particle, the diameter stays the one given.
    """
    n, edges = len(picks.centres_px), np.arange(0, WIDEST_RADIUS + 1e-9, RING_WIDTH) * diameter_px
    if not n:
        return picks
    own, nearest, distance = _own_cells(picks, scores, edges[-1])
    n_rings = len(edges) - 1
    ring = np.minimum((distance / (RING_WIDTH * diameter_px)).astype(int), n_rings - 1)
    place = nearest * n_rings + ring
    n_cells = np.bincount(place, minlength=n * n_rings).reshape(n, n_rings)
    n_inside = np.bincount(place, is_particle.ravel()[own], n * n_rings).reshape(n, n_rings)
    fraction = np.divide(n_inside, n_cells, out=np.zeros((n, n_rings)), where=n_cells > 0)
    area = (fraction * np.pi * np.diff(edges**2)).sum(axis=1)
    diameters = np.where(area > 0, 2 * np.sqrt(area / np.pi) / disk, diameter_px)
    least_px = NARROWEST * diameter_px  # faint picks have but a few px that are particle
    return dataclasses.replace(picks, diameters_px=np.maximum(diameters, least_px))
