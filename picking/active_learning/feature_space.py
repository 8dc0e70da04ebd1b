"""Images as points in a space of features: nearness, clusters, spreading a choice.

Features are compared by direction: x are unit vectors, float32 (n, C), as `normalised` makes them.
"""

import numpy as np
from scipy import sparse

BLOCK_ROWS = 4096  # rows of features in one matrix product, to bound its memory
NEIGHBOURS = 20  # that tell how typical an image is; as in Hacohen et al. 2022 (TypiClust)
LLOYD_STEPS = 10


def k_centre(x: np.ndarray, similarity: np.ndarray, n: int) -> np.ndarray:
    """Choose n rows of the unit vectors ``x``, each time the one farthest from all centres.

    ``similarity`` (n_pool,) is the cosine to the nearest centre so far, infinite for rows that are
    chosen already; it is overwritten. Of equally far rows the first is taken.
    """
    chosen = np.empty(min(n, int((similarity < np.inf).sum())), dtype=np.int64)
    for i in range(len(chosen)):
        position = similarity.argmin()
        # Not `@`, which may round copies of one row differently
        cosine = np.einsum("ij,j->i", x, x[position])
        np.maximum(similarity, cosine, out=similarity)
        similarity[position] = np.inf
        chosen[i] = position
    return chosen


def nearest_cosine(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the cosine to the nearest centre, float32 (n,), of unit vectors (n, C) and (m, C)."""
    nearest = np.full(len(x), -np.inf, dtype=np.float32)
    for rows in _blocks(len(x)):
        for columns in _blocks(len(centres)):
            cosine = (x[rows] @ centres[columns].T).max(axis=1)
            np.maximum(nearest[rows], cosine, out=nearest[rows])
    return nearest


def distance_of(similarity: np.ndarray) -> np.ndarray:
    """Return the distance, 0 to 2, of unit vectors from their cosine."""
    return np.sqrt(2 - 2 * np.clip(similarity.astype(np.float64), -1, 1))


def typicality_of(x: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """Return 1 / (mean distance to the nearest neighbours in the cluster), float64 (n,).

    It is 0 for a cluster of one. ``x`` (n, C) are unit vectors, ``cluster`` (n,) their clusters.
    """
    typicality = np.zeros(len(x))
    for number in np.unique(cluster):
        members = np.flatnonzero(cluster == number)
        n_neighbours = min(NEIGHBOURS, len(members) - 1)
        if not n_neighbours:
            continue
        for rows in _blocks(len(members)):
            cosine = x[members[rows]] @ x[members].T
            np.fill_diagonal(cosine[:, rows], -np.inf)  # nothing is its own neighbour
            nearest = np.partition(cosine, -n_neighbours, axis=1)[:, -n_neighbours:]
            # Copies are at distance 0: the limit keeps the score finite.
            typicality[members[rows]] = 1 / np.maximum(distance_of(nearest).mean(axis=1), 1e-6)
    return typicality


def clusters_of(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Return the cluster of each of the unit vectors ``x`` (n, C) by k-means, int64 (n,).

    Some of the k clusters may be empty. scikit-learn's k-means is not used, because its sums depend
    on the order in which threads finish, and a resumed run must choose the same images.
    """
    centres = x[k_means_plus_plus(x, max(k, 1), rng)]
    cluster = _nearest(x, centres)
    for _ in range(LLOYD_STEPS):
        size = np.bincount(cluster, minlength=len(centres))
        belongs = sparse.csr_matrix(
            (np.ones(len(x), np.float32), (cluster, np.arange(len(x)))), (len(centres), len(x))
        )
        centres = np.where(size[:, None] > 0, (belongs @ x) / np.maximum(size, 1)[:, None], centres)
        centres = centres.astype(np.float32)
        before, cluster = cluster, _nearest(x, centres)
        if (cluster == before).all():
            break
    return cluster


def _nearest(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the nearest of the centres (k, C) for each of ``x`` (n, C), int64 (n,)."""
    half_square = _square(centres) / 2
    parts = [(x[rows] @ centres.T - half_square).argmax(axis=1) for rows in _blocks(len(x))]
    return np.concatenate(parts)


def k_means_plus_plus(
    points: np.ndarray, n: int, rng: np.random.Generator, first: int | None = None
) -> np.ndarray:
    """Choose n points, each with a chance in proportion to its squared distance to those chosen.

    ``points`` is (n_pool, C). The first is drawn with equal chances unless ``first`` is given.
    Returns int64 (n,) without repeats; where only copies of chosen points are left, these are drawn
    with equal chances. Arthur and Vassilvitskii 2007.
    """
    square = _square(points)
    distance = np.full(len(points), np.inf)
    free = np.ones(len(points), dtype=bool)
    chosen = np.empty(min(n, len(points)), dtype=np.int64)
    position = rng.integers(len(points)) if first is None else first
    for i in range(len(chosen)):
        if i > 0:
            weight = distance * free
            weight = weight if weight.any() else free.astype(np.float64)
            position = rng.choice(len(points), p=weight / weight.sum())
        to_it = square + square[position] - 2 * (points @ points[position])
        np.minimum(distance, np.maximum(to_it, 0), out=distance)
        free[position] = False
        chosen[i] = position
    return chosen


def normalised(features: np.ndarray) -> np.ndarray:
    """Return float32 (n, C) rows of length 1; a row of zeros stays."""
    x = features.astype(np.float32)
    x /= np.maximum(np.sqrt(_square(x)), 1e-12)[:, None]
    return x


def _square(x: np.ndarray) -> np.ndarray:
    """Return the squared length of each row, without a temporary of the size of ``x``."""
    return np.einsum("ij,ij->i", x, x)


def _blocks(n: int) -> list[slice]:
    return [slice(start, start + BLOCK_ROWS) for start in range(0, n, BLOCK_ROWS)]
