"""Run folders: configuration, what the run was begun with, metrics.

A run's folder holds config.yaml, run.json, training.log, metrics.jsonl and TensorBoard event files.
PU learning adds checkpoints/{last,best_model}.pt and, at the end, results.json; active learning
adds config.json, last.pt and a folder for each iteration.

Random numbers have no state to save: every draw follows from the seed and the step (see
picking/seeds.py). So a checkpoint is the networks, the optimiser and the position.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch
import yaml

from picking.config import differing_keys, read_yaml
from picking.errors import UserError
from picking.files import (
    naming,
    read_json,
    read_json_lines,
    remove_half_written,
    write_atomically,
    write_json,
)
from picking.runs import distributed

# Where data lie; whether they are the same data their content hash says
PLACES = {"data.dir", "data.train_dir", "data.val_dir", "data.test_dir"}


def open_run(
    folder: Path, config: dict, input_hash: str, device: torch.device, resume: bool
) -> None:
    """Begin a run in ``folder`` or check that it can be resumed there; call while locked.

    Raises `UserError` when the folder holds a run and ``resume`` is off, or when the config or the
    data differ from those it was begun with. The same data may lie elsewhere now.
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
        differing = [k for k in differing_keys(read_yaml(config_path), config) if k not in PLACES]
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


def read_metrics(path: Path, n_epochs: int) -> list[dict]:
    """Return the first ``n_epochs`` of metrics.jsonl; later lines, of a killed run, are ignored."""
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
    if distributed.is_first():
        write_atomically(path, "".join(json.dumps(m, allow_nan=False) + "\n" for m in history))
    return history


def add_metrics(path: Path, metrics: dict) -> None:
    """Add an epoch's line to metrics.jsonl; it is on disk before the checkpoint that counts it.

    A line torn by a kill or a full disk stands behind those counted, where `keep_metrics` cuts.
    Of several processes only the first adds it.
    """
    if not distributed.is_first():
        return
    line = json.dumps(metrics, allow_nan=False) + "\n"
    with naming(path), path.open("a") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
