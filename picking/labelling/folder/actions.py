"""What can be done to a micrograph's labels: actions, checked as they come, and what they leave.

An action is a JSON object: ``id``, made by whoever acts and never used twice, ``do``, what is done,
``micrograph``, a file name, and by kind

    add, add_negative          y, x                  a particle; a place that is none
    move                       mark, y, x            of one that is there, by its id
    remove                     mark
    accept, reject             centres               proposals: particles; places that are none
    junk                       path, radius, erase   circles along a path; erase takes it away
    complete, not_complete     every particle is marked, or no longer
    leave_out, take_back       the micrograph is not to be used, or is again
    undo, redo                 of                    an action, by its id; null: the last one

Coordinates are (y, x) in px of the micrograph, origin top left, y down. An added mark has the id of
its action; those of accept and reject have it with .0, .1, ... behind.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from picking.errors import UserError
from picking.files import is_number
from picking.inputs.labels_folder import COMPLETE, IN_PART, LEFT_OUT, UNTOUCHED

ID = re.compile(r"[A-Za-z0-9_-]{1,64}(\.\d{1,6})?")
WITH_PLACE = ("add", "add_negative", "move")
WITH_MARK = ("move", "remove")
WITH_CENTRES = ("accept", "reject")
OF_STATE = ("complete", "not_complete", "leave_out", "take_back")
OF_ACTIONS = ("undo", "redo")
KINDS = (*WITH_PLACE, "remove", *WITH_CENTRES, "junk", *OF_STATE, *OF_ACTIONS)
MOST_CENTRES, MOST_POINTS = 20_000, 20_000

Place = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Mark:
    """A particle, or a place that is none, at (y, x) px."""

    centre_px: Place
    is_particle: bool


@dataclasses.dataclass(frozen=True)
class Stroke:
    """Circles of one radius along a path of (y, x) px; they add junk, or take it away."""

    path_px: tuple[Place, ...]
    radius_px: float
    erases: bool


@dataclasses.dataclass
class Labels:
    """What is marked on one micrograph. marks: by id, in the order in which they came."""

    marks: dict[str, Mark] = dataclasses.field(default_factory=dict)
    junk: list[Stroke] = dataclasses.field(default_factory=list)
    complete: bool = False
    left_out: bool = False

    @property
    def state(self) -> str:
        """One of `UNTOUCHED`, `IN_PART`, `COMPLETE`, `LEFT_OUT`."""
        if self.left_out:
            return LEFT_OUT
        if self.complete:
            return COMPLETE
        return IN_PART if self.marks or self.junk else UNTOUCHED

    def copy(self) -> "Labels":
        """Return labels that can be changed without changing these."""
        return dataclasses.replace(self, marks=dict(self.marks), junk=list(self.junk))

    def places_px(self, of_particles: bool) -> list[Place]:
        """Return (y, x) px of the particles, or of the places that are none."""
        return [m.centre_px for m in self.marks.values() if m.is_particle == of_particles]


def apply(labels: Labels, action: Mapping[str, Any]) -> None:
    """Change ``labels`` as the action says, which `checked` passed; not undo and redo.

    A mark that is no longer there, because somebody else removed it, is left removed.
    """
    do, own = action["do"], action["id"]
    if do in ("add", "add_negative"):
        labels.marks[own] = Mark((action["y"], action["x"]), do == "add")
    elif do == "move":
        if (mark := labels.marks.get(action["mark"])) is not None:
            moved = dataclasses.replace(mark, centre_px=(action["y"], action["x"]))
            labels.marks[action["mark"]] = moved
    elif do == "remove":
        labels.marks.pop(action["mark"], None)
    elif do in WITH_CENTRES:
        for number, (y, x) in enumerate(action["centres"]):
            labels.marks[f"{own}.{number}"] = Mark((y, x), do == "accept")
    elif do == "junk":
        path = tuple((y, x) for y, x in action["path"])
        labels.junk.append(Stroke(path, action["radius"], action["erase"]))
    elif do in ("complete", "not_complete"):
        labels.complete = do == "complete"
    else:
        labels.left_out = do == "leave_out"


def checked(action: Any, sizes_px: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """Return the action with what its kind needs and nothing else.

    action: as it came, from anybody. sizes_px: (height, width) of the micrographs, by name. Raises
    `UserError` for what is no action on these.
    """
    if not isinstance(action, dict):
        raise UserError("an action is an object with id, do and micrograph")
    do, own = action.get("do"), action.get("id")
    if do not in KINDS:
        raise UserError(f"there is no action '{do}': those are {', '.join(KINDS)}")
    result: dict[str, Any] = {"id": _checked_id(own, "id"), "do": do}
    if do in OF_ACTIONS:
        of = action.get("of")
        return {**result, "of": None if of is None else _checked_id(of, "of")}
    name = action.get("micrograph")
    if not isinstance(name, str) or name not in sizes_px:
        raise UserError(f"{do}: '{name}' is none of the micrographs")
    result["micrograph"] = name
    size_px = sizes_px[name]
    if do in WITH_MARK:
        result["mark"] = _checked_id(action.get("mark"), "mark")
    if do in WITH_PLACE:
        result["y"], result["x"] = _on(size_px, (action.get("y"), action.get("x")), do)
    if do in WITH_CENTRES:
        centres = _a_list(action.get("centres"), MOST_CENTRES, f"{do}: centres")
        result["centres"] = [_on(size_px, centre, do) for centre in centres]
    if do == "junk":
        path = _a_list(action.get("path"), MOST_POINTS, "junk: path")
        radius: Any = action.get("radius")
        if not is_number(radius) or not 0 < radius <= max(size_px):
            raise UserError("junk: the radius is no number of px that fits the micrograph")
        result["path"] = [_on(size_px, point, do, margin_px=max(size_px)) for point in path]
        result["radius"], result["erase"] = round(float(radius), 2), bool(action.get("erase"))
    return result


def _checked_id(value: Any, key: str) -> str:
    if not isinstance(value, str) or not ID.fullmatch(value):
        raise UserError(f"{key} is no id of up to 64 letters and digits")
    return value


def _a_list(value: Any, most: int, what: str) -> list:
    if not isinstance(value, list) or not 0 < len(value) <= most:
        raise UserError(f"{what} is no list of 1 to {most:,} places")
    return value


def _on(size_px: tuple[int, int], place: Any, do: str, margin_px: float = 0) -> Place:
    """Return (y, x) down to a hundredth of a px, less than which nobody clicks."""
    if not isinstance(place, (list, tuple)) or len(place) != 2 or not all(map(is_number, place)):
        raise UserError(f"{do}: a place is two numbers, y and x")
    y, x = (math.floor(100 * value) / 100 for value in place)
    low, (height, width) = -margin_px, (n + margin_px for n in size_px)
    if not (low <= y < height and low <= x < width):
        raise UserError(f"{do}: the place (y {y:g}, x {x:g}) is not on the micrograph")
    return y, x
