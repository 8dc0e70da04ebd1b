"""What all actions so far leave: the labels of each micrograph, and what can be undone."""

from collections.abc import Mapping
from typing import Any

from picking.labelling.folder.actions import Labels, apply


class History:
    """The actions in order, those undone among them, and what they leave.

    Undone actions are kept, and a micrograph's labels are made anew from those of its actions that
    count; so undo and redo have no limit and need no inverse of an action.
    """

    # Labels are replaced, not changed: other threads read them meanwhile
    def __init__(self) -> None:
        self.labels: dict[str, Labels] = {}
        self.sizes_px: dict[str, tuple[int, int]] = {}  # of micrographs that were acted on
        self.n = 0  # events so far
        self._actions: dict[str, list[Mapping[str, Any]]] = {}
        self._micrograph: dict[str, str] = {}  # by the id of an action
        self._undone: set[str] = set()
        self._done_order: list[str] = []
        self._undone_order: list[str] = []
        self._ids: set[str] = set()  # of undo and redo too

    def __contains__(self, action_id: object) -> bool:
        """Return whether an action of this id was there already."""
        return action_id in self._ids

    def of(self, name: str) -> Labels:
        """Return the labels of a micrograph, which need not have any."""
        return self.labels.get(name, Labels())

    @property
    def can_undo(self) -> str | None:
        """The id of the last action that counts."""
        return self._done_order[-1] if self._done_order else None

    @property
    def can_redo(self) -> str | None:
        """The id of the action that was undone last, None once another followed."""
        return self._undone_order[-1] if self._undone_order else None

    def last_change(self, name: str, do: str) -> str | None:
        """Return the time of the last action of a kind on a micrograph, undone ones included."""
        times = [a["time"] for a in self._actions.get(name, []) if a["do"] == do]
        return max(times, default=None)

    def take(self, event: Mapping[str, Any]) -> str | None:
        """Take one event in; return the micrograph whose labels may have changed, if any.

        event: a checked action with its ``time``, or the size of a micrograph, as `LabelsFolder`
        writes it. One that was there already changes nothing, nor does undoing what is undone.
        """
        self.n += 1
        if event["do"] == "size":
            self.sizes_px[event["micrograph"]] = (event["height"], event["width"])
            return None
        if event["id"] in self._ids:
            return None
        self._ids.add(event["id"])
        if event["do"] in ("undo", "redo"):
            return self._turn(event["of"], undo=event["do"] == "undo")
        name = event["micrograph"]
        self._micrograph[event["id"]] = name
        self._actions.setdefault(name, []).append(event)
        self._done_order.append(event["id"])
        self._undone_order.clear()
        labels = self.of(name).copy()
        apply(labels, event)
        self.labels[name] = labels
        return name

    def _turn(self, action_id: str, undo: bool) -> str | None:
        """Undo or redo an action; return its micrograph, None where there is nothing to do."""
        source, target = self._done_order, self._undone_order
        if not undo:
            source, target = target, source
        if action_id not in source:
            return None
        source.remove(action_id)
        target.append(action_id)
        (self._undone.add if undo else self._undone.discard)(action_id)
        name = self._micrograph[action_id]
        labels = Labels()
        for action in self._actions[name]:
            if action["id"] not in self._undone:
                apply(labels, action)
        self.labels[name] = labels
        return name
