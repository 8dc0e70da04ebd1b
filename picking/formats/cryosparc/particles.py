"""Particles of cryoSPARC as picks: at their location, less the shift of their alignment.

`alignments2D/shift` and `alignments3D/shift`, (x, y), are in px of their own `psize_A`, which may
be that of a binned box. The particle is at its location minus the shift, as in "Recenter Particles"
of cryosparc-tools (https://tools.cryosparc.com/examples/recenter-particles.html); csparc2star of
pyem writes the shift as RELION's origin, which RELION subtracts too.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from picking.errors import UserError, warn
from picking.formats.cryosparc import exposures as of_exposures
from picking.formats.cryosparc.exposures import Exposure, exposures_of
from picking.formats.cryosparc.files import (
    group_beside,
    joined,
    members,
    numbers,
    read_table,
    texts,
    uids_of,
)
from picking.formats.picks import Picks, valid

SUFFIXES = (".cs", ".csg")
CENTRE_X, CENTRE_Y, SHAPE, PATH, UID, PSIZE = (
    f"location/{name}"
    for name in (
        "center_x_frac", "center_y_frac", "micrograph_shape", "micrograph_path", "micrograph_uid",
        "micrograph_psize_A",
    )
)  # fmt: skip
SCORE = "pick_stats/ncc_score"
BOX_PSIZE = "blob/psize_A"  # of the extracted box
ALIGNMENTS = ("alignments3D", "alignments2D")  # where there are both, the first counts
FIELDS = (
    CENTRE_X, CENTRE_Y, SHAPE, PATH, UID, PSIZE, SCORE, BOX_PSIZE,
    *(f"{name}/{field}" for name in ALIGNMENTS for field in ("shift", "psize_A")),
)  # fmt: skip

Columns = Mapping[str, Any]  # name of a field -> array, a row for each particle


def read_particles(paths: Sequence[Path]) -> dict[Path, list[Picks]]:
    """Return the picks of .cs and .csg files, each with the files that belong to it.

    A .cs without locations, such as that of a refinement, is joined to a given one that has them,
    else to what a .csg beside it names together with it. Exposures among the files name micrographs
    where the particles only know their uid.

    Returns: path -> a record for each micrograph, centres in the MRC's frame; nothing for files
    that were joined to others. Raises `UserError` for a damaged file and where locations lack.
    """
    groups = {
        path: members(path, "location", FIELDS) for path in paths if path.suffix.lower() == ".csg"
    }
    in_groups = {file for files in groups.values() for file in files}
    tables = {path: read_table(path) for path in paths if path not in groups.keys() | in_groups}
    exposures: dict[int, Exposure] = {}
    for path, table in list(tables.items()):
        names = table.dtype.names or ()
        if of_exposures.PATH in names and CENTRE_X not in names:
            columns = {name: table[name] for name in names}
            exposures |= {one.uid: one for one in exposures_of(columns, path)}
            del tables[path]
    if paths and not tables and not groups:
        raise UserError(f"{paths[0]} is of exposures, not of particles: give the .cs of particles")
    located = [path for path, table in tables.items() if CENTRE_X in (table.dtype.names or ())]
    groups |= {path: [path] for path in located}
    for path in tables.keys() - set(located):
        uids = uids_of(tables[path]["uid"], path)
        fitting = [main for main in located if np.isin(uids, tables[main]["uid"]).any()]
        for main in fitting:
            groups[main].append(path)
        if not fitting:
            groups[path] = group_beside(path, "location", FIELDS) or [path]
    for path in located:
        if len(groups[path]) == 1:
            groups[path] = group_beside(path, "location", FIELDS) or [path]
    return {path: _picks(joined(files, FIELDS), exposures, path) for path, files in groups.items()}


def _picks(columns: Columns, exposures: Mapping[int, Exposure], path: Path) -> list[Picks]:
    """Return the picks of each micrograph; ``path`` is for messages."""
    if CENTRE_X not in columns or CENTRE_Y not in columns:
        raise UserError(
            f"{path} does not say where its particles are (no {CENTRE_X}): give the passthrough "
            "file of the same job too, or the .csg that names both"
        )
    shapes = numbers(columns, SHAPE, path, 2)
    fractions = np.stack([numbers(columns, name, path) for name in (CENTRE_Y, CENTRE_X)], axis=1)
    centres = fractions * shapes - _shifts_px(columns, exposures, path)
    scores = np.full(len(centres), math.nan)
    if SCORE in columns:
        scores = numbers(columns, SCORE, path, unknown=True)
    if not len(centres):
        return []
    if (shapes < 1).any() or not valid(centres).all():
        raise UserError(f"{path}: {SHAPE} or a shift makes no sense: export the particles again")
    names, which = _micrographs(columns, exposures, path)
    picks = []
    for name, rows in zip(names, _rows_of_each(which), strict=True):
        sizes = np.unique(shapes[rows], axis=0).astype(int).tolist()
        if len(sizes) > 1:
            raise UserError(f"{path}: {name} has more than one {SHAPE}: export the particles again")
        height, width = sizes[0]
        unknown = np.full(len(rows), math.nan)
        picks.append(Picks(name, centres[rows], scores[rows], unknown, (height, width)))
    return picks


def _micrographs(
    columns: Columns, exposures: Mapping[int, Exposure], path: Path
) -> tuple[list[str], np.ndarray]:
    """Return the names of the micrographs, and the position of each row's name among them."""
    if PATH in columns and columns[PATH].dtype.kind in "SU" and columns[PATH].ndim == 1:
        values, which = np.unique(columns[PATH], return_inverse=True)
        names = texts(values, path)
        if all(names):
            return names, which
    if UID not in columns:
        raise UserError(
            f"{path} does not say on which micrographs its particles are (neither {PATH} nor "
            f"{UID}): give the passthrough file of the same job too"
        )
    uids, which = np.unique(uids_of(columns[UID], path), return_inverse=True)
    # Files of cryoSPARC begin with the micrograph's uid, in 21 digits
    return [exposures[u].path if u in exposures else f"{u:021d}" for u in uids.tolist()], which


def _rows_of_each(which: np.ndarray) -> list[np.ndarray]:
    """Return, for each number from 0, the rows (n,) that have it, in their order."""
    return np.split(np.argsort(which, kind="stable"), np.cumsum(np.bincount(which))[:-1])


def _shifts_px(columns: Columns, exposures: Mapping[int, Exposure], path: Path) -> Any:
    """Return the shifts, (y, x) in px of the micrograph, float64 (n, 2); 0 where there are none."""
    name = next((name for name in ALIGNMENTS if f"{name}/shift" in columns), None)
    if name is None:
        return 0
    shifts = numbers(columns, f"{name}/shift", path, 2)[:, ::-1]
    own = f"{name}/psize_A" if f"{name}/psize_A" in columns else BOX_PSIZE
    of_micrograph = None
    if PSIZE in columns:
        of_micrograph = numbers(columns, PSIZE, path)
    elif UID in columns:
        known = [exposures.get(uid) for uid in uids_of(columns[UID], path).tolist()]
        of_micrograph = np.array([one.pixel_size_angstrom if one else 0 for one in known], float)
    if own not in columns or of_micrograph is None or (of_micrograph <= 0).any():
        warn(
            f"{path}: the shifts of {name} are not subtracted, since "
            f"{own if own not in columns else PSIZE} is unknown: particles are where they were "
            "picked, not where they were aligned; give the exposures' .cs too"
        )
        return 0
    return shifts * (numbers(columns, own, path) / of_micrograph)[:, None]
