"""What a checkpoint must hold before it is used: a file may be damaged, or of another project.

`runs.load_checkpoint` sees to it that nothing in the file runs; here it is that nothing in it ends
in a traceback, or takes memory that the file itself does not.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from picking.config import config_from_dict
from picking.errors import UserError
from picking.files import is_number

T = TypeVar("T")
MOST_WEIGHTS = 1_000_000_000  # of a network: 4 GB, a hundred times those of our largest


def require(checkpoint: dict[str, Any], path: Path, **kinds: type) -> None:
    """Raise `UserError` unless the checkpoint holds values of these types under these names."""
    for key, kind in kinds.items():
        if not isinstance(checkpoint.get(key), kind):
            raise damaged(path, f"'{key}' is missing or of another type")


def damaged(path: Path, problem: str) -> UserError:
    """Return the error that a checkpoint is damaged."""
    return UserError(
        f"checkpoint {path} is damaged ({problem}): use another, or train again under another name"
    )


def require_weights(network: nn.Module, weights: Any, path: Path) -> None:
    """Raise `UserError` unless a state dict has the names, shapes and types of the network's."""
    own = network.state_dict()
    alike = isinstance(weights, dict) and weights.keys() == own.keys()
    for key in own if alike else ():
        value = weights[key]
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
            raise damaged(path, f"the weights '{key}' are no tensor")
        alike &= value.shape == own[key].shape
        alike &= value.dtype.is_floating_point == own[key].dtype.is_floating_point
        alike &= not value.dtype.is_complex
    if not alike:
        raise UserError(
            f"checkpoint {path} is of another architecture than the config's `model` asks "
            "for: use the config it was trained with"
        )


def restored(
    build: Callable[[], nn.Module], weights: Any, path: Path, device: torch.device
) -> nn.Module:
    """Return the network that ``build`` makes, on a device and with these weights.

    It is made without memory first, since a config may ask for any size and the weights do not.
    """
    with torch.device("meta"):
        require_weights(build(), weights, path)
    network = build().to(device)
    network.load_state_dict(weights)
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
    """Return what AdamW remembers of each weight, for `load_optimizer`; nothing of its settings."""
    return {"state": optimizer.state_dict()["state"]}


def load_optimizer(optimizer: torch.optim.Optimizer, saved: Any, path: Path) -> None:
    """Load what AdamW remembers of each weight; settings stay the config's, the rate the step's.

    Raises `UserError` when it does not fit the optimiser's weights.
    """
    own = optimizer.state_dict()
    state = saved.get("state") if isinstance(saved, dict) else None
    weights = [one for group in optimizer.param_groups for one in group["params"]]
    if not isinstance(state, dict) or not set(state) <= set(range(len(weights))):
        raise damaged(path, "the optimiser's state is not of this network")
    for i, of_one in state.items():
        shapes = {"step": (), "exp_avg": weights[i].shape, "exp_avg_sq": weights[i].shape}
        if not isinstance(of_one, dict) or of_one.keys() != shapes.keys():
            raise damaged(path, "the optimiser's state is not AdamW's")
        for key, shape in shapes.items():
            value = of_one[key]
            if (
                not isinstance(value, Tensor)
                or value.shape != shape
                or not value.is_floating_point()
            ):
                raise damaged(path, f"the optimiser's '{key}' has another shape or type")
    optimizer.load_state_dict({"state": state, "param_groups": own["param_groups"]})


def load_tensor(target: Tensor, saved: Any, path: Path) -> None:
    """Copy a tensor of the same shape and of finite numbers; raises `UserError` for any other."""
    alike = isinstance(saved, Tensor) and saved.shape == target.shape and saved.is_floating_point()
    if not alike or not torch.isfinite(saved).all():
        raise damaged(path, "its running sums are of another shape or not finite")
    target.copy_(saved)


def as_dataclass(schema: type[T], saved: Any, path: Path) -> T:
    """Return a dataclass that was saved by `dataclasses.asdict`; each field must be there."""
    names = {field.name for field in dataclasses.fields(schema)}  # type: ignore[arg-type]
    if not isinstance(saved, dict) or saved.keys() != names:
        raise damaged(path, f"{schema.__name__.lower()} is incomplete")
    return config_from_dict(saved, f"checkpoint {path}", schema)


def require_figures(figures: Any, names: tuple[str, ...], path: Path) -> None:
    """Raise `UserError` unless there is a number or None under each of ``names``, and no other."""
    if not isinstance(figures, dict) or figures.keys() != set(names):
        raise damaged(path, "its figures of validation are incomplete")
    if not all(value is None or is_number(value) for value in figures.values()):
        raise damaged(path, "its figures of validation are no numbers")
