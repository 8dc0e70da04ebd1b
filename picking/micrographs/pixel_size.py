"""The pixel size that an MRC's header states, and whether two are alike."""

import math
from pathlib import Path

from picking.micrographs.mrc import mrc_layout
from picking.micrographs.problems import UnreadableImage

PLAUSIBLE_ANGSTROM = 0.1, 100.0
ANISOTROPIC = 0.01  # relative; x and y of a micrograph's px are alike, else the header is no good
AGREE = 0.05  # relative; headers are rounded, and calibrated anew


def agree(a: float, b: float | None) -> bool:
    """Return whether two pixel sizes in Å are alike; one that is not known is like none."""
    return b is not None and abs(math.log(a / b)) <= math.log1p(AGREE)


def header_pixel_size(path: Path) -> float | None:
    """Return Å per px from the header of an MRC; None where it does not say, or the file has none.

    0 and exactly 1 count as unknown: programs that do not know the pixel size write them. So do
    numbers that no detector has, and px that are not square.
    """
    if path.suffix.lower() != ".mrc":
        return None
    try:
        x, y = mrc_layout(path).pixel_size_angstrom
    except (OSError, UnreadableImage):  # whoever reads the image says what is wrong
        return None
    low, high = PLAUSIBLE_ANGSTROM
    if not low < x < high or x == 1 or abs(y / x - 1) > ANISOTROPIC:
        return None
    return float(f"{x:.6g}")  # 1.77, not the float32 next to it
