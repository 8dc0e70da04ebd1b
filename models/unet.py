"""U-Net and Attention U-Net: one logit for every pixel."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class UNet(nn.Module):
    """Logit of "this pixel is particle" for every pixel. Weights start from torch's random numbers.

    On the way down the image is halved ``depth`` times, and the channels double each time. On the
    way up each level joins the output of the level below with the skip, its own output on the way
    down. The deepest block is ``bottleneck``, with width * 2**depth channels; the last layer is
    ``head``.

    Args:
        in_channels: channels of the images.
        out_channels: logits for each pixel.
        width: channels of the first level.
        depth: how often the image is halved.

    Source: Ronneberger et al., U-Net, MICCAI 2015, with padding and batch norm.
    """

    def __init__(
        self, in_channels: int = 1, out_channels: int = 1, width: int = 64, depth: int = 4
    ):
        super().__init__()
        channels = [width * 2**level for level in range(depth)]
        upwards = channels[::-1]
        self.depth = depth
        self.down = nn.ModuleList(
            _block(before, after)
            for before, after in zip([in_channels, *channels], channels, strict=False)
        )
        self.bottleneck = _block(upwards[0], 2 * upwards[0])
        self.grow = nn.ModuleList(nn.ConvTranspose2d(2 * c, c, 2, stride=2) for c in upwards)
        self.up = nn.ModuleList(_block(2 * c, c) for c in upwards)
        self.head = nn.Conv2d(width, out_channels, 1)

    @property
    def reach_px(self) -> int:
        """How far from a stretch of pixels what its logits depend on lies, at most.

        The stretch begins and ends at multiples of 2**depth, and so does what is as much wider. On
        the way up the two 3x3 convolutions of a level look 2 of its pixels further, so that 4 of
        the bottleneck's are reached (4 / 2 + 2 = 4, however deep), and on the way down each level
        adds 2 of its own: 4 * 2**depth + 2 * (2**depth - 1), less than 6 * 2**depth.
        """
        return 6 * 2**self.depth

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, out_channels, h, w) logits of (B, in_channels, h, w) images.

        Raises:
            ValueError: when h or w is not a multiple of 2**depth.
        """
        step_px = 2**self.depth
        height, width = images.shape[-2:]
        if height % step_px or width % step_px:
            raise ValueError(
                f"images are {height} x {width} px: with depth {self.depth} both sides must be "
                f"multiples of 2**{self.depth} = {step_px}"
            )
        x = images
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.bottleneck(x)
        for level, (grow, block) in enumerate(zip(self.grow, self.up, strict=True)):
            x = grow(x)
            # The skip keeps no name, so that in evaluation its memory is free when the block runs
            x = torch.cat([self._passed_on(level, skips.pop(), x), x], dim=1)
            x = block(x)
        return self.head(x)

    def _passed_on(self, level: int, skip: Tensor, gating: Tensor) -> Tensor:
        """Return the skip as block ``level`` of the way up gets it; 0 is the deepest."""
        return skip


class AttentionUNet(UNet):
    """`UNet` whose skips pass through attention gates, which the level below controls.

    With the same seed, layers that `UNet` has too start with the same weights.

    Source: Oktay et al., Attention U-Net, MIDL 2018, but with the gate after the up-convolution,
    where both its inputs have the skip's size.
    """

    def __init__(
        self, in_channels: int = 1, out_channels: int = 1, width: int = 64, depth: int = 4
    ):
        super().__init__(in_channels, out_channels, width, depth)
        self.gates = nn.ModuleList(
            AttentionGate(width * 2**level) for level in reversed(range(depth))
        )

    def _passed_on(self, level: int, skip: Tensor, gating: Tensor) -> Tensor:
        return self.gates[level](skip, gating)


class AttentionGate(nn.Module):
    """Multiply each pixel of a skip x by ψ(ReLU(W_g g + W_x x)), a coefficient from 0 to 1."""

    def __init__(self, channels: int):
        super().__init__()
        inner = max(1, channels // 2)
        self.w_g = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner))
        self.w_x = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner))
        self.psi = nn.Sequential(nn.Conv2d(inner, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        """Return the weighted skip; it, ``skip`` and ``gating`` are (B, channels, h, w)."""
        # In place, to save memory: no gradient needs the outputs of batch norm
        return skip * self.psi(F.relu_(self.w_g(gating).add_(self.w_x(skip))))


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return two 3x3 convolutions, each with batch norm and ReLU, that keep the image's size."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
