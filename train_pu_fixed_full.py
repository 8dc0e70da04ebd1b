r"""Train a patch classifier on positive and unlabeled patches: nnPU risk and FixMatch consistency.

    python train_pu_fixed_full.py --config configs/pu_full_fixed.yaml --exp-name pu_full_fixed \
        --device cuda:0 --num-workers 8 --use-data-prior
    python train_pu_fixed_full.py ... --resume                  # goes on as if never stopped
    torchrun --nproc-per-node 4 train_pu_fixed_full.py ... --device cuda   # a process a GPU
    python train_pu_fixed_full.py --evaluate experiments/pu_full_fixed/checkpoints/best_model.pt \
        --data-dir data/cryotransformer_full_pu --split test --output test_metrics.json

Writes experiments/<exp-name>/; watch it with `tensorboard --logdir experiments/`.
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
    config = Path("configs/pu_full_fixed.yaml")
    add("--config", type=Path, default=config, help=f"default: {config}")
    add("--exp-name", default="pu_full_fixed", help="names the run's folder in --experiments-dir")
    add("--experiments-dir", type=Path, default=Path("experiments"), help="default: experiments")
    add("--data-dir", type=Path, help="patch store; default: data.dir of the config")
    add("--device", default="auto", help="cpu, cuda:0, ..., or auto for the best there is")
    add(
        "--num-workers",
        type=int,
        default=0,
        help="processes that read patches; 0 is fastest unless the store lies on a slow disk",
    )
    add(
        "--use-data-prior",
        action="store_true",
        help="where loss.prior is a number, take the data's fraction of positives instead (pool)",
    )
    add("--resume", action="store_true", help="go on with the run, if there is one")
    add(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change a config value, e.g. training.seed=1; repeatable",
    )
    add("--evaluate", type=Path, metavar="CHECKPOINT", help="only evaluate this best_model.pt")
    add("--split", default="test", choices=("train", "val", "test"), help="with --evaluate")
    add(
        "--output",
        type=Path,
        help="with --evaluate: file to write; default: evaluation_<split>.json beside CHECKPOINT",
    )
    return parser


def main() -> None:
    """Train and evaluate, or with --evaluate only evaluate."""
    args = argument_parser().parse_args()
    if args.num_workers < 0:
        raise UserError(f"--num-workers is {args.num_workers}: choose 0 or more")
    if args.evaluate and not args.data_dir:
        raise UserError("--evaluate needs --data-dir: name the patch store")
    if Path(args.exp_name).name != args.exp_name or args.exp_name in ("", ".."):
        raise UserError(f"--exp-name '{args.exp_name}' must be the name of a folder, not a path")

    from picking.pu_learning import run  # here: torch takes seconds, and --help needs none
    from picking.runs import distributed

    if args.evaluate:
        run.evaluate_checkpoint(args)
    else:
        run.run(args)
    distributed.end()


if __name__ == "__main__":
    run_script(main)
