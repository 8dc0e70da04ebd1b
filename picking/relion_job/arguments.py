"""What RELION calls a job with: its own arguments, and labels with values as a user typed them."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from picking.errors import UserError, warn
from picking.files import make_folder
from picking.relion_job.pipeline import VERSIONS

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "pu_from_general.yaml"
NOT_USED = ("in_movies", "in_3dref", "in_mask")
YES = {"": True, "yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def job_folder(argv: Sequence[str]) -> Path:
    """Return the job's folder, made where it is not there; raises `UserError` without one."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--o", type=Path)
    job = parser.parse_known_args(as_ours(argv))[0].o
    if job is None:
        raise UserError("--o is missing: RELION gives the job's folder, External/job005/")
    make_folder(job)
    return job


def as_ours(argv: Sequence[str]) -> list[str]:
    """Return arguments with the names of flags as we spell them: --Pixel-Size is --pixel_size."""
    ours = []
    for one in argv:
        if one.startswith("--"):
            name, equals, value = one.partition("=")
            one = f"--{name.strip('-').replace('-', '_').lower()}{equals}{value}"
        ours.append(one)
    return ours


def parse_args(argv: Sequence[str], description: str | None) -> argparse.Namespace:
    """Return the checked arguments; ``labels`` are the files of picks to learn from.

    Raises `UserError` for what does not fit.
    """
    parser = _Parser(
        description=description, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument_group("given by RELION").add_argument
    add("--o", type=Path, required=True, metavar="External/job005/", help="the job's folder")
    add("--in_mics", type=Path, metavar="STAR", help="micrographs")
    add("--in_coords", type=Path, metavar="STAR", help="picks to learn from")
    add("--in_parts", type=Path, metavar="STAR", help="particles to learn from")
    for name in NOT_USED:
        add(f"--{name}", metavar="FILE", help="not used")
    add("--j", type=int, default=1, metavar="N", help="threads")
    add("--pipeline_control", metavar="FOLDER", help="the job's folder once more")
    add = parser.add_argument_group("labels, with a value each").add_argument
    add(
        "--checkpoint",
        type=Path,
        help="best_model.pt of a network, or general; without, one is trained here",
    )
    add("--diameter", help="of the particles: 150A, or 108px of the micrographs")
    add("--expected_particles", type=float, metavar="N", help="on a micrograph, about")
    add("--threshold", default="auto", help="lowest score of a pick, 0 to 1; auto: the network's")
    add("--pixel_size", type=float, metavar="Å", help="default: what the list of micrographs says")
    add("--box", type=int, metavar="PX", help="leave out picks whose box would cross an edge")
    add("--device", help="cpu, cuda:0, ...; default: the best there is")
    add("--junk", type=Path, metavar="DIR", help="masks of junk, see pick_particles.py")
    add("--frame", choices=("jpeg", "mrc"), help="y axis of the picks to learn from; default: mrc")
    add("--config", type=Path, default=CONFIG, help=f"of training; default: {CONFIG.name}")
    add("--relion_version", choices=VERSIONS, help="default: found out")
    for name in ("invert", "keep_junk", "strict", "allow_partial"):
        add(
            f"--{name}",
            nargs="?",
            const="yes",
            default="no",
            help="yes or no; see pick_particles.py",
        )
    args = parser.parse_args(as_ours(argv))
    args.labels = [path for path in (args.in_coords, args.in_parts) if path is not None]
    _check(args)
    for name in NOT_USED:
        if getattr(args, name) is not None:
            warn(f"--{name} {getattr(args, name)} is not used: micrographs are picked")
    return args


class _Parser(argparse.ArgumentParser):
    """One whose errors end the job like any other mistake."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(f"{message}: see relion_external.py --help")


def _check(args: argparse.Namespace) -> None:
    for name in ("invert", "keep_junk", "strict", "allow_partial"):
        value = getattr(args, name)
        if value.lower() not in YES:
            raise UserError(f"--{name} is '{value}': give yes or no")
        setattr(args, name, YES[value.lower()])
    expected = args.expected_particles
    for valid, message in (
        (
            args.in_mics is not None,
            "no micrographs: choose micrographs_ctf.star as 'Input micrographs' on the Input tab",
        ),
        (
            args.in_mics is None or args.in_mics.suffix.lower() == ".star",
            f"--in_mics is {args.in_mics}: give RELION's list, such as micrographs_ctf.star, in "
            "which it looks up picks",
        ),
        (
            args.checkpoint is not None or args.labels,
            "give what makes the picks: a label 'checkpoint', or picks to learn from as 'Input "
            "coordinates' or 'Input particles'",
        ),
        (
            args.checkpoint is None or not args.labels,
            f"give a checkpoint or picks to learn from ({[*args.labels, ''][0]}), not both",
        ),
        (
            args.checkpoint is not None or args.diameter is not None,
            "to learn from picks, give a label 'diameter' with a value like 150A",
        ),
        (
            args.checkpoint is not None or expected is not None or args.threshold != "auto",
            "to learn from picks, give a label 'expected_particles': about how many are on a "
            "micrograph",
        ),
        (
            expected is None or 0 < expected < math.inf,
            f"--expected_particles is {expected}: give a number above 0",
        ),
        (
            args.checkpoint is not None or not args.invert,
            "--invert is of a network that learned elsewhere: leave it out",
        ),
        (args.j > 0, f"--j is {args.j}: give 1 or more threads"),
    ):
        if not valid:
            raise UserError(message)


def deciding(args: argparse.Namespace) -> dict[str, object]:
    """Return what must not change when a job is continued."""
    names = ["checkpoint", "labels", "diameter", "pixel_size", "invert", "keep_junk", "junk"]
    if args.checkpoint is None:
        names += ["expected_particles", "config", "frame"]
    plain = {name: getattr(args, name) for name in names}
    plain["labels"] = [str(path) for path in args.labels]
    return {name: str(v) if isinstance(v, Path) else v for name, v in plain.items()}


def as_typed(name: str, value: object) -> str:
    """Return how to ask for a value of `deciding`, after "continue it"."""
    if name == "labels":
        given = isinstance(value, list) and ", ".join(map(str, value))
        what = "Input coordinates or Input particles"
        return f"with {given} as {what}" if given else f"without {what}"
    if value is None or value is False:
        return f"without --{name}"
    return f"with --{name} {'yes' if value is True else value}"


def flags(args: argparse.Namespace, *names: str) -> list[str]:
    """Return those of the arguments that were given as flags of our scripts."""
    found: list[str] = []
    for name in names:
        value = getattr(args, name)
        if value is not None and value is not False:
            found += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return found
