"""Kill every script at any moment, go on, and compare the end with a run that nobody killed.

    python -m tests.faults.kill --kills 200 --seed 0                     # some minutes
    python -m tests.faults.kill --kills 50 --stages "PU training, 0 workers" picking
    python -m tests.faults.kill --kills 50 --signal TERM --kinds call write time

A run is killed up to four times at moments of four kinds that are drawn from the seed:

- call: before the n-th of all calls of a Python function, or of one written in C
- write: before or after the n-th call that writes, flushes, renames, removes or makes a file
- torn: amid the n-th file that is written to be renamed, which is left half as long
- time: from outside, after a time; where there are workers sometimes they are killed with it

After each kill all files of a run and of picks must be whole, and a store must be unless it has no
metadata.json. In the end stores and picks must be the same byte for byte, weights and metrics
exactly, TensorBoard must show each epoch once, and no temporary file may be left. A SIGTERM or
Ctrl-C must end in 143 or 130 and in one line that says what is kept.
"""

import argparse
import io
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.faults.same import curves, differences, not_whole
from tests.faults.stages import Stage, all_stages, start, wait, write_inputs

KINDS = ("call", "write", "torn", "time")
# How a process ends by a signal, and with which word
ENDS = {
    signal.SIGKILL: (-9, ""),
    signal.SIGTERM: (143, "terminated: what was saved is kept"),
    signal.SIGINT: (130, "interrupted: what was saved is kept"),
}
MOST_KILLS = 4  # of a run
WRITERS = {
    "close", "fsync", "ftruncate", "mkdir", "posix_fallocate", "remove", "rename",
    "replace", "truncate", "unlink", "write",
}  # fmt: skip


class Extent(NamedTuple):
    """How much there is of each kind of moment in a run that nobody kills."""

    call: int
    write: int
    torn: int
    time: float


class Killing(NamedTuple):
    """How to kill."""

    number: signal.Signals
    kinds: list[str]
    rng: np.random.Generator


class Outcome(NamedTuple):
    """What a run came to that was killed again and again."""

    kinds: list[str]
    differing: list[str]
    torn: list[str]
    failed: list[str]


def writes(function: Callable) -> bool:
    """Return whether a function written in C changes a file."""
    if function.__name__ not in WRITERS:
        return False
    owner = getattr(function, "__self__", None)
    if isinstance(owner, io.IOBase):
        in_memory = isinstance(owner, (io.BytesIO, io.StringIO))
        return not in_memory and owner not in (sys.stdout, sys.stderr)
    return getattr(owner, "__name__", None) == "posix"


def watch(
    kind: str,
    n: int,
    after: bool,
    number: signal.Signals = signal.SIGKILL,
    note: Path | None = None,
) -> Callable[[], None]:
    """Return what makes a process send itself a signal at the ``n``-th moment of a kind.

    With ``note`` the numbers of moments that there are in all are written there.
    """

    def arm() -> None:
        main, seen, fsync = os.getpid(), Counter(), os.fsync

        def count(which: str) -> bool:
            seen[which] += 1
            return which == kind and seen[which] == n

        def die() -> None:
            os.kill(main, number)

        def profile(frame: object, event: str, function: Callable) -> None:
            if os.getpid() != main:  # a worker process
                sys.setprofile(None)
                return
            if event in ("call", "c_call") and count("call"):
                die()
            if event == ("c_return" if after else "c_call") and writes(function) and count("write"):
                die()

        def torn_fsync(descriptor: int) -> None:
            name = Path(f"/proc/self/fd/{descriptor}").readlink().name
            if os.getpid() == main and name.endswith(".tmp") and count("torn"):
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
                die()
            fsync(descriptor)

        def leave(status: int, exit_now: Callable[[int], None] = os._exit) -> None:
            sys.setprofile(None)
            if note and os.getpid() == main:
                note.write_text(f"{seen['call']} {seen['write']} {seen['torn']}")
            exit_now(status)

        os.fsync, os._exit = torn_fsync, leave
        sys.setprofile(profile)

    return arm


def attempt(stage: Stage, folder: Path, kind: str | None, extent: Extent, killing: Killing) -> int:
    """Start a stage and kill it at a moment that is drawn; return how it ended."""
    if kind is None:
        return wait(start(stage, folder, stage.resume))
    rng, number = killing.rng, killing.number
    if kind != "time":
        n, after = 1 + int(rng.integers(getattr(extent, kind))), bool(rng.integers(2))
        return wait(start(stage, folder, stage.resume, watch(kind, n, after, number)))
    seconds, group = rng.random() * extent.time, bool(stage.n_workers and rng.integers(2))
    pid = start(stage, folder, stage.resume)
    time.sleep(seconds)
    try:
        (os.killpg if group else os.kill)(pid, number)
    except ProcessLookupError:  # not yet the leader of a group
        os.kill(pid, number)
    return wait(pid)


def begin(stage: Stage, folder: Path) -> None:
    """Make the folder of outputs anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if stage.prepare:
        stage.prepare(folder)


def measure(stage: Stage, folder: Path, whole: Path) -> Extent:
    """Run a stage to its end twice; leave its outputs as ``whole``, return what there is of it."""
    note = folder.parent / "moments"
    for arm in (None, watch("none", 0, False, note=note)):
        begin(stage, folder)
        started = time.monotonic()
        status = wait(start(stage, folder, arm=arm))
        seconds = time.monotonic() - started
        if status or not_whole(folder, finished=True):
            raise SystemExit(f"exit {status}:\n{(folder / 'console').read_text()}")
        if arm is None:
            shutil.rmtree(whole, ignore_errors=True)
            folder.rename(whole)
            usual = seconds
    if differing := differences(folder, whole):
        raise SystemExit(f"two runs that nobody killed differ: {', '.join(differing)}")
    return Extent(*map(int, note.read_text().split()), usual)


def run_killed(
    stage: Stage, folder: Path, whole: Path, extent: Extent, n_kills: int, killing: Killing
) -> Outcome:
    """Run a stage, kill it up to ``n_kills`` times, go on each time, and look at what comes out."""
    begin(stage, folder)
    kinds, torn, failed = [], [], []
    wanted = [kind for kind in killing.rng.permutation(killing.kinds) if getattr(extent, kind)]
    expected, words = ENDS[killing.number]
    n_said = 0
    while True:
        kind = wanted[len(kinds) % len(wanted)] if len(kinds) < n_kills else None
        status = attempt(stage, folder, kind, extent, killing)
        if status not in (expected, -killing.number):  # minus: before it could heed signals
            break
        kinds.append(kind)
        n_said += status == expected
        torn += not_whole(folder, finished=False)
    console = (folder / "console").read_text()
    if status or "Traceback" in console:
        place = max(0, console.find("Traceback") - 200)
        failed.append(f"exit {status}: {console[place:][:2000]}")
    if words and console.count(words) != n_said:
        failed.append(f"'{words}' stands {console.count(words)} times, not {n_said}")
    if curves(folder) != curves(whole):
        failed.append(f"TensorBoard shows {curves(folder)}, not {curves(whole)}")
    torn += not_whole(folder, finished=True)
    return Outcome(kinds, differences(folder, whole), torn, failed)


def kill_all(args: argparse.Namespace, folder: Path) -> bool:
    """Kill every stage in turn, print a table, and return whether nothing was lost."""
    (folder / "inputs").mkdir()
    write_inputs(folder / "inputs")
    out, whole = folder / "out", folder / "whole"
    stages = all_stages(folder / "inputs", out)
    if unknown := {*args.stages} - {*stages}:
        raise SystemExit(f"no such stage: {unknown}; there are: {', '.join(stages)}")
    names = args.stages or list(stages)
    columns = ("runs", "kills", *args.kinds, "differences", "half written", "failed")
    total: Counter = Counter()

    def print_row(name: str, row: Mapping) -> None:
        print(f"{name:<28}" + "".join(f"{row[column]:>13}" for column in columns), flush=True)

    print_row("stage", {column: column for column in columns})
    for i, name in enumerate(names):
        rng = np.random.default_rng([args.seed, list(stages).index(name)])
        killing = Killing(signal.Signals[f"SIG{args.signal}"], args.kinds, rng)
        quota = args.kills * (i + 1) // len(names) - args.kills * i // len(names)
        extent, row, said = measure(stages[name], out, whole), Counter(), []
        while row["kills"] < quota:
            most = min(quota - row["kills"], 1 + int(rng.integers(MOST_KILLS)))
            outcome = run_killed(stages[name], out, whole, extent, most, killing)
            row.update(outcome.kinds)
            row.update(runs=1, kills=len(outcome.kinds), failed=len(outcome.failed))
            row.update({"differences": len(outcome.differing), "half written": len(outcome.torn)})
            said += [*outcome.differing, *outcome.torn, *outcome.failed]
        print_row(name, row)
        for words in said:
            print(f"  {words}", flush=True)
        total += row
    print_row("all", total)
    return not any(total[column] for column in columns[-3:])


def main() -> None:
    """Read the command line, kill, and leave with 1 where anything was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--kills", type=int, default=100)
    add("--seed", type=int, default=0)
    add("--signal", choices=("KILL", "TERM", "INT"), default="KILL")
    add("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of moments; default: all")
    add("--stages", nargs="+", default=[], help="default: all there are")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(0 if kill_all(args, Path(folder)) else 1)


if __name__ == "__main__":
    main()
