"""STAR of RELION and cryoSPARC, CBOX of crYOLO, BOX of EMAN: all in the MRC's frame.

In the MRC's frame y counts from the file's first row, which is the last row of the JPEG; corners of
boxes are those nearest to its origin.
"""

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from picking.errors import UserError
from picking.files import read_text
from picking.formats.picks import Picks, by_micrograph, from_boxes, known_diameters, valid
from picking.formats.relion.optics import optics_groups, origins_px, tell_of_other_px
from picking.formats.star_tables import Table, numbers, read_tables, tables_with

FRAME = "y in the MRC's frame: the height of the micrograph less y of the JPEG; unbinned px"
DIAMETER_LABEL = "pickDiameterPx"  # no label of RELION's, which warns of it and keeps it
RELION_NO_SCORE = -999  # of picks made by hand, in RELION and in EMAN
EMAN_NO_SCORE = -3
EMAN_HELIX_ENDS = (-1, -2)  # in place of a score: the start and the end of a helix
CENTRE = ("rlnCoordinateX", "rlnCoordinateY")
OTHERS = ("rlnAutopickFigureOfMerit", DIAMETER_LABEL, "rlnCoordinateZ")
BOX_COLUMNS = ("CoordinateX", "CoordinateY", "Width", "Height")


# Reading


def read_star(
    path: Path,
    is_micrograph: Callable[[str], bool] = bool,
    pixel_size_of: Callable[[str], float | None] = lambda name: None,
) -> list[Picks]:
    """Read all blocks with RELION's coordinates: of RELION 3.0, 3.1 and later, of cryoSPARC.

    A row is of the micrograph that it names or, without such a column, that its particle's image
    was cut from. Without either, blocks are of the micrographs that they are named after, where
    ``is_micrograph`` says so, and a single one of that which the file is named after. Where
    classification or refinement moved a particle, its centre is its coordinate less its origin,
    for which ``pixel_size_of`` tells a micrograph's Å per px where that is known. Warns where the
    file says another one.
    """
    all_tables = read_tables(path)
    tables, groups = tables_with(path, CENTRE, all_tables), optics_groups(all_tables)
    nameless = _names_of_blocks(path, tables, is_micrograph)
    names: list[str] = []
    parts = [np.empty((0, 4))]
    moves = [np.empty((0, 2))]
    for table in tables:
        cells = table.cells((*CENTRE, *OTHERS, "rlnMicrographName", "rlnImageName"))
        n = len(cells[CENTRE[0]])
        x, y = (numbers(cells, label, n, path, needed=True) for label in CENTRE)
        scores, diameters, z = (numbers(cells, label, n, path) for label in OTHERS)
        if np.nan_to_num(z).any():
            raise UserError(
                f"{path}, block data_{table.block}: rlnCoordinateZ is not 0, as it is in "
                "tomograms: give coordinates on micrographs"
            )
        scores[scores == RELION_NO_SCORE] = math.nan
        if "rlnMicrographName" in cells:
            of_row = cells["rlnMicrographName"]
        elif "rlnImageName" in cells:  # 000001@Extract/job003/Micrographs/a.mrcs
            of_row = [re.sub(r"^\d+@", "", name) for name in cells["rlnImageName"]]
        else:
            of_row = [nameless[table.block]] * n
        names += of_row
        tell_of_other_px(table, groups, of_row, pixel_size_of)
        moves.append(origins_px(table, groups, of_row, pixel_size_of))
        parts.append(np.stack([y, x, scores, diameters], axis=1))
    rows, moved_px = np.concatenate(parts), np.concatenate(moves)
    rows[:, :2] -= moved_px
    if n_moved := int(moved_px.any(axis=1).sum()):
        print(
            f"{path}: {n_moved:,} of {len(rows):,} particles were moved by classification or "
            "refinement; their origins are subtracted"
        )
    named = by_micrograph(names, rows[:, :2], rows[:, 2], rows[:, 3], path) if names else []
    without = np.empty((0, 2)), np.empty(0), np.empty(0), None
    empty = [Picks(name, *without) for name in nameless.values() if name not in set(names)]
    return [*named, *empty] or [Picks(path.stem, *without)]


def _names_of_blocks(
    path: Path, tables: Sequence[Table], is_micrograph: Callable[[str], bool]
) -> dict[str, str]:
    """Return block -> micrograph for the blocks without a column of micrographs.

    Raises `UserError` where there are several and their names are not those of micrographs.
    """
    blocks = [
        table.block
        for table in tables
        if not {"rlnMicrographName", "rlnImageName"} & set(table.labels)
    ]
    any_known = any(map(is_micrograph, blocks))
    if len(tables) == 1 and (is_micrograph(path.stem) or not any_known):
        return dict.fromkeys(blocks, path.stem)
    if blocks and not any_known:
        raise UserError(
            f"{path} has {len(tables)} blocks with coordinates, and nothing tells of which "
            f"micrograph data_{blocks[0]} is: add a column _rlnMicrographName, or give a file for "
            "each micrograph"
        )
    return {block: block for block in blocks}


def read_cbox(path: Path) -> list[Picks]:
    """Read crYOLO's boxes of one micrograph; the diameter is its own estimate where it has one."""
    if not re.search(r"^\s*data_", read_text(path), re.MULTILINE):
        return read_box(path)  # of older crYOLO: the columns of a BOX file, then others
    tables = tables_with(path, BOX_COLUMNS)
    if len(tables) > 1:
        blocks = ", ".join(f"data_{table.block}" for table in tables)
        raise UserError(
            f"{path} has {len(tables)} blocks with boxes ({blocks}), and a CBOX file is of one "
            "micrograph: give a file for each"
        )
    others = ("EstWidth", "EstHeight", "Confidence", "CoordinateZ", "filamentid")
    cells = tables[0].cells((*BOX_COLUMNS, *others))
    n = len(cells["Width"])
    boxes = [numbers(cells, label, n, path, needed=True) for label in BOX_COLUMNS]
    width, height, scores, z, filament = (numbers(cells, label, n, path) for label in others)
    for found, what in (
        (np.nan_to_num(z).any(), "tomograms"),
        (np.isfinite(filament).any(), "filaments"),
    ):
        if found:
            raise UserError(
                f"{path} holds boxes of {what}, which are no particles on a micrograph: give "
                "picks of single particles"
            )
    return [from_boxes(path.stem, np.stack(boxes, axis=1), scores, (width + height) / 2)]


def read_box(path: Path) -> list[Picks]:
    """Read EMAN's boxes of one micrograph: corner x, corner y, width, height, perhaps a score."""
    rows = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        cells = line.replace(",", " ").split()
        if not cells or cells[0].startswith("#"):
            continue
        try:
            row = [float(cell) for cell in cells[:5]]
        except ValueError:
            row = []
        row = [*row, math.nan][:5] if len(row) >= 4 else [math.nan] * 5
        has_decimal_commas = len(re.findall(r"\d,\d", line)) > 1 and len(line.split()) > 3
        if has_decimal_commas or not valid(np.array(row[:4])).all() or not valid(row[4], True):
            raise UserError(
                f"{path}, line {number}: x, y, width and height of a box are needed, and perhaps a "
                f"score, with decimal points, not {line.strip()[:60]!r}"
            )
        rows.append(row)
    table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    scores = table[:, 4]
    if set(EMAN_HELIX_ENDS) <= set(scores) <= {*EMAN_HELIX_ENDS, 0, EMAN_NO_SCORE}:
        raise UserError(
            f"{path}: the fifth column, -1 and -2, says that these are starts and ends of helices: "
            "give boxes of particles"
        )
    if (scores == EMAN_NO_SCORE).all():
        scores = np.full(len(scores), math.nan)
    return [from_boxes(path.stem, table[:, :4], scores)]


# Writing


def star_text(picks: Sequence[Picks], names: Sequence[str]) -> str:
    """Return a STAR file; scores are figures of merit, ``names`` those of the MRCs."""
    import pandas as pd

    return star_file({"": pd.DataFrame(star_columns(picks, names))})


def star_columns(picks: Sequence[Picks], names: Sequence[str]) -> dict[str, Any]:
    """Return the columns of `star_text`, by label."""
    centres = np.concatenate([np.empty((0, 2)), *(p.centres_px for p in picks)])
    scores = np.concatenate([[], *(p.scores for p in picks)])
    diameters = np.concatenate([[], *(p.diameters_px for p in picks)])
    of_row = [name for name, p in zip(quoted(names), picks, strict=True) for _ in p.scores]
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
    return columns


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
    return star_file({"global": version, "cryolo": table, "cryolo_include": slices})


def box_text(picks: Picks) -> str:
    """Return a BOX file; a pick without a score has four columns only."""
    diameters = known_diameters(picks)
    corners = picks.centres_px - diameters[:, None] / 2
    lines = []
    for (y, x), side, score in zip(corners, diameters, picks.scores, strict=True):
        end = "" if math.isnan(score) else f"\t{score:.6g}"
        lines.append(f"{x:.3f}\t{y:.3f}\t{side:.3f}\t{side:.3f}{end}\n")
    return "".join(lines)


def quoted(names: Sequence[str]) -> list[str]:
    """Return names for `starfile`, which quotes those with a space, but not those with a #."""
    return [f'"{name}"' if "#" in name and " " not in name else name for name in names]


def star_file(blocks: dict[str, Any]) -> str:
    """Return the text; its first line says the frame, not the time, by which two runs differ."""
    import starfile

    _, _, text = starfile.to_string(blocks).partition("\n")
    return f"# {FRAME}\n{text}"
