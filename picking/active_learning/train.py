"""The epochs of an iteration: focal and Dice loss, and FixMatch on the pool if asked for.

The method is `train_one_epoch`.
"""

import dataclasses
import logging
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter

from picking.active_learning import log
from picking.active_learning.iterations import STEP_METRICS, save_best, save_last
from picking.active_learning.unlabeled import (
    WithUnlabeled,
    running_statistics_kept,
    unlabeled_views,
    with_unlabeled,
)
from picking.config import ActiveConfig, plain
from picking.errors import raise_if_stopped
from picking.parallel import batch_loader
from picking.runs import distributed
from picking.runs.folder import add_metrics, keep_metrics
from picking.seeds import stream
from picking.stores.segmentation import CryoEMSegmentationDataset, SegmentationBatch, Splits
from picking.training import loop
from picking.training.augment import to_float
from picking.training.loop import State
from picking.training.losses import SEGMENTATION_PRESETS, focal_dice, pixel_consistency
from picking.training.scoring import autocast, evaluate_pixels
from picking.training.warps import warp

logger = logging.getLogger(__name__)


def train(
    config: ActiveConfig,
    folder: Path,
    state: State,
    splits: Splits,
    labelled: np.ndarray,
    n_workers: int,
    board: SummaryWriter | None,
) -> None:
    """Run an iteration's epochs that are left; leaves its best_model.pt and last.pt.

    folder: of the run. state: where the iteration stands. splits: the pool and what is held out.
    labelled: int64 (n,), positions in the pool. n_workers: processes that read; 0: none. board:
    TensorBoard's writer, None but in the first process.
    """
    progress, training, device = state.progress, config.training, state.totals.device
    model = loop.trained(state.network, training.compile)
    pool = splits.train
    images = CryoEMSegmentationDataset(pool.images, pool.masks, is_training=True, rows=labelled)
    unlabeled = np.setdiff1d(np.arange(len(pool)), labelled)
    weight = config.consistency.weight
    if weight and not len(unlabeled):
        logger.info("No image of the pool is without a label: consistency is off")
        weight = 0.0
    dataset: Dataset = WithUnlabeled(images) if weight else images
    n_steps = math.ceil(len(labelled) / training.batch_size)
    batches: list = []  # of the epoch under way, so that workers last the iteration
    loader = batch_loader(dataset, batches, n_workers, device)
    keep_metrics(folder / "metrics.jsonl", progress.iteration * training.epochs + progress.epoch)

    while progress.epoch < training.epochs:
        raise_if_stopped()
        batches[:] = positions_left(config, progress, len(labelled), unlabeled if weight else None)
        epoch, val = progress.epoch + 1, None
        with loop.saving_on_stop(state, lambda: save_last(folder, state)):
            train_one_epoch(config, state, model, loader, n_steps, weight)
            distributed.take_buffers_of_first(state.network)
            if epoch == training.epochs or epoch % training.evaluate_every_epochs == 0:
                val = evaluate_pixels(state.network, splits.val, training, device)
        means = dict(zip(STEP_METRICS, (state.totals / n_steps).tolist(), strict=True))
        loop.end_epoch(state)
        # AP decides while nothing is called a particle yet and F1 stands at 0
        is_best = val is not None and loop.note_best(
            progress, (val["f1_score"] or 0.0, val["ap"] or 0.0)
        )
        metrics = {
            "iteration": progress.iteration,
            "epoch": epoch,
            "step": progress.step,
            **(means if weight else {"loss": means["loss"]}),
            "lr": learning_rate(config, epoch * n_steps - 1, training.epochs * n_steps),
            "val": val,
        }
        log.log_epoch(board, metrics, training.epochs, is_best)
        # last.pt is written last: until then a killed run does this epoch again
        if val is not None and is_best:
            save_best(folder, state, plain(config), pool, val)
        add_metrics(folder / "metrics.jsonl", metrics)
        save_last(folder, state)


def positions_left(
    config: ActiveConfig, progress: loop.Progress, n_labelled: int, unlabeled: np.ndarray | None
) -> list:
    """Return this process's batches that are left of an epoch: positions among the labelled.

    unlabeled: int64 (u,), positions in the pool, of which some join each batch; None: none do.
    """
    training, (rank, world_size) = config.training, distributed.place()
    n_steps = math.ceil(n_labelled / training.batch_size)
    where = (progress.iteration, progress.epoch)
    order = stream(training.seed, "order", *where).permutation(n_labelled)
    # Batches of one size: the last one is filled up from the start of the permutation
    whole = np.resize(order, (n_steps, training.batch_size))
    batches = list(np.split(whole, world_size, axis=1)[rank][progress.batch :])
    if unlabeled is None:
        return batches
    n_joining = config.consistency.ratio * training.batch_size
    return with_unlabeled(batches, unlabeled, n_joining, training.seed, (*where, progress.batch))


def train_one_epoch(
    config: ActiveConfig,
    state: State,
    model: nn.Module,
    loader: DataLoader,
    n_steps: int,
    consistency_weight: float = 0.0,
) -> None:
    """Take the steps that are left of an epoch; add up `STEP_METRICS` in state.totals.

    model: calls state.network, compiled or shared. n_steps: of a whole epoch. consistency_weight:
    λ; unless it is 0 the loader's batches bring unlabeled images.
    """
    training, progress, device = config.training, state.progress, state.totals.device
    terms = loss_terms(config)
    model.train()

    title = f"Iteration {progress.iteration} epoch {progress.epoch + 1}"
    for batch in loop.batches_left(state, loader, title, n_steps):
        step = progress.epoch * n_steps + progress.batch  # of this iteration
        loop.set_rate(state.optimizer, learning_rate(config, step, training.epochs * n_steps))
        where = (progress.iteration, progress.epoch, progress.batch)
        generator = loop.generator(device, training.seed, "warp", *where)
        x, masks = to_input(batch, config, generator, device)
        if consistency_weight:
            generator = loop.generator(device, training.seed, "pool views", *where)
            weak, strong, inside = unlabeled_views(batch, config, generator, device)
            keep = running_statistics_kept(model)
            with torch.no_grad(), keep, autocast(training.precision, device):
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
            state.totals[1:] += torch.stack([consistency.detach(), mask_rate])

        loop.take_step(state, loss, config.optimizer.grad_clip)
        state.totals[0] += loss.detach()


def to_input(
    batch: SegmentationBatch, config: ActiveConfig, generator: torch.Generator, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Bring a batch to the device and, if it is marked for training, augment it.

    Returns float32 (B, 1, H, W) and uint8 (B, H, W), 255 where a warp brought in the outside.
    """
    images = torch.as_tensor(batch.images).to(device, non_blocking=True)
    masks = torch.as_tensor(batch.masks).to(device, non_blocking=True)
    if batch.is_training:
        return warp(images, masks, generator, config.augmentation, distributed.place())
    return to_float(images), masks


def loss_terms(config: ActiveConfig) -> dict[str, float]:
    """Return the arguments of `focal_dice`: the preset's, or numbers of the config."""
    given = dataclasses.asdict(config.loss)
    preset = SEGMENTATION_PRESETS[given.pop("preset")]
    return {**preset, **{key: value for key, value in given.items() if value is not None}}


def learning_rate(config: ActiveConfig, step: int, n_steps: int) -> float:
    """Return the rate of a step: half a cosine from lr to lr * final_lr_share."""
    highest = config.optimizer.lr
    return loop.cosine(step, n_steps, highest, highest * config.optimizer.final_lr_share)
