"""What of a micrograph is no ice with particles: carbon, foil, crystals of ice, aggregates.

Junk shows at the scale of a particle's diameter, in the local mean (film and thick ice are dark) or
in the local deviation (crystals, aggregates and edges have a texture of their own). But so do
slopes of thickness and crowds of particles, whose mean and deviation change slowly or by little. So
junk is an island: a region above a level that is larger than some particles and whose shore is
steep all around, as the slopes of the micrograph's particles are not. Every measure is taken from
the micrograph itself, so neither units nor contrast matter, and where nothing stands out nothing
is junk. What covers more than half of a micrograph is taken for its ice: of a hole in film and a
hole in ice the two sides look alike, and to lose all particles is worse than to pick on film.

ASOCEM (Eldar et al., J. Struct. Biol. 2022) lets a contour settle between two textures; RELION
leaves out picks by the deviation about them; MicrographCleaner has a network for it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from picking.micrographs.preparation import PARTICLE_PX, scale_micrograph

CELLS = 4  # to a diameter: islands are looked for on a grid
MEAN_SIGMA, DEVIATION_SIGMA = 0.5, 0.75  # of the Gaussian that is local, in diameters
# A shore is steep from so many times the usual slope up, and counts as no steeper than a cliff, so
# that half a shore of cliffs makes no island. The usual slope follows from two quantiles: the few
# particles of a quiet micrograph are not to stand out.
STEEP, CLIFF = 3.6, 4.8
QUANTILES = ((0.5, 1.0), (0.9, 1.9))  # of slopes, and its ratio to the median where nothing is junk
LEAST_AREA = 5.0  # of an island, in squares of the diameter
LEAST_SHORE = 6.0  # diameters; a shorter one, in a micrograph's corner, must be steeper
N_LEVELS, LOWEST_LEVEL = 32, 0.3  # in deviations from the median, closer where there is more
# Coarse and fine, with a particle `PARTICLE_PX` wide, and how many times as coarse as the coarsest
# of training a micrograph is that is junk all over. Between micrographs of a real set the measure
# varies by 1.16, of simulated ones with patches of junk by 1.4; crystals everywhere: 2.1 to 2.5
COARSE_PX, FINE_PX = 8, 2
MUCH_COARSER = 1.75
COARSEN_FROM_PX = 1.5 * PARTICLE_PX  # particles that are wider are made PARTICLE_PX wide first
STILL = 0.1  # a line that differs from the next by less, in usual differences, is drawn out


def junk_mask(image: np.ndarray, diameter_px: float | np.ndarray) -> np.ndarray:
    """Return where junk is, bool (h, w).

    image: float or uint8 (h, w), of any scale and contrast, but with its background: before it is
    flattened; particles and film are dark. diameter_px: of the particles there, along y and x where
    these differ. Where the image has no contrast nothing is junk. A frame that repeats the last px
    of the detector is.
    """
    from scipy.ndimage import binary_fill_holes, gaussian_filter

    diameters_px = np.broadcast_to(diameter_px, 2)
    if diameters_px.min() > COARSEN_FROM_PX:
        coarse = junk_mask(_coarsened(image, diameters_px), PARTICLE_PX)
        return np.asarray(Image.fromarray(coarse).resize(image.shape[::-1]))

    values = image.astype(np.float32)
    values -= np.median(values)
    spread = float(np.abs(values).mean())
    if not spread > 0:
        return np.zeros(image.shape, bool)
    values /= spread
    within = _within_frame(values)
    inner = values[within]
    height, width = (
        max(2, round(n * CELLS / d)) for n, d in zip(inner.shape, diameters_px, strict=True)
    )
    size = (height, width)
    means, squares = _cells(inner, size), _cells(inner * inner, size)
    mean = gaussian_filter(means, MEAN_SIGMA * CELLS)
    sigma = DEVIATION_SIGMA * CELLS
    variance = gaussian_filter(squares, sigma) - gaussian_filter(means, sigma) ** 2
    # Of the logarithm, since a strong texture varies more from place to place than a weak one
    deviation = np.log(np.maximum(variance, max(0.01 * float(np.median(variance)), 1e-6)))

    junk = binary_fill_holes(_islands(-mean) | _islands(deviation))
    grid = Image.fromarray(junk.astype(np.uint8) * 255)
    mask = np.ones(image.shape, bool)
    mask[within] = np.asarray(grid.resize(inner.shape[::-1], Image.Resampling.BILINEAR)) > 127
    return mask


def coarseness(image: np.ndarray, diameter_px: float | np.ndarray) -> float | None:
    """Return how much grey changes over two fifths of a particle, against fine noise.

    A mask tells junk from its surroundings; where a whole micrograph is crystals or aggregates only
    others tell, and these are several times as coarse. image, diameter_px: as `junk_mask` takes
    them. None where the image is too small to tell, or without fine noise.
    """
    diameters_px = np.broadcast_to(diameter_px, 2)
    if diameters_px.min() > COARSEN_FROM_PX:
        image = _coarsened(image, diameters_px)
    if min(image.shape) < 2 * COARSE_PX:
        return None
    whole = Image.fromarray(image.astype(np.float32, copy=False))
    coarse, fine = (
        float(np.mean([np.median(np.abs(np.diff(one, axis=axis))) for axis in (0, 1)]))
        for one in (np.asarray(whole.reduce(n)) for n in (COARSE_PX, FINE_PX))
    )
    return coarse / fine if fine > 0 else None


def coarsest(noted: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the highest coarseness that is noted of some micrographs, None without any."""
    return max((c for entry in noted if (c := entry.get("coarseness")) is not None), default=None)


def _coarsened(image: np.ndarray, diameters_px: np.ndarray) -> np.ndarray:
    """Return the image, (h, w), with particles `PARTICLE_PX` wide."""
    coarse_px = np.rint(np.array(image.shape) * PARTICLE_PX / diameters_px).astype(int)
    height, width = np.maximum(coarse_px, 2).tolist()
    return scale_micrograph(image, (height, width))


def in_junk(mask: np.ndarray, centres_px: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """Return which centres lie in junk, bool (n,).

    mask: bool (h, w), at any scale; centres_px: (n, 2), (y, x) in px of a micrograph of size_px.
    """
    at = (centres_px * mask.shape / np.array(size_px)).astype(int)
    return mask[tuple(np.clip(at, 0, np.array(mask.shape) - 1).T)]


def _within_frame(values: np.ndarray) -> tuple[slice, slice]:
    """Return the rows and columns of ``values``, (h, w), that are no drawn-out or empty frame."""
    kept = []
    for axis in (0, 1):
        moves = np.abs(np.diff(values, axis=axis)).mean(axis=1 - axis)
        still, reach = moves <= STILL * np.median(moves), len(moves) // 10
        # The outermost lines may differ again, where a filter was at work
        before, after = (np.flatnonzero(one[:reach]) for one in (still, still[::-1]))
        start, end = (int(one.max(initial=-1)) + 1 for one in (before, after))
        kept.append(slice(start, values.shape[axis] - end))
    return kept[0], kept[1]


def _cells(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return means of ``values``, float32 (h, w), over the cells of a grid of ``size``."""
    # Unlike slices, its boxes are the same for a micrograph that is mirrored
    return np.asarray(Image.fromarray(values).resize(size[::-1], Image.Resampling.BOX))


def _islands(field: np.ndarray) -> np.ndarray:
    """Return where ``field``, float (h, w), has an island of high values, bool (h, w).

    Of the levels that cut one island out, the one counts whose shore is steeper than that of the
    level above and of the level below.
    """
    from scipy.ndimage import label

    slope = np.hypot(*np.gradient(field))
    usual = max(float(np.quantile(slope, at)) / ratio for at, ratio in QUANTILES)
    median = float(np.median(field))
    spread = 1.4826 * float(np.median(np.abs(field - median)))
    found, likely = np.zeros(field.shape, bool), np.zeros(field.shape, bool)
    if not (usual > 0 and spread > 0):
        return found
    capped = np.minimum(slope, CLIFF * usual)
    above = np.zeros(field.shape)  # how steep the shores of the level above are
    highest = float(np.arcsinh((field.max() - median) / spread))
    for level in np.linspace(LOWEST_LEVEL, highest, N_LEVELS, endpoint=False)[::-1]:
        land = field > median + spread * np.sinh(level)
        labels, n = label(land)
        around = np.pad(land, 1, mode="edge")  # the micrograph's edge is no shore
        inland = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
        shore = labels[land & ~inland], slope[land & ~inland], capped[land & ~inland]
        length = np.maximum(np.bincount(shore[0], minlength=n + 1), 1)
        steepness = np.bincount(shore[0], shore[1], n + 1) / length
        steepness[0] = 0
        here = steepness[labels]
        found |= likely & (here <= above)

        area = np.bincount(labels.ravel(), minlength=n + 1)
        island = area >= LEAST_AREA * CELLS**2  # above the median, so half of all at most
        least = STEEP * usual * np.sqrt(np.maximum(1, LEAST_SHORE * CELLS / length))
        island &= np.bincount(shore[0], shore[2], n + 1) / length >= least
        steepest_above = np.zeros(n + 1)
        np.maximum.at(steepest_above, labels[land], above[land])
        island &= steepness >= steepest_above
        island[0] = False
        likely, above = island[labels], here
    return found | likely
