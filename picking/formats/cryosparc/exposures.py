"""Micrographs as cryoSPARC lists them: the .cs of exposures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picking.errors import UserError
from picking.formats.cryosparc.files import joined, members, numbers, texts, uids_of

PATH, SHAPE, PSIZE = (f"micrograph_blob/{name}" for name in ("path", "shape", "psize_A"))
FIELDS = ("uid", PATH, SHAPE, PSIZE)


@dataclass(frozen=True)
class Exposure:
    """A micrograph as cryoSPARC lists it.

    path: as listed, relative to the project's folder. size_px: (height, width).
    """

    uid: int
    path: str
    size_px: tuple[int, int]
    pixel_size_angstrom: float


def read_exposures(path: Path) -> list[Exposure]:
    """Return the micrographs that a .cs of exposures lists, or the group of its .csg, in its order.

    Raises `UserError` for a damaged file and for one of particles or of movies.
    """
    is_group = path.suffix.lower() == ".csg"
    files = members(path, "micrograph_blob", FIELDS) if is_group else [path]
    return exposures_of(joined(files, FIELDS), path)


def exposures_of(columns: Any, path: Path) -> list[Exposure]:
    """Return the micrographs of columns, or of a Dataset of cryosparc-tools.

    columns: what ``name in columns`` and ``columns[name]`` work with. path: for messages.
    """
    if PATH not in columns:
        raise UserError(
            f"{path} lists no micrographs (no {PATH}): give the .cs of exposures after motion "
            "correction"
        )
    shapes, sizes = numbers(columns, SHAPE, path, 2), numbers(columns, PSIZE, path)
    paths, uids = texts(columns[PATH], path), uids_of(columns["uid"], path).tolist()
    if (shapes < 1).any() or (sizes <= 0).any() or not all(paths):
        raise UserError(
            f"{path}: each micrograph needs a path, a positive shape and pixel size: export the "
            "exposures again"
        )
    return [
        Exposure(uid, name, (height, width), size)
        for uid, name, (height, width), size in zip(
            uids, paths, shapes.astype(int).tolist(), sizes.tolist(), strict=True
        )
    ]
