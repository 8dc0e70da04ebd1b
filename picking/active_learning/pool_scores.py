"""One pass of a segmentation network over a pool of images: a few numbers an image are kept.

A pixel's probability is p = σ(z), z the network's logit there. Every score is made of pixels first
and averaged over the image afterwards. Images are read a batch at a time and maps are dropped with
their batch, so memory grows with the pool only by the numbers kept.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from picking.config import PUConfig, config_from_dict
from picking.errors import UserError, raise_if_stopped
from picking.micrographs.preparation import MAKE_AGAIN, PARTICLE_PX, prepare, scale_micrograph
from picking.runs import distributed
from picking.runs.checkpoints import SHIPPED, load_checkpoint, restored
from picking.stores.segmentation import SegmentationStore
from picking.training.augment import to_float
from picking.training.networks import build_network
from picking.training.scoring import autocast

NARROWEST_PX = 2  # a particle that the general network can be shown
SCALED_PX = 2**20  # of images that the general network sees at once, but for a larger one
AMBIGUOUS = 0.2  # a pixel is ambiguous where |2p - 1| is below this
FOREGROUND = 0.2  # a pixel is foreground where p is above this
# The same limits as logits, so that no map of p is needed for them: |2p - 1| = tanh(|z| / 2).
AMBIGUOUS_LOGIT = 2 * math.atanh(AMBIGUOUS)
FOREGROUND_LOGIT = math.log(FOREGROUND / (1 - FOREGROUND))


@dataclasses.dataclass(frozen=True)
class PoolScores:
    """What is kept of n images, in the order of ``rows``; all float32 but ``rows``.

    ``rows`` (n,) are int64 positions in the store; `pixel_scores` says what the scores mean.
    ``features`` (n, C) are the bottleneck's channels, averaged over the image. ``bald`` (n,),
    ``badge`` (n, 2 c) and ``general`` (n, D), of `general_features`, are there only where they were
    asked for.
    """

    rows: np.ndarray
    uncertainty: np.ndarray
    entropy: np.ndarray
    particle_entropy: np.ndarray
    margin: np.ndarray
    foreground_uncertainty: np.ndarray
    foreground_entropy: np.ndarray
    foreground_margin: np.ndarray
    foreground: np.ndarray
    positive: np.ndarray
    features: np.ndarray
    bald: np.ndarray | None = None
    badge: np.ndarray | None = None
    general: np.ndarray | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.rows)


@torch.no_grad()
def score_pool(
    network: nn.Module,
    images: "np.ndarray | _Scaled",
    rows: np.ndarray,
    device: torch.device,
    *,
    batch_size: int,
    precision: str = "fp32",
    extras: frozenset[str] = frozenset(),
) -> PoolScores:
    """Run the network over some images of a store and keep their scores and features.

    Of several processes each runs it over its part, in the batches of one, and gets all scores.
    Pass the plain network, whose deepest block is named `bottleneck` and its last 1x1 convolution
    `head`: hooks do not see into a compiled one. It is left in eval mode.

    Args:
        network: (B, 1, S, S) standardised images -> (B, 1, S, S) logits, on ``device``.
        images: uint8 (N, S, S), memory-mapped or not.
        rows: int64 (n,), which of them to score; at least one.
        device: where the network lies.
        batch_size: images a batch.
        precision: of the network, see `autocast`; scores are float32 always.
        extras: `bald` (mutual information between prediction and the 8 symmetries of the square,
            at 8 forward passes) and `badge` (the gradient embedding of the `head`).

    Raises:
        UserError: when a score is not finite.
    """
    rows = np.asarray(rows, dtype=np.int64)
    mine = distributed.share_of_places(len(rows), batch_size)
    kept: dict[str, np.ndarray] = {}
    network.eval()
    with _taps(network, "badge" in extras) as tapped:
        for start in range(0, len(mine), batch_size):
            raise_if_stopped()
            batch = slice(start, start + batch_size)
            of_batch = rows[mine[batch]]
            x = to_float(torch.from_numpy(np.asarray(images[of_batch])).to(device))
            with autocast(precision, device):
                z = network(x)
            # Taken out before the symmetries below pass the same hooks.
            numbers = pixel_scores(z) | tapped
            if "bald" in extras:
                numbers["bald"] = _bald(network, x, z, precision)
            for name, value in numbers.items():
                if name not in kept:
                    kept[name] = np.empty((len(mine), *value.shape[1:]), np.float32)
                kept[name][batch] = value.cpu()
                _check_finite(name, kept[name][batch], of_batch)
    return PoolScores(rows=rows, **distributed.put_together(kept, mine, len(rows)))


@functools.lru_cache(maxsize=1)
def general_features(store: SegmentationStore, device: torch.device) -> np.ndarray:
    """Return the features of all images of a store by the shipped general network, (n, D) float32.

    It wants particles `PARTICLE_PX` wide, so each image is scaled by the diameter that its
    micrograph was prepared with, as far as sides that the network halves allow, and standardised
    again, since scaling changes the noise. The bottleneck's channels are averaged over the image.
    Kept until another store is asked for: they are the same in every query.

    It sees less than in picking: an image alone is standardised, not its whole micrograph; what was
    scaled down to the store's px stays coarse when scaled up again; and the diameter is the mean of
    the annotated ones, which a user would have to know beforehand.

    store: one that `require_diameters` accepts.
    """
    assert store.diameters_px is not None
    checkpoint = load_checkpoint(SHIPPED, device)
    config = config_from_dict(checkpoint["config"], str(SHIPPED), PUConfig)
    network = restored(lambda: build_network(config), checkpoint["network"], SHIPPED, device)
    step_px = 2**config.model.depth
    steps = store.size_px * PARTICLE_PX / store.diameters_px / step_px
    sizes_px = np.maximum(1, np.rint(steps)).astype(int) * step_px
    features = np.empty((len(store), config.model.width * step_px), np.float32)
    for height, width in np.unique(sizes_px, axis=0).tolist():
        rows = np.flatnonzero((sizes_px == (height, width)).all(axis=1))
        scaled = _Scaled(store.images, (height, width))
        batch_size = max(1, SCALED_PX // (height * width))
        features[rows] = score_pool(network, scaled, rows, device, batch_size=batch_size).features
    return features


def require_diameters(store: SegmentationStore) -> None:
    """Raise `UserError` unless a store says how wide particles are, and they are wide enough."""
    if store.diameters_px is None:
        raise UserError(
            f"{store.folder} does not say how wide particles are, which typical_first needs: it is "
            f"of an older version; {MAKE_AGAIN}"
        )
    narrowest_px = store.diameters_px.min()
    if narrowest_px < NARROWEST_PX:
        raise UserError(
            f"particles in {store.folder} are down to {narrowest_px:.2g} px wide, too small for "
            f"typical_first: {MAKE_AGAIN}, with a larger --seg-size or with --seg-tiles"
        )


@dataclasses.dataclass(frozen=True)
class _Scaled:
    """Images (N, S, S) scaled to one size at which particles are `PARTICLE_PX` wide."""

    images: np.ndarray
    size_px: tuple[int, int]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        scaled = [scale_micrograph(self.images[row], self.size_px) for row in rows]
        return np.stack([prepare(one, (PARTICLE_PX, PARTICLE_PX)) for one in scaled])


def pixel_scores(z: Tensor) -> dict[str, Tensor]:
    """Return the scores of a batch by name, (B,) float32 each, from logits (B, 1, H, W).

    `uncertainty` is the mean over pixels of min(p, 1-p), `entropy` that of H(p) in nats,
    `particle_entropy` that of p·H(p), `margin` the fraction of ambiguous pixels, |2p-1| < 0.2. With
    `foreground_` before it, each is taken over foreground pixels alone, p > 0.2, and 0 where there
    is none. `foreground` is their fraction, `positive` that of pixels with p >= 0.5.
    """
    z = z.float().flatten(1)
    magnitude = z.abs()
    foreground = (z > FOREGROUND_LOGIT).float()
    # Every ambiguous pixel has p > 0.4 and is foreground too.
    n_ambiguous = (magnitude < AMBIGUOUS_LOGIT).float().sum(1)
    n_foreground = foreground.sum(1)
    at_least_one = n_foreground.clamp(min=1)
    n_pixels = z.shape[1]
    smaller = torch.sigmoid(-magnitude)  # min(p, 1-p), exact also where p is near 1
    entropy = _entropy(magnitude, smaller)
    return {
        "uncertainty": smaller.mean(1),
        "entropy": entropy.mean(1),
        "particle_entropy": (torch.sigmoid(z) * entropy).mean(1),
        "margin": n_ambiguous / n_pixels,
        "foreground_uncertainty": smaller.mul_(foreground).sum(1) / at_least_one,
        "foreground_entropy": entropy.mul_(foreground).sum(1) / at_least_one,
        "foreground_margin": n_ambiguous / at_least_one,
        "foreground": n_foreground / n_pixels,
        "positive": (z >= 0).float().mean(1),
    }


def _entropy(magnitude: Tensor, smaller: Tensor) -> Tensor:
    """H of each pixel in nats, from |z| and min(p, 1-p) of any shape.

    p·softplus(-z) + (1-p)·softplus(z), written for |z|: finite and exact for every finite logit.
    """
    return F.softplus(-magnitude).addcmul_(magnitude, smaller)


def _bald(network: nn.Module, x: Tensor, z: Tensor, precision: str) -> Tensor:
    """Mean over pixels of H(mean p) - mean H(p) over the 8 symmetries of the square, (B,).

    ``x`` and the logits ``z`` of the image as it lies are (B, 1, S, S). Gal et al. 2017, with the
    symmetries in the place of dropout. Two sums of maps are held, whatever the number of views.
    """
    p_sum, entropy_sum = torch.zeros_like(x), torch.zeros_like(x)
    for view in range(8):
        if view:
            with autocast(precision, x.device):
                z = network(_turn(x, view))
            z = _turn_back(z, view)
        magnitude = z.float().abs()
        p_sum += torch.sigmoid(z.float())
        entropy_sum += _entropy(magnitude, torch.sigmoid(-magnitude))
    p = p_sum / 8
    of_mean = torch.special.entr(p) + torch.special.entr(1 - p)
    # Below zero by rounding alone.
    return (of_mean - entropy_sum / 8).clamp(min=0).mean(dim=(1, 2, 3))


def _turn(x: Tensor, view: int) -> Tensor:
    """One of the 8 symmetries of the square, of (..., S, S); view 0 leaves it as it is."""
    return torch.rot90(x.flip(-1) if view >= 4 else x, view % 4, (-2, -1))


def _turn_back(x: Tensor, view: int) -> Tensor:
    x = torch.rot90(x, -(view % 4), (-2, -1))
    return x.flip(-1) if view >= 4 else x


@contextlib.contextmanager
def _taps(network: nn.Module, with_badge: bool) -> Iterator[dict[str, Tensor]]:
    """Yield a dictionary that each forward pass fills with the batch's `features` and `badge`.

    The hooks pool at once, so that no map outlives its layer, and are removed at the end.
    """
    tapped: dict[str, Tensor] = {}

    def pool_features(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        tapped["features"] = output.mean(dim=(2, 3), dtype=torch.float32)

    def embed_gradient(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        tapped["badge"] = _gradient_embedding(inputs[0], output)

    hooks = [(network.get_submodule("bottleneck"), pool_features)]
    if with_badge:
        hooks.append((network.get_submodule("head"), embed_gradient))
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield tapped
    finally:
        for handle in handles:
            handle.remove()


def _gradient_embedding(h: Tensor, z: Tensor) -> Tensor:
    """Return (p - ŷ)·h, averaged over the pixels predicted 1 and over those predicted 0.

    ``h`` (B, c, H, W) is the head's input, ``z`` (B, 1, H, W) the logits, ŷ = [p >= .5]
    the label that the network would give: the gradient of its own cross-entropy there. Returns
    (B, 2 c), zeros for a class without pixels. Ash et al. 2020 (BADGE), pooled for segmentation.
    """
    z = z.float().flatten(1)
    smaller = torch.sigmoid(-z.abs())
    weights = []
    for predicted, sign in ((z >= 0, -1), (z < 0, 1)):  # p - ŷ is -(1-p) where ŷ = 1, else p
        n = predicted.sum(1, keepdim=True).clamp(min=1)
        weights.append(smaller * predicted * (sign / n))
    # The hook runs inside the network's autocast, which would round the products.
    with torch.autocast(z.device.type, enabled=False):
        return torch.bmm(torch.stack(weights, 1), h.float().flatten(2).transpose(1, 2)).flatten(1)


def _check_finite(name: str, values: np.ndarray, rows: np.ndarray) -> None:
    finite = np.isfinite(values).reshape(len(rows), -1).all(axis=1)
    if not finite.all():
        raise UserError(
            f"the network's {name} is not finite for image {rows[~finite][0]} of the pool: "
            f"lower optimizer.lr or set training.precision=fp32"
        )
