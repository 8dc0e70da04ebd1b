"""One store filled by several processes, on several machines that share a file system.

Each has journal and lock of its own in the store's folder. They share the folder with one another,
but not with the process without a shard, which puts the store together when they are done.
"""

import re
from pathlib import Path
from typing import NamedTuple

from picking.errors import UserError
from picking.stores.journal import Journal


class Shard(NamedTuple):
    """Every ``of``-th micrograph of each split, from the ``number``-th on, counted from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}-of-{self.of}"

    def share(self, n: int) -> range:
        """Return which of ``n`` micrographs are this shard's, counted from 0."""
        return range(self.number - 1, n, self.of)


def read_shard(text: str) -> Shard:
    """Return the shard that a command line names as I/N."""
    found = re.fullmatch("([0-9]{1,6})/([0-9]{1,6})", text)
    shard = Shard(*map(int, found.groups())) if found else Shard(0, 0)
    if not 1 <= shard.number <= shard.of:
        raise UserError(f"--shard is '{text}': give I/N with I from 1 to N, such as 2/8")
    return shard


def open_journal(folder: Path, made_from: dict, shard: Shard | None) -> Journal:
    """Open this process's journal of the store in ``folder``, with what all others there say."""
    path = folder / (f".journal-{shard}" if shard else ".journal")
    return Journal(path, made_from, sorted(set(folder.glob(".journal*")) - {path}))


def remove_journals(folder: Path) -> None:
    """Remove all journals of a finished store, and the shards' locks."""
    for path in (*folder.glob(".journal*"), *folder.glob(".lock-*")):
        path.unlink(missing_ok=True)


def print_done(shard: Shard, unreadable: list[str]) -> None:
    """Print that a shard is done and what is left to do, with what is wrong with which images."""
    if unreadable:
        print(
            f"Note: {len(unreadable):,} micrographs cannot be read and are left to the command "
            f"without --shard: {'; '.join(unreadable[:3])}{'; ...' if len(unreadable) > 3 else ''}"
        )
    print(
        f"Shard {shard.number} of {shard.of} is done; when all are, run the same command without "
        "--shard"
    )
