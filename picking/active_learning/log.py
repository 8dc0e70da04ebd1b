"""What an active-learning run tells its user: log lines and TensorBoard."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from picking.active_learning.iterations import FULL, Progress
from picking.config import ActiveConfig
from picking.mask_values import IGNORE
from picking.runs import distributed
from picking.runs.folder import Log
from picking.stores.segmentation import SegmentationStore
from picking.training.augment import to_float

N_SHOWN = 4  # queried images in TensorBoard
VAL_TAGS = {
    "f1_score": "Val/F1",
    "precision": "Val/Precision",
    "recall": "Val/Recall",
    "iou": "Val/IoU",
    "auc": "Val/AUC",
    "ap": "Val/AP",
}


def progress_bar(batches: Iterable, progress: Progress) -> Iterable:
    """Return ``batches`` behind a tqdm bar, on the first process's terminal only."""
    from tqdm import tqdm

    rank, _ = distributed.place()
    title = f"Iteration {progress.iteration} epoch {progress.epoch + 1}"
    return tqdm(batches, desc=title, disable=True if rank else None, leave=False)


def log_start(
    log: Log,
    config: ActiveConfig,
    train_store: SegmentationStore,
    val_store: SegmentationStore,
    test_store: SegmentationStore | None,
    counts: list[int],
    device: torch.device,
) -> None:
    """Log what is about to be run, and how training goes on from one iteration to the next."""
    settings, model = config.active_learning, config.model
    how = {
        "warm": "from the last iteration's best weights",
        "scratch": "from new weights",
        "shrink_perturb": "from the last iteration's best weights, shrunk and perturbed",
    }
    _, world_size = distributed.place()
    log(f"Strategy: {settings.strategy}   seed {config.training.seed}")
    log(f"Device: {device}, {world_size} process(es)")
    log(f"Network: {model.name}, width {model.width}, depth {model.depth}")
    log(
        f"Pool: {len(train_store):,} images of {train_store.size_px} px in {train_store.folder}, "
        f"{train_store.n_particles.sum():,} particles"
    )
    log(f"Validation: {len(val_store):,} images in {val_store.folder}")
    log(f"Test: {len(test_store):,} images in {test_store.folder}" if test_store else "Test: none")
    if settings.strategy != FULL:
        log(f"Labelled images: {', '.join(f'{n:,}' for n in counts)}")
        log(f"Each iteration trains {how[settings.start]}; no early stopping")
        log(
            f"Target: F1 {settings.target_f1:.4f} on the full data set; on other data what "
            "--strategy full reaches"
        )
    consistency = config.consistency
    if consistency.weight:
        log(
            f"Consistency on the pool: weight {consistency.weight:g}, threshold "
            f"{consistency.threshold:g}, {consistency.ratio} unlabeled image(s) for each labelled "
            f"one, strong views of strength {consistency.strength:g}"
        )
    log(
        f"{config.training.epochs} epochs of batches of {config.training.batch_size}, AdamW and "
        f"cosine anew in every iteration, lr {config.optimizer.lr:g}"
    )


def log_iteration_start(
    log: Log,
    k: int,
    counts: list[int],
    labelled: np.ndarray,
    store: SegmentationStore,
    progress: Progress,
) -> None:
    """Log the set that an iteration trains on."""
    n_new = counts[k] - (counts[k - 1] if k else 0)
    log(
        f"Iteration {k} ({k + 1} of {len(counts)}): {len(labelled):,} of {len(store):,} images "
        f"({len(labelled) / len(store):.1%}), {n_new:,} of them new; "
        f"{store.n_particles[labelled].sum():,} particles; {progress.step:,} steps so far"
    )


def log_epoch(log: Log, board: SummaryWriter, figures: dict, n_epochs: int, is_best: bool) -> None:
    """Log an epoch's line and write its scalars."""
    k, epoch, val = figures["iteration"], figures["epoch"], figures["val"]
    line = f"  Epoch {epoch}/{n_epochs}  loss {figures['loss']:.4f}  "
    at = k * n_epochs + epoch
    board.add_scalar("Loss/Train", figures["loss"], at)
    if "consistency_loss" in figures:
        consistency, mask_rate = figures["consistency_loss"], figures["mask_rate"]
        line += f"consistency {consistency:.4f}  mask rate {mask_rate:.1%}  "
        board.add_scalar("Loss/Consistency", consistency, at)
        board.add_scalar("Mask Rate/Total", mask_rate, at)
    line += f"lr {figures['lr']:.2e}"
    board.add_scalar("Train/Learning Rate", figures["lr"], at)
    board.add_scalar("Train/Iteration", k, at)
    if val is not None:
        line += "".join(
            f"  {name} {shown(val[key])}"
            for name, key in (
                ("val F1", "f1_score"), ("precision", "precision"), ("recall", "recall"),
                ("IoU", "iou"), ("AP", "ap"),
            )
        )  # fmt: skip
        for name, tag in VAL_TAGS.items():
            if val[name] is not None:
                board.add_scalar(tag, val[name], at)
    board.flush()  # before last.pt counts the epoch
    log(line + ("  *** best ***" if is_best else ""))
    if epoch == n_epochs and val is not None:
        share = called_share(val)
        if share == 0:
            log(
                "  WARNING: nothing in the validation images is called a particle: train longer, "
                "or raise loss.alpha or --learning-rate"
            )
        elif share > 0.99:
            log(
                f"  WARNING: {share:.1%} of the validation pixels are called particle: train "
                "longer, or lower loss.alpha or --learning-rate"
            )


def called_share(figures: dict) -> float:
    """Return the share of the pixels that are called particle, 0 where no true one is."""
    if not figures["precision"] or not figures["recall"]:
        return 0.0
    return figures["recall"] * figures["base_rate"] / figures["precision"]


def log_iteration_end(log: Log, board: SummaryWriter, figures: dict) -> None:
    """Log and plot what an iteration reached, against the share of labelled images."""
    k = figures["iteration"]
    line = (
        f"Iteration {k} complete: val F1 {shown(figures['f1_score'])} with "
        f"{figures['data_fraction']:.1%} of the images, best epoch {figures['best_epoch']}, "
        f"{figures['train_seconds']:.0f} s of training"
    )
    percent = round(100 * figures["data_fraction"])
    for where, part in (("val", figures), ("test", figures["test"])):
        if part is None or part["f1_score"] is None:
            continue
        board.add_scalar(f"Iteration/{where} F1", part["f1_score"], k)
        board.add_scalar(f"Labelled share (percent)/{where} F1", part["f1_score"], percent)
    if figures["test"] is not None:
        line += f"; test F1 {shown(figures['test']['f1_score'])}"
    board.flush()
    log(line)


def report_query(
    log: Log,
    board: SummaryWriter,
    k: int,
    strategy: str,
    store: SegmentationStore,
    rows: np.ndarray,
    chosen: np.ndarray,
    scores: np.ndarray,
    shared: dict[str, float],
    network: nn.Module,
    seconds: float,
    device: torch.device,
) -> None:
    """Log what was queried; write scores, images and the overlap with other strategies.

    rows: int64 (n,), the unlabelled images; chosen: positions in it; scores: (n,); shared: the
    other strategies' names with the share of the query that they would have chosen too.
    """
    new = rows[chosen]
    log(
        f"Queried {len(new):,} of {len(rows):,} images by {strategy} in {seconds:.1f} s; scores "
        f"{scores[chosen].max():.4g} to {scores[chosen].min():.4g}, median of all "
        f"{np.median(scores):.4g}"
    )
    names = ", ".join(store.names[i] for i in new[:3])
    log(f"  {names}{', ...' if len(new) > 3 else ''}")
    if shared:
        parts = ", ".join(f"{name} {share:.0%}" for name, share in shared.items())
        log(f"  Others would have chosen of these: {parts}")
    board.add_histogram("Query/Scores of the pool", scores, k)
    board.add_histogram("Query/Scores of the queried", scores[chosen], k)
    for name, share in shared.items():
        board.add_scalar(f"Query overlap/{name}", share, k)
    panel = query_panel(store, new[:N_SHOWN], network, device)
    board.add_image("Query/Image, prediction, uncertainty, truth", panel, k, dataformats="HW")


@torch.no_grad()
def query_panel(
    store: SegmentationStore, rows: np.ndarray, network: nn.Module, device: torch.device
) -> np.ndarray:
    """Return a picture of queried images, uint8 (n h, 4 w): a row each of what its name says."""
    network.eval()
    images = torch.as_tensor(store.images[rows]).to(device)
    p = torch.sigmoid(network(to_float(images)).float().squeeze(1))
    masks = torch.as_tensor(store.masks[rows]).to(device)
    truth = (255 * (masks == 1) + 128 * (masks == IGNORE)).float()
    uncertainty = 2 * torch.minimum(p, 1 - p)
    parts = [images.float(), 255 * p, 255 * uncertainty, truth]
    return torch.cat(parts, dim=2).flatten(0, 1).byte().cpu().numpy()


def shown(value: Any) -> str:
    """Return a figure with four digits, or none."""
    return "none" if value is None else f"{value:.4f}"
