"""How many patches a second come from the store, ready for training, three ways, in one run.

    python -m benchmarks.data_path --num-workers 2 --json data_path.json

(a) The usual way: a data set reads one patch, makes Pillow images, and torchvision makes the weak
    and the strong view (RandAugment) of each.
(b) Ours with augmentation on the CPU: a worker reads a batch from the memory map and makes both
    views of all of it (picking/augment.py).
(c) Ours with augmentation on the GPU, the host's part alone: a batch of bytes from the memory map,
    by workers and in the training process itself. What the GPU then does is not measured here.

Every way gives shuffled batches of 64, and (a) and (b) two float32 views of each patch. The ways
take turns, so that a busy machine slows all of them; the ratios are medians over the turns. The
store is a temporary file of noise, small enough to stay in memory as it would not at 44 GB: there
a cold disk bounds every way alike.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import transforms

from picking.augment import AugmentConfig, two_views
from picking.errors import run_script
from picking.streams import stream, stream_seed

BATCH_SIZE = 64
SEED = 42
SHIFT_PX = AugmentConfig().shift_px


class RandomBatches(Sampler):
    """Random batches of indices without end, each with its number: (step, indices)."""

    def __init__(self, n_patches: int) -> None:
        self.n_patches = n_patches

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        rng, step = stream(SEED, "order"), 0
        while True:
            order = rng.permutation(self.n_patches)
            for start in range(0, self.n_patches - BATCH_SIZE + 1, BATCH_SIZE):
                yield step, order[start : start + BATCH_SIZE]
                step += 1


def read_batch(patches: np.ndarray, indices: np.ndarray) -> torch.Tensor:
    """(n, p, p) memory map, (B,) -> (B, p, p) uint8. Rows are copied whole, so order is no matter."""
    return torch.from_numpy(np.asarray(patches[indices]))


class PerSamplePairs(Dataset):
    """(a) One patch at a time through Pillow and torchvision."""

    def __init__(self, patches: np.ndarray) -> None:
        self.patches = patches
        moved = [
            transforms.RandomHorizontalFlip(),
            transforms.RandomVerticalFlip(),
            transforms.RandomCrop(patches.shape[1], SHIFT_PX, padding_mode="reflect"),
        ]
        floats = [transforms.ToTensor(), transforms.Normalize(0.5, 0.25)]
        self.weak = transforms.Compose([*moved, *floats])
        self.strong = transforms.Compose(
            [
                *moved,
                transforms.RandAugment(num_ops=2, magnitude=10),
                *floats,
                transforms.RandomErasing(),
            ]
        )

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = Image.fromarray(self.patches[index])
        return self.weak(image), self.strong(image)


class BatchedPairs(Dataset):
    """(b) A whole batch at a time through both views."""

    def __init__(self, patches: np.ndarray) -> None:
        self.patches = patches

    def __getitem__(self, job: tuple[int, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        step, indices = job
        generator = torch.Generator().manual_seed(stream_seed(SEED, "views", step))
        return two_views(read_batch(self.patches, indices), generator, AugmentConfig())


class BatchedBytes(Dataset):
    """(c) A whole batch at a time, as it lies in the store."""

    def __init__(self, patches: np.ndarray) -> None:
        self.patches = patches

    def __getitem__(self, job: tuple[int, np.ndarray]) -> torch.Tensor:
        return read_batch(self.patches, job[1])


def make_loaders(patches: np.ndarray, n_workers: int) -> dict[str, DataLoader]:
    batches = RandomBatches(len(patches))
    indices_only = (indices for _, indices in batches)
    # fork shares the memory map with the workers; other ways of starting them would copy it
    workers = {"num_workers": n_workers, "multiprocessing_context": "fork" if n_workers else None}
    whole = {"batch_size": None, "sampler": batches}
    return {
        "a": DataLoader(PerSamplePairs(patches), batch_sampler=indices_only, **workers),
        "b": DataLoader(BatchedPairs(patches), **whole, **workers),
        "c": DataLoader(BatchedBytes(patches), **whole, **workers),
        "c0": DataLoader(BatchedBytes(patches), **whole, num_workers=0),
    }
