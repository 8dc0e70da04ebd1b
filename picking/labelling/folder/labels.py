"""A folder of labels at work: actions go in, what they leave is there, and files follow."""

import contextlib
import datetime
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from picking.errors import UserError
from picking.files import locked, make_folder, remove_half_written
from picking.labelling.folder.actions import OF_ACTIONS, Labels, checked
from picking.labelling.folder.derived import (
    junk_file,
    stale_junk,
    tables,
    write_junk,
    write_tables,
)
from picking.labelling.folder.events import EventLog
from picking.labelling.folder.history import History


class Done(NamedTuple):
    """An event, the micrograph whose labels it may have changed, and its number among all."""

    event: dict[str, Any]
    name: str | None
    n: int


READ_ONLY = "the labels are in use by {}: here they can only be looked at"


class LabelsFolder:
    """The labels of some micrographs, kept in a folder; several threads may use it.

    sizes_px: (height, width) of the micrographs that can be labelled, by name. diameters_px: of
    particles, by name. listed: names that STAR files have for them, where those differ.
    used_by: who holds the folder where that is another process, which makes it read-only.
    """

    def __init__(
        self,
        folder: Path,
        sizes_px: Mapping[str, tuple[int, int]],
        diameters_px: Mapping[str, float],
        listed: Mapping[str, str] = MappingProxyType({}),
        used_by: str | None = None,
    ) -> None:
        self.folder, self.sizes_px, self.used_by = folder, sizes_px, used_by
        self.history = History()
        self._diameters_px, self._listed = diameters_px, listed
        self._log = EventLog(folder / "events.jsonl")
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._changed: set[str] = set()
        self._junk_changed: set[str] = set()
        self.follow()

    def begin(self) -> None:
        """Mend what a process that was killed left, and write what it did not come to.

        Call once nothing speaks against these labels being of these micrographs.
        """
        if self.used_by is not None:
            return
        self._log.mend()
        remove_half_written(self.folder, self.folder / "junk")
        self._changed.update(self.sizes_px)
        self._junk_changed.update(stale_junk(self.folder, self.history))
        self.write_changed()

    def follow(self) -> list[Done]:
        """Take in what another process added, and return it."""
        with self._lock:
            return self._take(self._log.read_new())

    def act(self, action: Any) -> Done | None:
        """Do what an action says, once the disk has it; return what was done.

        None for one that was done already: it came twice because its answer was lost. Raises
        `UserError` where it is none or the folder is read-only, and `OSError` of a full disk, and
        then nothing is done.
        """
        if self.used_by is not None:
            raise UserError(READ_ONLY.format(self.used_by))
        event = checked(action, self.sizes_px)
        event["time"] = datetime.datetime.now(datetime.timezone.utc).isoformat("T", "milliseconds")
        with self._lock:
            # Where the file system knows no locks, another process may have added some
            self._take(self._log.read_new())
            if event["id"] in self.history:
                return None
            if event["do"] in OF_ACTIONS and event["of"] is None:
                of = self.history.can_undo if event["do"] == "undo" else self.history.can_redo
                if of is None:
                    raise UserError(f"there is nothing to {event['do']}")
                event["of"] = of
            events = [event]
            name = event.get("micrograph")
            if name is not None and name not in self.history.sizes_px:
                height, width = self.sizes_px[name]
                size = {"do": "size", "micrograph": name, "height": height, "width": width}
                events = [size, event]
            self._log.append(events)
            return self._take(events)[-1]

    def _take(self, events: list[dict[str, Any]]) -> list[Done]:
        taken = []
        for event in events:
            try:
                name = self.history.take(event)
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"{self._log.path} has an event that is none ({event}): take that line out"
                ) from error
            if name is not None:
                self._changed.add(name)
                if event["do"] in ("junk", "undo", "redo"):
                    self._junk_changed.add(name)
            taken.append(Done(event, name, self.history.n))
        return taken

    def write_changed(self) -> None:
        """Write the files that follow from the events, those of them that changed."""
        if self.used_by is not None:
            return
        with self._writing:
            with self._lock:
                if not self._changed and not self._junk_changed:
                    return
                # What is written must hold still, and nobody is to wait for the disk
                changed, self._changed = self._changed, set()
                junk, self._junk_changed = self._junk_changed, set()
                labels = dict(self.history.labels)
            try:
                self._write(self.folder, labels, junk, bool(changed))
            except OSError:
                with self._lock:
                    self._changed |= changed
                    self._junk_changed |= junk
                raise

    def write_to(self, folder: Path, left_out: Iterable[str] = ()) -> None:
        """Write the files that follow from the events so far into another folder.

        left_out: names of micrographs that are to be left out there, whatever is marked on them.
        """
        with self._lock:
            labels = dict(self.history.labels)
        # Scripts are not given those that cannot be read or are gone, and refuse labels of others
        labels = {name: one for name, one in labels.items() if name in self.sizes_px}
        labels |= {name: Labels(left_out=True) for name in left_out}
        make_folder(folder)
        self._write(folder, labels, {name for name, one in labels.items() if one.junk}, True)

    def _write(
        self, folder: Path, labels: dict[str, Labels], junk: set[str], with_tables: bool
    ) -> None:
        acted_on_px = dict(self.history.sizes_px)
        if with_tables:
            of_all = self.sizes_px, self._diameters_px, self._listed
            write_tables(folder, tables(labels, acted_on_px, *of_all))
        for name in junk:
            write_junk(junk_file(folder, name), labels[name].junk, acted_on_px[name])


@contextlib.contextmanager
def held(folder: Path) -> Iterator[str | None]:
    """Hold a folder of labels; yield None, or who holds it already, and then it is read-only."""
    make_folder(folder)
    with contextlib.ExitStack() as stack:
        used_by = None
        try:
            stack.enter_context(locked(folder))
        except UserError:
            used_by = _holder(folder)
        except PermissionError:
            used_by = "somebody who does not let you write"
        yield used_by


def _holder(folder: Path) -> str:
    with contextlib.suppress(OSError):
        return (folder / ".lock").read_text(errors="replace").strip() or "another process"
    return "another process"
