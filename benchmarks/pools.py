"""Strategies on tiles at few labels: a pool of many proteins in unequal numbers, or of one set.

    OMP_NUM_THREADS=1 python -m benchmarks.pools proteins --strategies random clasp_pe --seeds 0 1 2
    OMP_NUM_THREADS=1 python -m benchmarks.pools empiar-10017 --budgets 5 10 20 40 --seeds 0 1 2

`proteins` are ten simulated ones, of each 1.25 times as many training micrographs as of the next,
and every set in --data-root; otherwise the pool is of one of these sets. A micrograph is scaled and
cut into as many tiles as leave some 8 to 16 diameters of its particle along a tile. Validation and
test are tiles of as many simulated micrographs of every protein, and of the sets' own.

A run labels the first of --budgets (percent of the tiles) by chance and then as much again in each
query up to the last, with the launcher's training script and a U-Net of width 8. F1 is of the
pixels of --split at 0.5, after an iteration's last epoch: of all together, in which frequent
proteins count more, and the mean over proteins. Labels cost 10 clicks for each micrograph opened,
2 a tile and 1 a particle; areas are under the F1 at the budgets over the logarithm of that, where
all runs cover it. Differences are paired by seed, with 95% t intervals. What is finished is read,
not run again.
"""

import argparse
import dataclasses
import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import (
    ROOT,
    new_parser,
    overrides,
    print_conditions,
    print_header,
    print_row,
    require_same_settings,
    run,
    script,
)
from benchmarks.real_sets import RealSet
from picking.active_learning.analysis.curves import areas, over_seeds, paired
from picking.active_learning.analysis.runs import LearningCurve, cost
from picking.active_learning.iterations import folder_of
from picking.active_learning.strategies import strategy
from picking.config import ActiveConfig, config_from_dict
from picking.errors import UserError, run_script
from picking.files import make_folder, read_json, sha256_of_file, write_json
from picking.formats.picks import typical_diameters
from picking.inputs.annotations import SPLITS
from picking.metrics import pixels
from picking.runs.checkpoints import SHIPPED, load_checkpoint, restored
from picking.simulation.dataset import RECORD
from picking.stores.journal import Journal
from picking.stores.masks import ImagePlan, MaskSettings, mask_writer
from picking.stores.segmentation import SegmentationStore
from picking.stores.writer import write_split
from picking.training.augment import to_float
from picking.training.networks import network_of

FOLDER = ROOT / "experiments" / "pools"
CONFIG = "configs/active_learning_real_quick.yaml"
MANY = "proteins"
TILE_PX = 96
# Along a tile at least; twice that is the most. Not 8, so that apoferritin's 15.9 make two tiles.
LEAST_DIAMETERS = 7.9
SIMULATOR = ("--size", 1024, "--pixel-size", 4, "--snr", 0.06, 0.2, "--proteins", 10,
             "--unannotated", 0)  # fmt: skip
PROTEIN_RATIO = 1.25
BASELINES = ("random", "foreground_random")
KEYS = {"f1": "all pixels together", "macro_f1": "mean over proteins"}


def main() -> None:
    """Make the pool, run what is missing, print the tables."""
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("pool", help=f"'{MANY}' for all, or the folder of a set in --data-root")
    add("--data-root", type=Path, default=Path("../shared/data"), help="folder of real sets")
    add("--split", choices=("val", "test"), default="val", help="to report on")
    add("--strategies", nargs="+", default=[*BASELINES, "random_stratified", "margin", "clasp_pe",
                                            "typical_first"])  # fmt: skip
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--budgets", nargs="+", type=int, default=[1, 2, 5, 10], help="percent of the tiles")
    add("--micrographs", type=int, default=40, help="simulated ones to train on")
    add("--held-out", type=int, default=1, help="simulated ones of each protein in val and in test")
    add("--epochs", type=int, default=20, help="of an iteration")
    add("--set", nargs="+", default=[], help="config values of the runs")
    add("--name", default="", help="tells pools with other settings apart")
    args = parser.parse_args()
    iterations_of(args.budgets)  # refused before anything is made
    for name in args.strategies:
        strategy(name)
    folder = FOLDER / f"{args.pool}{args.name}"
    keys = ("budgets", "micrographs", "held_out", "epochs", "set")
    settings = {key: getattr(args, key) for key in keys}
    settings |= {"data_root": str(args.data_root), "general": sha256_of_file(SHIPPED)}
    require_same_settings(folder, settings)
    stores = make_pool(args, folder / "store")

    results: dict[str, dict[int, list[dict[str, Any]]]] = {name: {} for name in args.strategies}
    for seed in args.seeds:
        for name in args.strategies:
            results[name][seed] = result_of(args, folder, stores, name, seed)
    print_tables(args, stores, results)


def iterations_of(budgets: list[int]) -> list[int]:
    """Return the iteration in which each budget, in percent, is labelled.

    Every query is as large as the first set. Raises `UserError` where a budget is none of these.
    """
    first = budgets[0]
    if first < 1 or budgets[-1] > 100 or sorted(set(budgets)) != budgets or any(
        budget % first for budget in budgets
    ):  # fmt: skip
        raise UserError(
            f"--budgets {' '.join(map(str, budgets))}: give percents of 1 to 100 that rise, all "
            "multiples of the first"
        )
    return [budget // first - 1 for budget in budgets]


# The pool


def make_pool(args: argparse.Namespace, folder: Path) -> dict[str, SegmentationStore]:
    """Return the splits of the pool's store, made unless they are there."""
    if not (folder / "metadata.json").exists():
        members = members_of(args)
        make_folder(folder)
        journal = Journal(folder / ".journal", {"splits": list(members)})
        for split, plans in members.items():
            make_folder(folder / split)
            writer = mask_writer(folder / split, plans, journal)
            if unreadable := write_split([writer], 0):
                raise UserError(f"cannot be read: {', '.join(unreadable)}")
        write_json(folder / "metadata.json", {"content_hash": journal.content_hash()})  # last
    return {split: SegmentationStore(folder / split) for split in SPLITS}


def members_of(args: argparse.Namespace) -> dict[str, list[ImagePlan]]:
    """Return the plans of all micrographs, by split."""
    sets = {path.name: RealSet(path) for path in sorted(args.data_root.resolve().glob("*/"))}
    if args.pool != MANY and args.pool not in sets:
        known = ", ".join([MANY, *sets])
        raise UserError(f"pool '{args.pool}' is not in {args.data_root}: choose of {known}")
    plans: dict[str, list[ImagePlan]] = {split: [] for split in SPLITS}
    if args.pool == MANY:
        train, held_out = (simulated(args, part) for part in ("train", "held_out"))
        for split, of_split in plans.items():
            of_split += tiles_of(train if split == "train" else held_out, split, None)
    else:
        sets = {args.pool: sets[args.pool]}
    for name, real in sets.items():
        for split, of_split in plans.items():
            of_split += tiles_of(real, split, name)
    return plans


def simulated(args: argparse.Namespace, part: str) -> RealSet:
    """Simulate the set to train on, or the one that is held out, of other seed and proportions."""
    n = 10 * args.held_out
    numbers = (args.micrographs, 0, 0) if part == "train" else (0, n, n)
    folder = FOLDER / f"simulated_{part}_{max(numbers)}"
    counts = [
        word for split, n in zip(SPLITS, numbers, strict=True)
        for word in (f"--micrographs-{split}", n)
    ]  # fmt: skip
    run(
        sys.executable, "-m", "picking.simulation", "--output", folder, *counts, *SIMULATOR,
        "--protein-ratio", PROTEIN_RATIO if part == "train" else 1,
        "--seed", 0 if part == "train" else 1,
    )  # fmt: skip
    return RealSet(folder, read_json(folder / RECORD)["annotation_margin_px"])


def tiles_of(listed: RealSet, split: str, protein: str | None) -> list[ImagePlan]:
    """Return the plan of every micrograph of a set's split; protein: of all, None: as it says."""
    micrographs = listed.micrographs(split)
    plans = []
    for one, diameter_px in zip(micrographs, typical_diameters(micrographs), strict=True):
        assert one.size_px is not None
        # Several sets in one store: a name is of one micrograph
        named = dataclasses.replace(
            one, name=f"{listed.name}_{one.name}", empiar_id=protein or one.empiar_id
        )
        n_tiles = tiles_along(max(one.size_px), diameter_px)
        settings = MaskSettings(TILE_PX, "pad", n_tiles, listed.margin_px)
        plans += settings.plan_split(split, [named], [one.size_px])
    return plans


def tiles_along(longest_px: float, diameter_px: float) -> int:
    """Return into how many tiles each side of a micrograph is cut: as many as are wide enough."""
    return max(1, int(longest_px / (LEAST_DIAMETERS * diameter_px)))


# Runs


def result_of(
    args: argparse.Namespace, folder: Path, stores: dict[str, SegmentationStore], name: str,
    seed: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return what a strategy reached at each budget, run unless that is there."""
    run_name = f"{name}_seed{seed}"
    path = folder / "results" / f"{run_name}_{args.split}.json"
    if path.exists():
        return read_json(path)
    iterations, first = iterations_of(args.budgets), args.budgets[0] / 100
    minutes = script(
        "train_active_learning_fixed.py", "--config", CONFIG, "--resume", "--device", "cpu",
        "--strategy", name, "--seed", seed, "--output-dir", folder / "runs", "--run-name", run_name,
        "--train-data-dir", folder / "store" / "train", "--val-data-dir", folder / "store" / "val",
        "--iterations", iterations[-1] + 1, "--initial-fraction", first, "--query-fraction", first,
        "--epochs", args.epochs,
        *overrides(
            "model.name=unet", "data.test_dir=null", "active_learning.compare_queries=false",
            f"training.evaluate_every_epochs={args.epochs}", *args.set,
        ),
    )  # fmt: skip
    rows = []
    for budget, k in zip(args.budgets, iterations, strict=True):
        one = folder_of(folder / "runs" / run_name, k)
        metrics = read_json(one / "metrics.json")
        kept = ("num_labeled", "num_micrographs_labeled", "num_particles_labeled")
        rows.append({
            "budget": budget, **{key: metrics[key] for key in kept}, "minutes": minutes,
            **f1_by_protein(one / "best_model.pt", stores[args.split]),
        })  # fmt: skip
    make_folder(path.parent)
    write_json(path, rows)
    return rows


@torch.no_grad()
def f1_by_protein(checkpoint: Path, store: SegmentationStore) -> dict[str, Any]:
    """Return F1 at 0.5 of all pixels, that of each protein's, and the mean of these."""
    device = torch.device("cpu")
    best = load_checkpoint(checkpoint, device)
    config = config_from_dict(best["config"], str(checkpoint), ActiveConfig)
    build = functools.partial(network_of, config.model)
    network = restored(build, best["network"], checkpoint, device).eval()
    counts = {str(id_): pixels.new_counts() for id_ in sorted(set(map(str, store.ids)))}
    for row, id_ in enumerate(store.ids):
        image, mask = (torch.as_tensor(a[row : row + 1]) for a in (store.images, store.masks))
        pixels.add(counts[str(id_)], network(to_float(image)), mask)
    of_each = {id_: pixels.pixel_metrics(one)["f1_score"] or 0.0 for id_, one in counts.items()}
    total = torch.stack([*counts.values()]).sum(0)
    return {
        "f1": pixels.pixel_metrics(total)["f1_score"] or 0.0,
        "macro_f1": float(np.mean([*of_each.values()])),
        "proteins": of_each,
    }


# Tables

Results = dict[str, dict[int, list[dict[str, Any]]]]  # strategy -> seed -> a row for each budget


def print_tables(
    args: argparse.Namespace, stores: dict[str, SegmentationStore], results: Results
) -> None:
    """Print F1 at each budget and over what labels cost, and of each protein at the end."""
    train = stores["train"]
    minutes = [rows[0]["minutes"] for by_seed in results.values() for rows in by_seed.values()]
    print_conditions({
        "tiles": len(train), "particles": int(train.n_particles.sum()),
        f"tiles of {args.split}": len(stores[args.split]), "seeds": len(args.seeds),
        "CPU minutes a run": f"{np.median(minutes):.1f}",
    })  # fmt: skip
    ids = sorted(set(map(str, stores[args.split].ids)))
    for key, what in KEYS.items() if len(ids) > 1 else [*KEYS.items()][:1]:
        low_high, table = compared(results, key)
        over = "-" if low_high is None else "{:,.0f} to {:,.0f}".format(*low_high)
        print(f"F1, {what}; area over the log of {over} clicks\n")
        print_header(
            "strategy", *(f"{budget}%" for budget in args.budgets), "clicks", "area",
            *(f"{what} minus {base}'s" for base in BASELINES
              for what in ("area", f"F1 at {args.budgets[-1]}%")),
        )  # fmt: skip
        for name, row in table.items():
            print_row(
                name, *(shown(f1) for f1 in row["f1"]), f"{row['clicks']:,.0f}", shown(row["area"]),
                *(shown(row["against"][base][axis], "+") if base in row["against"] else ""
                  for base in BASELINES for axis in ("area", "f1")),
            )  # fmt: skip
        print()
    counts = [sum(str(one) == id_ for one in train.ids) for id_ in ids]
    print(f"F1 of each protein with {args.budgets[-1]}% of the tiles, mean of seeds\n")
    print_header("strategy", *ids)
    print_row("tiles in the pool", *counts)
    for name, by_seed in results.items():
        last = [rows[-1]["proteins"] for rows in by_seed.values()]
        print_row(name, *(f"{np.mean([one[id_] for one in last]):.3f}" for id_ in ids))


def compared(
    results: Results, key: str
) -> tuple[tuple[float, float] | None, dict[str, dict[str, Any]]]:
    """Return the clicks that all runs cover, and what each strategy has, all `over_seeds`.

    f1: of each budget; area: over the log of clicks; clicks: spent at the end, on average; against:
    the paired differences of area and of the last F1 from each of `BASELINES`.
    """
    curves = {
        name: {seed: curve_of(rows, key) for seed, rows in by_seed.items()}
        for name, by_seed in results.items()
    }
    low_high, by_log = areas(curves, "clicks", log=True)

    def f1_at(name: str, k: int) -> dict[int, float]:
        return {seed: float(curve.f1[k]) for seed, curve in curves[name].items()}

    table = {}
    for name, of_name in curves.items():
        n_budgets = min(len(curve.f1) for curve in of_name.values())
        spent = [curve.clicks[-1] for curve in of_name.values() if curve.clicks is not None]
        table[name] = {
            "f1": [over_seeds(f1_at(name, k)) for k in range(n_budgets)],
            "area": over_seeds(by_log[name]),
            "clicks": float(np.mean(spent)),
            "against": {
                base: {
                    "area": paired(by_log[name], by_log[base]),
                    "f1": paired(f1_at(name, -1), f1_at(base, -1)),
                }
                for base in BASELINES
                if base in curves and base != name
            },
        }
    return low_high, table


def curve_of(rows: list[dict[str, Any]], key: str) -> LearningCurve:
    """Return F1 at the budgets against what was labelled."""
    counts = ("num_labeled", "num_micrographs_labeled", "num_particles_labeled")
    images, micrographs, particles = np.array([[row[one] for one in counts] for row in rows]).T
    clicks = cost(images, micrographs, particles)
    return LearningCurve(images, particles, np.array([row[key] for row in rows]), clicks)


def shown(summary: dict[str, Any], sign: str = "") -> str:
    """Return a mean with its interval, if it has one."""
    if summary["mean"] is None:
        return "-"
    text = f"{summary['mean']:{sign}.3f}"
    if not sign or summary["interval"] is None:
        return text
    return text + " [{:+.3f}, {:+.3f}]".format(*summary["interval"])


if __name__ == "__main__":
    run_script(main)
