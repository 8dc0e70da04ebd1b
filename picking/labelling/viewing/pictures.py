"""Pyramids and thumbnails of a set of micrographs: made when wanted, or ahead, and kept.

Both are kept in memory and in a cache folder, which may be deleted at any time. What is kept is of
a file's size and time, so a file that was replaced is read again.
"""

import contextlib
import heapq
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from picking.errors import UserError
from picking.files import DAMAGED_ARRAY, read_arrays, sha256, write_saved
from picking.inputs.paths import Paths
from picking.labelling.viewing.pyramid import Pyramid, make_pyramid
from picking.labelling.viewing.thumbnails import Thumbnail, make_thumbnail
from picking.micrographs.reading import read_grey

VERSION = "2"  # of how pyramids and thumbnails are made
MEMORY_BYTES = 500e6  # of pyramids; the last one is kept whatever it takes
DISK_BYTES = 2e9
SOON, LATER = 0, 1  # how urgent it is to have a picture ahead


class Pictures:
    """Pictures of micrographs, by name; several threads may ask.

    folder: of the cache, or None to keep nothing on the disk. `begin` starts a thread that makes
    what `prepare` was asked for, and `end` ends it.
    """

    def __init__(self, paths: Paths, folder: Path | None) -> None:
        self._paths, self._folder = paths, folder
        self._pyramids: OrderedDict[tuple[str, str], Pyramid] = OrderedDict()
        self._thumbnails: dict[tuple[str, str], Thumbnail] = {}
        self._lock = threading.Condition()
        self._making: dict[tuple[str, str], threading.Lock] = {}
        self._wanted: list[tuple[int, int, str, bool]] = []
        self._n_wanted = 0
        self._ended = False
        self._thread = threading.Thread(target=self._prepare_wanted, daemon=True)

    def begin(self) -> None:
        """Start making ahead what `prepare` is asked for."""
        self._thread.start()

    def end(self) -> None:
        """End that; what is being made is not waited for."""
        with self._lock:
            self._ended = True
            self._lock.notify_all()

    def stamp(self, name: str) -> str:
        """Return what is another for another file; raises `UserError` where there is none."""
        path = self._paths[name]
        try:
            status = path.stat()
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): check the path") from error
        of_file = str(path.absolute()), str(status.st_size), str(status.st_mtime_ns)
        return sha256("/".join((VERSION, *of_file)))[:24]

    def pyramid(self, name: str) -> Pyramid:
        """Return a micrograph's pyramid; raises `UserError` where its file cannot be read."""
        key = name, self.stamp(name)
        with self._alone(key):
            with self._lock:
                if key in self._pyramids:
                    self._pyramids.move_to_end(key)
                    return self._pyramids[key]
            arrays = self._read("pyramids", key)
            if arrays is not None:
                pyramid = Pyramid([arrays[f"level_{k}"] for k in range(len(arrays))])
            else:
                pyramid = make_pyramid(read_grey(self._paths[name]))
                self._write("pyramids", key, {f"level_{k}": a for k, a in enumerate(pyramid[0])})
            with self._lock:
                self._pyramids[key] = pyramid
                while sum(p.n_bytes for p in self._pyramids.values()) > MEMORY_BYTES:
                    if len(self._pyramids) == 1:
                        break
                    self._pyramids.popitem(last=False)
            return pyramid

    def thumbnail(self, name: str) -> Thumbnail:
        """Return a micrograph's thumbnail; raises `UserError` where its file cannot be read."""
        key = name, self.stamp(name)
        with self._alone(key):
            if key in self._thumbnails:
                return self._thumbnails[key]
            arrays = self._read("thumbnails", key)
            if arrays is not None:
                thumbnail = Thumbnail(arrays["jpeg"].tobytes(), arrays["features"])
            else:
                thumbnail = make_thumbnail(self._paths[name])
                jpeg = np.frombuffer(thumbnail.jpeg, np.uint8)
                self._write("thumbnails", key, {"jpeg": jpeg, "features": thumbnail.features})
            self._thumbnails[key] = thumbnail
            return thumbnail

    def features(self) -> dict[str, np.ndarray]:
        """Return the features of the micrographs whose thumbnails were made, by name."""
        return {name: each.features for (name, _), each in list(self._thumbnails.items())}

    def prepare(self, names: Iterable[str], urgency: int = SOON, thumbnails: bool = False) -> None:
        """Have pyramids, or thumbnails, made ahead; a failure shows when they are asked for."""
        with self._lock:
            for name in names:
                self._n_wanted += 1
                # What is wanted soon and was asked for last is most likely wanted next
                order = -self._n_wanted if urgency == SOON else self._n_wanted
                heapq.heappush(self._wanted, (urgency, order, name, thumbnails))
            self._lock.notify_all()

    def _prepare_wanted(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._wanted or self._ended)
                if self._ended:
                    return
                _, _, name, is_thumbnail = heapq.heappop(self._wanted)
            with contextlib.suppress(UserError, OSError, MemoryError):
                (self.thumbnail if is_thumbnail else self.pyramid)(name)

    @contextlib.contextmanager
    def _alone(self, key: tuple[str, str]) -> Iterator[None]:
        """Let one thread at a time make what is of ``key``."""
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            yield

    def _read(self, kind: str, key: tuple[str, str]) -> dict[str, np.ndarray] | None:
        if self._folder is None:
            return None
        path = self._folder / kind / f"{key[1]}.npz"
        try:
            arrays = read_arrays(path)
            os.utime(path)  # those that were not used for longest go first
        except DAMAGED_ARRAY:  # or not there
            return None
        return arrays

    def _write(self, kind: str, key: tuple[str, str], arrays: dict[str, np.ndarray]) -> None:
        """Keep arrays on the disk, as far as there is room; the cache is no loss."""
        if self._folder is None:
            return
        path = self._folder / kind / f"{key[1]}.npz"
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_saved(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]
            if kind == "pyramids":
                _bound(path.parent, DISK_BYTES)


def _bound(folder: Path, n_bytes: float) -> None:
    """Delete the files of a folder that were used first until the others take less."""
    files = []
    for path in folder.glob("*.npz"):
        with contextlib.suppress(OSError):
            status = path.stat()
            files.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files)[:-1]:
        if total <= n_bytes:
            return
        with contextlib.suppress(OSError):
            path.unlink()
            total -= size
