"""From the command line to a session at work: micrographs, sizes, labels, what speaks against."""

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

from picking.errors import UserError, warn
from picking.formats.names import few, require_writable
from picking.inputs.diameters import asked_diameters, find_pixel_sizes, require_diameter_fits
from picking.inputs.micrograph_lists import given_micrographs
from picking.inputs.paths import Paths
from picking.labelling.folder.labels import READ_ONLY, LabelsFolder, held
from picking.labelling.folder.session import (
    Session,
    asked_session,
    read_session,
    require_same_micrographs,
    write_session,
)
from picking.labelling.viewing.pictures import Pictures
from picking.labelling.web.work import Work
from picking.micrographs.left_out import readable_sizes

CACHE = "cache"


@contextlib.contextmanager
def opened(args: argparse.Namespace) -> Iterator[Work]:
    """Yield the session that the command line asks for, and hold its folder meanwhile.

    args: micrographs, diameter, pixel_size, output and allow_partial of label_particles.py. Raises
    `UserError` for what cannot be meant.
    """
    folder: Path = args.output
    session = asked_session(folder, args.micrographs, args.diameter, args.pixel_size)
    paths, listed = given_micrographs(session.micrographs, args.allow_partial)
    require_writable(paths, ["star"], one_file=True)
    sizes_px, problems = readable_sizes(paths, strict=False)
    readable = {name: paths[name] for name in sizes_px}
    pixel_sizes = find_pixel_sizes(
        session.pixel_size, readable, listed.pixel_sizes if listed else {}
    )
    usual_px, own_px = asked_diameters(session.diameter, pixel_sizes, readable)
    assert usual_px is not None  # a session has a diameter
    require_diameter_fits(usual_px, sizes_px, own_px)
    diameters_px = {name: own_px.get(name, usual_px) for name in readable}
    with held(folder) as used_by:
        labels = LabelsFolder(
            folder, sizes_px, diameters_px, listed.names if listed else {}, used_by
        )
        gone = require_same_micrographs(
            folder, labels.history.sizes_px, sizes_px, _former(folder, session), paths
        )
        if used_by is not None:
            warn(READ_ONLY.format(used_by))
        else:
            write_session(folder, session)
        if gone:
            warn(
                f"{len(gone):,} labelled micrographs are not there any more ({few(gone)}): their "
                "labels are kept"
            )
        labels.begin()
        problems |= {name: f"{name} is not there any more: its labels are kept" for name in gone}
        pictures = Pictures(paths, None if used_by is not None else folder / CACHE)
        yield Work(session, [*paths, *gone], problems, labels, pictures, diameters_px)


def _former(folder: Path, session: Session) -> Paths:
    """Return the micrographs that a folder was of until now, as far as they are there."""
    before = read_session(folder)
    if before is None or before.micrographs == session.micrographs:
        return {}
    with contextlib.suppress(UserError):
        return given_micrographs(before.micrographs, allow_partial=True)[0]
    return {}
