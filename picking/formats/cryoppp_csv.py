"""CryoPPP's CSV: X-Coordinate, Y-Coordinate and Diameter, in the JPEG's frame.

Ours may have two columns more: Score, and Micrograph where a file is of many.
"""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from picking.errors import UserError
from picking.files import is_number
from picking.formats.picks import Picks, by_micrograph, known_diameters, valid

COLUMNS = ("x-coordinate", "y-coordinate", "diameter")


def read_csv(path: Path) -> list[Picks]:
    """Read the picks of one micrograph, or of those that a column Micrograph names.

    Rows without a diameter are left out. Raises `UserError` for anything malformed.
    """
    rows, names, texts = _read_rows(path)
    try:
        scores = np.array([float(text or "nan") for text in texts], dtype=np.float64)
        if not valid(scores, unknown=True).all():
            raise ValueError("a number is too large")
    except ValueError as error:
        raise UserError(f"{path}: column Score: {error}: leave unknown scores empty") from error
    keep = rows[:, 2] > 0
    centres = rows[keep][:, 1::-1]  # x, y -> y, x
    return by_micrograph(np.array(names)[keep], centres, scores[keep], rows[keep, 2], path)


def read_csv_of_one(path: Path) -> Picks:
    """Read the particles of the one micrograph of a data set that the file belongs to."""
    rows, _, _ = _read_rows(path)
    keep = rows[:, 2] > 0
    unknown, n_zero = np.full(int(keep.sum()), math.nan), int((~keep).sum())
    return Picks(path.stem, rows[keep][:, 1::-1], unknown, rows[keep, 2], None, n_zero)


def _read_rows(path: Path) -> tuple[np.ndarray, list[str], list[str]]:
    """Return float64 (n, 3) of x, y and diameter, and the texts of Micrograph and Score.

    Without such a column the micrograph is the one that the file is named after, the score empty.
    """
    rows, names, scores = [], [], []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [cell.strip().lower() for cell in next(reader, [])]
            missing = [name for name in COLUMNS if name not in header]
            if missing:
                raise UserError(
                    f"{path} has no column {', '.join(missing)}: the header must name "
                    "X-Coordinate, Y-Coordinate and Diameter"
                )
            columns = [header.index(name) for name in COLUMNS]
            for line in filter(None, reader):
                try:
                    row = [float(line[column]) for column in columns]
                except (ValueError, IndexError):
                    row = [math.nan]
                if not all(map(is_number, row)):
                    raise UserError(
                        f"{path}, line {reader.line_num}: three finite numbers are needed, "
                        f"not {','.join(line)[:60]!r}"
                    )
                cells = dict(zip(header, line, strict=False))
                rows.append(row)
                names.append(cells["micrograph"].strip() if "micrograph" in cells else path.stem)
                scores.append(cells.get("score", "").strip())
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV ({error}): write it again") from error
    return np.array(rows, dtype=np.float64).reshape(-1, 3), names, scores


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
