"""Which images to label next: scores and features of a pool -> a selection.

To add a strategy, write one function and one line in `STRATEGIES`. The function gets a `Pool`, the
number of images wanted and a generator. It returns the chosen positions among the candidates, int64
(n,) in the order of choice, and a score for every candidate, float64 (n_pool,). It chooses no
position twice, and takes all candidates where there are fewer than wanted. Candidates are the
images that are not labelled.
"""

import dataclasses
import difflib
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

from picking.errors import UserError
from picking.seeds import stream

if TYPE_CHECKING:  # it imports torch, which those who only want the names need not wait for
    from picking.active_learning.pool_scores import PoolScores

BLOCK_ROWS = 4096  # rows of features in one matrix product, to bound its memory
UNCERTAIN_FRACTION = 0.7  # of a hybrid query; the rest is chosen by k-centre
# As in Hacohen et al. 2022 (TypiClust).
MAX_CLUSTERS = 500
SMALLEST_CLUSTER = 5
NEIGHBOURS = 20
MAX_STRATA = 20  # where no EMPIAR id is known; about as many as the data set has proteins
LLOYD_STEPS = 10

Selection = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass
class Pool:
    """What a strategy may look at. Images are scored on first use, so `random` scores none.

    rows: int64 (n,), positions of the candidates in the store. labelled_rows: int64 (m,), those of
    the labelled images. score: `score_pool` with the network. labelled_particles: (m,), the number
    of particles in each labelled image. strata: (n,), the EMPIAR id of each candidate, None where
    it is not known.
    """

    rows: np.ndarray
    labelled_rows: np.ndarray
    score: "Callable[[np.ndarray], PoolScores]"
    labelled_particles: np.ndarray
    strata: Sequence[str | None]

    @functools.cached_property
    def candidates(self) -> "PoolScores":
        """Scores and features of the candidates."""
        return self.score(self.rows)

    @functools.cached_property
    def labelled(self) -> "PoolScores":
        """Scores and features of the labelled images."""
        return self.score(self.labelled_rows)

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.rows)


class Strategy(NamedTuple):
    """A function that selects, and the extras of `pool_scores.score_pool` that it needs."""

    select: Callable[[Pool, int, np.random.Generator], Selection]
    extras: frozenset[str] = frozenset()


def random(pool: Pool, n: int, rng: np.random.Generator) -> Selection:
    """Choose with equal chances; every score is 0."""
    return _highest(np.zeros(len(pool)), n, rng)


def by_score(name: str) -> Callable[[Pool, int, np.random.Generator], Selection]:
    """Return the strategy that chooses the images with the highest values of a score.

    name: a field of `PoolScores`.
    """

    def select(pool: Pool, n: int, rng: np.random.Generator) -> Selection:
        return _highest(getattr(pool.candidates, name), n, rng)

    return select


def power_entropy(pool: Pool, n: int, rng: np.random.Generator) -> Selection:
    """Draw images with chances in proportion to their entropy: the highest log(entropy) + Gumbel.

    Chance keeps near-copies from filling a query. Kirsch et al. 2021, with β = 1.
    """
    entropy = np.maximum(pool.candidates.entropy, np.finfo(np.float32).tiny)
    return _highest(np.log(entropy.astype(np.float64)) + rng.gumbel(size=len(pool)), n, rng)


def cost_aware(pool: Pool, n: int, rng: np.random.Generator) -> Selection:
    """Choose the highest uncertainty per expected click.

    An image costs one click to look at it and one for each particle. The number of particles is
    estimated from the fraction of pixels predicted positive; the labelled images show how many
    particles come with such a fraction, which also corrects disks predicted too large or too small.
    Where the labelled images have no positive pixels, every image costs the same.
    """
    positive = pool.labelled.positive.sum(dtype=np.float64)
    particles_per_positive = pool.labelled_particles.sum() / positive if positive > 0 else 0.0
    clicks = 1 + particles_per_positive * pool.candidates.positive.astype(np.float64)
    return _highest(pool.candidates.uncertainty / clicks, n, rng)


def random_stratified(pool: Pool, n: int, rng: np.random.Generator) -> Selection:
    """Choose equally many from each stratum, with equal chances within it.

    Strata are EMPIAR ids (images without one are a stratum of their own) or, where no id is known,
    clusters of pooled features. Numbers in proportion to the strata would differ from `random` by
    chance alone. Each stratum is put in random order; the score is minus an image's place in the
    order of its stratum, so all first places are chosen before any second one.
    """
    if any(id_ is not None for id_ in pool.strata):
        strata = np.array([id_ or "" for id_ in pool.strata])
    else:
        strata = _clusters(_normalised(pool.candidates.features), min(MAX_STRATA, n), rng)
    place = _places(strata, rng.permutation(len(pool)))
    return _highest(-place, n, rng)


def diversity(pool: Pool, n: int, rng: np.random.Generator) -> Selection:
    """Choose by greedy k-centre; the score is the distance to the nearest labelled image.

    Features are compared by direction. Gonzalez 1985; Sener and Savarese 2018 (core-set).
    """
    x = _normalised(pool.candidates.features)
    similarity = _similarity(x, _normalised(pool.labelled.features))
    return _k_centre(x, similarity.copy(), n), _distance(similarity)


def hybrid(pool: Pool, n: int, rng: np.random.Generator) -> Selection:
    """Choose int(0.7 n) by uncertainty, then the rest by k-centre; the score is the uncertainty.

    For k-centre, the first part counts as labelled.
    """
    n = min(n, len(pool))
    uncertain, scores = _highest(pool.candidates.uncertainty, int(UNCERTAIN_FRACTION * n), rng)
    x = _normalised(pool.candidates.features)
    similarity = _similarity(x, _normalised(pool.labelled.features))
    if len(uncertain):
        similarity = np.maximum(similarity, _similarity(x, x[uncertain]))
    similarity[uncertain] = np.inf
    return np.concatenate([uncertain, _k_centre(x, similarity, n - len(uncertain))]), scores


def badge(pool: Pool, n: int, rng: np.random.Generator) -> Selection:
    """Choose by k-means++ on gradient embeddings; the score is the embedding's length.

    Long gradients belong to uncertain images, and k-means++ spreads the choice. Ash et al. 2020.
    """
    assert pool.candidates.badge is not None
    embeddings = pool.candidates.badge.astype(np.float64)
    length = np.linalg.norm(embeddings, axis=1)
    return _k_means_plus_plus(embeddings, n, rng, first=int(length.argmax())), length


def typiclust(pool: Pool, n: int, rng: np.random.Generator) -> Selection:
    """Choose the most typical images of the largest clusters that hold nothing labelled yet.

    Labelled images and candidates are clustered together by pooled features, into m + n clusters
    but at most 500. An image is taken from the cluster with the fewest labelled or chosen images,
    of several such from the largest; clusters of fewer than 5 images, mostly outliers, come last.
    The score is typicality: 1 / (mean distance to the 20 nearest images of the cluster). Hacohen
    et al. 2022.
    """
    n_labelled = len(pool.labelled)
    x = _normalised(np.concatenate([pool.labelled.features, pool.candidates.features]))
    cluster = _clusters(x, min(n_labelled + n, MAX_CLUSTERS), rng)
    typicality = _typicality(x, cluster)[n_labelled:]
    covered = np.bincount(cluster[:n_labelled], minlength=cluster.max() + 1)
    size = np.bincount(cluster)
    cluster = cluster[n_labelled:]
    covered_before = covered[cluster] + _places(cluster, np.argsort(-typicality, kind="stable"))
    order = np.lexsort([cluster, -size[cluster], covered_before, size[cluster] < SMALLEST_CLUSTER])
    return order[:n].astype(np.int64), typicality


STRATEGIES = {
    "random": Strategy(random),
    "random_stratified": Strategy(random_stratified),
    "uncertainty": Strategy(by_score("uncertainty")),
    "entropy": Strategy(by_score("entropy")),
    "margin": Strategy(by_score("margin")),
    "foreground_uncertainty": Strategy(by_score("foreground_uncertainty")),
    "foreground_entropy": Strategy(by_score("foreground_entropy")),
    "foreground_margin": Strategy(by_score("foreground_margin")),
    "power_entropy": Strategy(power_entropy),
    "cost_aware": Strategy(cost_aware),
    "diversity": Strategy(diversity),
    "hybrid": Strategy(hybrid),
    "typiclust": Strategy(typiclust),
    "bald": Strategy(by_score("bald"), frozenset({"bald"})),
    "badge": Strategy(badge, frozenset({"badge"})),
}
OTHER_NAMES = {"coreset": "diversity"}


def strategy_name(name: str) -> str:
    """Return the name under which `STRATEGIES` has a strategy that a user may know by another."""
    return OTHER_NAMES.get(name, name)


def strategy(name: str) -> Strategy:
    """Return a strategy by either name; raises `UserError` for an unknown one."""
    if strategy_name(name) not in STRATEGIES:
        known = [*STRATEGIES, *OTHER_NAMES, "full"]  # full is no strategy, but a user may name it
        nearest = difflib.get_close_matches(name, known, 1, 0)[0]
        raise UserError(
            f"unknown strategy '{name}': did you mean '{nearest}'? Known are {', '.join(known)}"
        )
    return STRATEGIES[strategy_name(name)]


def schedule(
    n_pool: int, initial_fraction: float, query_fraction: float, iterations: int
) -> list[int]:
    """Return how many images each iteration trains on: min(n, round(n·(f0 + i·q))), i from 0.

    Raises `UserError` where the first set would be empty or larger than the pool, or where an
    iteration would have nothing to query.
    """
    n_first = round(n_pool * initial_fraction)
    if n_first < 1 or n_first > n_pool:
        raise UserError(
            f"the pool has {n_pool} images, but the first set would have {n_first} "
            f"(initial_fraction {initial_fraction:g}): change active_learning.initial_fraction "
            f"(--initial-fraction) or give more images"
        )
    sizes = [
        min(n_pool, round(n_pool * (initial_fraction + i * query_fraction)))
        for i in range(iterations)
    ]
    for i in range(1, iterations):
        if sizes[i] == sizes[i - 1] == n_pool:
            raise UserError(
                f"iteration {i} would have nothing left to query, since iteration {i - 1} already "
                f"trains on all {n_pool} images: set active_learning.iterations (--iterations) to "
                f"{i} or lower active_learning.query_fraction (--query-fraction)"
            )
        if sizes[i] == sizes[i - 1]:
            raise UserError(
                f"iteration {i} would query no image, since query_fraction {query_fraction:g} of "
                f"{n_pool} images is less than one: raise active_learning.query_fraction "
                f"(--query-fraction)"
            )
    return sizes


def initial_set(n_pool: int, n: int, seed: int) -> np.ndarray:
    """Return the rows labelled at the start, int64 (n,), ascending.

    They depend on the seed and the pool's size alone, and a smaller set is part of a larger one.
    """
    return np.sort(stream(seed, "initial").permutation(n_pool)[:n]).astype(np.int64)


def query_rng(seed: int, name: str, iteration: int) -> np.random.Generator:
    """Return the generator of one query."""
    return stream(seed, "query", name, iteration)


def overlaps(
    pool: Pool, chosen: np.ndarray, names: Iterable[str], seed: int, iteration: int
) -> dict[str, float]:
    """Return the fraction of a query that other strategies would have chosen too, by name.

    Each draws what it would draw in this iteration of its own run. Strategies whose extras were not
    computed for this pool are left out.
    """
    fractions = {}
    for name in names:
        select, extras = strategy(name)
        if all(getattr(pool.candidates, extra) is not None for extra in extras):
            other, _ = select(pool, len(chosen), query_rng(seed, name, iteration))
            fractions[name] = len(np.intersect1d(chosen, other)) / len(chosen)
    return fractions


def _k_centre(x: np.ndarray, similarity: np.ndarray, n: int) -> np.ndarray:
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


def _similarity(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the cosine to the nearest centre, float32 (n,), of unit vectors (n, C) and (m, C)."""
    nearest = np.full(len(x), -np.inf, dtype=np.float32)
    for rows in _blocks(len(x)):
        for columns in _blocks(len(centres)):
            cosine = (x[rows] @ centres[columns].T).max(axis=1)
            np.maximum(nearest[rows], cosine, out=nearest[rows])
    return nearest


def _distance(similarity: np.ndarray) -> np.ndarray:
    """Return the distance, 0 to 2, of unit vectors from their cosine."""
    return np.sqrt(2 - 2 * np.clip(similarity.astype(np.float64), -1, 1))


def _typicality(x: np.ndarray, cluster: np.ndarray) -> np.ndarray:
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
            typicality[members[rows]] = 1 / np.maximum(_distance(nearest).mean(axis=1), 1e-6)
    return typicality


def _clusters(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Return the cluster of each of the unit vectors ``x`` (n, C) by k-means, int64 (n,).

    Some of the k clusters may be empty. scikit-learn's k-means is not used, because its sums depend
    on the order in which threads finish, and a resumed run must choose the same images.
    """
    centres = x[_k_means_plus_plus(x, max(k, 1), rng)]
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


def _k_means_plus_plus(
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


def _places(group: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return each item's place, from 0, among the items of its group when taken in ``order``.

    ``group`` is (n,), ``order`` int64 (n,) a permutation; returns int64 (n,).
    """
    place = np.empty(len(group), dtype=np.int64)
    for name in np.unique(group):
        members = order[group[order] == name]
        place[members] = np.arange(len(members))
    return place


def _highest(scores: np.ndarray, n: int, rng: np.random.Generator) -> Selection:
    """Choose the n highest scores; equal ones in random order, not in that of the store."""
    order = rng.permutation(len(scores))
    order = order[np.argsort(-scores[order], kind="stable")]
    return order[:n].astype(np.int64), scores.astype(np.float64)


def _normalised(features: np.ndarray) -> np.ndarray:
    """Return float32 (n, C) rows of length 1; a row of zeros stays."""
    x = features.astype(np.float32)
    x /= np.maximum(np.sqrt(_square(x)), 1e-12)[:, None]
    return x


def _square(x: np.ndarray) -> np.ndarray:
    """Return the squared length of each row, without a temporary of the size of ``x``."""
    return np.einsum("ij,ij->i", x, x)


def _blocks(n: int) -> list[slice]:
    return [slice(start, start + BLOCK_ROWS) for start in range(0, n, BLOCK_ROWS)]
