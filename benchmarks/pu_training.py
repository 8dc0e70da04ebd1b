"""Train PU + FixMatch several times and print the table that stands in RESULTS.md.

    python -m benchmarks.pu_training                                    # the simulated default
    python -m benchmarks.pu_training --data-root ../shared/data/empiar-10017 \
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

from benchmarks.common import ROOT, new_parser, overrides, print_header, print_row

METRICS = ("auc", "ap", "precision", "recall", "f1", "specificity", "ece")


def main() -> None:
    """Run what is missing, then print a row a run and the mean over seeds."""
    parser = new_parser(__doc__)
    parser.add_argument("--data-root", type=Path, help="none: simulated micrographs")
    parser.add_argument("--config", type=Path, default=Path("configs/pu_quickstart.yaml"))
    parser.add_argument("--rules", nargs="+", default=["far"], choices=("far", "disjoint"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[42])
    args = parser.parse_args()

    print_header("negatives", "seed", "at", *METRICS, "criteria met", "min")
    for rule in args.rules:
        reports = [run(args, rule, seed) for seed in args.seeds]
        for seed, report in zip(args.seeds, reports, strict=True):
            met = [item["met"] for item in report["success_criteria"]]
            more = (f"{sum(met)} of {len(met)}", f"{report['train_seconds'] / 60:.1f}")
            print_row(rule, seed, "0.5", *cells(report["test"]), *more)
            at = report["test"]["at_val_threshold"]
            print_row(rule, seed, f"{at['threshold']:.3f}", *cells(at), "", "")
        if len(reports) > 1:
            tests = [report["test"] for report in reports]
            means = {name: statistics.mean(test[name] for test in tests) for name in METRICS}
            print_row(rule, "mean", "0.5", *cells(means), "", "")


def run(args: argparse.Namespace, rule: str, seed: int) -> dict:
    """Return results.json of one run, training it first where it is missing."""
    name = f"{args.config.stem}_{rule}_seed{seed}"
    command = ["./run_full_training.sh", "--config", args.config, "--exp-name", name]
    command += ["--data-root", args.data_root] if args.data_root else []
    command += ["--neg-rule", rule, "--", *overrides(f"training.seed={seed}")]
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=sys.stderr)
    return json.loads((ROOT / "experiments" / name / "results.json").read_text())


def cells(metrics: dict) -> list[str]:
    return [f"{metrics[name]:.3f}" if name in metrics else "" for name in METRICS]


if __name__ == "__main__":
    main()
