r"""Label particles in the browser: micrographs -> a page to click on -> labels to learn from.

    python label_particles.py --micrographs 'raw/*.mrc' --diameter 150A --pixel-size 1.77 \
        --output data/labels
    # later: the folder knows its micrographs
    python label_particles.py --output data/labels
    # what the page's Propose and Train do, by itself, as in a job of a cluster; the page shows its
    # progress
    python label_particles.py --output data/labels --propose
    python label_particles.py --output data/labels --train
    # go on with a round that was stopped; write picks: labels, and proposals above the threshold
    python label_particles.py --output data/labels --go-on 2
    python label_particles.py --output data/labels --export star box

It prints an address to open and, on a machine without windows, the ssh command that brings the page
to yours. Every click is on the disk at once, in events.jsonl; picks.star,
not_particles.star, junk/<micrograph>.png and micrographs.csv follow from these and are what the
other scripts read.
"""

import argparse
import math
from pathlib import Path

from picking.errors import ALLOW_PARTIAL, UserError, run_script
from picking.formats.coordinates import FORMATS


def parse_args() -> argparse.Namespace:
    """Return the checked command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, help="the folder of labels, a new one or an old one")
    add(
        "--micrographs",
        nargs="+",
        metavar="FILE",
        help="files, a quoted 'dir/*.mrc', or a list: micrographs_ctf.star, exposures.cs; default: "
        "those that the folder is of",
    )
    add("--diameter", help="of the particles, in px of the micrograph or in Å: 108px, 150A")
    add("--pixel-size", type=float, metavar="Å", help="of the micrographs; default: their headers'")
    add("--port", type=int, default=8765, help="default: 8765")
    add(
        "--host",
        default="127.0.0.1",
        help="what to listen on; default: 127.0.0.1, which other machines reach by ssh -L alone",
    )
    add("--allow-partial", action="store_true", help=ALLOW_PARTIAL)
    add("--propose", action="store_true", help="no page: propose by the network that comes along")
    add("--train", action="store_true", help="no page: learn from the labels, pick all, propose")
    add("--go-on", type=int, metavar="K", help="no page: run what is left of round K")
    add(
        "--expected-particles", type=float, metavar="N", help="with --train: on a micrograph, about"
    )
    add("--config", type=Path, help="of training; default: configs/pu_from_general.yaml")
    add(
        "--export", nargs="+", choices=FORMATS, help="no page: write the picks into <output>/export"
    )
    args = parser.parse_args()
    expected = args.expected_particles
    for valid, message in (
        (0 <= args.port <= 65535, f"--port is {args.port}: choose one from 1024 to 65535"),
        (
            sum((args.propose, args.train, args.go_on is not None, args.export is not None)) <= 1,
            "--propose, --train, --go-on and --export are done one after another: give one of them",
        ),
        (
            args.train or expected is None,
            "--expected-particles goes with --train; the page asks for it itself",
        ),
        (
            args.config is None or not (args.propose or args.go_on is not None or args.export),
            "--config is of training: it goes with --train, or with the page",
        ),
        (
            expected is None or 0 < expected < math.inf,
            f"--expected-particles is {expected}: give a number above 0",
        ),
    ):
        if not valid:
            raise UserError(message)
    return args


def main() -> None:
    """Serve the page until Ctrl-C, or do what it does without it."""
    args = parse_args()
    from picking.labelling import start

    if args.go_on is not None:
        start.go_on(args)
    elif args.propose or args.train:
        start.new_round(args)
    elif args.export:
        start.export_picks(args)
    else:
        start.serve_page(args)


if __name__ == "__main__":
    run_script(main)
