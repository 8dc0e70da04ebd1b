"""Transfer to a protein that was not in training: simulated, one left out at a time.

    OMP_NUM_THREADS=1 python -m benchmarks.transfer --proteins SIM-001 SIM-003 --seeds 0 1

For each protein X and seed two arms: "without", trained on micrographs of the other proteins, and
"with", trained on as many drawn from all and shared by every X. Both draw from one order, so they
differ in the micrographs of X and in those that take their place. An arm is a PU + FixMatch patch
classifier and an Attention U-Net; checkpoints and the picking threshold are chosen on validation
micrographs of the proteins that the arm was trained on. Both are scored on the same micrographs and
patches: those of X in the test split. F1 and AP of patches at 0.5; picks inside the annotated
margin, with one --diameter for all proteins, since one threshold serves all.

The micrographs are simulated first unless --data-root holds them. What is finished is read, not
run again. The seed draws the training micrographs and is that of training; the patches of a
micrograph are the same for all seeds. Intervals resample the test micrographs of X.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from benchmarks.common import (
    ROOT,
    new_parser,
    print_header,
    print_row,
    require_same_settings,
    script,
    with_interval,
)
from picking.detection.thresholds import threshold_file
from picking.errors import UserError, run_script
from picking.files import read_json, write_atomically, write_json
from picking.inputs.annotations import SPLITS
from picking.seeds import stream
from picking.simulation.dataset import RECORD

SIMULATOR = (
    "--micrographs-train", 301, "--micrographs-val", 48, "--micrographs-test", 48, "--size", 512,
    "--pixel-size", 4, "--snr", 0.06, 0.2, "--proteins", 12, "--protein-ratio", 1.25,
    "--num-workers", 2,
)  # fmt: skip
ARMS = ("with", "without")
METRICS = ("AUC", "AP", "F1", "pick F1", "pick AP")


def main() -> None:
    """Run what is missing; print a row an arm, and the means over seeds."""
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--proteins", nargs="+", default=["SIM-001", "SIM-003"], help="left out, one at a time")
    add("--seeds", nargs="+", type=int, default=[0])
    add("--data-root", type=Path, default=Path("data/simulated_unequal"))
    add("--micrographs", type=int, default=150, help="that an arm is trained on")
    add("--backbone", default="resnet18_narrow", help="of the patch classifier")
    add("--steps", type=int, default=300, help="of the patch classifier")
    add("--epochs", type=int, default=30, help="of the U-Net")
    add("--diameter", default="40px", help="that picking is told, whatever the protein")
    add("--device", default="cpu")
    add("--name", default="", help="tells runs with other settings apart")
    args = parser.parse_args()
    args.data_root = args.data_root.resolve()
    folder = ROOT / "experiments" / f"transfer{args.name}"
    if not (args.data_root / RECORD).exists():
        script("-m", "picking.simulation", "--output", args.data_root, *SIMULATOR)
    record = read_json(args.data_root / RECORD)
    for protein in args.proteins:  # a mistake is told of before hours of training
        for seed in args.seeds:
            choose_micrographs(args, record, seed, protein)
    keys = ("micrographs", "backbone", "steps", "epochs", "diameter")
    settings = {key: getattr(args, key) for key in keys} | {"data_root": args.data_root.name}
    require_same_settings(folder, settings)
    print_header("protein", "seed", "arm", "of X in training", "val pick F1", *METRICS, "min")
    for protein in args.proteins:
        results: dict[str, list[dict]] = {arm: [] for arm in ARMS}
        for seed in args.seeds:
            for arm in ARMS:
                results[arm].append(result_of(args, record, folder, protein, seed, arm))
                print_row(protein, seed, arm, *cells_of(results[arm][-1]))
        if len(args.seeds) > 1:
            for arm in ARMS:
                print_row(protein, "mean", arm, *cells_of(mean_of(results[arm])))


def result_of(
    args: argparse.Namespace, record: dict, folder: Path, protein: str, seed: int, arm: str
) -> dict[str, Any]:
    """Return the metrics of an arm on one protein, training and scoring what is missing."""
    held_out = folder / f"without_{protein}_seed{seed}"
    run = held_out if arm == "without" else folder / f"with_seed{seed}"
    path = run / f"on_{protein}.json"
    if path.exists():
        return read_json(path)

    # 1. Data: the patches of X lie in the store of "without", for both arms
    of_arm = {run: None, held_out: protein}  # one entry where the arm is "without"
    for where, left_out in of_arm.items():
        chosen = choose_micrographs(args, record, seed, left_out)
        copy_micrographs(args, where, chosen)
        make_stores(args, record, where)
        if where == run:
            trained_on = chosen["train"]

    # 2. Both networks
    script(
        "train_pu_fixed_full.py", "--config", "configs/pu_quickstart.yaml", "--resume",
        "--use-data-prior", "--exp-name", "pu", "--experiments-dir", run, "--device", args.device,
        "--data-dir", run / "patches", "--set", f"model.backbone={args.backbone}",
        "--set", f"training.max_steps={args.steps}", "--set", f"training.seed={seed}",
    )  # fmt: skip
    script(
        "train_active_learning_fixed.py", "--config", "configs/active_learning_quickstart.yaml",
        "--strategy", "full", "--epochs", args.epochs, "--seed", seed, "--resume",
        "--output-dir", run, "--run-name", "unet", "--device", args.device,
        "--train-data-dir", run / "segmentation" / "train",
        "--val-data-dir", run / "segmentation" / "val", "--set", "data.test_dir=null",
    )  # fmt: skip

    # 3. Patches of X, then its picks
    patches = run / f"patches_{protein}.json"
    script(
        "train_pu_fixed_full.py", "--evaluate", run / "pu" / "checkpoints" / "best_model.pt",
        "--data-dir", held_out / "patches", "--split", "test", "--output", patches,
        "--device", args.device,
    )  # fmt: skip
    best = run / "unet" / "iteration_0" / "best_model.pt"
    truth = args.data_root / "annotations"
    common = ("--checkpoint", best, "--diameter", args.diameter, "--device", args.device,
              "--annotated-margin", record["annotation_margin_px"])  # fmt: skip
    val_f1 = chosen_f1(best)
    if val_f1 is None:
        script(
            "pick_particles.py", *common, "--micrographs", run / "root" / "val" / "*.jpg",
            "--choose-threshold", truth / "instances_val.json",
        )  # fmt: skip
        val_f1 = chosen_f1(best)
    picks = run / f"picks_{protein}"
    script(
        "pick_particles.py", *common, "--micrographs", held_out / "root" / "test" / "*.jpg",
        "--evaluate", truth / "instances_test.json", "--output", picks, "--resume",
    )  # fmt: skip

    # 4. What the table shows
    of_patches, of_picks = read_json(patches)["test"], read_json(picks / "evaluation.json")
    n_of_protein = sum(proteins_of(record)[name] == protein for name in trained_on)
    shown = ((of_patches, {"auc": "AUC", "ap": "AP", "f1": "F1"}),
             (of_picks, {"f1": "pick F1", "ap": "pick AP"}))  # fmt: skip
    result = {
        "micrographs_of_protein": n_of_protein,
        "val_pick_f1": val_f1,
        "minutes": minutes_of(run),
        "figures": {to: report[key] for report, keys in shown for key, to in keys.items()},
        "intervals": {
            to: report["intervals"].get(key) for report, keys in shown for key, to in keys.items()
        },
    }
    write_json(path, result)
    return result


def proteins_of(record: dict) -> dict[str, str]:
    """Return the protein of every micrograph of a simulated data set, by its stem."""
    return {m["stem"]: m["protein"] for m in record["micrographs"]}


def choose_micrographs(
    args: argparse.Namespace, record: dict, seed: int, left_out: str | None
) -> dict[str, list[str]]:
    """Return the stems of an arm's micrographs by split.

    train: so many of those that are annotated, not of the protein left out; val: of the proteins in
    train; test: of the protein left out, none without one.
    """
    protein = proteins_of(record)
    if left_out is not None and left_out not in protein.values():
        known = ", ".join(sorted(set(protein.values())))
        raise UserError(f"protein '{left_out}' is not in {args.data_root}; there are: {known}")
    members = {
        split: [m["stem"] for m in record["micrographs"] if m["split"] == split and m["annotated"]]
        for split in SPLITS
    }
    order = stream(seed, "transfer").permutation(members["train"]).tolist()
    train = [stem for stem in order if protein[stem] != left_out][: args.micrographs]
    trained = {protein[stem] for stem in train}
    test = [stem for stem in members["test"] if protein[stem] == left_out]
    if len(train) < args.micrographs:
        raise UserError(
            f"--micrographs is {args.micrographs}, but without {left_out} there are {len(train)}"
        )
    if left_out is not None and not test:
        raise UserError(f"no test micrograph of {left_out} in {args.data_root}: leave out another")
    val = [stem for stem in members["val"] if protein[stem] in trained]
    return {"train": train, "val": val, "test": test}


def copy_micrographs(args: argparse.Namespace, run: Path, chosen: dict[str, list[str]]) -> None:
    """Copy an arm's micrographs and their CSVs into the data root <run>/root.

    Preprocessing refuses links that lead out of a data root.
    """
    files = [Path("empiar_ids.csv")]
    for split, stems in chosen.items():
        files += [Path(split, f"{stem}.jpg") for stem in stems]
        files += [Path("particle_coordinates", f"{stem}.csv") for stem in stems]
    for file in files:
        copy = run / "root" / file
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(copy, (args.data_root / file).read_bytes())


def make_stores(args: argparse.Namespace, record: dict, run: Path) -> None:
    """Make an arm's patches of 64 px and images of 128 px."""
    script(
        "preprocess_coco_full_dataset.py", "--data-root", run / "root", "--tasks", "patches",
        "segmentation", "--output-dir", run / "patches", "--patch-size", 64, "--seg-output-dir",
        run / "segmentation", "--seg-size", 128, "--seg-ignore-margin", "--num-workers", 0,
        "--annotated-margin", record["annotation_margin_px"],
    )  # fmt: skip


def chosen_f1(checkpoint: Path) -> float | None:
    """Return the F1 on validation of a checkpoint's picking threshold, None before it is chosen."""
    path = threshold_file(checkpoint)
    return read_json(path)["chosen_on"]["f1"] if path.exists() else None


def minutes_of(run: Path) -> float:
    """Return the minutes that both networks of an arm were trained for."""
    reports = (run / "pu" / "results.json", run / "unet" / "iteration_0" / "metrics.json")
    return sum(read_json(report)["train_seconds"] for report in reports) / 60


def mean_of(results: list[dict]) -> dict[str, Any]:
    """Return the means over seeds, without intervals."""
    mean: dict[str, Any] = {
        key: statistics.mean(result[key] for result in results)
        for key in ("micrographs_of_protein", "val_pick_f1", "minutes")
    }
    each = {name: [result["figures"][name] for result in results] for name in METRICS}
    metrics = {k: None if None in values else statistics.mean(values) for k, values in each.items()}
    return {**mean, "intervals": {}, "figures": metrics}


def cells_of(result: dict) -> list[str]:
    """Return what the table shows of an arm's result."""
    metrics = [
        "-" if value is None else with_interval(value, result["intervals"].get(name))
        for name, value in result["figures"].items()
    ]
    first = [f"{result['micrographs_of_protein']:g}", f"{result['val_pick_f1']:.3f}"]
    return [*first, *metrics, f"{result['minutes']:.1f}"]


if __name__ == "__main__":
    run_script(main)
