"""How many images are labelled when, which of them first, and which by a query of a strategy."""

import dataclasses
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from picking.active_learning import strategies
from picking.active_learning.iterations import write_labelled
from picking.active_learning.log import log_query
from picking.active_learning.pool_scores import PoolScores, general_features, score_pool
from picking.config import ActiveConfig
from picking.errors import UserError
from picking.runs import distributed
from picking.seeds import stream
from picking.stores.segmentation import SegmentationStore


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


def query(
    config: ActiveConfig,
    run: Path,
    k: int,
    network: nn.Module,
    store: SegmentationStore,
    labelled: np.ndarray,
    n_new: int,
    device: torch.device,
    board: SummaryWriter | None,
) -> float:
    """Choose the images that iteration k + 1 adds and write its labelled set.

    Of several processes all score, and all choose from the same scores; what the first writes is
    what counts.

    run: its folder. k: the iteration. network: its best, on ``device``. store: the pool. labelled:
    int64 (n,), positions in it of what the network was trained on. n_new: how many are added.
    board: TensorBoard's writer, None but in the first process. Returns the seconds that the choice
    took: scoring only what the strategy looks at.
    """
    settings, training = config.active_learning, config.training
    name = strategies.strategy_name(settings.strategy)
    strategy = strategies.strategy(name)
    unlabeled = np.setdiff1d(np.arange(len(store)), labelled)

    def scored(rows: np.ndarray) -> PoolScores:
        scores = score_pool(
            network, store.images, rows, device,
            batch_size=training.eval_batch_size,
            precision=training.precision,
            extras=strategy.extras if rows is unlabeled else frozenset(),
        )  # fmt: skip
        if "general" not in strategy.extras:
            return scores
        return dataclasses.replace(scores, general=general_features(store, device)[rows])

    pool = strategies.Pool(
        rows=unlabeled,
        labelled_rows=labelled,
        score=scored,
        labelled_particles=store.n_particles[labelled],
        strata=[store.ids[i] for i in unlabeled],
        progress=k / max(1, settings.iterations - 2),  # the last iteration queries nothing
    )
    started = time.monotonic()
    rng = query_rng(training.seed, name, k)
    chosen, scores = strategy.select(pool, n_new, rng)
    seconds = time.monotonic() - started

    new = unlabeled[chosen]
    everything = np.concatenate([labelled, new])
    if distributed.is_first():
        write_labelled(run, k + 1, store, everything, new, scores[chosen])
    shared = {}
    if settings.compare_queries:
        others = [other for other in strategies.STRATEGIES if other != name]
        shared = overlaps(pool, chosen, others, training.seed, k)
    log_query(board, k, name, store, unlabeled, chosen, scores, shared, network, seconds, device)
    return seconds


def query_rng(seed: int, name: str, iteration: int) -> np.random.Generator:
    """Return the generator of one query."""
    return stream(seed, "query", name, iteration)


def overlaps(
    pool: strategies.Pool, chosen: np.ndarray, names: Iterable[str], seed: int, iteration: int
) -> dict[str, float]:
    """Return the fraction of a query that other strategies would have chosen too, by name.

    Each draws what it would draw in this iteration of its own run. Strategies whose extras were not
    computed for this pool are left out.
    """
    fractions = {}
    for name in names:
        select, extras = strategies.strategy(name)
        if all(getattr(pool.candidates, extra) is not None for extra in extras):
            other, _ = select(pool, len(chosen), query_rng(seed, name, iteration))
            fractions[name] = len(np.intersect1d(chosen, other)) / len(chosen)
    return fractions
