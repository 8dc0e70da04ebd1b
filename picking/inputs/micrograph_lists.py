"""Micrographs as RELION or cryoSPARC list them: names, pixel sizes, optics groups."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from picking.errors import UserError, leave_out, warn
from picking.files import nearest_folder
from picking.formats.cryosparc.exposures import Exposure, read_exposures
from picking.formats.names import few
from picking.formats.relion.optics import (
    GROUP,
    MICROGRAPH_PIXEL_SIZE,
    optics_groups,
    pixel_sizes,
)
from picking.formats.star_tables import read_tables
from picking.inputs.paths import Paths, by_file_name, expand, find_micrographs
from picking.micrographs.reading import SUFFIXES

ENDINGS = (".star", ".cs", ".csg")
NAME = "rlnMicrographName"
# Of a list without data_optics, as before RELION 3.1
OPTICS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
GIVE = "give micrographs_ctf.star, corrected_micrographs.star or micrographs.star"


@dataclasses.dataclass(frozen=True)
class MicrographList:
    """What a list says, by file name, of the micrographs that are there.

    project: the folder that names are relative to. names: letter for letter. pixel_sizes: Å per px,
    of those of which it is said. groups: optics group. optics: of a STAR, label -> text by group.
    exposures: of a .cs.
    """

    path: Path
    project: Path
    names: dict[str, str]
    pixel_sizes: dict[str, float]
    groups: dict[str, str]
    optics: dict[str, dict[str, str]]
    exposures: dict[str, Exposure]


def given_micrographs(
    patterns: Sequence[str], allow_partial: bool = False, flag: str = "--micrographs"
) -> tuple[Paths, MicrographList | None]:
    """Return file name -> path of the micrographs, and the list where one names them.

    patterns: of files, as `find_micrographs` takes them, or one list. Raises `UserError` as that
    does, for a list with something else, for one of no micrographs, and, unless ``allow_partial``,
    when more than a tenth of what it lists is not there.
    """
    lists = [pattern for pattern in patterns if Path(pattern).suffix.lower() in ENDINGS]
    if not lists:
        return find_micrographs(patterns, allow_partial), None
    found = expand(lists, ENDINGS, "list of micrographs", allow_partial)
    others: list[str | Path] = [
        *found[1:],
        *(pattern for pattern in patterns if pattern not in lists),
    ]
    if others:
        raise UserError(
            f"{flag} is {found[0]}, a list, and {others[0]}: give one list alone; "
            "relion_star_handler --combine makes one of several"
        )
    return _read(found[0], allow_partial)


def _read(path: Path, allow_partial: bool) -> tuple[Paths, MicrographList]:
    exposures = [] if path.suffix.lower() == ".star" else read_exposures(path)
    optics: dict[str, dict[str, str]] = {}
    if exposures:
        rows = {e.path.removeprefix(">"): (e.pixel_size_angstrom, "1") for e in exposures}
        n = len(exposures)
    else:
        rows, n, optics = _read_star(path)
    names = list(rows)
    if not names:
        raise UserError(f"{path} lists no micrograph: {GIVE}")
    if len(names) < n:
        warn(f"{path}: {n - len(names):,} of {n:,} rows name a micrograph again: each counts once")
    others = [name for name in names if Path(name).suffix.lower() not in SUFFIXES]
    if others:
        raise UserError(
            f"{path} lists {few(others)}: micrographs end in {', '.join(SUFFIXES)}; {GIVE}"
        )
    project = nearest_folder(names, path)
    there = [name for name in names if (project / name).is_file()]
    missing = [name for name in names if not (project / name).is_file()]
    message = (
        f"{len(missing):,} of {len(names):,} micrographs that {path} lists are not there (e.g. "
        f"{few(missing)})"
    )
    if not there:
        raise UserError(
            f"{message}: names are relative to the project, so run this in its folder, or keep the "
            "list within it"
        )
    leave_out(len(missing), len(names), message, allow_partial)
    if project != Path():
        print(f"{path}: names are relative to {project}")
    paths = by_file_name([project / name for name in there])
    of_file = dict(zip(paths, there, strict=True))
    by_path = {e.path.removeprefix(">"): e for e in exposures}
    return paths, MicrographList(
        path=path,
        project=project,
        names=of_file,
        pixel_sizes={f: rows[name][0] for f, name in of_file.items() if rows[name][0] > 0},
        groups={f: rows[name][1] for f, name in of_file.items()},
        optics=optics,
        exposures={f: by_path[name] for f, name in of_file.items() if exposures},
    )


def _read_star(path: Path) -> tuple[dict[str, tuple[float, str]], int, dict[str, dict[str, str]]]:
    """Return Å per px (NaN: unknown) and optics group by name, the number of rows, the groups."""
    tables = read_tables(path)
    for label, what in (
        ("rlnCoordinateX", "coordinates of particles"),
        ("rlnImageName", "particles"),
        ("rlnMicrographCoordinates", "files of coordinates"),
        ("rlnTomoName", "tomograms"),
    ):
        if any(label in table.labels for table in tables):
            raise UserError(f"{path} lists {what}, no micrographs: {GIVE}")
    found = [table for table in tables if NAME in table.labels]
    if not found and any("rlnMicrographMovieName" in table.labels for table in tables):
        raise UserError(f"{path} lists movies: {GIVE}")
    if len(found) != 1:
        blocks = " and ".join(f"data_{table.block}" for table in found[:2]) or "no table"
        raise UserError(f"{path} has _{NAME} in {blocks}, and one is needed: {GIVE}")
    cells = found[0].cells((NAME, GROUP, *OPTICS))
    names, optics = cells[NAME], optics_groups(tables)
    sizes = pixel_sizes(found[0], optics, MICROGRAPH_PIXEL_SIZE, len(names)).tolist()
    groups = cells.get(GROUP) if optics else None
    if groups is None:
        groups, optics = _groups(cells, sizes)
    first = reversed([*zip(names, zip(sizes, groups, strict=True), strict=True)])
    by_name = dict(first)
    return {name: by_name[name] for name in dict.fromkeys(names)}, len(names), optics


def _groups(
    cells: dict[str, list[str]], sizes: list[float]
) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Return an optics group for each row, and the groups, as RELION makes them of older lists.

    Rows of one group are alike in microscope and pixel size. Without these there are no groups.
    """
    known = set(OPTICS) <= set(cells) and not any(map(math.isnan, sizes))
    if not known:
        return ["1"] * len(sizes), {}
    rows = list(zip(map(str, sizes), *(cells[label] for label in OPTICS), strict=True))
    number = {row: str(n) for n, row in enumerate(dict.fromkeys(rows), 1)}
    labels = (MICROGRAPH_PIXEL_SIZE, *OPTICS)
    optics = {
        n: {
            "rlnOpticsGroupName": f"opticsGroup{n}",
            GROUP: n,
            **dict(zip(labels, row, strict=True)),
        }
        for row, n in number.items()
    }
    return [number[row] for row in rows], optics
