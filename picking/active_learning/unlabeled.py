"""Consistency on the pool: which images without a label join a step, and how they are seen.

In every step ``consistency.ratio`` images of the pool that are not labelled join each labelled one.
The network's own answer to a weak view of them, flipped and turned, is what it shall answer to a
strong one, of other contrast, ice and noise (`warps.two_views`, `losses.pixel_consistency`). Their
masks are labels, and nothing here reads them.

Source: Sohn et al., FixMatch, NeurIPS 2020, pixel by pixel.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from picking.config import ActiveConfig
from picking.runs import distributed
from picking.seeds import stream
from picking.stores.segmentation import CryoEMSegmentationDataset, SegmentationBatch
from picking.training.warps import two_views


class WithUnlabeled(Dataset):
    """Batches of labelled images with others of the same store: ``dataset[positions, rows]``.

    positions: in ``labelled``; rows: in its store, of images that come without their masks.
    """

    def __init__(self, labelled: CryoEMSegmentationDataset) -> None:
        self.labelled = labelled

    def __getitem__(self, places: tuple[Any, np.ndarray]) -> SegmentationBatch:
        """Return a copy of the labelled images with their masks, and of the other images."""
        positions, rows = places
        images = np.asarray(self.labelled.images[rows])
        return self.labelled[positions]._replace(unlabeled=images)


def with_unlabeled(
    batches: list[np.ndarray], unlabeled: np.ndarray, n: int, seed: int, where: tuple[int, int, int]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return this process's batches of an epoch with the images that join each.

    batches: positions of the labelled. unlabeled: int64 (u,), u > 0, positions in the store; n of
    them join the whole batch, and each process has its share. where: iteration, epoch and step of
    the first batch. Each step has its own stream; no image repeats in a step if there are n.
    """
    rank, world_size = distributed.place()
    joined = []
    for step, positions in enumerate(batches, where[2]):
        drawn = stream(seed, "pool", *where[:2], step).permutation(unlabeled)
        joined.append((positions, np.split(np.resize(drawn, n), world_size)[rank]))
    return joined


def unlabeled_views(
    batch: SegmentationBatch, config: ActiveConfig, generator: torch.Generator, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Bring a batch's unlabeled images to the device and make `two_views` of them.

    Returns the weak and the strong view, float32 (U, 1, H, W), and bool (U, H, W), True inside.
    """
    images = torch.as_tensor(batch.unlabeled).to(device, non_blocking=True)
    strength = config.consistency.strength
    return two_views(images, generator, config.augmentation, strength, distributed.place())


@contextlib.contextmanager
def running_statistics_kept(network: nn.Module) -> Iterator[None]:
    """Leave batch norm's running statistics unchanged; training uses the batch's as always."""
    norms: list[Any] = [m for m in network.modules() if hasattr(m, "track_running_stats")]
    before = [norm.track_running_stats for norm in norms]
    try:
        for norm in norms:
            norm.track_running_stats = False
        yield
    finally:
        for norm, tracks in zip(norms, before, strict=True):
            norm.track_running_stats = tracks
