"""How a job ends, in files that RELION looks for, and how it is stopped amid a program's run."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from picking.errors import Stopped, raise_if_stopped

ABORT_NOW = "RELION_JOB_ABORT_NOW"  # RELION's request
SUCCESS, FAILURE, ABORTED = (f"RELION_JOB_EXIT_{how}" for how in ("SUCCESS", "FAILURE", "ABORTED"))
LOOK_S = 1.0  # how often
PATIENCE_S = 30.0  # with a program that was asked to end: training saves its state first


def begin(job: Path) -> None:
    """Remove how the job ended before."""
    for name in (SUCCESS, FAILURE, ABORTED):
        (job / name).unlink(missing_ok=True)


def end(job: Path, how: str) -> None:
    """Leave the file that says how the job ended; an abort that was asked for is answered."""
    if how == ABORTED:
        (job / ABORT_NOW).unlink(missing_ok=True)
    (job / how).touch()


def run(command: Sequence[str], job: Path, n_threads: int) -> int:
    """Run a program that prints where we do, and return its exit status.

    Raises `Stopped` where RELION asks to abort the job or this process is told to end; the program
    is then ended as by SIGTERM, after which the same command goes on.
    """
    environment = {
        **os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(n_threads),
    }  # fmt: skip
    child = subprocess.Popen(command, env=environment)
    try:
        while True:
            try:
                return child.wait(LOOK_S)
            except subprocess.TimeoutExpired:
                raise_if_asked(job)
    finally:
        _end(child)


def raise_if_asked(job: Path) -> None:
    """Raise `Stopped` where RELION asks to abort the job, or this process is told to end."""
    raise_if_stopped()
    if (job / ABORT_NOW).exists():
        raise Stopped("RELION asked to abort: what was saved is kept; continuing the job goes on")


def _end(child: subprocess.Popen) -> None:
    for ask in (child.terminate, child.terminate, child.kill):  # the second one ends it at once
        if child.poll() is None:
            ask()
            try:
                child.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                continue
