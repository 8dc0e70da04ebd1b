"""How often coordinates that fit nowhere are noticed, and true ones complained of.

    python -m benchmarks.placement --data ../shared/data --draws 50

Reads train and val of each annotated set there. For all labels and for random picks on four to six
micrographs, true and with each fault, it prints how many draws ended quietly, with a warning, with
an error.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np

from picking.errors import InputWarning, UserError
from picking.formats.picks import Picks
from picking.inputs import placement
from picking.inputs.annotations import read_split
from picking.micrographs.reading import image_size

MRC = Path("picks.star")  # what the faulty coordinates are said to be read from
FAULTS = {  # from (y, x) in the MRC's frame and (height, width) to what a faulty file holds
    "none": lambda y, x, h, w: (y, x),
    "upside down": lambda y, x, h, w: (h - y, x),
    "x mirrored": lambda y, x, h, w: (y, w - x),
    "turned by 180": lambda y, x, h, w: (h - y, w - x),
    "x and y swapped": lambda y, x, h, w: (x, y),
    "binned by 2": lambda y, x, h, w: (y / 2, x / 2),
    "binned by 4": lambda y, x, h, w: (y / 4, x / 4),
    "binned by 8": lambda y, x, h, w: (y / 8, x / 8),
    "by 2 and upside down": lambda y, x, h, w: ((h - y) / 2, x / 2),
    "divided by 1.77": lambda y, x, h, w: (y / 1.77, x / 1.77),
    "corners of boxes": lambda y, x, h, w: (y - 0.75 * FAULTY_PX, x - 0.75 * FAULTY_PX),
    "half a diameter off": lambda y, x, h, w: (y - 0.5 * FAULTY_PX, x - 0.5 * FAULTY_PX),
    "random places": None,
    "fractions": lambda y, x, h, w: (y / h, x / w),
}
FAULTY_PX = 1.0  # the diameter of the set at hand


def outcome(chosen: dict, fault, diameter_px: float, rng: np.random.Generator) -> str:
    """Return quiet, warning or error for centres (y, x) of the JPEG's frame by (path, size)."""
    picks, paths = [], {}
    for (path, size_px), centres in chosen.items():
        height, width = size_px
        if fault is None:
            centres = rng.random(centres.shape) * size_px
            moved = centres.T
        else:
            y, x = fault(height - centres[:, 0], centres[:, 1], height, width)
            moved = height - y, x
        n = len(centres)
        unknown = np.full(n, np.nan)
        picks.append(Picks(path.name, np.stack(moved, axis=1), unknown, unknown, size_px))
        paths[path.name] = path
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InputWarning)
        try:
            placement.check_placement(picks, paths, [MRC], None, "--frame", diameter_px)
        except UserError as error:
            return f"error: {error}"
    return f"warning: {caught[0].message}" if caught else "quiet"


def main() -> None:
    global FAULTY_PX
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+")
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--picks", type=int, nargs="+", default=[13, 40, 0], help="0: all labels")
    parser.add_argument("--times", type=float, default=1, help="that the diameter is said to be")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=[*FAULTS])
    parser.add_argument("--verbose", action="store_true", help="print each message")
    args = parser.parse_args()
    looked = placement.contrast_ranks
    cache: dict = {}
    placement.contrast_ranks = lambda *key: (
        cache[key] if key in cache else cache.setdefault(key, looked(*key))
    )
    for folder in sorted(path.parent for path in args.data.glob("*/annotations")):
        if args.sets and folder.name not in args.sets:
            continue
        listed = [m for name in ("train", "val") for m in read_split(folder, name).micrographs]
        FAULTY_PX = float(np.median(np.concatenate([m.diameters_px for m in listed])))
        of_all = {(m.path, image_size(m.path)): m.centres_px for m in listed}
        for n_picks in args.picks:
            for name in args.faults:
                rng = np.random.default_rng(n_picks)
                counts = {"quiet": 0, "warning": 0, "error": 0}
                for _ in range(args.draws if n_picks else 1):
                    chosen = draw(of_all, n_picks, rng) if n_picks else of_all
                    said = outcome(chosen, FAULTS[name], args.times * FAULTY_PX, rng)
                    counts[said.split(":")[0]] += 1
                    if args.verbose:
                        print("   ", said)
                shown = " ".join(f"{count:3} {kind}" for kind, count in counts.items())
                print(
                    f"{folder.name:18} {n_picks or 'all':>4} picks, {name:22} {shown}", flush=True
                )


def draw(of_all: dict, n_picks: int, rng: np.random.Generator) -> dict:
    """Return picks drawn at random from four to six of the micrographs."""
    keys = list(of_all)
    some = rng.permutation(len(keys))[: rng.integers(4, 7)]
    every = [(keys[n], centre) for n in some for centre in of_all[keys[n]]]
    chosen: dict = {}
    for n in rng.permutation(len(every))[:n_picks]:
        chosen.setdefault(every[n][0], []).append(every[n][1])
    return {key: np.array(centres) for key, centres in chosen.items()}


if __name__ == "__main__":
    main()
