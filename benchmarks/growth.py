"""How time and memory of each job grow with the data: 1, 4 and 16 times as much, one core.

    OMP_NUM_THREADS=1 python -m benchmarks.growth

Each job runs in a process of its own. Time is the processor's; memory is what the process holds
besides files (anonymous pages) at its peak, above what it held before the job. The exponent is the
slope of log time against log n over the larger step, from 4 to 16 times, where what comes once
weighs least: 1 is in line with the data, 2 its square.
"""

import json
import math
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from benchmarks.common import anonymous_mib, new_parser, noise, print_header, print_row, script
from benchmarks.preprocessing import copy_micrographs
from models import AttentionUNet
from picking.active_learning.analysis.comparison import summarise
from picking.active_learning.analysis.runs import read_runs
from picking.active_learning.pool_scores import score_pool
from picking.active_learning.strategies import Pool, diversity
from picking.config import ActiveConfig, plain
from picking.errors import run_script
from picking.pu_learning.samplers import PUBatchSampler
from picking.seeds import stream
from picking.stores.patches import PatchStore

TIMES = (1, 4, 16)
SIDE_PX = 128


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes")
    args = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}, torch {torch.__version__}\n")
    print_header("job", "n", "CPU s", "memory MiB", "exponent")
    for name in args.jobs:
        prepare, n_base = JOBS[name]
        sizes = [max(2, round(n_base * args.scale)) * times for times in TIMES]
        costs = [measured(prepare, n) for n in sizes]
        spent, memory = zip(*costs, strict=True)
        exponent = math.log(spent[-1] / spent[-2]) / math.log(sizes[-1] / sizes[-2])
        print_row(name, f"{sizes}"[1:-1], joined(spent, 2), joined(memory, 0), f"{exponent:.2f}")


def joined(values: tuple[float, ...], n_digits: int) -> str:
    return ", ".join(f"{value:.{n_digits}f}" for value in values)


def measured(prepare: Callable[[int, Path], Callable[[], object]], n: int) -> tuple[float, float]:
    """Return the seconds and the MiB that a job takes, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=measure, args=(prepare, n, sender))
    process.start()
    sender.close()
    result = receiver.recv()
    process.join()
    return result


def measure(prepare: Callable, n: int, sender: Any) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        job = prepare(n, Path(folder))
        before, peak, done = anonymous_mib(), 0.0, threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.005):
                peak = max(peak, anonymous_mib())

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        started = time.process_time()
        job()
        seconds = time.process_time() - started
        done.set()
        watcher.join()
        sender.send((seconds, max(0.0, peak - before)))


def simulate(n: int, folder: Path) -> Path:
    """Write n micrographs for training, copies of 20 simulated ones."""
    script(
        "-m", "picking.simulation", "--output", folder / "few", "--size", 256, "--num-workers", 0,
        "--micrographs-train", 20, "--micrographs-val", 1, "--micrographs-test", 1,
    )  # fmt: skip
    copy_micrographs(folder / "few", n, folder / "data")
    return folder / "data"


def preprocessing(n: int, folder: Path) -> Callable[[], object]:
    """Both stores of n micrographs of 256 px."""
    import preprocess_coco_full_dataset as script

    root = simulate(n, folder)
    sys.argv = [
        "preprocess", "--data-root", str(root), "--tasks", "patches", "segmentation",
        "--patch-size", "32", "--seg-size", "128", "--splits", "train", "--num-workers", "0",
        "--output-dir", str(folder / "patches"), "--seg-output-dir", str(folder / "images"),
    ]  # fmt: skip
    sys.stdout = (folder / "printed").open("w")
    return script.main


def loading(n: int, folder: Path) -> Callable[[], object]:
    """Open a patch store of n micrographs and read 200 epochs of batches."""
    preprocessing(n, folder)()

    def job() -> None:
        store = PatchStore(folder / "patches", "train")
        sampler = PUBatchSampler(store.labeled, 32)
        for epoch in range(200):
            sampler.set_epoch(epoch)
            for rows in sampler:
                store[rows]

    return job


def scoring(n: int, folder: Path) -> Callable[[], object]:
    """Score a pool of n images by a network of width 8."""
    images = noise(folder / "images.npy", n, SIDE_PX)
    network = AttentionUNet(width=8).eval()

    def score(rows: np.ndarray) -> None:
        score_pool(network, images, rows, torch.device("cpu"), batch_size=8)

    score(np.arange(min(n, 16)))  # warm up
    return lambda: score(np.arange(n))


def k_centre(n: int, n_chosen: int) -> Callable[[], object]:
    """Choose from n images of which as many are labelled, by 64 random features."""
    features = stream(0, "benchmark", "features").standard_normal((n, 64), dtype=np.float32)
    rows = np.arange(n)
    pool = Pool(
        rows[n_chosen:], rows[:n_chosen],
        lambda part: SimpleNamespace(features=features[part[0] : part[-1] + 1]),
        np.ones(n_chosen), [None] * (n - n_chosen),
    )  # fmt: skip
    return lambda: diversity(pool, n_chosen, stream(0, "benchmark"))


def k_centre_100(n: int, folder: Path) -> Callable[[], object]:
    return k_centre(n, 100)


def k_centre_tenth(n: int, folder: Path) -> Callable[[], object]:
    return k_centre(n, n // 10)


def analysis(n: int, folder: Path) -> Callable[[], object]:
    """Read n runs of ten iterations and compare them."""
    for i in range(n):
        config = plain(ActiveConfig())
        config["active_learning"]["strategy"] = ("random", "entropy")[i % 2]
        config["training"]["seed"] = i // 2
        run = folder / f"run{i}"
        for k in range(10):
            (run / f"iteration_{k}").mkdir(parents=True)
            metrics = {
                "f1_score": 0.5 + 0.02 * k, "num_labeled": 10 * (k + 1), "num_pool": 100,
                "num_particles_labeled": 500 * (k + 1), "num_particles_pool": 5000,
                "val_images": 7,
            }  # fmt: skip
            (run / f"iteration_{k}" / "metrics.json").write_text(json.dumps(metrics))
        (run / "config.json").write_text(json.dumps(config))
        (run / "run.json").write_text(json.dumps({"input_hash": "a" * 64}))
    return lambda: summarise(read_runs(folder), None, 5.0)


JOBS: dict[str, tuple[Callable[[int, Path], Callable[[], object]], int]] = {
    "preprocessing": (preprocessing, 500),
    "loading": (loading, 500),
    "scoring": (scoring, 100),
    "k-centre, 100 chosen": (k_centre_100, 40_000),
    "k-centre, a tenth chosen": (k_centre_tenth, 2_500),
    "analysis": (analysis, 20),
}


if __name__ == "__main__":
    run_script(main)
