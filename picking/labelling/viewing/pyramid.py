"""A micrograph as a viewer wants it: 8 bits, halved again and again, cut into square tiles."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from picking.micrographs.preparation import MIDDLE_GREY

TILE_PX = 256
# The contrast is that of the level on which a window shows the whole, but of none that is coarser:
# where means over larger squares fill the range, single px of raw counts are black or white
WINDOW_PX, COARSEST_LEVEL = 1100, 2
CONTRAST_PERCENTILES = (0.5, 99.5)
HEADROOM = 0.15  # of the contrast's range, at both ends, for the noise of finer levels
QUALITY = 88


class Pyramid(NamedTuple):
    """Levels of uint8: px of level k are means over squares of 2**k px; the last is one tile."""

    levels: list[np.ndarray]

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width of the micrograph."""
        height, width = self.levels[0].shape
        return height, width

    @property
    def n_bytes(self) -> int:
        """What it takes of the memory."""
        return sum(level.nbytes for level in self.levels)

    def tile(self, level: int, row: int, column: int) -> bytes:
        """Return a tile as JPEG; at the far edges it is smaller. `IndexError` where there is none.

        It holds px from (row, column) * `TILE_PX` of the level on.
        """
        if not (0 <= level < len(self.levels) and row >= 0 and column >= 0):
            raise IndexError(f"level {level} of {len(self.levels)}")
        top, left = row * TILE_PX, column * TILE_PX
        part = self.levels[level][top : top + TILE_PX, left : left + TILE_PX]
        if not part.size:
            raise IndexError(f"row {row}, column {column} of level {level}")
        return as_jpeg(part)


def make_pyramid(grey: np.ndarray) -> Pyramid:
    """Return the pyramid of a micrograph's grey, (h, w), as `read_grey` returns it."""
    levels = [grey.astype(np.float32) if grey.dtype == np.uint8 else _smoothed(grey)]
    while max(levels[-1].shape) > TILE_PX:
        levels.append(np.asarray(Image.fromarray(levels[-1]).reduce(2)))
    shown = next(k for k, level in enumerate(levels) if max(level.shape) <= WINDOW_PX)
    low, high = contrast(levels[min(shown, COARSEST_LEVEL)])
    return Pyramid([to_8_bits(level, low, high) for level in levels])


def _smoothed(raw: np.ndarray) -> np.ndarray:
    """Return means of raw counts, (h, w), over 3 x 3 px; sums take a fifth of scipy's time."""
    padded = np.pad(raw, 1, mode="edge")
    rows = padded[:-2] + padded[1:-1]
    rows += padded[2:]
    means = rows[:, :-2] + rows[:, 1:-1]
    means += rows[:, 2:]
    means *= np.float32(1 / 9)
    return means


def contrast(image: np.ndarray) -> tuple[float, float]:
    """Return the values of an image that are to be black and white; equal where all are."""
    low, high = np.percentile(image, CONTRAST_PERCENTILES).tolist()
    headroom = HEADROOM * (high - low)
    return low - headroom, high + headroom


def to_8_bits(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return float (h, w) as uint8, from ``low`` at 0 to ``high`` at 255."""
    if high <= low:
        return np.full(image.shape, MIDDLE_GREY, np.uint8)
    scale = 255 / (high - low)
    scaled = image * np.float32(scale)
    scaled += np.float32(0.5 - low * scale)  # then cutting off rounds
    return scaled.clip(0, 255, out=scaled).astype(np.uint8)


def as_jpeg(image: np.ndarray) -> bytes:
    """Return uint8 (h, w) as a grey JPEG."""
    import simplejpeg

    return simplejpeg.encode_jpeg(np.ascontiguousarray(image)[..., None], QUALITY, "GRAY")
