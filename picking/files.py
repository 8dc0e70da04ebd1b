"""Files that are either whole or not there: atomic writes, locks, hashes, room on the disk."""

import codecs
import contextlib
import fcntl
import hashlib
import io
import json
import os
import secrets
import shutil
import struct
import time
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from picking.errors import UserError

LARGEST_PX = 1e9  # coordinates and sizes are smaller; larger whole numbers would overflow

# A killed run's worker processes hold its lock until they notice, within about a second.
LOCK_PATIENCE_S = 5.0
# How Python holds file names that are not UTF-8; encoded the same way, they are the bytes again.
NAMES = "surrogateescape"
# What numpy and zipfile raise on damaged .npy and .npz files. MemoryError: a damaged header may ask
# for any amount.
DAMAGED_ARRAY = (
    OSError, EOFError, ValueError, TypeError, KeyError, OverflowError, MemoryError, SyntaxError,
    RuntimeError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write ``content`` beside ``path``, flush it to disk, then rename it into place.

    A reader or a killed process never sees half a file.
    """
    # In a shared folder nobody can prepare a file or link of this name, and "x" opens only new ones
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    with naming(path):
        try:
            with temporary.open("xb") as file:
                file.write(content.encode(errors=NAMES) if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_saved(path: Path, save: Callable[[IO[bytes]], object]) -> None:
    """Write atomically what ``save`` puts into a file that it is given, such as a picture."""
    buffer = io.BytesIO()
    save(buffer)
    write_atomically(path, buffer.getvalue())


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the file's name to an `OSError` of the block; that of a failed write has none."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def remove_half_written(*folders: Path) -> None:
    """Remove what a killed `write_atomically` left in folders that the caller has locked."""
    for folder in folders:
        for path in folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; `ValueError` for NaN and infinity, which JSON does not have."""
    write_atomically(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_text(path: Path) -> str:
    """Return a text in UTF-8, or in UTF-16 as Windows writes it; lines end in a newline.

    Raises `UserError` for what is no text.
    """
    content = path.read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
        if "\0" in text:
            raise ValueError("it holds zero bytes")
    except ValueError as error:
        raise UserError(
            f"{path} is no text file in UTF-8 ({error}): save it as UTF-8, or copy it again"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def nearest_folder(names: Sequence[str], beside: Path) -> Path:
    """Return the folder that relative names of files are of, as a list ``beside`` has them.

    It is the working folder, else the nearest one above the list: the first that has them all,
    else the one that has the most.
    """
    best, most = Path(), 0
    for folder in (Path(), *beside.absolute().parents):
        n = sum(os.path.exists(folder / name) for name in names)  # noqa: PTH110 (names too long)
        if n > most:
            best, most = folder, n
        if n == len(names):
            break
    return best


def read_json(path: Path) -> Any:
    """Read a JSON file; raises `UserError` when it is missing or not JSON."""
    try:
        return json.loads(read_text(path))
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there: check the path") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder, not a JSON file: check the path") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): write or copy it again") from error


def read_json_lines(path: Path, n: int) -> list[dict]:
    """Return the objects in the first ``n`` lines; a `UserError` names a line that holds none."""
    entries = []
    for number, line in enumerate(path.read_bytes().splitlines()[:n], start=1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict):
            raise UserError(f"{path}, line {number} is damaged: copy the file again or start anew")
        entries.append(entry)
    return entries


def open_array(path: Path, mode: str = "r") -> np.ndarray:
    """Return the array of an .npy file as a memory map; raises one of `DAMAGED_ARRAY`."""
    return np.lib.format.open_memmap(path, mode)  # type: ignore[arg-type]


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file of `numpy.savez`; raises one of `DAMAGED_ARRAY`."""
    require_stored(path)
    with np.load(path) as arrays:
        return dict(arrays)


def require_stored(path: Path) -> None:
    """Raise `ValueError` when the members of a zip archive are larger than the archive.

    What numpy and torch write is not compressed; what is could fill the memory.
    """
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
            raise ValueError("its members are larger than the file")


def make_folder(folder: Path) -> None:
    """Make a folder and its parents; raises `UserError` when a file is in the way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(
            f"{folder} cannot be made because a file is in its place: choose another folder"
        ) from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process; a second one gets a `UserError` that says who holds it.

    The kernel drops the lock with the process, so one that was killed does not block the next.
    """
    make_folder(folder)
    with (folder / ".lock").open("a+") as file:
        if not _lock(file):
            file.seek(0)
            holder = file.readline().strip() or "another process"
            raise UserError(f"{folder} is in use by {holder}: wait for it or choose another folder")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}\n")
        file.flush()
        yield


def _lock(file: IO) -> bool:
    """Lock the file; return whether that worked before patience ran out."""
    give_up = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= give_up:
                return False
            time.sleep(0.1)
        except OSError:  # some cluster file systems know no locks: go on without one
            return True


def sha256(*parts: str | bytes) -> str:
    """Return the hexadecimal SHA-256 of the parts, one after another."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode(errors=NAMES) if isinstance(part, str) else part)
    return digest.hexdigest()


def sha256_of_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, which may be larger than the memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def require_room(folder: Path, n_bytes: int) -> None:
    """Raise `UserError` when the disk of ``folder``, which need not exist, has less free."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise UserError(
            f"{n_bytes / 1e9:.1f} GB are needed but {free / 1e9:.1f} GB are free at {folder}: "
            "free some space, choose another --output-dir, or limit --max-images-train"
        )


def is_number(value: Any) -> bool:
    """Return whether a value from a file is a number below `LARGEST_PX`, and not NaN or a bool."""
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST_PX
    )
