"""One pass over the micrographs of a split fills every store that is asked for.

A store's files are plain `.npy` of uint8 rows. What each row holds is planned before any image is
decoded, so files are allocated at full size first, workers write their own rows, the bytes do not
depend on how many workers there are, and an interrupted run goes on where the journals end. For the
same reason several machines can fill one store (picking/stores/shards.py).
"""

import dataclasses
import io
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from picking.files import lock_when_free, naming
from picking.formats import micrographs
from picking.parallel import ordered_map
from picking.stores.journal import Journal
from picking.stores.shards import Shard


@dataclasses.dataclass(frozen=True)
class Filling:
    """One split of one store, and how its rows come about.

    folder: of the split, named as the split. plans: one per micrograph, in the order of their rows,
    with ``micrograph``, ``size_px`` and ``n_rows``; plan_hash: of all that decides which row holds
    what. arrays: file name -> (height, width) of a row. draw: (plan, image uint8 (h, w)) -> the
    rows of each file, uint8 (n_rows, height, width), and what the journal notes on them; it runs in
    a worker, so it is a function of a module. index: file name, written by ``write_index(self)``.
    """

    folder: Path
    journal: Journal
    plans: list[Any]
    plan_hash: str
    arrays: dict[str, tuple[int, int]]
    draw: Callable[[Any, np.ndarray], tuple[list[np.ndarray], dict]]
    index: str
    write_index: Callable[["Filling"], None]


class Rows(NamedTuple):
    """One micrograph's rows in one store, as a worker is asked for them.

    store: its number; draw, plan: as in `Filling`; places: (file, first byte, bytes) in each of the
    store's files; checksum: of rows that may be there already, None where there are none.
    """

    store: int
    draw: Callable
    plan: Any
    places: list[tuple[Path, int, int]]
    checksum: int | None


def fill_split(
    fillings: list[Filling], n_workers: int, reduced: bool = False, shard: Shard | None = None
) -> dict[str, str]:
    """Fill one split of every store, decoding each micrograph once, and write their indices.

    The stores have the same micrographs in the same order; what their journals hold already is not
    drawn again. With ``reduced``, for plans that state ``scaled_px``, images are read at that size.
    Returns name -> what is wrong for each micrograph that cannot be read; indices are written only
    when there is none.

    A shard fills its share and writes no index. Where shards wrote, whoever fills the whole split
    compares all rows with the journals first: bytes may be lost between machines. A shard reads no
    rows, since a block that it read and wrote back might undo what others wrote beside.
    """
    split, n = fillings[0].folder.name, len(fillings[0].plans)
    share = shard.share(n) if shard else range(n)
    parts: dict[int, list[Rows]] = {i: [] for i in share}
    checked = set()
    for k, filling in enumerate(fillings):
        filling.folder.mkdir(parents=True, exist_ok=True)
        whole = all((filling.folder / name).exists() for name in filling.arrays)
        filling.journal.begin(split, filling.plan_hash, afresh=not whole)
        starts = np.cumsum([0, *(plan.n_rows for plan in filling.plans)]).tolist()
        files = [
            (path, allocate(path, (starts[-1], *row_px)), row_px[0] * row_px[1])
            for path, row_px in ((filling.folder / f, px) for f, px in filling.arrays.items())
        ]
        for i in share:
            plan, checksum = filling.plans[i], None
            if filling.journal.holds(split, i, plan.micrograph.path):
                if shard or not filling.journal.others:
                    continue
                checksum = filling.journal.done[split, i]["checksum"]
                checked.add((i, k))
            places = [
                (path, header + starts[i] * row, plan.n_rows * row) for path, header, row in files
            ]
            parts[i].append(Rows(k, filling.draw, plan, places, checksum))
            (filling.folder / filling.index).unlink(missing_ok=True)  # of earlier rows
    jobs = [(i, parts[i], reduced) for i in share if parts[i]]
    unreadable, lost = {}, set()
    for i, entries, problem in ordered_map(
        _fill_rows, jobs, n_workers, f"Cutting {split}", len(share)
    ):
        if problem:
            unreadable[fillings[0].plans[i].micrograph.name] = problem
        for k, entry in entries.items():
            fillings[k].journal.add(split, i, entry)
            if (i, k) in checked:
                lost.add(i)
    if checked:
        print(
            f"Split {split}: rows of {len({i for i, _ in checked}):,} micrographs were there and "
            f"were checked; those of {len(lost):,} differed and were cut again"
        )
    for path in (filling.folder / name for filling in fillings for name in filling.arrays):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    if not shard and not unreadable:
        for filling in fillings:
            filling.write_index(filling)
    return unreadable


def _fill_rows(job: tuple) -> tuple[int, dict[int, dict], str | None]:
    """Read one micrograph and write its rows in each store; runs in a worker.

    Rows that have the checksum that is expected of them, where there is one, are left as they are.
    Returns its number, store -> the journal's entry on its rows, and what is wrong with the image.
    """
    i, parts, reduced = job
    parts = [p for p in parts if p.checksum is None or checksum_at(p.places) != p.checksum]
    if not parts:
        return i, {}, None
    plan = parts[0].plan
    path = plan.micrograph.path
    try:
        n_bytes = path.stat().st_size
        if reduced:
            size_px = micrographs.image_size(path)
            image = micrographs.read_scaled(path, plan.scaled_px)
        else:
            image = micrographs.read_micrograph(path)
            size_px = image.shape
    except FileNotFoundError:
        return i, {}, f"{path} was removed while it was processed"
    except micrographs.UnreadableImage as error:
        return i, {}, str(error)
    if size_px != plan.size_px:
        return i, {}, f"{path} changed its size while it was processed"
    entries = {}
    for part in parts:
        arrays, entry = part.draw(part.plan, image)
        checksum = 0
        for array, (file, offset, _) in zip(arrays, part.places, strict=True):
            data = np.ascontiguousarray(array).reshape(-1).data
            _write_at(file, data, offset)
            checksum = zlib.crc32(data, checksum)
        entries[part.store] = {"checksum": checksum, **entry, "image_bytes": n_bytes}
    return i, entries, None


def _write_at(path: Path, data: memoryview, offset: int) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        written = 0
        with naming(path):
            while written < len(data):
                written += os.pwrite(descriptor, data[written:], offset + written)
    finally:
        os.close(descriptor)


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

    The room is really taken, so a full disk shows here and not in the middle of the work. Rows that
    another process writes into the file meanwhile stay: what is there is neither written nor
    allocated again, since on file systems that cannot do so allocating is writing zeros.
    """
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    start = header.tell()
    size = start + int(np.prod(shape, dtype=np.int64))
    path.touch()
    with naming(path), path.open("r+b") as file:
        lock_when_free(file)
        if file.read(start) != header.getvalue():
            file.seek(0)
            file.write(header.getvalue())
            file.flush()
        there = os.fstat(file.fileno()).st_size
        if there > size:
            file.truncate(size)
        elif there < size:
            os.posix_fallocate(file.fileno(), there, size - there)
    return start
