"""One way out of a script: a user's mistake is one sentence and exit status 2, no traceback."""

import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

KEPT = "what was saved is kept; the same command goes on from there (training: with --resume)"


LONGEST_MESSAGE = 1000  # characters
PRINTS = "backslashreplace"  # what cannot be encoded, so that no file's name ends a script


class UserError(Exception):
    """Something that the user can mend; the message says what, where and what to do.

    It is one line of text whatever stood in the file that it tells of: names and values are shown
    with what cannot be printed escaped, and the middle of what is endless is left out.
    """

    def __init__(self, message: str) -> None:
        line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message)
        if len(line) > LONGEST_MESSAGE:
            line = f"{line[: LONGEST_MESSAGE // 2]} ... {line[-LONGEST_MESSAGE // 3 :]}"
        super().__init__(line)


class Terminated(Exception):
    """SIGTERM arrived, as Slurm sends it before it kills a job."""


def _raise_terminated(signum: int, frame: object) -> NoReturn:
    raise Terminated


def run_script(main: Callable[[], None]) -> NoReturn:
    """Run a script's ``main`` and leave with its exit status.

    0 when it returns, 2 after a `UserError` or a full or read-only disk, 130 after Ctrl-C and
    143 after SIGTERM. Any other exception is a defect of ours and keeps its traceback.
    """
    signal.signal(signal.SIGTERM, _raise_terminated)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=PRINTS)
    try:
        main()
    except UserError as error:
        _leave(f"error: {error}", 2)
    except KeyboardInterrupt:
        _leave_at_once(f"interrupted: {KEPT}", 130)
    except Terminated:
        _leave_at_once(f"terminated: {KEPT}", 143)
    except OSError as error:
        where = error.filename or "the output folder"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _leave(f"error: the disk is full at {where}: free some space and run again", 2)
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            _leave(f"error: no permission to use {where}: choose a folder you may write to", 2)
        raise
    sys.exit(0)


def _leave(message: str, status: int) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(status)


def _leave_at_once(message: str, status: int) -> NoReturn:
    """Leave without waiting for threads or workers: a signal may have hit them amid anything.

    Nothing is lost by it, since files are kept as for a kill -9, and workers follow their parent.
    """
    print(message, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
