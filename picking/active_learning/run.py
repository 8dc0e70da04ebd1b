"""A run of active learning: train, evaluate, query, iteration by iteration."""

import argparse
import contextlib
import dataclasses
import json
import logging
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from picking.active_learning import log, strategies
from picking.active_learning.iterations import (
    FULL,
    KEY,
    begin_iteration,
    folder_of,
    is_complete,
    read_labelled,
    read_names,
    run_name,
    write_labelled,
)
from picking.active_learning.pool_scores import require_diameters
from picking.active_learning.queries import initial_set, query, schedule
from picking.active_learning.train import train
from picking.config import ActiveConfig, plain, read_config
from picking.errors import UserError
from picking.files import locked, read_json, sha256, sha256_of_file, write_json
from picking.parallel import keep_freed_memory, reading_workers
from picking.runs import distributed
from picking.runs.checkpoints import SHIPPED, load_checkpoint, load_weights
from picking.runs.devices import use_deterministic_kernels
from picking.runs.folder import open_run
from picking.runs.log import open_log
from picking.runs.tensorboard import open_board
from picking.stores.segmentation import Splits, open_splits
from picking.training.initial_weights import require_initial_weights
from picking.training.loop import State
from picking.training.scoring import evaluate_pixels

logger = logging.getLogger(__name__)

# flag -> the config's key that it sets
FLAGS = {
    "strategy": "active_learning.strategy",
    "model": "model.name",
    "batch_size": "training.batch_size",
    "epochs": "training.epochs",
    "learning_rate": "optimizer.lr",
    "iterations": "active_learning.iterations",
    "initial_fraction": "active_learning.initial_fraction",
    "query_fraction": "active_learning.query_fraction",
    "target_f1": "active_learning.target_f1",
    "seed": "training.seed",
    "train_data_dir": "data.train_dir",
    "val_data_dir": "data.val_dir",
    "test_data_dir": "data.test_dir",
}


def run(args: argparse.Namespace) -> None:
    """Train, evaluate and query as the command line of train_active_learning_fixed.py says."""
    device, rank, world_size = distributed.start(args.device)
    if device.type == "cpu":
        keep_freed_memory()

    # 1. Config and data
    config, not_used = resolve_config(args)
    if config.training.deterministic:
        use_deterministic_kernels()
    settings = config.active_learning
    name = args.run_name or run_name(config)
    if Path(name).name != name or name in ("", ".."):
        raise UserError(f"--run-name '{name}' must be the name of a folder, not a path")
    folder = args.output_dir / name
    splits = open_splits(config.data, config.model.depth)
    require_batch_size(config, splits.train.size_px, world_size)
    n_pool, fraction, given = len(splits.train), settings.initial_fraction, None
    if settings.initial_labelled is not None:
        given = read_names(
            Path(settings.initial_labelled), splits.train,
            "active_learning.initial_labelled wants a labeled_indices.json, with a list 'names'",
            "give active_learning.initial_labelled of the same data",
        )  # fmt: skip
        fraction = len(given) / n_pool
    counts = schedule(n_pool, fraction, settings.query_fraction, settings.iterations)
    if settings.initial_weights is not None and not is_complete(folder, 0):
        # What does not fit is refused before there is a folder
        require_initial_weights(settings.initial_weights, config, KEY)
    strategy = None if settings.strategy == FULL else strategies.strategy(settings.strategy)
    by_general = strategy is not None and "general" in strategy.extras
    if by_general:
        require_diameters(splits.train)

    with contextlib.ExitStack() as stack:
        # 2. Run folder; only the first process writes
        hashes = [store.content_hash for store in splits if store]
        distributed.require_same((config, hashes, args.resume), "configuration or data")
        if rank == 0:
            stack.enter_context(locked(folder))
            open_run(folder, plain(config), sha256(*hashes), device, args.resume)
            write_json(folder / "config.json", plain(config))
            if by_general:
                require_same_general(folder)
        distributed.wait_for_all()
        left = [k for k in range(len(counts)) if not is_complete(folder, k)]
        if rank == 0:
            stack.enter_context(open_log(folder / "training.log" if left else None))
        if not left:
            logger.info(f"This run is finished: nothing to do in {folder}")
            return
        log.log_start(config, splits, counts, device)
        if not_used:
            logger.warning(
                "WARNING: --strategy full trains once, on everything, and does not use "
                f"{', '.join(not_used)}; training.epochs (--epochs) says how long it trains"
            )
        if rank == left[0] == 0 and not (folder_of(folder, 0) / "labeled_indices.json").exists():
            drawn = initial_set(n_pool, counts[0], config.training.seed)
            first = drawn if given is None else given
            write_labelled(folder, 0, splits.train, first, first, None)

        # 3. Iterations
        board = None
        for k in left:
            distributed.wait_for_all()  # for what the first process wrote for it
            state = begin_iteration(config, folder, k, device)
            if k == left[0]:
                n_done = k * config.training.epochs + state.progress.epoch
                board = stack.enter_context(open_board(folder, n_done))
            run_iteration(config, folder, k, state, counts, splits, args.num_workers, board)
        logger.info(
            f"Finished {folder}; compare runs with: python analyze_active_learning_results.py"
        )


def require_same_general(folder: Path) -> None:
    """Raise `UserError` when a run was begun with another general network than is shipped now."""
    path, checksum = folder / "general_network.json", sha256_of_file(SHIPPED)
    if not path.exists():
        write_json(path, {"checksum": checksum})
    if read_json(path).get("checksum") != checksum:
        raise UserError(
            f"{folder} was begun with another general network than models/general.pt is now: "
            "choose another --run-name"
        )


def resolve_config(args: argparse.Namespace) -> tuple[ActiveConfig, list[str]]:
    """Return the config (the file, then --set, then the flags) and which overrides are not used."""
    given = {key: getattr(args, flag) for flag, key in FLAGS.items()}
    overrides = [*args.set]
    overrides += [f"{key}={json.dumps(v)}" for key, v in given.items() if v is not None]
    if args.no_warmstart or args.shrink_perturb:
        start = "scratch" if args.no_warmstart else "shrink_perturb"
        overrides.append(f"active_learning.start={start}")
    config = read_config(args.config, overrides, ActiveConfig)
    if config.active_learning.strategy == FULL:
        return all_at_once(config, {override.partition("=")[0] for override in overrides})
    strategies.strategy(config.active_learning.strategy)  # raises for one that is not known
    return config, []


def all_at_once(config: ActiveConfig, overridden: set[str]) -> tuple[ActiveConfig, list[str]]:
    """Return the config of --strategy full, one iteration with all images labelled.

    overridden: keys that the command line sets; it trains for training.epochs if that is one of
    them, else for active_learning.full_epochs. Returns also those of them that are not used.
    """
    settings, n_epochs = config.active_learning, config.active_learning.full_epochs
    useless = {"iterations", "initial_fraction", "initial_labelled", "query_fraction"}
    if "training.epochs" in overridden:
        useless, n_epochs = useless | {"full_epochs"}, config.training.epochs
    once = dataclasses.replace(settings, iterations=1, initial_fraction=1.0, initial_labelled=None)
    training = dataclasses.replace(config.training, epochs=n_epochs)
    not_used = sorted(overridden & {f"active_learning.{key}" for key in useless})
    return dataclasses.replace(config, active_learning=once, training=training), not_used


def require_batch_size(config: ActiveConfig, side_px: int, world_size: int) -> None:
    """Raise `UserError` when processes cannot share a batch, or batch norm sees a single value."""
    n_each = distributed.share_of_batch(config.training.batch_size)
    if n_each == 1 and side_px == 2**config.model.depth:
        raise UserError(
            f"training.batch_size {world_size} leaves batch norm a single value a channel where "
            f"the network is narrowest (images of {side_px} px, model.depth "
            f"{config.model.depth}): choose {2 * world_size} or more, or another depth"
        )


def run_iteration(
    config: ActiveConfig,
    folder: Path,
    k: int,
    state: State,
    counts: list[int],
    splits: Splits,
    n_workers: int,
    board: SummaryWriter | None,
) -> None:
    """Train on what is labelled, evaluate the best weights, and query what is labelled next.

    folder: of the run. k: the iteration, from 0. state: where it stands. counts: images labelled in
    each iteration. splits: the pool and what is held out. n_workers: processes that read; 0: none.
    board: TensorBoard's writer, None but in the first process.
    """
    device, network, store = state.totals.device, state.network, splits.train
    labelled = read_labelled(folder, k, store)
    log.log_iteration_start(k, counts, labelled, store, state.progress)
    with reading_workers():
        train(config, folder, state, splits, labelled, n_workers, board)
    distributed.wait_for_all()

    best_path = folder_of(folder, k) / "best_model.pt"
    best = load_checkpoint(best_path, device)
    load_weights(network, best.get("network"), best_path)
    test = splits.test
    metrics = {
        "iteration": k,
        **best["val"],
        "threshold": 0.5,  # of f1_score, precision, recall and iou
        "best_epoch": best["epoch"],
        "num_labeled": len(labelled),
        "num_pool": len(store),
        "data_fraction": len(labelled) / len(store),
        "num_micrographs_labeled": len({store.micrographs[i] for i in labelled}),
        "num_particles_labeled": int(store.n_particles[labelled].sum()),
        "num_particles_pool": int(store.n_particles.sum()),
        "optimizer_steps": state.progress.step,
        "train_seconds": state.progress.train_seconds,
        "val_images": len(splits.val),
        "test_images": len(test) if test else None,
        "test": evaluate_pixels(network, test, config.training, device) if test else None,
        "query_seconds": None,
    }
    if k + 1 < len(counts):
        n_new = counts[k + 1] - counts[k]
        metrics["query_seconds"] = query(
            config, folder, k, network, store, labelled, n_new, device, board
        )
    if distributed.is_first():
        write_json(folder_of(folder, k) / "metrics.json", metrics)  # last: it says "complete"
    log.log_iteration_end(board, metrics)
