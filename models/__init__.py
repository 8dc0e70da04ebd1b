"""Networks only: this package imports torch and torchvision, and nothing else of the project."""

from models.pu_classifier import BACKBONES, PUClassifier
from models.unet import AttentionUNet, UNet

UNETS = {"attention_unet": AttentionUNet, "unet": UNet}  # by `model.name` of a configuration

__all__ = ["BACKBONES", "UNETS", "AttentionUNet", "PUClassifier", "UNet"]
