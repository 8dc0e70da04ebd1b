"""How far the disks about particles overlap: places near one, against their number times a disk.

    python -m benchmarks.disks --data-root ../shared/data

`place_priors` in picking/preprocessing/windows/priors.py takes N a for the fraction of places near
one of N particles, which is right while their disks are apart. Train of each set, inside its
margin: N a, 1 - exp(-N a) as for particles that lie anywhere, and what the disks cover.
"""

import math
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt

from benchmarks.common import new_parser, print_header, print_row
from benchmarks.real_sets import RealSet
from picking.errors import run_script
from picking.preprocessing.windows.plan import POSITIVE_RADIUS

DIAMETER_PX = 40  # of a particle on the grid on which places are counted


def main() -> None:
    """Print a row for each set."""
    parser = new_parser(__doc__)
    parser.add_argument("--data-root", type=Path, default=Path("../shared/data"))
    args = parser.parse_args()
    print_header("set", "particles", "N a", "1 - exp(-N a)", "covered", "covered / N a")
    for path in sorted(args.data_root.resolve().glob("*/annotations")):
        real = RealSet(path.parent)
        scale = DIAMETER_PX / real.diameter_px
        fractions = np.array([
            covered(m.centres_px * scale, [n * scale for n in m.size_px], real.margin_px * scale)
            for m in real.train
        ])  # fmt: skip
        n_a, of_disks = fractions.mean(axis=0)
        n = sum(len(m.centres_px) for m in real.train)
        print_row(
            real.name, f"{n:,}",
            *(f"{value:.3f}" for value in (n_a, 1 - math.exp(-n_a), of_disks, of_disks / n_a)),
        )  # fmt: skip


def covered(
    centres_px: np.ndarray, size_px: list[float], margin_px: float = 0.0
) -> tuple[float, float]:
    """Return N a, and the fraction of places within `POSITIVE_RADIUS` of one of the centres.

    Args:
        centres_px: (n, 2), (y, x), on a grid where a particle is `DIAMETER_PX` wide.
        size_px: (height, width) there.
        margin_px: of the edges, that does not count.
    """
    shape = tuple(math.ceil(n) for n in size_px)
    first = math.ceil(margin_px)
    away = np.ones(shape, bool)
    y, x = np.floor(centres_px).astype(int).clip(0, np.array(shape) - 1).T
    away[y, x] = False
    inner = tuple(slice(first, n - first) for n in shape)
    radius_px = POSITIVE_RADIUS * DIAMETER_PX
    near = (distance_transform_edt(away)[inner] <= radius_px).mean()
    n_a = len(centres_px) * math.pi * radius_px**2 / math.prod(n - 2 * first for n in shape)
    return n_a, float(near)


if __name__ == "__main__":
    run_script(main)
