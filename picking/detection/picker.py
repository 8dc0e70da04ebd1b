"""A trained network as a picker, read from its checkpoint."""

import argparse
import dataclasses
import datetime
import itertools
import reprlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from picking.config import ActiveConfig, PUConfig, config_from_dict
from picking.detection.network_input import NetworkInput, PatchInput, WindowInput, input_of
from picking.errors import UserError
from picking.evaluation.quality import Sizes
from picking.files import is_number, sha256
from picking.inputs.diameters import learned_diameters, require_diameter_fits
from picking.metrics.calibration import Calibration
from picking.runs import checkpoints, distributed
from picking.runs.checkpoints import SHIPPED, load_checkpoint, named_checkpoint
from picking.training.networks import network_of

PATIENCE = datetime.timedelta(days=7)  # of processes that are done with their share


class Picker(NamedTuple):
    """A network ready to pick with, and what its checkpoint says.

    checksum: SHA-256 of the checkpoint's file. thresholds: those that it holds, by key.
    invert: bright particles are to look as dark ones did in training, or the reverse. calibration:
    what makes probabilities of the scores of candidates, where training found it. keep_junk: picks
    may lie where carbon, ice or aggregates are seen.
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
    keep_junk: bool = False

    @property
    def is_general(self) -> bool:
        """Whether it is the network that comes with the project, or a copy of it."""
        return SHIPPED.is_file() and self.checksum == sha256(SHIPPED.read_bytes())

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
    path = named_checkpoint(str(path))
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


def load(args: argparse.Namespace, sizes: Sizes) -> tuple[Picker, float]:
    """Return the network and the diameter of particles in px, but for those of ``args.own_px``.

    Sets that where no diameter is asked for.
    """
    device, _, _ = distributed.start(args.device, PATIENCE)
    if args.num_workers:
        if device.type != "cpu":
            raise UserError(
                "--num-workers is for the CPU: with --device cuda leave it out, and start torchrun "
                "with a process for each GPU"
            )
        torch.set_num_threads(1)  # threads that are there already would not live on in a worker
    picker = load_picker(args.checkpoint, device)
    picker = picker._replace(invert=args.invert, keep_junk=args.keep_junk)
    if args.asked_px is not None:
        return picker, args.asked_px
    if picker.is_general:
        raise UserError(
            "--diameter is missing: the network that comes with the project picks particles of any "
            "size, such as 150A or 108px"
        )
    learned = picker.input.diameter_px, picker.input.pixel_size_angstrom
    diameter_px, args.own_px = learned_diameters(*learned, args.pixel_sizes, sizes)
    require_diameter_fits(diameter_px, sizes, args.own_px)
    return picker, diameter_px


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
