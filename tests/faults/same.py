"""What two folders of outputs differ in, and which of a folder's files are not whole."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from picking.runs.checkpoints import load_checkpoint
from tests.fixtures.runs import tensors

logging.getLogger("tensorboard").setLevel(logging.ERROR)  # that it leaves out what is repeated
# What two equal runs may differ in: logs, and what says when, how long and by which process
LEFT_OUT = re.compile(r"\.lock|console|training\.log|events\.out\..*")
UNLIKE = {"command", "started", "finished", "train_seconds", "query_seconds"}


def files_in(folder: Path) -> dict[str, Path]:
    """Return the files that count, by path within the folder."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): p for p in found if not LEFT_OUT.fullmatch(p.name)}


def differences(one: Path, other: Path) -> list[str]:
    """Return the names of the files that differ, or that only one folder has."""
    ours, theirs = files_in(one), files_in(other)
    shared = ours.keys() & theirs.keys()
    differing = [name for name in shared if not same_file(ours[name], theirs[name])]
    return sorted([*differing, *(ours.keys() ^ theirs.keys())])


def same_file(one: Path, other: Path) -> bool:
    """Compare weights and numbers exactly, without times; all other files byte for byte."""
    if one.suffix == ".pt":
        ours, theirs = (untimed(tensors(load_checkpoint(path))) for path in (one, other))
        return ours.keys() == theirs.keys() and all(
            torch.equal(value, theirs[name])
            if isinstance(value, torch.Tensor)
            else value == theirs[name]
            for name, value in ours.items()
        )
    if one.suffix == ".json" and one.read_bytes() != other.read_bytes():
        ours, theirs = (untimed(json.loads(path.read_text())) for path in (one, other))
        return ours == theirs
    return one.read_bytes() == other.read_bytes()


def untimed(content: dict[str, Any]) -> dict[str, Any]:
    """Leave times out; names may be dotted, as of the parts of a checkpoint."""
    return {key: value for key, value in content.items() if key.split(".")[-1] not in UNLIKE}


def not_whole(folder: Path, finished: bool) -> list[str]:
    """Return the files that cannot be read to their end; once ``finished``, temporary ones too.

    Until its metadata.json is there a patch or segmentation store may hold anything.
    """
    found = []
    for name, path in files_in(folder).items():
        if path.name.startswith("."):
            if finished:
                found.append(name)
            continue
        in_store = path.suffix in (".npy", ".npz") and path.parent.name != "scored"
        if in_store and not (path.parents[1] / "metadata.json").exists():
            continue
        try:
            read_whole(path, finished)
        except Exception as error:  # whatever a reader says of a file that is not whole
            found.append(f"{name} ({type(error).__name__})")
    return found


def read_whole(path: Path, finished: bool) -> None:
    """Read a file to its end; raises when it is torn or not what its name says."""
    if path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".jsonl":  # behind the lines that count a killed run may leave a torn one
        lines = path.read_text().split("\n")
        for line in lines[:-1]:
            json.loads(line)
        assert not (finished and lines[-1])
    elif path.suffix == ".pt":
        load_checkpoint(path)
    elif path.suffix == ".npy":
        np.load(path)
    elif path.suffix == ".npz":
        with np.load(path) as arrays:
            for array in arrays.values():
                assert array.shape is not None
    elif path.suffix == ".png":
        Image.open(path).load()
    elif path.suffix == ".yaml":
        assert yaml.safe_load(path.read_text())
    else:
        assert path.read_text().endswith("\n")


def curves(folder: Path) -> dict[str, list[int]]:
    """Return the epochs at which TensorBoard shows a validation figure, by run and curve."""
    found = {}
    for run in sorted({path.parent for path in folder.rglob("events.out.*")}):
        events = EventAccumulator(str(run)).Reload()
        for tag in ("Val/AUC", "Val/F1", "Loss/Train"):
            if tag in events.Tags()["scalars"]:
                found[f"{run.name} {tag}"] = [scalar.step for scalar in events.Scalars(tag)]
    return found
