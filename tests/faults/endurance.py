"""A day's run in thousands of tiny epochs: does anything grow with them that should not?

    python -m tests.faults.endurance --epochs 5000       # some minutes for each script
    python -m tests.faults.endurance --epochs 500 --scripts active

Trains tiny networks by both training scripts and prints, for the second and the last tenth of the
epochs, what the cheapest epoch costs: seconds, bytes written in all and bytes that stay in each
file; and how much memory and how many open files the process has. Exit status 1 where any grew.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from tests.fixtures import active_runs, patch_stores, pu_runs
from tests.fixtures.data_sets import write_data_set

ITERATIONS = 2  # of active learning, each with half of the epochs
# An epoch at the end may cost so many times one at the start, and memory be so many bytes more: the
# allocator takes it in steps
MOST_SECONDS, MOST_BYTES, MOST_MEMORY = 1.5, 1.2, 8e6


class Sample(NamedTuple):
    """The process and its run folder at the end of an epoch; sizes in bytes."""

    seconds: float  # of the processor, so other programs do not matter
    memory: int
    n_open: int
    written: int
    log: int
    metrics: int
    events: int
    checkpoint: int


def sample(folder: Path) -> Sample:
    """Measure this process and the run that it writes."""

    def size(pattern: str) -> int:
        return sum(path.stat().st_size for path in folder.glob(pattern))

    io = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(
        seconds=time.process_time(),
        memory=pages * os.sysconf("SC_PAGE_SIZE"),
        n_open=len(list(Path("/proc/self/fd").iterdir())),
        written=int(io["wchar"]),
        log=size("training.log"),
        metrics=size("metrics.jsonl"),
        events=size("events*"),
        checkpoint=size("**/last.pt"),
    )


def train(name: str, n_epochs: int, root: Path) -> tuple[Path, np.ndarray]:
    """Run a training script; return its folder and a `Sample` of each epoch, float64 (n, 8)."""
    samples = np.zeros((n_epochs, len(Sample._fields)))  # all of its room now: it must not grow
    add_scalar = SummaryWriter.add_scalar

    def sampled(board, tag, *args, **kwargs):
        add_scalar(board, tag, *args, **kwargs)
        if tag == "Loss/Train":  # once an epoch, in both scripts
            samples[kwargs.get("global_step", args[-1]) - 1] = sample(Path(board.log_dir))
            sys.stdout.seek(0)  # the tiny runs keep what is printed, a script does not
            sys.stdout.truncate()

    SummaryWriter.add_scalar = sampled
    try:
        if name == "pu":
            write_data_set(root / "data", {"train": 2, "val": 1})
            patch_stores.done(root / "data", root / "store")
            wanted = (f"training.epochs={n_epochs}", f"training.early_stopping_patience={n_epochs}")
            overrides = (*wanted, "training.checkpoint_every_steps=1000")
            return pu_runs.train(root / "store", root / "runs", overrides=overrides), samples
        store = active_runs.write_store(root / "store")
        overrides = (f"active_learning.iterations={ITERATIONS}",)
        flags = ("--epochs", n_epochs // ITERATIONS)
        return active_runs.learn(store, root / "runs", *flags, overrides=overrides), samples
    finally:
        SummaryWriter.add_scalar = add_scalar


def per_epoch(samples: np.ndarray) -> dict[str, tuple[float, float]]:
    """Return what an epoch costs in the second and the last tenth, and memory and files there.

    Costs are the cheapest epoch's: others have a new best model, or a checkpoint amid them. The
    first epochs of all, in which everything is set up, do not count.
    """
    n = len(samples) // 10
    parts = samples[n : 2 * n + 1], samples[-n - 1 :]
    costs = {}
    for i, key in enumerate(Sample._fields):
        if key in ("memory", "n_open", "checkpoint"):
            costs[key] = tuple(float(np.median(part[:, i])) for part in parts)
        else:
            costs[key] = tuple(float(np.diff(part[:, i]).min()) for part in parts)
    return costs


def what_grew(costs: dict[str, tuple[float, float]]) -> list[str]:
    """Return the names of what costs more at the end than at the start."""
    grew = []
    for key, (start, end) in costs.items():
        if key == "memory":
            too_much = end > start + MOST_MEMORY
        elif key == "n_open":
            too_much = end > start
        else:
            too_much = end > start * (MOST_SECONDS if key == "seconds" else MOST_BYTES)
        if too_much:
            grew.append(key)
    return grew


def n_shown(folder: Path) -> int:
    """Return how many epochs TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return len({scalar.step for scalar in events.Scalars("Loss/Train")})


def main() -> None:
    """Train by both scripts and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=5000)
    parser.add_argument("--scripts", nargs="+", choices=("pu", "active"), default=["pu", "active"])
    args = parser.parse_args()
    grew = []
    for name in args.scripts:
        with tempfile.TemporaryDirectory() as root:
            started = time.monotonic()
            folder, samples = train(name, args.epochs, Path(root))
            costs = per_epoch(samples)
            print(f"\n{name}: {len(samples):,} epochs, {time.monotonic() - started:.0f} s")
            print(f"  {'':<24}{'start':>14}{'end':>14}")
            for key, (start, end) in costs.items():
                shown = ".4f" if key == "seconds" else ",.0f"
                print(f"  {key:<24}{start:>14{shown}}{end:>14{shown}}")
            print(f"  epochs that TensorBoard shows: {n_shown(folder):,}", flush=True)
            grew += [f"{name} {key}" for key in what_grew(costs)]
    print("\nGrew:", ", ".join(grew) or "nothing")
    sys.exit(1 if grew else 0)


if __name__ == "__main__":
    main()
