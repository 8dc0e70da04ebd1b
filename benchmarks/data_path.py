"""How many patches a second come out of the store, ready for training: four ways, in one run.

    python -m benchmarks.data_path --num-workers 2 --json data_path.json

(a) The usual way: a data set reads one patch at a time, Pillow and torchvision make the weak and
    the strong view (RandAugment) of it, worker processes do so.
(b) Ours with augmentation on the CPU: a batch at a time is read from the memory map and both views
    are made of all of it by what training calls (picking/training/augment.py), by worker processes,
    or by as many threads of the training process, which need not send 8 MB of views for every
    batch. Training makes the strong view of the unlabeled patches only.
(c) Ours with augmentation on the GPU, the host's part alone: a batch of bytes is read from the
    memory map, by worker processes, or by the training process itself. What the GPU does is not
    measured here.

(d) Both views by kornia on the batches of (b), by as many threads; left out where `kornia` is not
    installed (`pip install kornia`).

All give shuffled batches of 64; (a), (b) and (d) two float32 views of each patch. A worker has one
torch thread. The ways take turns and a ratio is the median over the turns; still, other work on the
machine slows (a) most, so judge by a run whose `load_before` is near 0. The store is a temporary
file of noise that stays in memory, but for one pass each of (b) and (c) after it was dropped from
there: then the disk's random reads bound them.
"""

import argparse
import json
import mmap
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import transforms

from benchmarks.common import machine, new_parser, noise, print_conditions
from picking.config import AugmentationConfig
from picking.errors import run_script
from picking.parallel import keep_freed_memory
from picking.seeds import stream, stream_seed
from picking.training.augment import strong_view, to_float, weak_view

BATCH_SIZE = 64
SEED = 42
CONFIG = AugmentationConfig()
# Batches that each worker makes ahead, in processes (DataLoader's default) and in threads.
AHEAD = 2

WAYS = {
    "a": "(a) per sample, Pillow and RandAugment, processes",
    "b_processes": "(b) both views by batch on the CPU, processes",
    "b_threads": "(b) both views by batch on the CPU, threads",
    "c_processes": "(c) bytes by batch, processes",
    "c_inline": "(c) bytes by batch, in the training process",
    "d_threads": "(d) both views by kornia on the CPU, threads",
}
AIMS = {"b": 8, "c": 50}


class RandomBatches(Sampler):
    """Shuffled batches without end, each with its number: (step, indices)."""

    def __init__(self, n_patches: int) -> None:
        self.n_patches = n_patches

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        rng, step = stream(SEED, "order"), 0
        while True:
            order = rng.permutation(self.n_patches)
            for start in range(0, self.n_patches - BATCH_SIZE + 1, BATCH_SIZE):
                yield step, order[start : start + BATCH_SIZE]
                step += 1


class PerSamplePairs(Dataset):
    """(a) One patch at a time through Pillow and torchvision, as FixMatch code usually does."""

    def __init__(self, patches: np.ndarray) -> None:
        self.patches = patches
        moved = [
            transforms.RandomHorizontalFlip(),
            transforms.RandomVerticalFlip(),
            transforms.RandomCrop(patches.shape[1], CONFIG.shift_px, padding_mode="reflect"),
        ]
        floats = [transforms.ToTensor(), transforms.Normalize(0.5, 0.25)]
        self.weak = transforms.Compose([*moved, *floats])
        distorted = [transforms.RandAugment(num_ops=2, magnitude=10), *floats]
        self.strong = transforms.Compose([*moved, *distorted, transforms.RandomErasing()])

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = Image.fromarray(self.patches[index])
        return self.weak(image), self.strong(image)


class BatchedBytes(Dataset):
    """(c) A whole batch at a time, as it lies in the store."""

    def __init__(self, patches: np.ndarray) -> None:
        self.patches = patches

    def __getitem__(self, job: tuple[int, np.ndarray]) -> torch.Tensor:
        return read_batch(self.patches, job[1])


class BatchedPairs(BatchedBytes):
    """(b) A whole batch at a time through both views; a batch's number decides its draws."""

    def __getitem__(self, job: tuple[int, np.ndarray]) -> Any:
        generator = torch.Generator().manual_seed(stream_seed(SEED, "views", job[0]))
        patches = super().__getitem__(job)
        weak = weak_view(patches, generator, CONFIG)  # as training calls them
        return weak, strong_view(patches, generator, CONFIG)


class KorniaPairs(BatchedBytes):
    """(d) A whole batch at a time through kornia, with the steps and strengths of (b)."""

    def __init__(self, patches: np.ndarray) -> None:
        import kornia.augmentation as k

        super().__init__(patches)
        side = patches.shape[1]
        moved = [
            k.RandomHorizontalFlip(),
            k.RandomVerticalFlip(),
            k.RandomRotation90((0, 3)),
            k.RandomCrop((side, side), CONFIG.shift_px, padding_mode="reflect"),
        ]
        distorted = [
            k.RandomGaussianBlur((7, 7), (0.1, CONFIG.blur_px)),
            k.RandomContrast((1 - CONFIG.contrast, 1 + CONFIG.contrast), clip_output=False),
            k.RandomBrightness((1 - CONFIG.brightness, 1 + CONFIG.brightness), clip_output=False),
            k.RandomGaussianNoise(std=CONFIG.noise),
            k.RandomErasing((CONFIG.cutout**2 / 4, CONFIG.cutout**2)),
        ]
        self.weak = k.AugmentationSequential(*moved)
        self.strong = k.AugmentationSequential(*moved, *distorted)

    def __getitem__(self, job: tuple[int, np.ndarray]) -> Any:
        x = to_float(super().__getitem__(job))
        return self.weak(x), self.strong(x)


def read_batch(patches: np.ndarray, indices: np.ndarray) -> torch.Tensor:
    """(n, p, p) memory map, (B,) -> (B, p, p) uint8."""
    return torch.from_numpy(np.asarray(patches[indices]))


def main() -> None:
    args = parse_args()
    setting = {
        **{key: value for key, value in vars(args).items() if key != "json"},
        **machine(), "batch_size": BATCH_SIZE, "torchvision": torchvision.__version__,
        "pillow": PIL.__version__,
    }  # fmt: skip
    torch.set_num_threads(1)
    keep_freed_memory()

    # 1. A store of noise.
    with tempfile.TemporaryDirectory() as folder:
        patches = noise(Path(folder) / "patches.npy", args.n_patches, args.patch_size)
        ways = make_ways(patches, args.num_workers)

        # 2. Every way in turn, several times.
        rates: dict[str, list[float]] = {key: [] for key in ways}
        cold: dict[str, list[float]] = {"b_threads": [], "c_inline": []}
        for _ in range(args.repeats):
            for key, batches in ways.items():
                rates[key].append(patches_per_second(batches(), args.num_workers, args.seconds))
            for key in cold:
                cold[key].append(patches_per_second_cold(patches, ways[key]()))

    # 3. The table.
    report = {"conditions": setting, "ways": summarise(rates)}
    report["cold"] = {key: statistics.median(values) for key, values in cold.items()}
    print_table(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parse_args() -> argparse.Namespace:
    parser = new_parser(__doc__)
    parser.add_argument("--num-workers", type=int, default=2, help="processes, or threads")
    parser.add_argument("--n-patches", type=int, default=20_000, help="in the temporary store")
    parser.add_argument("--patch-size", type=int, default=128, help="side in px")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each way in each turn")
    parser.add_argument("--repeats", type=int, default=5, help="turns")
    parser.add_argument("--json", type=Path, help="also write the rates to this file")
    args = parser.parse_args()
    if args.num_workers < 1 or args.repeats < 1 or args.n_patches < BATCH_SIZE:
        parser.error(f"--num-workers and --repeats from 1, --n-patches from {BATCH_SIZE}")
    return args


def make_ways(patches: np.ndarray, n_workers: int) -> dict[str, Callable[[], Iterator]]:
    """Return, for each way, what starts it: an iterator of batches without end."""
    batches = RandomBatches(len(patches))
    pairs, as_bytes = BatchedPairs(patches), BatchedBytes(patches)

    def processes(dataset: Dataset, **options: Any) -> Iterator:
        # fork shares the memory map with the workers; other ways of starting them would copy it
        return iter(
            DataLoader(
                dataset,
                num_workers=n_workers,
                prefetch_factor=AHEAD,
                multiprocessing_context="fork",
                worker_init_fn=lambda _: keep_freed_memory(),
                **options,
            )
        )

    whole = {"batch_size": None, "sampler": batches}
    ways = {
        "a": lambda: processes(
            PerSamplePairs(patches), batch_sampler=(indices for _, indices in batches)
        ),
        "b_processes": lambda: processes(pairs, **whole),
        "b_threads": lambda: in_threads(pairs.__getitem__, iter(batches), n_workers),
        "c_processes": lambda: processes(as_bytes, **whole),
        "c_inline": lambda: map(as_bytes.__getitem__, batches),
    }
    if find_spec("kornia"):
        kornia = KorniaPairs(patches)
        ways["d_threads"] = lambda: in_threads(kornia.__getitem__, iter(batches), n_workers)
    return ways


def in_threads(make_batch: Callable, jobs: Iterator, n_threads: int) -> Iterator:
    """Yield ``make_batch(job)`` in order, made ahead: torch lets threads compute at once."""
    with ThreadPoolExecutor(n_threads, "views", torch.set_num_threads, (1,)) as pool:
        ahead = deque(pool.submit(make_batch, job) for job in islice(jobs, AHEAD * n_threads))
        for job in jobs:
            yield ahead.popleft().result()
            ahead.append(pool.submit(make_batch, job))


def patches_per_second(batches: Iterator, n_workers: int, seconds: float) -> float:
    """Measure in the steady state: what was made ahead during the start does not count."""
    for _ in range(2 * AHEAD * n_workers):
        next(batches)
    n_batches, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        next(batches)
        n_batches += 1
    return n_batches * BATCH_SIZE / elapsed


def patches_per_second_cold(patches: np.memmap, batches: Iterator) -> float:
    """Measure one pass over a store that is not in the kernel's memory."""
    patches._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]  # else the next keeps it
    with Path(str(patches.filename)).open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    n_batches, start = len(patches) // BATCH_SIZE, time.perf_counter()
    for _ in range(n_batches):
        next(batches)
    return n_batches * BATCH_SIZE / (time.perf_counter() - start)


def summarise(rates: dict[str, list[float]]) -> dict[str, dict]:
    """Per way: median, lowest and highest rate, and the median ratio to (a) turn by turn."""
    return {
        key: {
            "patches_per_second": statistics.median(values),
            "lowest": min(values),
            "highest": max(values),
            "ratio": statistics.median(
                value / usual for value, usual in zip(values, rates["a"], strict=True)
            ),
        }
        for key, values in rates.items()
    }


def print_table(report: dict) -> None:
    print_conditions(report["conditions"])
    print(f"{'':50}{'patches/s':>10}{'lowest':>10}{'highest':>10}{'x (a)':>8}")
    for key, row in report["ways"].items():
        rates = "".join(
            f"{row[name]:>10,.0f}" for name in ("patches_per_second", "lowest", "highest")
        )
        print(f"{WAYS[key]:50}{rates}{row['ratio']:>8.1f}")
    for key, rate in report["cold"].items():
        print(f"{WAYS[key] + ', cold store':50}{rate:>10,.0f}")
    print("\nA patch of (a), (b) or (d) is a pair of views.")
    for letter, aim in AIMS.items():
        ratio, best = max(
            (row["ratio"], key) for key, row in report["ways"].items() if key.startswith(letter)
        )
        verdict = "met" if ratio >= aim else "missed"
        print(f"Aim of {aim} x (a): {verdict}, {ratio:.1f} with {WAYS[best]}")


if __name__ == "__main__":
    run_script(main)
