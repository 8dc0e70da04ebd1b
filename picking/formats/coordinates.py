"""Picks in files: STAR, BOX, CBOX, CSV, COCO JSON or .cs -> one record per micrograph, and back.

Files of RELION, cryoSPARC, EMAN, crYOLO and Topaz are in the MRC's frame; CryoPPP's CSV and COCO
are in the JPEG's, as everything inside the project is. y is flipped here, once on the way in and
once on the way out.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from picking.errors import UserError
from picking.files import write_atomically
from picking.formats.coco import coco_text, read_coco
from picking.formats.cryoppp_csv import csv_text, read_csv
from picking.formats.cryosparc.particles import SUFFIXES as SUFFIXES_OF_CRYOSPARC
from picking.formats.cryosparc.particles import read_particles
from picking.formats.cryosparc.writing import cs_bytes, csg_text, particles_table
from picking.formats.other_pickers import is_eman, read_eman, read_topaz
from picking.formats.picks import Picks, flip_y, inside
from picking.formats.star import box_text, cbox_text, read_box, read_cbox, read_star, star_text
from picking.micrographs.reading import SUFFIXES

FORMATS = {
    "star": ".star", "box": ".box", "cbox": ".cbox", "csv": ".csv", "coco": ".json", "cs": ".cs"
}  # fmt: skip
FRAMES = {
    ".star": "mrc", ".box": "mrc", ".cbox": "mrc", ".csv": "jpeg", ".json": "jpeg", ".cs": "mrc",
    ".csg": "mrc", ".txt": "mrc",
}  # fmt: skip
KINDS = "STAR, BOX, CBOX, CSV, COCO JSON, .cs of cryoSPARC, .txt of Topaz, _info.json of EMAN2"
OF_ONE_MICROGRAPH = ("box", "cbox")  # formats without room for names
# Others' programs fall over a file without a row: boxmanager over a folder whose first file is one
NEVER_EMPTY = ("star", "box", "cbox")
# What cryoSPARC puts before a name, and what it and RELION put behind.
UID = re.compile(r"^\d+_")
TAIL = re.compile(r"(_patch_aligned(_doseweighted)?)?(_autopick|_manualpick|_picks?)?$")


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
        paths: files that end as `FRAMES` says; a file without a column of micrographs is named
            after its micrograph; .cs files of one job are joined.
        sizes_px: (height, width) of the micrographs, by file name, without which y cannot be
            flipped. Names in the files are looked up among these, whatever their folder and
            suffix, with or without cryoSPARC's leading number.
        frame: `jpeg` or `mrc`, what the files are in if that is not what `FRAMES` says.
        only_known: leave out picks of micrographs that are not in ``sizes_px``.

    Raises:
        UserError: for a malformed file, an unknown height, a micrograph that stands in two files,
            a size that is not the stated one, more than a tenth of a micrograph's centres
            outside it, and when nothing is known of all that ``only_known`` asks for.
    """
    known_name = _finder(sizes_px)
    by_name: dict[str, Picks] = {}
    sources: dict[str, Path] = {}
    unknown = []
    for path, contents in _contents(list(paths)):
        file_frame = frame or frame_of(path)
        for picks in contents:
            name = known_name(picks.name)
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
            if name in by_name:
                raise UserError(
                    f"{path} has picks of {name} (as '{picks.name}'), and so has {sources[name]}: "
                    "give one of them"
                )
            by_name[name] = _in_jpeg_frame(picks, name, size_px, file_frame)
            sources[name] = path
    if only_known and unknown and not by_name:
        raise _no_overlap(unknown, "micrographs", sizes_px)
    return list(by_name.values())


def write_picks(
    folder: Path, picks: Sequence[Picks], formats: Sequence[str], one_file: bool = False
) -> list[Path]:
    """Write the picks in each of ``formats``, keys of `FORMATS`; return the files.

    With ``one_file`` all micrographs go into <folder>/picks.<suffix>, else each into
    <folder>/<format>/<stem>.<suffix>; BOX and CBOX are always of one micrograph, and .cs is always
    particles.cs of all, with the .csg beside it. STAR names the MRC, whatever the image was. Files
    that are there are replaced. STAR, BOX and CBOX without a pick are not written, and removed.

    Raises `UserError` for two micrographs of one stem, and where a size (all but CSV) or a
    diameter (all but STAR) is unknown.
    """
    by_stem: dict[str, Picks] = {}
    for p in picks:
        if by_stem.setdefault(_stem(p.name), p) is not p:
            raise UserError(
                f"{p.name} and {by_stem[_stem(p.name)].name} would be one file: rename one of them"
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
        if name in NEVER_EMPTY and not any(len(p.centres_px) for p in of_file):
            empty.append(path)
        elif name == "cs":
            flipped = [flip_y(p) for p in of_file]
            table = particles_table([dataclasses.replace(p, name=_mrc_of(p.name)) for p in flipped])
            contents[path] = cs_bytes(table)
            contents[files_of_all(folder, name)[1]] = csg_text(table, path.name)
        else:
            contents[path] = _file_text(name, of_file, one_file)
    for path in empty:
        path.unlink(missing_ok=True)  # of a micrograph that was picked before, when it was another
    for path, content in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    return [path for path in contents if path in files]


def file_of(folder: Path, format_name: str, micrograph: str) -> Path:
    """Return where `write_picks` puts a micrograph's picks in a format."""
    return folder / format_name / f"{_stem(micrograph)}{FORMATS[format_name]}"


def files_of_all(folder: Path, format_name: str) -> list[Path]:
    """Return where `write_picks` puts all micrographs' picks in a format: the file, and a .csg."""
    if format_name == "cs":
        return [folder / "particles.cs", folder / "particles.csg"]
    return [folder / f"picks{FORMATS[format_name]}"]


def match_names(
    picks: Sequence[Picks], truth: Sequence[Picks]
) -> tuple[list[tuple[Picks, Picks]], list[str], list[str]]:
    """Pair picks with the truth of the same micrograph, in the truth's order.

    Returns the pairs and the names of micrographs without picks and of those without truth. A file
    of many does not name a micrograph without picks, so the caller must judge whether there are
    none or nobody looked. Raises `UserError` when no name is in both, and when two picks are of one
    micrograph.
    """
    known_name = _finder([t.name for t in truth])
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
    if not by_name:
        raise _no_overlap(without_truth, "truth", [t.name for t in truth])
    pairs = [(by_name[t.name], t) for t in truth if t.name in by_name]
    return pairs, [t.name for t in truth if t.name not in by_name], without_truth


# One file


def frame_of(path: Path) -> str:
    """Return the frame that files of this kind are in, `jpeg` or `mrc`."""
    suffix = path.suffix.lower()
    return "mrc" if suffix == ".json" and is_eman(path) else FRAMES[suffix]


def _contents(paths: Sequence[Path]) -> Iterator[tuple[Path, list[Picks]]]:
    """Yield each file with the picks in it; those of cryoSPARC belong together."""
    for path in paths:
        if path.suffix.lower() not in FRAMES:
            raise UserError(f"{path} is no file of picks: those end in {', '.join(FRAMES)}")
        if not path.is_file():
            raise UserError(f"{path} is not there: check the path")
    of_cryosparc = [path for path in paths if path.suffix.lower() in SUFFIXES_OF_CRYOSPARC]
    yield from read_particles(of_cryosparc).items()
    for path in paths:
        if path not in of_cryosparc:
            yield path, READERS[path.suffix.lower()](path)


def _read_json(path: Path) -> list[Picks]:
    """Read EMAN's boxes or COCO; an image whose only boxes have no area was not annotated."""
    if is_eman(path):
        return read_eman(path)
    return [p for p in read_coco(path)[0] if len(p.centres_px) or not p.n_zero_area]


READERS: dict[str, Callable[[Path], list[Picks]]] = {
    ".star": read_star, ".box": read_box, ".cbox": read_cbox, ".csv": read_csv,
    ".json": _read_json, ".txt": read_topaz,
}  # fmt: skip


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


def _file_text(name: str, picks: list[Picks], one_file: bool) -> str:
    """Return the content of one file; only STAR, BOX and CBOX belong to the MRC."""
    if name == "csv":
        return csv_text(picks, [p.name for p in picks] if one_file else None)
    if name == "coco":
        return coco_text(picks)
    flipped = [flip_y(p) for p in picks]
    if name == "star":
        return star_text(flipped, [_mrc_of(p.name) for p in picks])
    return box_text(flipped[0]) if name == "box" else cbox_text(flipped[0])


# Names


def _stem(name: str) -> str:
    """Return a micrograph's name without folder and image suffix: a.1 for dir/a.1.jpg."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.stem if path.suffix.lower() in (*SUFFIXES, ".mrcs", ".eer") else path.name


def _mrc_of(name: str) -> str:
    """Return the name of the MRC, whatever image of it was picked."""
    path = PurePosixPath(name)
    return str(path.with_name(f"{_stem(path.name)}.mrc"))


def _finder(known: Iterable[str]) -> Callable[[str], str | None]:
    """Return a function from a name in a file of picks to the one of ``known`` it means, or None.

    The two may differ in folder, suffix and tail, and one of them may have cryoSPARC's leading
    number; but not both, since 001_a is not 002_a. The closest likeness counts.
    """

    def forms(name: str) -> tuple[str, str, str, str]:
        """Return a name as it is, without folder and suffix, without tail, and without number."""
        stem = _stem(name)
        core = TAIL.sub("", stem)
        return name, stem, core, UID.sub("", core)

    tables: list[dict[str, list[str]]] = [{}, {}, {}, {}]
    for name in dict.fromkeys(known):
        for table, form in zip(tables, forms(name), strict=True):
            table.setdefault(form, []).append(name)

    def find(name: str) -> str | None:
        """Return the known name, None without one; raises `UserError` where several fit."""
        whole, stem, core, bare = forms(name)
        of_whole, of_stem, of_core, of_bare = tables
        for form, table in (
            (whole, of_whole), (stem, of_stem), (core, of_core), (bare, of_core), (core, of_bare)
        ):  # fmt: skip
            names = table.get(form, [])
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


def _no_overlap(names: Iterable[str], other: str, other_names: Iterable[str]) -> UserError:
    return UserError(
        f"no micrograph is in both: picks are of {_few(names)}; {other}: {_few(other_names)}: "
        "give files of the same micrographs"
    )
