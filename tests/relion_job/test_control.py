import os
import signal
import sys
import threading
import time

import pytest

from picking import errors
from picking.errors import Stopped
from picking.relion_job import control

# Ends as our scripts do, on SIGTERM, and says so
STAYS = """
import pathlib, signal, sys, time
def leave(*_):
    pathlib.Path("ended").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, leave)
pathlib.Path("begun").touch()
time.sleep(60)
"""


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(control, "LOOK_S", 0.05)
    return tmp_path


def once_begun(job, act):
    """Do something in another thread as soon as the program runs."""

    def wait():
        while not (job / "begun").exists():
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize("status", [0, 2, 3])
def test_a_programs_exit_status_comes_back_and_it_gets_the_threads(status, job):
    program = f"import os, sys; sys.exit({status} if os.environ['OMP_NUM_THREADS'] == '7' else 9)"
    assert control.run([sys.executable, "-c", program], job, 7) == status


def test_a_request_to_abort_ends_the_program_as_sigterm_does(job):
    once_begun(job, (job / control.ABORT_NOW).touch)
    with pytest.raises(Stopped, match="abort"):
        control.run([sys.executable, "-c", STAYS], job, 1)
    assert (job / "ended").exists()


def test_a_signal_ends_the_program_too(job, monkeypatch):
    monkeypatch.setattr(errors, "_asked", None)
    monkeypatch.setattr(errors, "_first_to_say", None)
    before = signal.signal(signal.SIGTERM, errors._note_stop)
    try:
        once_begun(job, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped):
            control.run([sys.executable, "-c", STAYS], job, 1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (job / "ended").exists()


def test_a_program_that_heeds_no_signal_is_killed(job, monkeypatch):
    monkeypatch.setattr(control, "PATIENCE_S", 0.2)
    once_begun(job, (job / control.ABORT_NOW).touch)
    deaf = STAYS.replace("leave)", "signal.SIG_IGN)")
    with pytest.raises(Stopped):
        control.run([sys.executable, "-c", deaf], job, 1)
    assert not (job / "ended").exists()


@pytest.mark.parametrize("how", [control.SUCCESS, control.FAILURE, control.ABORTED])
def test_how_a_job_ended_is_said_by_one_file_and_forgotten_when_it_goes_on(how, job):
    (job / control.ABORT_NOW).touch()
    control.end(job, how)
    aborted = how == control.ABORTED
    left = {how} if aborted else {how, control.ABORT_NOW}
    assert {path.name for path in job.iterdir()} == left
    control.begin(job)
    assert {path.name for path in job.iterdir()} == left - {how}
