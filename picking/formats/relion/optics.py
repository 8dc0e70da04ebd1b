"""Pixel sizes by optics group, and by how many px refinement moved a particle."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from picking.errors import UserError, warn
from picking.formats.star_tables import Table, numbers
from picking.micrographs.pixel_size import agree

MICROGRAPH_PIXEL_SIZE, IMAGE_PIXEL_SIZE = "rlnMicrographPixelSize", "rlnImagePixelSize"
GROUP = "rlnOpticsGroup"
OLD_PIXEL_SIZE = ("rlnDetectorPixelSize", "rlnMagnification")  # µm and times, before RELION 3.1
ORIGINS_ANGSTROM = ("rlnOriginYAngst", "rlnOriginXAngst")
ORIGINS_PX = ("rlnOriginY", "rlnOriginX")  # of the image as it was extracted; before RELION 3.1


def optics_groups(tables: Sequence[Table]) -> dict[str, dict[str, str]]:
    """Return what data_optics says of each optics group, label -> text, by the group's number.

    Raises `UserError` for a group that stands twice and is not the same, as in joined files.
    """
    groups: dict[str, dict[str, str]] = {}
    for table in tables:
        if table.block != "optics" or GROUP not in table.labels:
            continue
        columns = table.cells(table.labels)
        for cells in zip(*columns.values(), strict=True):
            row = dict(zip(columns, cells, strict=True))
            if groups.setdefault(row[GROUP], row) != row:
                raise UserError(
                    f"{table.path}: optics group {row[GROUP]} stands twice in data_optics, and not "
                    "the same: give one file at a time, or join them with relion_star_handler"
                )
    return groups


def pixel_sizes(
    table: Table, groups: Mapping[str, Mapping[str, str]], label: str, n: int
) -> np.ndarray:
    """Return Å per px for each of ``n`` rows, float64 (n,), NaN where the file does not say it.

    groups: as `optics_groups` returns them. label: of theirs, rlnMicrographPixelSize or
    rlnImagePixelSize. Before RELION 3.1 it follows from detector and magnification in the row,
    and is the micrograph's in a list of micrographs, the image's in one of particles.

    Raises `UserError` for a row of an optics group that data_optics has not.
    """
    cells = table.cells((GROUP, *OLD_PIXEL_SIZE))
    where = f"{table.path}, block data_{table.block}"
    if groups and GROUP in cells:
        strange = [group for group in cells[GROUP] if group not in groups]
        if strange:
            raise UserError(
                f"{where}: {len(strange):,} of {n:,} rows are of an optics group that data_optics "
                f"has not (e.g. {strange[0]}): write or copy the file again"
            )
        texts = [groups[group].get(label, "nan") for group in cells[GROUP]]
        sizes = numbers({label: texts}, label, n, table.path)
    else:
        detector, magnification = (numbers(cells, one, n, table.path) for one in OLD_PIXEL_SIZE)
        sizes = 1e4 * detector / np.where(magnification > 0, magnification, math.nan)
    return np.where(sizes > 0, sizes, math.nan)


def origins_px(
    table: Table,
    groups: Mapping[str, Mapping[str, str]],
    names: Sequence[str],
    pixel_size_of: Callable[[str], float | None],
) -> np.ndarray:
    """Return (y, x) of each particle's origin in px of its micrograph, float64 (n, 2).

    As RELION has it when it extracts anew with re-centering: the particle is at its coordinate less
    this. In the file origins are in Å or, before RELION 3.1, in px of the image, which may have
    been scaled down.

    Args:
        table: of particles.
        groups: as `optics_groups` returns them.
        names: the micrograph of each row.
        pixel_size_of: Å per px of a micrograph, None where nobody knows it.

    Raises `UserError` for origins in Å where no pixel size is known at all.
    """
    n, path = len(names), table.path
    in_angstrom = set(ORIGINS_ANGSTROM) <= set(table.labels)
    labels = ORIGINS_ANGSTROM if in_angstrom else ORIGINS_PX
    cells = table.cells(labels)
    origins = np.nan_to_num(np.stack([numbers(cells, one, n, path) for one in labels], axis=1))
    moved = origins.any(axis=1)
    if not moved.any():
        return np.zeros((n, 2))
    of_image = pixel_sizes(table, groups, IMAGE_PIXEL_SIZE, n)
    found = {name: pixel_size_of(name) or math.nan for name in set(names)}
    of_micrograph = np.array([found[name] for name in names])
    if groups:
        said = pixel_sizes(table, groups, MICROGRAPH_PIXEL_SIZE, n)
        of_micrograph = np.where(np.isnan(of_micrograph), said, of_micrograph)
    unknown = moved & np.isnan(of_micrograph if in_angstrom else of_micrograph * of_image)
    if in_angstrom and np.isnan(of_image[unknown]).any():
        raise UserError(
            f"{path}: {int(unknown.sum()):,} of {n:,} particles were moved by an origin in Å, and "
            "nothing tells the pixel size: give --pixel-size, that of the micrographs"
        )
    if unknown.any():
        warn(
            f"{path}: {int(unknown.sum()):,} of {n:,} particles were moved by classification or "
            "refinement, and nothing tells the pixel size of micrographs and images: their px are "
            "taken to be alike; give --pixel-size, or where images were scaled down extract with "
            "re-centering"
        )
    if in_angstrom:
        factor = 1 / np.where(unknown, of_image, of_micrograph)
    else:
        factor = np.where(unknown, 1, of_image / of_micrograph)
    return origins * np.where(moved, factor, 0)[:, None]


def tell_of_other_px(
    table: Table,
    groups: Mapping[str, Mapping[str, str]],
    names: Sequence[str],
    pixel_size_of: Callable[[str], float | None],
) -> None:
    """Warn of coordinates that are of micrographs of another pixel size, as after another binning.

    Arguments as `origins_px` takes them.
    """
    if not groups:
        return
    said = pixel_sizes(table, groups, MICROGRAPH_PIXEL_SIZE, len(names)).tolist()
    known = {name: pixel_size_of(name) for name in dict.fromkeys(names)}
    others = [
        (name, size, px)
        for name, size in zip(names, said, strict=True)
        if size > 0 and (px := known[name]) and not agree(size, px)
    ]
    if others:
        name, size, px = others[0]
        warn(
            f"{table.path}: {len(others):,} of {len(names):,} coordinates are of micrographs of "
            f"{size:.4g} Å per px, as data_optics has it, but {name} has {px:.4g} Å: where it was "
            f"binned otherwise, x and y must be multiplied by {size / px:.4g}"
        )
