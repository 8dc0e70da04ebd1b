"""STAR of RELION and cryoSPARC, CBOX of crYOLO, BOX of EMAN: all in the MRC's frame.

In the MRC's frame y counts from the file's first row, which is the last row of the JPEG; corners of
boxes are those nearest to its origin.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from picking.errors import UserError
from picking.formats.picks import Picks, by_micrograph, from_boxes, known_diameters, valid

FRAME = "y in the MRC's frame: the height of the micrograph less y of the JPEG; unbinned px"
DIAMETER_LABEL = "pickDiameterPx"  # no label of RELION's, which warns of it and keeps it
RELION_NO_SCORE = -999  # of picks made by hand, in RELION and in EMAN
EMAN_NO_SCORE = -3
BOX_COLUMNS = ("CoordinateX", "CoordinateY", "Width", "Height")


# Reading


def read_star(path: Path) -> list[Picks]:
    """Read the first table with RELION's coordinates: of RELION 3.0, 3.1 and later, of cryoSPARC.

    Without a column of micrographs the file is of the one that it is named after.
    """
    table = _star_table(path, ("rlnCoordinateX", "rlnCoordinateY"))
    centres = np.stack(
        [_numbers(table, f"rlnCoordinate{axis}", path, needed=True) for axis in "YX"], axis=1
    )
    scores = _numbers(table, "rlnAutopickFigureOfMerit", path)
    scores[scores == RELION_NO_SCORE] = math.nan
    names = table.get("rlnMicrographName", [path.stem] * len(centres))
    return by_micrograph(names, centres, scores, _numbers(table, DIAMETER_LABEL, path), path)


def read_cbox(path: Path) -> list[Picks]:
    """Read crYOLO's boxes of one micrograph; the diameter is its own estimate where it has one."""
    if not re.search(r"^\s*data_", _text(path), re.MULTILINE):
        return read_box(path)  # of older crYOLO: the columns of a BOX file, then others
    table = _star_table(path, BOX_COLUMNS)
    boxes = np.stack([_numbers(table, name, path, needed=True) for name in BOX_COLUMNS], axis=1)
    estimates = [_numbers(table, name, path) for name in ("EstWidth", "EstHeight")]
    scores = _numbers(table, "Confidence", path)
    return [from_boxes(path.stem, boxes, scores, estimates=np.mean(estimates, axis=0))]


def read_box(path: Path) -> list[Picks]:
    """Read EMAN's boxes of one micrograph: corner x, corner y, width, height, perhaps a score."""
    rows = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        cells = line.replace(",", " ").split()
        if not cells or cells[0].startswith("#"):
            continue
        try:
            row = [float(cell) for cell in cells[:5]]
        except ValueError:
            row = []
        row = [*row, math.nan][:5] if len(row) >= 4 else [math.nan] * 5
        if not valid(np.array(row[:4])).all() or not valid(row[4], unknown=True):
            raise UserError(
                f"{path}, line {number}: x, y, width and height of a box are needed, and perhaps a "
                f"score, not {line.strip()[:60]!r}"
            )
        rows.append(row)
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    scores = table[:, 4]
    if (scores == EMAN_NO_SCORE).all():
        scores = np.full(len(scores), math.nan)
    return [from_boxes(path.stem, table[:, :4], scores)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text file ({error}): write or copy it again") from error


def _star_table(path: Path, columns: Sequence[str]) -> Any:
    """Return the first table (pandas) of a STAR file that has these columns."""
    import starfile

    _text(path)
    try:
        blocks = starfile.read(path, always_dict=True, parse_as_string=["rlnMicrographName"])
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise UserError(
            f"{path} cannot be read as STAR ({str(error).strip()}): write or copy it again"
        ) from error
    tables = [block for block in blocks.values() if hasattr(block, "columns")]
    for table in tables:
        twice = table.columns[table.columns.duplicated()]
        if len(twice):
            raise UserError(f"{path}: column _{twice[0]} stands twice: remove one")
        if set(columns) <= set(table):
            return table
    if any("rlnMicrographCoordinates" in table for table in tables):
        raise UserError(f"{path} is RELION's list of coordinate files: give those files themselves")
    names = ", ".join(f"_{name}" for name in columns)
    raise UserError(f"{path} has no table with {names}: give a file of coordinates or particles")


def _numbers(table: Any, column: str, path: Path, needed: bool = False) -> np.ndarray:
    """Return a column as float64 (n,); NaN where it is not there, an error if it is needed."""
    if column not in table:
        return np.full(len(table), math.nan)
    try:
        values = np.array(table[column], dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(
            f"{path}: column _{column} holds no numbers ({error}): write or copy the file again"
        ) from error
    bad = np.flatnonzero(~valid(values, unknown=not needed))
    if len(bad):
        raise UserError(
            f"{path}: column _{column} has no finite number in row {bad[0] + 1} of {len(values)}: "
            "write or copy the file again"
        )
    return values


# Writing


def star_text(picks: Sequence[Picks], names: Sequence[str]) -> str:
    """Return a STAR file; scores are figures of merit, ``names`` those of the MRCs."""
    import pandas as pd

    centres = np.concatenate([np.empty((0, 2)), *(p.centres_px for p in picks)])
    scores = np.concatenate([[], *(p.scores for p in picks)])
    diameters = np.concatenate([[], *(p.diameters_px for p in picks)])
    # starfile quotes names with a space, but reads what follows # as a comment
    quoted = [f'"{name}"' if "#" in name and " " not in name else name for name in names]
    of_row = [name for name, p in zip(quoted, picks, strict=True) for _ in p.scores]
    # The first column holds no name: a line that begins with data_ or _ is no row to a reader
    columns: dict[str, Any] = {
        "rlnCoordinateX": centres[:, 1],
        "rlnCoordinateY": centres[:, 0],
        "rlnMicrographName": of_row,
        "rlnAutopickFigureOfMerit": np.nan_to_num(scores, nan=RELION_NO_SCORE),
        # RELION's pickers write these too; without them it cannot join these picks with others.
        "rlnClassNumber": 0,
        "rlnAnglePsi": 0.0,
    }
    if np.isfinite(diameters).all():
        columns[DIAMETER_LABEL] = diameters
    return _star_file({"": pd.DataFrame(columns)})


def cbox_text(picks: Picks) -> str:
    """Return a CBOX file with the blocks and columns that crYOLO reads."""
    import pandas as pd

    diameters = known_diameters(picks)
    y, x = (picks.centres_px - diameters[:, None] / 2).T
    table = pd.DataFrame(
        {
            "CoordinateX": x,
            "CoordinateY": y,
            "CoordinateZ": math.nan,
            "Width": diameters,
            "Height": diameters,
            "Depth": 1.0,
            "EstWidth": diameters,
            "EstHeight": diameters,
            "Confidence": picks.scores,
            "NumBoxes": math.nan,
            "Angle": math.nan,
        }
    )
    version = {"cbox_format_version": 1.0}
    slices = pd.DataFrame({"slice_index": []})
    return _star_file({"global": version, "cryolo": table, "cryolo_include": slices})


def box_text(picks: Picks) -> str:
    """Return a BOX file; a pick without a score has four columns only."""
    diameters = known_diameters(picks)
    corners = picks.centres_px - diameters[:, None] / 2
    lines = []
    for (y, x), side, score in zip(corners, diameters, picks.scores, strict=True):
        end = "" if math.isnan(score) else f"\t{score:.6g}"
        lines.append(f"{x:.3f}\t{y:.3f}\t{side:.3f}\t{side:.3f}{end}\n")
    return "".join(lines)


def _star_file(blocks: dict[str, Any]) -> str:
    """Return the text; its first line says the frame, not the time, by which two runs differ."""
    import starfile

    _, _, text = starfile.to_string(blocks).partition("\n")
    return f"# {FRAME}\n{text}"
