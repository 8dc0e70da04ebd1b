"""How the checkpoint's network expects a micrograph, and the micrograph scaled to that."""

import dataclasses
import math
import reprlib
from pathlib import Path
from typing import Any

import numpy as np

from picking.errors import UserError
from picking.files import is_number
from picking.micrographs.preparation import TRAIN_AGAIN, require_preparation
from picking.micrographs.problems import MOST_PX, Notes
from picking.micrographs.reading import image_size, read_grey, read_scaled
from picking.stores.masks import RESIZES, working_size


@dataclasses.dataclass(frozen=True)
class PatchInput:
    """Of a classifier: patches of the micrograph, scaled to what the network sees.

    diameter_px: of the particles that it was trained on, where known. coarseness: of the coarsest
    micrograph of training, where known; see `picking.micrographs.junk.coarseness`.
    """

    patch_size_px: int
    input_size_px: int
    diameter_px: float | None
    pixel_size_angstrom: None = None
    coarseness: float | None = None

    def scaled(self, path: Path, notes: Notes | None = None) -> np.ndarray:
        """Return the grey of the micrograph as it is, (h, w); notes: as in reading."""
        return read_grey(path, notes)


@dataclasses.dataclass(frozen=True)
class WindowInput:
    """Of a U-Net that learned from windows about picks: the micrograph at one scale.

    side_px: of what the network sees at once. scale: px of that per px of the micrograph.
    diameter_px: of the particles there. disk: diameter of the labelled disk
    around a pick, in particle diameters. pixel_size_angstrom: of the micrographs there, if known.
    coarseness: as in `PatchInput`.
    """

    side_px: int
    scale: float
    diameter_px: float
    disk: float
    pixel_size_angstrom: float | None = None
    coarseness: float | None = None

    def scaled(self, path: Path, notes: Notes | None = None) -> np.ndarray:
        """Return the micrograph's grey at this scale, (h, w); notes: as in reading."""
        height, width = (max(1, round(n * self.scale)) for n in image_size(path))
        if height * width > MOST_PX:
            raise UserError(
                f"{path} would be scaled to {width:,} x {height:,} px for such small "
                "particles: check --diameter"
            )
        return read_scaled(path, (height, width), notes)


@dataclasses.dataclass(frozen=True)
class TileInput:
    """Of a U-Net that learned from masks: the micrograph as tiles, see picking/stores/masks.py.

    disk: diameter of the disks in those masks, in diameters of the particle. coarseness: as in
    `PatchInput`.
    """

    side_px: int
    tiles: int
    resize: str
    disk: float
    diameter_px: None = None
    pixel_size_angstrom: None = None
    coarseness: float | None = None

    def scaled(self, path: Path, notes: Notes | None = None) -> np.ndarray:
        """Return the micrograph's grey at the size of its tiles, (h, w); notes: as in reading."""
        size_px = working_size(image_size(path), self.side_px, self.tiles, self.resize)
        return read_scaled(path, size_px, notes)


NetworkInput = PatchInput | WindowInput | TileInput
# What a checkpoint must say of its input
OF_PATCHES = {"patch_size_px": int, "input_size_px": int, "preparation": str}
OF_WINDOWS = {**OF_PATCHES, "scale": float, "diameter_px": float, "reach_px": float}
OF_TILES = {"side_px": int, "tiles": int, "resize": str, "disk": float, "preparation": str}


def input_of(checkpoint: dict[str, Any], source: str) -> NetworkInput:
    """Return how a checkpoint's network expects a micrograph; errors name ``source``.

    Raises `UserError` when it is no model to pick with, when the input is not described, and when
    a number there is absurd.
    """
    said = checkpoint.get("input")
    said = dict(said) if isinstance(said, dict) else {}
    if checkpoint["kind"] == "pu_classifier":
        config = checkpoint.get("config")
        of_data = config.get("data") if isinstance(config, dict) else None
        said["input_size_px"] = of_data.get("input_size_px") if isinstance(of_data, dict) else None
        kinds = OF_WINDOWS if "scale" in said else OF_PATCHES
    elif checkpoint["kind"] == "segmentation":
        kinds = OF_TILES
    else:
        raise UserError(f"{source} is no model to pick with: give best_model.pt of a run")
    for key, kind in kinds.items():
        if not isinstance(said.get(key), kind) or isinstance(said[key], bool):
            raise UserError(
                f"checkpoint {source} does not say how its input was prepared (input.{key}): it is "
                "of an older version; train again"
            )
    require_preparation(said["preparation"], f"checkpoint {source}", TRAIN_AGAIN)
    sides_px = [said.get(key, 1) for key in ("patch_size_px", "side_px", "tiles")]
    lengths = ("scale", "diameter_px", "reach_px", "disk", "pixel_size_angstrom")
    sizes = [said.get(key, 1.0) for key in lengths]
    if said.get("coarseness") is not None:
        sizes.append(said["coarseness"])
    if (
        min(sides_px) < 1
        or math.prod(sides_px) ** 2 > MOST_PX
        or not all(is_number(size) and size > 0 for size in sizes)
        or said.get("resize", RESIZES[0]) not in RESIZES
    ):
        raise UserError(
            f"checkpoint {source} is damaged (input: {reprlib.repr(said)}): use another, or train "
            "again"
        )
    wants: NetworkInput
    if kinds is OF_TILES:
        wants = TileInput(said["side_px"], said["tiles"], said["resize"], said["disk"])
    elif kinds is OF_PATCHES:
        wants = PatchInput(said["patch_size_px"], said["input_size_px"], said.get("diameter_px"))
    else:
        disk = 2 * said["reach_px"] / (said["scale"] * said["diameter_px"])
        learned_at = said.get("pixel_size_angstrom")
        wants = WindowInput(
            said["input_size_px"], said["scale"], said["diameter_px"], disk, learned_at
        )
    return dataclasses.replace(wants, coarseness=said.get("coarseness"))
