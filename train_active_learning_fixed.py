"""Active learning of a U-Net: train, let a strategy choose what to label next, train again.

    python train_active_learning_fixed.py --strategy uncertainty --device cuda:0
    python train_active_learning_fixed.py --strategy uncertainty --device cuda:0 --resume
    python train_active_learning_fixed.py --strategy full --model unet    # everything at once
    torchrun --nproc-per-node 4 train_active_learning_fixed.py ... --device cuda   # a process a GPU

Reads a segmentation store (preprocess_coco_full_dataset.py --tasks segmentation), writes
experiments/active_learning_fixed/<strategy>/; analyze_active_learning_results.py compares them.
"""

import argparse
from pathlib import Path


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config", type=Path, default=Path("configs/active_learning.yaml"))
    add("--strategy", help="what chooses the images: random, uncertainty, ..., or full")
    add("--model", choices=("attention_unet", "unet"))
    add("--device", default="auto", help="cpu, cuda:0, ..., or auto for the best there is")
    add("--batch-size", type=int)
    add("--epochs", type=int, help="of each iteration; full: active_learning.full_epochs")
    add("--learning-rate", type=float)
    add("--iterations", type=int)
    add("--initial-fraction", type=float, help="share of the images labelled at the start")
    add("--query-fraction", type=float, help="share of the images labelled after an iteration")
    add("--target-f1", type=float)
    add("--seed", type=int)
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--no-warmstart", action="store_true", help="train anew every iteration")
    start.add_argument(
        "--shrink-perturb",
        action="store_true",
        help="go on from the last weights, shrunk, plus a tenth of new ones",
    )
    for split in ("train", "val", "test"):
        add(f"--{split}-data-dir", metavar="DIR", help=f"{split} split of a segmentation store")
    add("--output-dir", type=Path, default=Path("experiments/active_learning_fixed"))
    add("--run-name", help="folder in --output-dir; default: the strategy and what differs")
    add("--resume", action="store_true", help="go on with the run, if there is one")
    add("--num-workers", type=int, default=0, help="processes that read images")
    add(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change a config value, e.g. model.width=32; repeatable",
    )
    return parser


if __name__ == "__main__":
    argument_parser().parse_args()  # --help and unknown flags are answered before torch is imported

import contextlib
import dataclasses
import json
import math
import time
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from picking.active_learning import iterations, strategies
from picking.active_learning import log as reports
from picking.active_learning.initial_weights import begin_iteration, read_initial_weights
from picking.active_learning.iterations import FULL, STEP_FIGURES, Progress, folder_of
from picking.active_learning.queries import query
from picking.active_learning.unlabeled import WithUnlabeled, with_unlabeled
from picking.config import ActiveConfig, plain, read_config
from picking.errors import STOPPED, UserError, allow_stop, hold_stop, run_script
from picking.files import locked, sha256, write_json
from picking.metrics.pixels import PIXEL_METRICS
from picking.parallel import batch_loader, keep_freed_memory, reading_workers
from picking.pu_learning.tensorboard import open_board
from picking.runs import checkpoints, distributed
from picking.runs import folder as runs
from picking.seeds import stream, stream_seed
from picking.stores.segmentation import (
    CryoEMSegmentationDataset,
    SegmentationBatch,
    SegmentationStore,
    open_splits,
)
from picking.training.augment import to_float
from picking.training.losses import SEGMENTATION_PRESETS, focal_dice, pixel_consistency
from picking.training.networks import build_network
from picking.training.scoring import autocast, evaluate_pixels
from picking.training.warps import two_views, warp

# flag -> the config's key that it sets
FLAGS = {
    "strategy": "active_learning.strategy",
    "model": "model.name",
    "batch_size": "training.batch_size",
    "epochs": "training.epochs",
    "learning_rate": "optimizer.lr",
    "iterations": "active_learning.iterations",
    "initial_fraction": "active_learning.initial_fraction",
    "query_fraction": "active_learning.query_fraction",
    "target_f1": "active_learning.target_f1",
    "seed": "training.seed",
    "train_data_dir": "data.train_dir",
    "val_data_dir": "data.val_dir",
    "test_data_dir": "data.test_dir",
}


def main() -> None:
    """Train, evaluate and query, iteration by iteration."""
    args = argument_parser().parse_args()
    if args.num_workers < 0:
        raise UserError(f"--num-workers is {args.num_workers}: choose 0 or more")
    device, rank, world_size = distributed.start(args.device)
    if device.type == "cpu":
        keep_freed_memory()

    # 1. Config and data
    config = resolve_config(args)
    if config.training.deterministic:
        runs.use_deterministic_kernels()
    settings = config.active_learning
    name = args.run_name or iterations.run_name(config)
    if Path(name).name != name or name in ("", ".."):
        raise UserError(f"--run-name '{name}' must be the name of a folder, not a path")
    train_store, val_store, test_store = open_splits(config.data, config.model.depth)
    n_each = distributed.share_of_batch(config.training.batch_size)
    if n_each == 1 and train_store.size_px == 2**config.model.depth:
        raise UserError(
            f"training.batch_size {world_size} leaves batch norm a single value a channel where "
            f"the network is narrowest (images of {train_store.size_px} px, model.depth "
            f"{config.model.depth}): choose {2 * world_size} or more, or another depth"
        )
    given = None
    if settings.initial_labelled is not None:
        given = iterations.read_names(
            Path(settings.initial_labelled), train_store,
            "active_learning.initial_labelled wants a labeled_indices.json, with a list 'names'",
            "give active_learning.initial_labelled of the same data",
        )  # fmt: skip
    counts = strategies.schedule(
        len(train_store),
        settings.initial_fraction if given is None else len(given) / len(train_store),
        settings.query_fraction,
        settings.iterations,
    )

    folder = args.output_dir / name
    if settings.initial_weights is not None and not iterations.is_complete(folder, 0):
        with torch.device("meta"):
            network = build_network(config)
        # What does not fit is refused before there is a folder
        read_initial_weights(Path(settings.initial_weights), network, config.model)
    with contextlib.ExitStack() as stack:
        # 2. Run folder; only the first process writes
        stores = [s.content_hash for s in (train_store, val_store, test_store) if s]
        distributed.require_same((config, stores, args.resume), "configuration or data")
        if rank == 0:
            stack.enter_context(locked(folder))
            runs.open_run(folder, plain(config), sha256(*stores), device, args.resume)
            write_json(folder / "config.json", plain(config))
        distributed.wait_for_all()
        if iterations.is_complete(folder, len(counts) - 1):
            if rank == 0:
                print(f"This run is finished: nothing to do in {folder}")
            return
        log = runs.open_log(folder / "training.log" if rank == 0 else None)
        reports.log_start(log, config, train_store, val_store, test_store, counts, device)
        board = None

        for k, n_labelled in enumerate(counts):
            if iterations.is_complete(folder, k):
                continue
            # 3. What is labelled: the first set here, later ones by the last iteration's query
            if rank == k == 0 and not (folder_of(folder, 0) / "labeled_indices.json").exists():
                seed = config.training.seed
                drawn = strategies.initial_set(len(train_store), n_labelled, seed)
                first = drawn if given is None else given
                iterations.write_labelled(folder, 0, train_store, first, first, None)
            distributed.wait_for_all()
            labelled = iterations.read_labelled(folder, k, train_store)

            # 4. Train, or go on training; then its best weights, on validation and on test
            network, progress, optimizer = begin_iteration(config, folder, k, device, log)
            n_epochs_done = k * config.training.epochs + progress.epoch
            if rank == 0 and board is None:
                board = open_board(folder, n_epochs_done)
                stack.callback(board.close)
            reports.log_iteration_start(log, k, counts, labelled, train_store, progress)
            with reading_workers():
                train(
                    config, folder, progress, network, optimizer, train_store, labelled, val_store,
                    device, log, board, args.num_workers,
                )  # fmt: skip
            allow_stop()  # not before the loader is gone, whose __del__ would swallow it
            distributed.wait_for_all()
            best_path = folder_of(folder, k) / "best_model.pt"
            best = runs.load_checkpoint(best_path, device)
            checkpoints.require(best, best_path, epoch=int)
            checkpoints.require_figures(best.get("val"), PIXEL_METRICS, best_path)
            runs.load_weights(network, best.get("network"), best_path)
            figures = {
                "iteration": k,
                **best["val"],
                "threshold": 0.5,  # of f1_score, precision, recall and iou
                "best_epoch": best["epoch"],
                "num_labeled": len(labelled),
                "num_pool": len(train_store),
                "data_fraction": len(labelled) / len(train_store),
                "num_particles_labeled": int(train_store.n_particles[labelled].sum()),
                "num_particles_pool": int(train_store.n_particles.sum()),
                "optimizer_steps": progress.step,
                "train_seconds": progress.train_seconds,
                "val_images": len(val_store),
                "test_images": len(test_store) if test_store else None,
                "test": evaluate(config, network, test_store, device) if test_store else None,
            }

            # 5. The query for the next iteration; metrics.json last: it says "complete"
            figures["query_seconds"] = None
            if k + 1 < len(counts):
                n_new = counts[k + 1] - n_labelled
                figures["query_seconds"] = query(
                    config, folder, k, network, train_store, labelled, n_new, device, log, board
                )
            if rank == 0:
                write_json(folder_of(folder, k) / "metrics.json", figures)
                reports.log_iteration_end(log, board, figures)
        log(f"Finished {folder}; compare runs with: python analyze_active_learning_results.py")


def resolve_config(args: argparse.Namespace) -> ActiveConfig:
    """Return the config: the file, then --set, then the flags."""
    given = {key: getattr(args, flag) for flag, key in FLAGS.items()}
    overrides = [f"{key}={json.dumps(v)}" for key, v in given.items() if v is not None]
    if args.no_warmstart or args.shrink_perturb:
        start = "scratch" if args.no_warmstart else "shrink_perturb"
        overrides.append(f"active_learning.start={start}")
    config = read_config(args.config, [*args.set, *overrides], ActiveConfig)
    settings = config.active_learning
    if settings.strategy != FULL:
        strategies.strategy(settings.strategy)  # raises for one that is not known
        return config
    n_epochs = settings.full_epochs if args.epochs is None else args.epochs
    once = dataclasses.replace(settings, iterations=1, initial_fraction=1.0, initial_labelled=None)
    training = dataclasses.replace(config.training, epochs=n_epochs)
    return dataclasses.replace(config, active_learning=once, training=training)


def train(
    config: ActiveConfig,
    folder: Path,
    progress: Progress,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    train_store: SegmentationStore,
    labelled: np.ndarray,
    val_store: SegmentationStore,
    device: torch.device,
    log: runs.Log,
    board: Any,
    n_workers: int,
) -> None:
    """Run an iteration's epochs that are left; leaves its best_model.pt and last.pt."""
    k, training = progress.iteration, config.training
    rank, world_size = distributed.place()
    model = torch.compile(network) if training.compile else network
    model = distributed.with_shared_gradients(model)
    labelled_images = CryoEMSegmentationDataset(
        train_store.images, train_store.masks, is_training=True, rows=labelled
    )
    unlabeled = np.setdiff1d(np.arange(len(train_store)), labelled)
    weight = config.consistency.weight
    if weight and not len(unlabeled):
        log("No image of the pool is without a label: consistency is off")
        weight = 0.0
    dataset: Dataset = WithUnlabeled(labelled_images) if weight else labelled_images
    n_steps = math.ceil(len(labelled) / training.batch_size)
    batches: list = []  # of the epoch under way, so that workers last the iteration
    loader = batch_loader(dataset, batches, n_workers, device)
    if rank == 0:
        runs.keep_metrics(folder / "metrics.jsonl", k * training.epochs + progress.epoch)

    while progress.epoch < training.epochs:
        allow_stop()
        # Batches of one size: the last one is filled up from the start of the permutation
        order = stream(training.seed, "order", k, progress.epoch).permutation(len(labelled))
        whole = np.resize(order, (n_steps, training.batch_size))
        batches[:] = np.split(whole, world_size, axis=1)[rank][progress.batch :]
        if weight:
            n_joining = config.consistency.ratio * training.batch_size
            batches[:] = with_unlabeled(
                batches, unlabeled, n_joining, progress.batch, training.seed, k, progress.epoch
            )
        val, is_best = None, False
        epoch = progress.epoch + 1
        so_far = [getattr(progress, name) for name in STEP_FIGURES]
        totals = torch.tensor(so_far, dtype=torch.float64, device=device)
        try:
            figures = train_one_epoch(
                config, progress, model, optimizer, loader, n_steps, totals, device, weight
            )
            distributed.take_buffers_of_first(network)
            if epoch == training.epochs or epoch % training.evaluate_every_epochs == 0:
                val = evaluate(config, network, val_store, device)
            hold_stop()  # until last.pt is written
        except STOPPED:  # between two steps, or after the last
            if world_size == 1 and runs.all_finite(totals, *network.parameters()):
                progress.loss, progress.consistency_loss, progress.mask_rate = totals.tolist()
                iterations.save_last(folder, progress, network, optimizer)
            raise
        progress.epoch, progress.batch = epoch, 0
        progress.loss = progress.consistency_loss = progress.mask_rate = 0.0
        if val is not None:
            # AP decides while nothing is called a particle yet and F1 stands at 0
            reached = (val["f1_score"] or 0.0, val["ap"] or 0.0)
            is_best = reached > progress.best
            if is_best:
                progress.best, progress.best_epoch = reached, progress.epoch
        if rank != 0:
            continue
        figures = {"iteration": k, "epoch": progress.epoch, "step": progress.step, **figures}
        figures["val"] = val
        reports.log_epoch(log, board, figures, training.epochs, is_best)
        # last.pt is written last: until then a killed run does this epoch again
        if is_best:
            iterations.save_best(folder, progress, plain(config), train_store, network, val)
        runs.add_metrics(folder / "metrics.jsonl", figures)
        iterations.save_last(folder, progress, network, optimizer)


def train_one_epoch(
    config: ActiveConfig,
    progress: Progress,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: DataLoader,
    n_steps: int,
    totals: torch.Tensor,
    device: torch.device,
    consistency_weight: float = 0.0,
) -> dict[str, float]:
    """Take the steps that are left of an epoch; return its mean losses and last learning rate.

    totals: float64 (3,), sums of `STEP_FIGURES` over the epoch so far, which are gone on with.
    consistency_weight: λ; unless it is 0 the loader's batches bring unlabeled images.
    """
    training = config.training
    terms = loss_terms(config)
    generator = torch.Generator(device)
    _, world_size = distributed.place()
    first_bad = torch.full((), -1, device=device)  # first step with a number that is not finite
    weights = list(model.parameters())  # looked for once, not in every step
    model.train()
    started = time.monotonic()

    for batch in reports.progress_bar(loader, progress):
        if world_size == 1:  # else none may wait for another that has left already
            hold_stop()  # a step is taken whole
        i = progress.batch
        step = progress.epoch * n_steps + i  # of this iteration
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step, training.epochs * n_steps)
        # A stream of its own for every step: nothing depends on what was drawn before
        generator.manual_seed(
            stream_seed(training.seed, "warp", progress.iteration, progress.epoch, i)
        )

        x, masks = to_input(batch, config, generator, device)
        if consistency_weight:
            generator.manual_seed(
                stream_seed(training.seed, "pool views", progress.iteration, progress.epoch, i)
            )
            weak, strong, inside = unlabeled_views(batch, config, generator, device)
            with torch.no_grad(), autocast(training.precision, device):
                z_weak = model(weak)
            # One forward on labelled and strong, so that batch norm sees one distribution
            x = torch.cat([x, strong])
        with autocast(training.precision, device):
            z = model(x)
        if consistency_weight:
            z, z_strong = z.split([len(masks), len(strong)])
        loss = focal_dice(z.float(), masks, **terms, whole=distributed.sum_of_all)

        # FixMatch: pseudo-labels from the weak views teach the strong ones
        if consistency_weight:
            consistency, mask_rate = pixel_consistency(
                z_weak.float(), z_strong.float(), inside, config.consistency.threshold,
                whole=distributed.sum_of_all,
            )  # fmt: skip
            consistency = consistency_weight * consistency
            loss = loss + consistency
            totals[1:] += torch.stack([consistency.detach(), mask_rate])

        # Every process has the loss of the whole batch, and gradients are averaged
        optimizer.zero_grad(set_to_none=True)
        (loss * world_size).backward()
        largest_norm = config.optimizer.grad_clip or math.inf
        norm = nn.utils.clip_grad_norm_(weights, largest_norm)
        optimizer.step()

        progress.step, progress.batch = progress.step + 1, i + 1
        progress.train_seconds += (now := time.monotonic()) - started
        started = now
        totals[0] += loss.detach()
        finite = torch.isfinite(loss.detach() + norm)
        first_bad = torch.where((first_bad < 0) & ~finite, i, first_bad)
        allow_stop()
    if int(first_bad) >= 0:
        raise UserError(
            f"the loss or its gradient was not finite in iteration {progress.iteration}, epoch "
            f"{progress.epoch + 1}, batch {int(first_bad) + 1}: lower --learning-rate or set "
            "training.precision=fp32; the checkpoints from before are kept"
        )
    last_rate = learning_rate(config, (progress.epoch + 1) * n_steps - 1, training.epochs * n_steps)
    means = dict(zip(STEP_FIGURES, (totals / n_steps).tolist(), strict=True))
    if not consistency_weight:
        means = {"loss": means["loss"]}
    return {**means, "lr": last_rate}


def to_input(
    batch: SegmentationBatch, config: ActiveConfig, generator: torch.Generator, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring a batch to the device, standardise it and, if it is marked for training, augment it.

    Returns float32 (B, 1, H, W) and uint8 (B, H, W), 255 where a warp brought in the outside.
    """
    images = torch.as_tensor(batch.images).to(device, non_blocking=True)
    masks = torch.as_tensor(batch.masks).to(device, non_blocking=True)
    if batch.is_training:
        return warp(images, masks, generator, config.augmentation, distributed.place())
    return to_float(images), masks


def unlabeled_views(
    batch: SegmentationBatch, config: ActiveConfig, generator: torch.Generator, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Bring a batch's unlabeled images to the device and make `two_views` of them.

    Returns the weak and the strong view, float32 (U, 1, H, W), and bool (U, H, W), True inside.
    """
    images = torch.as_tensor(batch.unlabeled).to(device, non_blocking=True)
    strength = config.consistency.strength
    return two_views(images, generator, config.augmentation, strength, distributed.place())


def loss_terms(config: ActiveConfig) -> dict[str, float]:
    """Return the arguments of `focal_dice`: the preset's, or numbers of the config."""
    given = dataclasses.asdict(config.loss)
    preset = SEGMENTATION_PRESETS[given.pop("preset")]
    return {**preset, **{key: value for key, value in given.items() if value is not None}}


def learning_rate(config: ActiveConfig, step: int, n_steps: int) -> float:
    """Return the rate of a step: half a cosine from lr to lr * final_lr_share."""
    highest = config.optimizer.lr
    lowest = highest * config.optimizer.final_lr_share
    return lowest + (highest - lowest) * 0.5 * (1 + math.cos(math.pi * step / n_steps))


def evaluate(
    config: ActiveConfig, network: nn.Module, store: SegmentationStore, device: torch.device
) -> dict[str, float | None]:
    """Return the figures over all pixels of a split."""
    training = config.training
    return evaluate_pixels(network, store, training.eval_batch_size, training.precision, device)


if __name__ == "__main__":
    run_script(main)
