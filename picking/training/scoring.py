"""The precision that networks run in, and the metrics of a whole segmentation split."""

import contextlib

import torch
from torch import nn

from picking.config import ActiveTrainingConfig
from picking.errors import raise_if_stopped
from picking.metrics import pixels
from picking.runs import distributed
from picking.stores.segmentation import SegmentationStore
from picking.training.augment import to_float


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """Return autocast to bf16 where ``precision`` is `bf16` or, with `auto`, the GPU has it."""
    if precision == "auto":
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        precision = "bf16" if has_bf16 else "fp32"
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@torch.no_grad()
def evaluate_pixels(
    network: nn.Module,
    store: SegmentationStore,
    settings: ActiveTrainingConfig,
    device: torch.device,
) -> dict[str, float | None]:
    """Return `pixels.pixel_metrics` over all pixels of a split, streamed a batch at a time.

    Every process counts its part of the images; counts add up to those of one, exactly.
    """
    network.eval()
    counts, batch_size = pixels.new_counts(device), settings.eval_batch_size
    for start in distributed.share_of_batches(len(store), batch_size):
        raise_if_stopped()
        images = torch.as_tensor(store.images[start : start + batch_size]).to(device)
        masks = torch.as_tensor(store.masks[start : start + batch_size]).to(device)
        with autocast(settings.precision, device):
            z = network(to_float(images))
        pixels.add(counts, z, masks)
    distributed.add_up(counts)
    return pixels.pixel_metrics(counts)
