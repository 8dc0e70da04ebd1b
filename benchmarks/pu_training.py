"""Train PU + FixMatch several times and print the table that stands in RESULTS.md.

    python benchmarks/pu_training.py                                    # the simulated default
    python benchmarks/pu_training.py --data-root ../shared/data/empiar-10017 \
        --config configs/pu_real_quick.yaml --rules far disjoint --seeds 0 1 2

Each row is one run of ./run_full_training.sh; finished ones are read, not run again. The seed is
that of training (initial weights, order, views); the patches are the same for all seeds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ("auc", "ap", "precision", "recall", "f1", "specificity", "ece")


def main() -> None:
    """Run what is missing, then print a row a run and the mean over seeds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, help="none: simulated micrographs")
    parser.add_argument("--config", type=Path, default=Path("configs/pu_quickstart.yaml"))
    parser.add_argument("--rules", nargs="+", default=["far"], choices=("far", "disjoint"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[42])
    args = parser.parse_args()

    print("| negatives | seed | at | " + " | ".join(FIGURES) + " | criteria met | min |")
    print("| --- " * (len(FIGURES) + 5) + "|")
    for rule in args.rules:
        reports = [run(args, rule, seed) for seed in args.seeds]
        for seed, report in zip(args.seeds, reports, strict=True):
            met = [item["met"] for item in report["success_criteria"]]
            cells = f"{sum(met)} of {len(met)} | {report['train_seconds'] / 60:.1f} |"
            print(row(rule, seed, "0.5", report["test"], cells))
            at = report["test"]["at_val_threshold"]
            print(row(rule, seed, f"{at['threshold']:.3f}", at, " | |"))
        if len(reports) > 1:
            means = {
                name: statistics.mean(report["test"][name] for report in reports)
                for name in FIGURES
            }
            print(row(rule, "mean", "0.5", means, " | |"))


def run(args: argparse.Namespace, rule: str, seed: int) -> dict:
    """Return results.json of one run, training it first where it is missing."""
    name = f"{args.config.stem}_{rule}_seed{seed}"
    command = ["./run_full_training.sh", "--config", str(args.config), "--exp-name", name]
    command += ["--neg-rule", rule]
    if args.data_root:
        command += ["--data-root", str(args.data_root)]
    command += ["--", "--set", f"training.seed={seed}"]
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=sys.stderr)
    return json.loads((ROOT / "experiments" / name / "results.json").read_text())


def row(rule: str, seed: object, at: str, figures: dict, rest: str) -> str:
    """Return a line of the table."""
    cells = [f"{figures[name]:.3f}" if name in figures else "" for name in FIGURES]
    return " | ".join([f"| {rule}", str(seed), at, *cells, rest])


if __name__ == "__main__":
    main()
