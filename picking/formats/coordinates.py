"""Picks in files: STAR, BOX, CBOX, CSV, COCO JSON or .cs -> one record per micrograph, and back.

Files of RELION, cryoSPARC, EMAN, crYOLO and Topaz are in the MRC's frame; CryoPPP's CSV and COCO
are in the JPEG's, as everything inside the project is. y is flipped here, once on the way in and
once on the way out.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from picking.errors import UserError
from picking.files import write_atomically
from picking.formats import coco, star
from picking.formats.coco import coco_text, read_coco, require_one_category
from picking.formats.cryoppp_csv import csv_text, read_csv
from picking.formats.cryosparc.exposures import Exposure
from picking.formats.cryosparc.particles import SUFFIXES, read_particles
from picking.formats.cryosparc.writing import cs_bytes, csg_text, particles_table
from picking.formats.names import PICKS, few, finder, require_writable, say_unknown, stem
from picking.formats.other_pickers import is_eman, is_topaz, read_eman, read_topaz
from picking.formats.picks import Picks, flip_y, inside, select, tell_of_outside, tell_of_zero_area
from picking.formats.relion.lists import coordinate_files
from picking.formats.star import box_text, cbox_text, read_box, read_cbox, read_star, star_text

FORMATS = {
    "star": ".star", "box": ".box", "cbox": ".cbox", "csv": ".csv", "coco": ".json", "cs": ".cs"
}  # fmt: skip
FRAMES = {
    ".star": "mrc", ".box": "mrc", ".cbox": "mrc", ".csv": "jpeg", ".tsv": "jpeg", ".json": "jpeg",
    ".cs": "mrc", ".csg": "mrc", ".txt": "mrc",
}  # fmt: skip
KINDS = (
    "STAR, BOX, CBOX, CSV, COCO JSON, .cs of cryoSPARC, .txt or .csv of Topaz, _info.json of EMAN2"
)
OF_ONE_MICROGRAPH = ("box", "cbox")  # formats without room for names
# Others' programs fall over a file without a row: boxmanager over a folder whose first file is one
NEVER_EMPTY = ("star", "box", "cbox")


def read_picks(
    paths: Iterable[Path],
    sizes_px: Mapping[str, tuple[int, int] | None],
    frame: str | None = None,
    only_known: bool = False,
    what: str = PICKS,
    ignored: Collection[str] = (),
    allow_partial: bool = False,
    category: str | None = None,
    pixel_size_of: Callable[[str], float | None] = lambda name: None,
) -> list[Picks]:
    """Read the picks of files of any kinds, of one or many micrographs each.

    Boxes without area are no picks, and are told of. A micrograph without picks does not appear in
    a STAR or CSV of many; a file without rows is of the micrograph that it is named after.

    Args:
        paths: files that end as `FRAMES` says, or RELION's lists of such files; a file without a
            column of micrographs is named after its micrograph; .cs files of one job are joined.
        sizes_px: (height, width) of the micrographs, by file name, without which y cannot be
            flipped. Names in the files are looked up among these, whatever their folder and
            suffix, with or without cryoSPARC's leading number.
        frame: `jpeg` or `mrc`, what the files are in if that is not what `FRAMES` says.
        only_known: leave out picks of micrographs that are not in ``sizes_px``; `say_unknown`
            tells of them, or refuses.
        what: they are, as it says it.
        ignored: micrographs whose picks are not wanted, and of which it need not tell.
        allow_partial: more than a tenth may be of micrographs that are not known, or of no area.
        category: of COCO's boxes; None: see `read_coco`.
        pixel_size_of: Å per px of a micrograph of ``sizes_px``, where particles were moved.

    Raises:
        UserError: for a malformed file, an unknown height, a micrograph that stands in two files,
            a size that is not the stated one, more than a tenth of a micrograph's centres
            outside it, and for names that do not fit where ``only_known``.
    """
    followed = [each for path in paths for each in coordinate_files(path, allow_partial)]
    paths = [path for path, _ in followed]
    known_name = finder([*sizes_px, *ignored])
    by_name: dict[str, Picks] = {}
    sources: dict[str, Path] = {}
    named: set[str] = set()
    unknown: Counter[str] = Counter()
    read: list[Picks] = []
    categories: dict[str, str | None] = {}
    for path in paths:
        suffix = path.suffix.lower()
        if suffix not in FRAMES:
            raise UserError(f"{path} is no file of picks: those end in {', '.join(FRAMES)}")
        if not path.is_file():
            raise UserError(f"{path} is not there: check the path")
    of_cryosparc = read_particles([path for path in paths if path.suffix.lower() in SUFFIXES])
    for path, of_micrograph in followed:
        file_frame = frame or frame_of(path)
        suffix = path.suffix.lower()
        if suffix in SUFFIXES:
            listed = of_cryosparc.get(path, [])
        elif suffix == ".json" and not is_eman(path):
            boxes = read_coco(path, category, allow_partial)
            listed, categories[str(path)] = boxes.records, boxes.category
            named |= {known_name(name) or "" for name in boxes.unannotated}
        else:
            listed = _read_one(path, known_name, pixel_size_of)
        if of_micrograph is not None and len(listed) == 1:  # a list knows better than a file's name
            listed = [dataclasses.replace(listed[0], name=of_micrograph)]
        read += listed
        for picks in listed:
            name = known_name(picks.name)
            named |= {name or ""}
            # Where no box has an area, nothing tells that somebody looked at the micrograph
            unannotated = picks.n_zero_area and not len(picks.scores)
            if name in ignored or unannotated:
                continue
            nothing = not len(picks.centres_px) and picks.size_px is None
            if name is None and (only_known or nothing):
                unknown[picks.name] += len(picks.centres_px)
                continue
            size_px = sizes_px[name] if name else picks.size_px
            if size_px is None and picks.size_px is None and file_frame == "mrc":
                known = [one for one, size in sizes_px.items() if size]
                raise UserError(
                    f"{path}: y counts from the MRC's first row, so the height of '{picks.name}' "
                    f"is needed, but sizes are known of {few(known)}: give its micrograph, or "
                    "frame jpeg if y counts from the top of the JPEG"
                )
            name = name or picks.name
            if name in by_name:
                raise UserError(
                    f"{path} has picks of {name} (as '{picks.name}'), and so has {sources[name]}: "
                    "give one of them"
                )
            by_name[name] = _in_jpeg_frame(picks, name, size_px or picks.size_px, file_frame)
            sources[name] = path
    tell_of_zero_area(read, few(map(str, paths)), allow_partial)
    tell_of_outside(list(by_name.values()), few(map(str, paths)))
    require_one_category(categories)
    if only_known:
        n_all = unknown.total() + sum(len(p.centres_px) for p in by_name.values())
        unserved = [name for name in sizes_px if name not in named]
        say_unknown(what, unknown, n_all, sizes_px, unserved, allow_partial)
    return list(by_name.values())


def _read_one(
    path: Path,
    known_name: Callable[[str], str | None],
    pixel_size_of: Callable[[str], float | None],
) -> list[Picks]:
    """Read a file that stands alone, and is of neither COCO nor cryoSPARC."""
    suffix = path.suffix.lower()
    if suffix == ".star":
        return read_star(
            path,
            lambda name: known_name(name) is not None,
            lambda name: pixel_size_of(known_name(name) or ""),
        )
    return read_topaz(path) if is_topaz(path) else READERS[suffix](path)


def write_picks(
    folder: Path,
    picks: Sequence[Picks],
    formats: Sequence[str],
    one_file: bool = False,
    frame: str | None = None,
    exposures: Mapping[str, Exposure] | None = None,
    names: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write the picks in each of ``formats``, keys of `FORMATS`; return the files.

    With ``one_file`` all micrographs go into <folder>/picks.<suffix>, else each into
    <folder>/<format>/<stem>.<suffix>; BOX and CBOX are always of one micrograph, and .cs is always
    particles.cs of all, with the .csg beside it. STAR and .cs name the MRC, whatever the image was.
    Files that are there are replaced. STAR, BOX and CBOX without a pick are not written, and
    removed.

    Args:
        folder: for the files.
        picks: of micrographs, in the JPEG's frame.
        formats: keys of `FORMATS`.
        one_file: of all micrographs.
        frame: to write in, `jpeg` or `mrc`, if not in what `FRAMES` says.
        exposures: what cryoSPARC says of micrographs, by the picks' name.
        names: that a STAR file has for micrographs, letter for letter, by the picks' name.

    Raises `UserError` for a name that would not be read back, for two micrographs of one stem, and
    where a size (all but CSV) or a diameter (all but STAR and .cs) is unknown.
    """
    require_writable((PurePosixPath(p.name).name for p in picks), formats, one_file)
    by_stem: dict[str, Picks] = {}
    for p in picks:
        if by_stem.setdefault(stem(p.name), p) is not p:
            raise UserError(
                f"{p.name} and {by_stem[stem(p.name)].name} would be one file: rename one of them"
            )
    files: dict[Path, tuple[str, list[Picks]]] = {}
    for name in formats:
        if name == "cs" or (one_file and name not in OF_ONE_MICROGRAPH):
            files[files_of_all(folder, name)[0]] = name, list(picks)
        else:
            for p in by_stem.values():
                files[file_of(folder, name, p.name)] = name, [p]
    contents: dict[Path, str | bytes] = {}
    empty = []
    for path, (name, of_file) in files.items():
        turned = frame not in (None, FRAMES[FORMATS[name]])
        of_file = [flip_y(p) for p in of_file] if turned else of_file
        if name in NEVER_EMPTY and not any(len(p.centres_px) for p in of_file):
            empty.append(path)
        elif name == "cs":
            mrcs = [dataclasses.replace(flip_y(p), name=_mrc_of(p.name)) for p in of_file]
            of_mrc = {_mrc_of(name): exposure for name, exposure in (exposures or {}).items()}
            table = particles_table(mrcs, of_mrc)
            contents[path] = cs_bytes(table)
            contents[files_of_all(folder, name)[1]] = csg_text(table, path.name, frame or "mrc")
        else:
            text = _file_text(name, of_file, one_file, names or {})
            contents[path] = text.replace(*_FRAME_WORDS[frame]) if turned and frame else text
    for path in empty:
        path.unlink(missing_ok=True)  # of a micrograph that was picked before, when it was another
    for path, content in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    return [path for path in contents if path in files]


def file_of(folder: Path, format_name: str, micrograph: str) -> Path:
    """Return where `write_picks` puts a micrograph's picks in a format."""
    return folder / format_name / f"{stem(micrograph)}{FORMATS[format_name]}"


def files_of_all(folder: Path, format_name: str) -> list[Path]:
    """Return where `write_picks` puts all micrographs' picks in a format: the file, and a .csg."""
    if format_name == "cs":
        return [folder / "particles.cs", folder / "particles.csg"]
    return [folder / f"picks{FORMATS[format_name]}"]


def match_names(
    picks: Sequence[Picks], truth: Sequence[Picks], all_picked: bool = False
) -> tuple[list[tuple[Picks, Picks]], list[str], list[str]]:
    """Pair picks with the truth of the same micrograph, in the truth's order.

    A file of many does not name a micrograph without picks. So a micrograph that no picks name
    has none where ``all_picked``, which says that all of the truth's were looked at, and where
    there is no pick at all; elsewhere perhaps nobody looked, and it is left out.

    Returns the pairs and the names of micrographs that no picks name and of those without truth.
    Raises `UserError` when no name is in both, and when two picks are of one micrograph.
    """
    known_name = finder([t.name for t in truth])
    by_name: dict[str, Picks] = {}
    without_truth = []
    for p in picks:
        name = known_name(p.name)
        if name is None:
            without_truth.append(p.name)
        elif name in by_name:
            raise UserError(
                f"'{p.name}' and '{by_name[name].name}' are both picks of '{name}': remove one"
            )
        else:
            by_name[name] = p
    if (picks and not by_name) or not truth:
        raise UserError(
            f"no micrograph is in both: picks are of {few(without_truth)}; truth: "
            f"{few(t.name for t in truth)}: give files of the same micrographs"
        )
    without_picks = [t.name for t in truth if t.name not in by_name]
    if all_picked or not any(len(p.scores) for p in picks):
        for t in truth:
            by_name.setdefault(t.name, select(t, np.zeros(len(t.scores), dtype=bool)))
    return [(by_name[t.name], t) for t in truth if t.name in by_name], without_picks, without_truth


# One file


READERS: dict[str, Callable[[Path], list[Picks]]] = {
    ".box": read_box, ".cbox": read_cbox, ".csv": read_csv, ".tsv": read_csv, ".txt": read_topaz,
    ".json": read_eman,
}  # fmt: skip


def frame_of(path: Path) -> str:
    """Return the frame that a file of coordinates is in by its kind, `jpeg` or `mrc`."""
    suffix = path.suffix.lower()
    of_mrc = is_topaz(path) or (suffix == ".json" and is_eman(path))
    return "mrc" if of_mrc else FRAMES[suffix]


def _in_jpeg_frame(picks: Picks, name: str, size_px: tuple[int, int] | None, frame: str) -> Picks:
    """Return the picks of a file in the JPEG's frame, checked against the size where it is known.

    ``picks.size_px`` is what the file states, ``size_px`` what is known of the micrograph.
    """
    known = dataclasses.replace(picks, name=name, size_px=size_px)
    if size_px is None:
        return known
    flipped = flip_y(known) if frame == "mrc" else known
    inside(dataclasses.replace(flipped, size_px=picks.size_px), size_px)
    return flipped


def _file_text(name: str, picks: list[Picks], one_file: bool, names: Mapping[str, str]) -> str:
    """Return the content of one file; only STAR, BOX and CBOX belong to the MRC."""
    if name == "csv":
        return csv_text(picks, [p.name for p in picks] if one_file else None)
    if name == "coco":
        return coco_text(picks)
    flipped = [flip_y(p) for p in picks]
    if name == "star":
        return star_text(flipped, [names.get(p.name) or _mrc_of(p.name) for p in picks])
    return box_text(flipped[0]) if name == "box" else cbox_text(flipped[0])


# What a file says of its frame, and what it says where it is turned
_FRAME_WORDS = {"jpeg": (star.FRAME, coco.FRAME), "mrc": (coco.FRAME, star.FRAME)}


def _mrc_of(name: str) -> str:
    """Return the name of the MRC, whatever image of it was picked."""
    path = PurePosixPath(name)
    return str(path.with_name(f"{stem(path.name)}.mrc"))
