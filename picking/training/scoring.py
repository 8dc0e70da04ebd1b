"""Scores of a whole split and their figures: the same path in training and afterwards."""

import contextlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from picking.config import PUConfig
from picking.errors import UserError, raise_if_stopped
from picking.metrics import classification, pixels
from picking.runs import distributed
from picking.stores.patches import PatchStore
from picking.stores.segmentation import SegmentationStore
from picking.training.augment import to_float


def to_input(
    patches: Tensor | np.ndarray, config: PUConfig, device: torch.device, windows: bool = False
) -> Tensor:
    """Bring uint8 (B, p, p) to the device and, by block means, to the network's input size.

    Returns uint8 (B, s, s) with s = data.input_size_px. Of ``windows`` it is the middle, with px
    [p // 2, p // 2] at [s // 2, s // 2].
    """
    patches = torch.as_tensor(patches).to(device, non_blocking=True)
    side_px = config.data.input_size_px
    if windows:
        middle = slice(start := patches.shape[-1] // 2 - side_px // 2, start + side_px)
        return patches[:, middle, middle]
    if patches.shape[-1] == side_px:
        return patches
    smaller = F.adaptive_avg_pool2d(patches.float().unsqueeze(1), side_px).squeeze(1)
    return smaller.round_().to(torch.uint8)


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """Return autocast to bf16 where ``precision`` is `bf16` or, with `auto`, the GPU has it."""
    if precision == "auto":
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        precision = "bf16" if has_bf16 else "fp32"
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@torch.no_grad()
def score(
    network: nn.Module, config: PUConfig, store: PatchStore, device: torch.device
) -> np.ndarray:
    """Return the probability of the positive class of every patch, float64 (n,).

    Of windows it is that of their middle. Every process scores its share and gets all of them.
    """
    network.eval()
    n, size = len(store), config.training.eval_batch_size
    probability = torch.zeros(n, dtype=torch.float64, device=device)
    for start in distributed.share_of_batches(n, size):
        raise_if_stopped()
        patches = to_input(
            store[slice(start, start + size)], config, device, windows=not store.truth_known
        )
        with autocast(config.training.precision, device):
            z = network(to_float(patches))
        if z.ndim == 4:
            z = z[:, 0, z.shape[2] // 2, z.shape[3] // 2]
        probability[start : start + size] = torch.sigmoid(z.double())
    distributed.add_up(probability)
    if not torch.isfinite(probability).all():
        raise UserError(
            "the network's scores are not finite: lower optimizer.lr or set training.precision=fp32"
        )
    return probability.cpu().numpy()


def evaluate(
    network: nn.Module,
    config: PUConfig,
    store: PatchStore,
    threshold: float,
    device: torch.device,
) -> dict:
    """Return all figures of a split, with intervals, at 0.5 and at ``threshold``."""
    probability = score(network, config, store, device)
    ids = np.array([name or "unknown" for name in store.ids])[store.micrograph]
    report = classification.evaluate(
        store.label,
        probability,
        store.micrograph,
        threshold,
        ids=ids if any(store.ids) else None,
        n_bootstrap=config.training.bootstrap_samples,
        seed=config.training.seed,
    )
    called = probability >= threshold
    share = float(called.mean()) if len(called) else None
    report["at_val_threshold"]["predicted_positive_share"] = share
    return report


@torch.no_grad()
def evaluate_pixels(
    network: nn.Module,
    store: SegmentationStore,
    batch_size: int,
    precision: str,
    device: torch.device,
) -> dict[str, float | None]:
    """Return `pixel_metrics.figures` over all pixels of a split, streamed a batch at a time.

    Every process counts its share of the images; counts add up to those of one, exactly.
    """
    network.eval()
    counts = pixels.new_counts(device)
    for start in distributed.share_of_batches(len(store), batch_size):
        raise_if_stopped()
        images = torch.as_tensor(store.images[start : start + batch_size]).to(device)
        masks = torch.as_tensor(store.masks[start : start + batch_size]).to(device)
        with autocast(precision, device):
            z = network(to_float(images))
        pixels.add(counts, z, masks)
    distributed.add_up(counts)
    return pixels.figures(counts)
