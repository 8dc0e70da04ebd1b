"""A copy of the project whose launchers run with a fake Python, and what they called it with."""

import os
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Stands for Python: writes down what it is called with, and leaves as it is told to. Code given
# by -c (what is missing? which GPUs are there?) prints nothing, or the GPUs that the test names.
FAKE_PYTHON = """#!/usr/bin/env bash
if [[ $1 == -c ]]; then
    [[ $2 != *device_count* ]] || echo "${GPUS:-}"
    exit 0
fi
call=$(printf '%s|' "$@")
printf '%s\\n' "${call//$'\\n'/\\\\n}" >> "$CALLS"
[[ "$*" != *"${FAIL:-nothing}"* ]] || exit "${STATUS:-3}"
"""

# Stays (20 s at most) in the stage that it is told to until it is ended, as scripts are by SIGTERM
STAYING = """#!/usr/bin/env bash
[[ "$*" == *"$STAY"* ]] || exec "$FAKE" "$@"
trap 'echo ended >> "$EVENTS"; exit 143' TERM
echo begun >> "$EVENTS"
for _ in {1..400}; do sleep 0.05; done
"""


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def copy_project(tmp_path):
    """Copy the project, without tests and outputs, into a folder whose name has a space."""
    copy = tmp_path / "a copy"
    for name in ("picking", "models", "configs", ".ci"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for pattern in ("*.py", "*.sh", "requirements.txt"):
        for path in ROOT.glob(pattern):
            shutil.copy(path, copy)
    return copy


def launch_in(repository, tmp_path):
    """Return a function that runs a launcher of ``repository`` with the fake Python.

    Its ``calls()`` are what the fake was called with, ``environment()`` what launchers run with.
    """
    python, calls = executable(tmp_path / "fake", FAKE_PYTHON), tmp_path / "calls"

    def environment(**more):
        return {**os.environ, "PYTHON": str(python), "CALLS": str(calls), **more}

    def run(*command, cwd=repository, **variables):
        calls.unlink(missing_ok=True)
        return subprocess.run(
            [repository / command[0], *map(str, command[1:])],
            cwd=cwd, env=environment(**variables), capture_output=True, text=True,
        )  # fmt: skip

    def called():
        lines = calls.read_text().splitlines() if calls.exists() else []
        return [line.rstrip("|").split("|") for line in lines]

    run.calls, run.environment, run.repository = called, environment, repository
    return run


def options(call):
    """The options of a call, --name -> value."""
    return dict(zip(call[1::2], call[2::2], strict=False))


def assert_stops(launch, tmp_path, script, n_children, number, status, **variables):
    """Launch a script whose children stay, send a signal, and see all end and say how to go on.

    A Ctrl-C goes to the whole process group, as a terminal sends it, any other signal to the
    launcher alone.
    """
    events = tmp_path / "events"
    events.touch()
    environment = launch.environment(
        PYTHON=str(executable(tmp_path / "staying", STAYING)), FAKE=str(tmp_path / "fake"),
        EVENTS=str(events), **variables,
    )  # fmt: skip
    process = subprocess.Popen(
        [launch.repository / script], cwd=launch.repository, env=environment,
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    while events.read_text().count("begun") < n_children and process.poll() is None:
        time.sleep(0.02)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, printed = process.communicate()
    assert process.returncode == status
    assert "stopped: what was saved is kept; the same command goes on from there" in printed
    assert "failed" not in printed
    assert events.read_text().count("ended") == n_children
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
