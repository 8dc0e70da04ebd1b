"""A query: a network scores the pool, a strategy chooses, and the next labelled set is written."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from picking.active_learning import iterations, strategies
from picking.active_learning import log as active_reports
from picking.active_learning.pool_scores import PoolScores, score_pool
from picking.config import ActiveConfig
from picking.runs import distributed
from picking.runs.folder import Log
from picking.stores.segmentation import SegmentationStore
from picking.training.scoring import autocast


def query(
    config: ActiveConfig,
    run: Path,
    k: int,
    network: nn.Module,
    store: SegmentationStore,
    labelled: np.ndarray,
    n_new: int,
    device: torch.device,
    log: Log,
    board: Any,
) -> float:
    """Choose the images that iteration k + 1 adds and write its labelled set.

    Of several processes all score, and all choose from the same scores; what the first writes is
    what counts.

    network: the best of iteration k; labelled: int64 (n,), positions in the store of what it was
    trained on. Returns the seconds that the choice took: scoring only what the strategy looks at.
    """
    settings, training = config.active_learning, config.training
    name = strategies.strategy_name(settings.strategy)
    strategy = strategies.strategy(name)
    unlabelled = np.setdiff1d(np.arange(len(store)), labelled)

    def scored(rows: np.ndarray) -> PoolScores:
        return score_pool(
            network, store.images, rows, device,
            batch_size=training.eval_batch_size,
            precision_context=lambda: autocast(training.precision, device),
            extras=strategy.extras if rows is unlabelled else frozenset(),
        )  # fmt: skip

    pool = strategies.Pool(
        rows=unlabelled,
        labelled_rows=labelled,
        score=scored,
        labelled_particles=store.n_particles[labelled],
        strata=[store.ids[i] for i in unlabelled],
    )
    started = time.monotonic()
    rng = strategies.query_rng(training.seed, name, k)
    chosen, scores = strategy.select(pool, n_new, rng)
    seconds = time.monotonic() - started

    new = unlabelled[chosen]
    everything = np.concatenate([labelled, new])
    rank, _ = distributed.place()
    if rank == 0:
        iterations.write_labelled(run, k + 1, store, everything, new, scores[chosen])
    shared = {}
    if settings.compare_queries:
        others = [other for other in strategies.STRATEGIES if other != name]
        shared = strategies.overlaps(pool, chosen, others, training.seed, k)
    if rank == 0:
        active_reports.report_query(
            log, board, k, name, store, unlabelled, chosen, scores, shared, network,
            seconds, device,
        )  # fmt: skip
    return seconds
