"""New networks, built as a configuration says."""

import torch
from torch import nn

from models import UNETS, PUClassifier, UNet
from picking.config import ActiveConfig, ModelConfig, PUConfig, SegmentationModelConfig
from picking.seeds import stream_seed


def network_of(model: ModelConfig | SegmentationModelConfig) -> nn.Module:
    """Return a new network on torch's default device, with weights from torch's random numbers."""
    if isinstance(model, SegmentationModelConfig):
        return UNETS[model.name](width=model.width, depth=model.depth)
    if model.backbone == "unet":
        return UNet(width=model.width, depth=model.depth)
    return PUClassifier(model.backbone, model.dropout)


def build_network(config: PUConfig | ActiveConfig) -> nn.Module:
    """Return `network_of` the config's model, in the memory layout that the config trains in."""
    network = network_of(config.model)
    if config.training.channels_last:
        network = network.to(memory_format=torch.channels_last)
    return network


def new_network(config: PUConfig | ActiveConfig, *stream_names: str | int) -> nn.Module:
    """Return `build_network` with weights that follow from the seed and the stream's names."""
    torch.manual_seed(stream_seed(config.training.seed, *stream_names))
    return build_network(config)
