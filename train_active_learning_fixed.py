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
    config = Path("configs/active_learning.yaml")
    add("--config", type=Path, default=config, help=f"default: {config}; flags override it")
    add("--strategy", help="what chooses the images: random, uncertainty, ..., or full")
    add("--model", choices=("attention_unet", "unet"), help="default: model.name")
    add("--device", default="auto", help="cpu, cuda:0, ..., or auto for the best there is")
    add("--batch-size", type=int, help="images of a step; default: training.batch_size")
    add("--epochs", type=int, help="of each iteration; full: active_learning.full_epochs")
    add("--learning-rate", type=float, help="of an iteration's first step; default: optimizer.lr")
    add("--iterations", type=int, help="default: active_learning.iterations")
    add("--initial-fraction", type=float, help="fraction of the images labelled at the start")
    add("--query-fraction", type=float, help="fraction labelled after an iteration")
    add("--target-f1", type=float, help="to compare with; default: active_learning.target_f1")
    add("--seed", type=int, help="of everything random; default: training.seed")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--no-warmstart", action="store_true", help="train anew every iteration")
    start.add_argument(
        "--shrink-perturb",
        action="store_true",
        help="start from 0.4 x last + 0.1 x new weights",
    )
    for split in ("train", "val", "test"):
        add(f"--{split}-data-dir", metavar="DIR", help=f"{split} split of a segmentation store")
    runs = Path("experiments/active_learning_fixed")
    add("--output-dir", type=Path, default=runs, help=f"of all runs; default: {runs}")
    add("--run-name", help="folder in --output-dir; default: the strategy and what differs")
    add("--resume", action="store_true", help="go on with the run, if there is one")
    add(
        "--num-workers",
        type=int,
        default=0,
        help="processes that read images; default: 0, the fastest unless the disk is slow",
    )
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

    from picking.active_learning import run  # here: torch takes seconds, and --help needs none
    from picking.runs import distributed

    run.run(args)
    distributed.end()


if __name__ == "__main__":
    run_script(main)
