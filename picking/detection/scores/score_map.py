"""Scores of a whole micrograph: what a network says of every place on a regular grid.

A classifier scores windows as large as a patch. The zeros that convolutions put around a patch are
part of what it learned: run over the whole micrograph as one image, with dilated convolutions, it
ranks places quite differently (rank correlation with patch by patch 0.43 to 0.50, ResNet-18 at
64 px). So windows are taken in blocks of `BLOCK` x `BLOCK` neighbours, which share the layers whose
maps are still fine, and each goes through the rest on its own. The rank correlation is 0.98 to 1.00
(0.975 at 128 px after little training), in 0.65 to 0.75 of the time at 64 px and 0.4 at 128 px;
with 3 x 3 windows a block it fell to 0.954. Blocks do not depend on each other, so neither memory
nor batching changes a score.

A U-Net scores a whole micrograph as one image, although it learned from parts of some: tiles that
overlap by half gave picks of F1 0.893 where this gives 0.892 (eight micrographs on which nothing
was chosen), for several times the work. It is scored as it is and turned by half a circle, and the
logits are averaged. 40 picks, 18 micrographs of three sets, average precision and best F1: alone
0.814 and 0.841, these two 0.820 and 0.843, flips along both axes besides 0.819 and 0.843.

All other numbers are of the validation micrographs of EMPIAR-10017.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from picking.files import write_saved
from picking.training.augment import to_float
from picking.training.scoring import autocast

BLOCK = 2
# Layers are shared while their map of a window has at least so many cells to a side.
MIN_CELLS = 16
# Windows to the side of a patch: they are a patch's side over this apart.
WINDOWS_PER_PATCH = 8
BATCH_WINDOWS = 512
# Of a U-Net's input at once, which decides the memory, but for the rows that a strip has more
STRIP_PX = 2**19
FLIPS: tuple[tuple[int, ...], ...] = ((), (2, 3))  # axes of (B, 1, h, w), for each view


@dataclasses.dataclass(frozen=True)
class ScoreMap:
    """Logits on a regular grid over a micrograph, in the JPEG's frame.

    logits: float32 (h, w). Cell (i, j) stands for the point origin_px + (i, j) * spacing_px of the
    micrograph, (y, x) in px, where px k spans [k, k + 1]. size_px: (height, width) of that.
    """

    logits: np.ndarray
    origin_px: np.ndarray
    spacing_px: np.ndarray
    size_px: tuple[int, int]

    def positions_px(self, cells: np.ndarray) -> np.ndarray:
        """Return where cells, (n, 2) whole or fractional, lie on the micrograph."""
        return self.origin_px + cells * self.spacing_px

    def probability(self) -> np.ndarray:
        """Return the logistic function of the logits, float32 (h, w)."""
        return torch.from_numpy(self.logits).sigmoid().numpy()


def write_heatmap(scores: ScoreMap, path: Path) -> None:
    """Write the probabilities as a grey PNG, a pixel for each cell; white is 1."""
    image = Image.fromarray(np.rint(scores.probability() * 255).astype(np.uint8))
    write_saved(path, lambda file: image.save(file, "PNG"))


# The classifier


@torch.no_grad()
def classifier_map(
    network: nn.Module,
    image: np.ndarray,
    patch_size_px: int,
    input_size_px: int,
    precision: str,
    device: torch.device,
) -> ScoreMap:
    """Score windows of ``patch_size_px``, scaled to ``input_size_px``, all over a micrograph.

    network: a `PUClassifier` in evaluation mode; image: uint8 (h, w). The first window has its
    centre on the micrograph's corner; beyond the edge the micrograph is mirrored, as in patches.
    """
    n_shared, cell_px = shared_stages(input_size_px)
    step_px = cell_px * max(1, round(input_size_px / (WINDOWS_PER_PATCH * cell_px)))
    block = BLOCK if n_shared else 1
    side_px = input_size_px + (block - 1) * step_px
    ratio = patch_size_px / input_size_px
    spacing_px = step_px * ratio
    n_blocks = [int(np.ceil(n / spacing_px / block)) for n in image.shape]

    working = _working_image(image, patch_size_px, ratio, [
        side_px + (n - 1) * block * step_px for n in n_blocks
    ])  # fmt: skip
    blocks = torch.from_numpy(working).unfold(0, side_px, block * step_px)
    blocks = blocks.unfold(1, side_px, block * step_px)
    logits = torch.empty(n_blocks[0], block, n_blocks[1], block)
    n_batch = max(1, BATCH_WINDOWS // block**2)
    for row in range(n_blocks[0]):
        for start in range(0, n_blocks[1], n_batch):
            some = blocks[row, start : start + n_batch].to(device)
            with autocast(precision, device):
                z = _score_blocks(network, some, input_size_px, step_px, n_shared, cell_px)
            logits[row, :, start : start + n_batch] = z.float().cpu().transpose(0, 1)
    height, width = (int(np.ceil(n / spacing_px)) for n in image.shape)
    return ScoreMap(
        logits=logits.view(n_blocks[0] * block, -1)[:height, :width].numpy(),
        origin_px=np.zeros(2),
        spacing_px=np.full(2, spacing_px),
        size_px=(image.shape[0], image.shape[1]),
    )


def shared_stages(input_size_px: int) -> tuple[int, int]:
    """Return how many of a ResNet's stages windows share, and px of the input per cell there.

    The stem goes with the first stage, at 4 px a cell; each further stage doubles that. None is
    shared, and a cell is a px, where the window's map would be coarser than `MIN_CELLS`.
    """
    n_shared, cell_px = 0, 1
    for stage in range(4):
        coarser_px = 4 * 2**stage
        if input_size_px % coarser_px or input_size_px // coarser_px < MIN_CELLS:
            break
        n_shared, cell_px = stage + 1, coarser_px
    return n_shared, cell_px


def _working_image(
    image: np.ndarray, patch_size_px: int, ratio: float, size_px: list[int]
) -> np.ndarray:
    """Mirror half a patch and more around the micrograph, and scale it down by ``ratio``.

    Returns uint8 of ``size_px``, means over ``ratio`` x ``ratio`` px as `Patches.logits` takes.
    """
    half = patch_size_px // 2
    needed = [int(np.ceil(n * ratio)) for n in size_px]
    after = [max(0, m - n - half) for m, n in zip(needed, image.shape, strict=True)]
    padded = np.pad(image, [(half, n) for n in after], mode="reflect")
    if ratio == 1:
        return np.ascontiguousarray(padded[: size_px[0], : size_px[1]])
    box = (0, 0, size_px[1] * ratio, size_px[0] * ratio)
    scaled = Image.fromarray(padded).resize(size_px[::-1], Image.Resampling.BOX, box=box)
    return np.array(scaled)


def _score_blocks(
    network: nn.Module,
    blocks: torch.Tensor,
    side_px: int,
    step_px: int,
    n_shared: int,
    cell_px: int,
) -> torch.Tensor:
    """Return the logits (n, b, b) of the b x b windows of each block, uint8 (n, h, h)."""
    if not n_shared:
        return network(to_float(blocks)).view(-1, 1, 1)
    resnet: Any = network.network
    stages = [resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4]
    x = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(to_float(blocks)))))
    for stage in stages[:n_shared]:
        x = stage(x)
    cells, step = side_px // cell_px, step_px // cell_px
    windows = x.unfold(2, cells, step).unfold(3, cells, step)  # (n, channels, b, b, cells, cells)
    windows = windows.permute(0, 2, 3, 1, 4, 5)
    n, b = windows.shape[:2]
    x = windows.reshape(n * b * b, -1, cells, cells)
    for stage in stages[n_shared:]:
        x = stage(x)
    return resnet.fc(torch.flatten(resnet.avgpool(x), 1)).view(n, b, b)


# The U-Net


@torch.inference_mode()
def segmentation_map(
    network: Any,
    scaled: np.ndarray,
    size_px: tuple[int, int],
    precision: str,
    device: torch.device,
) -> ScoreMap:
    """Score every pixel of a scaled micrograph as one image.

    network: a `UNet` in evaluation mode; scaled: uint8 (h, w), of a micrograph of ``size_px``.
    What is larger than `STRIP_PX` goes through the network in strips, each with as many rows more
    as its logits depend on, so that it gets the logits of the whole.
    """
    step_px, reach_px = 2**network.depth, network.reach_px
    beyond = [(0, -n % step_px) for n in scaled.shape]
    padded = torch.from_numpy(np.pad(scaled, beyond, mode="reflect"))
    image = to_float(padded.to(device).unsqueeze(0))
    height, width = padded.shape
    n_strips = -(-height * width // STRIP_PX)
    n_rows = max(-(-height // n_strips), min(height, 2 * reach_px))
    n_rows = -(-n_rows // step_px) * step_px
    logits = torch.zeros(padded.shape)
    for top in range(0, height, n_rows):
        first = max(0, top - reach_px)
        strip = image[:, :, first : top + n_rows + reach_px]
        with autocast(precision, device):
            views = [network(strip.flip(axes)).flip(axes).float() for axes in FLIPS]
        z = (sum(views) / len(views))[0, 0, top - first :][:n_rows]
        logits[top : top + n_rows] = z.cpu()
    spacing_px = np.array(size_px) / scaled.shape
    whole = logits[: scaled.shape[0], : scaled.shape[1]].numpy()
    return ScoreMap(whole, spacing_px / 2, spacing_px, size_px)
