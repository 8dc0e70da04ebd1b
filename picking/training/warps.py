"""Warps of whole batches of micrographs and their masks, on the device where the batch is.

Every sample gets random numbers of its own. All come from the caller's generator, so the same state
of the generator makes the same warps. Nothing here waits for the GPU and nothing loops over
samples. Call it outside autocast.
"""

import dataclasses
import functools
import math

import torch
import torch.nn.functional as F

from picking.config import WarpConfig
from picking.mask_values import IGNORE
from picking.training.augment import to_float

# A random field is drawn at this many nodes along each side and is smooth between them. An elastic
# warp bends over a quarter of the side, wider than any particle; ice thickens over half of it.
ELASTIC_NODES = 5
ICE_NODES = 3
MOST_CONTRAST = 0.95  # from 1 on, contrast could invert an image

Share = tuple[int, int]  # (k, n): the k-th, from 0, of n equal parts of a batch


def warp(
    images: torch.Tensor,
    masks: torch.Tensor,
    generator: torch.Generator,
    config: WarpConfig,
    share: Share = (0, 1),
) -> tuple[torch.Tensor, torch.Tensor]:
    """Move each image and its mask alike, then change its contrast, ice and noise.

    (B, s, s) uint8 images and masks -> (B, 1, s, s) float32 in the micrograph's deviations, and
    (B, s, s) uint8 masks. Images are interpolated, masks take the nearest pixel. What a warp
    brings in from outside is mirrored in the image and `IGNORE` in the mask.

    The strengths are those of ``config``; 0 switches a step off. ``flip`` gives each sample one of
    the 8 symmetries of the square. ``rotation_degrees`` is the largest rotation to either side.
    ``elastic`` is the largest displacement of a node along y and along x, as a fraction of the
    side; well above 0.1 an image may fold over itself. ``contrast`` is a factor within 1 ± its
    strength. ``gradient`` is the size of a smooth random field that is added, and ``noise`` the
    largest standard deviation of white noise, both in the micrograph's deviations.

    Where several processes share a batch, each passes in ``share`` which part its images are. All
    draw for the whole batch, so that an image's warp does not depend on the number of processes.

    Images, masks and generator are on one device. Raises `ValueError` for images that are not
    square or not as large as the masks.

    Source: elastic displacements as in Ronneberger et al., U-Net, MICCAI 2015.
    """
    x, masks = _moved(images, masks, generator, config, share)
    return _vary_greys(x, generator, config, share), masks


def two_views(
    images: torch.Tensor,
    generator: torch.Generator,
    config: WarpConfig,
    strength: float = 1.0,
    share: Share = (0, 1),
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return FixMatch's two views: images moved as by `warp`, and the same with other contrast.

    (B, s, s) uint8 images without masks -> the weak and the strong view, (B, 1, s, s) float32,
    which show the same place at the same pixel, and bool (B, s, s), False at pixels that show what
    is outside the image. The strong view has ``strength`` times the contrast, gradient and noise of
    ``config``.
    """
    x, outside = _moved(images, torch.zeros_like(images), generator, config, share)
    changed = {name: strength * getattr(config, name) for name in ("contrast", "gradient", "noise")}
    changed["contrast"] = min(changed["contrast"], MOST_CONTRAST)
    stronger = dataclasses.replace(config, **changed)
    return x, _vary_greys(x.clone(), generator, stronger, share), outside != IGNORE


def _moved(
    images: torch.Tensor,
    masks: torch.Tensor,
    generator: torch.Generator,
    config: WarpConfig,
    share: Share,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Move each image and its mask alike: the first half of `warp`."""
    if images.shape != masks.shape or images.shape[1] != images.shape[2]:
        raise ValueError(
            f"images {tuple(images.shape)} and masks {tuple(masks.shape)} must be squares alike"
        )
    x = to_float(images)
    if config.flip or config.rotation_degrees or config.elastic:
        grid = _sources(x, generator, config, share)
        x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
        # Shifted by IGNORE, so that the zeros which come in from outside become IGNORE
        shifted = masks.unsqueeze(1).float().sub_(IGNORE)
        moved = F.grid_sample(shifted, grid, mode="nearest", align_corners=False)
        masks = moved.add_(IGNORE).squeeze(1).to(torch.uint8)
    return x, masks


def _sources(
    x: torch.Tensor, generator: torch.Generator, config: WarpConfig, share: Share
) -> torch.Tensor:
    """Return where each pixel of (B, 1, s, s) comes from, as `F.grid_sample` wants it.

    (B, s, s, 2): (x, y) from the centre, in halves of the side.
    """
    n, side_px, device = len(x) * share[1], x.shape[-1], x.device
    limit = math.radians(config.rotation_degrees)
    angle = limit * (2 * torch.rand(n, generator=generator, device=device) - 1)
    cos, sin = angle.cos(), angle.sin()
    matrix = torch.stack([cos, -sin, sin, cos], dim=1).view(n, 2, 2)
    if config.flip:
        swap = torch.randint(2, (n, 1, 1), generator=generator, device=device) == 1
        sign = 1 - 2 * torch.randint(2, (n, 2, 1), generator=generator, device=device)
        matrix = torch.where(swap, matrix.flip(1), matrix) * sign
    centres = (torch.arange(side_px, device=device) * 2 + 1) / side_px - 1
    of_x, of_y = _part(matrix.view(n, 2, 2, 1, 1), share).unbind(2)
    sources = of_x * centres + of_y * centres.unsqueeze(1)
    if config.elastic:
        displacement = _smooth_fields(x, 2, ELASTIC_NODES, generator, share)
        sources.add_(displacement, alpha=2 * config.elastic)
    return sources.permute(0, 2, 3, 1)


def _vary_greys(
    x: torch.Tensor, generator: torch.Generator, config: WarpConfig, share: Share
) -> torch.Tensor:
    """Change contrast, ice and noise of (B, 1, s, s) in place, and return it."""
    n = len(x) * share[1]
    draw = torch.rand(2, n, 1, 1, 1, generator=generator, device=x.device)
    contrast, noisy = (_part(one, share) for one in draw)
    x.mul_(1 + config.contrast * (2 * contrast - 1))
    if config.gradient:
        x.add_(_smooth_fields(x, 1, ICE_NODES, generator, share), alpha=config.gradient)
    if config.noise:
        noise = torch.randn((n, *x.shape[1:]), generator=generator, device=x.device)
        x.addcmul_(_part(noise, share), config.noise * noisy)
    return x


def _smooth_fields(
    x: torch.Tensor, n_fields: int, n_nodes: int, generator: torch.Generator, share: Share
) -> torch.Tensor:
    """Return random fields (B, n_fields, s, s) for ``x``, (B, 1, s, s).

    Values at the nodes, a square grid from corner to corner, are even in -1 to 1; between them the
    field is cubic.
    """
    side_px, device = x.shape[-1], x.device
    shape = (len(x) * share[1], n_fields, n_nodes, n_nodes)
    nodes = _part(2 * torch.rand(shape, generator=generator, device=device) - 1, share)
    # Along each side in turn: in two dimensions at once it would take longer than all the rest
    weight = _node_weights(n_nodes, side_px, device)
    return weight @ nodes @ weight.mT


@functools.lru_cache(maxsize=16)
def _node_weights(n_nodes: int, side_px: int, device: torch.device) -> torch.Tensor:
    """Return the weight of each node at each pixel along one side: (1, 1, s, n_nodes)."""
    unit = torch.eye(n_nodes, device=device).view(1, 1, n_nodes, n_nodes)
    return F.interpolate(unit, (side_px, n_nodes), mode="bicubic", align_corners=True)


def _part(drawn: torch.Tensor, share: Share) -> torch.Tensor:
    """Return this process's part, (B, ...), of what was drawn for the whole batch."""
    return drawn.chunk(share[1])[share[0]]
