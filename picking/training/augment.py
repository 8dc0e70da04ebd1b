"""Weak and strong views of whole batches of patches, on the device where the batch lies.

Every sample has draws of its own, all from the generator that the caller gives, so the same state
of the generator makes the same views. Nothing here waits for the GPU and nothing loops over
samples. Call it outside autocast: the blur is a convolution.

Where the code takes a way round (the deviation from `vector_norm`, 32-bit places, a pool of noise,
the cut in `_gaussian_kernels`), the plain way takes two to ten times as long on a CPU.
`benchmarks/data_path.py` measures the whole.
"""

import math

import torch
import torch.nn.functional as F

from picking.config import AugmentationConfig
from picking.errors import UserError

# Below one grey level of deviation a patch is flat, and dividing would only magnify its rounding.
STD_FLOOR_GREY = 1.0
# Patches' worth of fresh noise that is drawn for a batch.
NOISE_POOL_PATCHES = 4


def to_float(patches: torch.Tensor) -> torch.Tensor:
    """Standardise each patch: the one normalisation of training, evaluation and picking.

    (B, p, p) uint8 -> (B, 1, p, p) float32 with mean 0 and deviation 1 per patch. That takes out
    exposure and the thickness of the ice, which say nothing about a particle. A flat patch becomes
    zeros.
    """
    x = patches.float()
    x -= x.mean(dim=(1, 2), keepdim=True)
    # The deviation of what is centred already; torch.std takes seven times as long on a CPU.
    std = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True) / math.sqrt(x.shape[1] * x.shape[2])
    return x.div_(std.clamp_(min=STD_FLOOR_GREY)).unsqueeze(1)


def weak_view(
    patches: torch.Tensor, generator: torch.Generator, config: AugmentationConfig
) -> torch.Tensor:
    """Standardise, then flip, turn by quarters and shift each patch.

    (B, p, p) uint8 -> (B, 1, p, p) float32. Pixels are moved, never interpolated. The generator
    lies on the patches' device. A shift as wide as the patch is a `UserError`.
    """
    return _move(to_float(patches), generator, config)


def strong_view(
    patches: torch.Tensor, generator: torch.Generator, config: AugmentationConfig
) -> torch.Tensor:
    """Move as `weak_view` does, by draws of its own, then blur, rescale, add noise and cut out.

    (B, p, p) uint8 -> (B, 1, p, p) float32, in deviations of the undistorted patch. Each sample
    draws its own strengths, evenly up to those in ``config``; a strength of 0 switches its step
    off. Contrast is a factor within 1 ± ``contrast``: under 1 it never inverts. The blank rectangle
    has sides from half of ``cutout`` to ``cutout`` of the patch's, so 0.4 takes 9% on average.
    """
    return _distort(_move(to_float(patches), generator, config), generator, config)


def window_views(
    windows: torch.Tensor,
    picked: torch.Tensor,
    n_picks: int,
    side_px: int,
    reach_px: float,
    generator: torch.Generator,
    config: AugmentationConfig,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Crop, flip and turn windows at random, and distort those that are about no pick once more.

    windows: (B, S, S) uint8, S at least 2 s, the first ``n_picks`` about a pick in their middle, px
    [S // 2, S // 2]; picked: (B, S, S) uint8, 1 where a place is near any pick.

    Returns the weak view, (B, 1, s, s) float32, of all; the strong view, (B - n_picks, 1, s, s), of
    the others, place for place the same as the weak one; and bool (B, s, s), where a crop is near a
    pick. Picks come to lie anywhere in a crop where the whole of the disk of ``reach_px`` is in it:
    the network must not learn where in a crop to expect one.
    """
    n, size_px, _ = windows.shape
    device, middle, reach = windows.device, size_px // 2, math.ceil(reach_px)
    start = torch.randint(size_px - side_px + 1, (2, n), generator=generator, device=device)
    at = torch.randint(reach, side_px - reach, (2, n_picks), generator=generator, device=device)
    start[:, :n_picks] = middle - at
    flip = torch.randint(2, (2, n, 1), generator=generator, device=device) == 1
    swap = torch.randint(2, (n, 1), generator=generator, device=device) == 1

    index = torch.arange(side_px, device=device)
    row, column = start.unsqueeze(2) + torch.where(flip, side_px - 1 - index, index)
    row = row * size_px  # places in the flattened window
    down, across = torch.where(swap, column, row), torch.where(swap, row, column)
    place = down.unsqueeze(2) + across.unsqueeze(1)
    crops, near = (
        whole.flatten(1).gather(1, place.flatten(1)).view(n, side_px, side_px)
        for whole in (windows, picked)
    )
    weak = to_float(crops)
    return weak, _distort(weak[n_picks:], generator, config), near == 1


def _move(x: torch.Tensor, generator: torch.Generator, config: AugmentationConfig) -> torch.Tensor:
    """Give each sample one of the 8 symmetries of the square and a shift, all as one copy.

    (B, 1, p, p) -> (B, 1, p, p). What the shift brings in from outside is mirrored, the outermost
    pixel not repeated (`numpy.pad`'s mode `reflect`), as in the patch store.
    """
    n, _, side_px, _ = x.shape
    limit_px, device = config.shift_px, x.device
    if limit_px >= side_px:
        raise UserError(
            f"augmentation.shift_px is {limit_px}, but patches are {side_px} px wide: lower it"
        )
    shift = torch.randint(-limit_px, limit_px + 1, (2, n, 1), generator=generator, device=device)
    flip = torch.randint(2, (2, n, 1), generator=generator, device=device) == 1
    swap = torch.randint(2, (n, 1), generator=generator, device=device) == 1

    last = side_px - 1
    index = (torch.arange(side_px, device=device) + shift).abs()
    index = last - (last - index).abs()
    row, column = torch.where(flip, last - index, index)
    row = row * side_px  # places in the flattened patch, as columns are
    # Where the axes are swapped, going down the output is going across the patch.
    down, across = torch.where(swap, column, row), torch.where(swap, row, column)
    down = down + torch.arange(n, device=device).unsqueeze(1) * side_px**2
    # 64-bit places, one a pixel, would take as long to make as the copying itself.
    place = down.int().unsqueeze(2) + across.int().unsqueeze(1)
    return x.flatten().index_select(0, place.flatten()).view_as(x)


def _distort(
    x: torch.Tensor, generator: torch.Generator, config: AugmentationConfig
) -> torch.Tensor:
    """Blur, contrast and brightness in one filter, then noise, then cutout.

    (B, 1, p, p) -> (B, 1, p, p).
    """
    n = len(x)
    draw = torch.rand(4, n, generator=generator, device=x.device)
    contrast = 1 + config.contrast * (2 * draw[0] - 1)
    brightness = config.brightness * (2 * draw[1] - 1)
    radius_px = math.ceil(2 * config.blur_px)
    kernel = _gaussian_kernels(config.blur_px * draw[2], radius_px) * contrast.view(n, 1, 1, 1)
    # One filter a sample: the samples stand as the channels of one image.
    as_channels = F.pad(x, [radius_px] * 4, mode="reflect").transpose(0, 1)
    x = F.conv2d(as_channels, kernel, brightness, groups=n).view_as(x)
    x.addcmul_(_noise_like(x, generator), (config.noise * draw[3]).view(n, 1, 1, 1))
    return x.mul_(_outside_rectangles(x, generator, config.cutout))


def _gaussian_kernels(sigma_px: torch.Tensor, radius_px: int) -> torch.Tensor:
    """(B,) -> (B, 1, t, t) kernels that sum to 1; sigma 0 leaves an image as it is."""
    taps = torch.arange(-radius_px, radius_px + 1, device=sigma_px.device)
    profile = torch.exp(-0.5 * (taps / sigma_px.clamp(min=1e-3).unsqueeze(1)) ** 2)
    profile *= profile > 1e-6  # numbers near 1e-40 make the convolution ten times slower
    profile /= profile.sum(dim=1, keepdim=True)
    return (profile.unsqueeze(2) * profile.unsqueeze(1)).unsqueeze(1)


def _noise_like(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """White Gaussian noise of deviation 1 in the shape of ``x``, (B, 1, p, p).

    Each row of pixels is a piece from a random place in a pool that is drawn afresh for the batch:
    drawing every value takes ten times as long on a CPU. Two given rows of a patch overlap in the
    pool with a chance of 1 in 2 p, and then at some shift, which no network can make use of.
    """
    n, _, height, width = x.shape
    n_pool = NOISE_POOL_PATCHES * height * width
    pieces = torch.randn(n_pool, generator=generator, device=x.device).unfold(0, width, 1)
    start = torch.randint(len(pieces), (n * height,), generator=generator, device=x.device)
    return pieces.index_select(0, start).view_as(x)


def _outside_rectangles(
    x: torch.Tensor, generator: torch.Generator, longest: float
) -> torch.Tensor:
    """0 inside one rectangle a sample, wholly within the patch, and 1 outside: (B, 1, p, p).

    Each side is drawn evenly from half of ``longest`` to ``longest``, shares of the patch's side.
    """
    n, side_px = len(x), x.shape[-1]
    draw = torch.rand(2, 2, n, 1, generator=generator, device=x.device)
    length = (longest * side_px * (1 + draw[0]) / 2).round()
    start = ((side_px - length + 1) * draw[1]).floor()
    grid = torch.arange(side_px, device=x.device)
    above_or_below, left_or_right = ((grid < start) | (grid >= start + length)).float()
    return torch.maximum(above_or_below.unsqueeze(2), left_or_right.unsqueeze(1)).unsqueeze(1)
