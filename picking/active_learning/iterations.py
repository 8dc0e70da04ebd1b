"""An iteration of active learning: its folder, where it stands, and what it starts from.

`iteration_k/labeled_indices.json` is the set that iteration k trains on, by micrograph name, so
that it outlives the order of a store; `best_model.pt` its best weights; `metrics.json`, written
last of all, says that the iteration is complete and its query is made. `last.pt` beside them holds
the iteration under way.
"""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from picking.config import ActiveConfig
from picking.errors import UserError
from picking.files import read_json, write_json
from picking.micrographs.preparation import PREPARATION
from picking.runs import distributed
from picking.runs.checkpoints import (
    load_checkpoint,
    load_moments,
    load_weights,
    moments_of,
    reading,
    require_size,
    require_weights,
    save_checkpoint,
)
from picking.stores.segmentation import SegmentationStore
from picking.training.initial_weights import read_initial_weights
from picking.training.loop import Progress, State, new_optimizer
from picking.training.networks import build_network, new_network

logger = logging.getLogger(__name__)

FULL = "full"  # the strategy that labels everything at once
# What train_one_epoch adds up over the steps of an epoch
STEP_METRICS = ("loss", "consistency_loss", "mask_rate")
# Ash and Adams 2020: a fraction of what was learned, and some of a new start
SHRINK, PERTURB = 0.4, 0.1
KEY = "active_learning.initial_weights"


def run_name(config: ActiveConfig) -> str:
    """Return the strategy's name and what differs from a default run, e.g. entropy_unet_seed7."""
    default = ActiveConfig()
    settings = config.active_learning
    differs: list[str] = []
    if config.model.name != default.model.name:
        differs.append(config.model.name)
    if settings.start != default.active_learning.start and settings.strategy != FULL:
        differs.append(settings.start)
    if differs or config.training.seed != default.training.seed:
        differs.append(f"seed{config.training.seed}")
    return "_".join([settings.strategy, *differs])


def folder_of(run: Path, iteration: int) -> Path:
    """Return the folder of an iteration of a run."""
    return run / f"iteration_{iteration}"


def is_complete(run: Path, iteration: int) -> bool:
    """Return whether an iteration is trained, evaluated and has made its query."""
    return (folder_of(run, iteration) / "metrics.json").is_file()


def write_labelled(
    run: Path,
    iteration: int,
    store: SegmentationStore,
    labelled: np.ndarray,
    new: np.ndarray,
    scores: np.ndarray | None,
) -> None:
    """Write the set an iteration trains on.

    labelled, new: int64 positions in the store, all of them and those just queried. scores: (n,)
    of ``new``, as the query's model gave them; None where nothing was scored.
    """
    folder = folder_of(run, iteration)
    folder.mkdir(exist_ok=True)
    new_names = [store.names[i] for i in new]
    values = [None] * len(new) if scores is None else [float(score) for score in scores]
    write_json(
        folder / "labeled_indices.json",
        {
            "iteration": iteration,
            "indices": labelled.tolist(),
            "names": [store.names[i] for i in labelled],
            "new_indices": new.tolist(),
            "new_names": new_names,
            "scores": dict(zip(new_names, values, strict=True)),
        },
    )


def read_labelled(run: Path, iteration: int, store: SegmentationStore) -> np.ndarray:
    """Return the positions in the store, int64 (n,), of the set that an iteration trains on.

    Raises `UserError` when the file is damaged or names images that the store does not hold.
    """
    path = folder_of(run, iteration) / "labeled_indices.json"
    return read_names(
        path, store, f"delete {path.parent} and go on with --resume",
        "resume with the data that the run was begun with",
    )  # fmt: skip


def read_names(path: Path, store: SegmentationStore, damaged: str, unknown: str) -> np.ndarray:
    """Return the positions in the store, int64 (n,), of the images in a labeled_indices.json.

    Raises `UserError`, which says what to do: ``damaged`` where the file holds no list of different
    names, ``unknown`` where the store does not hold some.
    """
    content = read_json(path)
    names = content.get("names") if isinstance(content, dict) else None
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not texts or not names or len(set(names)) != len(names):
        raise UserError(f"{path} is damaged: {damaged}")
    position = {name: i for i, name in enumerate(store.names)}
    strangers = [name for name in names if name not in position]
    if strangers:
        raise UserError(
            f"{path} names images that {store.folder} does not hold (e.g. {strangers[0]}): "
            f"{unknown}"
        )
    return np.array([position[name] for name in names], dtype=np.int64)


def save_last(run: Path, state: State) -> None:
    """Write last.pt: all that is needed to go on amid an iteration."""
    save_checkpoint(
        run / "last.pt",
        {
            "kind": "active_run",
            "network": state.network.state_dict(),
            "optimizer": moments_of(state.optimizer),
            "totals": state.totals,
            "progress": dataclasses.asdict(state.progress),
        },
    )


def save_best(
    run: Path,
    state: State,
    config: dict,
    store: SegmentationStore,
    val: dict,
) -> None:
    """Write an iteration's best_model.pt: the weights and all that is needed to use them.

    store: one of those that it learns from; val: its metrics on validation.
    """
    progress = state.progress
    save_checkpoint(
        folder_of(run, progress.iteration) / "best_model.pt",
        {
            "kind": "segmentation",
            "config": config,
            "input": {
                "side_px": store.size_px,
                "tiles": store.tiles,
                "resize": store.resize,
                "disk": store.disk,
                "preparation": PREPARATION,
                "coarseness": store.coarseness,
            },
            "network": state.network.state_dict(),
            "threshold": val["best_f1_threshold"],
            "iteration": progress.iteration,
            "epoch": progress.epoch,
            "step": progress.step,
            "val": val,
        },
    )


def load_last(run: Path, iteration: int, state: State, device: torch.device) -> bool:
    """Load last.pt if it is of this iteration; return whether it is."""
    path = run / "last.pt"
    if not path.exists():
        return False
    last = load_checkpoint(path, device)
    if last["kind"] != "active_run":
        raise UserError(f"{path} is not the state of an active-learning run: delete it")
    with reading(path):
        progress = Progress(**last["progress"])
    if progress.iteration != iteration:
        return False
    load_weights(state.network, last.get("network"), path)
    load_moments(state.optimizer, last.get("optimizer"), path)
    with reading(path):
        state.totals.copy_(last["totals"])
    state.progress = progress
    return True


def begin_iteration(config: ActiveConfig, folder: Path, k: int, device: torch.device) -> State:
    """Return what iteration k starts from, or where it stands: network, optimiser and place."""
    start = config.active_learning.start
    # The first iteration is the same for every strategy and every way to go on
    require_size(lambda: build_network(config))
    network = new_network(config, "init", k if start != "warm" else 0)
    origin = "Initialized new model"
    if k == 0 and (named := config.active_learning.initial_weights) is not None:
        network.load_state_dict(read_initial_weights(named, network, config.model, KEY))
        origin = f"Starting from {named}"
    elif k > 0 and start != "scratch":
        path = folder_of(folder, k - 1) / "best_model.pt"
        weights: Any = load_checkpoint(path).get("network")
        require_weights(network, weights, path)
        origin = f"Warm-starting from previous iteration: {path}"
        if start == "shrink_perturb":
            weights = shrink_perturb(weights, network)
            origin += f" (shrunk to {SHRINK}, plus {PERTURB} of a new model)"
        load_weights(network, weights, path)
    network = distributed.with_shared_statistics(network.to(device), device)
    state = State(
        network=network,
        optimizer=new_optimizer(network, config.optimizer),
        totals=torch.zeros(len(STEP_METRICS), dtype=torch.float64, device=device),
    )
    if load_last(folder, k, state, device):
        amid = f", batch {state.progress.batch}" if state.progress.batch else ""
        logger.info(f"\nResumed iteration {k} after epoch {state.progress.epoch}{amid}")
    else:
        state.progress = Progress(iteration=k, step=steps_before(folder, k))
        logger.info(f"\n{origin}")
    return state


def steps_before(folder: Path, k: int) -> int:
    """Return the optimiser steps of all iterations before k."""
    if k == 0:
        return 0
    path = folder_of(folder, k - 1) / "metrics.json"
    before = read_json(path)
    n_steps = before.get("optimizer_steps") if isinstance(before, dict) else None
    if type(n_steps) is not int or n_steps < 0:
        raise UserError(
            f"{path} is damaged (no optimizer_steps): delete {path.parent} and what comes after "
            "it, and go on with --resume"
        )
    return n_steps


def shrink_perturb(weights: dict, new: nn.Module) -> dict:
    """Return 0.4 θ + 0.1 θ_new of all parameters; batch norm's statistics stay (Ash 2020)."""
    fresh = dict(new.named_parameters())
    return {
        key: SHRINK * value + PERTURB * fresh[key].detach() if key in fresh else value
        for key, value in weights.items()
    }
