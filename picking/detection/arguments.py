"""Command line of picking: what is picked, how it is written, and against what it is held."""

import argparse
import math
from pathlib import Path

from picking.errors import ALLOW_PARTIAL, UserError
from picking.formats.coco import CATEGORY, may_be_coco
from picking.formats.coordinates import FORMATS, KINDS
from picking.inputs.diameters import (
    as_number,
    require_lengths,
)


def argument_parser(description: str) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--checkpoint",
        type=Path,
        help="best_model.pt of a run: classifier or U-Net; general: that of the project",
    )
    add(
        "--micrographs",
        nargs="+",
        metavar="FILE",
        help="files, a quoted 'dir/*.mrc', or a list: micrographs_ctf.star, exposures.cs",
    )
    add("--output", type=Path, help="a new folder")
    add("--diameter", help="of the particles, in px of the micrograph or in Å: 108px, 150A")
    add("--pixel-size", type=float, metavar="Å", help="of the micrographs; default: their headers'")
    add(
        "--invert",
        action="store_true",
        help="particles are white here and dark where the network learned, or the reverse",
    )
    add(
        "--keep-junk",
        action="store_true",
        help="pick also where carbon, ice or aggregates are seen",
    )
    add(
        "--junk",
        type=Path,
        metavar="DIR",
        help="masks of junk, where nothing is picked: <stem>.png for a micrograph, 8-bit, not 0 on "
        "junk, of any scale, its top row at the top of the micrograph; data/labels/junk",
    )
    add(
        "--threshold",
        metavar="0..1|auto",
        help="lowest score of a pick; auto, the default: the checkpoint's, with --picks all; after "
        "--resume, that of before, and auto finds it anew",
    )
    add("--formats", nargs="+", choices=FORMATS, default=["star"], help="default: star")
    add(
        "--output-frame",
        choices=("jpeg", "mrc"),
        help="y axis of the files that are written, where a program has the micrographs upside "
        "down; default: by format",
    )
    add(
        "--box",
        type=int,
        metavar="PX",
        help="write no pick about which a box of so many px would cross an edge",
    )
    add("--one-file", action="store_true", help="all micrographs in one; not BOX, CBOX; cs: always")
    add("--overlay", action="store_true", help="PNG of each micrograph with its picks")
    add("--heatmap", action="store_true", help="PNG of each micrograph's scores")
    add("--device", default="auto", help="cpu, cuda:0, ..., or auto for the best there is")
    add(
        "--num-workers",
        type=int,
        default=0,
        metavar="N",
        help="processes that pick on the CPU, a micrograph and a core each; the result is the same",
    )
    add("--resume", action="store_true", help="go on in --output; what is done stays")
    add(
        "--choose-threshold",
        nargs="+",
        metavar="TRUTH",
        help="true particles: find the threshold with the highest F1 and save it beside the "
        "checkpoint",
    )
    add("--precision", type=float, help="with --choose-threshold: the lowest with this precision")
    add(
        "--expected-particles",
        type=float,
        metavar="N",
        help="where there is no truth: pick N a micrograph on average; without --output, keep the "
        "threshold that does beside the checkpoint",
    )
    add("--evaluate", nargs="+", metavar="TRUTH", help=f"true particles: {KINDS}")
    add("--picks", nargs="+", metavar="FILE", help="evaluate these, of any such format")
    add(
        "--annotated-margin",
        default="auto",
        metavar="PX|auto",
        help="with TRUTH: ignore picks and particles within PX of an edge; auto: as wide as "
        "possible without losing a true particle, up to a diameter",
    )
    add(
        "--frame",
        choices=("jpeg", "mrc"),
        help="y axis of the --picks files: jpeg = from the top, mrc = from the file's first row; "
        "default: by format",
    )
    add("--truth-frame", choices=("jpeg", "mrc"), help="the same of the TRUTH files")
    add("--strict", action="store_true", help="end at the first micrograph that cannot be picked")
    add("--category", metavar="NAME", help=CATEGORY)
    add("--allow-partial", action="store_true", help=ALLOW_PARTIAL)
    return parser


def parse_args(description: str) -> argparse.Namespace:
    """Return the checked command line.

    margin_px is None for auto; keeps_threshold says whether that of picks that are there is kept.
    """
    args = argument_parser(description).parse_args()
    args.keeps_threshold = args.resume and args.threshold is None
    args.threshold = threshold = "auto" if args.threshold is None else args.threshold
    margin = args.annotated_margin
    lowest, highest = (-math.inf, math.inf) if args.picks else (0, 1)  # others' scores are any
    truth = (args.evaluate or []) + (args.choose_threshold or [])
    for valid, message in (
        (
            args.picks or (args.checkpoint and args.micrographs),
            "give --checkpoint and --micrographs to pick, or --evaluate and --picks",
        ),
        (not (args.picks and args.checkpoint), "give --checkpoint or --picks, not both"),
        (not (args.picks and args.invert), "--invert is for picking: leave it out with --picks"),
        (not (args.picks and args.junk), "--junk is for picking: leave it out with --picks"),
        (args.evaluate or not args.picks, "--picks needs --evaluate with the true particles"),
        (
            args.output or args.picks or args.choose_threshold or args.expected_particles,
            "--output is missing: name a new folder for the picks",
        ),
        (
            not (args.choose_threshold or args.expected_particles)
            or not (args.evaluate or args.picks or (args.choose_threshold and args.output)),
            "a threshold is chosen first: pick and --evaluate after it, with --resume",
        ),
        (
            args.expected_particles is None
            or (0 < args.expected_particles < math.inf and not args.choose_threshold),
            "--expected-particles is above 0 and goes without --choose-threshold",
        ),
        (
            args.expected_particles is None or args.threshold == "auto",
            "--expected-particles finds the threshold: leave --threshold out",
        ),
        (
            args.precision is None or (args.choose_threshold and 0 < args.precision <= 1),
            "--precision goes with --choose-threshold and is above 0, up to 1",
        ),
        (
            threshold == "auto" or lowest <= as_number(threshold, math.nan) <= highest,
            f"--threshold is '{threshold}': give a number"
            + (", or auto" if args.picks else " from 0 to 1, or auto"),
        ),
        (
            args.category is None or may_be_coco(truth + (args.picks or [])),
            f"--category {args.category} chooses in COCO JSON, and no such file is given",
        ),
        (
            not args.picks or (args.box is None and args.output_frame is None),
            "--box and --output-frame are of picks that are written, not of --picks",
        ),
        (args.num_workers >= 0, f"--num-workers is {args.num_workers}: choose 0 or more"),
        (args.box is None or args.box > 0, f"--box is {args.box}: give px, such as 128"),
        (
            margin == "auto" or margin.isdecimal(),
            f"--annotated-margin is '{margin}': give whole px or 'auto'",
        ),
    ):
        if not valid:
            raise UserError(message)
    args.margin_px = None if margin == "auto" else int(margin)
    require_lengths(args.diameter, args.pixel_size)
    return args
