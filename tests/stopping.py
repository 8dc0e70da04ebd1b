"""A script that is told to stop in the middle of something, in this process."""

import os
import signal
import sys
from types import SimpleNamespace

import pytest

from picking import errors
from picking.errors import run_script

WORDS = {signal.SIGTERM: ("terminated", 143), signal.SIGINT: ("interrupted", 130)}


def signal_at(patch, module, name, n, number, times=1):
    """Send this process a signal ``times`` times when the ``n``-th call of a function begins."""
    real, calls = getattr(module, name), []

    def signalled(*args, **kwargs):
        calls.append(name)
        for _ in range(times if len(calls) == n else 0):
            os.kill(os.getpid(), number)
        return real(*args, **kwargs)

    patch.setattr(module, name, signalled)


def leave(main, capsys):
    """Run a script's main to its end; return its exit status and what it says on stderr.

    A script that is stopped leaves by `os._exit`, which here is an exception like any other.
    """
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as left:
        patch.setattr(os, "_exit", sys.exit)
        for name, value in (("_asked", None), ("_held", False)):  # set back when it has left
            patch.setattr(errors, name, value)
        run_script(main)
    return SimpleNamespace(status=left.value.code, err=capsys.readouterr().err)
