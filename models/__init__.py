"""Networks only: this package imports torch and torchvision, and nothing else of the project."""

from models.pu_classifier import BACKBONES, PUClassifier
from models.unet import AttentionUNet, UNet

__all__ = ["BACKBONES", "AttentionUNet", "PUClassifier", "UNet"]
