"""Command line of preprocessing, a data set or a few picks of one's own, and a store's settings."""

import argparse
import math
from pathlib import Path

from picking.errors import UserError
from picking.formats.coco import may_be_coco
from picking.formats.coordinates import KINDS
from picking.inputs.annotations import SPLITS
from picking.inputs.diameters import require_lengths
from picking.inputs.labels_folder import (
    LabelsContent,
    complete_names,
    is_labels_folder,
    read_labels_folder,
)
from picking.preprocessing.few_picks import Beside
from picking.preprocessing.metadata import Settings
from picking.preprocessing.negatives import RULES
from picking.preprocessing.patch_plan import PatchSettings
from picking.preprocessing.windows.plan import WINDOW_PX
from picking.preprocessing.windows.settings import WindowSettings
from picking.stores.masks import RESIZES, MaskSettings

PATCH_SIZE_PX = 128

# What only one of the two sources uses
OF_DATA_SETS = ("splits", "hide_ratio", "neg_per_pos", "neg_rule", "annotated_margin", "top_up",
                "hard_negatives")  # fmt: skip
OF_PICKS = ("labels", "frame", "windows_per_micrograph", "diameter", "pixel_size",
            "expected_particles", "val_micrographs", "not_particles", "junk",
            "complete")  # fmt: skip
RANGES = {
    "patch_size": (8, math.inf), "hide_ratio": (0, 1), "neg_per_pos": (0, 100),
    "hard_negatives": (0, 1), "seg_size": (16, math.inf), "seg_disk": (0.1, 1),
    "seg_tiles": (1, math.inf), "windows_per_micrograph": (1, math.inf),
    "num_workers": (0, math.inf), **{f"max_images_{split}": (1, math.inf) for split in SPLITS},
}  # fmt: skip


def add_patch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of patches."""
    add = parser.add_argument_group("patches").add_argument
    add(
        "--patch-size",
        type=int,
        help=f"side of a patch in px of the micrograph, default {PATCH_SIZE_PX}; of a window in px "
        f"after scaling, default {WINDOW_PX}",
    )
    add("--hide-ratio", type=float, default=0.3, help="fraction of the positives that is hidden "
        "among the unlabeled")  # fmt: skip
    add("--neg-per-pos", type=float, default=1.0, help="negatives wanted per particle")
    add(
        "--neg-rule",
        choices=RULES,
        default="far",
        help="far: max(patch, 1.5 mean diameters) from every particle; disjoint: the patch meets "
        "no particle",
    )
    add(
        "--annotated-margin",
        default="auto",
        metavar="PX|auto",
        help="draw no negative this near to an edge, where annotators list no particle; auto: the "
        "largest margin that no centre in train enters (of the first split, in a store without "
        "train)",
    )
    add("--top-up", action="store_true", help="draw missing negatives from other micrographs")
    add(
        "--hard-negatives",
        type=float,
        nargs="?",
        const=0.25,
        default=0.0,
        metavar="FRACTION",
        help="in train, this fraction of the negatives is just off a particle or looks unusual "
        "(ice, carbon edge); 0.25 when none is given",
    )


def add_mask_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of images with masks."""
    add = parser.add_argument_group("segmentation").add_argument
    add("--seg-size", type=int, default=768, help="side of an image, in px")
    add(
        "--resize",
        choices=RESIZES,
        default="stretch",
        help="stretch: each axis fills the square; pad: one scale for both, the rest is ignored",
    )
    add(
        "--seg-tiles",
        type=int,
        default=1,
        metavar="N",
        help="cut each micrograph into N x N images of --seg-size; 1: the whole is one image",
    )
    add(
        "--seg-disk",
        type=float,
        default=1.0,
        metavar="FRACTION",
        help="diameter of the disks in masks, in diameters of the particle; 0.6 keeps particles "
        "that touch apart, which helps picking",
    )
    add(
        "--seg-ignore-margin",
        action="store_true",
        help="masks ignore what lies within the annotated margin, where particles are not listed",
    )


def add_pick_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of micrographs with a few picks."""
    group = parser.add_argument_group("instead of --data-root, a few picks of one's own")
    add = group.add_argument
    add(
        "--micrographs",
        nargs="+",
        metavar="FILE",
        help="files, a quoted 'dir/*.mrc', or a list: micrographs_ctf.star, exposures.cs",
    )
    add(
        "--labels",
        nargs="+",
        metavar="FILE",
        help=f"picks: {KINDS}; or one folder of the labelling page, which says all else too",
    )
    add(
        "--not-particles",
        nargs="+",
        metavar="FILE",
        help="places that are no particle, such as false picks: files as for --labels",
    )
    add(
        "--junk",
        type=Path,
        metavar="DIR",
        help="masks of junk, where nothing is learned: <stem>.png for a micrograph, 8-bit, not 0 "
        "on junk, of any scale, its top row at the top of the micrograph",
    )
    add(
        "--complete",
        type=Path,
        metavar="FILE",
        help="names of micrographs on which every particle is picked, one a line, or a CSV: what "
        "is near no pick there is no particle",
    )
    add(
        "--frame",
        choices=("jpeg", "mrc"),
        help="y axis of the --labels and --not-particles files: jpeg = from the top, mrc = from "
        "the file's first row; default: by format",
    )
    add(
        "--unlabeled",
        choices=("windows",),
        default="windows",
        help="what is not labelled: windows anywhere on the micrographs, the only choice",
    )
    add(
        "--windows-per-micrograph",
        type=int,
        default=500,
        metavar="N",
        help="unlabeled windows drawn from each; default: 500",
    )
    add("--diameter", help="of the particles, in px of the micrograph or in Å: 108px, 150A")
    add("--pixel-size", type=float, metavar="Å", help="of the micrographs; default: their headers'")
    add(
        "--expected-particles",
        type=float,
        metavar="N",
        help="particles on a micrograph, about; without it training estimates the fraction of "
        "positives",
    )
    add(
        "--val-micrographs",
        nargs="+",
        metavar="FILE",
        help="those to choose the checkpoint on; default: a fifth of those with picks",
    )


def complete(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Check the arguments and set ``patch_size`` and ``beside``, which follow from others.

    Where --labels is a folder of labels, what it says is put in place of what was not given. Raises
    `UserError` for the first that does not fit.
    """
    args.session, folder = None, None
    if args.labels and is_labels_folder(args.labels) and not args.data_root:
        folder = _take_from_folder(args)
    lacking = [flag for flag in ("--labels", "--diameter") if not getattr(args, flag[2:])]
    foreign = OF_DATA_SETS if args.micrographs else OF_PICKS
    idle = [name for name in foreign if getattr(args, name) != parser.get_default(name)]
    if args.patch_size is None:
        args.patch_size = WINDOW_PX if args.micrographs else PATCH_SIZE_PX
    margin = args.annotated_margin
    for valid, message in (
        (
            (args.data_root is None) != (args.micrographs is None),
            "give --data-root, a data set, or --micrographs with --labels, picks of your own",
        ),
        (
            not idle,
            f"{_flag(idle[0]) if idle else ''} has no meaning with "
            f"{'--micrographs' if args.micrographs else '--data-root'}: leave it out",
        ),
        (
            args.category is None or args.data_root or may_be_coco(args.labels or []),
            f"--category {args.category} chooses in COCO JSON, and no such file is given",
        ),
        (not args.micrographs or not lacking, f"--micrographs needs {' and '.join(lacking)} too"),
        (
            not args.micrographs or args.tasks == ["patches"],
            "picks of some particles make no masks: leave --tasks segmentation out",
        ),
        (
            args.expected_particles is None or 0 < args.expected_particles < math.inf,
            f"--expected-particles is {args.expected_particles}: give the number of all particles "
            "on one micrograph, about",
        ),
        (args.hide_ratio != 1, "--hide-ratio is 1: leave some positives labelled"),
        (
            margin == "auto" or margin.isdecimal(),
            f"--annotated-margin is '{margin}': give whole px or 'auto'",
        ),
    ):
        if not valid:
            raise UserError(message)
    for name, (low, high) in RANGES.items():
        value = getattr(args, name)
        if value is not None and not low <= value <= high:
            choice = f"{low} or more" if high == math.inf else f"{low} to {high}"
            raise UserError(f"{_flag(name)} is {value}: choose {choice}")
    if not args.micrographs:
        return
    require_lengths(args.diameter, args.pixel_size)
    of_folder = folder.complete if folder else ()
    args.beside = Beside(
        not_particles=args.not_particles or (),
        junk=args.junk,
        complete=complete_names(args.complete) if args.complete else of_folder,
        left_out=folder.left_out if folder else (),
    )


def settings_of(args: argparse.Namespace, task: str, margin_px: int = 0) -> Settings:
    """Return what decides a store's rows; margin_px: at a micrograph's edges, not annotated."""
    if task == "segmentation":
        return MaskSettings(
            side_px=args.seg_size,
            resize=args.resize,
            tiles=args.seg_tiles,
            margin_px=margin_px if args.seg_ignore_margin else 0,
            disk=args.seg_disk,
            # By the tasks asked for, not those left, so that an interrupted run ends the same
            reduced="patches" not in args.tasks,
        )
    if args.micrographs:
        return WindowSettings(
            window_px=args.patch_size,
            diameter_px=args.diameter_px,
            per_micrograph=args.windows_per_micrograph,
            expected_particles=args.expected_particles,
            seed=args.seed,
            own_px=args.own_px,
            pixel_size_angstrom=args.diameter_at,
        )
    return PatchSettings(
        patch_size_px=args.patch_size,
        hide_ratio=args.hide_ratio,
        neg_per_pos=args.neg_per_pos,
        seed=args.seed,
        neg_rule=args.neg_rule,
        margin_px=margin_px,
        top_up=args.top_up,
        hard_fraction=args.hard_negatives,
    )


def _take_from_folder(args: argparse.Namespace) -> LabelsContent:
    """Read the folder of labels that --labels is; what it says is put where nothing was given."""
    folder = read_labels_folder(Path(args.labels[0]))
    args.labels = [str(folder.picks)]
    if args.micrographs is None:
        args.micrographs, args.session = list(folder.micrographs), folder.session
    args.diameter = args.diameter or folder.diameter
    args.pixel_size = folder.pixel_size if args.pixel_size is None else args.pixel_size
    args.junk = args.junk or folder.junk
    if args.not_particles is None and folder.not_particles:
        args.not_particles = [str(folder.not_particles)]
    return folder


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
