"""Command line of preprocessing: a data set, or micrographs with a few picks of one's own."""

import argparse

from picking.errors import UserError

# What only one of the two sources uses
OF_DATA_SETS = ("splits", "hide_ratio", "neg_per_pos", "neg_rule", "annotated_margin", "top_up",
                "hard_negatives")  # fmt: skip
OF_PICKS = ("labels", "frame", "windows_per_micrograph", "diameter", "pixel_size",
            "expected_particles", "val_micrographs")  # fmt: skip


def add_pick_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of micrographs with a few picks."""
    group = parser.add_argument_group("instead of --data-root, a few picks of one's own")
    add = group.add_argument
    add("--micrographs", nargs="+", metavar="FILE", help="files, or a quoted 'dir/*.mrc'")
    add("--labels", nargs="+", metavar="FILE", help="picks: STAR, BOX, CBOX, CSV or COCO")
    add("--frame", choices=("jpeg", "mrc"), help="of --labels, if not their format's")
    add(
        "--unlabeled",
        choices=("windows",),
        default="windows",
        help="what is not labelled: windows anywhere on the micrographs",
    )
    add("--windows-per-micrograph", type=int, default=500, metavar="N")
    add("--diameter", help="of the particles, in px of the micrograph or in Å: 108px, 150A")
    add("--pixel-size", type=float, metavar="Å", help="of the micrographs; needed with Å")
    add(
        "--expected-particles",
        type=float,
        metavar="N",
        help="particles on a micrograph, about; without it training estimates their share",
    )
    add(
        "--val-micrographs",
        nargs="+",
        metavar="FILE",
        help="those to choose the checkpoint on; default: a fifth of those with picks",
    )


def require_one_source(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Raise `UserError` unless the command names a data set, or micrographs with picks."""
    lacking = [
        flag
        for flag, given in (("--labels", args.labels), ("--diameter", args.diameter))
        if not given
    ]
    foreign = OF_DATA_SETS if args.micrographs else OF_PICKS
    idle = [name for name in foreign if getattr(args, name) != parser.get_default(name)]
    for valid, message in (
        (
            (args.data_root is None) != (args.micrographs is None),
            "give --data-root, a data set, or --micrographs with --labels, picks of your own",
        ),
        (
            not idle,
            f"--{'-'.join(idle[0].split('_')) if idle else ''} has no meaning with "
            f"{'--micrographs' if args.micrographs else '--data-root'}: leave it out",
        ),
        (not args.micrographs or not lacking, f"--micrographs needs {' and '.join(lacking)} too"),
        (
            not args.micrographs or args.tasks == ["patches"],
            "picks of some particles make no masks: leave --tasks segmentation out",
        ),
    ):
        if not valid:
            raise UserError(message)
