"""One pass over the micrographs of a split writes it in every store that is asked for.

A store's files are plain `.npy` of uint8 rows. What each row holds is planned before any image is
decoded, so files are allocated at full size first, workers write their own rows, the bytes do not
depend on how many workers there are, and an interrupted run goes on where the journals end. What
an earlier run wrote is compared with its checksums first: a power cut loses rows that it had
noted already.
"""

import abc
import dataclasses
import io
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from picking.files import naming, sha256
from picking.formats.picks import Micrograph
from picking.micrographs import reading
from picking.micrographs.problems import Notes
from picking.parallel import ordered_map
from picking.stores.journal import Journal


@dataclasses.dataclass(frozen=True)
class Plan(abc.ABC):
    """The rows of one micrograph in one store; goes to a worker, so it can be pickled.

    size_px: (height, width) of the micrograph. arrays: file name -> (height, width) px of a row,
    the same for all of a split. decoded_px: (height, width) near which a JPEG is decoded; None:
    the whole.
    """

    micrograph: Micrograph
    size_px: tuple[int, int]

    arrays: ClassVar[Any]
    decoded_px: ClassVar[Any] = None
    n_particles: ClassVar[Any]
    n_rows: ClassVar[Any]

    @abc.abstractmethod
    def identity(self) -> list[str | bytes]:
        """Return all that decides which row holds what."""

    @abc.abstractmethod
    def draw(self, image: np.ndarray) -> tuple[list[np.ndarray], dict]:
        """Return the rows of each file and what the journal notes on them.

        image: its grey, (h, w), as decoded. The rows of a file are uint8 (n_rows, height, width).
        """

    @property
    def n_bytes(self) -> int:
        """Bytes of the rows, in all files of the store."""
        return self.n_rows * sum(height * width for height, width in self.arrays.values())

    @property
    def n_outside(self) -> int:
        """Particles dropped because their centre lies outside the micrograph."""
        return len(self.micrograph.centres_px) - self.n_particles


class Rows(NamedTuple):
    """One micrograph's rows in one store, as a worker is asked for them.

    store: its number; places: (file, first byte, bytes) in each of the store's files; checksum: of
    the rows that should be there already, None where there are none.
    """

    store: int
    plan: Plan
    places: list[tuple[Path, int, int]]
    checksum: int | None


@dataclasses.dataclass(frozen=True)
class SplitWriter:
    """What writes one split of one store.

    folder: of the split, named as the split. plans: one per micrograph, in the order of their rows.
    index: the file that ``write_index`` writes once all rows are there.
    """

    folder: Path
    journal: Journal
    plans: Sequence[Plan]
    index: str
    write_index: Callable[[], None]

    @property
    def files(self) -> dict[Path, tuple[int, int]]:
        """The files of rows -> (height, width) px of a row."""
        return {self.folder / name: row_px for name, row_px in self.plans[0].arrays.items()}

    def begin(self, store: int) -> list[Rows | None]:
        """Make the files; return what is to be written or checked of each micrograph.

        None for rows that this process has already written or checked.
        """
        split, journal = self.folder.name, self.journal
        self.folder.mkdir(parents=True, exist_ok=True)
        plan_hash = sha256(*(part for plan in self.plans for part in plan.identity()))
        journal.begin(split, plan_hash, afresh=not all(path.exists() for path in self.files))
        (self.folder / self.index).unlink(missing_ok=True)  # of earlier rows
        starts = np.cumsum([0, *(plan.n_rows for plan in self.plans)]).tolist()
        files = [
            (path, allocate(path, (starts[-1], *row_px)), row_px[0] * row_px[1])
            for path, row_px in self.files.items()
        ]
        parts: list[Rows | None] = []
        for i, plan in enumerate(self.plans):
            places = [
                (path, header + starts[i] * row, plan.n_rows * row) for path, header, row in files
            ]
            if not journal.holds(split, i, plan.micrograph.path):
                parts.append(Rows(store, plan, places, None))
            elif (split, i) in journal.unchecked:
                parts.append(Rows(store, plan, places, journal.done[split, i]["checksum"]))
            else:
                parts.append(None)
        return parts


def write_split(writers: Sequence[SplitWriter], n_workers: int) -> dict[str, str]:
    """Write one split of every store, decoding each micrograph once, and then the indices.

    The stores have the same micrographs in the same order. What a journal holds is not drawn again,
    unless its rows do not have their checksum. Returns name -> what is wrong for each micrograph
    that cannot be read; indices are written only when there is none.
    """
    split, n = writers[0].folder.name, len(writers[0].plans)
    of_stores = [writer.begin(k) for k, writer in enumerate(writers)]
    parts = [[rows for rows in of_one if rows] for of_one in zip(*of_stores, strict=True)]
    jobs = [(i, rows) for i, rows in enumerate(parts) if rows]
    n_checked = sum(any(rows.checksum is not None for rows in of_one) for of_one in parts)
    unreadable, n_lost = {}, 0
    for i, entries, problem in ordered_map(_write_rows, jobs, n_workers, f"Cutting {split}", n):
        if problem:
            unreadable[writers[0].plans[i].micrograph.name] = problem
        for k, entry in entries.items():
            writers[k].journal.add(split, i, entry)
        n_lost += any(rows.checksum is not None and rows.store in entries for rows in parts[i])
        for rows in parts[i]:
            writers[rows.store].journal.unchecked.discard((split, i))
    if n_checked:
        print(
            f"Split {split}: the rows of {n_checked:,} micrographs were there already; those of "
            f"{n_lost:,} were damaged and are cut again"
        )
    for path in (path for writer in writers for path in writer.files):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    if not unreadable:
        for writer in writers:
            writer.write_index()
    return unreadable


def _write_rows(job: tuple[int, list[Rows]]) -> tuple[int, dict[int, dict], str | None]:
    """Read one micrograph and write its rows in each store; runs in a worker.

    Rows that have the checksum that is expected of them are left as they are. Returns the
    micrograph's number, store -> the journal's entry on the rows written, and what is wrong with
    the image.
    """
    i, parts = job
    parts = [p for p in parts if p.checksum is None or checksum_at(p.places) != p.checksum]
    if not parts:
        return i, {}, None
    plan = parts[0].plan
    path = plan.micrograph.path
    notes: Notes = {}
    try:
        n_bytes = path.stat().st_size
        if plan.decoded_px:
            size_px = reading.image_size(path)
            image = reading.read_scaled(path, plan.decoded_px, notes)
        else:
            image = reading.read_grey(path, notes)
            size_px = image.shape
    except FileNotFoundError:
        return i, {}, f"{path} was removed while it was processed"
    except reading.UnreadableImage as error:
        return i, {}, str(error)
    if size_px != plan.size_px:
        return i, {}, f"{path} changed its size while it was processed"
    entries = {}
    for part in parts:
        arrays, noted = part.plan.draw(image)
        checksum = 0
        for array, (file, offset, _) in zip(arrays, part.places, strict=True):
            data = np.ascontiguousarray(array).reshape(-1).data
            with naming(file), file.open("r+b") as stream:
                stream.seek(offset)
                stream.write(data)
            checksum = zlib.crc32(data, checksum)
        entries[part.store] = {"checksum": checksum, **noted, "image_bytes": n_bytes}
        if notes:
            entries[part.store]["notes"] = notes
    return i, entries, None


def checksum_at(places: list[tuple[Path, int, int]]) -> int:
    """Return the checksum of the bytes (path, from, how many) that are there."""
    checksum = 0
    for path, offset, n_bytes in places:
        with path.open("rb") as file:
            file.seek(offset)
            checksum = zlib.crc32(file.read(n_bytes), checksum)
    return checksum


def allocate(path: Path, shape: tuple[int, ...]) -> int:
    """Make ``path`` a .npy file of uint8 at full size; return its header's length in bytes.

    Rows that are there stay. The room is really taken, so a full disk shows here and not in the
    middle of the work.
    """
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    start = header.tell()
    size = start + int(np.prod(shape, dtype=np.int64))
    path.touch()
    with naming(path), path.open("r+b") as file:
        file.write(header.getvalue())
        file.flush()
        there = os.fstat(file.fileno()).st_size
        if there > size:
            file.truncate(size)
        elif there < size:
            # From where the file ends: some file systems allocate by writing zeros
            os.posix_fallocate(file.fileno(), there, size - there)
    return start
