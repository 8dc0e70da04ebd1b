"""The way out of a script: exit statuses, one sentence, and a stop that waits for a safe place."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from picking import errors
from picking.errors import (
    InputWarning,
    LeftOut,
    UserError,
    leave_out,
    raise_if_stopped,
    run_script,
    warn,
)
from tests.fixtures import ROOT, run_python
from tests.fixtures.stopping import WORDS, leave


def raises(error):
    def main():
        raise error

    return main


def test_a_script_that_returns_leaves_with_0(capsys):
    left = leave(lambda: None, capsys)
    assert (left.status, left.err) == (0, "")


def test_a_users_mistake_is_one_sentence_and_2(capsys):
    left = leave(raises(UserError("no image: put some there")), capsys)
    assert (left.status, left.err) == (2, "error: no image: put some there\n")


def test_work_that_is_done_but_for_some_of_it_is_one_sentence_and_3(capsys):
    left = leave(raises(LeftOut("1 of 3 micrographs were left out: mend it")), capsys)
    assert (left.status, left.err) == (3, "warning: 1 of 3 micrographs were left out: mend it\n")


def test_a_warning_is_one_line_said_once_and_ends_nothing(capsys):
    def main():
        for _ in range(2):
            warn("a.star: 3 picks are of\nno micrograph: check the names")

    left = leave(main, capsys)
    assert left.status == 0
    assert left.err == "warning: a.star: 3 picks are of\\nno micrograph: check the names\n"


@pytest.mark.parametrize(("n_left_out", "n_all"), [(1, 9), (11, 100), (1, 1)])
def test_more_than_a_tenth_is_left_out_only_when_that_is_allowed(n_left_out, n_all):
    with pytest.raises(UserError, match=r"2 of 9 are odd.* --allow-partial"):
        leave_out(n_left_out, n_all, "2 of 9 are odd", False)
    with pytest.warns(InputWarning, match=r"2 of 9 are odd$"):
        leave_out(n_left_out, n_all, "2 of 9 are odd", True)


@pytest.mark.filterwarnings("error")
def test_up_to_a_tenth_is_left_out_with_a_warning_and_nothing_without_one():
    with pytest.warns(InputWarning, match="1 of 10 is odd"):
        leave_out(1, 10, "1 of 10 is odd", False)
    leave_out(0, 10, "0 of 10 are odd", False)


@pytest.mark.parametrize(
    "number",
    [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG, errno.ENAMETOOLONG],
)
@pytest.mark.parametrize("names", [(), ("store/patches.npy",)])
def test_a_full_or_read_only_disk_is_a_sentence_and_2(capsys, number, names):
    left = leave(raises(OSError(number, os.strerror(number), *names)), capsys)
    assert left.status == 2 and left.err.startswith("error: ")
    assert left.err.count("\n") == 1 and (not names or names[0] in left.err)


FULL_CONSOLE = """
from picking.errors import UserError, run_script

def main():
    print("a line that nobody can keep")
    raise UserError("no image: put some there")

run_script(main)
"""


def test_a_console_on_the_full_disk_too_changes_no_exit_status():
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    with full.open("w") as console:
        done = subprocess.run(
            [sys.executable, "-c", FULL_CONSOLE], cwd=ROOT, stdout=console, stderr=console
        )
        assert done.returncode == 2
        done = subprocess.run(
            [sys.executable, "-c", FULL_CONSOLE.replace("raise", "return #")],
            cwd=ROOT, stdout=console, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: the disk is full") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", WORDS)
def test_a_stop_waits_for_a_place_where_nothing_is_half_done(number, capsys):
    done = []

    def main():
        os.kill(os.getpid(), number)
        done.append("the step under way")
        raise_if_stopped()
        done.append("another step")

    left = leave(main, capsys)
    assert done == ["the step under way"]
    assert left.status == WORDS[number][1] and left.err.count("\n") == 1


@pytest.mark.parametrize("end", [lambda: None, raises(RuntimeError("a worker has died"))])
def test_a_stop_that_no_place_was_left_for_ends_the_script_all_the_same(end, capsys):
    def main():
        os.kill(os.getpid(), signal.SIGTERM)
        end()

    assert leave(main, capsys).status == 143


@pytest.mark.parametrize(("echo_s", "n_steps"), [(2, 1), (0, 0)])
def test_a_second_sigterm_ends_the_script_at_once_unless_it_echoes_the_first(
    echo_s, n_steps, capsys, monkeypatch
):
    done = []

    def main():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        done.append("step")
        raise_if_stopped()

    monkeypatch.setattr(errors, "ECHO_S", echo_s)
    left = leave(main, capsys)
    assert (left.status, left.err.count("\n")) == (143, 1)
    assert len(done) == n_steps


def test_one_of_several_processes_waits_for_no_safe_place(capsys, monkeypatch):
    monkeypatch.setattr(errors, "_first_to_say", lambda: True)

    def main():
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it must have left")

    assert leave(main, capsys).status == 143


@pytest.mark.parametrize("error", [ZeroDivisionError("ours"), OSError(errno.EIO, "I/O error")])
def test_a_defect_of_ours_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        run_script(raises(error))


def test_a_message_is_one_line_of_bounded_length_whatever_stood_in_the_file():
    message = str(UserError("a.json: 'x\ny\x00\ud800' is wrong: mend it"))
    assert message == r"a.json: 'x\ny\x00\ud800' is wrong: mend it"
    message = str(UserError(f"a.json holds {'x' * 100_000}: mend it"))
    assert len(message) < 1000 and message.startswith("a.json") and message.endswith("mend it")


def test_names_that_are_not_utf_8_are_printed():
    code = "from picking.errors import run_script; run_script(lambda: print('caf\\udce9'))"
    result = run_python("-c", code)
    assert (result.returncode, result.stdout, result.stderr) == (0, "caf\\udce9\n", "")
