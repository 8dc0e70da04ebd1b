"""CryoPPP's CSV: X-Coordinate, Y-Coordinate and Diameter, in the JPEG's frame.

Ours may have two columns more: Score, and Micrograph where a file is of many. Where the diameter is
known otherwise, files of picks need no column of it.
"""

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from picking.errors import UserError
from picking.files import is_number, read_text
from picking.formats.picks import Picks, by_micrograph, known_diameters, valid, with_area

CENTRE, DIAMETER = ("x-coordinate", "y-coordinate"), "diameter"


def read_csv(path: Path) -> list[Picks]:
    """Read the picks of one micrograph, or of those that a column Micrograph names.

    Rows with a diameter of 0 or less are left out. Raises `UserError` for anything malformed.
    """
    rows, names, texts = _read_rows(path, CENTRE)
    try:
        scores = np.array([float(text or "nan") for text in texts], dtype=np.float64)
        if not valid(scores, unknown=True).all():
            raise ValueError("a number is too large")
    except ValueError as error:
        raise UserError(f"{path}: column Score: {error}: leave unknown scores empty") from error
    if "" in names:
        n = names.index("") + 1
        raise UserError(
            f"{path}: column Micrograph is empty in row {n} of {len(names)}: fill it in"
        )
    found = by_micrograph(names, rows[:, 1::-1], scores, rows[:, 2], path)  # x, y -> y, x
    return [with_area(one, ~(one.diameters_px <= 0)) for one in found]


def read_csv_of_one(path: Path) -> Picks:
    """Read the particles of the one micrograph of a data set that the file belongs to."""
    rows, _, _ = _read_rows(path, (*CENTRE, DIAMETER))
    unknown = np.full(len(rows), math.nan)
    return with_area(Picks(path.stem, rows[:, 1::-1], unknown, rows[:, 2], None))


def _read_rows(path: Path, columns: Sequence[str]) -> tuple[np.ndarray, list[str], list[str]]:
    """Return float64 (n, 3) of x, y and diameter, and the texts of Micrograph and Score.

    columns: that must be there. Without a diameter it is NaN; without such a column the micrograph
    is the one that the file is named after, the score empty.
    """
    rows, names, scores = [], [], []
    text = read_text(path)
    try:
        for delimiter in ",;\t":
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
            header = _header(reader, columns)
            if header:
                break
        else:
            missing = [name for name in columns if name not in _plain(text)] or columns
            *others, last = (name.title() for name in columns)
            raise UserError(
                f"{path} has no column {', '.join(missing)}: the header must name "
                f"{', '.join(others)} and {last}, each once, in px from the top left"
            )
        for line in filter(any, reader):
            cells = dict(zip(header, line, strict=False))
            numbers = [cells.get(name, "") for name in (*CENTRE, DIAMETER, "score")]
            if delimiter != ",":  # which then stands in numbers for a point
                numbers = [cell.replace(",", ".") for cell in numbers]
            try:
                row = [float(cell) for cell in numbers[: 3 if DIAMETER in header else 2]]
            except ValueError:
                row = [math.nan]
            if not all(map(is_number, row)) or any(line[len(header) :]):
                raise UserError(
                    f"{path}, line {reader.line_num}: finite numbers are needed, and as many cells "
                    f"as the header has, not {','.join(line)[:60]!r}"
                )
            rows.append([*row, math.nan][:3])
            named = "micrograph" in header
            names.append(cells.get("micrograph", "").strip() if named else path.stem)
            scores.append(numbers[3].strip())
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as CSV ({error}): write it again") from error
    return np.array(rows, dtype=np.float64).reshape(-1, 3), names, scores


def _header(reader: Iterator[list[str]], columns: Sequence[str]) -> list[str]:
    """Return the first line that names all ``columns``, plainly; what stands above is a title."""
    for line in reader:
        header = [_plain(cell.strip()) for cell in line]
        if all(header.count(name) == 1 for name in columns) and header.count(DIAMETER) < 2:
            return header
    return []


def _plain(text: str) -> str:
    """Return names of columns in lower case, with hyphens: X_Coordinate is x-coordinate."""
    return re.sub("[ _]", "-", text.lower())


def csv_text(picks: Sequence[Picks], names: Sequence[str] | None) -> str:
    """Return a CSV with CryoPPP's columns and Score and, where ``names`` is given, Micrograph."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = ["X-Coordinate", "Y-Coordinate", "Diameter", "Score"]
    writer.writerow(["Micrograph", *header] if names else header)
    for i, p in enumerate(picks):
        first = [names[i]] if names else []
        for (y, x), side, score in zip(p.centres_px, known_diameters(p), p.scores, strict=True):
            shown = "" if math.isnan(score) else f"{score:.6f}"
            writer.writerow([*first, f"{x:.3f}", f"{y:.3f}", f"{side:.3f}", shown])
    return text.getvalue()
