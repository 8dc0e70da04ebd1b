"""What picking costs: CPU seconds and memory a micrograph, ours and Topaz's, one after another.

    python -m benchmarks.picking_cost --checkpoints few.pt unet.pt --topaz topaz \
        --micrographs '../shared/data/empiar-10017/val/*.jpg' --diameter 108 --mrc
    python -m benchmarks.picking_cost --checkpoints few.pt --copies 50 500 \
        --micrographs '../shared/data/ribosome-10028/val/*.png' --diameter 56

Each way picks few micrographs and then many, links to the same files; every command is a process of
its own. What the many take more is what a micrograph takes, and the rest is the start. Memory is
the largest peak of a process: the two are alike where memory does not grow. Topaz: `preprocess` and
`extract` with its pretrained network, whose particles are some 14 px wide.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.common import ROOT, machine, new_parser, print_conditions, print_header, print_row
from picking.errors import UserError, run_script
from picking.inputs.paths import find_micrographs
from picking.micrographs.mrc import write_mrc
from picking.micrographs.reading import read_grey

TOPAZ_PARTICLE_PX = 14
# Starts a command and tells what it took. The kernel counts the memory of whoever starts a process
# as its own, and this one has torch.
LAUNCHER = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(child.pid, 0)
print(f"\\n[{used.ru_utime + used.ru_stime}, {used.ru_maxrss}]", file=sys.stderr)
sys.exit(status != 0)
"""
Commands = list[list[str]]


class Cost(NamedTuple):
    """Of some processes, one after another; the memory is that of the largest."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


def parse_args() -> argparse.Namespace:
    """Return the command line."""
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--micrographs", nargs="+", required=True)
    add("--diameter", type=float, required=True, help="of the particles, in px")
    add("--checkpoints", nargs="+", type=Path, required=True)
    add("--flags", default="", help="for pick_particles.py besides")
    add("--topaz", help="the command that starts Topaz, which takes no JPEGs: give --mrc")
    add("--mrc", action="store_true", help="write the micrographs as MRCs of 32 bits first")
    add("--copies", type=int, nargs=2, default=(2, 6), metavar=("FEW", "MANY"))
    return parser.parse_args()


def main() -> None:
    """Print a row for each way to pick."""
    args = parse_args()
    few, many = args.copies
    if few >= many:
        raise UserError(f"--copies {few} {many}: give a smaller number and a larger one")
    print_conditions({**machine(), "micrographs": f"{few} and {many}"})
    print_header(
        "way", "s a micrograph", "CPU s a micrograph", "CPU s to start", f"peak MiB of {few}",
        f"of {many}",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [*find_micrographs(args.micrographs).values()]
        if args.mrc:
            files = as_mrcs(files, folder)
        links = linked(files, folder / "links", many)
        ways = {str(path): ours for path in args.checkpoints}
        if args.topaz:
            ways[f"Topaz: {args.topaz}"] = topaz
        for n, (way, commands) in enumerate(ways.items()):
            costs = [cost(commands(args, way, links[:k], folder / f"{n}_{k}")) for k in (few, many)]
            seconds, cpu = ((costs[1][i] - costs[0][i]) / (many - few) for i in (0, 1))
            print_row(
                way, f"{seconds:.2f}", f"{cpu:.2f}", f"{costs[0].cpu_seconds - few * cpu:.1f}",
                *(f"{one.peak_mib:.0f}" for one in costs),
            )  # fmt: skip


def ours(args: argparse.Namespace, way: str, files: Sequence[Path], folder: Path) -> Commands:
    """Return the command that picks with a checkpoint."""
    return [[
        sys.executable, "pick_particles.py", "--checkpoint", way, "--micrographs",
        *map(str, files), "--diameter", f"{args.diameter:g}px", "--threshold", "0.5",
        "--output", str(folder), "--device", "cpu", *shlex.split(args.flags),
    ]]  # fmt: skip


def topaz(args: argparse.Namespace, way: str, files: Sequence[Path], folder: Path) -> Commands:
    """Return the two commands with which Topaz picks."""
    start, scale = shlex.split(args.topaz), max(1, round(args.diameter / TOPAZ_PARTICLE_PX))
    small = folder / "small"
    small.mkdir(parents=True)
    return [
        [*start, "preprocess", "-s", str(scale), "-o", f"{small}/", *map(str, files)],
        [
            *start, "extract", "-m", "resnet16_u64", "-r", str(round(args.diameter / 2 / scale)),
            "-x", str(scale), "-d", "-1", "-o", str(folder / "picks.txt"),
            *(str(small / f"{path.stem}.mrc") for path in files),
        ],
    ]  # fmt: skip


def cost(commands: Commands) -> Cost:
    """Run commands one after another; return what they take together."""
    started, cpu, peak = time.monotonic(), 0.0, 0.0
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-S", "-c", LAUNCHER, *command], cwd=ROOT, capture_output=True
        )
        said = done.stderr.decode(errors="replace")
        if done.returncode:
            raise UserError(f"{shlex.join(command[:4])} ... failed: {said[-500:]}")
        used = json.loads(said.splitlines()[-1])
        cpu, peak = cpu + used[0], max(peak, used[1] / 1024)
    return Cost(time.monotonic() - started, cpu, peak)


def as_mrcs(files: Sequence[Path], folder: Path) -> list[Path]:
    """Write micrographs as MRCs of 32-bit floats."""
    written = []
    for path in files:
        written.append(folder / f"{path.stem}.mrc")
        write_mrc(written[-1], read_grey(path), 1.0)
    return written


def linked(files: Sequence[Path], folder: Path, n: int) -> list[Path]:
    """Return ``n`` links to the files, over and over, each of a name of its own."""
    folder.mkdir()
    links = []
    for i in range(n):
        path = files[i % len(files)].resolve()
        links.append(folder / f"{i:05d}{path.suffix}")
        links[-1].symlink_to(path)
    return links


if __name__ == "__main__":
    run_script(main)
