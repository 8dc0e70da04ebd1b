"""Score map -> picks: centres, scores and diameters, no two closer than half a diameter.

A U-Net's masks of neighbouring particles run together: on real micrographs 70% of the particles
have another within a diameter. What tells them apart is that a particle is a disk: the probability
inside it less that in a thin ring around it is high at the centre even where disks overlap. The
centroid of what is nearest to each such maximum is the pick. That gave F1 0.874 (0.869 without the
centroid); the mean over a disk alone 0.788, a Gaussian 0.755, a distance transform 0.849. The score
of a pick is the mean probability about its centre, which ranks picks better than the difference
does (average precision 0.868 against 0.859) and means the same as the network's own.

A classifier has its peaks at the centres already; its logits are only smoothed.

A network of few labels may score true particles at 0.01, and still rank them: what the lowest score
worth keeping is, no fixed number says. So faint peaks, below 0.05, are kept as long as so many
particles could lie side by side on the micrograph. They change nothing of the others. After 30
picks of ribosomes (EMPIAR-10028, one validation micrograph) the average precision was 0.840 with
them, 0.756 without.

All other numbers are of two validation micrographs of EMPIAR-10017, each at its own best threshold.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from picking.detection.score_map import ScoreMap
from picking.formats.picks import Picks, select

# Fractions of the diameter of the disks that the network was trained on
DISK_RADIUS, RING_RADII = 0.45, (0.50, 0.65)
SCORE_RADIUS = 0.30
# Fractions of the particle's diameter
PEAK_RADIUS = 0.20
SMOOTHING_SIGMA = 0.15
LEAST_DISTANCE = 0.50
CENTROID_RADIUS = 0.65
WIDEST_RADIUS, RING_WIDTH = 0.75, 0.05
# Peaks that score less are kept while there is room, and score less wherever they are read off.
FAINT, BELOW_FAINT = 0.05, 0.05 * (1 - 1e-9)
DENSEST = 2 / 3**0.5  # Disks side by side, in disks to a square of their diameter
# What is no more than rounding: of a difference of probabilities, and of logits
LEAST_CONTRAST, LEAST_RISE = 1e-6, 1e-3
CELLS_AT_ONCE = 2**18  # about picks, which decides the memory


def segmentation_picks(
    scores: ScoreMap,
    name: str,
    diameter_px: float,
    disk: float = 1.0,
    pixel_threshold: float = 0.5,
) -> Picks:
    """Return the particles in a U-Net's map, highest score first.

    diameter_px: of the particles, about. disk: diameter of the disks in the masks that the network
    was trained on, in diameters of the particle. pixel_threshold: from which probability a pixel is
    particle; it decides the diameters alone, which are 0.5 to 1.5 of the one given.
    """
    p, disk_px = scores.probability(), disk * diameter_px
    radii = (0, DISK_RADIUS), RING_RADII, (0, SCORE_RADIUS)
    inside, around, about_centre = disk_means(
        p, scores.spacing_px, [(inner * disk_px, outer * disk_px) for inner, outer in radii]
    )
    contrast, is_faint = inside - around, about_centre < FAINT
    is_peak = _is_highest(contrast, scores.spacing_px, diameter_px)
    cells = peaks(contrast, scores.spacing_px, diameter_px, is_peak & ~is_faint)
    picks = _picks(scores, name, cells, about_centre, diameter_px)
    picks = _recentred(picks, scores, p, diameter_px)
    picks = _with_diameters(picks, scores, p >= pixel_threshold, diameter_px, disk)

    # The others are complete; what is faint gets the room that they leave
    n_left = max(0, _capacity(scores, diameter_px) - len(picks.scores))
    is_peak &= is_faint & (contrast > LEAST_CONTRAST)
    cells = peaks(contrast, scores.spacing_px, diameter_px, is_peak)
    faint = _picks(scores, name, cells, np.minimum(about_centre, BELOW_FAINT), diameter_px)
    both = _joined(picks, faint)
    apart = np.flatnonzero(_apart(both.centres_px, LEAST_DISTANCE * diameter_px))
    both = select(both, apart[: len(picks.scores) + n_left])
    return select(both, np.argsort(-both.scores, kind="stable"))


def classifier_picks(scores: ScoreMap, name: str, diameter_px: float) -> Picks:
    """Return the particles in a classifier's map, highest score first, all of ``diameter_px``."""
    from scipy.ndimage import gaussian_filter
    from scipy.special import expit

    sigma = SMOOTHING_SIGMA * diameter_px / scores.spacing_px
    logits = gaussian_filter(scores.logits, sigma, mode="nearest")
    probability = expit(logits)
    allowed = (probability >= FAINT) | _rises(logits, scores.spacing_px, diameter_px)
    allowed &= _is_highest(logits, scores.spacing_px, diameter_px)
    cells = peaks(logits, scores.spacing_px, diameter_px, allowed)
    picks = _picks(scores, name, cells, probability, diameter_px)
    n_kept = max(_capacity(scores, diameter_px), int((picks.scores >= FAINT).sum()))
    return select(picks, np.arange(len(picks.scores)) < n_kept)


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


def peaks(
    values: np.ndarray, spacing_px: np.ndarray, diameter_px: float, is_peak: np.ndarray
) -> np.ndarray:
    """Return the local maxima of ``values``, (h, w), highest first, as fractional cells (n, 2).

    is_peak: bool (h, w), where they are. None is nearer than half a diameter to a higher one that
    is kept.
    """
    cells = np.argwhere(is_peak)
    cells = cells[np.argsort(-values[tuple(cells.T)], kind="stable")]
    exact = cells + _offsets(values, cells)
    return exact[_apart(exact * spacing_px, LEAST_DISTANCE * diameter_px)]


def _is_highest(values: np.ndarray, spacing_px: np.ndarray, diameter_px: float) -> np.ndarray:
    """Return where values, (h, w), are the highest within `PEAK_RADIUS` diameters, bool (h, w)."""
    from scipy.ndimage import maximum_filter

    size = _window(values, spacing_px, diameter_px)
    return values == maximum_filter(values, size, mode="nearest")


def _rises(values: np.ndarray, spacing_px: np.ndarray, diameter_px: float) -> np.ndarray:
    """Return where values, (h, w), are above the lowest within the reach of a peak, bool (h, w)."""
    from scipy.ndimage import minimum_filter

    size = _window(values, spacing_px, diameter_px)
    lowest = minimum_filter(values, size, mode="nearest")
    return values - lowest > LEAST_RISE


def _window(values: np.ndarray, spacing_px: np.ndarray, diameter_px: float) -> np.ndarray:
    """Return how many cells wide a window is in whose middle a peak must be the highest, int (2,).

    No wider than is needed to take in all of ``values``, (h, w).
    """
    reach = np.maximum(1, np.rint(PEAK_RADIUS * diameter_px / spacing_px))
    return 2 * np.minimum(reach, values.shape).astype(int) + 1


def _capacity(scores: ScoreMap, diameter_px: float) -> int:
    """Return how many particles could lie side by side on the micrograph."""
    return math.ceil(DENSEST * math.prod(scores.size_px) / diameter_px**2)


def _offsets(values: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Return how far the parabola through each maximum and its neighbours peaks from it, (n, 2).

    At most half a cell along each axis; 0 along one where the maximum is at the border.
    """
    offsets = np.zeros(cells.shape)
    for axis in (0, 1):
        within = (cells[:, axis] > 0) & (cells[:, axis] < values.shape[axis] - 1)
        step = np.eye(2, dtype=int)[axis]
        left, middle, right = (values[tuple((cells[within] + k * step).T)] for k in (-1, 0, 1))
        bend = 2 * middle - left - right
        shift = np.divide(right - left, 2 * bend, out=np.zeros(len(bend)), where=bend > 1e-12)
        offsets[within, axis] = np.clip(shift, -0.5, 0.5)
    return offsets


def _apart(points: np.ndarray, distance: float) -> np.ndarray:
    """Return which points, (n, 2) in falling order, have no kept one before them within reach.

    Those that no point before them rules out are kept, what they rule out is dropped, and so on
    among the rest: some rounds, however many points there are.
    """
    from scipy.spatial import cKDTree

    kept, is_open = np.zeros(len(points), dtype=bool), np.ones(len(points), dtype=bool)
    pairs = np.empty((0, 2), dtype=int)
    if len(points):
        pairs = cKDTree(points).query_pairs(distance, output_type="ndarray")  # (i, j), i < j
    while is_open.any():
        first = is_open.copy()
        first[pairs[:, 1]] = False
        kept |= first
        is_open[pairs[first[pairs[:, 0]], 1]] = False
        is_open &= ~first
        pairs = pairs[is_open[pairs].all(axis=1)]
    return kept


def _picks(
    scores: ScoreMap, name: str, cells: np.ndarray, values: np.ndarray, diameter_px: float
) -> Picks:
    """Return picks at fractional cells (n, 2) that score what ``values``, (h, w), has there."""
    from scipy.ndimage import map_coordinates

    at_cells = map_coordinates(values, cells.T, order=1, mode="nearest")
    order = np.argsort(-at_cells, kind="stable")
    return Picks(
        name=name,
        centres_px=scores.positions_px(cells[order]),
        scores=np.clip(at_cells[order].astype(np.float64), 0, 1),
        diameters_px=np.full(len(cells), float(diameter_px)),
        size_px=scores.size_px,
    )


def _joined(one: Picks, other: Picks) -> Picks:
    """Return the picks of both, of one micrograph."""
    return dataclasses.replace(
        one,
        centres_px=np.concatenate([one.centres_px, other.centres_px]),
        scores=np.concatenate([one.scores, other.scores]),
        diameters_px=np.concatenate([one.diameters_px, other.diameters_px]),
    )


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


def _recentred(picks: Picks, scores: ScoreMap, p: np.ndarray, diameter_px: float) -> Picks:
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
    moved = dataclasses.replace(picks, centres_px=centres)
    return select(moved, _apart(centres, LEAST_DISTANCE * diameter_px))


def _with_diameters(
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
    least_px = LEAST_DISTANCE * diameter_px  # faint picks have but a few px that are particle
    return dataclasses.replace(picks, diameters_px=np.maximum(diameters, least_px))
