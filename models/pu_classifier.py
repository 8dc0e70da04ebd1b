"""The patch classifier: a torchvision ResNet with one channel in and one logit out."""

from torch import Tensor, nn
from torchvision.models import ResNet, resnet18, resnet34, resnet50
from torchvision.models.resnet import BasicBlock


class _NarrowResNet18(ResNet):
    """ResNet-18 with a quarter of the channels: 0.7 M parameters, for a CPU."""

    def __init__(self, weights: None):
        super().__init__(BasicBlock, [2, 2, 2, 2])
        self.fc = nn.Linear(128, 1)

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


_BUILDERS = {
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "resnet18_narrow": _NarrowResNet18,
}
BACKBONES = tuple(_BUILDERS)


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
        if backbone not in _BUILDERS:
            raise ValueError(f"unknown backbone {backbone!r}: known are {', '.join(BACKBONES)}")
        network = _BUILDERS[backbone](weights=None)
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
