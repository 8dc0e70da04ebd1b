"""TensorBoard: scalars, PR curve, score histograms, the worst patches, hyperparameters."""

from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from picking.config import PUConfig, plain
from picking.micrographs.preparation import visible
from picking.stores.patches import PatchStore

N_WORST = 16  # of each class
# metrics.jsonl's name -> TensorBoard's
TRAIN_TAGS = {
    "train_loss": "Loss/Train",
    "pu_loss": "Loss/PU",
    "consistency_loss": "Loss/Consistency",
    "lr": "Train/Learning Rate",
    "mask_rate": "Mask Rate/Total",
    "mask_rate_positive": "Mask Rate/Pseudo-positives",
    "mask_rate_negative": "Mask Rate/Pseudo-negatives",
    "pseudo_positive_share": "Train/Pseudo-positive share",
    "mean_probability": "Train/Mean probability",
    "clipped_step_share": "Train/Clipped steps",
    "predicted_positive_share": "Train/Predicted positive share",
    "logit_std": "Train/Logit deviation",
}
VAL_TAGS = {
    "auc": "Val/AUC",
    "ap": "Val/AP",
    "precision": "Val/Precision",
    "recall": "Val/Recall",
    "f1": "Val/F1",
    "specificity": "Val/Specificity",
    "balanced_accuracy": "Val/Balanced accuracy",
    "ece": "Val/Calibration error",
    "predicted_positive_share": "Val/Predicted positive share",
}


def write_epoch(
    board: SummaryWriter | None,
    metrics: dict,
    unlabeled_prior: float,
    store: PatchStore,
    probability: np.ndarray,
    is_best: bool,
) -> None:
    """Write an epoch's scalars and, of a new best model, curve, histograms and worst patches.

    board: None writes nothing. store: the validation split; probability: float (n,), its scores.
    """
    if board is None:
        return
    epoch = metrics["epoch"]
    for source, tags in ((metrics, TRAIN_TAGS), (metrics["val"], VAL_TAGS)):
        for name, tag in tags.items():
            if source[name] is not None:
                board.add_scalar(tag, source[name], epoch)
    board.add_scalar("Train/Unlabeled prior", unlabeled_prior, epoch)
    if is_best:
        positive = store.label == 1
        board.add_pr_curve("Val/PR curve", positive, probability, epoch)
        for name, rows in (
            ("labelled", store.labeled),
            ("hidden", positive & ~store.labeled),
            ("negative", ~positive),
        ):
            if rows.any():
                board.add_histogram(f"Val scores/{name}", probability[rows], epoch)
        for name, panel in worst_patches(store, probability).items():
            board.add_image(f"Val worst/{name}", panel, epoch, dataformats="NHWC")
    board.flush()


def worst_patches(store: PatchStore, probability: np.ndarray) -> dict[str, np.ndarray]:
    """Return the lowest-scored positives and highest-scored negatives, uint8 (n, p, p, 1)."""
    order = np.argsort(probability, kind="stable")
    positive = store.label[order] == 1
    worst = {
        "lowest positives": order[positive][:N_WORST],
        "highest negatives": order[~positive][::-1][:N_WORST],
    }
    return {name: visible(store[rows])[..., None] for name, rows in worst.items()}


def write_hyperparameters(board: SummaryWriter, config: PUConfig, results: dict) -> None:
    """Write the config and the final metrics into TensorBoard's table of hyperparameters."""
    flat: dict[str, Any] = {}
    for section, values in plain(config).items():
        for key, value in values.items():
            plain_value = isinstance(value, (bool, int, float, str))
            flat[f"{section}.{key}"] = value if plain_value else str(value)
    reached = {
        f"final/{split} {name}": results[split][name]
        for split in ("val", "test")
        if results[split]
        for name in ("auc", "ap", "f1")
        if results[split][name] is not None
    }
    board.add_hparams(flat, reached, run_name=".")
    board.flush()
