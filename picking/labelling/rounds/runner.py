"""Running a round: its commands one after another, with what the page is to know of it.

A process of its own, that outlives the server. It says that it is alive, ends its command as Ctrl-C
does when there is a file ``stop``, and leaves what became of it in status.json.
"""

import datetime
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from picking.errors import LeftOut, Stopped, UserError, raise_if_stopped
from picking.files import locked, write_json
from picking.labelling.rounds.plan import read_plan, shown_command, steps_of

RUNNING, DONE, FAILED, STOPPED = "running", "done", "failed", "stopped"
STATUS, LOG, STOP = "status.json", "log.txt", "stop"
POLL_S, ALIVE_S = 0.3, 3.0
ENDING_S = 60.0  # that a command has to end in once it was asked to
SOME_LEFT_OUT = 3  # exit status of a command that did all but what it names


def run_round(round_path: Path) -> None:
    """Run what is left of a round; raises `UserError` where that fails, `Stopped` at a stop."""
    plan = read_plan(round_path)
    if plan is None:
        raise UserError(f"{round_path} has no plan.json: train again")
    with locked(round_path):
        (round_path / STOP).unlink(missing_ok=True)
        status: dict[str, Any] = {
            "state": RUNNING, "n_steps": len(plan["steps"]), "began": _now(), "said": None
        }  # fmt: skip
        try:
            for number, step in enumerate(steps_of(plan), 1):
                status |= {"step": number, "title": step.title, "step_began": _now()}
                print(f"{step.title} ({number} of {len(plan['steps'])}) ...", flush=True)
                with (round_path / LOG).open("ab") as log:
                    log.write(f"$ {shown_command(step)}\n".encode(errors="replace"))
                    log.flush()
                    exit_status = _run(round_path, step.command, log, status)
                if exit_status not in (0, SOME_LEFT_OUT):
                    raise UserError(_last_words(round_path, step.title, exit_status))
            _write(round_path, {**status, "state": DONE})
        except Stopped:
            _write(round_path, {**status, "state": STOPPED, "said": "stopped"})
            raise
        except (UserError, OSError) as error:
            if not isinstance(error, LeftOut):
                _write(round_path, {**status, "state": FAILED, "said": str(error)})
            raise


def _run(round_path: Path, command: list[str], log: Any, status: dict[str, Any]) -> int:
    """Run a command to its end and return its exit status."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment,
        start_new_session=True,
    )  # fmt: skip
    said_alive = 0.0
    try:
        while (exit_status := process.poll()) is None:
            if time.monotonic() - said_alive > ALIVE_S:
                _write(round_path, {**status, "alive": _now()})
                said_alive = time.monotonic()
            raise_if_stopped()
            if (round_path / STOP).exists():
                raise Stopped("stopped from the page")
            time.sleep(POLL_S)
    except BaseException:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
    return exit_status


def _last_words(round_path: Path, title: str, exit_status: int) -> str:
    """Return the sentence with which a command ended, or where to look for it."""
    lines = (round_path / LOG).read_text(errors="replace").splitlines()
    errors = [line for line in lines[-20:] if line.startswith("error: ")]
    if errors:
        return f"{title}: {errors[-1].removeprefix('error: ')}"
    return f"{title} ended with status {exit_status}: see {round_path / LOG}"


def _write(round_path: Path, status: dict[str, Any]) -> None:
    write_json(round_path / STATUS, status)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat("T", "milliseconds")
