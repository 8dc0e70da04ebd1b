"""What is done already of a store, so that an interrupted run goes on where it was."""

import itertools
import json
import os
import zlib
from pathlib import Path

from picking.errors import UserError
from picking.files import naming, sha256


class Journal:
    """Which micrographs' rows are there: a line of JSON each, appended once their rows are written.

    The first line holds what the store is made from; a store begun with anything else is refused
    with a `UserError`. A line that is torn or damaged is cut off with all that follow it, and their
    micrographs are done again. Rows of a split are void when its plan changes, as it does when
    images are left out or mended.

    Attributes: done, (split, i) -> checksum of the rows, size of the image file and what else the
    store notes; unchecked, those of them that an earlier process wrote, until their rows are
    compared with their checksums; skipped, split -> names of the micrographs left out because they
    cannot be decoded.
    """

    def __init__(self, path: Path, made_from: dict) -> None:
        self.path = path
        self.done: dict[tuple[str, int], dict] = {}
        self.plans: dict[str, str] = {}
        self.skipped: dict[str, list[str]] = {name: [] for name in made_from["splits"]}
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        entries = list(itertools.takewhile(bool, map(_intact, lines)))
        # A first line that stands further down again ends what can be trusted
        entries[1:] = itertools.takewhile(lambda entry: "split" in entry, entries[1:])
        if not any("i" in entry or "skip" in entry for entry in entries):  # nothing worth keeping
            entries = []
        if entries:
            require_made_from(path.parent, entries[0], made_from)
        for entry in entries[1:]:
            self._apply(entry)
        self.unchecked = set(self.done)
        self._file = path.open("r+b" if path.exists() else "w+b")
        self._file.truncate(sum(map(len, lines[: len(entries)])))
        self._file.seek(0, os.SEEK_END)
        if not entries:
            self._write(made_from)

    def begin(self, split: str, plan_hash: str, afresh: bool) -> None:
        """Start a split afresh or go on with it; rows drawn by another plan are void."""
        if afresh or self.plans.get(split) != plan_hash:
            self._record({"split": split, "plan": plan_hash})

    def holds(self, split: str, i: int, image: Path) -> bool:
        """Return whether the rows of micrograph ``i`` are there, drawn from this very image."""
        rows = self.done.get((split, i))
        return rows is not None and rows["image_bytes"] == image.stat().st_size

    def add(self, split: str, i: int, rows: dict) -> None:
        """Record that the rows of micrograph ``i`` of ``split`` are in the store."""
        self._record({"split": split, "i": i, **rows})

    def skip(self, split: str, names: list[str]) -> None:
        """Leave micrographs out of a split from now on."""
        self._record({"split": split, "skip": names})

    def noted(self, split: str) -> list[dict]:
        """Return what is noted on each micrograph of a split, in order."""
        return [self.done[key] for key in sorted(self.done) if key[0] == split]

    def content_hash(self, split: str | None = None) -> str:
        """Return the SHA-256 over all rows' checksums, in order; of one split or of all."""
        keys = sorted(key for key in self.done if split in (None, key[0]))
        return sha256(*(f"{key}:{self.done[key]['checksum']};" for key in keys))

    def remove(self) -> None:
        """Delete the journal of a finished store."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _apply(self, entry: dict) -> None:
        split = entry["split"]
        if "plan" in entry:
            self.plans[split] = entry["plan"]
            self.done = {key: rows for key, rows in self.done.items() if key[0] != split}
        elif "skip" in entry:
            self.skipped[split] += entry["skip"]
        else:
            self.done[split, entry["i"]] = entry

    def _record(self, entry: dict) -> None:
        self._apply(entry)
        self._write(entry)

    def _write(self, content: dict) -> None:
        with naming(self.path):
            self._file.write(json.dumps({**content, "crc": _crc(content)}).encode() + b"\n")
            self._file.flush()


def _crc(entry: dict) -> int:
    return zlib.crc32(json.dumps(entry).encode())


def _intact(line: bytes) -> dict:
    """Return the entry of a line; an empty one when the line is torn or damaged."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(entry, dict) or not line.endswith(b"\n"):
        return {}
    crc = entry.pop("crc", None)
    return entry if crc == _crc(entry) else {}


def require_made_from(folder: Path, there: dict, now: dict) -> None:
    """Raise `UserError` naming the differences when a store was made from something else."""
    differing = [key for key in now if there.get(key) != now[key]]
    if differing:
        details = "; ".join(f"{key}: {there.get(key)} there, {now[key]} now" for key in differing)
        raise UserError(
            f"{folder} holds a store made with other arguments ({details}): "
            "choose another output folder or delete it"
        )
