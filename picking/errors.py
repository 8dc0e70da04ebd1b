"""One way out of a script: a user's mistake is one sentence and exit status 2, no traceback."""

import errno
import io
import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from typing import NoReturn, TextIO

KEPT = "what was saved is kept; the same command goes on from there (training: with --resume)"


MAX_FRACTION_LEFT_OUT = 0.1  # of what a user gives; above, something does not fit
ALLOW_PARTIAL = "go on although more than a tenth of what was given cannot be used"

LONGEST_MESSAGE = 1000  # characters
PRINTS = "backslashreplace"  # what cannot be encoded, so that no file's name ends a script


class UserError(Exception):
    """Something that the user can mend; the message says what, where and what to do.

    It is one line of text whatever stood in the file that it tells of: names and values are shown
    with what cannot be printed escaped, and the middle of what is endless is left out.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class LeftOut(UserError):
    """The work is done, but for the micrographs that the message names: exit status 3."""


class InputWarning(UserWarning):
    """Something about the input that the user should know, and that ends nothing."""


def warn(message: str) -> None:
    """Tell the user something about the input: what, where and what to do, once each.

    `run_script` prints it on stderr as one line, ``warning: ...``; tests catch it as a warning.
    """
    warnings.warn(InputWarning(one_line(message)), stacklevel=2)


def leave_out(n_left_out: int, n_all: int, message: str, allow_partial: bool) -> None:
    """Say that a part of what was given is not used; refuse when it is more than a tenth.

    message: a counted line with examples. Raises `UserError` unless ``allow_partial``.
    """
    if n_left_out > MAX_FRACTION_LEFT_OUT * n_all and not allow_partial:
        raise UserError(f"{message}: mend that, or go on without them with --allow-partial")
    if n_left_out:
        warn(message)


def one_line(message: str) -> str:
    """Return a message with what cannot be printed escaped, and of an endless one its ends."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message)
    if len(line) > LONGEST_MESSAGE:
        line = f"{line[: LONGEST_MESSAGE // 2]} ... {line[-LONGEST_MESSAGE // 3 :]}"
    return line


class Stopped(BaseException):
    """Ctrl-C or SIGTERM, as Slurm sends it before it kills a job, was noted; it is no error."""


LAST_WORDS = {
    signal.SIGINT: (f"interrupted: {KEPT}", 130),
    signal.SIGTERM: (f"terminated: {KEPT}", 143),
}
# A launcher passes on a SIGTERM that its whole process group may have got already.
ECHO_S = 2.0

_asked: tuple[signal.Signals, float] | None = None  # the signal that came, and when
_first_to_say: Callable[[], bool] | None = None  # where several processes end together


def end_together(first_to_say: Callable[[], bool]) -> None:
    """Have this process end as one of several: none of them waits for another any more.

    A signal ends it at once. Only the process for which ``first_to_say()`` is true prints why.
    """
    global _first_to_say
    _first_to_say = first_to_say


def raise_if_stopped() -> None:
    """Raise `Stopped` if Ctrl-C or SIGTERM came; call where nothing is half done."""
    if _asked is not None:
        raise Stopped(LAST_WORDS[_asked[0]][0])


def _note_stop(number: int, frame: object) -> None:
    """Handle a signal: the first is noted for `raise_if_stopped`, a second one ends the process."""
    global _asked
    now = time.monotonic()
    if _asked is None and _first_to_say is None:
        _asked = signal.Signals(number), now
    elif _asked is None or number != signal.SIGTERM or now - _asked[1] >= ECHO_S:
        _leave_at_once(*LAST_WORDS[signal.Signals(number)])


def run_script(main: Callable[[], None]) -> NoReturn:
    """Run a script's ``main`` and leave with its exit status.

    0 when it returns, 2 after a `UserError` or a full or read-only disk, 3 after `LeftOut`, 130
    after Ctrl-C and 143 after SIGTERM. Any other exception is a defect of ours and keeps its
    traceback.
    """
    global _asked
    _asked = None
    for number in LAST_WORDS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as of what a shell runs in the background
            signal.signal(number, _note_stop)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=PRINTS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("once", InputWarning)
            warnings.showwarning = _show_warning
            main()
        sys.stdout.flush()
        raise_if_stopped()  # else a launcher would go on with its next script
    except (Stopped, Exception) as error:
        if _asked is not None:  # workers may have died of the same signal: their errors are no news
            _leave_at_once(*LAST_WORDS[_asked[0]])
        sentence = sentence_of(error)
        if isinstance(error, LeftOut):
            _leave(f"warning: {sentence}", 3)
        if sentence is not None:
            _leave(f"error: {sentence}", 2)
        if isinstance(error, RuntimeError) and not _may_say():
            _leave("", 2)  # another process has said why it left, and this one only missed it
        raise
    sys.exit(0)


def sentence_of(error: BaseException) -> str | None:
    """Return what to tell the user of a stop or of what he can mend, None of a defect of ours."""
    if isinstance(error, (UserError, Stopped)):
        return str(error)
    if not isinstance(error, OSError):
        return None
    where = error.filename or "the output folder"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full at {where}: free some space and run again"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"no permission to use {where}: choose a folder you may write to"
    if error.errno == errno.ENAMETOOLONG:
        return f"{where} is longer than names of files may be there: choose a shorter one"
    if error.errno == errno.EFBIG:
        limit = "the largest file allowed there (see ulimit -f)"
        return f"{where} is too large for {limit}: raise it or choose another folder"
    return None


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as `warnings.showwarning` does, one of ours as a line that users can read."""
    if isinstance(message, InputWarning):
        _say(f"warning: {message}")
    else:
        _say(warnings.formatwarning(message, category, filename, lineno, line).rstrip())


def _leave(message: str, status: int) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it as soon as another has left
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
        except RuntimeError:  # a signal came amid another call that writes there
            pass


def _leave_at_once(message: str, status: int) -> NoReturn:
    """Leave without waiting for threads or workers; files are whole, as after a kill -9."""
    for worker in multiprocessing.active_children():
        worker.kill()  # else it may say at length that it misses its parent
    _say(message)
    os._exit(status)
