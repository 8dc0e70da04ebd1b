"""Simulate micrographs with exact truth, in CryoTransformer's layout and with its habits.

python -m picking.simulation --output data/simulated --seed 42 --num-workers 2
python -m picking.simulation --output data/simulated --figure docs/simulated.png
"""

import argparse
from pathlib import Path

from picking.errors import run_script
from picking.inputs.annotations import SPLITS
from picking.simulation.dataset import simulate_dataset
from picking.simulation.proteins import PROTEINS


def parse_args() -> argparse.Namespace:
    """Read the command line; all but --figure goes to `simulate_dataset`."""
    parser = argparse.ArgumentParser(
        prog="python -m picking.simulation",
        description="Write simulated micrographs with exact truth in CryoTransformer's layout.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--output", type=Path, default=Path("data/simulated"), help="folder of the data set")
    for split, n in zip(SPLITS, (30, 8, 8), strict=True):
        name = f"--micrographs-{split}"
        add(name, type=int, default=n, dest=f"n_{split}", metavar="N", help="how many")
    add("--size", type=int, nargs="+", default=[1024], dest="size_px", help="side, or height width")
    add(
        "--proteins",
        nargs="+",
        default=["3"],
        metavar="N|NAME",
        help=f"the first N of {PROTEINS[0].name} to {PROTEINS[-1].name}, or these by name",
    )
    add(
        "--protein-ratio",
        type=float,
        default=1.0,
        help="micrographs of a protein over those of the next; above 1 the set is unequal, as real "
        "ones are",
    )
    add("--pixel-size", type=float, default=2.0, dest="pixel_size_angstrom", help="in Å")
    add("--snr", type=float, nargs=2, default=[0.03, 0.08], help="per raw pixel, low and high")
    add("--density", type=float, default=1.0, help="number of particles over the usual number")
    add("--annotation-margin", type=float, default=0.6, help="unlisted, in largest diameters")
    add(
        "--junk",
        type=float,
        default=0.0,
        help="fraction of micrographs with film, foil, crystalline ice, aggregates or a step of "
        "thickness",
    )
    add("--unannotated", type=int, dest="n_unannotated", help="in train; None: 1 if 10 or more")
    add("--omit-test-json", action="store_true", help="leave the test split with CSVs only")
    add(
        "--mrc",
        action="store_true",
        help="also write raw counts to mrc/, in the MRC's frame, and truth/*.star for RELION",
    )
    add("--seed", type=int, default=42, help="of everything random")
    add("--num-workers", type=int, default=0, help="processes; 0 works in this one")
    add("--figure", type=Path, help="also draw a micrograph, its truth and its spectrum here")
    return parser.parse_args()


def main() -> None:
    """Simulate the data set of the command line unless it is there already."""
    arguments = vars(parse_args())
    figure = arguments.pop("figure")
    if len(arguments["proteins"]) == 1 and arguments["proteins"][0].isdecimal():
        arguments["n_proteins"] = int(arguments.pop("proteins")[0])
    if simulate_dataset(**arguments):
        print(f"simulated micrographs are in {arguments['output']}")
    else:
        print(f"{arguments['output']} is already done with these arguments")
    if figure is not None:
        from picking.simulation.figure import draw_figure

        draw_figure(arguments["output"], figure)
        print(f"figure: {figure}")


if __name__ == "__main__":
    run_script(main)
