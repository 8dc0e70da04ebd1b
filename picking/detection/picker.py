"""A trained network as a picker: read from its checkpoint, which keeps a threshold for picking."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from picking.config import ActiveConfig, PUConfig, config_from_dict
from picking.detection import peaks, score_map
from picking.errors import UserError
from picking.formats.picks import Picks
from picking.runs import checkpoints, folder
from picking.training.networks import network_of


class Picker(NamedTuple):
    """A network ready to pick with, and what its checkpoint says."""

    path: Path
    network: nn.Module
    checkpoint: dict[str, Any]
    wants: dict[str, Any]  # see `dense.input_of`
    precision: str
    device: torch.device


def load_picker(path: Path, device: torch.device) -> Picker:
    """Return the network of a checkpoint, in evaluation mode on the device.

    Raises `UserError` when the checkpoint is damaged or no model to pick with.
    """
    checkpoint = folder.load_checkpoint(path)
    wants = score_map.input_of(checkpoint, str(path))
    config: PUConfig | ActiveConfig
    if checkpoint["kind"] == "pu_classifier":
        config = config_from_dict(checkpoint["config"], str(path), PUConfig)
        side_px, is_unet = wants["input_size_px"], "scale" in wants
        if (config.model.backbone == "unet") != is_unet:
            raise checkpoints.damaged(path, "its network is not what its input says")
    else:
        config = config_from_dict(checkpoint.get("config"), str(path), ActiveConfig)
        side_px, is_unet = wants["side_px"], True
    model = config.model
    if is_unet and side_px % 2**model.depth:
        raise checkpoints.damaged(path, f"{side_px} px cannot be halved so often")
    for key in ("threshold", "pick_threshold"):
        threshold = checkpoint.get(key)
        if threshold is not None and not (isinstance(threshold, float) and 0 <= threshold <= 1):
            raise checkpoints.damaged(path, f"{key} is not from 0 to 1")
    weights = checkpoint.get("network")
    network = checkpoints.restored(lambda: network_of(model), weights, path, device)
    return Picker(path, network.eval(), checkpoint, wants, config.training.precision, device)


def pick(picker: Picker, path: Path, diameter_px: float) -> tuple[score_map.ScoreMap, Picks]:
    """Return a micrograph's scores and its picks at any threshold worth looking at."""
    scores = score_map.score_map(
        path, picker.network, picker.wants, picker.precision, picker.device
    )
    disk = picker.wants.get("disk")
    if disk is None:
        return scores, peaks.classifier_picks(scores, path.name, diameter_px)
    pixel_threshold = picker.checkpoint.get("threshold") or 0.5
    found = peaks.segmentation_picks(scores, path.name, diameter_px, disk, pixel_threshold)
    return scores, found


def kept_threshold(picker: Picker) -> tuple[float, str]:
    """Return the checkpoint's threshold and where it comes from; raises `UserError` without any."""
    for key, source in (
        ("pick_threshold", "the checkpoint's, chosen for picking"),
        ("threshold", "the checkpoint's, of training: --choose-threshold finds a better one"),
    ):
        if isinstance(picker.checkpoint.get(key), float):
            return picker.checkpoint[key], source
    raise UserError(
        f"checkpoint {picker.path} has no threshold: give --threshold, or choose one on "
        "validation micrographs with --choose-threshold"
    )


def holder_of(checkpoint: Path) -> Path:
    """Return the folder to lock: that of the run, as training does, or the checkpoint's own."""
    run = checkpoint.parent.parent
    return run if (run / "config.yaml").exists() else checkpoint.parent


def keep_threshold(picker: Picker, threshold: float, chosen_on: dict[str, Any]) -> None:
    """Write the threshold into the checkpoint, unless training has put another there meanwhile."""
    now = folder.load_checkpoint(picker.path)
    if any(now.get(key) != picker.checkpoint.get(key) for key in ("kind", "epoch", "step", "val")):
        raise UserError(
            f"checkpoint {picker.path} was replaced while the threshold was chosen: choose it "
            "again once training is done"
        )
    kept = {**now, "pick_threshold": threshold, "pick_threshold_chosen_on": chosen_on}
    folder.save_checkpoint(picker.path, kept)
    print(f"Threshold {threshold:.4f} is kept in {picker.path}")
