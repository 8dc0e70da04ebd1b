"""Micrographs scaled down, with a mask of their particles: planned, drawn, cut into tiles.

A micrograph becomes one square image, or N x N tiles of one N times as large. `stretch` scales each
axis by itself to fill the square. `pad` scales both alike; the micrograph lies at the top left, the
rest is mirrored and ignored, and tiles that hold nothing of the micrograph are left out. So a point
(y, x) of the micrograph always is (y * sy, x * sx) of the scaled one, and (y, x) of tile (r, c) is
(r * S + y, c * S + x) there, with S the side of an image.

Coordinates are COCO's: px i spans [i, i + 1], so working px j has its centre at (j + 0.5) / scale.
"""

import dataclasses
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from picking.files import write_json
from picking.formats.picks import Micrograph, inside, typical_diameters
from picking.mask_values import BACKGROUND, IGNORE, PARTICLE
from picking.micrographs.junk import coarseness, coarsest
from picking.micrographs.preparation import PREPARATION, prepare, scale_micrograph
from picking.stores.journal import Journal
from picking.stores.writer import Plan, SplitWriter

RESIZES = ("stretch", "pad")


@dataclasses.dataclass(frozen=True)
class MaskSettings:
    """What decides images and masks, beside the annotations."""

    side_px: int  # of an image
    resize: str  # of `RESIZES`
    tiles: int  # along each side of a micrograph
    margin_px: int  # px of the micrograph this near to its edge are ignored; 0: none
    disk: float = 1.0  # diameter of a particle's disk in the mask, in diameters of the particle
    reduced: bool = False  # JPEGs are decoded at reduced scale, which differs by part of a level

    def plan_split(
        self,
        split: str,
        records: Sequence[Micrograph],
        sizes_px: Sequence[tuple[int, int]],
        n_workers: int = 0,
    ) -> list["ImagePlan"]:
        """Plan the images of a split, one `ImagePlan` per record; takes no workers."""
        plans = []
        typical = typical_diameters(records)
        for record, size_px, typical_px in zip(records, sizes_px, typical, strict=True):
            within = inside(record, size_px)
            centres_px, diameters_px = record.centres_px[within], record.diameters_px[within]
            plans.append(ImagePlan(record, size_px, centres_px, diameters_px, typical_px, self))
        return plans

    def lines(self, split: str, plans: Sequence["ImagePlan"]) -> list[str]:
        """Return the lines on a split's images and masks that users look for."""
        n_enlarged = sum(plan.scale.max() > 1 for plan in plans)
        lines = [
            f"Segmentation of {split} split",
            f"Total micrographs: {len(plans)}",
            f"  Images: {sum(plan.n_rows for plan in plans):,} of {self.side_px} x "
            f"{self.side_px} px",
            f"  Particles: {sum(plan.n_particles for plan in plans):,}",
        ]
        if n_enlarged:
            lines.append(
                f"  Note: {n_enlarged:,} micrographs are smaller than that and are enlarged"
            )
        return lines

    def summary(self, plans: Sequence["ImagePlan"], noted: list[dict]) -> dict:
        """Return what these micrographs have in all, as metadata.json says it."""
        return {
            "n_images": sum(plan.n_rows for plan in plans),
            "n_micrographs": len(plans),
            "n_particles": sum(plan.n_particles for plan in plans),
            **pixel_fractions(plans, noted),
        }

    def description(self, content_hash: str) -> dict:
        """Return what metadata.json says of the whole store, beside counts."""
        return {
            "seg_size_px": self.side_px,
            "resize": self.resize,
            "tiles": self.tiles,
            "disk": self.disk,
            "preparation": PREPARATION,
            "jpegs_decoded": "at reduced scale" if self.reduced else "whole",
            "content_hash": content_hash,
        }


@dataclasses.dataclass(frozen=True)
class ImagePlan(Plan):
    """The images of one micrograph: tiles row by row.

    centres_px: float64 (n, 2), (y, x) in px of the micrograph, of the particles whose centre lies
    inside; diameters_px: float64 (n,). typical_px: a diameter for the preparation.
    """

    centres_px: np.ndarray
    diameters_px: np.ndarray
    typical_px: float
    settings: MaskSettings

    @property
    def scaled_px(self) -> tuple[int, int]:
        """(height, width) of the scaled micrograph, before padding and tiling."""
        settings = self.settings
        return working_size(self.size_px, settings.side_px, settings.tiles, settings.resize)

    @property
    def scale(self) -> np.ndarray:
        """Working px per px of the micrograph, float64 (2,), (sy, sx)."""
        return np.array(self.scaled_px) / self.size_px

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tiles that hold something of the micrograph."""
        height, width = self.scaled_px
        return -(-height // self.settings.side_px), -(-width // self.settings.side_px)

    @property
    def arrays(self) -> dict[str, tuple[int, int]]:
        """The files of images and masks."""
        return dict.fromkeys(("images.npy", "masks.npy"), (self.settings.side_px,) * 2)

    @property
    def decoded_px(self) -> tuple[int, int] | None:
        """What a JPEG is decoded near, if at reduced scale."""
        return self.scaled_px if self.settings.reduced else None

    @property
    def n_particles(self) -> int:
        """Particles whose centre lies inside."""
        return len(self.centres_px)

    @property
    def n_rows(self) -> int:
        """Images of this micrograph."""
        return self.grid[0] * self.grid[1]

    def particles_per_image(self) -> list[int]:
        """Return how many particles have their centre in each tile."""
        tile = (self.centres_px * self.scale // self.settings.side_px).astype(int)
        tile = np.minimum(tile, np.array(self.grid) - 1)  # rounding at the far edge
        return np.bincount(tile @ (self.grid[1], 1), minlength=self.n_rows).tolist()

    def identity(self) -> list[str | bytes]:  # noqa: D102
        return [
            f"{self.micrograph.name}:{self.size_px}:{self.settings}:{len(self.centres_px)}:",
            f"{self.typical_px}:",
            self.centres_px.tobytes(),
            self.diameters_px.tobytes(),
        ]

    def draw(self, image: np.ndarray) -> tuple[list[np.ndarray], dict]:
        """Return the images and masks, two of uint8 (n_rows, S, S), and what the journal notes.

        image: the micrograph's grey, (h, w), as decoded or scaled already.
        """
        side_px = self.settings.side_px
        image = scale_micrograph(image, self.scaled_px)
        coarse = coarseness(image, self.typical_px * self.scale)
        image = prepare(image, self.typical_px * self.scale)
        beyond = [(0, n * side_px - px) for n, px in zip(self.grid, self.scaled_px, strict=True)]
        images = _tiles(np.pad(image, beyond, mode="reflect"), side_px)
        masks = _tiles(np.pad(draw_mask(self), beyond, constant_values=IGNORE), side_px)
        noted = {
            "image_checksums": [zlib.crc32(one.data) for one in images],
            "n_positive": int((masks == PARTICLE).sum()),
            "n_ignored": int((masks == IGNORE).sum()),
            "coarseness": coarse,
        }
        return [images, masks], noted


def working_size(
    size_px: tuple[int, int], side_px: int, tiles: int, resize: str
) -> tuple[int, int]:
    """Return (height, width) that a micrograph of ``size_px`` is scaled to, before any padding."""
    whole = side_px * tiles
    if resize == "stretch":
        return whole, whole
    height, width = (max(1, round(n * whole / max(size_px))) for n in size_px)
    return height, width


def pixel_fractions(plans: Sequence[ImagePlan], noted: list[dict]) -> dict[str, float | None]:
    """Return the fraction of particles in the pixels not ignored, and of ignored ones in all.

    noted: what the journal says of each micrograph.
    """
    n_pixels = sum(plan.n_rows * plan.settings.side_px**2 for plan in plans)
    n_ignored = sum(entry["n_ignored"] for entry in noted)
    n_positive = sum(entry["n_positive"] for entry in noted)
    n_counted = n_pixels - n_ignored
    return {
        "positive_share": n_positive / n_counted if n_counted else None,
        "ignored_share": n_ignored / n_pixels,
    }


def draw_mask(plan: ImagePlan) -> np.ndarray:
    """Return uint8 (h, w) of ``scaled_px``: a disk for each particle, and the margin.

    A disk is drawn where the centre of a pixel lies in it; scaled unequally, it is an ellipse.
    """
    mask = np.full(plan.scaled_px, BACKGROUND, np.uint8)
    # Where the pixels' centres are on the micrograph
    y, x = ((np.arange(n) + 0.5) / s for n, s in zip(plan.scaled_px, plan.scale, strict=True))
    radii = plan.settings.disk * plan.diameters_px / 2
    rows, columns = (
        np.searchsorted(axis, (centre - radii, centre + radii)).T.tolist()
        for axis, centre in zip((y, x), plan.centres_px.T, strict=True)
    )
    for (centre_y, centre_x), radius, (top, bottom), (left, right) in zip(
        plan.centres_px, radii, rows, columns, strict=True
    ):
        squares = (y[top:bottom, None] - centre_y) ** 2 + (x[left:right] - centre_x) ** 2
        mask[top:bottom, left:right][squares <= radius**2] = PARTICLE
    margin, (height, width) = plan.settings.margin_px, plan.size_px
    mask[(y < margin) | (y > height - margin)] = IGNORE
    mask[:, (x < margin) | (x > width - margin)] = IGNORE
    return mask


def _tiles(image: np.ndarray, side_px: int) -> np.ndarray:
    """(R * S, C * S) -> (R * C, S, S), row by row."""
    rows, columns = (n // side_px for n in image.shape)
    blocks = image.reshape(rows, side_px, columns, side_px).swapaxes(1, 2)
    return np.ascontiguousarray(blocks).reshape(-1, side_px, side_px)


def mask_writer(folder: Path, plans: Sequence[ImagePlan], journal: Journal) -> SplitWriter:
    """Return what writes the images and masks of a split into ``folder``, with index.json."""

    def write_index() -> None:
        settings = plans[0].settings
        listed = []
        for plan, noted in zip(plans, journal.noted(folder.name), strict=True):
            n_particles = plan.particles_per_image()
            for n, checksum in enumerate(noted["image_checksums"]):
                row, column = divmod(n, plan.grid[1])
                tiled = plan.settings.tiles > 1
                listed.append(
                    {
                        "name": plan.micrograph.name + (f"#r{row}c{column}" if tiled else ""),
                        "micrograph": plan.micrograph.name,
                        "empiar_id": plan.micrograph.empiar_id,
                        "original_size_px": list(plan.size_px),
                        "scale": plan.scale.tolist(),
                        "diameter_px": (plan.typical_px * plan.scale).tolist(),
                        "tile": [row, column] if tiled else None,
                        "n_particles": n_particles[n],
                        "checksum": checksum,
                    }
                )
        content = {
            "content_hash": journal.content_hash(folder.name),
            "size_px": settings.side_px,
            "tiles": settings.tiles,
            "resize": settings.resize,
            "disk": settings.disk,
            "preparation": PREPARATION,
            "coarseness": coarsest(journal.noted(folder.name)),
            "images": listed,
        }
        write_json(folder / "index.json", content)

    return SplitWriter(folder, journal, plans, "index.json", write_index)
