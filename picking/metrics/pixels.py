"""Metrics over all pixels of a data set, from a histogram of logits that takes 3 MB.

    counts = new_counts(device)
    for each batch: add(counts, model(x), masks)
    pixel_metrics(counts)["f1_score"]

Full validation has 315 million pixels, too many to keep and sort. The pixels of one bin count as
tied, which moves average precision by about half of what a bin holds of the particle pixels. Bins
are an 8,192nd of 1 + |z| wide or narrower, so they are fine around 0 and resolve both tails, and
z = 0 is exactly an edge: what is counted at a probability of 0.5 is exact.
"""

import math

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from picking.errors import UserError
from picking.metrics.rates import plain, rates, ratio

# A bin is a run of float32 numbers 1 + |z| with the same exponent, one of 8, and the same first 13
# bits after the point; and a sign of z. Beyond |z| = 255 the logits of one sign share the last bin.
EXPONENTS = 8
FRACTION_BITS = 13
N_BINS_A_SIGN = EXPONENTS << FRACTION_BITS
N_BINS = 2 * N_BINS_A_SIGN
# What `pixel_metrics` returns
PIXEL_METRICS = (
    "f1_score", "precision", "recall", "iou", "auc", "ap", "best_f1", "best_f1_threshold",
    "base_rate",
)  # fmt: skip
# How float32 is made: 23 bits after the point, and this exponent for 1.
_FLOAT_BITS, _FLOAT_BIAS = 23, 127


def new_counts(device: torch.device | str = "cpu") -> Tensor:
    """Return an empty histogram: (3, N_BINS + 1) int64.

    Rows are background, particle and ignored pixels; columns are bins from low to high logits, and
    a last one for logits that are not finite.
    """
    return torch.zeros(3, N_BINS + 1, dtype=torch.int64, device=device)


def add(counts: Tensor, z: Tensor, masks: Tensor) -> None:
    """Add the pixels of a batch to ``counts``, on the device where all three lie.

    Args:
        counts: from `new_counts`, changed in place.
        z: (B, 1, h, w) or (B, h, w) logits of any floating type, read as float32.
        masks: (B, h, w) uint8, 1 particle, 0 background, 255 a pixel that takes no part.
    """
    row = masks.clamp(max=2).int()  # 255, ignore, becomes the third row
    place = row.mul_(N_BINS + 1).add_(_bins(z.detach().reshape(masks.shape))).flatten()
    # Not bincount: on a GPU it waits for the largest place.
    counts.view(-1).index_add_(0, place, counts.new_ones(()).expand(len(place)))


def pixel_metrics(counts: Tensor) -> dict[str, float | None]:
    """Return the metrics of all pixels that were added and not ignored; None without a denominator.

    f1_score, precision, recall and iou at p >= 0.5; auc (ties count half); ap (average precision,
    step by step as scikit-learn has it); best_f1 and best_f1_threshold, the probability from which
    on F1 is highest, midway to the next lower pixel; base_rate, the fraction of particle pixels.

    Raises:
        UserError: when logits were not finite.
    """
    background, particle = counts[:2].cpu().numpy()
    n_broken = int(background[-1] + particle[-1])
    if n_broken:
        n = int(background.sum() + particle.sum())
        raise UserError(
            f"{n_broken:,} of {n:,} logits are not finite: training diverged, so lower "
            "optimizer.lr or set training.precision to fp32"
        )
    n_background, n_particle = int(background.sum()), int(particle.sum())
    # From the highest bin down: called particle so far, and of these truly particle.
    tp = np.cumsum(particle[-2::-1])
    called = tp + np.cumsum(background[-2::-1])
    best = int(np.argmax(2 * tp / np.maximum(called + n_particle, 1)))
    beaten = np.cumsum(background[:-1]) - background[:-1] / 2
    return {
        **_at(N_BINS_A_SIGN - 1, tp, called, n_particle),
        "auc": ratio(np.dot(particle[:-1], beaten), n_particle * n_background),
        "ap": ratio(np.sum(particle[-2::-1] * tp / np.maximum(called, 1)), n_particle),
        "best_f1": _at(best, tp, called, n_particle)["f1_score"] if n_particle else None,
        "best_f1_threshold": _threshold(best, called) if n_particle else None,
        "base_rate": ratio(n_particle, n_particle + n_background),
    }


def _bins(z: Tensor) -> Tensor:
    """Return the bin of each logit, int32 from 0 to N_BINS - 1; N_BINS where it is not finite."""
    z = z.float()
    size = z.abs().add_(1)  # positive floats are ordered as their bits are
    step = size.view(torch.int32) >> (_FLOAT_BITS - FRACTION_BITS)
    step = step.sub_(_FLOAT_BIAS << FRACTION_BITS).clamp_(max=N_BINS_A_SIGN - 1)
    # With all bits turned over a step is -1 - step. torch.where would take three times as long.
    bins = step.bitwise_xor_((z < 0).int().neg_()).add_(N_BINS_A_SIGN)
    return bins.masked_fill_((size < math.inf).logical_not_(), N_BINS)


def _lower_edge(bin_: int) -> float:
    """Return the logit where a bin begins; the lowest begins at -inf."""
    if bin_ == 0:
        return -math.inf
    exponent, fraction = divmod(abs(bin_ - N_BINS_A_SIGN), 1 << FRACTION_BITS)
    size = 2.0**exponent * (1 + fraction / (1 << FRACTION_BITS)) - 1
    return math.copysign(size, bin_ - N_BINS_A_SIGN)


def _at(place: int, tp: np.ndarray, called: np.ndarray, n_particle: int) -> dict[str, float | None]:
    """Return the four rates when the ``place + 1`` highest bins are called particle."""
    n_correct, n_called = int(tp[place]), int(called[place])
    three = plain(rates(n_called, n_correct, n_particle))
    iou = ratio(n_correct, n_called + n_particle - n_correct)
    return {"f1_score": three.pop("f1"), **three, "iou": iou}


def _threshold(place: int, called: np.ndarray) -> float:
    """Return the probability midway, in logits, from the bin at ``place`` to the next filled one.

    ``place`` counts from the highest bin. Called is the same with any threshold in between.
    """
    last_alike = int(np.searchsorted(called, called[place], side="right")) - 1
    upper, lower = _lower_edge(N_BINS - 1 - place), _lower_edge(N_BINS - 1 - last_alike)
    return float(expit((upper + lower) / 2 if math.isfinite(lower) else upper))
