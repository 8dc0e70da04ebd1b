"""The tables of a STAR file as they stand: every block, every loop, names letter for letter.

`starfile` keeps the last of two blocks of one name, passes over a loop that follows single values
in its block, fills up a row that was cut short, and ends a name at its ``#``. So what others wrote
is read here; what is ours `starfile` writes.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from picking.errors import UserError
from picking.files import read_text
from picking.formats.picks import valid

# Quotes end where a space follows, so John's.mrc is a name; a comment starts a word, as in scan#1
CELL = re.compile(r"\"(.*?)\"(?!\S)|'(.*?)'(?!\S)|#.*|(\S+)", re.ASCII)
WORD = re.compile(r"\S+", re.ASCII)  # other spaces than these few may be in names
OF_TOMOGRAMS = ("rlnTomoName", "rlnCenteredCoordinate")
NO_NUMBER = ("", "nan", "NaN", "<NA>")


@dataclasses.dataclass
class Table:
    """A loop of a block, or its single values, which are a table of one row.

    values: the single values. lines: the rows of a loop with their line numbers; elsewhere, lines
    that belong to nothing.
    """

    path: Path
    block: str
    is_loop: bool
    labels: list[str] = dataclasses.field(default_factory=list)
    values: list[str] = dataclasses.field(default_factory=list)
    lines: list[tuple[int, str]] = dataclasses.field(default_factory=list)

    def cells(self, labels: Sequence[str]) -> dict[str, list[str]]:
        """Return the columns of those ``labels`` that are there, as texts.

        Raises `UserError` for a row with more or fewer cells than there are columns.
        """
        where = f"{self.path}, block data_{self.block}"
        twice = [label for label in self.labels if self.labels.count(label) > 1]
        if twice:
            raise UserError(f"{where}: column _{twice[0]} stands twice: remove one")
        places = {label: self.labels.index(label) for label in labels if label in self.labels}
        columns: dict[str, list[str]] = {label: [] for label in places}
        for label, place in places.items() if self.values else ():
            columns[label].append(self.values[place])
        for number, line in self.lines:
            row = _cells(line)
            if len(row) != len(self.labels) or not self.is_loop:
                raise UserError(
                    f"{where}, line {number}: {line[:60]!r} is no row of {len(self.labels)} "
                    "columns: mend that line, or copy the file again"
                )
            for label, place in places.items():
                columns[label].append(row[place])
        return columns


def read_tables(path: Path) -> list[Table]:
    """Return the tables of a STAR file in their order; raises `UserError` for no text file."""
    tables: list[Table] = []
    block, begun = "", False
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        word = WORD.search(line)
        if word is None or word[0].startswith("#"):
            continue
        first, rest = word[0], line[word.end() :].lstrip()
        alone = not rest or rest.startswith("#")
        if first.lower().startswith("data_") and alone:
            block, begun = first[len("data_") :], False
            continue
        if first.lower() == "loop_" and alone:
            tables.append(Table(path, block, is_loop=True))
            begun = True
            continue
        if not begun:
            tables.append(Table(path, block, is_loop=False))
            begun = True
        table = tables[-1]
        if first.startswith("_") and (not table.is_loop or (alone and not table.lines)):
            table.labels.append(first[1:])
            if not table.is_loop:
                table.values.append(" ".join(_cells(line)[1:]))
        else:
            table.lines.append((number, line.strip(" \t")))
    return tables


def tables_with(
    path: Path, labels: Sequence[str], tables: Sequence[Table] | None = None
) -> list[Table]:
    """Return those of the ``tables`` of a STAR file, or of all, that have columns of these labels.

    Raises `UserError` where there is none, and where a table has some of the labels only.
    """
    tables = read_tables(path) if tables is None else tables
    for table in tables:
        there = [label for label in labels if label in table.labels]
        missing = [f"_{label}" for label in labels if label not in table.labels]
        if there and missing:
            raise UserError(
                f"{path}, block data_{table.block}: _{there[0]} is there, {', '.join(missing)} is "
                "not: write or copy the file again"
            )
        if not table.labels and table.lines:
            number, line = table.lines[0]
            raise UserError(
                f"{path}, line {number}: {line[:60]!r} belongs to no table: mend or remove it"
            )
        if any(label.startswith(OF_TOMOGRAMS) for label in table.labels):
            raise UserError(
                f"{path}, block data_{table.block}: these are particles of tomograms: give "
                "coordinates on micrographs"
            )
    found = [table for table in tables if set(labels) <= set(table.labels)]
    if not found:
        if any(label.startswith("cisTEM") for table in tables for label in table.labels):
            raise UserError(
                f"{path} is of cisTEM, whose positions are in Å: write them divided by the pixel "
                "size as _rlnCoordinateX and _rlnCoordinateY, with _rlnMicrographName"
            )
        names = ", ".join(f"_{label}" for label in labels)
        raise UserError(f"{path} has no table with {names}: give a file of coordinates")
    return found


def numbers(
    cells: dict[str, list[str]], label: str, n: int, path: Path, needed: bool = False
) -> np.ndarray:
    """Return a column as float64 (n,); NaN where it is not there, an error if it is needed."""
    if label not in cells:
        return np.full(n, math.nan)
    texts = ["nan" if text in NO_NUMBER else text for text in cells[label]]
    try:
        values = np.array(texts, dtype=np.float64)
    except ValueError as error:
        raise UserError(
            f"{path}: column _{label} holds no numbers ({error}): write or copy the file again"
        ) from error
    bad = np.flatnonzero(~valid(values, unknown=not needed))
    if len(bad):
        raise UserError(
            f"{path}: column _{label} has no finite number in row {bad[0] + 1} of {n}: "
            "write or copy the file again"
        )
    return values


def _cells(line: str) -> list[str]:
    if not any(mark in line for mark in "\"'#"):
        return WORD.findall(line)
    found = CELL.finditer(line)
    return [match[match.lastindex] for match in found if match.lastindex is not None]
