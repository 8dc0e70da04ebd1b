"""Picks as a .cs of particles with its .csg, with the fields that cryoSPARC's own pickers write."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
import yaml

from picking.errors import UserError
from picking.files import NAMES, sha256
from picking.formats.cryosparc import particles
from picking.formats.cryosparc.exposures import Exposure
from picking.formats.picks import Picks

LEADING_UID = re.compile(r"(\d{15,21})_")  # of the names of micrographs that cryoSPARC writes
NO_TIME = "2000-01-01 00:00:00"  # a group says when it was made, by which two runs would differ
POWER = "pick_stats/power"


def particles_table(
    picks: Sequence[Picks], exposures: Mapping[str, Exposure] | None = None
) -> np.ndarray:
    """Return picks in the MRC's frame as the rows of a .cs.

    exposures: the micrographs as cryoSPARC knows them, by the picks' name: rows then have their
    path, uid and pixel size. Without, the path is the name, and the uid is what cryoSPARC's own
    names begin with, else a hash. The power repeats the score, so that Inspect Picks has both.
    """
    known = [(exposures or {}).get(p.name) for p in picks]
    paths = [e.path if e else p.name for p, e in zip(picks, known, strict=True)]
    encoded = [path.encode(errors=NAMES) for path in paths]
    fields: list[tuple] = [
        ("uid", "<u8"), (particles.UID, "<u8"), ("location/exp_group_id", "<u4"),
        (particles.PATH, f"S{max([1, *map(len, encoded)])}"), (particles.SHAPE, "<u4", (2,)),
        (particles.CENTRE_X, "<f4"), (particles.CENTRE_Y, "<f4"),
        (particles.SCORE, "<f4"), (POWER, "<f4"),
        ("pick_stats/template_idx", "<u4"), ("pick_stats/angle_rad", "<f4"),
    ]  # fmt: skip
    if picks and all(known):
        fields.insert(5, (particles.PSIZE, "<f4"))
    tables = [np.zeros(0, dtype=fields)]
    for p, exposure, path in zip(picks, known, encoded, strict=True):
        if p.size_px is None:
            raise UserError(f"{p.name}: its size is unknown, but a .cs states it: give the image")
        table = np.zeros(len(p.scores), dtype=fields)
        table["uid"] = [_hashed(f"{p.name}:{row}") for row in range(len(table))]
        table[particles.UID] = exposure.uid if exposure else _uid_of(p.name)
        table[particles.PATH] = path
        table[particles.SHAPE] = p.size_px
        table[particles.CENTRE_Y], table[particles.CENTRE_X] = (p.centres_px / p.size_px).T
        table[particles.SCORE] = table[POWER] = p.scores
        if exposure and particles.PSIZE in (table.dtype.names or ()):
            table[particles.PSIZE] = exposure.pixel_size_angstrom
        tables.append(table)
    return np.concatenate(tables)


def cs_bytes(table: np.ndarray) -> bytes:
    """Return the content of a .cs."""
    file = io.BytesIO()
    np.save(file, table, allow_pickle=False)
    return file.getvalue()


def csg_text(table: np.ndarray, cs_name: str, frame: str = "mrc") -> str:
    """Return the .csg of a group of particles whose results are all in the .cs beside it.

    frame: that their y is in, `jpeg` or `mrc`.
    """
    first = "top of the JPEG" if frame == "jpeg" else "MRC's first row"
    slots = {name.partition("/")[0] for name in table.dtype.names or () if "/" in name}
    group = {
        "created": NO_TIME,
        "group": {
            "description": f"picks; y counts from the {first}",
            "name": "particles",
            "title": "Picked particles",
            "type": "particle",
        },
        "results": {
            slot: {
                "metafile": f">{cs_name}",
                "num_items": len(table),
                "type": f"particle.{slot}",
            }
            for slot in sorted(slots)
        },
        "version": "v4.0.0",
    }
    return yaml.safe_dump(group)


def _uid_of(name: str) -> int:
    """Return the uid of a micrograph by its name."""
    leading = LEADING_UID.match(PurePosixPath(name).name)
    number = int(leading[1]) if leading else 0
    return number if 0 < number < 1 << 64 else _hashed(name)


def _hashed(text: str) -> int:
    """Return a uid, always the same for the same text."""
    return int(sha256(text)[:16], 16)
