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

from picking.config import ActiveConfig
from picking.errors import UserError
from picking.files import read_json, write_json
from picking.micrographs.preparation import PREPARATION
from picking.runs.checkpoints import (
    load_checkpoint,
    load_moments,
    load_weights,
    moments_of,
    reading,
    save_checkpoint,
)
from picking.stores.segmentation import SegmentationStore
from picking.training.loop import Progress, State

FULL = "full"  # the strategy that labels everything at once
# What train_one_epoch adds up over the steps of an epoch
STEP_METRICS = ("loss", "consistency_loss", "mask_rate")


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
