"""Picks as RELION's AutoPick leaves them, and as a file of particles that Extract takes.

    coordinates/<path of the micrograph>/<stem>_autopick.star     --coord_dir, --coord_suffix
    coordinates/coords_suffix_autopick.star                       what RELION 3's Extract asks for
    autopick.star                                                 what RELION 4's and 5's asks for
    particles.star                                                --reextract_data_star

RELION leaves out of a micrograph's path the job that made it (MotionCorr/job002/), and finds its
picks by name, letter for letter.
"""

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from picking.errors import UserError
from picking.files import make_folder, write_atomically
from picking.formats.coco import FRAME as JPEG_FRAME
from picking.formats.names import require_star_text
from picking.formats.picks import Picks, flip_y
from picking.formats.relion.optics import GROUP, IMAGE_PIXEL_SIZE, MICROGRAPH_PIXEL_SIZE
from picking.formats.star import (
    CENTRE,
    DIAMETER_LABEL,
    FRAME,
    quoted,
    star_columns,
    star_file,
)

FOLDER, LIST, PARTICLES = "coordinates", "autopick.star", "particles.star"
TAIL = "_autopick.star"
COLUMNS = (*CENTRE, "rlnAutopickFigureOfMerit", "rlnClassNumber", "rlnAnglePsi")
JOB = re.compile(r"/job\d{3}[^/]*/")
BOX_DIAMETERS = 1.5  # of the box that particles.star states; Extract has its own


def after_job(name: str) -> PurePosixPath:
    """Return a micrograph's path without the job that made it, as RELION shortens it."""
    return PurePosixPath(JOB.split(name, 1)[-1].lstrip("/"))


def coordinate_file(folder: Path, name: str) -> Path:
    """Return where in ``folder`` the picks of the micrograph ``name``, as a list has it, are."""
    path = after_job(name)
    return folder / FOLDER / path.parent / f"{path.stem}{TAIL}"


def require_listable(folder: Path, names: Mapping[str, str]) -> None:
    """Raise `UserError` for names that RELION could not read back; call before picking."""
    for name in names.values():
        require_star_text(name, "the list of micrographs", "name it otherwise in RELION's project")
        if ".." in PurePosixPath(name).parts:
            raise UserError(
                f"the list of micrographs names '{name}', which leaves the project: RELION cannot "
                "have it in a folder of coordinates; link it into the project"
            )
    require_star_text(str(folder.absolute()), "--output", "choose another folder")


def write_relion(
    folder: Path,
    picks: Sequence[Picks],
    names: Mapping[str, str],
    groups: Mapping[str, str],
    optics: Mapping[str, Mapping[str, str]],
    project: Path,
    micrographs: Path,
    frame: str | None = None,
) -> None:
    """Write the four into ``folder``, and remove what is there of other picks.

    A micrograph without a pick is left out. Without ``optics`` there is no particles.star.

    Args:
        folder: with our other files of these picks.
        picks: in the JPEG's frame, with sizes.
        names: of the micrographs as the list has them, by the picks' names.
        groups: optics groups, by the picks' names.
        optics: of each group, label -> text.
        project: RELION's working folder, which names in autopick.star are relative to.
        micrographs: the list.
        frame: to write in, that of the MRC, or `jpeg` where the program has it upside down.
    """
    import pandas as pd

    shown = [p if frame == "jpeg" else flip_y(p) for p in picks if len(p.centres_px)]
    contents = {}
    for p in shown:
        columns = star_columns([p], [""])
        columns = {label: columns[label] for label in COLUMNS}
        contents[coordinate_file(folder, names[p.name])] = star_file({"": pd.DataFrame(columns)})
    files = list(contents)
    contents[folder / FOLDER / f"coords_suffix{TAIL}"] = f"{_within(micrographs, project)}\n"
    listed = {
        "rlnMicrographName": quoted([names[p.name] for p in shown]),
        "rlnMicrographCoordinates": quoted([_within(path, project) for path in files]),
    }
    contents[folder / LIST] = star_file({"coordinate_files": pd.DataFrame(listed)})
    if optics:
        blocks = {"optics": _optics(optics, shown), "particles": _particles(shown, names, groups)}
        contents[folder / PARTICLES] = star_file(blocks)
    remove_relion(folder, contents)
    for path, text in contents.items():
        make_folder(path.parent)
        write_atomically(path, text.replace(FRAME, JPEG_FRAME) if frame == "jpeg" else text)


def remove_relion(folder: Path, but: Mapping[Path, str] | None = None) -> None:
    """Remove what `write_relion` wrote into ``folder``, except the files ``but``."""
    written = [folder / LIST, folder / PARTICLES, *(folder / FOLDER).rglob(f"*{TAIL}")]
    for path in written:
        if path not in (but or {}):
            path.unlink(missing_ok=True)
    for below, _, _ in os.walk(folder / FOLDER, topdown=False):
        if not os.listdir(below):  # noqa: PTH208
            os.rmdir(below)  # noqa: PTH106


def _within(path: Path, project: Path) -> str:
    """Return a path relative to the project or, outside it, absolute."""
    path, project = path.absolute(), project.absolute()
    for one, other in ((path, project), (path.resolve(), project.resolve())):
        if one.is_relative_to(other):
            return str(one.relative_to(other))
    return str(path)


def _optics(optics: Mapping[str, Mapping[str, str]], picks: Sequence[Picks]) -> "object":
    """Return data_optics of particles that are cut in px of the micrographs."""
    import pandas as pd

    known = [p.diameters_px[np.isfinite(p.diameters_px)].max(initial=0) for p in picks]
    box_px = 2 * math.ceil(BOX_DIAMETERS / 2 * max([*known, 16]))
    rows = []
    for group in optics.values():
        size = group.get(IMAGE_PIXEL_SIZE, group.get(MICROGRAPH_PIXEL_SIZE, "1"))
        image = {IMAGE_PIXEL_SIZE: size, "rlnImageSize": box_px, "rlnImageDimensionality": 2}
        rows.append({**group, **image})
    return pd.DataFrame(rows)


def _particles(
    picks: Sequence[Picks], names: Mapping[str, str], groups: Mapping[str, str]
) -> "object":
    """Return data_particles, not yet moved by any refinement."""
    import pandas as pd

    columns = star_columns(picks, [names[p.name] for p in picks])
    columns.pop(DIAMETER_LABEL, None)
    columns[GROUP] = [groups[p.name] for p in picks for _ in p.scores]
    return pd.DataFrame({**columns, "rlnOriginXAngst": 0.0, "rlnOriginYAngst": 0.0})
