r"""What a PU network's weights or picks give the first iterations of active learning.

    OMP_NUM_THREADS=1 python -m benchmarks.one_from_other \
        --data-root ../shared/data/empiar-10017 --seeds 0 1

The labels are the tiles that active learning labels at the start, as its seed draws them. The
particles in these tiles alone are given to PU + FixMatch as picks, and the same fraction of the
validation micrographs' particles to choose its checkpoint on. Some arms of active learning (`ARMS`)
start from its network. All have the strategy random, so the same tiles:

    scratch      new weights
    pu           the weights of the PU network; the attention gates are new
    pseudo       the weights of a segmentation network trained on pseudo-masks: the picks of the PU
                 network on all training micrographs, as many as --expected-particles
    consistency  new weights, and consistency on the tiles without labels
    steps        scratch with as many epochs as give its iteration 0 the steps of pseudo's, those on
                 pseudo-masks included

Rows named "before" are what an arm costs before its iteration 0; their F1 is of the network trained
on pseudo-masks alone. Every checkpoint of segmentation is chosen on the validation masks. What is
finished is read, not run again.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import (
    ROOT,
    new_parser,
    overrides,
    print_header,
    print_row,
    require_same_settings,
    script,
)
from picking.active_learning.queries import initial_set, schedule
from picking.config import ActiveConfig, read_config
from picking.errors import run_script
from picking.files import read_json, write_atomically
from picking.formats.coordinates import write_picks
from picking.formats.picks import Micrograph, Picks
from picking.inputs import annotations
from picking.seeds import stream

CONFIG = "configs/active_learning_real_quick.yaml"
# Config values of an arm; {pu} and {pseudo} are checkpoints, {epochs} is worked out
ARMS = {
    "scratch": (),
    "pu": ("active_learning.initial_weights={pu}",),
    "pseudo": ("active_learning.initial_weights={pseudo}",),
    "consistency": ("consistency.weight=0.1", "consistency.threshold=0.7"),
    "steps": ("training.epochs={epochs}",),
}
TILE_PX = 128
COLUMNS = ("arm", "seed", "iteration", "particles", "val F1", "test F1", "steps", "min")


def main() -> None:
    """Run what is missing; print a row an iteration, and the means over seeds."""
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--data-root", type=Path, default=Path("../shared/data/empiar-10017"))
    add("--seeds", nargs="+", type=int, default=[0, 1])
    add("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    add("--diameter", type=float, default=108, help="in px")
    add("--expected-particles", type=float, default=600, help="of a micrograph")
    add("--iterations", type=int, default=3)
    add("--epochs", type=int, default=10, help="of an iteration")
    add("--pseudo-epochs", type=int, default=10, help="on pseudo-masks")
    add("--pu-steps", type=int, default=1500)
    add("--device", default="cpu")
    add("--name", default="", help="tells runs with other settings apart")
    args = parser.parse_args()
    args.data_root = args.data_root.resolve()
    folder = ROOT / "experiments" / f"one_from_other{args.name}"
    keys = ("diameter", "expected_particles", "iterations", "epochs", "pseudo_epochs", "pu_steps")
    settings = {key: getattr(args, key) for key in keys} | {"data_root": args.data_root.name}
    require_same_settings(folder, settings)

    store = folder / "segmentation"
    make_masks(args.data_root, store, "auto")
    print_header(*COLUMNS)
    for arm in args.arms:
        of_seeds = []
        for seed in args.seeds:
            of_seeds.append(rows_of(args, store, folder / f"seed{seed}", arm, seed))
            for row in of_seeds[-1]:
                print_row(arm, seed, *cells_of(row))
        if len(args.seeds) > 1:
            for same in zip(*of_seeds, strict=True):
                print_row(arm, "mean", *cells_of(mean_of(same)))


def rows_of(
    args: argparse.Namespace, store: Path, folder: Path, arm: str, seed: int
) -> list[dict[str, Any]]:
    """Return the rows of an arm: what came before, if anything did, and each iteration."""
    config = read_config(ROOT / CONFIG, [], ActiveConfig)
    settings, images = config.active_learning, read_json(store / "train" / "index.json")["images"]
    counts = schedule(
        len(images), settings.initial_fraction, settings.query_fraction, args.iterations
    )
    first, pool = (-(-n // config.training.batch_size) for n in (counts[0], len(images)))
    given = {
        "pu": folder.relative_to(ROOT) / "on_picks" / "checkpoints" / "best_model.pt",
        "pseudo": folder.relative_to(ROOT) / "on_pseudo_masks" / "iteration_0" / "best_model.pt",
        "epochs": args.epochs + round(args.pseudo_epochs * pool / first),
    }
    rows: list[dict[str, Any]] = []
    if arm in ("pu", "pseudo"):
        labelled = [images[i] for i in initial_set(len(images), counts[0], seed)]
        rows.append(train_pu(args, folder, labelled, seed))
    if arm == "pseudo":
        pseudo = train_on_pseudo_masks(args, store, folder, seed)
        both = {key: rows[0][key] + pseudo[key] for key in ("steps", "min")}
        rows = [{**rows[0], **pseudo, **both}]
    settings_of_arm = [value.format(**given) for value in ARMS[arm]]
    values = ["active_learning.compare_queries=false", f"training.epochs={args.epochs}"]
    once(
        folder / arm / f"iteration_{args.iterations - 1}" / "metrics.json",
        *learning(args, store, folder, arm, seed), "--train-data-dir", store / "train",
        "--test-data-dir", store / "test", "--strategy", "random", "--iterations", args.iterations,
        *overrides(*values, *settings_of_arm),
    )  # fmt: skip
    steps_before = 0
    for k in range(args.iterations):
        metrics = read_json(folder / arm / f"iteration_{k}" / "metrics.json")
        rows.append({**metrics_of(metrics, steps_before), "iteration": str(k)})
        steps_before = metrics["optimizer_steps"]
    return rows


def make_masks(root: Path, store: Path, margin_px: object) -> None:
    """Make tiles with masks, as in section 6 of RESULTS.md."""
    once(
        store / "metadata.json", "preprocess_coco_full_dataset.py", "--data-root", root, "--tasks",
        "segmentation", "--seg-output-dir", store, "--seg-size", TILE_PX, "--seg-tiles", 6,
        "--seg-ignore-margin", "--annotated-margin", margin_px, "--num-workers", 0,
    )  # fmt: skip


def learning(
    args: argparse.Namespace, store: Path, folder: Path, name: str, seed: int
) -> tuple[object, ...]:
    """Return the command of a run of active learning, without what it is trained on."""
    return (
        "train_active_learning_fixed.py", "--config", CONFIG, "--seed", seed, "--resume",
        "--output-dir", folder, "--run-name", name, "--device", args.device,
        "--val-data-dir", store / "val",
    )  # fmt: skip


def train_pu(args: argparse.Namespace, folder: Path, labelled: list[dict], seed: int) -> dict:
    """Train the PU network on the particles of the labelled tiles; return what it cost."""
    n_picks = write_labels(args, folder, labelled, seed)
    once(
        folder / "windows" / "metadata.json", "preprocess_coco_full_dataset.py",
        "--micrographs", args.data_root / "train" / "*.jpg",
        "--val-micrographs", args.data_root / "val" / "*.jpg", "--labels", folder / "picks.star",
        "--unlabeled", "windows", "--diameter", f"{args.diameter}px", "--expected-particles",
        args.expected_particles, "--output-dir", folder / "windows", "--seed", seed,
        "--num-workers", 0,
    )  # fmt: skip
    results = folder / "on_picks" / "results.json"
    once(
        results, "train_pu_fixed_full.py", "--config", "configs/pu_few_labels.yaml", "--resume",
        "--exp-name", "on_picks", "--experiments-dir", folder, "--data-dir", folder / "windows",
        "--device", args.device,  # a depth of 4, the layers of the Attention U-Net
        *overrides(f"training.seed={seed}", f"training.max_steps={args.pu_steps}", "model.depth=4"),
    )  # fmt: skip
    minutes = read_json(results)["train_seconds"] / 60
    return {"iteration": "before", "particles": n_picks, "steps": args.pu_steps, "min": minutes}


def write_labels(args: argparse.Namespace, folder: Path, labelled: list[dict], seed: int) -> int:
    """Write the particles in the labelled tiles, and as large a fraction of val's, to picks.star.

    labelled: of the store's index. Returns how many lie in the tiles.
    """
    tiles: dict[str, list[list[int]]] = {}
    for image in labelled:
        tiles.setdefault(image["micrograph"], []).append(image["tile"])
    picks, scale = [], {image["micrograph"]: image["scale"] for image in labelled}
    train = annotations.read_split(args.data_root, "train").micrographs
    for m in train:
        if m.name in tiles:
            tile = m.centres_px * scale[m.name] // TILE_PX
            chosen = (tile[:, None] == np.array(tiles[m.name])).all(axis=2).any(axis=1)
            picks.append(picks_of(m, chosen, args.diameter))
    n_picks = sum(len(p.centres_px) for p in picks)
    fraction = n_picks / sum(len(m.centres_px) for m in train)
    for m in annotations.read_split(args.data_root, "val").micrographs:
        rng = stream(seed, "labels", m.name)
        chosen = rng.permutation(len(m.centres_px)) < round(fraction * len(m.centres_px))
        picks.append(picks_of(m, chosen, args.diameter))
    write_picks(folder, [p for p in picks if len(p.centres_px)], ["star"], one_file=True)
    return n_picks


def picks_of(micrograph: Micrograph, chosen: np.ndarray, diameter_px: float) -> Picks:
    """Return some of a micrograph's particles, bool (n,), as picks without scores."""
    centres = micrograph.centres_px[chosen]
    unknown, diameters = np.full(len(centres), np.nan), np.full(len(centres), diameter_px)
    return Picks(micrograph.name, centres, unknown, diameters, micrograph.size_px)


def train_on_pseudo_masks(
    args: argparse.Namespace, store: Path, folder: Path, seed: int
) -> dict[str, Any]:
    """Pick train with the PU network, train on masks of the picks; return what came of it."""
    images = args.data_root / "train"
    best = folder / "on_picks" / "checkpoints" / "best_model.pt"
    common = ("pick_particles.py", "--checkpoint", best, "--micrographs", images / "*.jpg",
              "--device", args.device)  # fmt: skip
    root, picked = folder / "pseudo_root", folder / "picked"
    if not (picked / "thresholds.csv").exists():  # the last file of picking
        if not picked.exists():  # else it was begun with a threshold that was chosen
            script(*common, "--expected-particles", args.expected_particles)
        script(*common, "--output", picked, "--formats", "csv", "--resume")
    for path in (*images.glob("*.jpg"), *(picked / "csv").glob("*.csv")):
        copy = root / ("train" if path.suffix == ".jpg" else "particle_coordinates") / path.name
        if not copy.exists():  # preprocessing refuses links that lead out of a data root
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(copy, path.read_bytes())
    margin_px = read_json(store / "metadata.json")["annotated_margin_px"]
    make_masks(root, folder / "pseudo_segmentation", margin_px)
    metrics = folder / "on_pseudo_masks" / "iteration_0" / "metrics.json"
    once(
        metrics, *learning(args, store, folder, "on_pseudo_masks", seed), "--strategy", "full",
        "--epochs", args.pseudo_epochs, "--test-data-dir", store / "test",
        "--train-data-dir", folder / "pseudo_segmentation" / "train",
    )  # fmt: skip
    shown = metrics_of(read_json(metrics), 0)
    del shown["particles"]  # of pseudo-masks
    return shown


def metrics_of(metrics: dict, steps_before: int) -> dict[str, Any]:
    """Return what the table shows of an iteration."""
    return {
        "particles": metrics["num_particles_labeled"],
        "val F1": metrics["f1_score"],
        "test F1": metrics["test"]["f1_score"],
        "steps": metrics["optimizer_steps"] - steps_before,
        "min": metrics["train_seconds"] / 60,
    }


def once(made: Path, *command: object) -> None:
    """Run one of the project's scripts unless the file that it writes last is there."""
    if not made.exists():
        script(*map(str, command))


def mean_of(rows: tuple[dict, ...]) -> dict[str, Any]:
    """Return the means over seeds of the same row."""
    mean: dict[str, Any] = {"iteration": rows[0]["iteration"]}
    for name in COLUMNS[3:]:
        if name in rows[0]:
            mean[name] = statistics.mean(row[name] for row in rows)
    return mean


def cells_of(row: dict) -> list[str]:
    """Return the cells of a row behind arm and seed."""
    forms = zip(COLUMNS[3:], (",.0f", ".4f", ".4f", ",.0f", ".1f"), strict=True)
    return [row["iteration"], *(format(row[k], form) if k in row else "" for k, form in forms)]


if __name__ == "__main__":
    run_script(main)
