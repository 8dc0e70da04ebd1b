"""Picking on real micrographs, and what it costs; each part is one command.

    python -m benchmarks.picking segmentation --data-root ../shared/data/empiar-10017 --seeds 0 1 2
    python -m benchmarks.picking few-labels --data-root ../shared/data/empiar-10017 \
        --shares 1 0.3 0.05 0.01 --seeds 0 1
    python -m benchmarks.picking cost --data-root ../shared/data/empiar-10017 \
        --checkpoints unet.pt few.pt --topaz 'python -m topaz.main'
    python -m benchmarks.picking agreement --data-root ../shared/data/empiar-10017 \
        --picks 'experiments/picking_benchmark/segmentation_*/picks/star/*.star' \
        --peer '../shared/data/empiar-10017/peer_picks/crYOLO/*.box'
    python -m benchmarks.picking figure        # docs/few_labels.png, of the runs that are there

segmentation: a U-Net with all labels. few-labels: PU + FixMatch from fractions of the labels of
train, as picks; the checkpoint is chosen on the same fraction of those of validation. Both:
threshold with the highest F1 on the validation micrographs, annotated in full; test is picked once,
at the end. What is finished is read, not run again. cost: seconds and peak memory a micrograph of
each way to pick, every one in a process of its own, one after another: our U-Nets in tiles as they
were trained, and with the whole micrograph as one image. agreement: how many of our false picks on
test lie within a quarter diameter of a false pick of another picker, and how many would by chance.

The seed is that of training; few-labels draws its labels by it too.
"""

import argparse
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from benchmarks.common import (
    ROOT,
    new_parser,
    overrides,
    print_header,
    print_row,
    script,
    with_interval,
)
from picking.detection.thresholds import threshold_file
from picking.evaluation.matching import match_picks
from picking.files import read_json
from picking.formats.coordinates import match_names, read_picks, write_picks
from picking.formats.picks import Picks
from picking.inputs import annotations
from picking.inputs.paths import find_coordinates
from picking.micrographs.mrc import write_mrc
from picking.micrographs.reading import image_size, read_micrograph
from picking.seeds import stream

FOLDER = ROOT / "experiments" / "picking_benchmark"
# Of peers on the same test micrographs; Topaz's network was tuned on the same labels
TOPAZ_TUNED = ((185, 0.849), (1109, 0.862), (3696, 0.867))
TOPAZ_LABEL = "Topaz, tuned on the same numbers of labels (whole frame)"
CRYOLO_F1 = 0.911
MARGIN_PX = 131  # where the annotators listed no particle
METRICS = ("precision", "recall", "f1", "ap")


def main() -> None:
    """Run one part."""
    parser = new_parser(__doc__)
    parser.add_argument(
        "part", choices=("segmentation", "few-labels", "cost", "agreement", "figure")
    )
    parser.add_argument("--data-root", type=Path, default=Path("../shared/data/empiar-10017"))
    parser.add_argument("--diameter", type=float, default=108, help="in px")
    parser.add_argument("--expected-particles", type=float, default=600, help="few-labels")
    parser.add_argument("--shares", nargs="+", type=float, default=[1, 0.3, 0.05, 0.01])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--set", nargs="+", default=[], help="config values of the training runs")
    parser.add_argument("--name", default="", help="tells runs with other --set apart")
    parser.add_argument("--checkpoints", nargs="+", type=Path, default=[], help="cost")
    parser.add_argument("--topaz", help="cost: the command that starts Topaz")
    parser.add_argument("--picks", help="agreement: STAR files of ours, in folders by run")
    parser.add_argument("--peer", help="agreement: files of another picker")
    args = parser.parse_args()
    args.data_root = args.data_root.resolve()
    FOLDER.mkdir(parents=True, exist_ok=True)
    others = {"cost": cost, "agreement": agreement, "figure": draw_figure}
    if args.part in others:
        others[args.part](args)
        return
    fractions = args.shares if args.part == "few-labels" else [1]
    print_header("labels", "seed", "val F1", *(f"test {name}" for name in METRICS), "CPU min")
    for fraction in fractions:
        results = []
        for seed in args.seeds:
            folder = FOLDER / f"{args.part}{args.name}_{fraction:g}_seed{seed}"
            folder.mkdir(exist_ok=True)
            if not (folder / "result.json").exists():
                run = segment if args.part == "segmentation" else learn_from_picks
                (folder / "result.json").write_text(json.dumps(run(args, folder, fraction, seed)))
            results.append(json.loads((folder / "result.json").read_text()))
            print_result(results[-1], seed)
        if len(results) > 1:
            mean: dict[str, Any] = {"labels": results[0]["labels"]}
            for key in ("val_f1", *METRICS, "cpu_minutes"):
                mean[key] = statistics.mean(result[key] for result in results)
            print_result(mean, "mean")


def print_result(result: dict, seed: object) -> None:
    """Print a row of the table."""
    intervals = result.get("intervals", {})
    print_row(
        f"{result['labels']:,}", seed, f"{result['val_f1']:.3f}",
        *(with_interval(result[name], intervals.get(name)) for name in METRICS),
        f"{result['cpu_minutes']:.1f}",
    )  # fmt: skip


def segment(args: argparse.Namespace, folder: Path, fraction: float, seed: int) -> dict:
    """Train a U-Net with all labels on tiles, pick, evaluate."""
    store = FOLDER / "segmentation_store"
    script(
        "preprocess_coco_full_dataset.py", "--data-root", args.data_root, "--tasks", "segmentation",
        "--seg-output-dir", store, "--seg-size", 128, "--seg-tiles", 6, "--seg-ignore-margin",
        "--seg-disk", 0.6, "--num-workers", 0,
    )  # fmt: skip
    minutes = script(
        "train_active_learning_fixed.py", "--strategy", "full", "--seed", seed, "--resume",
        "--config", "configs/active_learning_picking.yaml", "--output-dir", folder,
        "--run-name", "run", "--train-data-dir", store / "train", "--val-data-dir", store / "val",
        "--device", "cpu", *overrides("data.test_dir=null", *args.set),
    )  # fmt: skip
    counts = json.loads((store / "metadata.json").read_text())["splits"]["train"]
    best = folder / "run" / "iteration_0" / "best_model.pt"
    return pick_and_evaluate(args, folder, best, counts["n_particles"], minutes)


def learn_from_picks(args: argparse.Namespace, folder: Path, fraction: float, seed: int) -> dict:
    """Draw a fraction of the labels, learn from them as picks, pick, evaluate."""
    n_labels = write_labels(args.data_root, folder, fraction, seed, args.diameter)
    script(
        "preprocess_coco_full_dataset.py", "--micrographs", args.data_root / "train" / "*.jpg",
        "--val-micrographs", args.data_root / "val" / "*.jpg", "--labels", folder / "picks.star",
        "--unlabeled", "windows", "--diameter", f"{args.diameter}px", "--expected-particles",
        args.expected_particles, "--output-dir", folder / "store", "--seed", seed,
        "--num-workers", 0,
    )  # fmt: skip
    minutes = script(
        "train_pu_fixed_full.py", "--config", "configs/pu_few_labels.yaml", "--resume",
        "--exp-name", "run", "--experiments-dir", folder, "--data-dir", folder / "store",
        "--device", "cpu", *overrides(f"training.seed={seed}", *args.set),
    )  # fmt: skip
    best = folder / "run" / "checkpoints" / "best_model.pt"
    return pick_and_evaluate(args, folder, best, n_labels, minutes)


def write_labels(root: Path, folder: Path, fraction: float, seed: int, diameter_px: float) -> int:
    """Write a fraction of the labels of train and val to picks.star; return how many of train."""
    picks, n_train = [], 0
    for split in ("train", "val"):
        micrographs = annotations.read_split(root, split).micrographs
        owner = np.repeat(np.arange(len(micrographs)), [len(m.centres_px) for m in micrographs])
        n_labels = round(fraction * len(owner))
        chosen = np.zeros(len(owner), dtype=bool)
        chosen[stream(seed, "labels", split).permutation(len(owner))[:n_labels]] = True
        n_train += n_labels if split == "train" else 0
        for i, m in enumerate(micrographs):
            centres = m.centres_px[chosen[owner == i]]
            unknown = np.full(len(centres), np.nan)
            diameters = np.full(len(centres), diameter_px)
            if len(centres):
                picks.append(Picks(m.name, centres, unknown, diameters, m.size_px))
    write_picks(folder, picks, ["star"], one_file=True)
    return n_train


def pick_and_evaluate(
    args: argparse.Namespace, folder: Path, checkpoint: Path, n_labels: int, minutes: float
) -> dict:
    """Choose the threshold on val, pick test, return the metrics."""
    truth = args.data_root / "annotations"
    common = ("--checkpoint", checkpoint, "--diameter", f"{args.diameter}px", "--device", "cpu",
              "--annotated-margin", MARGIN_PX)  # fmt: skip
    script(
        "pick_particles.py", *common, "--micrographs", args.data_root / "val" / "*.jpg",
        "--choose-threshold", truth / "instances_val.json",
    )  # fmt: skip
    chosen_on = read_json(threshold_file(checkpoint))["chosen_on"]
    script(
        "pick_particles.py", *common, "--micrographs", args.data_root / "test" / "*.jpg",
        "--evaluate", truth / "instances_test.json", "--output", folder / "picks", "--overlay",
    )  # fmt: skip
    report = json.loads((folder / "picks" / "evaluation.json").read_text())
    metrics = {name: report[name] for name in (*METRICS, "intervals", "threshold")}
    metrics["f1_whole_frame"] = whole_frame(args, folder)
    return {"labels": n_labels, "val_f1": chosen_on["f1"], "cpu_minutes": minutes, **metrics}


def whole_frame(args: argparse.Namespace, folder: Path) -> float:
    """Return the F1 of the same picks where those in the margin, where nobody annotated, count."""
    script(
        "pick_particles.py", "--evaluate", args.data_root / "annotations" / "instances_test.json",
        "--picks", folder / "picks" / "star" / "*.star", "--annotated-margin", 0,
        "--output", folder / "whole_frame",
    )  # fmt: skip
    return json.loads((folder / "whole_frame" / "evaluation.json").read_text())["f1"]


def cost(args: argparse.Namespace) -> None:
    """Print seconds, CPU seconds and peak memory of picking the test micrographs in each way."""
    images = sorted((args.data_root / "test").glob("*.jpg"))
    ways: dict[str, list[list[str]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in args.checkpoints:
            whole = Path(folder) / f"{len(ways)}.pt"
            save_whole(path, whole, images[0])
            for name, checkpoint in ((f"{path}, tiled", path), (f"{path}, whole", whole)):
                ways[name] = [[
                    sys.executable, "pick_particles.py", "--checkpoint", str(checkpoint),
                    "--micrographs", *map(str, images), "--diameter", f"{args.diameter}px",
                    "--threshold", "0.5", "--output", f"{folder}/{len(ways)}", "--device", "cpu",
                ]]  # fmt: skip
        if args.topaz:
            topaz = shlex.split(args.topaz)
            radius = round(args.diameter / 2 / 8)
            raw = [f"{folder}/{image.stem}.mrc" for image in images]  # it takes no JPEGs
            small = [f"{folder}/small/{image.stem}.mrc" for image in images]
            for image, path in zip(images, raw, strict=True):
                write_mrc(Path(path), read_micrograph(image), 1.77)
            ways["topaz, 8 times smaller, resnet16_u64"] = [
                [*topaz, "preprocess", "-s", "8", "-o", f"{folder}/small/", *raw],
                [*topaz, "extract", "-m", "resnet16_u64", "-r", str(radius), "-x", "8", "-d", "-1",
                 "-o", f"{folder}/topaz.txt", *small],
            ]  # fmt: skip
        print_header("way", "s a micrograph", "CPU s a micrograph", "peak MiB")
        for name, commands in ways.items():
            started, cpu, peak = time.monotonic(), 0.0, 0
            for command in commands:
                child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
                _, status, used = os.wait4(child.pid, 0)
                if status:
                    sys.exit(f"{shlex.join(command)} failed")
                cpu, peak = cpu + used.ru_utime + used.ru_stime, max(peak, used.ru_maxrss)
            seconds = (time.monotonic() - started) / len(images)
            print_row(name, f"{seconds:.1f}", f"{cpu / len(images):.1f}", f"{peak / 1024:.0f}")


def save_whole(path: Path, copy: Path, image: Path) -> None:
    """Save a U-Net's checkpoint so that it scores a whole micrograph as one image."""
    import torch

    checkpoint = torch.load(path, weights_only=True)
    if checkpoint["kind"] == "segmentation":
        wants = checkpoint["input"]
        wants |= {"side_px": wants["side_px"] * wants["tiles"], "tiles": 1}
    else:
        scaled = max(image_size(image)) * checkpoint["input"]["scale"]
        whole_px = -(-math.ceil(scaled) // 64) * 64
        checkpoint["config"]["data"]["input_size_px"] = whole_px
    torch.save(checkpoint, copy)


def agreement(args: argparse.Namespace) -> None:
    """Print how many false picks of ours are false ones of the peer too, and how many by chance."""
    images = args.data_root / "test"
    sizes = {path.name: image_size(path) for path in sorted(images.glob("*.jpg"))}
    truth = read_picks([args.data_root / "annotations" / "instances_test.json"], sizes)
    reach_px = args.diameter / 4

    def false_picks(files: list[Path]) -> tuple[dict[str, np.ndarray], int]:
        """Return the centres of false picks by micrograph, and how many picks there are in all."""
        false, n = {}, 0
        for picks, true in match_names(read_picks(files, sizes, only_known=True), truth)[0]:
            outcome = match_picks(picks, true, MARGIN_PX)
            false[true.name] = outcome.picks.centres_px[outcome.matched < 0]
            n += len(outcome.matched)
        return false, n

    theirs, _ = false_picks(find_coordinates([args.peer]))
    runs: dict[Path, list[Path]] = {}
    for path in find_coordinates([args.picks]):
        runs.setdefault(path.parent, []).append(path)
    print_header("run", "picks", "false", "false of both", "by chance")
    for run, files in runs.items():
        ours, n = false_picks(files)
        n_false, n_both, by_chance = sum(map(len, ours.values())), 0, 0.0
        for name, centres in ours.items():
            distance_px, _ = cKDTree(theirs[name]).query(centres)
            n_both += int((distance_px <= reach_px).sum())
            area_px = math.prod(side - 2 * MARGIN_PX for side in sizes[name])
            covered = len(theirs[name]) * math.pi * reach_px**2 / area_px
            by_chance += len(centres) * (1 - math.exp(-covered))
        both = f"{n_both} ({n_both / n_false:.0%})"
        print_row(run, f"{n:,}", n_false, both, f"{by_chance:.0f}")


def draw_figure(args: argparse.Namespace) -> None:
    """Draw picks on a simulated micrograph, and F1 against labels on the real test micrographs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(12, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    picture, plot = figure.subplots(1, 2, width_ratios=(1, 1.1))
    picture.imshow(np.asarray(Image.open(ROOT / "docs" / "picks.png")))
    picture.set_axis_off()
    picture.set_title("simulated: true picks blue, false orange, missed yellow", fontsize=10)

    of_labels: dict[int, list[float]] = {}
    of_frame: dict[int, list[float]] = {}
    for path in FOLDER.glob("few-labels_[01]*/result.json"):
        result = json.loads(path.read_text())
        of_labels.setdefault(result["labels"], []).append(result["f1"])
        of_frame.setdefault(result["labels"], []).append(result["f1_whole_frame"])
    labels = sorted(of_labels)
    means = [statistics.mean(of_labels[n]) for n in labels]
    plot.plot(labels, means, "o-", color="#1f77b4", label="PU + FixMatch from picks, mean of seeds")
    whole = [statistics.mean(of_frame[n]) for n in labels]
    plot.plot(labels, whole, "o--", color="#1f77b4", mfc="white", label="the same, whole frame")
    for n in labels:
        plot.plot([n] * len(of_labels[n]), of_labels[n], ".", color="#1f77b4", alpha=0.5)
    full = [json.loads(p.read_text()) for p in FOLDER.glob("segmentation_*/result.json")]
    if full:
        mean = statistics.mean(result["f1"] for result in full)
        plot.plot(
            full[0]["labels"], mean, "s", color="#2ca02c", label="Attention U-Net, all labels"
        )
    plot.plot(*zip(*TOPAZ_TUNED, strict=True), "^--", color="#ff7f0e", label=TOPAZ_LABEL)
    plot.axhline(CRYOLO_F1, color="#7f7f7f", linestyle=":", label="crYOLO, picks as published")
    plot.set_xscale("log")
    plot.set_xlabel("labelled particles (of 3,696 on six micrographs)")
    plot.set_ylabel("F1 of picks, four test micrographs of EMPIAR-10017")
    plot.set_ylim(0.8, 0.92)  # leaves room for the legend
    plot.grid(alpha=0.3)
    plot.legend(fontsize=9, loc="lower right")
    figure.savefig(ROOT / "docs" / "few_labels.png", dpi=80)


if __name__ == "__main__":
    main()
