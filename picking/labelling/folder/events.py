"""events.jsonl: one line of JSON for every action, added and flushed to the disk at once."""

import json
import os
from pathlib import Path
from typing import Any

from picking.errors import UserError, warn
from picking.files import naming


class EventLog:
    """The file of events, read as it grows; the writer alone calls `mend` and `append`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_to = 0  # bytes
        self._line = 0

    def read_new(self) -> list[dict[str, Any]]:
        """Return the events of the lines that were added since; one still without end waits.

        Raises `UserError` for a line that holds no event.
        """
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._read_to)
            new = file.read()
        events = []
        for line in new[: new.rfind(b"\n") + 1].splitlines(keepends=True):
            self._line += 1
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                event = None
            if not isinstance(event, dict) or "do" not in event:
                raise UserError(
                    f"{self.path}, line {self._line} is damaged: take that line out, or copy the "
                    "file again"
                )
            events.append(event)
            self._read_to += len(line)
        return events

    def mend(self) -> None:
        """Cut off a last line without end, which a process that was killed left, and say so.

        Call after `read_new`, when nobody else writes.
        """
        if not self.path.exists():
            return
        n_bytes = self.path.stat().st_size
        if n_bytes > self._read_to:
            os.truncate(self.path, self._read_to)
            warn(
                f"{self.path} ended in half a line, as after a loss of power: its "
                f"{n_bytes - self._read_to} bytes were cut off, and all before them is kept"
            )

    def append(self, events: list[dict[str, Any]]) -> None:
        """Add events, whole or not at all, and wait until the disk has them.

        Raises `OSError`, as of a full disk.
        """
        text = "".join(json.dumps(event, allow_nan=False) + "\n" for event in events).encode()
        # Without a buffer, whose rest would go out when the file is closed, after it was cut off
        with naming(self.path), self.path.open("ab", buffering=0) as file:
            try:
                left = memoryview(text)
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self.path, self._read_to)
                raise
        self._read_to += len(text)
        self._line += len(events)
