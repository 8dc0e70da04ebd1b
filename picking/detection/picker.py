"""A trained network as a picker, read from its checkpoint."""

import dataclasses
import itertools
import reprlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from picking.config import ActiveConfig, PUConfig, config_from_dict
from picking.detection import peaks
from picking.detection.network_input import NetworkInput, PatchInput, WindowInput, input_of
from picking.detection.score_map import ScoreMap, classifier_map, segmentation_map
from picking.errors import UserError, raise_if_stopped
from picking.files import is_number, sha256
from picking.formats.picks import Picks
from picking.metrics.calibration import Calibration
from picking.micrographs.preparation import prepare
from picking.micrographs.problems import CONSTANT, Notes, UnreadableImage
from picking.micrographs.reading import image_size
from picking.runs import checkpoints
from picking.runs.checkpoints import load_checkpoint
from picking.training.networks import network_of

INVERTED_TIMES = 3  # as many picks on an inverted micrograph say that it should be


class Picker(NamedTuple):
    """A network ready to pick with, and what its checkpoint says.

    checksum: SHA-256 of the checkpoint's file. thresholds: those that it holds, by key.
    invert: bright particles are to look as dark ones did in training, or the reverse. calibration:
    what makes probabilities of the scores of candidates, where training found it.
    """

    path: Path
    checksum: str
    network: nn.Module
    input: NetworkInput
    thresholds: dict[str, float]
    precision: str
    device: torch.device
    invert: bool = False
    calibration: Calibration | None = None

    def for_diameter(self, diameter_px: float) -> "Picker":
        """Return the picker for micrographs on which particles are so wide.

        Their px may be larger or smaller than those of the micrographs that were learned from.
        """
        if not isinstance(self.input, WindowInput):
            return self
        scale = self.input.scale * self.input.diameter_px / diameter_px
        return self._replace(input=dataclasses.replace(self.input, scale=scale))


def load_picker(path: Path, device: torch.device) -> Picker:
    """Return the network of a checkpoint, in evaluation mode on the device.

    Raises `UserError` when the checkpoint is damaged or no model to pick with.
    """
    # Before it is loaded: where training replaces it between the two, `keep_threshold` notices
    checksum = sha256(path.read_bytes()) if path.is_file() else ""
    checkpoint = load_checkpoint(path)
    wants = input_of(checkpoint, str(path))
    config: PUConfig | ActiveConfig
    if checkpoint["kind"] == "pu_classifier":
        config = config_from_dict(checkpoint["config"], str(path), PUConfig)
        if (config.model.backbone == "unet") != isinstance(wants, WindowInput):
            raise checkpoints.damaged(path, "its network is not what its input says")
    else:
        config = config_from_dict(checkpoint.get("config"), str(path), ActiveConfig)
    model = config.model
    if not isinstance(wants, PatchInput) and wants.side_px % 2**model.depth:
        raise checkpoints.damaged(path, f"{wants.side_px} px cannot be halved so often")
    weights = checkpoint.get("network")
    network = checkpoints.restored(lambda: network_of(model), weights, path, device).eval()
    return Picker(
        path=path,
        checksum=checksum,
        network=network if isinstance(wants, PatchInput) else for_scoring(network),
        input=wants,
        thresholds=_thresholds(checkpoint, path),
        precision=config.training.precision,
        device=device,
        calibration=_calibration(checkpoint, path),
    )


def for_scoring(network: nn.Module) -> nn.Module:
    """Return a U-Net in evaluation mode as a CPU is fastest with it; logits differ by rounding.

    Batch norm goes into the convolution before it, and channels lie side by side in memory: on one
    core that takes 0.47 of the time.
    """
    for block in [one for one in network.modules() if isinstance(one, nn.Sequential)]:
        for i, (layer, after) in enumerate(itertools.pairwise(block)):
            if isinstance(layer, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                block[i], block[i + 1] = fuse_conv_bn_eval(layer, after), nn.Identity()
    return network.to(memory_format=torch.channels_last)


def _thresholds(checkpoint: dict[str, Any], path: Path) -> dict[str, float]:
    """Return the thresholds that a checkpoint holds: of training and, if it is old, for picking."""
    kept = {}
    for key in ("threshold", "pick_threshold"):
        threshold = checkpoint.get(key)
        if threshold is None:
            continue
        if not isinstance(threshold, float) or not 0 <= threshold <= 1:
            raise checkpoints.damaged(path, f"{key} is not from 0 to 1")
        kept[key] = threshold
    return kept


def _calibration(checkpoint: dict[str, Any], path: Path) -> Calibration | None:
    """Return the calibration that a checkpoint holds; those without go on as they are."""
    kept = checkpoint.get("calibration")
    if kept is None:
        return None
    if (
        not isinstance(kept, dict)
        or set(kept) != set(Calibration._fields)
        or not all(is_number(value) for value in kept.values())
        or kept["slope"] <= 0
        or not 0 <= kept["threshold"] <= 1
    ):
        raise checkpoints.damaged(path, f"calibration: {reprlib.repr(kept)}")
    return Calibration(**kept)


def pick(
    picker: Picker, path: Path, diameter_px: float, notes: Notes | None = None
) -> tuple[ScoreMap, Picks]:
    """Return a micrograph's scores and its picks at any threshold worth looking at.

    The picks' scores are calibrated where the checkpoint says how; the map's are the network's own.
    notes: gets what must be said of the file. Raises `UnreadableImage` when the file is no
    micrograph or without contrast, and `UserError` when the scores are not finite.
    """
    raise_if_stopped()
    wants, how = picker.input, (picker.precision, picker.device)
    notes = {} if notes is None else notes
    grey, size_px = wants.scaled(path, notes), image_size(path)
    if CONSTANT in notes:
        raise UnreadableImage(f"{path} has no contrast, its px are all equal: write it again")
    grey = np.negative(grey, dtype=np.float32) if picker.invert else grey
    seen = prepare(grey, diameter_px * np.array(grey.shape) / size_px)
    if isinstance(wants, PatchInput):
        sizes_px = wants.patch_size_px, wants.input_size_px
        scores = classifier_map(picker.network, seen, *sizes_px, *how)
    else:
        scores = segmentation_map(picker.network, seen, size_px, *how)
    if not np.isfinite(scores.logits).all():
        raise UserError(f"the scores of {path} are not finite: set training.precision=fp32")
    if isinstance(wants, PatchInput):
        return scores, peaks.classifier_picks(scores, path.name, diameter_px)
    threshold = picker.thresholds.get("threshold") or 0.5
    picks = peaks.segmentation_picks(scores, path.name, diameter_px, wants.disk, threshold)
    if picker.calibration is not None:
        picks = dataclasses.replace(picks, scores=picker.calibration(picks.scores))
    return scores, picks


def fits_inverted(picker: Picker, path: Path, diameter_px: float, threshold: float) -> bool:
    """Return whether a micrograph has several times the picks when its grey is inverted."""
    both = picker, picker._replace(invert=not picker.invert)
    here, there = [(pick(one, path, diameter_px)[1].scores >= threshold).sum() for one in both]
    return bool(there >= INVERTED_TIMES * (here + 1))
