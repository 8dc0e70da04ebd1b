"""What an active-learning run leaves behind: a folder for each iteration, and where it stands.

`iteration_k/labeled_indices.json` is the set that iteration k trains on, by micrograph name, so
that it outlives the order of a store; `best_model.pt` its best weights; `metrics.json`, written
last of all, says that the iteration is complete and its query is made. `last.pt` beside them holds
the iteration under way.
"""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import nn

from picking.config import ActiveConfig, number
from picking.errors import UserError
from picking.files import read_json, write_json
from picking.runs import checkpoints
from picking.runs import folder as runs
from picking.stores.segmentation import SegmentationStore

FULL = "full"  # the strategy that labels everything at once


@dataclasses.dataclass
class Progress:
    """Where a run stands; saved in last.pt."""

    iteration: int = number(0, 0)
    epoch: int = number(0, 0)  # epochs finished of this iteration
    batch: int = number(0, 0)  # batches done of the epoch under way
    loss: float = number(0.0, 0)  # summed over them, as the two below
    consistency_loss: float = number(0.0, 0)
    mask_rate: float = number(0.0, 0)
    step: int = number(0, 0)  # optimiser steps so far, over all iterations
    best: tuple[float, float] = (-1.0, -1.0)  # validation F1 and AP of this iteration's best
    best_epoch: int = number(0, 0)
    train_seconds: float = number(0.0, 0)  # of this iteration


# What train_one_epoch adds up over the steps of an epoch; fields of `Progress`
STEP_FIGURES = ("loss", "consistency_loss", "mask_rate")


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


def save_last(
    run: Path, progress: Progress, network: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Write last.pt: all that is needed to go on amid an iteration."""
    runs.save_checkpoint(
        run / "last.pt",
        {
            "kind": "active_run",
            "network": network.state_dict(),
            "optimizer": checkpoints.moments_of(optimizer),
            "progress": dataclasses.asdict(progress),
        },
    )


def save_best(
    run: Path,
    progress: Progress,
    config: dict,
    store: SegmentationStore,
    network: nn.Module,
    val: dict,
) -> None:
    """Write an iteration's best_model.pt: the weights and all that is needed to use them.

    store: one of those that it learns from; val: its figures on validation.
    """
    runs.save_checkpoint(
        folder_of(run, progress.iteration) / "best_model.pt",
        {
            "kind": "segmentation",
            "config": config,
            "input": {
                "side_px": store.size_px,
                "tiles": store.tiles,
                "resize": store.resize,
                "disk": store.disk,
            },
            "network": network.state_dict(),
            "threshold": val["best_f1_threshold"],
            "iteration": progress.iteration,
            "epoch": progress.epoch,
            "step": progress.step,
            "val": val,
        },
    )


def load_last(
    run: Path,
    iteration: int,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> Progress | None:
    """Load last.pt if it is of this iteration; return where it stands, None when it is not."""
    path = run / "last.pt"
    if not path.exists():
        return None
    last = runs.load_checkpoint(path, device)
    if last["kind"] != "active_run":
        raise UserError(f"{path} is not the state of an active-learning run: delete it")
    progress = checkpoints.as_dataclass(Progress, last.get("progress"), path)
    if progress.iteration != iteration:
        return None
    runs.load_weights(network, last.get("network"), path)
    checkpoints.load_optimizer(optimizer, last.get("optimizer"), path)
    return progress
