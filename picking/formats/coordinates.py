"""Picks in files: STAR, BOX, CBOX, CSV or COCO JSON -> one record per micrograph, and back.

Files of RELION, cryoSPARC, EMAN and crYOLO are in the MRC's frame; CryoPPP's CSV and COCO are in
the JPEG's, as everything inside the project is. The frame is turned here, once on the way in and
once on the way out.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from picking.errors import UserError
from picking.files import write_atomically
from picking.formats.coco import coco_text, read_coco
from picking.formats.cryoppp_csv import csv_text, read_csv
from picking.formats.micrographs import SUFFIXES
from picking.formats.picks import Picks, inside, turn
from picking.formats.star import box_text, cbox_text, read_box, read_cbox, read_star, star_text

FORMATS = {"star": ".star", "box": ".box", "cbox": ".cbox", "csv": ".csv", "coco": ".json"}
FRAMES = {".star": "mrc", ".box": "mrc", ".cbox": "mrc", ".csv": "jpeg", ".json": "jpeg"}
OF_ONE_MICROGRAPH = ("box", "cbox")  # formats without room for names
# What cryoSPARC puts before a name, and what it and RELION put behind.
UID = re.compile(r"^\d+_")
TAIL = re.compile(r"(_patch_aligned(_doseweighted)?)?(_autopick|_manualpick|_picks?)?$")


class Matched(NamedTuple):
    """Picks and truth of the same micrographs, and the names of micrographs with only one."""

    pairs: list[tuple[Picks, Picks]]
    without_picks: list[str]
    without_truth: list[str]


def read_picks(
    paths: Iterable[Path],
    sizes_px: Mapping[str, tuple[int, int]],
    frame: str | None = None,
    only_known: bool = False,
) -> list[Picks]:
    """Read the picks of files of any kinds, of one or many micrographs each.

    Boxes without area are no picks. A micrograph without picks does not appear in a STAR or CSV
    of many; a file without rows is of the micrograph that it is named after.

    Args:
        paths: .star, .box, .cbox, .csv and .json files; a file without a column of micrographs is
            named after its micrograph.
        sizes_px: (height, width) of the micrographs, by file name, without which y cannot be
            turned. Names in the files are looked up among these, whatever their folder and
            suffix, with or without cryoSPARC's leading number.
        frame: `jpeg` or `mrc`, what the files are in if that is not what `FRAMES` says.
        only_known: leave out picks of micrographs that are not in ``sizes_px``.

    Raises:
        UserError: for a malformed file, an unknown height, a micrograph that stands in two files,
            a size that is not the stated one, more than a tenth of a micrograph's centres
            outside it, and when nothing is known of all that ``only_known`` asks for.
    """
    if frame not in (None, "mrc", "jpeg"):
        raise UserError(f"frame '{frame}' is unknown: it is mrc or jpeg")
    find = _finder(sizes_px)
    found: dict[str, Picks] = {}
    sources: dict[str, Path] = {}
    unknown = []
    for path in paths:
        suffix = path.suffix.lower()
        if suffix not in FRAMES:
            raise UserError(f"{path} is no file of picks: those end in {', '.join(FRAMES)}")
        if not path.is_file():
            raise UserError(f"{path} is not there: check the path")
        file_frame = frame or FRAMES[suffix]
        for picks in _read(path, suffix):
            name = find(picks.name)
            nothing = not len(picks.centres_px) and picks.size_px is None
            if name is None and (only_known or nothing):
                unknown.append(picks.name)
                continue
            if name is None and picks.size_px is None and file_frame == "mrc":
                raise UserError(
                    f"{path}: y counts from the MRC's first row, so the height of '{picks.name}' "
                    f"is needed, but sizes are known of {_few(sizes_px)}: give its micrograph, or "
                    "frame jpeg if y counts from the top of the JPEG"
                )
            size_px = sizes_px[name] if name else picks.size_px
            name = name or picks.name
            if name in found:
                raise UserError(
                    f"{path} has picks of {name} (as '{picks.name}'), and so has {sources[name]}: "
                    "give one of them"
                )
            found[name] = _in_jpeg_frame(picks, name, size_px, file_frame)
            sources[name] = path
    if only_known and unknown and not found:
        raise _no_overlap("picks", unknown, "micrographs", sizes_px)
    return list(found.values())


def write_picks(
    folder: Path, picks: Sequence[Picks], formats: Sequence[str], one_file: bool = False
) -> list[Path]:
    """Write the picks in each of ``formats``, keys of `FORMATS`; return the files.

    With ``one_file`` all micrographs go into <folder>/picks.<suffix>, else each into
    <folder>/<format>/<stem>.<suffix>; BOX and CBOX are always of one micrograph. STAR names the
    MRC, whatever the image was. Files that are there are replaced.

    Raises `UserError` for an unknown format, for two micrographs of one stem, and where a size
    (all but CSV) or a diameter (all but STAR) is unknown.
    """
    for name in formats:
        if name not in FORMATS:
            raise UserError(f"format '{name}' is unknown: there are {', '.join(FORMATS)}")
    by_stem: dict[str, Picks] = {}
    for p in picks:
        if by_stem.setdefault(_stem(p.name), p) is not p:
            raise UserError(
                f"{p.name} and {by_stem[_stem(p.name)].name} would be one file: rename one of them"
            )
    contents: dict[Path, str] = {}
    for name in formats:
        suffix = FORMATS[name]
        if one_file and name not in OF_ONE_MICROGRAPH:
            contents[folder / f"picks{suffix}"] = _file_text(name, list(picks), one_file)
        else:
            for stem, p in by_stem.items():
                contents[folder / name / f"{stem}{suffix}"] = _file_text(name, [p], False)
    for path, content in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    return list(contents)


def match_names(picks: Sequence[Picks], truth: Sequence[Picks]) -> Matched:
    """Pair picks with the truth of the same micrograph, in the truth's order.

    A file of many does not name a micrograph without picks, so the caller must judge whether there
    are none or nobody looked. Raises `UserError`, with both lists, when no name is
    in both, and when two picks are of one micrograph.
    """
    find = _finder([t.name for t in truth])
    by_name: dict[str, Picks] = {}
    without_truth = []
    for p in picks:
        name = find(p.name)
        if name is None:
            without_truth.append(p.name)
        elif name in by_name:
            raise UserError(
                f"'{p.name}' and '{by_name[name].name}' are both picks of '{name}': remove one"
            )
        else:
            by_name[name] = p
    if not by_name:
        raise _no_overlap("picks", without_truth, "truth", [t.name for t in truth])
    return Matched(
        pairs=[(by_name[t.name], t) for t in truth if t.name in by_name],
        without_picks=[t.name for t in truth if t.name not in by_name],
        without_truth=without_truth,
    )


# One file


def _read(path: Path, suffix: str) -> list[Picks]:
    """Read a file of picks in its own frame."""
    if suffix == ".json":  # an image whose only boxes have no area was not annotated
        return [p for p in read_coco(path)[0] if len(p.centres_px) or not p.n_zero_area]
    readers = {".star": read_star, ".box": read_box, ".cbox": read_cbox, ".csv": read_csv}
    return readers[suffix](path)


def _in_jpeg_frame(picks: Picks, name: str, size_px: tuple[int, int] | None, frame: str) -> Picks:
    """Return the picks of a file in the JPEG's frame, checked against the size where it is known.

    ``picks.size_px`` is what the file states, ``size_px`` what is known of the micrograph.
    """
    known = dataclasses.replace(picks, name=name, size_px=size_px)
    if size_px is None:
        return known
    turned = turn(known) if frame == "mrc" else known
    inside(dataclasses.replace(turned, size_px=picks.size_px), size_px)
    return turned


def _file_text(name: str, picks: list[Picks], one_file: bool) -> str:
    """Return the content of one file; only STAR, BOX and CBOX belong to the MRC."""
    if name == "csv":
        return csv_text(picks, [p.name for p in picks] if one_file else None)
    if name == "coco":
        return coco_text(picks)
    turned = [turn(p) for p in picks]
    if name == "star":
        paths = [PurePosixPath(p.name) for p in picks]
        return star_text(turned, [str(path.with_name(f"{_stem(path.name)}.mrc")) for path in paths])
    return box_text(turned[0]) if name == "box" else cbox_text(turned[0])


# Names


def _stem(name: str) -> str:
    """Return a micrograph's name without folder and image suffix: a.1 for dir/a.1.jpg."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.stem if path.suffix.lower() in (*SUFFIXES, ".mrcs", ".eer") else path.name


def _core(name: str) -> str:
    return TAIL.sub("", _stem(name))


def _finder(known: Iterable[str]) -> Callable[[str], str | None]:
    """Return a function from a name in a file of picks to the one of ``known`` it means, or None.

    The two may differ in folder, suffix and tail, and one of them may have cryoSPARC's leading
    number; but not both, since 001_a is not 002_a. The closest likeness counts.
    """
    whole = {name: [name] for name in known}
    by_stem: dict[str, list[str]] = {}
    by_core: dict[str, list[str]] = {}
    by_bare: dict[str, list[str]] = {}
    for name in whole:
        by_stem.setdefault(_stem(name), []).append(name)
        by_core.setdefault(_core(name), []).append(name)
        by_bare.setdefault(UID.sub("", _core(name)), []).append(name)

    def find(name: str) -> str | None:
        """Return the known name, None without one; raises `UserError` where several fit."""
        core = _core(name)
        ways = ((_stem(name), by_stem), (core, by_core), (UID.sub("", core), by_core))
        for key, table in ((name, whole), *ways, (core, by_bare)):
            names = table.get(key, [])
            if len(names) > 1:
                raise UserError(f"'{name}' could be any of {_few(names)}: rename the micrographs")
            if names:
                return names[0]
        return None

    return find


def _few(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (", ".join(names[:3]) or "none") + more


def _no_overlap(
    what: str, names: Iterable[str], other: str, other_names: Iterable[str]
) -> UserError:
    return UserError(
        f"no micrograph is in both: {what} are of {_few(names)}; {other}: {_few(other_names)}: "
        "give files of the same micrographs"
    )
