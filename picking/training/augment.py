"""Weak and strong views of whole batches of patches, on the device where the batch is.

Every sample gets random numbers of its own. All come from the caller's generator, so the same state
of the generator makes the same views. Nothing here waits for the GPU and nothing loops over
samples. Call it outside autocast: the blur is a convolution.

Some code is roundabout (32-bit indices, the pool of noise, the cut in `_gaussian_kernels`) because
the plain way takes two to ten times as long on a CPU.
`benchmarks/data_path.py` measures it.
"""

import math

import torch
import torch.nn.functional as F

from picking.config import AugmentationConfig
from picking.errors import UserError
from picking.micrographs.preparation import GREYS_PER_DEVIATION, MIDDLE_GREY

# How much noise is drawn for a batch, in patches.
NOISE_POOL_PATCHES = 4


def to_float(prepared: torch.Tensor) -> torch.Tensor:
    """Return prepared micrographs, or parts of them, as networks see them.

    (B, h, w) uint8 of `picking.micrographs.preparation.prepare` -> (B, 1, h, w) float32 in standard
    deviations from the micrograph's median, in training, evaluation and picking alike.
    """
    return prepared.float().sub_(MIDDLE_GREY).div_(GREYS_PER_DEVIATION).unsqueeze(1)


def weak_view(
    patches: torch.Tensor, generator: torch.Generator, config: AugmentationConfig
) -> torch.Tensor:
    """Flip, turn by quarters and shift each patch.

    (B, p, p) uint8 -> (B, 1, p, p) float32. Pixels are moved, never interpolated. Patches and
    generator are on one device. Raises `UserError` for a largest shift as wide as the patch.

    Source: the weak augmentation of Sohn et al., FixMatch, NeurIPS 2020.
    """
    return _move(to_float(patches), generator, config)


def strong_view(
    patches: torch.Tensor, generator: torch.Generator, config: AugmentationConfig
) -> torch.Tensor:
    """Move as `weak_view` does, by other draws, then blur, change contrast, add noise and cut out.

    (B, p, p) uint8 -> (B, 1, p, p) float32, in the micrograph's deviations. Each sample
    draws its own strengths, evenly up to those in ``config``; a strength of 0 switches its step
    off. Contrast is a factor within 1 ± ``contrast``, which is below 1, so it never inverts. The
    sides of the blank rectangle are ``cutout``/2 to ``cutout`` of the patch's: 0.4 blanks 9% of it
    on average. Raises as `weak_view`.
    """
    return _distort(_move(to_float(patches), generator, config), generator, config)


def window_views(
    windows: torch.Tensor,
    known: torch.Tensor,
    n_clicks: int,
    side_px: int,
    reach_px: float,
    generator: torch.Generator,
    config: AugmentationConfig,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return weak views of windows, and strong views of those that are not about a click.

    The weak view is a random crop, flipped, turned by any angle and scaled a little. What was
    clicked, a particle or what is none, ends up anywhere in its crop, as long as the whole disk of
    ``reach_px`` about it is inside, so that the network cannot learn where in a crop to expect one.
    The strong view is the weak one, distorted. From a few dozen picks a network soon knows each by
    heart: turns and scales make more of them.

    Args:
        windows: (B, S, S) uint8, with S at least 2 s. Each of the first ``n_clicks`` has a click in
            its middle, pixel [S // 2, S // 2].
        known: (B, S, S) uint8, what is known of each pixel (picking/stores/patches.py).
        n_clicks: how many windows are about a click.
        side_px: s, the side of a crop.
        reach_px: the distance from a click that counts as near.
        generator: on the windows' device.
        config: the strengths; what a turn brings in from outside is mirrored.

    Returns:
        The weak views, (B, 1, s, s) float32; the strong views of all but the first ``n_clicks``,
        (B - n_clicks, 1, s, s), which show the same place at the same pixel; and uint8 (B, s, s),
        what is known of each pixel of the crops.
    """
    n, size_px, _ = windows.shape
    device, reach, half = windows.device, math.ceil(reach_px), (side_px - 1) / 2
    # A px of the window and where it comes to lie in the crop: the click, or the crop's middle
    shown = half + torch.randint(size_px - side_px + 1, (n, 2), generator=generator, device=device)
    shown[:n_clicks] = size_px // 2
    at = torch.full((n, 2), half, device=device)
    at[:n_clicks] = torch.randint(
        reach, side_px - reach, (n_clicks, 2), generator=generator, device=device
    ).float()

    offset = torch.arange(side_px, device=device) - at.unsqueeze(2)  # along y and along x
    down, across = _turns(n, device, generator, config).unsqueeze(3).unbind(2)
    place = down.unsqueeze(3) * offset[:, :1, :, None] + across.unsqueeze(3) * offset[:, 1:, None]
    place = (place + shown[:, :, None, None] + 0.5) * (2 / size_px) - 1
    grid = place.flip(1).permute(0, 2, 3, 1)
    crops, places = (
        F.grid_sample(
            whole.unsqueeze(1).float(), grid, mode, padding_mode="reflection", align_corners=False
        ).squeeze(1)
        for whole, mode in ((windows, "bicubic"), (known, "nearest"))
    )
    weak = to_float(crops)
    return weak, _distort(weak[n_clicks:], generator, config), places.to(torch.uint8)


def _turns(
    n: int, device: torch.device, generator: torch.Generator, config: AugmentationConfig
) -> torch.Tensor:
    """Return matrices (n, 2, 2) that turn, flip and scale offsets (y, x), each by its own draw."""
    draw = 2 * torch.rand(2, n, generator=generator, device=device) - 1
    angle, scale = math.radians(config.rotation_degrees) * draw[0], 1 + config.scale * draw[1]
    cos, sin = scale * angle.cos(), scale * angle.sin()
    matrix = torch.stack([cos, -sin, sin, cos], dim=1).view(n, 2, 2)
    swap = torch.randint(2, (n, 1, 1), generator=generator, device=device) == 1
    sign = 1 - 2 * torch.randint(2, (n, 2, 1), generator=generator, device=device)
    return torch.where(swap, matrix.flip(1), matrix) * sign


def _move(x: torch.Tensor, generator: torch.Generator, config: AugmentationConfig) -> torch.Tensor:
    """Give each sample one of the 8 symmetries of the square and a shift, by copying once.

    (B, 1, p, p) -> (B, 1, p, p). What a shift brings in from outside is mirrored without
    repeating the outermost pixel (`numpy.pad`'s mode `reflect`), as in the patch store.
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
    row = row * side_px  # index into the flattened patch
    # Where the axes are swapped, going down the output means going across the patch
    down, across = torch.where(swap, column, row), torch.where(swap, row, column)
    down = down + torch.arange(n, device=device).unsqueeze(1) * side_px**2
    # 64-bit indices, one for each pixel, would take as long to make as the copying itself
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
    # One filter for each sample: the samples become the channels of one image
    as_channels = F.pad(x, [radius_px] * 4, mode="reflect").transpose(0, 1)
    x = F.conv2d(as_channels, kernel, brightness, groups=n).view_as(x)
    x.addcmul_(_noise_like(x, generator), (config.noise * draw[3]).view(n, 1, 1, 1))
    return x.mul_(_outside_rectangles(x, generator, config.cutout))


def _gaussian_kernels(sigma_px: torch.Tensor, radius_px: int) -> torch.Tensor:
    """(B,) -> (B, 1, t, t) kernels that sum to 1; with sigma 0 an image stays as it is."""
    taps = torch.arange(-radius_px, radius_px + 1, device=sigma_px.device)
    profile = torch.exp(-0.5 * (taps / sigma_px.clamp(min=1e-3).unsqueeze(1)) ** 2)
    profile *= profile > 1e-6  # numbers near 1e-40 make the convolution ten times slower
    profile /= profile.sum(dim=1, keepdim=True)
    return (profile.unsqueeze(2) * profile.unsqueeze(1)).unsqueeze(1)


def _noise_like(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return white Gaussian noise of standard deviation 1 in the shape of ``x``, (B, 1, p, p).

    Each row of pixels is a piece from a random place in a pool that is drawn for the batch, since
    drawing every value takes ten times as long on a CPU. The chance that two given rows of a patch
    overlap in the pool is 1 in 2 p, and then they are shifted, which no network can use.
    """
    n, _, height, width = x.shape
    n_pool = NOISE_POOL_PATCHES * height * width
    pieces = torch.randn(n_pool, generator=generator, device=x.device).unfold(0, width, 1)
    start = torch.randint(len(pieces), (n * height,), generator=generator, device=x.device)
    return pieces.index_select(0, start).view_as(x)


def _outside_rectangles(
    x: torch.Tensor, generator: torch.Generator, longest: float
) -> torch.Tensor:
    """Return (B, 1, p, p): 0 inside one rectangle for each sample, within the patch, 1 outside.

    Each side is drawn evenly from ``longest``/2 to ``longest``, fractions of the patch's side.
    """
    n, side_px = len(x), x.shape[-1]
    draw = torch.rand(2, 2, n, 1, generator=generator, device=x.device)
    length = (longest * side_px * (1 + draw[0]) / 2).round()
    start = ((side_px - length + 1) * draw[1]).floor()
    grid = torch.arange(side_px, device=x.device)
    above_or_below, left_or_right = ((grid < start) | (grid >= start + length)).float()
    return torch.maximum(above_or_below.unsqueeze(2), left_or_right.unsqueeze(1)).unsqueeze(1)
