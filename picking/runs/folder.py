"""Run folders: configuration, log, checkpoints, resume and devices.

A run's folder holds config.yaml, run.json, training.log, metrics.jsonl and TensorBoard event files;
PU learning adds checkpoints/{last,best_model}.pt and, at the end, results.json, active learning
last.pt and a folder for each iteration.

Random numbers have no state to save: every draw follows from the seed and the step (see
picking/seeds.py). So a checkpoint is the networks, the optimiser and the position.
"""

import importlib.metadata
import io
import json
import os
import pickle
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from picking.config import ActiveOptimizerConfig, OptimizerConfig, differing_keys, read_yaml
from picking.errors import PRINTS, UserError
from picking.files import (
    DAMAGED_ARRAY,
    naming,
    read_json,
    read_json_lines,
    remove_half_written,
    require_stored,
    write_atomically,
    write_json,
)
from picking.runs import checkpoints

Log = Callable[[str], None]


def select_device(name: str) -> torch.device:
    """Return the device called ``name``: cpu, cuda, cuda:N, or auto for the best there is.

    Raises `UserError` listing the devices that are there; never falls back to another one. Under
    torchrun, cuda and auto mean the GPU of this process, and no two share one.
    """
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    n_processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if name.startswith("cuda:") and n_processes > 1:
        raise UserError(f"--device {name} is one GPU for {n_processes} processes: give cuda")
    if name == "auto":
        name = "cuda" if n_gpus else "cpu"
    if name == "cuda" and n_gpus:
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    there = [*(f"cuda:{i}" for i in range(n_gpus)), "cpu"]
    if name not in there:
        raise UserError(f"--device {name} is not there; there are: {', '.join(there)}, auto")
    if name.startswith("cuda"):
        torch.cuda.set_device(name)
    return torch.device(name)


def use_deterministic_kernels() -> None:
    """Have GPU kernels add in one order; call before the GPU is used. CPU kernels do anyway.

    Torch raises where a kernel has no such order; of those in use here all have one.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def new_optimizer(
    network: torch.nn.Module, settings: OptimizerConfig | ActiveOptimizerConfig
) -> torch.optim.Optimizer:
    """Return AdamW over all weights of a network."""
    return torch.optim.AdamW(
        network.parameters(),
        settings.lr,
        weight_decay=settings.weight_decay,
        fused=True,  # one pass over the weights, on CPU and GPU: the rest costs 5% of a step
    )


def open_run(
    folder: Path, config: dict, input_hash: str, device: torch.device, resume: bool
) -> None:
    """Begin a run in ``folder`` or check that it can be resumed there; call while locked.

    Raises `UserError` when the folder holds a run and ``resume`` is off, or when the config or the
    data differ from those it was begun with.
    """
    config_path = folder / "config.yaml"
    if config_path.exists():
        if not resume:
            raise UserError(
                f"{folder} holds a run already: continue it with --resume, or choose another "
                "name (--exp-name, --run-name)"
            )
        began = read_json(folder / "run.json")
        if not isinstance(began, dict) or not isinstance(began.get("input_hash"), str):
            raise UserError(
                f"{folder / 'run.json'} is damaged (no input_hash): choose another name for a new "
                "run (--exp-name, --run-name)"
            )
        differing = differing_keys(read_yaml(config_path), config)
        if differing:
            raise UserError(
                f"{folder} was begun with another config; different now: {', '.join(differing)}: "
                "resume with the same config, or choose another name (--exp-name, --run-name)"
            )
        if began["input_hash"] != input_hash:
            raise UserError(
                f"{folder} was begun on other data (content hash "
                f"{began['input_hash'][:12]}, now {input_hash[:12]}): resume with the same data"
            )
        remove_half_written(folder, *folder.glob("*/"))
        return
    folder.mkdir(parents=True, exist_ok=True)
    remove_half_written(folder)
    write_json(
        folder / "run.json",
        {
            **environment(),
            "device": str(device),
            "seed": config["training"]["seed"],
            "input_hash": input_hash,
            "started": now(),
        },
    )
    # Written last: its presence says that the folder holds a run.
    write_atomically(config_path, yaml.safe_dump(config, sort_keys=False))


def environment() -> dict:
    """Return the command line, the git commit, the versions and the machine's processor."""
    try:
        here = Path(__file__).parent
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=here, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        commit = None
    return {
        "command": sys.argv,
        "git_commit": commit,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": importlib.metadata.version("torchvision"),
            "numpy": importlib.metadata.version("numpy"),
        },
        "cpu_count": os.cpu_count(),
    }


def now() -> str:
    """Return the local time with its zone, as ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def open_log(path: Path | None) -> Log:
    """Return a function that writes a line to the console and, at once, to the log file.

    None as path gives a function that is silent, for all processes but the first.
    """
    if path is None:
        return lambda line: None
    file = path.open("a", buffering=1, encoding="utf-8", errors=PRINTS)

    def log(line: str) -> None:
        print(line, flush=True)
        with naming(path):
            file.write(line + "\n")

    return log


def read_metrics(path: Path, n_epochs: int) -> list[dict]:
    """Return the first ``n_epochs`` of metrics.jsonl; what a killed run left behind them is not."""
    history = read_json_lines(path, n_epochs) if path.exists() else []
    if len(history) < n_epochs:
        raise UserError(
            f"{path} has only {len(history)} of the {n_epochs} epochs that are done: copy it "
            "again, or start anew under another name"
        )
    return history


def keep_metrics(path: Path, n_epochs: int) -> list[dict]:
    """Cut from metrics.jsonl what a killed run left behind its ``n_epochs``; return those."""
    history = read_metrics(path, n_epochs)
    write_atomically(path, "".join(json.dumps(m, allow_nan=False) + "\n" for m in history))
    return history


def add_metrics(path: Path, figures: dict) -> None:
    """Add an epoch's line to metrics.jsonl; it is on disk before the checkpoint that counts it.

    A line torn by a kill or a full disk stands behind those counted, where `keep_metrics` cuts.
    """
    line = json.dumps(figures, allow_nan=False) + "\n"
    with naming(path), path.open("a") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Save a checkpoint so that a killed process never leaves half of one."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def all_finite(*values: torch.Tensor) -> bool:
    """Return whether these are worth saving: after a step that was not finite they are not."""
    return all(bool(torch.isfinite(value).all()) for value in values)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Load a checkpoint of ours, data only: a pickle that holds code is refused.

    Raises `UserError` when it is missing, damaged, or something else.
    """
    if not path.exists():
        raise UserError(f"checkpoint {path} is not there: check the path")
    unreadable = f"checkpoint {path} cannot be read: copy it again or use another"
    try:
        require_stored(path)  # a zip archive, as torch.save writes it
        state = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"checkpoint {path} holds more than data and is refused: use one that this project "
            "wrote"
        ) from error
    except (*DAMAGED_ARRAY, IndexError, AttributeError, AssertionError) as error:
        raise UserError(unreadable) from error
    if not isinstance(state, dict) or not isinstance(state.get("kind"), str):
        raise UserError(f"checkpoint {path} is not one of this project: use best_model.pt of a run")
    return state


def load_weights(network: torch.nn.Module, weights: Any, path: Path) -> None:
    """Load a state dict; raises `UserError` when it belongs to another architecture."""
    checkpoints.require_weights(network, weights, path)
    network.load_state_dict(weights)
