"""Isolated bad pixels of a detector: not finite, dead or hot; they get their surroundings' value.

A hot pixel becomes a bright blot once the counts are smoothed, and a dead column a dark line. What
is looked for is so far out and so narrow that no part of a specimen is: micrographs without bad
pixels stay as they are, byte for byte.
"""

import numpy as np

# Dead or hot: so many standard deviations from the median of all and of the surroundings; of whole
# numbers, which are counts and may be few, at least so far.
FAR_SIGMAS, FAR_COUNTS = 15, 30
WIDEST_PX = 3  # of bad px side by side; what is wider is something in the specimen
REACH_PX = 3  # how far the surroundings reach
MOST_BAD = 0.05  # fraction of all px: with more, a micrograph is beyond help
SAMPLED = 8  # every so many rows and columns tell median and deviation
LARGEST = 1e30  # no count is; sums of larger ones would not be finite
MOST_DEAD = 0.1  # fraction of rows or columns; more of one value each are in images without noise
SHORTEST_PX = 32  # in shorter rows and columns all px may be equal by chance


def replace_bad_pixels(raw: np.ndarray) -> int:
    """Replace bad pixels of raw counts, float32 (h, w), in place; return how many there are.

    Each becomes the median of the good px about it. Where more than `MOST_BAD` of all are bad, the
    micrograph is beyond help, and what it holds then is of no use.
    """
    median, far = _middle(raw)
    low, high = (
        np.float32(np.clip(limit, -LARGEST, LARGEST)) for limit in (median - far, median + far)
    )
    of_columns, of_rows = ((raw.min(axis), raw.max(axis)) for axis in (0, 1))
    dead_columns, dead_rows = _dead(*of_columns, raw.shape[0]), _dead(*of_rows, raw.shape[1])
    near = of_rows[0].min() >= low and of_rows[1].max() <= high  # not where NaN is
    if near and not dead_columns.any() and not dead_rows.any():
        return 0
    was, bad = raw.copy(), ~(abs(raw) < LARGEST)
    bad |= dead_columns | dead_rows[:, None]
    raw[bad] = np.nan
    odd = np.argwhere((raw < low) | (raw > high))
    n_bad = int(bad.sum())
    if n_bad > MOST_BAD * raw.size:
        return n_bad
    odd = odd[_narrow(odd)]
    beside = _surroundings(raw, odd).astype(np.float64)
    odd = odd[abs(raw[tuple(odd.T)] - beside) > far]
    bad[tuple(odd.T)] = True
    raw[bad] = np.nan
    values = _surroundings(raw, np.argwhere(bad))
    raw[bad] = np.where(np.isnan(values), median, values)
    return int((raw[bad] != was[bad]).sum())  # without noise, a row may well hold one value


def _middle(raw: np.ndarray) -> tuple[float, float]:
    """Return the median and how far from it a px must be to be dead or hot."""
    sample = raw[::SAMPLED, ::SAMPLED] if min(raw.shape) > SHORTEST_PX * SAMPLED else raw
    sample = sample[abs(sample) < LARGEST].astype(np.float64)
    if not len(sample):
        return 0.0, np.inf
    low, median, high = np.percentile(sample, (1, 50, 99))
    far = FAR_SIGMAS * float(sample.clip(low, high).std())
    if (sample == np.rint(sample)).all():
        far = max(far, FAR_COUNTS)
    return float(median), far or np.inf


def _dead(lowest: np.ndarray, highest: np.ndarray, length_px: int) -> np.ndarray:
    """Return which rows or columns hold one value each and are not many side by side, bool (n,)."""
    from scipy.ndimage import binary_opening

    same = (lowest == highest) & (length_px >= SHORTEST_PX)
    if not same.any() or same.mean() > MOST_DEAD:
        return np.zeros_like(same)
    return same & ~binary_opening(same, np.ones(WIDEST_PX + 1))


def _narrow(places: np.ndarray) -> np.ndarray:
    """Return which of ``places``, (n, 2), lie in no patch wider than `WIDEST_PX`, bool (n,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    n = len(places)
    if not n:
        return np.empty(0, bool)
    beside = KDTree(places).query_pairs(1.5, output_type="ndarray")  # or diagonally
    links = coo_array((np.ones(len(beside)), tuple(beside.T)), shape=(n, n))
    n_patches, patch = connected_components(links, directed=False)
    first, last = np.full((n_patches, 2), np.inf), np.full((n_patches, 2), -np.inf)
    np.minimum.at(first, patch, places)
    np.maximum.at(last, patch, places)
    longest = (last - first + 1).max(axis=1)
    return (np.bincount(patch) <= WIDEST_PX * longest)[patch]


def _surroundings(raw: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the median about each of ``places``, (n, 2), without NaN; NaN where all is."""
    reach = np.arange(-REACH_PX, REACH_PX + 1)
    medians = [np.empty(0, raw.dtype)]
    for some in np.array_split(places, 1 + len(places) // 100_000):  # little memory for many
        y, x = (np.clip(some[:, i, None] + reach, 0, raw.shape[i] - 1) for i in (0, 1))
        near = np.sort(raw[y[:, :, None], x[:, None, :]].reshape(len(some), len(reach) ** 2))
        n_good = len(reach) ** 2 - np.isnan(near).sum(axis=1)  # NaN are sorted to the end
        medians.append(near[np.arange(len(some)), np.maximum(n_good - 1, 0) // 2])
    return np.concatenate(medians)
