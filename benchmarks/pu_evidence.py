"""What the PU risk, FixMatch, the priors and the threshold each add, with seeds and intervals.

    OMP_NUM_THREADS=1 python -m benchmarks.pu_evidence simulated --seeds 0 1 2
    OMP_NUM_THREADS=1 python -m benchmarks.pu_evidence real --seeds 0 1 2 \
        --data-root ../shared/data/empiar-10017
    python -m benchmarks.pu_evidence figure     # docs/pu_evidence.png, of the runs there are

A row is a variant of the training, named in VARIANTS with the fraction of positives that is hidden
and what it sets; the network is a narrow ResNet-18 on 64 px, 400 steps of 32 patches. Checkpoint
and threshold are chosen on validation. Test metrics are means over the seeds of training; 95%
intervals and the difference to "all labels" resample the test micrographs, the same ones for all
rows, and average over seeds in each resample. Finished runs are read, not run again.
"""

import functools
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import (
    ROOT,
    new_parser,
    overrides,
    print_header,
    print_row,
    script,
    with_interval,
)
from picking.metrics.classification import bootstrap_ranking
from picking.metrics.rates import interval, micrograph_weights

FOLDER = ROOT / "experiments" / "pu_evidence"
SIMULATION = (
    "--micrographs-train", "60", "--micrographs-val", "16", "--micrographs-test", "24",
    "--proteins", "6", "--snr", "0.02", "0.05", "--num-workers", "2",
)  # fmt: skip
PARTS = ("simulated", "real")
NEGATIVES = dict(zip(PARTS, ("far", "disjoint"), strict=True))
COMMON = (
    "model.backbone=resnet18_narrow", "training.max_steps=400", "training.bootstrap_samples=200",
    "loss.prior=pool",
)  # fmt: skip
NO_FIXMATCH = "loss.lambda_consistency=0"
ALL_NEGATIVE = "loss.unlabeled_prior=0"
UPPER = "all labels"
# name -> fraction of the positives that is hidden, what is set
VARIANTS: dict[str, tuple[float, tuple[str, ...]]] = {
    UPPER: (0, (NO_FIXMATCH,)),
    "all labels, FixMatch": (0, ()),
    "PU + FixMatch": (0.3, ()),
    "PU + FixMatch, 0.7 hidden": (0.7, ()),
    "PU + FixMatch, 0.95 hidden": (0.95, ()),
    "nnPU": (0.3, (NO_FIXMATCH,)),
    "nnPU, 0.95 hidden": (0.95, (NO_FIXMATCH,)),
    "U negative": (0.3, (NO_FIXMATCH, ALL_NEGATIVE)),
    "U negative, π_T actual": (0.3, (NO_FIXMATCH, ALL_NEGATIVE, "loss.prior=actual")),
    "U negative, 0.95 hidden": (0.95, (NO_FIXMATCH, ALL_NEGATIVE)),
    "one prior 0.47": (0.3, ("loss.prior=0.47", "loss.one_prior=true")),
    "π_T 0.47": (0.3, ("loss.prior=0.47",)),
    "π_T actual": (0.3, ("loss.prior=actual",)),
    "π_T actual, 0.95 hidden": (0.95, ("loss.prior=actual",)),
    "π_U estimated": (0.3, ("loss.unlabeled_prior=estimate",)),
    "π_U estimated, 0.95 hidden": (0.95, ("loss.unlabeled_prior=estimate",)),
    "sigmoid loss": (0.3, ("loss.surrogate=sigmoid",)),
    "τ 0.85": (0.3, ("loss.consistency_threshold=0.85",)),
    "τ 0.95": (0.3, ("loss.consistency_threshold=0.95",)),
    "τ adaptive": (0.3, ("loss.adaptive_threshold=true",)),
}
N_RESAMPLES = 1000


def main() -> None:
    """Run what is missing, then print a row a variant."""
    parser = new_parser(__doc__)
    parser.add_argument("part", choices=(*PARTS, "figure"))
    parser.add_argument("--data-root", type=Path, default=Path("../shared/data/empiar-10017"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    args = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    if args.part == "figure":
        draw_figure(args.seeds)
        return
    root = args.data_root.resolve()
    if args.part == "simulated":
        root = ROOT / "data" / "simulated_evidence"
        script("-m", "picking.simulation", "--output", root, *SIMULATION)
    for seed in args.seeds:
        for name in args.variants:
            run(args.part, root, name, seed)
    print_table(args.part, args.variants, args.seeds)


def run(part: str, root: Path, name: str, seed: int) -> None:
    """Train a variant unless it is done; leaves results.json and test.npz in its folder."""
    hidden, settings = VARIANTS[name]
    store = ROOT / "data" / f"pu_evidence_{part}_{hidden:g}"
    folder = folder_of(part, name, seed)
    if (folder / "test.npz").exists():
        return
    script(
        "preprocess_coco_full_dataset.py", "--data-root", root, "--output-dir", store,
        "--hide-ratio", hidden, "--neg-rule", NEGATIVES[part], "--num-workers", 0,
    )  # fmt: skip
    script(
        "train_pu_fixed_full.py", "--config", "configs/pu_quickstart.yaml", "--data-dir", store,
        "--experiments-dir", folder.parent, "--exp-name", folder.name, "--device", "cpu",
        "--resume", *overrides(*COMMON, f"training.seed={seed}", *settings),
    )  # fmt: skip
    save_scores(folder, store)


def folder_of(part: str, name: str, seed: int) -> Path:
    """Return a run's folder."""
    plain = name.replace(" ", "_").replace(",", "").replace("π", "pi").replace("τ", "tau")
    return FOLDER / part / f"{plain}_seed{seed}"


def save_scores(folder: Path, store: Path) -> None:
    """Score the test patches by the best checkpoint; test.npz has label, score and micrograph."""
    from picking.config import PUConfig, config_from_dict
    from picking.pu_learning.inputs import open_input, score
    from picking.pu_learning.state import load_best
    from picking.runs import checkpoints
    from picking.training.networks import build_network

    device, path = torch.device("cpu"), folder / "checkpoints" / "best_model.pt"
    best = load_best(path, device)
    config = config_from_dict(best["config"], str(path), PUConfig)
    network = checkpoints.restored(lambda: build_network(config), best["network"], path, device)
    test = open_input(store, "test", config)
    scores = score(network, test, config.training, device)
    label, micrograph = test.store.label, test.store.micrograph
    np.savez(folder / "test.npz", y=label, score=scores, micrograph=micrograph)


@functools.cache  # all labels are compared with every row
def metrics(part: str, name: str, seeds: tuple[int, ...]) -> dict[str, Any]:
    """Return a variant's means over seeds, its AUCs, and resampled AUC and AP (N_RESAMPLES, 2)."""
    reports, resampled = [], []
    for seed in seeds:
        folder = folder_of(part, name, seed)
        report = json.loads((folder / "results.json").read_text())
        last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
        test, at = report["test"], report["test"]["at_val_threshold"]
        reports.append({
            "val AUC": report["val"]["auc"], "AUC": test["auc"], "AP": test["ap"],
            "F1 at 0.5": test["f1"] or 0.0, "F1, val threshold": at["f1"] or 0.0,
            "ECE": test["ece"], "mask rate": last["mask_rate"],
            "clipped": last["clipped_step_share"],
            "π_T": report["prior"], "π_U": report["unlabeled_prior"],
        })  # fmt: skip
        with np.load(folder / "test.npz") as saved:
            y, score, group = saved["y"], saved["score"], saved["micrograph"]
        weights = micrograph_weights(group.max() + 1, N_RESAMPLES, seed=0)
        resampled.append(bootstrap_ranking(y.astype(bool), score, group, weights))
    mean = {key: statistics.mean(report[key] for report in reports) for key in reports[0]}
    by_seed = [report["AUC"] for report in reports]
    return {**mean, "by_seed": by_seed, "resampled": np.mean(resampled, axis=0)}


def seeds_of(part: str, name: str, seeds: list[int]) -> tuple[int, ...]:
    """Return those of the seeds that a variant was trained with."""
    return tuple(seed for seed in seeds if (folder_of(part, name, seed) / "test.npz").exists())


def print_table(part: str, names: list[str], seeds: list[int]) -> None:
    """Print a row a variant; differences are to `UPPER` with the same seeds."""
    columns = ("val AUC", "AUC", "AP", "F1 at 0.5", "F1, val threshold", "ECE", "mask rate",
               "clipped", "π_T", "π_U")  # fmt: skip
    print_header("variant", *columns, "AUC - that of all labels", "seeds' AUC")
    for name in names:
        trained = seeds_of(part, name, seeds)
        own, upper = metrics(part, name, trained), metrics(part, UPPER, trained)
        cells = [f"{own[key]:.3f}" for key in columns]
        cells[1] = with_interval(own["AUC"], interval(own["resampled"][:, 0]))
        low, high = interval(own["resampled"][:, 0] - upper["resampled"][:, 0])
        difference = f"{own['AUC'] - upper['AUC']:+.3f} [{low:+.3f}, {high:+.3f}]"
        print_row(name, *cells, difference, ", ".join(f"{auc:.3f}" for auc in own["by_seed"]))


def draw_figure(seeds: list[int]) -> None:
    """Draw AUC and calibration error of every variant on both data sets to docs/pu_evidence.png."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(VARIANTS)[::-1]
    figure, axes = plt.subplots(1, 4, figsize=(13, 6), sharey=True, layout="constrained")
    for i, part in enumerate(PARTS):
        of = {name: metrics(part, name, seeds_of(part, name, seeds)) for name in names}
        auc, ece = axes[2 * i : 2 * i + 2]
        for y, name in enumerate(names):
            colour = "tab:green" if name.startswith(UPPER) else "tab:blue"
            colour = "tab:red" if name.startswith("U negative") else colour
            auc.plot(interval(of[name]["resampled"][:, 0]), [y, y], color=colour, alpha=0.5)
            by_seed = of[name]["by_seed"]
            auc.plot(by_seed, [y] * len(by_seed), ".", color=colour, ms=3)
            auc.plot(of[name]["AUC"], y, "o", color=colour)
            ece.barh(y, of[name]["ECE"], color=colour, height=0.6)
        auc.axvline(of[UPPER]["AUC"], color="tab:green", lw=0.8, ls=":")
        auc.set_xlabel(f"test AUC, {part}")
        ece.set_xlabel(f"calibration error, {part}")
    axes[0].set_yticks(range(len(names)), names)
    figure.savefig(ROOT / "docs" / "pu_evidence.png", dpi=110)


if __name__ == "__main__":
    main()
