"""Checkpoints: files of weights that are whole or not there, and what is restored from them."""

import contextlib
import io
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from picking.errors import UserError
from picking.files import DAMAGED_ARRAY, require_stored, write_atomically
from picking.runs import distributed

DAMAGED = (*DAMAGED_ARRAY, IndexError, AttributeError, AssertionError)
# The network that comes with the project, and the name that stands for it; see models/GENERAL.md
GENERAL, SHIPPED = "general", Path(__file__).parents[2] / "models" / "general.pt"
MOST_WEIGHTS = 1_000_000_000  # of a network: 4 GB, a hundred times those of our largest


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Save a checkpoint, whole or not at all; of several processes only the first does."""
    if not distributed.is_first():
        return
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def named_checkpoint(name: str) -> Path:
    """Return where a checkpoint is: a path, or `GENERAL` for the network that is shipped."""
    return SHIPPED if name == GENERAL else Path(name)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Load a checkpoint of ours, data only: a pickle that holds code is refused.

    Raises `UserError` when it is missing, damaged, or something else. Its checksums are those of
    the zip archive that torch writes; torch itself does not look at them.
    """
    if not path.exists():
        raise UserError(f"checkpoint {path} is not there: check the path")
    if path.is_dir():
        raise UserError(f"checkpoint {path} is a folder: name the best_model.pt in it")
    unreadable = f"checkpoint {path} cannot be read: copy it again or use another"
    try:
        require_stored(path)
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise UserError(unreadable)
        state = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"checkpoint {path} holds more than data and is refused: use one that this project "
            "wrote"
        ) from error
    except DAMAGED as error:
        raise UserError(unreadable) from error
    if not isinstance(state, dict) or not isinstance(state.get("kind"), str):
        raise UserError(f"checkpoint {path} is not one of this project: use best_model.pt of a run")
    return state


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise `UserError` where a checkpoint does not hold what is read from it."""
    try:
        yield
    except DAMAGED as error:
        raise damaged(path, "or of another version: it does not hold what it should") from error


def damaged(path: Path, problem: str) -> UserError:
    """Return the error that a checkpoint is damaged."""
    return UserError(
        f"checkpoint {path} is damaged ({problem}): use another, or train again under another name"
    )


def all_finite(*values: Tensor) -> bool:
    """Return whether these are worth saving: after a step that was not finite they are not."""
    return all(bool(torch.isfinite(value).all()) for value in values)


def require_weights(network: nn.Module, weights: Any, path: Path) -> None:
    """Raise `UserError` unless a state dict has the names and shapes of the network's."""
    with reading(path):
        shapes = {key: value.shape for key, value in weights.items()}
    if shapes != {key: value.shape for key, value in network.state_dict().items()}:
        raise UserError(
            f"checkpoint {path} is of another architecture than the config's `model` asks "
            "for: use the config it was trained with"
        )


def load_weights(network: nn.Module, weights: Any, path: Path) -> None:
    """Load a state dict; raises `UserError` when it belongs to another architecture."""
    require_weights(network, weights, path)
    with reading(path):
        network.load_state_dict(weights)


def restored(
    build: Callable[[], nn.Module], weights: Any, path: Path, device: torch.device
) -> nn.Module:
    """Return a network on the device with these weights; raises `UserError` if they do not fit.

    It is made without memory first, since a config may ask for any size and the weights do not.
    """
    with torch.device("meta"):
        require_weights(build(), weights, path)
    network = build().to(device)
    load_weights(network, weights, path)
    return network


def require_size(build: Callable[[], nn.Module]) -> None:
    """Raise `UserError` when the network that ``build`` makes is larger than any memory."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        n_weights = sum(weights.numel() for weights in build().parameters())
    if n_weights > MOST_WEIGHTS:
        raise UserError(
            f"the network would have {n_weights:,} weights, more than {MOST_WEIGHTS:,}: lower "
            "model.width or model.depth"
        )


def moments_of(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return what AdamW remembers of each weight, for `load_moments`; nothing of its settings."""
    return {"state": optimizer.state_dict()["state"]}


def load_moments(optimizer: torch.optim.Optimizer, saved: Any, path: Path) -> None:
    """Load what AdamW remembers of each weight; settings stay the config's, the rate the step's."""
    with reading(path):
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})
