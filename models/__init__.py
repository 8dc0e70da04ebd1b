"""Networks only: this package imports torch and torchvision, and nothing else of the project."""

from models.pu_classifier import BACKBONES, PUClassifier

__all__ = ["BACKBONES", "PUClassifier"]
