"""What active learning costs, and how far the strategies agree; each part is one command.

    python -m benchmarks.active_learning agreement \
        --checkpoint experiments/active_learning_quickstart/random/iteration_1/best_model.pt \
        --data-dir data/simulated_active_seg/train
    python -m benchmarks.active_learning full-size --batch-size 1   # 31.4 M parameters, 768 px
    python -m benchmarks.active_learning loss-alpha --data-dir data/simulated_active_seg
    python -m benchmarks.active_learning processes  # one against two, by torchrun, on the CPU

agreement: Spearman's correlation of the scores and the overlap of the chosen tenth, every pair.
full-size: one training step and one scoring batch, and the time of a whole strategy worked out from
them. loss-alpha: the focal loss's alpha 0.25 against 0.75. processes: seconds of scoring a pool and
of a training epoch, shared by two of one thread each. What scoring and k-centre cost as the pool
grows: benchmarks/growth.py.
"""

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import ROOT, new_parser, print_header, print_row, script, synchronise
from picking.active_learning import train
from picking.active_learning.iterations import STEP_METRICS
from picking.active_learning.pool_scores import general_features, require_diameters, score_pool
from picking.active_learning.queries import query_rng, schedule
from picking.active_learning.strategies import STRATEGIES, Pool
from picking.config import ActiveConfig, config_from_dict
from picking.errors import run_script
from picking.runs import distributed
from picking.runs.checkpoints import load_checkpoint, load_weights
from picking.runs.devices import select_device
from picking.seeds import stream
from picking.stores.segmentation import SegmentationBatch, SegmentationStore
from picking.training.loop import State
from picking.training.losses import focal_dice
from picking.training.networks import new_network
from picking.training.scoring import autocast

PARTS = ("agreement", "full-size", "loss-alpha", "processes")


def main() -> None:
    """Run one part."""
    parser = new_parser(__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--checkpoint", type=Path, help="agreement: a best_model.pt")
    parser.add_argument("--data-dir", type=Path, help="a split (agreement) or a store (loss-alpha)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=8, help="full-size")
    parser.add_argument("--precision", default="auto", help="full-size: auto, fp32 or bf16")
    parser.add_argument("--steps", type=int, default=3, help="full-size: steps that are timed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44], help="loss-alpha")
    parser.add_argument("--epochs", type=int, default=50, help="loss-alpha")
    args = parser.parse_args()
    parts = (agreement, full_size, loss_alpha, several_processes)
    dict(zip(PARTS, parts, strict=True))[args.part](args)


def agreement(args: argparse.Namespace) -> None:
    """Score a split by one trained network and compare every pair of strategies."""
    from scipy.stats import spearmanr

    device = select_device(args.device)
    best = load_checkpoint(args.checkpoint, device)
    config = config_from_dict(best["config"], str(args.checkpoint), ActiveConfig)
    network = new_network(config, "init", 0).to(device)
    load_weights(network, best["network"], args.checkpoint)
    store = SegmentationStore(args.data_dir)
    require_diameters(store)
    labelled = json.loads((args.checkpoint.parent / "labeled_indices.json").read_text())["indices"]
    rows = np.setdiff1d(np.arange(len(store)), labelled)
    extras, general = frozenset({"bald", "badge"}), general_features(store, device)
    whole = Pool(
        rows=rows,
        labelled_rows=np.array(labelled),
        score=lambda part: dataclasses.replace(
            score_pool(network, store.images, part, device, batch_size=8, extras=extras),
            general=general[part],
        ),
        labelled_particles=store.n_particles[labelled],
        strata=[store.ids[i] for i in rows],
    )
    n = max(1, len(rows) // 10)
    chosen, scores = {}, {}
    names = list(STRATEGIES)
    for name in names:
        rng = query_rng(config.training.seed, name, best["iteration"])
        chosen[name], scores[name] = STRATEGIES[name].select(whole, n, rng)
    print(f"{len(rows)} candidates, {len(labelled)} labelled, {n} chosen by each strategy")
    print("\nSpearman's correlation of scores (above) and overlap of the chosen tenth (below)\n")
    print_header("", *names)
    for i, one in enumerate(names):
        above = names[i + 1 :]
        constant = {other for other in names if np.ptp(scores[other]) == 0}
        shared = [len(np.intersect1d(chosen[one], chosen[other])) / n for other in names[:i]]
        rho = [
            "-" if {one, other} & constant
            else f"{spearmanr(scores[one], scores[other]).statistic:.2f}"
            for other in above
        ]  # fmt: skip
        print_row(one, *(f"{fraction:.0%}" for fraction in shared), "", *rho)


def full_size(args: argparse.Namespace) -> None:
    """Time a training step and a scoring batch of the default network, and work out the whole."""
    device = select_device(args.device)
    config = ActiveConfig()
    settings = dataclasses.replace(
        config.training, batch_size=args.batch_size, precision=args.precision
    )
    config = dataclasses.replace(config, training=settings)
    network = new_network(config, "init", 0).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    rng = stream(0, "benchmark", "full-size")
    images = rng.integers(0, 256, (args.batch_size, 768, 768), np.uint8)
    masks = rng.integers(0, 2, images.shape, np.uint8)
    generator = torch.Generator(device).manual_seed(0)
    terms = train.loss_terms(config)

    def train_step() -> None:
        network.train()
        batch = SegmentationBatch(images, masks, is_training=True)
        x, y = train.to_input(batch, config, generator, device)
        with autocast(settings.precision, device):
            z = network(x)
        loss = focal_dice(z.float(), y, **terms)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def score_batch() -> None:
        score_pool(
            network, images, np.arange(args.batch_size), device, batch_size=args.batch_size,
            precision=settings.precision,
        )  # fmt: skip

    seconds = {}
    for name, function in (("scoring batch", score_batch), ("training step", train_step)):
        if args.steps > 1:
            function()  # warm up
        times = []
        for _ in range(args.steps):
            synchronise(device)
            started = time.monotonic()
            function()
            synchronise(device)
            times.append(time.monotonic() - started)
        seconds[name] = float(np.median(times)) / args.batch_size
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(device) / 2**30
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{name}, batch {args.batch_size} at 768 px on {device}: {np.median(times):.3f} s, "
            f"{seconds[name]:.4f} s an image; peak memory so far {peak:.1f} GiB"
        )
    minutes = 5172 * seconds["scoring batch"] / 60
    print(f"a pool of 5,172 images is scored in {minutes:,.1f} minutes")
    counts = schedule(5172, 0.1, 0.1, 10)
    trained = 30 * sum(counts)
    scored = 30 * 10 * 534 + 5172 * 9
    hours = (trained * seconds["training step"] + scored * seconds["scoring batch"]) / 3600
    print(
        f"a whole strategy, 10 iterations of 30 epochs: {trained:,} images trained on and "
        f"{scored:,} scored (validation each epoch, pool each iteration): {hours:,.1f} hours"
    )


def loss_alpha(args: argparse.Namespace) -> None:
    """Train on three tenths of a store with both alphas; print validation metrics."""
    names, folder = ("f1_score", "best_f1", "best_f1_threshold", "ap"), "experiments/loss_alpha"
    print_header("alpha", "seed", "F1 at 0.5", "best F1", "its threshold", "AP")
    for alpha in (0.25, 0.75):
        for seed in args.seeds:
            name = f"alpha{alpha}_0.3_seed{seed}"
            script(
                "train_active_learning_fixed.py", "--config",
                "configs/active_learning_quickstart.yaml", "--strategy", "random",
                "--iterations", 1, "--initial-fraction", 0.3, "--epochs", args.epochs,
                "--seed", seed, "--set", f"loss.alpha={alpha}", "--train-data-dir",
                args.data_dir / "train", "--val-data-dir", args.data_dir / "val",
                "--device", args.device, "--output-dir", folder, "--run-name", name, "--resume",
            )  # fmt: skip
            path = ROOT / folder / name / "iteration_0" / "metrics.json"
            metrics = json.loads(path.read_text())
            print_row(alpha, seed, *(f"{metrics[key]:.4f}" for key in names))


def several_processes(args: argparse.Namespace) -> None:
    """Time one process and two in turns; print the least of three, and their ratios."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python"]
    code = "from benchmarks.active_learning import shared_work; shared_work()"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    turns = [
        json.loads(
            subprocess.run(
                [*torchrun, "--nproc-per-node", str(n), sys.executable, "-c", code],
                cwd=ROOT, check=True, env=environment, stdout=subprocess.PIPE, text=True,
            ).stdout
        )
        for n in (1, 2) * 3
    ]  # fmt: skip
    print_header("width 8, 128 px", "one process", "two", "ratio", "ratios of the turns")
    for name in turns[0]:
        one, two = ([turn[name] for turn in turns[i::2]] for i in range(2))
        ratios = ", ".join(f"{a / b:.2f}" for a, b in zip(one, two, strict=True))
        a, b = min(one), min(two)
        print_row(name, f"{a:.2f} s", f"{b:.2f} s", f"{a / b:.2f}", ratios)


def shared_work() -> None:
    """Score a pool and train for an epoch, in a process of torchrun; the first prints seconds."""
    device, rank, world_size = distributed.start("cpu")
    config = ActiveConfig()
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, width=8))
    rng = stream(0, "benchmark", "processes")
    images = rng.integers(0, 256, (320, 128, 128), np.uint8)
    masks = rng.integers(0, 2, images.shape, np.uint8)
    network = new_network(config, "init", 0)
    model = distributed.with_shared_gradients(network)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    n_each = config.training.batch_size // world_size
    batches = [
        SegmentationBatch(images[start : start + n_each], masks[start : start + n_each], True)
        for start in range(rank * n_each, 160, config.training.batch_size)
    ]

    def score_images(n: int) -> None:
        score_pool(network, images, np.arange(n), device, batch_size=config.training.batch_size)

    def epoch(n_steps: int) -> None:
        totals = torch.zeros(len(STEP_METRICS), dtype=torch.float64)
        state = State(network=network, optimizer=optimizer, totals=totals)
        train.train_one_epoch(config, state, model, batches[:n_steps], n_steps)

    seconds = {}
    for name, work, n_warm, n in (
        ("scoring 320 images", score_images, 16, 320),
        ("a training epoch of 160 images, batches of 8", epoch, 2, len(batches)),
    ):
        work(n_warm)
        distributed.wait_for_all()
        started = time.monotonic()
        work(n)
        distributed.wait_for_all()
        seconds[name] = time.monotonic() - started
    if rank == 0:
        print(json.dumps(seconds))


if __name__ == "__main__":
    run_script(main)
