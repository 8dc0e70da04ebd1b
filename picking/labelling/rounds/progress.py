"""How a round is coming along, from the files it writes: whoever runs it, and on which machine."""

import datetime
import re
from pathlib import Path
from typing import Any

from picking.errors import UserError
from picking.files import read_json
from picking.labelling.rounds.plan import last_round, read_plan, round_folder
from picking.labelling.rounds.runner import FAILED, LOG, RUNNING, STATUS, STOP

EPOCH = re.compile(r"^Epoch (\d+)/(\d+)", re.MULTILINE)
SILENT_S = 60.0  # after which a process that says nothing is taken to have ended
STARTING_S = 45.0
LOG_LINES, TAIL_BYTES = 8, 6000


def idle_round(folder: Path) -> Path | None:
    """Return the last round of a folder of labels; raises `UserError` while it is under way."""
    k = last_round(folder)
    if k is None:
        return None
    if progress(round_folder(folder, k))["state"] == RUNNING:
        raise UserError(f"round {k} is under way: stop it first, or wait for its end")
    return round_folder(folder, k)


def progress(round_path: Path) -> dict[str, Any]:
    """Return the state of a round, for the page.

    state: running, done, failed or stopped. title, step, n_steps: of what is under way. fraction:
    done of this step, None where nobody knows. left_s: until it ends, likewise. said: what went
    wrong. log: the last lines. n_picks: that it learns from, 0 where the general network proposes.
    """
    plan = read_plan(round_path)
    status: dict[str, Any] = {"state": RUNNING, "title": "Starting", "step": 0, "n_steps": 3}
    path = round_path / STATUS
    if path.exists():
        try:
            status |= read_json(path)
        except UserError:  # of a disk that was full: what the files show is shown
            status["said"] = "status.json is damaged"
    is_stale = _age_s(status.get("alive") or status.get("step_began")) > SILENT_S
    if not path.exists():
        is_stale = datetime.datetime.now().timestamp() - round_path.stat().st_mtime > STARTING_S
    if status["state"] == RUNNING and is_stale:
        last = _tail(round_path)[-1:] or ["see its log"]
        status |= {"state": FAILED, "said": f"it ended without a word: {last[0]}"}
    fraction = None
    if status["state"] == RUNNING:
        fraction = _fraction(round_path, status["title"], plan)
    passed_s = _age_s(status.get("step_began"))
    left_s = passed_s * (1 - fraction) / fraction if fraction else None
    return {
        "round": int(round_path.name),
        **{key: status.get(key) for key in ("state", "title", "step", "n_steps", "said")},
        "fraction": fraction,
        "left_s": left_s,
        "log": _tail(round_path),
        "is_stopping": status["state"] == RUNNING and (round_path / STOP).exists(),
        "n_picks": plan["n_picks"] if plan else None,
    }


def _fraction(round_path: Path, title: str, plan: Any) -> float | None:
    if title == "Training":
        log = round_path / "training" / "training.log"
        found = EPOCH.findall(log.read_text(errors="replace")) if log.exists() else []
        return int(found[-1][0]) / int(found[-1][1]) if found else None
    if title == "Picking all" and plan:
        n_done = sum(1 for _ in (round_path / "picks" / "scored").glob("*.npz"))
        return min(1.0, n_done / max(1, plan["n_micrographs"])) or None
    return None


def _tail(round_path: Path) -> list[str]:
    """Return the last lines of a round's log."""
    try:
        with (round_path / LOG).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line[:300] for line in text.splitlines() if line.strip()][-LOG_LINES:]


def _age_s(time: str | None) -> float:
    if time is None:
        return 0.0
    then = datetime.datetime.fromisoformat(time)
    return (datetime.datetime.now(datetime.timezone.utc) - then).total_seconds()
