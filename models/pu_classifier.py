"""The patch classifier: a torchvision ResNet with one channel in and one logit out."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


def _narrow_resnet18(weights: None) -> nn.Module:
    """Return a ResNet-18 with a quarter of the channels: 0.7 M parameters, for a CPU."""
    from torchvision.models import ResNet
    from torchvision.models.resnet import BasicBlock

    class Narrow(ResNet):
        def _make_layer(
            self,
            block: type[nn.Module],
            planes: int,
            blocks: int,
            stride: int = 1,
            dilate: bool = False,
        ) -> nn.Sequential:
            if planes == 64:  # the first level
                self.inplanes = 16
                self.bn1 = nn.BatchNorm2d(16)
            return super()._make_layer(block, planes // 4, blocks, stride, dilate)

    network = Narrow(BasicBlock, [2, 2, 2, 2])
    network.fc = nn.Linear(128, 1)
    return network


def _builder(backbone: str) -> Callable[..., Any]:
    """Return what builds a backbone; torchvision takes seconds to import, and U-Nets need none."""
    if backbone == "resnet18_narrow":
        return _narrow_resnet18
    from torchvision import models

    return getattr(models, backbone)


BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet18_narrow")


class PUClassifier(nn.Module):
    """Logit of "this patch is centred on a particle". Weights start from torch's random numbers.

    Args:
        backbone: one of `BACKBONES`.
        dropout: fraction of the pooled features that is dropped before the last layer.

    Raises:
        ValueError: for an unknown backbone.

    Source: He et al., Deep residual learning for image recognition, CVPR 2016, as in torchvision.
    """

    def __init__(self, backbone: str = "resnet18", dropout: float = 0.3):
        super().__init__()
        if backbone not in BACKBONES:
            raise ValueError(f"unknown backbone {backbone!r}: known are {', '.join(BACKBONES)}")
        network = _builder(backbone)(weights=None)
        network.conv1 = nn.Conv2d(
            1, network.bn1.num_features, kernel_size=7, stride=2, padding=3, bias=False
        )
        # As torchvision initialises the layer that this one replaces
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.fc = nn.Sequential(nn.Dropout(dropout), nn.Linear(network.fc.in_features, 1))
        self.network = network

    def forward(self, patches: Tensor) -> Tensor:
        """Return (B,) logits of (B, 1, h, w) patches; h and w may be any size from 32 px on."""
        return self.network(patches).squeeze(1)
