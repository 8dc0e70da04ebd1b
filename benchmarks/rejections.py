"""What rejecting the worst false picks brings: 40 picks, with and without clicks on no particle.

    root=../shared/data/trpv1-10059      # any set of CryoTransformer's layout
    OMP_NUM_THREADS=1 python -m benchmarks.rejections --data-root $root --seeds 0 1 2 \
        --start general.pt

A network learns from --picks, from the network --start that never saw the set (from new weights
without), and picks train. Of its false picks there the --rejected of the highest score are told to
be no particle, as a user would click them away, and a second network learns from the same start,
the same picks and these. Both as the part few-labels of benchmarks.picking does: F1 at the
threshold of val, and at a probability of 0.5.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import new_parser, print_header, print_row
from benchmarks.picking import learn_from_picks, pick, result_of
from benchmarks.real_sets import RealSet, match_all
from picking.errors import run_script
from picking.files import make_folder, sha256_of_file
from picking.formats.coordinates import write_picks
from picking.formats.picks import select


def main() -> None:
    """Print a row for each seed without and with rejections, and the means."""
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--data-root", type=Path, default=Path("../shared/data/trpv1-10059"))
    add("--split", choices=("val", "test"), default="val", help="to report on")
    add("--seeds", nargs="+", type=int, default=[0])
    add("--picks", nargs=2, type=int, default=[40, 10], metavar=("TRAIN", "VAL"))
    add("--rejected", type=int, default=20, metavar="N")
    add("--start", type=Path, metavar="FILE", help="a network")
    args = parser.parse_args()
    # What the part few-labels takes besides
    args.set, args.name, args.expected_particles, args.annotated_margin = [], "", None, None
    args.start = args.start and args.start.resolve()
    real = RealSet(args.data_root.resolve())
    n_labels = dict(zip(("train", "val"), args.picks, strict=True))
    print_header("no particle", "seed", "val F1", "F1", "AP", "at 0.5")
    rows: dict[int, list[list[float]]] = {}
    for seed in args.seeds:
        folder, more = None, []
        for n in (0, args.rejected):
            if folder is not None:
                more = ["--not-particles", reject(real, folder, n)]
            folder = real.folder / "rejections" / f"{n}_of_{args.picks[0]}_seed{seed}"
            row = learned(args, real, folder, seed, n_labels, more)
            rows.setdefault(n, []).append(row)
            print_row(n, seed, *(f"{value:.3f}" for value in row))
    for n, each in rows.items():
        print_row(n, "mean", *(f"{statistics.mean(v):.3f}" for v in zip(*each, strict=True)))


def learned(
    args: argparse.Namespace,
    real: RealSet,
    folder: Path,
    seed: int,
    n_labels: dict[str, int],
    more: list[Any],
) -> list[float]:
    """Return val F1, F1, AP and F1 at 0.5, by a run unless it is there."""
    settings = {"start": args.start and sha256_of_file(args.start), "rejected": bool(more)}
    result = result_of(
        args, folder, "few labels", settings,
        lambda: learn_from_picks(args, real, folder, seed, n_labels, more),
    )  # fmt: skip
    return [result[key] for key in ("val_f1", "f1", "ap", "f1_at_half")]


def reject(real: RealSet, folder: Path, n: int) -> Path:
    """Write the n false picks of the highest score on train as places of no particle."""
    network = folder / "run" / "checkpoints" / "best_model.pt"
    outcomes = match_all(pick(real, "train", folder, network, 0.5), real.train, real.margin_px)
    false = [select(one.picks, one.matched < 0) for one in outcomes]
    lowest = np.sort(np.concatenate([one.scores for one in false]))[-n]
    make_folder(folder / "rejected")
    worst = [select(one, one.scores >= lowest) for one in false]
    write_picks(folder / "rejected", [w for w in worst if len(w.scores)], ["star"], one_file=True)
    return folder / "rejected" / "picks.star"


if __name__ == "__main__":
    run_script(main)
