"""A query: a network scores the pool, a strategy chooses, and the next labelled set is written."""

import dataclasses
import time
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
from picking.runs import distributed
from picking.stores.segmentation import SegmentationStore


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
        if not strategies.needs_general(name):
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
    rng = strategies.query_rng(training.seed, name, k)
    chosen, scores = strategy.select(pool, n_new, rng)
    seconds = time.monotonic() - started

    new = unlabeled[chosen]
    everything = np.concatenate([labelled, new])
    if distributed.is_first():
        write_labelled(run, k + 1, store, everything, new, scores[chosen])
    shared = {}
    if settings.compare_queries:
        others = [other for other in strategies.STRATEGIES if other != name]
        shared = strategies.overlaps(pool, chosen, others, training.seed, k)
    log_query(board, k, name, store, unlabeled, chosen, scores, shared, network, seconds, device)
    return seconds
