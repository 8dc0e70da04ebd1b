"""What an iteration of active learning starts from: new weights, the last ones, another run's."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from picking.active_learning.iterations import STEP_METRICS, folder_of, load_last
from picking.config import ActiveConfig
from picking.errors import UserError
from picking.files import read_json
from picking.runs import distributed
from picking.runs.checkpoints import (
    load_checkpoint,
    load_weights,
    require_size,
    require_weights,
)
from picking.seeds import stream_seed
from picking.training.initial_weights import read_initial_weights
from picking.training.loop import Progress, State, new_optimizer
from picking.training.networks import build_network

logger = logging.getLogger(__name__)

# Ash and Adams 2020: a fraction of what was learned, and some of a new start
SHRINK, PERTURB = 0.4, 0.1
KEY = "active_learning.initial_weights"


def new_network(config: ActiveConfig, *stream_names: str | int) -> nn.Module:
    """Return a new network; its weights follow from the seed and the stream's names."""
    torch.manual_seed(stream_seed(config.training.seed, *stream_names))
    return build_network(config)


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
