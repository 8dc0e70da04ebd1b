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
from pathlib import Path

import numpy as np

from picking.files import sha256, write_json
from picking.formats import micrographs
from picking.formats.picks import Micrograph, inside
from picking.mask_values import BACKGROUND, IGNORE, PARTICLE
from picking.stores.journal import Journal
from picking.stores.writer import Filling

# What a mask's pixel is; nothing is learnt from or measured on one that is ignored.
RESIZES = ("stretch", "pad")
NORMALISATION = (
    "none in the store: grey levels as decoded (raw counts: low-pass and contrast of "
    "picking/formats/micrographs.py), scaled; networks see each image at mean 0 and deviation 1 "
    "(picking.training.augment.to_float)"
)


@dataclasses.dataclass(frozen=True)
class MaskSettings:
    """What decides images and masks, beside the annotations; the script's --help explains it."""

    side_px: int
    resize: str
    tiles: int
    margin_px: int  # px of the micrograph this near to its edge are ignored; 0: none
    disk: float = 1.0  # diameter of a particle's disk in the mask, in diameters of the particle


@dataclasses.dataclass(frozen=True)
class ImagePlan:
    """The images of one micrograph: tiles row by row.

    centres_px: float64 (n, 2), (y, x) in px of the micrograph, of the particles whose centre lies
    inside; diameters_px: float64 (n,).
    """

    micrograph: Micrograph
    size_px: tuple[int, int]
    centres_px: np.ndarray
    diameters_px: np.ndarray
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
    def n_rows(self) -> int:
        """Images of this micrograph."""
        return self.grid[0] * self.grid[1]

    @property
    def n_outside(self) -> int:
        """Particles dropped because their centre lies outside the micrograph."""
        return len(self.micrograph.centres_px) - len(self.centres_px)

    def particles_per_image(self) -> list[int]:
        """Return how many particles have their centre in each tile."""
        tile = (self.centres_px * self.scale // self.settings.side_px).astype(int)
        tile = np.minimum(tile, np.array(self.grid) - 1)  # rounding at the far edge
        return np.bincount(tile @ (self.grid[1], 1), minlength=self.n_rows).tolist()


def working_size(
    size_px: tuple[int, int], side_px: int, tiles: int, resize: str
) -> tuple[int, int]:
    """Return (height, width) that a micrograph of ``size_px`` is scaled to, before any padding."""
    whole = side_px * tiles
    if resize == "stretch":
        return whole, whole
    height, width = (max(1, round(n * whole / max(size_px))) for n in size_px)
    return height, width


def plan_images(
    records: list[Micrograph], sizes_px: list[tuple[int, int]], settings: MaskSettings
) -> list[ImagePlan]:
    """Plan the images of a split, one `ImagePlan` per record."""
    plans = []
    for record, size_px in zip(records, sizes_px, strict=True):
        within = inside(record, size_px)
        centres_px, diameters_px = record.centres_px[within], record.diameters_px[within]
        plans.append(ImagePlan(record, size_px, centres_px, diameters_px, settings))
    return plans


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


def draw_images(plan: ImagePlan, image: np.ndarray) -> tuple[list[np.ndarray], dict]:
    """Return a micrograph's images and masks, and what the journal notes; runs in a worker.

    image: the micrograph, uint8 (h, w), as decoded or scaled already. Returns two of uint8
    (n, S, S).
    """
    side_px = plan.settings.side_px
    image = micrographs.scale_micrograph(image, plan.scaled_px)
    beyond = [(0, n * side_px - px) for n, px in zip(plan.grid, plan.scaled_px, strict=True)]
    images = _tiles(np.pad(image, beyond, mode="reflect"), side_px)
    masks = _tiles(np.pad(draw_mask(plan), beyond, constant_values=IGNORE), side_px)
    noted = {
        "image_checksums": [zlib.crc32(one.data) for one in images],
        "n_positive": int((masks == PARTICLE).sum()),
        "n_ignored": int((masks == IGNORE).sum()),
    }
    return [images, masks], noted


def filling(folder: Path, plans: list[ImagePlan], journal: Journal) -> Filling:
    """Return how `fill_split` fills a split's images.npy and masks.npy, with their index.json."""
    side_px = plans[0].settings.side_px
    parts: list[str | bytes] = []
    for p in plans:
        parts.append(f"{p.micrograph.name}:{p.size_px}:{p.settings}:{len(p.centres_px)}:")
        parts += [p.centres_px.tobytes(), p.diameters_px.tobytes()]
    return Filling(
        folder=folder,
        journal=journal,
        plans=plans,
        plan_hash=sha256(*parts),
        arrays={"images.npy": (side_px, side_px), "masks.npy": (side_px, side_px)},
        draw=draw_images,
        index="index.json",
        write_index=_write_index,
    )


def _tiles(image: np.ndarray, side_px: int) -> np.ndarray:
    """(R * S, C * S) -> (R * C, S, S), row by row."""
    rows, columns = (n // side_px for n in image.shape)
    blocks = image.reshape(rows, side_px, columns, side_px).swapaxes(1, 2)
    return np.ascontiguousarray(blocks).reshape(-1, side_px, side_px)


def _write_index(filling: Filling) -> None:
    split, settings = filling.folder.name, filling.plans[0].settings
    listed = []
    for i, plan in enumerate(filling.plans):
        checksums = filling.journal.done[split, i]["image_checksums"]
        n_particles = plan.particles_per_image()
        for n in range(plan.n_rows):
            row, column = divmod(n, plan.grid[1])
            tiled = plan.settings.tiles > 1
            listed.append(
                {
                    "name": plan.micrograph.name + (f"#r{row}c{column}" if tiled else ""),
                    "micrograph": plan.micrograph.name,
                    "empiar_id": plan.micrograph.empiar_id,
                    "original_size_px": list(plan.size_px),
                    "scale": plan.scale.tolist(),
                    "tile": [row, column] if tiled else None,
                    "n_particles": n_particles[n],
                    "checksum": checksums[n],
                }
            )
    content = {
        "content_hash": filling.journal.content_hash(split),
        "size_px": settings.side_px,
        "tiles": settings.tiles,
        "resize": settings.resize,
        "disk": settings.disk,
        "images": listed,
    }
    write_json(filling.folder / filling.index, content)
