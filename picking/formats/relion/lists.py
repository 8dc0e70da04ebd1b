"""RELION's lists of coordinate files: each is followed to the files that it names."""

import re
from pathlib import Path

from picking.errors import UserError, leave_out
from picking.files import nearest_folder, read_text
from picking.formats.names import few
from picking.formats.star_tables import read_tables

LIST = ("rlnMicrographName", "rlnMicrographCoordinates")
SUFFIX_FILE = re.compile(r"coords_suffix(\S+\.star)", re.ASCII)


def coordinate_files(path: Path, allow_partial: bool = False) -> list[tuple[Path, str | None]]:
    """Return the files with the coordinates, and the micrograph of each where a list tells it.

    That is ``path`` itself, or what a list of RELION's names: autopick.star and manualpick.star
    hold a table of files, and coords_suffix_autopick.star, before RELION 4, stands in the folder
    above all <micrograph>_autopick.star. Raises `UserError` where none of the files is there and,
    unless ``allow_partial``, where more than a tenth is not.
    """
    if path.suffix.lower() != ".star" or not path.is_file():
        return [(path, None)]
    suffix = SUFFIX_FILE.fullmatch(path.name)
    if suffix:
        tail = suffix[1]
        found = sorted(p for p in path.parent.rglob(f"*{tail}") if p != path and p.is_file())
        if not found:
            raise UserError(f"{path} stands for files *{tail} below its folder, and there is none")
        folder = path.parent
        return [(p, f"{p.relative_to(folder)}".removesuffix(tail) + ".mrc") for p in found]
    if LIST[1] not in read_text(path):
        return [(path, None)]
    all_tables = read_tables(path)
    tables = [table for table in all_tables if LIST[1] in table.labels]
    if tables and any("rlnCoordinateX" in table.labels for table in all_tables):
        raise UserError(
            f"{path} holds coordinates and a list of coordinate files: make two files of it"
        )
    listed: list[tuple[str, str]] = []
    for table in tables:
        cells = table.cells(LIST)
        if LIST[0] not in cells:
            raise UserError(f"{path} has _{LIST[1]}, but no _{LIST[0]}: write it again")
        listed += zip(cells[LIST[1]], cells[LIST[0]], strict=True)
    project = nearest_folder([file for file, _ in listed], path)
    there = [(project / file, name) for file, name in listed if (project / file).is_file()]
    missing = [file for file, _ in listed if not (project / file).is_file()]
    message = (
        f"{len(missing):,} of {len(listed):,} files of coordinates that {path} lists are not there "
        f"(e.g. {few(missing)})"
    )
    if listed and not there:
        raise UserError(f"{message}: their names are relative to the project: keep the list in it")
    leave_out(len(missing), len(listed), message, allow_partial)
    return [*there]
