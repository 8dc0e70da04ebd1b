"""One way out of a script: a user's mistake is one sentence and exit status 2, no traceback."""

import errno
import io
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

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


class Terminated(BaseException):
    """SIGTERM arrived, as Slurm sends it before it kills a job; like Ctrl-C it is no error."""


STOPPED = (KeyboardInterrupt, Terminated)
LAST_WORDS = {
    signal.SIGINT: (f"interrupted: {KEPT}", 130),
    signal.SIGTERM: (f"terminated: {KEPT}", 143),
}
# A launcher passes on a SIGTERM that its whole process group may have got already.
ECHO_S = 2.0
AGAIN_S = 0.05

_held = False
_asked: tuple[int, float] | None = None  # the signal that came, and when
_first_to_say: Callable[[], bool] | None = None  # where several processes end together


def say_once(first: Callable[[], bool]) -> None:
    """Of several processes that end together, let only that say why for which ``first()`` holds."""
    global _first_to_say
    _first_to_say = first


def hold_stop() -> None:
    """From here on SIGTERM and Ctrl-C wait for `allow_stop`; a second one waits for nothing."""
    global _held
    _held = True


def allow_stop() -> None:
    """Raise one of `STOPPED` if it was asked for meanwhile, and from here on as soon as it is."""
    global _held
    _held = False
    if _asked is not None:
        _raise_stopped(_asked[0])


def _raise_stopped(number: int) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def _stop(number: int, frame: object) -> None:
    global _asked
    if _asked is not None:
        if number == signal.SIGTERM and time.monotonic() - _asked[1] < ECHO_S:
            return
        _leave_at_once(*LAST_WORDS[signal.Signals(number)])
    _asked = number, time.monotonic()
    # Workers that the same signal ended are no news: torch would raise it amid anything
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if not _held:
        _raise_stopped(number)


def _raise_again_if_lost(unraisable: Any) -> None:
    """Python's hook for what is raised where nobody can catch it, as in a finaliser.

    A stop that arrives amid one would be printed and forgotten, so it is raised again, soon after.
    """
    if isinstance(unraisable.exc_value, STOPPED):
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
    else:
        sys.__unraisablehook__(unraisable)


def _stop_again(number: int, frame: object) -> None:
    if _asked is not None and not _held:
        _raise_stopped(_asked[0])


def run_script(main: Callable[[], None]) -> NoReturn:
    """Run a script's ``main`` and leave with its exit status.

    0 when it returns, 2 after a `UserError` or a full or read-only disk, 130 after Ctrl-C and
    143 after SIGTERM. Any other exception is a defect of ours and keeps its traceback.
    """
    global _held, _asked
    _held, _asked = False, None
    for number in LAST_WORDS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as of what a shell runs in the background
            signal.signal(number, _stop)
    signal.signal(signal.SIGALRM, _stop_again)
    sys.unraisablehook = _raise_again_if_lost
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=PRINTS)
    try:
        try:
            main()
            sys.stdout.flush()
        except Exception:
            if _asked is not None:  # the stop, or what a library made of it
                _raise_stopped(_asked[0])
            raise
    except UserError as error:
        _leave(f"error: {error}", 2)
    except KeyboardInterrupt:
        _leave_at_once(*LAST_WORDS[signal.SIGINT])
    except Terminated:
        _leave_at_once(*LAST_WORDS[signal.SIGTERM])
    except RuntimeError:
        if _may_say():
            raise
        _leave("", 2)  # another process has said why it left, and this one only missed it
    except OSError as error:
        where = error.filename or "the output folder"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _leave(f"error: the disk is full at {where}: free some space and run again", 2)
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            _leave(f"error: no permission to use {where}: choose a folder you may write to", 2)
        if error.errno == errno.EFBIG:
            limit = "the largest file allowed there (see ulimit -f)"
            _leave(f"error: {where} is too large for {limit}: raise it or choose another folder", 2)
        raise
    sys.exit(0)


def _leave(message: str, status: int) -> NoReturn:
    hold_stop()  # a launcher ends the others as soon as one has left
    _say(message)
    sys.exit(status)


def _may_say() -> bool:
    return _first_to_say is None or _first_to_say()


def _say(message: str) -> None:
    """Print on stderr; a console that lies on the full disk too changes no exit status."""
    if not _may_say():
        return
    for console, text in ((sys.stdout, ""), (sys.stderr, message + "\n")):
        try:
            console.write(text)
            console.flush()
        except OSError:  # what is left in it goes nowhere, or Python fails once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), console.fileno())


def _leave_at_once(message: str, status: int) -> NoReturn:
    """Leave without waiting for threads or workers: a signal may have hit them amid anything.

    Nothing is lost by it, since files are kept as for a kill -9.
    """
    for worker in multiprocessing.active_children():
        worker.kill()  # else it may say at length that it misses its parent
    _say(message)
    os._exit(status)
