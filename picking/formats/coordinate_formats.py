"""The five formats of picks: a file <-> one record per micrograph, in the frame of the file.

What turns frames, finds names and writes the files is `coordinates.py`: use that.
"""

import csv
import dataclasses
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from picking.errors import UserError
from picking.files import LARGEST_PX, read_json
from picking.formats.annotations import MAX_SHARE_MISSING, read_coordinates_csv

# What the files say of their frame; BOX and CSV have no room for it.
FRAME_NOTE = {
    "mrc": "y in the MRC's frame: the height of the micrograph less y of the JPEG; unbinned px",
    "jpeg": "y in the JPEG's frame: origin top left, y down; px of the original image",
}
DIAMETER_LABEL = "pickDiameterPx"  # no label of RELION's, which warns of it and keeps it
RELION_NO_SCORE = -999  # of picks made by hand, in RELION and in EMAN
EMAN_NO_SCORE = -3
BOX_COLUMNS = ("CoordinateX", "CoordinateY", "Width", "Height")


@dataclasses.dataclass(frozen=True)
class Picks:
    """The picks of one micrograph, or its particles where they are the truth.

    name: the micrograph's file name.
    centres_px: float64 (n, 2), (y, x), in the JPEG's frame outside this module.
    scores: float64 (n,), NaN where unknown.
    diameters_px: float64 (n,), NaN where unknown.
    size_px: (height, width) of the micrograph where known.
    """

    name: str
    centres_px: np.ndarray
    scores: np.ndarray
    diameters_px: np.ndarray
    size_px: tuple[int, int] | None


# Reading


def read_star(path: Path) -> list[Picks]:
    """Read the first table with RELION's coordinates: of RELION 3.0, 3.1 and later, of cryoSPARC.

    Without a column of micrographs the file is of the one that it is named after.
    """
    tables = _star_tables(path)
    for table in tables:
        if {"rlnCoordinateX", "rlnCoordinateY"} <= set(table):
            break
    else:
        if any("rlnMicrographCoordinates" in table for table in tables):
            raise UserError(
                f"{path} is RELION's list of coordinate files: give those files themselves"
            )
        raise UserError(
            f"{path} has no table with _rlnCoordinateX and _rlnCoordinateY: give a STAR file of "
            "coordinates or particles"
        )
    centres = np.stack(
        [_numbers(table, f"rlnCoordinate{axis}", path, needed=True) for axis in "YX"], axis=1
    )
    scores = _numbers(table, "rlnAutopickFigureOfMerit", path)
    scores[scores == RELION_NO_SCORE] = math.nan
    names = table.get("rlnMicrographName", [path.stem] * len(centres))
    return _by_micrograph(names, centres, scores, _numbers(table, DIAMETER_LABEL, path), path)


def read_cbox(path: Path) -> list[Picks]:
    """Read crYOLO's boxes of one micrograph; its estimate of the size goes before the box's."""
    if not re.search(r"^\s*data_", _text(path), re.MULTILINE):
        return read_box(path)  # of older crYOLO: the columns of a BOX file, then others
    for table in _star_tables(path):
        if set(BOX_COLUMNS) <= set(table):
            break
    else:
        raise UserError(
            f"{path} has no table with {', '.join('_' + name for name in BOX_COLUMNS)}: give a "
            "CBOX file as crYOLO writes it"
        )
    boxes = np.stack([_numbers(table, name, path, needed=True) for name in BOX_COLUMNS], axis=1)
    estimates = [_numbers(table, name, path) for name in ("EstWidth", "EstHeight")]
    scores = _numbers(table, "Confidence", path)
    return [_from_boxes(path.stem, boxes, scores, estimates=np.mean(estimates, axis=0))]


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
        if not _valid(np.array(row[:4])).all() or not _valid(row[4], unknown=True):
            raise UserError(
                f"{path}, line {number}: x, y, width and height of a box are needed, and perhaps a "
                f"score, not {line.strip()[:60]!r}"
            )
        rows.append(row)
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    scores = table[:, 4]
    if (scores == EMAN_NO_SCORE).all():
        scores = np.full(len(scores), math.nan)
    return [_from_boxes(path.stem, table[:, :4], scores)]


def read_csv(path: Path) -> list[Picks]:
    """Read CryoPPP's CSV, of one micrograph or with a column Micrograph, perhaps with a Score."""
    rows = read_coordinates_csv(path)
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = [cell.strip().lower() for cell in next(reader)]
        lines = [dict(zip(header, line, strict=False)) for line in reader if line]
    try:
        scores = np.array([float(line.get("score", "").strip() or "nan") for line in lines])
        if not _valid(scores, unknown=True).all():
            raise ValueError("a number is too large")
    except ValueError as error:
        raise UserError(f"{path}: column Score: {error}: leave unknown scores empty") from error
    names = np.array([line.get("micrograph", path.stem).strip() for line in lines], dtype=str)
    keep = rows[:, 2] > 0
    centres = rows[keep][:, 1::-1]  # x, y -> y, x
    return _by_micrograph(names[keep], centres, scores[keep], rows[keep, 2], path)


def read_coco(path: Path) -> list[Picks]:
    """Read a COCO JSON; an image whose only boxes have no area is not annotated and is left out.

    As in `annotations.py`, `iscrowd` and `area` are not looked at.
    """
    content = read_json(path)
    n_orphaned = 0
    try:
        images = {image["id"]: image for image in content["images"]}
        names = {key: str(image["file_name"]) for key, image in images.items()}
        sizes = {key: (int(i["height"]), int(i["width"])) for key, i in images.items()}
        if any(not 0 < px < LARGEST_PX for size in sizes.values() for px in size):
            raise ValueError("the height or width of an image is no number of px")
        boxes: dict[Any, list] = {key: [] for key in images}
        for annotation in content["annotations"]:
            x, y, width, height = map(float, annotation["bbox"])
            score = annotation.get("score")
            row = [x, y, width, height, math.nan if score is None else float(score)]
            if annotation["image_id"] in boxes:
                boxes[annotation["image_id"]].append(row)
            else:
                n_orphaned += 1
    except KeyError as error:
        raise UserError(
            f"{path}: {error} is missing: an image has id, file_name, width and height, an "
            "annotation image_id and bbox"
        ) from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{path} is not in the COCO format ({error}): 'images' and 'annotations' are lists of "
            "objects, and a 'bbox' is four numbers [x, y, width, height]"
        ) from error
    if len(images) < len(content["images"]):
        raise UserError(f"{path}: two images have one id: give each an id of its own")
    if n_orphaned > MAX_SHARE_MISSING * len(content["annotations"]):
        raise UserError(
            f"{path}: {n_orphaned} of {len(content['annotations'])} annotations name an image_id "
            "that is not under 'images': check that both come from the same export"
        )
    picks = []
    for key, rows in boxes.items():
        table = np.array(rows, dtype=np.float64).reshape(-1, 5)
        if not (_valid(table[:, :4]).all() and _valid(table[:, 4], unknown=True).all()):
            raise UserError(
                f"{path}: {names[key]} has a bbox that is not finite, or a score: write it again"
            )
        found = _from_boxes(names[key], table[:, :4], table[:, 4], size_px=sizes[key])
        if len(found.centres_px) or not rows:
            picks.append(found)
    return picks


READERS: dict[str, Callable[[Path], list[Picks]]] = {
    ".star": read_star,
    ".box": read_box,
    ".cbox": read_cbox,
    ".csv": read_csv,
    ".json": read_coco,
}


def _from_boxes(
    name: str,
    boxes: np.ndarray,
    scores: np.ndarray,
    estimates: np.ndarray | None = None,
    size_px: tuple[int, int] | None = None,
) -> Picks:
    """Return picks from (n, 4) boxes: x and y of the corner nearest the origin, width, height.

    ``estimates`` are diameters that go before the mean of width and height where they are > 0.
    """
    keep = (boxes[:, 2] > 0) & (boxes[:, 3] > 0)
    sides = boxes[:, 2:].mean(axis=1)
    diameters = sides if estimates is None else np.where(estimates > 0, estimates, sides)
    centres = boxes[:, 1::-1] + boxes[:, :1:-1] / 2  # (y, x) + (h, w) / 2
    return Picks(name, centres[keep], scores[keep], diameters[keep], size_px)


def _by_micrograph(
    names: Iterable[str],
    centres: np.ndarray,
    scores: np.ndarray,
    diameters: np.ndarray,
    path: Path,
) -> list[Picks]:
    """Split rows of many micrographs; a file without rows is of one micrograph without picks."""
    if not len(centres):
        return [Picks(path.stem, centres, scores, diameters, None)]
    unique, which = np.unique(np.asarray(names, dtype=str), return_inverse=True)
    rows = np.split(np.argsort(which, kind="stable"), np.cumsum(np.bincount(which))[:-1])
    return [
        Picks(str(name), centres[row], scores[row], diameters[row], None)
        for name, row in zip(unique, rows, strict=True)
    ]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text file ({error}): write or copy it again") from error


def _star_tables(path: Path) -> list[Any]:
    """Return the tables (pandas) of a STAR file; blocks of single values are left out."""
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
    return tables


def _valid(values: Any, unknown: bool = False) -> Any:
    """Return which values are finite numbers of a sane size; NaN is one too where ``unknown``."""
    return (np.abs(values) < LARGEST_PX) | (np.isnan(values) & unknown)


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
    bad = np.flatnonzero(~_valid(values, unknown=not needed))
    if len(bad):
        raise UserError(
            f"{path}: column _{column} has no finite number in row {bad[0] + 1} of {len(values)}: "
            "write or copy the file again"
        )
    return values


# Writing: of one micrograph or, for STAR, CSV and COCO, of many


def star_text(picks: Sequence[Picks], names: Sequence[str]) -> str:
    """Return a STAR file; scores are figures of merit, ``names`` those of the MRCs."""
    import pandas as pd

    centres = np.concatenate([np.empty((0, 2)), *(p.centres_px for p in picks)])
    scores = np.concatenate([[], *(p.scores for p in picks)])
    diameters = np.concatenate([[], *(p.diameters_px for p in picks)])
    of_row = [name for name, p in zip(names, picks, strict=True) for _ in p.scores]
    columns: dict[str, Any] = {
        "rlnMicrographName": of_row,
        "rlnCoordinateX": centres[:, 1],
        "rlnCoordinateY": centres[:, 0],
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

    diameters = _diameters(picks)
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
    diameters = _diameters(picks)
    corners = picks.centres_px - diameters[:, None] / 2
    lines = []
    for (y, x), side, score in zip(corners, diameters, picks.scores, strict=True):
        end = "" if math.isnan(score) else f"\t{score:.6g}"
        lines.append(f"{x:.3f}\t{y:.3f}\t{side:.3f}\t{side:.3f}{end}\n")
    return "".join(lines)


def csv_text(picks: Sequence[Picks], names: Sequence[str] | None) -> str:
    """Return a CSV with CryoPPP's columns and Score and, where ``names`` is given, Micrograph."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = ["X-Coordinate", "Y-Coordinate", "Diameter", "Score"]
    writer.writerow(["Micrograph", *header] if names else header)
    for i, p in enumerate(picks):
        first = [names[i]] if names else []
        for (y, x), side, score in zip(p.centres_px, _diameters(p), p.scores, strict=True):
            shown = "" if math.isnan(score) else f"{score:.6f}"
            writer.writerow([*first, f"{x:.3f}", f"{y:.3f}", f"{side:.3f}", shown])
    return text.getvalue()


def coco_text(picks: Sequence[Picks]) -> str:
    """Return a COCO JSON; every micrograph is an image, whether it has picks or not."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i, p in enumerate(picks, start=1):
        if p.size_px is None:
            raise UserError(f"{p.name}: its size is unknown, but COCO states it: give the image")
        height, width = p.size_px
        images.append({"id": i, "file_name": p.name, "height": height, "width": width})
        for (y, x), side, score in zip(p.centres_px, _diameters(p), p.scores, strict=True):
            box = [round(float(v), 4) for v in (x - side / 2, y - side / 2, side, side)]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": i, "category_id": 1, "bbox": box,
                 "area": round(float(side**2), 4), "iscrowd": 0}
            )  # fmt: skip
            if not math.isnan(score):
                annotations[-1]["score"] = round(float(score), 6)
    content = {
        "info": {"description": "particle picks", "frame": FRAME_NOTE["jpeg"]},
        "categories": [{"id": 1, "name": "particle"}],
        "images": images,
        "annotations": annotations,
    }
    return json.dumps(content, allow_nan=False) + "\n"


def _star_file(blocks: dict[str, Any]) -> str:
    """Return the text; its first line says the frame, not the time, by which two runs differ."""
    import starfile

    _, _, text = starfile.to_string(blocks).partition("\n")
    return f"# {FRAME_NOTE['mrc']}\n{text}"


def _diameters(picks: Picks) -> np.ndarray:
    if not (picks.diameters_px > 0).all():
        raise UserError(f"{picks.name}: picks without a diameter: give the particle's diameter")
    return picks.diameters_px
