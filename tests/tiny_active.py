"""Tiny segmentation stores and active-learning runs in this process."""

import contextlib
import io
import json
import sys
import zlib

import numpy as np
import pytest
import torch
from tiny_runs import assert_same_checkpoint, strict_json

import train_active_learning_fixed as script
from picking import iterations
from picking.errors import UserError

CONFIG = """
model: {width: 4, depth: 2}
active_learning: {iterations: 3, initial_fraction: 0.2, query_fraction: 0.2, full_epochs: 3}
optimizer: {lr: 0.02}
training: {batch_size: 2, epochs: 2, eval_batch_size: 4}
"""
N_IMAGES = {"train": 10, "val": 4, "test": 3}


def write_split(folder, n, size_px=16, seed=0, name="a", ids=None):
    """One split of a segmentation store: noisy squares with a few bright disks of 5 px."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    images = rng.normal(120, 25, (n, size_px, size_px))
    masks = np.zeros((n, size_px, size_px), np.uint8)
    y, x = np.ogrid[:size_px, :size_px]
    n_particles = rng.integers(1, 4, n)
    for i in range(n):
        for centre in rng.integers(2, size_px - 2, (n_particles[i], 2)):
            masks[i][(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < 2.5**2] = 1
    images = (images + 60 * masks).clip(0, 255).astype(np.uint8)
    np.save(folder / "images.npy", images)
    np.save(folder / "masks.npy", masks)
    entries = [
        {
            "name": f"{name}{i}.jpg", "micrograph": f"{name}{i}.jpg",
            "empiar_id": ids[i] if ids else None, "original_size_px": [size_px, size_px],
            "scale": [1.0, 1.0], "tile": None, "n_particles": int(n_particles[i]),
            "checksum": zlib.crc32(images[i].tobytes()),
        }
        for i in range(n)
    ]  # fmt: skip
    content_hash = f"{name}{n}{size_px}{seed}"
    index = {
        "content_hash": content_hash, "size_px": size_px, "tiles": 1, "resize": "stretch",
        "disk": 1.0,
        "images": entries,
    }  # fmt: skip
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def write_store(root, size_px=16):
    """A segmentation store of three splits."""
    for seed, (split, n) in enumerate(N_IMAGES.items()):
        write_split(root / split, n, size_px, seed, split)
    (root / "metadata.json").write_text("{}")
    return root


def arguments(store, experiments, *flags, overrides=()):
    """The command line of a tiny run."""
    config = experiments / "tiny.yaml"
    experiments.mkdir(parents=True, exist_ok=True)
    config.write_text(CONFIG)
    sets = [part for override in overrides for part in ("--set", override)]
    return [
        "--config", config, "--output-dir", experiments, "--device", "cpu",
        "--train-data-dir", store / "train", "--val-data-dir", store / "val", *flags, *sets,
    ]  # fmt: skip


def call(*argv):
    """Run the script in this process; return what it printed."""
    printed = io.StringIO()
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # small batches are slower on more
    try:
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            patch.setattr(sys, "argv", ["script", *map(str, argv)])
            script.main()
    finally:
        torch.set_num_threads(before)
    return printed.getvalue()


def learn(store, experiments, *flags, run="uncertainty", **more):
    """Run the script on a tiny store; return the run's folder."""
    call(*arguments(store, experiments, *flags, **more))
    return experiments / run


def learn_until_save(n, store, experiments, **more):
    """Run until last.pt has been written ``n`` times, and break off."""
    save, saved = iterations.save_last, []

    def save_and_stop(*state):
        save(*state)
        saved.append(1)
        if len(saved) == n:
            raise KeyError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyError):
        patch.setattr(iterations, "save_last", save_and_stop)
        learn(store, experiments, **more)


def refused(store, experiments, *flags, **more):
    """Return the message that a run is refused with."""
    with pytest.raises(UserError) as error:
        call(*arguments(store, experiments, *flags, **more))
    assert "\n" not in str(error.value)
    return str(error.value)


def metrics_of(run, iteration):
    return strict_json((run / f"iteration_{iteration}" / "metrics.json").read_text())


def labelled_of(run, iteration):
    return strict_json((run / f"iteration_{iteration}" / "labeled_indices.json").read_text())


def assert_same_run(one, other, iterations=3):
    """The same weights, optimiser, queries and figures to the last bit, but for seconds."""
    assert_same_checkpoint(one / "last.pt", other / "last.pt")
    for k in range(iterations):
        name = f"iteration_{k}/best_model.pt"
        assert_same_checkpoint(one / name, other / name)
        assert labelled_of(one, k) == labelled_of(other, k)
        figures, others = metrics_of(one, k), metrics_of(other, k)
        for content in (figures, others):
            for seconds in ("train_seconds", "query_seconds"):
                content.pop(seconds)
        assert figures == others
    assert (one / "metrics.jsonl").read_text() == (other / "metrics.jsonl").read_text()
