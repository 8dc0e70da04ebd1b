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

import numpy as np

from picking.detection.scores.disks import disk_means, recentred, with_diameters
from picking.detection.scores.score_map import ScoreMap
from picking.formats.picks import Picks, select

# Fractions of the diameter of the disks that the network was trained on
DISK_RADIUS, RING_RADII = 0.45, (0.50, 0.65)
SCORE_RADIUS = 0.30
# Fractions of the particle's diameter
PEAK_RADIUS = 0.20
SMOOTHING_SIGMA = 0.15
LEAST_DISTANCE = 0.50
# Peaks that score less are kept while there is room, and score less wherever they are read off.
FAINT, BELOW_FAINT = 0.05, 0.05 * (1 - 1e-9)
DENSEST = 2 / 3**0.5  # Disks side by side, in disks to a square of their diameter
# What is no more than rounding: of a difference of probabilities, and of logits
LEAST_CONTRAST, LEAST_RISE = 1e-6, 1e-3


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
    picks = recentred(picks, scores, p, diameter_px)
    picks = select(picks, _apart(picks.centres_px, LEAST_DISTANCE * diameter_px))
    picks = with_diameters(picks, scores, p >= pixel_threshold, diameter_px, disk)

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
