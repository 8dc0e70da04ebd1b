"""Weights to start from: those of a U-Net that learned before, whatever pipeline trained it."""

from typing import Any

import torch
from torch import nn

from picking.config import (
    ActiveConfig,
    ModelConfig,
    PUConfig,
    SegmentationModelConfig,
    config_from_dict,
)
from picking.errors import UserError
from picking.micrographs.preparation import TRAIN_AGAIN, require_preparation
from picking.runs.checkpoints import load_checkpoint, named_checkpoint, require_weights
from picking.training.networks import build_network

GATES = "gates."  # the layers of an Attention U-Net that a U-Net has not


def read_initial_weights(
    named: str, network: nn.Module, model: ModelConfig | SegmentationModelConfig, key: str
) -> dict[str, Any]:
    """Return a state dict for ``network``, a new one that ``model`` describes.

    named: a best_model.pt of PU learning with a U-Net or of segmentation, as `named_checkpoint`
    takes it. key: of the config, which named it. Attention gates that it has not are the network's
    own; all else must fit, or it is a `UserError` that says what differs.
    """
    if not named:
        raise UserError(f"{key} is empty: give a best_model.pt, or null for new weights")
    path = named_checkpoint(named)
    if (wanted := getattr(model, "backbone", "unet")) != "unet":
        raise UserError(f"{key} is of a U-Net, and model.backbone is {wanted}: leave it out")
    checkpoint, theirs, backbone = load_checkpoint(path), None, None
    if kind := {"pu_classifier": PUConfig, "segmentation": ActiveConfig}.get(checkpoint["kind"]):
        config: Any = config_from_dict(checkpoint.get("config"), f"checkpoint {path}", kind)
        theirs, backbone = config.model, getattr(config.model, "backbone", "unet")
    if backbone != "unet":
        what = f"a {backbone}, not a U-Net" if backbone else "no trained model"
        raise UserError(
            f"{key}: {path} is {what}: use best_model.pt of a "
            "segmentation run, or of PU learning with model.backbone=unet"
        )

    wants = checkpoint.get("input")
    said = wants.get("preparation") if isinstance(wants, dict) else None
    require_preparation(said, f"{key}: checkpoint {path}", TRAIN_AGAIN)
    needed = {name: getattr(theirs, name) for name in ("width", "depth")}
    if getattr(theirs, "name", None) == "attention_unet":  # its gates have no place in a U-Net
        if isinstance(model, ModelConfig):
            raise UserError(f"{key}: {path} is an Attention U-Net: use weights of a plain U-Net")
        needed["name"] = "attention_unet"
    differing = {name: value for name, value in needed.items() if value != getattr(model, name)}
    if differing:
        has = ", ".join(f"{name} {value}" for name, value in differing.items())
        asked = ", ".join(f"{name} {getattr(model, name)}" for name in differing)
        change = " ".join(f"model.{name}={value}" for name, value in differing.items())
        raise UserError(
            f"{key}: the network in {path} has {has}, the config's "
            f"`model` {asked}: set {change}, or use weights of a network that fits"
        )

    weights: Any = checkpoint.get("network")
    if isinstance(weights, dict) and not any(str(name).startswith(GATES) for name in weights):
        own = network.state_dict()
        weights = {**weights, **{name: own[name] for name in own if name.startswith(GATES)}}
    require_weights(network, weights, path)
    return weights


def require_initial_weights(named: str, config: PUConfig | ActiveConfig, key: str) -> None:
    """Raise `UserError` where `read_initial_weights` would for the network of a configuration."""
    with torch.device("meta"):
        network = build_network(config)
    read_initial_weights(named, network, config.model, key)
