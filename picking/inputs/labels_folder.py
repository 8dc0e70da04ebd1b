"""A folder of labels, as the labelling page keeps it, and lists of micrographs by their state.

What scripts need of such a folder is in these files.

    session.yaml          micrographs: path patterns or files, as on the command line; diameter: of
                          the particles, such as 150A or 270px; pixel_size: Å per px, or null
    picks.star            particles
    not_particles.star    places that somebody said are no particle
    junk/<stem>.png       masks of junk, 8-bit, not 0 where it is
    micrographs.csv       name, state, picks, not_particles; the state is one of `STATES`

All but the first two may be missing. The folder is only read here.
"""

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

from picking.config import read_yaml
from picking.errors import UserError
from picking.files import is_number, read_text
from picking.inputs.diameters import require_lengths

SESSION, TABLE, JUNK = "session.yaml", "micrographs.csv", "junk"
PICKS, NEGATIVES = "picks.star", "not_particles.star"
UNTOUCHED, IN_PART, COMPLETE, LEFT_OUT = STATES = (
    "untouched", "in part", "complete", "left out",
)  # fmt: skip
NAME_COLUMNS = ("name", "micrograph", "micrographs", "filename", "file")


@dataclasses.dataclass(frozen=True)
class LabelsContent:
    """What a folder of labels says.

    session: its session.yaml. micrographs: patterns or files. diameter: of the particles, with its
    unit. pixel_size: Å per px, None where the micrographs say it. picks, not_particles, junk: files
    and the folder of masks, None where there are none. complete, left_out: names of micrographs
    that are picked completely, and of those that are not to be used.
    """

    session: Path
    micrographs: tuple[str, ...]
    diameter: str
    pixel_size: float | None
    picks: Path
    not_particles: Path | None
    junk: Path | None
    complete: tuple[str, ...]
    left_out: tuple[str, ...]


def is_labels_folder(labels: Sequence[str]) -> bool:
    """Return whether --labels is a folder of labels, by its session.yaml."""
    return len(labels) == 1 and (Path(labels[0]) / SESSION).is_file()


def read_labels_folder(folder: Path) -> LabelsContent:
    """Read a folder of labels; raises `UserError` for one without picks or with a damaged file."""
    micrographs, diameter, pixel_size = read_session_file(folder / SESSION)
    picks = folder / PICKS
    if not picks.is_file():
        raise UserError(f"{folder} has no {PICKS}, so nothing is picked yet: pick particles")
    not_particles, junk = folder / NEGATIVES, folder / JUNK
    states = read_states(folder / TABLE) if (folder / TABLE).is_file() else {}
    return LabelsContent(
        session=folder / SESSION,
        micrographs=micrographs,
        diameter=diameter,
        pixel_size=pixel_size,
        picks=picks,
        not_particles=not_particles if not_particles.is_file() else None,
        junk=junk if any(junk.glob("*.png")) else None,
        complete=tuple(name for name, state in states.items() if state == COMPLETE),
        left_out=tuple(name for name, state in states.items() if state == LEFT_OUT),
    )


def read_session_file(path: Path) -> tuple[tuple[str, ...], str, float | None]:
    """Return the patterns or files of micrographs, the diameter with its unit, and Å per px.

    Raises `UserError` for a damaged file.
    """
    content = read_yaml(path)
    patterns, diameter = content.get("micrographs"), content.get("diameter")
    pixel_size = content.get("pixel_size")
    is_list = isinstance(patterns, list) and all(isinstance(one, str) for one in patterns)
    for valid, problem in (
        (is_list and patterns, "'micrographs' must be a list of files or patterns"),
        (isinstance(diameter, str), "'diameter' must be a text such as 150A or 270px"),
        (pixel_size is None or is_number(pixel_size), "'pixel_size' must be a number or null"),
    ):
        if not valid:
            raise UserError(f"{path}: {problem}: mend it there")
    try:
        require_lengths(diameter, pixel_size)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return tuple(patterns or ()), str(diameter), pixel_size


def read_states(path: Path) -> dict[str, str]:
    """Return the state of each micrograph in a table, by name, without those that have none.

    Raises `UserError` where it lacks a column, and for a state or a name that cannot be.
    """
    header, *rows = _csv_rows(path) or [[]]
    if not {"name", "state"} <= set(header):
        raise UserError(f"{path} lacks a column 'name' or 'state': mend its first line")
    name, state = header.index("name"), header.index("state")
    states: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        if len(row) <= max(name, state) or not row[name].strip():
            raise UserError(f"{path}, line {number} has no name or no state: mend it there")
        if row[state] not in STATES:
            raise UserError(
                f"{path}, line {number}: '{row[state]}' is no state; those are {', '.join(STATES)}"
            )
        if states.setdefault(row[name], row[state]) != row[state]:
            raise UserError(
                f"{path}: {row[name]} is '{states[row[name]]}' and '{row[state]}': leave one"
            )
    return states


def complete_names(path: Path) -> tuple[str, ...]:
    """Return the names that --complete lists, each once.

    Of a CSV they are in the column called name or micrograph, else in the first; of one with a
    column ``state``, such as micrographs.csv, those that are complete. Of any other file each line
    is a name; empty lines and those that begin with # are none. Raises `UserError` where there is
    no name.
    """
    suffix = path.suffix.lower()
    if suffix == ".star":
        raise UserError(f"--complete {path} is a STAR: give a text with a name a line, or a CSV")
    if suffix == ".csv":
        rows = _csv_rows(path)
        header = [cell.strip().casefold() for cell in rows[0]] if rows else []
        if {"name", "state"} <= set(header):
            names = [name for name, state in read_states(path).items() if state == COMPLETE]
        else:
            column = next((header.index(name) for name in NAME_COLUMNS if name in header), None)
            start, column = (0, 0) if column is None else (1, column)
            names = [row[column].strip() for row in rows[start:] if len(row) > column]
    else:
        names = [line.strip() for line in _text(path).splitlines()]
    names = [name for name in dict.fromkeys(names) if name and not name.startswith("#")]
    if not names:
        raise UserError(
            f"--complete {path} names no micrograph: write a name on each line, such as a.mrc"
        )
    return tuple(names)


def _csv_rows(path: Path) -> list[list[str]]:
    try:
        return [row for row in csv.reader(io.StringIO(_text(path)), strict=True) if any(row)]
    except csv.Error as error:
        raise UserError(f"{path} is no CSV ({error}): mend it there") from error


def _text(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path} is {'a folder' if path.is_dir() else 'not there'}: give a file")
    return read_text(path)
