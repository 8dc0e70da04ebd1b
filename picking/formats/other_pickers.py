"""Coordinates as Topaz and EMAN2 write them, both in the MRC's frame.

Topaz's are the indices (x, y) of pixels in the array that it read. The first row of an MRC is y = 0
there, since Topaz does not turn it (`topaz/mrc.py`); the top row of a TIFF or PNG is, so picks made
on those need the frame `jpeg`. EMAN2 counts from the bottom whatever the image is.
"""

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from picking.errors import UserError
from picking.files import is_number, read_json, read_text
from picking.formats.picks import Picks, by_micrograph, valid

TOPAZ_COLUMNS = ("image_name", "x_coord", "y_coord")
EMAN_INFO = "_info"  # behind the name of the micrograph, and before .json
EMAN_BOXES = ("boxes", "boxes_rct")  # of e2boxer; of tilt pairs


def is_topaz(path: Path) -> bool:
    """Return whether a .csv or .tsv begins as Topaz's tables do; of its .txt the ending tells."""
    if path.suffix.lower() not in (".csv", ".tsv") or not path.is_file():
        return False
    with path.open("rb") as file:  # its first line alone: there may be a file for each micrograph
        header = file.readline().replace(b"\0", b"")  # which UTF-16 has between letters
    return all(name.encode() in header for name in TOPAZ_COLUMNS)


def read_topaz(path: Path) -> list[Picks]:
    """Read Topaz's table of picks: image_name, x_coord, y_coord and maybe score.

    `topaz extract` separates them by tabs, `topaz convert` to .csv by commas.
    """
    text = read_text(path)
    form: dict[str, Any] = {"delimiter": ","}
    if "\t" in text.partition("\n")[0]:  # names may have quotes there
        form = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    reader = csv.reader(io.StringIO(text, newline=""), **form)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        if not set(TOPAZ_COLUMNS) <= set(header):
            raise UserError(
                f"{path} is no table of Topaz's: its first line must name "
                f"{', '.join(TOPAZ_COLUMNS)}, separated by tabs or commas"
            )
        if "z_coord" in header:
            raise UserError(f"{path} is of tomograms (z_coord): give picks of micrographs")
        columns = [header.index(name) for name in TOPAZ_COLUMNS]
        score_column = header.index("score") if "score" in header else None
        names, rows = [], []
        for line in filter(None, reader):
            row = [math.nan] * 3
            try:
                name, x, y = (line[column].strip() for column in columns)
                row = [float(y), float(x), math.nan]
                if score_column is not None and line[score_column].strip():
                    row[2] = float(line[score_column])
            except (ValueError, IndexError):
                name = ""
            if not (name and valid(np.array(row[:2])).all() and valid(row[2], unknown=True)):
                raise UserError(
                    f"{path}, line {reader.line_num}: a name, x, y and perhaps a score are "
                    f"needed, not {' '.join(line)[:60]!r}"
                )
            names.append(name)
            rows.append(row)
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as text ({error}): copy it again") from error
    table = np.array(rows, dtype=np.float64).reshape(-1, 3)
    unknown = np.full(len(table), math.nan)
    return by_micrograph(names, table[:, :2], table[:, 2], unknown, path)


def is_eman(path: Path) -> bool:
    """Return whether a .json is an info file of EMAN2, not a COCO JSON."""
    if not path.stem.endswith(EMAN_INFO) and b'"boxes' not in path.read_bytes():
        return False
    content = read_json(path)
    return isinstance(content, dict) and not {"images", "annotations"} & content.keys()


def read_eman(path: Path) -> list[Picks]:
    """Read the boxes of an info file of EMAN2: [x, y, type] of each centre.

    Without a list of boxes nothing is known of the micrograph, and there is no record.
    """
    content = read_json(path)
    lists = [content[key] for key in EMAN_BOXES if content.get(key)]
    lists += [content[key] for key in EMAN_BOXES if key in content and not lists]
    if not lists:
        if any(key.startswith("boxes") for key in content):
            raise UserError(f"{path} has boxes of a tomogram alone: give those of micrographs")
        return []
    if not isinstance(lists[0], list):
        raise UserError(f"{path}: its boxes must be a list of [x, y, type]: write it again")
    for n, box in enumerate(lists[0]):
        if not (isinstance(box, list) and len(box) >= 2 and all(map(is_number, box[:2]))):
            raise UserError(f"{path}: boxes[{n}] must be [x, y, type], not {str(box)[:60]}")
    name = path.stem.removesuffix(EMAN_INFO)
    boxes: list[Any] = [box[1::-1] for box in lists[0]]
    centres = np.array(boxes, dtype=np.float64).reshape(-1, 2)
    unknown = np.full(len(centres), math.nan)
    return [Picks(name, centres, unknown, unknown, None)]
