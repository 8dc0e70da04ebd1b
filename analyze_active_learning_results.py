"""Compare active-learning strategies: labels needed, labels saved, and whether 40% are enough.

    python analyze_active_learning_results.py
    python analyze_active_learning_results.py --target-f1 0.70 --minutes-per-image 5
    python analyze_active_learning_results.py --experiments-dir elsewhere --output-dir figures

Reads the runs in experiments/active_learning_fixed/ and writes active_learning_comparison.png,
data_efficiency.png and comparison_summary.json beside them. Works while runs go on: it takes the
complete iterations, and says what is missing.
"""

import argparse
import math
from pathlib import Path

from picking.errors import UserError, run_script
from picking.files import locked, remove_half_written, write_json


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--experiments-dir", type=Path, default=Path("experiments/active_learning_fixed"))
    add(
        "--target-f1",
        type=float,
        help="default: the mean F1 of the runs of --strategy full; without such runs, and on the "
        "5,172 images of the full data set, target_f1 of the runs' config.json",
    )
    add("--minutes-per-image", type=float, default=5.0, help="what labelling takes; default: 5")
    add("--output-dir", type=Path, help="default: --experiments-dir")
    return parser


def main() -> None:
    """Read the runs, compare them, print the tables, and write the pictures and the summary."""
    args = argument_parser().parse_args()
    if args.target_f1 is not None and not 0 < args.target_f1 <= 1:
        raise UserError(f"--target-f1 is {args.target_f1}: choose a number above 0, up to 1")
    if not 0 < args.minutes_per_image < math.inf:
        raise UserError(f"--minutes-per-image is {args.minutes_per_image}: choose a number above 0")
    output = args.output_dir or args.experiments_dir
    # Slow to import, so not before the arguments are known to be right
    from picking.active_learning.analysis.comparison import summarise
    from picking.active_learning.analysis.plots import draw_comparison, draw_efficiency
    from picking.active_learning.analysis.runs import read_runs
    from picking.active_learning.analysis.tables import report

    runs = read_runs(args.experiments_dir)
    summary = summarise(runs, args.target_f1, args.minutes_per_image)
    print(report(summary))

    with locked(output):
        remove_half_written(output)
        draw_comparison(summary, output / "active_learning_comparison.png")
        draw_efficiency(summary, output / "data_efficiency.png")
        write_json(output / "comparison_summary.json", summary)
    print("\nWrote active_learning_comparison.png, data_efficiency.png, comparison_summary.json")
    print(f"in {output}")


if __name__ == "__main__":
    run_script(main)
