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
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from picking.active_learning.feature_space import (
    clusters_of,
    distance_of,
    k_centre,
    k_means_plus_plus,
    nearest_cosine,
    normalised,
    typicality_of,
)
from picking.errors import UserError

if TYPE_CHECKING:  # it imports torch, which those who only want the names need not wait for
    from picking.active_learning.pool_scores import PoolScores

UNCERTAIN_FRACTION = 0.7  # of a hybrid query; the rest is chosen by k-centre
# As in Hacohen et al. 2022 (TypiClust).
MAX_CLUSTERS = 500
SMALLEST_CLUSTER = 5
MAX_STRATA = 20  # where no EMPIAR id is known; about as many as the data set has proteins
FOREGROUND_FRACTION = 1 / 3  # of a foreground_random query, as in nnActive
# Of a clasp_pe query, as there. The noise has a scale of 1 / β in the log; nnActive tries it from
# β = 1, where it decides as much as the scores do, to 40, where it decides between near ties.
STRATIFIED_FRACTION = 0.66
FIRST_BETA, LAST_BETA = 1.0, 40.0

Selection = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass
class Pool:
    """What a strategy may look at. Images are scored on first use, so `random` scores none.

    rows: int64 (n,), positions of the candidates in the store. labelled_rows: int64 (m,), those of
    the labelled images. score: `score_pool` with the network. labelled_particles: (m,), the number
    of particles in each labelled image. strata: (n,), the EMPIAR id of each candidate, None where
    it is not known. progress: 0 in the first query of a run, 1 in its last, in equal steps.
    """

    rows: np.ndarray
    labelled_rows: np.ndarray
    score: "Callable[[np.ndarray], PoolScores]"
    labelled_particles: np.ndarray
    strata: Sequence[str | None]
    progress: float = 0.0

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
    """A function that selects, and the fields of `PoolScores` that are made only on demand."""

    select: Callable[[Pool, int, np.random.Generator], Selection]
    extras: frozenset[str] = frozenset()


def random(pool: Pool, n: int, rng: np.random.Generator) -> Selection:
    """Choose with equal chances; every score is 0."""
    return _highest(np.zeros(len(pool)), n, rng)


def foreground_random(pool: Pool, n: int, rng: np.random.Generator) -> Selection:
    """Choose a third at random of the images where the network sees particles, the rest of all.

    It sees some where it calls at least as many pixels positive as it does for one particle of the
    labelled images, on average; where it calls none positive there, one pixel is enough. A lower
    limit would count false pixels in empty ice, a higher one would leave images with few particles
    to chance alone. The score is 1 where it sees some, else 0. Where it sees fewer than a third of
    the query, more are drawn of all.

    The baseline of Lüth et al. 2025 (nnActive), which takes the third by the true labels of the
    pool: what an annotator who looks for particles would do. Here the network looks for them.
    """
    n = min(n, len(pool))
    positive = pool.labelled.positive.sum(dtype=np.float64)
    particles = pool.labelled_particles.sum()
    of_one = positive / particles if particles > 0 else 0.0
    sees = (pool.candidates.positive >= of_one) & (pool.candidates.positive > 0)
    first = rng.permutation(np.flatnonzero(sees))[: round(FOREGROUND_FRACTION * n)]
    rest = rng.permutation(np.setdiff1d(np.arange(len(pool)), first))[: n - len(first)]
    return np.concatenate([first, rest]).astype(np.int64), sees.astype(np.float64)


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
    return _highest(_noised(pool.candidates.entropy, 1.0, rng), n, rng)


def clasp_pe(pool: Pool, n: int, rng: np.random.Generator) -> Selection:
    """Choose two thirds by the entropy of what is predicted particle, the rest by that of all.

    Class-stratified Scheduled Power Predictive Entropy, Lüth et al. 2026. The classes but the
    background share 0.66 of the query equally: for each, the images with the highest mean over
    pixels of p·H are chosen, H the entropy of a pixel in nats and p its probability of that class;
    the rest by the mean of H. Particles are the only such class, so there is one stratum:
    int(0.66 n) by the mean of p·H first, then the rest by H of those left.

    Both are noised as in `power_entropy`: the highest log(score) + Gumbel noise of scale 1 / β are
    taken. β grows over the queries of a run by equal factors, from 1 in the first to 40 in the
    last: early queries are varied, late ones take the most uncertain. The score is the mean of p·H,
    without noise.

    The share, the two scores and the noise are those of MIC-DKFZ/nnActive's code. Its schedules are
    exponential or sigmoid; their constants were not found, so those here are ours. Its H is of the
    mean prediction of several networks, here of one.
    """
    n = min(n, len(pool))
    beta = FIRST_BETA * (LAST_BETA / FIRST_BETA) ** pool.progress
    particle_entropy, entropy = pool.candidates.particle_entropy, pool.candidates.entropy
    of_particles, _ = _highest(
        _noised(particle_entropy, beta, rng), int(STRATIFIED_FRACTION * n), rng
    )
    of_all = _noised(entropy, beta, rng)
    of_all[of_particles] = -np.inf
    rest, _ = _highest(of_all, n - len(of_particles), rng)
    return np.concatenate([of_particles, rest]), particle_entropy.astype(np.float64)


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
        strata = clusters_of(normalised(pool.candidates.features), min(MAX_STRATA, n), rng)
    place = _places(strata, rng.permutation(len(pool)))
    return _highest(-place, n, rng)


def diversity(pool: Pool, n: int, rng: np.random.Generator) -> Selection:
    """Choose by greedy k-centre; the score is the distance to the nearest labelled image.

    Features are compared by direction. Gonzalez 1985; Sener and Savarese 2018 (core-set).
    """
    x = normalised(pool.candidates.features)
    similarity = nearest_cosine(x, normalised(pool.labelled.features))
    return k_centre(x, similarity.copy(), n), distance_of(similarity)


def hybrid(pool: Pool, n: int, rng: np.random.Generator) -> Selection:
    """Choose int(0.7 n) by uncertainty, then the rest by k-centre; the score is the uncertainty.

    For k-centre, the first part counts as labelled.
    """
    n = min(n, len(pool))
    uncertain, scores = _highest(pool.candidates.uncertainty, int(UNCERTAIN_FRACTION * n), rng)
    x = normalised(pool.candidates.features)
    similarity = nearest_cosine(x, normalised(pool.labelled.features))
    if len(uncertain):
        similarity = np.maximum(similarity, nearest_cosine(x, x[uncertain]))
    similarity[uncertain] = np.inf
    return np.concatenate([uncertain, k_centre(x, similarity, n - len(uncertain))]), scores


def badge(pool: Pool, n: int, rng: np.random.Generator) -> Selection:
    """Choose by k-means++ on gradient embeddings; the score is the embedding's length.

    Long gradients belong to uncertain images, and k-means++ spreads the choice. Ash et al. 2020.
    """
    assert pool.candidates.badge is not None
    embeddings = pool.candidates.badge.astype(np.float64)
    length = np.linalg.norm(embeddings, axis=1)
    return k_means_plus_plus(embeddings, n, rng, first=int(length.argmax())), length


def typiclust(pool: Pool, n: int, rng: np.random.Generator) -> Selection:
    """Choose the most typical images of the largest clusters that hold nothing labelled yet.

    Labelled images and candidates are clustered together by pooled features, into m + n clusters
    but at most 500. An image is taken from the cluster with the fewest labelled or chosen images,
    of several such from the largest; clusters of fewer than 5 images, mostly outliers, come last.
    The score is typicality: 1 / (mean distance to the 20 nearest images of the cluster). Hacohen
    et al. 2022.
    """
    return _most_typical(pool.labelled.features, pool.candidates.features, n, rng)


def typical_first(pool: Pool, n: int, rng: np.random.Generator) -> Selection:
    """Choose as `typiclust` does, by features of the general network that is shipped.

    It has seen many proteins before anything here is labelled, and its features do not change from
    query to query; `pool_scores.general_features` says how it sees the images.
    """
    assert pool.labelled.general is not None and pool.candidates.general is not None
    return _most_typical(pool.labelled.general, pool.candidates.general, n, rng)


STRATEGIES = {
    "random": Strategy(random),
    "random_stratified": Strategy(random_stratified),
    "foreground_random": Strategy(foreground_random),
    "uncertainty": Strategy(by_score("uncertainty")),
    "entropy": Strategy(by_score("entropy")),
    "margin": Strategy(by_score("margin")),
    "foreground_uncertainty": Strategy(by_score("foreground_uncertainty")),
    "foreground_entropy": Strategy(by_score("foreground_entropy")),
    "foreground_margin": Strategy(by_score("foreground_margin")),
    "power_entropy": Strategy(power_entropy),
    "clasp_pe": Strategy(clasp_pe),
    "cost_aware": Strategy(cost_aware),
    "diversity": Strategy(diversity),
    "hybrid": Strategy(hybrid),
    "typiclust": Strategy(typiclust),
    "typical_first": Strategy(typical_first, frozenset({"general"})),
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


def _most_typical(
    labelled: np.ndarray, candidates: np.ndarray, n: int, rng: np.random.Generator
) -> Selection:
    """Choose as `typiclust` says, by features of the labelled images (m, C) and candidates."""
    n_labelled = len(labelled)
    x = normalised(np.concatenate([labelled, candidates]))
    cluster = clusters_of(x, min(n_labelled + n, MAX_CLUSTERS), rng)
    typicality = typicality_of(x, cluster)[n_labelled:]
    covered = np.bincount(cluster[:n_labelled], minlength=cluster.max() + 1)
    size = np.bincount(cluster)
    cluster = cluster[n_labelled:]
    covered_before = covered[cluster] + _places(cluster, np.argsort(-typicality, kind="stable"))
    order = np.lexsort([cluster, -size[cluster], covered_before, size[cluster] < SMALLEST_CLUSTER])
    return order[:n].astype(np.int64), typicality


def _noised(scores: np.ndarray, beta: float, rng: np.random.Generator) -> np.ndarray:
    """Return log(score) + Gumbel noise of scale 1 / β, float64 (n,); scores are 0 or more."""
    positive = np.maximum(scores, np.finfo(np.float32).tiny).astype(np.float64)
    return np.log(positive) + rng.gumbel(scale=1 / beta, size=len(scores))


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
