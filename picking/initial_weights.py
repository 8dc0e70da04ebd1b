"""Weights of another run that a segmentation network starts from."""

from pathlib import Path
from typing import Any

from torch import nn

from picking import checkpoints, runs
from picking.config import ActiveConfig, PUConfig, SegmentationModelConfig, config_from_dict
from picking.errors import UserError

GATES = "gates."  # the layers of an Attention U-Net that a U-Net has not


def read_initial_weights(
    path: Path, network: nn.Module, model: SegmentationModelConfig
) -> dict[str, Any]:
    """Return a state dict for ``network``, a new one that ``model`` describes.

    path: a best_model.pt of PU learning with a U-Net or of segmentation. Attention gates that it
    has not are the network's own; all else must fit, or it is a `UserError` that says what differs.
    """
    checkpoint = runs.load_checkpoint(path)
    use = "use best_model.pt of a segmentation run, or of PU learning with model.backbone=unet"
    theirs: Any
    if checkpoint["kind"] == "pu_classifier":
        theirs = config_from_dict(checkpoint.get("config"), f"checkpoint {path}", PUConfig).model
        if theirs.backbone != "unet":
            raise UserError(
                f"active_learning.initial_weights: {path} is a {theirs.backbone}, not a U-Net: "
                f"{use}"
            )
    elif checkpoint["kind"] == "segmentation":
        saved = config_from_dict(checkpoint.get("config"), f"checkpoint {path}", ActiveConfig)
        theirs = saved.model
    else:
        raise UserError(f"active_learning.initial_weights: {path} is no trained model: {use}")

    needed = {key: getattr(theirs, key) for key in ("width", "depth")}
    if getattr(theirs, "name", None) == "attention_unet":
        needed["name"] = "attention_unet"  # its gates have no place in a U-Net
    differing = {key: value for key, value in needed.items() if value != getattr(model, key)}
    if differing:
        has = ", ".join(f"{key} {value}" for key, value in differing.items())
        asked = ", ".join(f"{key} {getattr(model, key)}" for key in differing)
        change = " ".join(f"model.{key}={value}" for key, value in differing.items())
        raise UserError(
            f"active_learning.initial_weights: the network in {path} has {has}, the config's "
            f"`model` {asked}: set {change}, or use weights of a network that fits"
        )

    weights: Any = checkpoint.get("network")
    if isinstance(weights, dict) and not any(str(key).startswith(GATES) for key in weights):
        own = network.state_dict()
        weights = {**weights, **{key: own[key] for key in own if key.startswith(GATES)}}
    checkpoints.require_weights(network, weights, path)
    return weights
