"""What may come of bad input, and running cases by the thousand."""

import contextlib
import io
import re
import resource
import signal
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from picking.errors import PRINTS, LeftOut, UserError

MORE_MEMORY = 1 << 30  # bytes that one case may take
LONGEST_SENTENCE = 1200
HANGS_AFTER_S = 120  # of the run by hand; the suite knows no time limit
SUCCESS, REFUSAL = "success", "refusal"
COUNTS = re.compile(r"([\d,]+) (?:of [\d,]+|boxes of)")  # of what is left out, in warnings
ENDS = {SUCCESS, REFUSAL}  # all that bad input may end in


@contextlib.contextmanager
def bounded_memory():
    """Let the process grow by `MORE_MEMORY` at most: more is a MemoryError, not a full machine."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + MORE_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def outcome(call, names=()):
    """Call; return `SUCCESS`, or `REFUSAL` after one clear sentence. All else is a failure.

    names: the sentence must hold one of them, such as the name of the file that was spoilt. Work
    that is done but for what it says is left out is a success.
    """
    with bounded_memory(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call()
        except UserError as error:
            sentence = str(error)
            end = SUCCESS if isinstance(error, LeftOut) else REFUSAL
        else:
            return SUCCESS
    assert sentence.isprintable(), f"not one line of text: {sentence!r}"
    assert len(sentence) <= LONGEST_SENTENCE, f"{len(sentence)} characters: {sentence[:300]}"
    assert ": " in sentence or " must " in sentence, f"does not say what to do: {sentence}"
    assert not names or any(name in sentence for name in names), f"{names} not in: {sentence}"
    return end


class SilentDropError(AssertionError):
    """Something that was given was neither used nor told of."""


def accounted(use, n_given, names=()):
    """Return the `outcome` of a call that returns how much of ``n_given`` it used.

    What it did not use must be counted in what was said: all counts in warnings, as in 3 of 80,
    or 3 boxes, must add up to it.
    """

    def count():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            n_used = use()
        said = [str(one.message) for one in caught]
        told = sum(int(n.replace(",", "")) for text in said for n in COUNTS.findall(text))
        if n_used + told != n_given:
            raise SilentDropError(f"{n_given - n_used} of {n_given} were dropped; said: {said}")

    return outcome(count, names)


def call_main(main, *argv):
    """Run a script's main here with these arguments; print as `run_script` lets it."""
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=PRINTS)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", ["script", *map(str, argv)])
        main()
    printed.flush()
    return printed.buffer.getvalue().decode()


def run_cases(case, n_cases, seed=None, judge=None):
    """Run ``case(draw, folder)`` with ``n_cases`` inputs, each in a new folder.

    Without a seed the inputs are always the same. Returns the outcomes that there were. judge: what
    is called with the outcome of each case, or with the exception that it ended in; without it an
    exception fails at once.
    """

    @settings(
        max_examples=n_cases,
        derandomize=seed is None,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate,) if judge else (Phase.generate, Phase.shrink),
        verbosity=Verbosity.quiet if judge else Verbosity.normal,
    )
    @given(st.data())
    def run(data):
        with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
            if judge is None:
                outcomes.add(case(data.draw, Path(folder)))
                return
            signal.alarm(HANGS_AFTER_S)
            try:
                judge(case(data.draw, Path(folder)))
            except Exception as error:  # counted and told by the caller
                if type(error).__module__.startswith("hypothesis"):
                    raise
                judge(error)
            finally:
                signal.alarm(0)

    outcomes: set = set()
    (run if seed is None else seeded(seed)(run))()
    return outcomes


def short(n_cases):
    """How many of a target's cases the suite runs."""
    return max(5, n_cases // 4)
