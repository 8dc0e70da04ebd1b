"""Active learning of a U-Net: train, let a strategy choose what to label next, train again.

    python train_active_learning_fixed.py --strategy uncertainty --device cuda:0
    python train_active_learning_fixed.py --strategy uncertainty --device cuda:0 --resume
    python train_active_learning_fixed.py --strategy full --model unet    # everything at once
    torchrun --nproc-per-node 4 train_active_learning_fixed.py ... --device cuda   # a process a GPU

Reads a segmentation store (preprocess_coco_full_dataset.py --tasks segmentation), writes
experiments/active_learning_fixed/<strategy>/; analyze_active_learning_results.py compares them.
"""

import argparse
from pathlib import Path

from picking.errors import UserError, run_script


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config", type=Path, default=Path("configs/active_learning.yaml"))
    add("--strategy", help="what chooses the images: random, uncertainty, ..., or full")
    add("--model", choices=("attention_unet", "unet"))
    add("--device", default="auto", help="cpu, cuda:0, ..., or auto for the best there is")
    add("--batch-size", type=int)
    add("--epochs", type=int, help="of each iteration; full: active_learning.full_epochs")
    add("--learning-rate", type=float)
    add("--iterations", type=int)
    add("--initial-fraction", type=float, help="fraction of the images labelled at the start")
    add("--query-fraction", type=float, help="fraction labelled after an iteration")
    add("--target-f1", type=float)
    add("--seed", type=int)
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--no-warmstart", action="store_true", help="train anew every iteration")
    start.add_argument(
        "--shrink-perturb",
        action="store_true",
        help="go on from the last weights, shrunk, plus a tenth of new ones",
    )
    for split in ("train", "val", "test"):
        add(f"--{split}-data-dir", metavar="DIR", help=f"{split} split of a segmentation store")
    add("--output-dir", type=Path, default=Path("experiments/active_learning_fixed"))
    add("--run-name", help="folder in --output-dir; default: the strategy and what differs")
    add("--resume", action="store_true", help="go on with the run, if there is one")
    add("--num-workers", type=int, default=0, help="processes that read images")
    add(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change a config value, e.g. model.width=32; repeatable",
    )
    return parser


def main() -> None:
    """Train, evaluate and query, iteration by iteration."""
    args = argument_parser().parse_args()
    if args.num_workers < 0:
        raise UserError(f"--num-workers is {args.num_workers}: choose 0 or more")

    from picking.active_learning import train  # here: torch takes seconds, and --help needs none

    train.run(args)


if __name__ == "__main__":
    run_script(main)
