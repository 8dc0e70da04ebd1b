"""Where negative patches may lie, and drawing them there without replacement.

On dense micrographs the rule `far` leaves 2 to 13% of the area, so trial and error would run dry
or be relaxed in silence. Here the allowed centres are listed exactly on a grid, what is drawn is
drawn from that list, and what cannot be drawn is counted as a shortage.
"""

import functools
import math
from typing import Any

import numpy as np

# Centres are tried every 3 px: coprime with the 8 px blocks of a JPEG, so that the position of a
# patch within its blocks does not give negatives away.
GRID_STEP_PX = 3
RULES = ("far", "disjoint")
MOST_CELLS_KEPT = 512  # from a centre, of regions that are kept: at most 1 MB each


def allowed_grid(
    size_px: tuple[int, int],
    centres_px: np.ndarray,
    diameters_px: np.ndarray,
    patch_size_px: int,
    rule: str,
    margin_px: float = 0,
) -> np.ndarray:
    """Return where a negative's centre may lie, bool (ceil(h/3), ceil(w/3)).

    centres_px: (n, 2), (y, x); diameters_px: (n,). Element (i, j) stands for the centre
    (3i, 3j) px. Rule `far`: at least max(patch size, 1.5 x mean diameter) from every particle's
    centre. Rule `disjoint`: the square patch meets no particle's disk. Either way at least
    ``margin_px`` from the image's edges.
    """
    grid = _grid_within(size_px, margin_px)
    if rule == "far":
        distance_px = max(patch_size_px, 1.5 * diameters_px.mean()) if len(diameters_px) else 0
        keep_apart(grid, centres_px, distance_px)
    else:
        for centre, diameter in zip(centres_px, diameters_px, strict=True):
            _clear(grid, centre, diameter / 2, half_side_px=patch_size_px / 2)
    return grid


def off_centre_grid(
    size_px: tuple[int, int], centres_px: np.ndarray, diameters_px: np.ndarray, margin_px: float = 0
) -> np.ndarray:
    """Return the centres that just miss a particle, as `allowed_grid` does.

    They are half a diameter to a whole one from some particle's centre and at least half a
    diameter from every one: picks there would count as wrong.
    """
    grid = _grid_within(size_px, margin_px)
    beyond = grid.copy()
    for centre, diameter in zip(centres_px, diameters_px, strict=True):
        _clear(grid, centre, diameter / 2)
        _clear(beyond, centre, diameter)
    return grid & ~beyond


def keep_apart(grid: np.ndarray, centres_px: np.ndarray, distance_px: float) -> None:
    """Clear, in place, the allowed centres nearer than ``distance_px`` to any of ``centres_px``."""
    for centre in centres_px:
        _clear(grid, centre, distance_px)


def draw_apart(grid: np.ndarray, n: int, spacing_px: float, rng: np.random.Generator) -> np.ndarray:
    """Draw up to ``n`` allowed centres at random, no two closer than ``spacing_px``.

    grid: bool, as `allowed_grid` returns it. Returns float64 (m, 2), (y, x) in px, with m <= n;
    m < n only when no allowed centre is left. The same generator state and a larger n give the
    same centres and further ones.
    """
    free = grid.copy()
    drawn: list[np.ndarray] = []
    candidates = rng.permutation(np.flatnonzero(free))
    for start in range(0, len(candidates), 512):
        if len(drawn) >= n:
            break
        chunk = candidates[start : start + 512]
        for flat in chunk[free.ravel()[chunk]].tolist():  # most are no longer free
            row, column = divmod(flat, free.shape[1])
            if len(drawn) < n and free[row, column]:
                centre = np.array([row, column], dtype=np.float64) * GRID_STEP_PX
                drawn.append(centre)
                _clear(free, centre, spacing_px)
    return np.array(drawn).reshape(-1, 2)


def _grid_within(size_px: tuple[int, int], margin_px: float) -> np.ndarray:
    y, x = (np.arange(0, size, GRID_STEP_PX) for size in size_px)
    inside_y = (y >= margin_px) & (y <= size_px[0] - margin_px)
    inside_x = (x >= margin_px) & (x <= size_px[1] - margin_px)
    return inside_y[:, None] & inside_x[None, :]


def _clear(
    grid: np.ndarray, centre_px: np.ndarray, distance_px: float, half_side_px: float = 0
) -> None:
    """Clear the centres whose square of that half side comes nearer than ``distance_px``.

    With a half side of 0 the square is a point and the cleared region a disk.
    """
    n_cells = math.ceil((distance_px + half_side_px) / GRID_STEP_PX) + 1
    cells, offsets_px = zip(*(divmod(c, GRID_STEP_PX) for c in centre_px.tolist()), strict=True)
    part, near = [], []  # cells of the grid, and counted from the centre's
    for length, cell in zip(grid.shape, map(int, cells), strict=True):
        first = max(cell - n_cells, 0)
        end = max(first, min(cell + n_cells + 1, length))
        part.append(slice(first, end))
        near.append((first - cell, end - cell))
    region = (offsets_px, distance_px, half_side_px)
    if n_cells <= MOST_CELLS_KEPT:
        whole = _kept_clear_of(n_cells, *region)
        clear_of = whole[tuple(slice(low + n_cells, high + n_cells) for low, high in near)]
    else:
        clear_of = _clear_of(near, *region)
    grid[tuple(part)] &= clear_of


def _clear_of(
    near: list[tuple[int, int]],
    offsets_px: tuple[float, ...],
    distance_px: float,
    half_side_px: float,
) -> np.ndarray:
    """Return which cells, from one to another along y and x of the centre's, `_clear` leaves."""
    squares = []
    for (first, end), offset in zip(near, offsets_px, strict=True):
        along = np.abs(np.arange(first, end) * GRID_STEP_PX - offset)
        squares.append(np.maximum(along - half_side_px, 0) ** 2)
    return squares[0][:, None] + squares[1] >= distance_px**2


@functools.lru_cache(maxsize=64)
def _kept_clear_of(n_cells: int, *region: Any) -> np.ndarray:
    """Return `_clear_of` so many cells to either side; boxes centre on whole or half px, so few."""
    return _clear_of([(-n_cells, n_cells + 1)] * 2, *region)
