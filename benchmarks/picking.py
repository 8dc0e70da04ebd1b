"""Picking on sets of real micrographs, ours and Topaz's; each part is one command.

    root=../shared/data/ribosome-10028      # any set of CryoTransformer's layout
    python -m benchmarks.picking segmentation --data-root $root --seeds 0 1 2
    python -m benchmarks.picking few-labels --data-root $root --picks 40 10 --shares 1 --seeds 0 1 2
    python -m benchmarks.picking general --data-root $root --start general.pt
    python -m benchmarks.picking topaz --data-root $root --picks 40 10 --seeds 0 1 2 --topaz topaz
    python -m benchmarks.picking agreement --data-root ../shared/data/empiar-10017 \
        --picks-of 'experiments/picking_benchmark/empiar-10017/segmentation_*/test/star/*.star' \
        --peer '../shared/data/empiar-10017/peer_picks/crYOLO/*.box'
    python -m benchmarks.picking figure     # docs/few_labels.png, of the results that are there

All report on val, where they also choose, unless --split test says that nothing is to be chosen any
more. segmentation: a U-Net with all labels. few-labels: PU + FixMatch from some labels of train, as
picks, with some of val to choose the checkpoint by; with --start from the weights of a general
network (benchmarks/general_network.py) that never saw the set. general: that network without any
label; what parts the scores of all micrographs best stands in the place of 0.5. topaz: its
pretrained network, and trained on the same picks. Diameter, margin, particles expected and the
U-Net's tiles follow from the set.

Threshold with the highest F1 on val, annotated in full; beside it F1 at a probability of 0.5, and
where as many are picked as a micrograph of train has particles. The seed is that of training, and
labels are drawn by it too. A result that is there is read, not run again: several commands fill one
table. CPU minutes are of training.

agreement: how many of our false picks on test lie within a quarter diameter of a false pick
of another picker, and how many would by chance.
"""

import argparse
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from benchmarks import picking_figure, topaz
from benchmarks.common import (
    new_parser,
    overrides,
    print_header,
    print_row,
    script,
    with_interval,
)
from benchmarks.real_sets import METRICS, RealSet, evaluate, write_labels
from picking.detection.output import load_picks
from picking.errors import UserError, run_script
from picking.evaluation.matching import choose_threshold, match_picks, pr_curve
from picking.files import make_folder, read_json, sha256_of_file, write_json
from picking.formats.coordinates import match_names, read_picks
from picking.formats.picks import Picks
from picking.inputs.paths import find_coordinates
from picking.metrics.calibration import part
from picking.micrographs.reading import image_size

TILES_SEEN = 25 * 216  # by a U-Net: 25 epochs of the tiles of EMPIAR-10017
HEADINGS = ("precision", "recall", "F1", "at 0.5", "at expected", "whole frame", "AP")


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = new_parser(__doc__)
    add = parser.add_argument
    parts = ("segmentation", "few-labels", "general", "topaz", "agreement", "figure")
    add("part", choices=parts)
    add("--data-root", type=Path, default=Path("../shared/data/empiar-10017"))
    add("--split", choices=("val", "test"), default="val", help="to report on")
    add("--seeds", nargs="+", type=int, default=[0])
    add(
        "--picks",
        nargs=2,
        type=int,
        action="append",
        metavar=("TRAIN", "VAL"),
        help="few-labels, topaz: labels to draw, so many; may be given again",
    )
    add("--shares", nargs="+", type=float, default=[], help="few-labels, topaz: such shares of all")
    add("--annotated-margin", type=int, metavar="PX", help="default: as wide as in train")
    add("--expected-particles", type=float, help="few-labels; default: as train has on average")
    add("--start", type=Path, metavar="FILE", help="few-labels, general: a network")
    add("--set", nargs="+", default=[], help="config values of the training runs")
    add("--name", default="", help="tells runs with other --set apart")
    add("--picks-of", help="agreement: STAR files of ours, in folders by run")
    add("--peer", help="agreement: files of another picker")
    topaz.add_arguments(parser)
    args = parser.parse_args()
    if args.part == "topaz" and not args.topaz:
        raise UserError("--topaz is missing: give the command that starts Topaz")
    if args.part == "general" and not args.start:
        raise UserError("--start is missing: give a general network that never saw the set")
    if args.start and args.part not in ("general", "few-labels"):
        raise UserError(f"--start says nothing of {args.part}: leave it out")
    if args.start and not args.start.is_file():
        raise UserError(f"--start {args.start} is not a file: give a general.pt")
    args.start = args.start and args.start.resolve()
    args.data_root = args.data_root.resolve()
    return args


def main() -> None:
    """Run one part."""
    args = parse_args()
    if args.part == "figure":
        picking_figure.draw()
        return
    real = RealSet(args.data_root, args.annotated_margin)
    args.diameter = real.diameter_px
    if args.part == "agreement":
        agreement(args, real)
        return
    n, side_px = real.tiles
    print(
        f"{real.name}, {args.split}: particles of {real.diameter_px:g} px, {real.expected:.0f} on "
        f"a micrograph of train, margin {real.margin_px} px; "
        f"U-Net: {n} x {n} tiles of {side_px} px\n"
    )
    print_header("picker", "labels", "seed", "val F1", *HEADINGS, "CPU min")
    if args.part == "segmentation":
        rows(args, real, "U-Net, all labels", "segmentation", segment)
        return
    if args.part == "general":
        settings = {"start": sha256_of_file(args.start)}
        folder = real.folder / f"general{args.name}"
        result = result_of(
            args, folder, "general network", settings, lambda: no_label(args, real, folder)
        )
        print_result(result, "")
        return
    if args.part == "topaz":
        # One run, whatever the seed: there is no training
        settings = {"scales": args.scales, "radii": args.radii}
        folder = real.folder / f"topaz-pretrained{args.name}"
        result = result_of(
            args, folder, "Topaz, pretrained", settings,
            lambda: topaz.pretrained(args, real, folder),
        )  # fmt: skip
        print_result(result, "")
    for name, n_labels in amounts(args, real).items():
        if args.part == "few-labels":
            picker, folder_name = "few labels", f"few-labels_{name}"
            if args.start:
                picker, folder_name = f"{picker}, from general", f"few-labels-from-general_{name}"
            rows(args, real, picker, folder_name, learn_from_picks, n_labels)
        else:
            rows(args, real, "Topaz, trained", f"topaz_{name}", train_topaz, n_labels)


def amounts(args: argparse.Namespace, real: RealSet) -> dict[str, dict[str, int]]:
    """Return how many labels of train and val are to be drawn, by a name for it."""
    totals = {
        split: sum(len(m.centres_px) for m in real.micrographs(split)) for split in ("train", "val")
    }
    return {
        f"{share:g}": {split: round(share * n) for split, n in totals.items()}
        for share in args.shares
    } | {f"{train}+{val}": {"train": train, "val": val} for train, val in args.picks or []}


# Results: one for each picker, amount of labels, seed and split, kept where its run is


def rows(
    args: argparse.Namespace,
    real: RealSet,
    picker: str,
    name: str,
    run: Callable[..., dict[str, Any]],
    *n_labels: dict[str, int],
) -> None:
    """Print a row for each seed, running what is missing, and their mean."""
    results = []
    for seed in args.seeds:
        folder = real.folder / f"{name}{args.name}_seed{seed}"
        settings = {"set": args.set, "expected": args.expected_particles}
        if args.start:
            settings["start"] = sha256_of_file(args.start)
        if run is train_topaz:
            settings = {"train": args.train, "scales": args.scales, "radii": args.radii}
        result = result_of(
            args, folder, picker, settings, lambda: run(args, real, folder, seed, *n_labels)  # noqa: B023
        )  # fmt: skip
        results.append(result)
        print_result(result, seed)
    if len(results) > 1:
        print_result(mean_of(results), "mean")


def result_of(
    args: argparse.Namespace,
    folder: Path,
    picker: str,
    settings: dict[str, Any],
    run: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Return the result on the split that is reported, by ``run`` unless it is there.

    Raises `UserError` when what is there was made with other settings.
    """
    make_folder(folder)
    settings = {**settings, "annotated_margin": args.annotated_margin}
    for there in map(read_json, folder.glob("result_*.json")):
        if there["settings"] != settings:
            raise UserError(
                f"{folder} was made with {there['settings']}, not with {settings}: give a --name"
            )
    path = folder / f"result_{args.split}.json"
    if not path.exists():
        write_json(path, {"picker": picker, "name": args.name, "settings": settings, **run()})
    return read_json(path)


def mean_of(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the means over seeds; None where a seed has no value."""
    mean: dict[str, Any] = {key: results[0][key] for key in ("picker", "labels")}
    for key in ("val_f1", *METRICS, "cpu_minutes"):
        values = [result[key] for result in results]
        mean[key] = None if None in values else statistics.mean(values)
    return mean


def print_result(result: dict[str, Any], seed: object) -> None:
    """Print a row of the table."""
    intervals = result.get("intervals", {})
    print_row(
        result["picker"], f"{result['labels']:,}", seed, f"{result['val_f1']:.3f}",
        *("-" if result[name] is None else with_interval(result[name], intervals.get(name))
          for name in METRICS),
        f"{result['cpu_minutes']:.1f}",
    )  # fmt: skip


# Ours


def segment(args: argparse.Namespace, real: RealSet, folder: Path, seed: int) -> dict[str, Any]:
    """Train a U-Net with all labels on tiles, pick, evaluate."""
    n, side_px = real.tiles
    epochs = math.ceil(TILES_SEEN / (len(real.train) * n**2))
    store = real.folder / "segmentation_store"
    script(
        "preprocess_coco_full_dataset.py", "--data-root", real.root, "--splits", "train", "val",
        "--tasks", "segmentation", "--seg-output-dir", store, "--seg-size", side_px,
        "--seg-tiles", n, "--seg-ignore-margin", "--annotated-margin", real.margin_px,
        "--seg-disk", 0.6, "--num-workers", 0,
    )  # fmt: skip
    minutes = train_once(
        folder, "train_active_learning_fixed.py", "--strategy", "full", "--seed", seed, "--resume",
        "--config", "configs/active_learning_picking.yaml", "--output-dir", folder,
        "--run-name", "run", "--train-data-dir", store / "train", "--val-data-dir", store / "val",
        "--device", "cpu",
        *overrides("data.test_dir=null", f"active_learning.full_epochs={epochs}", *args.set),
    )  # fmt: skip
    n_labels = sum(len(m.centres_px) for m in real.train)
    best = folder / "run" / "iteration_0" / "best_model.pt"
    return {
        "labels": n_labels, "cpu_minutes": minutes,
        **pick_and_evaluate(real, args.split, folder, best),
    }  # fmt: skip


def learn_from_picks(
    args: argparse.Namespace,
    real: RealSet,
    folder: Path,
    seed: int,
    n_labels: dict[str, int],
    more: Sequence[object] = (),
) -> dict[str, Any]:
    """Draw labels, learn from them as picks, pick, evaluate; more: flags of preprocessing."""
    write_labels(real, folder, n_labels, seed)
    script(
        "preprocess_coco_full_dataset.py", "--labels", folder / "picks.star",
        "--micrographs", *paths_of(real, "train"), "--val-micrographs", *paths_of(real, "val"),
        "--unlabeled", "windows", "--diameter", f"{real.diameter_px:g}px", "--expected-particles",
        args.expected_particles or real.expected, "--output-dir", folder / "store",
        "--seed", seed, "--num-workers", 0, *more,
    )  # fmt: skip
    config = "configs/pu_from_general.yaml" if args.start else "configs/pu_few_labels.yaml"
    start = [f"training.initial_weights={args.start}"] if args.start else []
    minutes = train_once(
        folder, "train_pu_fixed_full.py", "--config", config, "--resume",
        "--exp-name", "run", "--experiments-dir", folder, "--data-dir", folder / "store",
        "--device", "cpu", *overrides(f"training.seed={seed}", *start, *args.set),
    )  # fmt: skip
    best = folder / "run" / "checkpoints" / "best_model.pt"
    return {
        "labels": n_labels["train"], "cpu_minutes": minutes,
        **pick_and_evaluate(real, args.split, folder, best),
    }  # fmt: skip


def no_label(args: argparse.Namespace, real: RealSet, folder: Path) -> dict[str, Any]:
    """Pick with the general network as it is, evaluate."""
    metrics = pick_and_evaluate(real, args.split, folder, args.start, half=None)
    return {"labels": 0, "cpu_minutes": 0.0, **metrics}


def train_topaz(
    args: argparse.Namespace, real: RealSet, folder: Path, seed: int, n_labels: dict[str, int]
) -> dict[str, Any]:
    """Train Topaz on the picks that few-labels draws by this seed, pick, evaluate."""
    return topaz.trained(args, real, n_labels, seed, folder)


def train_once(folder: Path, *command: object) -> float:
    """Train unless that is done; return the CPU minutes it took, since it was last started."""
    path = folder / "training.json"
    if not path.exists():
        write_json(path, {"cpu_minutes": script(*map(str, command))})
    return read_json(path)["cpu_minutes"]


def paths_of(real: RealSet, split: str) -> list[Path]:
    """Return the files of a split's micrographs."""
    return [m.path for m in real.micrographs(split)]


def pick_and_evaluate(
    real: RealSet, split: str, folder: Path, checkpoint: Path, half: float | None = 0.5
) -> dict[str, Any]:
    """Pick val and the split that is reported; return what `evaluate` makes of it and ``half``.

    half: None for what parts the scores on that split.
    """
    val = pick(real, "val", folder, checkpoint, 0.5)
    outcomes = [match_picks(val[m.path.stem], m, real.margin_px) for m in real.micrographs("val")]
    threshold = choose_threshold(pr_curve(outcomes))
    picked = val if split == "val" else pick(real, split, folder, checkpoint, threshold)
    if half is None:
        half = parting_of(picked, 0.5)
    return evaluate(real, split, val, picked, half)


def parting_of(candidates: dict[str, Picks], otherwise: float) -> float:
    """Return the score that parts candidates into two kinds, ``otherwise`` with too few."""
    parted = part(np.concatenate([one.scores for one in candidates.values()]))
    return otherwise if parted is None else parted.threshold


def pick(
    real: RealSet, split: str, folder: Path, checkpoint: Path, threshold: float
) -> dict[str, Picks]:
    """Pick a split into a folder named after it; return the candidates at any score, by stem."""
    script(
        "pick_particles.py", "--checkpoint", checkpoint, "--diameter", f"{real.diameter_px:g}px",
        "--micrographs", *paths_of(real, split), "--threshold", threshold, "--overlay",
        "--evaluate", *real.truth_files(split),
        "--annotated-margin", real.margin_px, "--output", folder / split, "--resume",
        "--device", "cpu",
    )  # fmt: skip
    return {
        m.path.stem: load_picks(folder / split, m.path.name, m.size_px)
        for m in real.micrographs(split)
    }


# Beside F1


def agreement(args: argparse.Namespace, real: RealSet) -> None:
    """Print how many false picks of ours are false ones of the peer too, and how many by chance."""
    sizes = {path.name: image_size(path) for path in paths_of(real, "test")}
    truth = read_picks(real.truth_files("test"), sizes)
    reach_px = real.diameter_px / 4

    def false_picks(files: list[Path]) -> tuple[dict[str, np.ndarray], int]:
        """Return the centres of false picks by micrograph, and how many picks there are in all."""
        false, n = {}, 0
        for picks, true in match_names(read_picks(files, sizes, only_known=True), truth)[0]:
            outcome = match_picks(picks, true, real.margin_px)
            false[true.name] = outcome.picks.centres_px[outcome.matched < 0]
            n += len(outcome.matched)
        return false, n

    theirs, _ = false_picks(find_coordinates([args.peer]))
    runs: dict[Path, list[Path]] = {}
    for path in find_coordinates([args.picks_of]):
        runs.setdefault(path.parent, []).append(path)
    print_header("run", "picks", "false", "false of both", "by chance")
    for run, files in runs.items():
        ours, n = false_picks(files)
        n_false, n_both, by_chance = sum(map(len, ours.values())), 0, 0.0
        for name, centres in ours.items():
            distance_px, _ = cKDTree(theirs[name]).query(centres)
            n_both += int((distance_px <= reach_px).sum())
            area_px = math.prod(side - 2 * real.margin_px for side in sizes[name])
            covered = len(theirs[name]) * math.pi * reach_px**2 / area_px
            by_chance += len(centres) * (1 - math.exp(-covered))
        both = f"{n_both} ({n_both / n_false:.0%})"
        print_row(run, f"{n:,}", n_false, both, f"{by_chance:.0f}")


if __name__ == "__main__":
    run_script(main)
