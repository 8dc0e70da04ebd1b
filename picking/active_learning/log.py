"""What an active-learning run tells its user: log lines and TensorBoard."""

import logging

import numpy as np
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from picking.active_learning.iterations import FULL
from picking.config import ActiveConfig
from picking.mask_values import IGNORE
from picking.micrographs.preparation import visible
from picking.runs import distributed
from picking.runs.log import shown
from picking.stores.segmentation import SegmentationStore, Splits
from picking.training.augment import to_float
from picking.training.loop import Progress

logger = logging.getLogger(__name__)

N_SHOWN = 4  # queried images in TensorBoard
# The name in metrics.jsonl -> TensorBoard's
EPOCH_TAGS = {
    "loss": "Loss/Train",
    "consistency_loss": "Loss/Consistency",
    "mask_rate": "Mask Rate/Total",
    "lr": "Train/Learning Rate",
    "iteration": "Train/Iteration",
}
VAL_TAGS = {
    "f1_score": "Val/F1",
    "precision": "Val/Precision",
    "recall": "Val/Recall",
    "iou": "Val/IoU",
    "auc": "Val/AUC",
    "ap": "Val/AP",
}


def log_start(
    config: ActiveConfig, splits: Splits, counts: list[int], device: torch.device
) -> None:
    """Log what is about to be run, and how training goes on from one iteration to the next."""
    settings, model, training = config.active_learning, config.model, config.training
    how = {
        "warm": "from the last iteration's best weights",
        "scratch": "from new weights",
        "shrink_perturb": "from the last iteration's best weights, shrunk and perturbed",
    }
    _, world_size = distributed.place()
    pool, val, test = splits
    tested = f"{len(test):,} images in {test.folder}" if test else "none"
    logger.info(
        f"Strategy: {settings.strategy}   seed {training.seed}\n"
        f"Device: {device}, {world_size} process(es)\n"
        f"Network: {model.name}, width {model.width}, depth {model.depth}\n"
        f"Pool: {len(pool):,} images of {pool.size_px} px in {pool.folder}, "
        f"{pool.n_particles.sum():,} particles\n"
        f"Validation: {len(val):,} images in {val.folder}\n"
        f"Test: {tested}"
    )
    if settings.strategy != FULL:
        logger.info(
            f"Labelled images: {', '.join(f'{n:,}' for n in counts)}\n"
            f"Each iteration trains {how[settings.start]}; no early stopping\n"
            f"Target: F1 {settings.target_f1:.4f} on the full data set; on other data what "
            "--strategy full reaches"
        )
    consistency = config.consistency
    if consistency.weight:
        logger.info(
            f"Consistency on the pool: weight {consistency.weight:g}, threshold "
            f"{consistency.threshold:g}, {consistency.ratio} unlabeled image(s) for each labelled "
            f"one, strong views of strength {consistency.strength:g}"
        )
    logger.info(
        f"{training.epochs} epochs of batches of {training.batch_size}, AdamW and "
        f"cosine anew in every iteration, lr {config.optimizer.lr:g}"
    )


def log_iteration_start(
    k: int,
    counts: list[int],
    labelled: np.ndarray,
    store: SegmentationStore,
    progress: Progress,
) -> None:
    """Log the set that an iteration trains on."""
    n_new = counts[k] - (counts[k - 1] if k else 0)
    logger.info(
        f"Iteration {k} ({k + 1} of {len(counts)}): {len(labelled):,} of {len(store):,} images "
        f"({len(labelled) / len(store):.1%}), {n_new:,} of them new; "
        f"{store.n_particles[labelled].sum():,} particles; {progress.step:,} steps so far"
    )


def log_epoch(board: SummaryWriter | None, metrics: dict, n_epochs: int, is_best: bool) -> None:
    """Log an epoch's line and write its scalars, where there is a board."""
    k, epoch, val = metrics["iteration"], metrics["epoch"], metrics["val"]
    if board is not None:
        for values, tags in ((metrics, EPOCH_TAGS), (val or {}, VAL_TAGS)):
            for name, tag in tags.items():
                if values.get(name) is not None:
                    board.add_scalar(tag, values[name], k * n_epochs + epoch)
        board.flush()  # before last.pt counts the epoch
    line = f"  Epoch {epoch}/{n_epochs}  loss {metrics['loss']:.4f}  "
    if "consistency_loss" in metrics:
        line += f"consistency {metrics['consistency_loss']:.4f}  "
        line += f"mask rate {metrics['mask_rate']:.1%}  "
    line += f"lr {metrics['lr']:.2e}"
    if val is not None:
        line += f"  val F1 {shown(val['f1_score'])}  precision {shown(val['precision'])}"
        line += f"  recall {shown(val['recall'])}  IoU {shown(val['iou'])}  AP {shown(val['ap'])}"
    logger.info(line + ("  *** best ***" if is_best else ""))
    if epoch == n_epochs and val is not None:
        fraction = called_fraction(val)
        if fraction == 0:
            logger.warning(
                "  WARNING: nothing in the validation images is called a particle: train longer, "
                "or raise loss.alpha or --learning-rate"
            )
        elif fraction > 0.99:
            logger.warning(
                f"  WARNING: {fraction:.1%} of the validation pixels are called particle: train "
                "longer, or lower loss.alpha or --learning-rate"
            )


def called_fraction(metrics: dict) -> float:
    """Return the fraction of the pixels that are called particle, 0 where no true one is."""
    if not metrics["precision"] or not metrics["recall"]:
        return 0.0
    return metrics["recall"] * metrics["base_rate"] / metrics["precision"]


def log_iteration_end(board: SummaryWriter | None, metrics: dict) -> None:
    """Log and plot what an iteration reached, against the fraction of labelled images."""
    k, test = metrics["iteration"], metrics["test"]
    logger.info(
        f"Iteration {k} complete: val F1 {shown(metrics['f1_score'])} with "
        f"{metrics['data_fraction']:.1%} of the images, best epoch {metrics['best_epoch']}, "
        f"{metrics['train_seconds']:.0f} s of training"
        + (f"; test F1 {shown(test['f1_score'])}" if test else "")
    )
    if board is None:
        return
    percent = round(100 * metrics["data_fraction"])
    for where, part in (("val", metrics), ("test", test)):
        if part is not None and part["f1_score"] is not None:
            board.add_scalar(f"Iteration/{where} F1", part["f1_score"], k)
            board.add_scalar(f"Labelled share (percent)/{where} F1", part["f1_score"], percent)
    board.flush()


def log_query(
    board: SummaryWriter | None,
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

    board: TensorBoard's writer, None but in the first process. k: the iteration. store: the pool.
    rows: int64 (n,), its unlabeled images; chosen: int64 (m,), positions in rows; scores: (n,), of
    the strategy. shared: the other strategies' names with the fraction of the query that they would
    have chosen too. network, device: the best of iteration k, and where it is. seconds: taken.
    """
    new = rows[chosen]
    logger.info(
        f"Queried {len(new):,} of {len(rows):,} images by {strategy} in {seconds:.1f} s; scores "
        f"{scores[chosen].max():.4g} to {scores[chosen].min():.4g}, median of all "
        f"{np.median(scores):.4g}"
    )
    names = ", ".join(store.names[i] for i in new[:3])
    logger.info(f"  {names}{', ...' if len(new) > 3 else ''}")
    if shared:
        parts = ", ".join(f"{name} {part:.0%}" for name, part in shared.items())
        logger.info(f"  Others would have chosen of these: {parts}")
    if board is None:
        return
    board.add_histogram("Query/Scores of the pool", scores, k)
    board.add_histogram("Query/Scores of the queried", scores[chosen], k)
    for name, part in shared.items():
        board.add_scalar(f"Query overlap/{name}", part, k)
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
    parts = [255 * p, 255 * uncertainty, truth]
    said = torch.cat(parts, dim=2).byte().cpu().numpy()
    seen = np.concatenate([visible(store.images[rows]), said], axis=2)
    return seen.reshape(-1, seen.shape[2])
