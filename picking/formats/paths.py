"""What a user names on the command line: micrographs, files of picks, a diameter.

Shared by what learns from picks and what picks.
"""

import argparse
import glob
import math
from collections.abc import Sequence
from pathlib import Path

from picking.errors import UserError
from picking.formats.micrographs import SUFFIXES

Paths = dict[str, Path]  # by file name
# What one of the two sources does not use
OF_DATA_SETS = ("splits", "hide_ratio", "neg_per_pos", "neg_rule", "annotated_margin", "top_up",
                "hard_negatives")  # fmt: skip
OF_PICKS = ("labels", "frame", "windows_per_micrograph", "diameter", "pixel_size",
            "expected_particles", "val_micrographs")  # fmt: skip


def as_number(text: str, otherwise: float) -> float:
    """Return the number that the text is, ``otherwise`` where it is none or not finite."""
    try:
        value = float(text)
    except ValueError:
        return otherwise
    return value if math.isfinite(value) else otherwise


def expand(patterns: Sequence[str]) -> list[Path]:
    """Return the files that patterns match, each once; raises for a pattern without any."""
    files: dict[Path, None] = {}
    for pattern in patterns:
        names = [pattern] if Path(pattern).is_file() else glob.glob(pattern, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute pattern)
        matches = [path for path in map(Path, sorted(names)) if path.is_file()]
        if not matches:
            folder = Path(pattern).parent
            there = sorted({path.suffix for path in folder.iterdir()}) if folder.is_dir() else []
            raise UserError(
                f"no file matches '{pattern}'; files in {folder} end in "
                f"{', '.join(there[:8]) or 'nothing, there is none'}: check folder and ending"
            )
        files.update(dict.fromkeys(matches))
    return list(files)


def find_micrographs(patterns: Sequence[str]) -> Paths:
    """Return file name -> path of the micrographs; no two may share the name without suffix."""
    files = expand(patterns)
    by_stem: Paths = {}
    for path in files:
        if path.suffix.lower() in SUFFIXES and by_stem.setdefault(path.stem, path) is not path:
            raise UserError(
                f"{path} and {by_stem[path.stem]} would have the same files of picks: give one of "
                "them, or pick them into two folders"
            )
    if files and not by_stem:
        raise UserError(
            f"{files[0]} is no micrograph: --micrographs takes files that end in "
            f"{', '.join(SUFFIXES)}"
        )
    return {path.name: path for path in by_stem.values()}


def diameter_in_px(
    text: str | None, pixel_size_angstrom: float | None, known_px: float | None = None
) -> float:
    """Return --diameter in px of the micrographs; without it ``known_px``, where that is known."""
    if text is None:
        if known_px is None:
            raise UserError("--diameter is missing: give the particles', such as 108px or 150A")
        return float(known_px)
    unit = next((unit for unit in ("px", "A", "Å") if text.endswith(unit)), "")
    value = as_number(text.removesuffix(unit), 0)
    if not unit or value <= 0:
        raise UserError(
            f"--diameter is '{text}': give a number with its unit, such as 108px or 150A"
        )
    if unit == "px":
        return value
    if pixel_size_angstrom is None or not 0 < pixel_size_angstrom < math.inf:
        raise UserError(f"--diameter {text} is in Å: give --pixel-size too, in Å per px")
    return value / pixel_size_angstrom


# A few picks instead of a data set


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
