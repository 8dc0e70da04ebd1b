"""Tiny runs of the training script in this process, and what is read from their folders."""

import contextlib
import io
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from torch import nn

import train_pu_fixed_full as script
from picking import networks, runs
from picking.config import PUConfig, read_config
from picking.errors import UserError

CONFIG = """
data: {input_size_px: 32}
loss: {consistency_threshold: 0.55}
optimizer: {lr: 0.01}
training: {batch_size: 10, epochs: 3, bootstrap_samples: 40, checkpoint_every_steps: 2}
"""


class Small(nn.Sequential):
    """A network as small as the patches, with batch norm and dropout; takes no time."""

    def __init__(self, backbone, dropout):
        super().__init__(
            nn.Conv2d(1, 8, 5, stride=2), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 5, stride=2), nn.BatchNorm2d(8), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(8, 1),
            nn.Flatten(0),
        )  # fmt: skip


@contextlib.contextmanager
def tiny_network(network=Small):
    """Let the script use this network, and one thread: small batches are slower on more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(networks, "PUClassifier", network)
            yield
    finally:
        torch.set_num_threads(before)


def call(*argv, network=Small, main=script.main):
    """Run the script in this process; return what it printed."""
    printed = io.StringIO()
    with (
        tiny_network(network),
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(printed),
    ):
        patch.setattr(sys, "argv", ["script", *map(str, argv)])
        main()
    return printed.getvalue()


def arguments(store, experiments, *flags, name="run", overrides=()):
    """The command line of a tiny run."""
    config = experiments / "tiny.yaml"
    experiments.mkdir(parents=True, exist_ok=True)
    config.write_text(CONFIG)
    sets = [part for override in overrides for part in ("--set", override)]
    return [
        "--config", config, "--exp-name", name, "--experiments-dir", experiments,
        "--data-dir", store, "--device", "cpu", "--num-workers", 0, *flags, *sets,
    ]  # fmt: skip


def train(store, experiments, *flags, network=Small, **more):
    """Train a tiny run; return its folder."""
    call(*arguments(store, experiments, *flags, **more), network=network)
    return experiments / more.get("name", "run")


def refused(store, experiments, *flags, **more):
    """Return the message that a run is refused with."""
    with pytest.raises(UserError) as error:
        train(store, experiments, *flags, **more)
    assert "\n" not in str(error.value)
    return str(error.value)


def evaluate(checkpoint, store, output, *flags, network=Small):
    """Evaluate a checkpoint on a store; return what was printed."""
    flags = ["--evaluate", checkpoint, "--data-dir", store, "--output", output, *flags]
    return call(*flags, "--device", "cpu", network=network)


def config_with(tmp_path, *overrides):
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    return read_config(tmp_path / "tiny.yaml", list(overrides), PUConfig)


def copy_of_store(store, tmp_path, *splits):
    """Copy a patch store with these splits only, to change it."""
    for split in splits:
        shutil.copytree(store / split, tmp_path / "store" / split)
    metadata = json.loads((store / "metadata.json").read_text())
    metadata["splits"] = {split: metadata["splits"][split] for split in splits}
    (tmp_path / "store" / "metadata.json").write_text(json.dumps(metadata))
    return tmp_path / "store"


# A U-Net for windows of 32 px, as small as can be
UNET = ("model.backbone=unet", "model.width=2", "model.depth=2", "data.input_size_px=16")


def as_windows(store, tmp_path):
    """Copy a patch store as if its patches were windows about a few picks and of anywhere."""
    folder = copy_of_store(store, tmp_path, "train", "val")
    metadata = json.loads((folder / "metadata.json").read_text())
    metadata["windows"] = {"scale": 1.0, "diameter_px": 20.0, "reach_px": 4.0}
    for split in ("train", "val"):
        windows = np.load(folder / split / "patches.npy")
        with np.load(folder / split / "index.npz") as index:
            labeled = index["labeled"]
        middle, y, x = windows.shape[1] // 2, *np.ogrid[: windows.shape[1], : windows.shape[2]]
        near = (y - middle) ** 2 + (x - middle) ** 2 <= 16
        picked = labeled[:, None, None] & near
        np.save(folder / split / "picked.npy", picked.astype(np.uint8))
    (folder / "metadata.json").write_text(json.dumps(metadata))
    return folder


def leave_one_class(store, split):
    """Make every patch of a split a positive."""
    index = dict(np.load(store / split / "index.npz"))
    index["label"][:] = 1
    np.savez(store / split / "index.npz", **index)


def no_constants(name):
    raise AssertionError(f"{name} is not JSON")


def strict_json(text):
    return json.loads(text, parse_constant=no_constants)


def results_of(folder):
    return strict_json((folder / "results.json").read_text())


def metrics_of(folder):
    return [strict_json(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def tensors(content, prefix=""):
    """Flatten a checkpoint into name -> value."""
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, (list, tuple)):
        items = enumerate(content)
    else:
        return {prefix: content}
    return {k: v for key, value in items for k, v in tensors(value, f"{prefix}.{key}").items()}


def assert_same_checkpoint(one, other):
    one, other = (tensors(runs.load_checkpoint(path)) for path in (one, other))
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other[name]), name
        elif not name.endswith("train_seconds"):
            assert value == other[name], name


def assert_same_run(one, other):
    """The same weights, optimiser, metrics and results to the last bit, but for time and place."""
    for name in ("last.pt", "best_model.pt"):
        assert_same_checkpoint(one / "checkpoints" / name, other / "checkpoints" / name)
    assert metrics_of(one) == metrics_of(other)
    others = {"train_seconds", "finished", "command", "git_commit"}
    one, other = results_of(one), results_of(other)
    assert {k: v for k, v in one.items() if k not in others} == {
        k: v for k, v in other.items() if k not in others
    }
