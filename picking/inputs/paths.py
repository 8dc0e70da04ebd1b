"""Paths on the command line: micrographs and files of coordinates.

What is named outright is used or refused. Of what a pattern matches besides, as 'raw/*' does, a
tenth may be left out, and that is said.
"""

import glob
import os
import re
import shlex
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from picking.errors import UserError, leave_out, warn
from picking.formats.coordinates import FRAMES
from picking.formats.names import core, few
from picking.micrographs.reading import SUFFIXES

Paths = dict[str, Path]  # by file name

COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")
# What programs write beside a micrograph and name after it. MotionCor, RELION, AreTomo: power
# spectra, half sums of frames, sums with other weights; CTFFIND, Gctf: fits of the CTF; SerialEM,
# cryoSPARC, Topaz: powpair, background, thumb@1x, denoised.
BY_PRODUCT = re.compile(
    r"[_-](ps|pow|powpair|powspec|psd|power_?spectrum|spectrum|spectra|ctf|ctffind\d?|gctf|"
    r"(ctf_)?diag(nostics?)?(_[12]d)?|avrot|evn|odd|even|(evn|even|odd)_?sum|no_?dw|dws?|stk|"
    r"background|thumb(@\dx)?|mask|denoised)$",
    re.IGNORECASE,
)


def find_coordinates(patterns: Sequence[str], allow_partial: bool = False) -> list[Path]:
    """Return the files of labels, picks or true particles that patterns match, each once.

    Raises `UserError` as `expand` does.
    """
    return expand(patterns, tuple(FRAMES), "file of coordinates", allow_partial)


def find_micrographs(patterns: Sequence[str], allow_partial: bool = False) -> Paths:
    """Return file name -> path of the micrographs; no two may share the name without suffix.

    Power spectra and the like are left out where their micrograph is given too. Raises `UserError`
    as `expand` does.
    """
    files = expand(patterns, SUFFIXES, "micrograph", allow_partial)
    return by_file_name(_without_by_products(files))


def by_file_name(files: Sequence[Path]) -> Paths:
    """Return file name -> path; raises `UserError` where two would have the same files of picks."""
    by_stem: Paths = {}
    for path in files:
        stem = unicodedata.normalize("NFC", path.stem)
        if by_stem.setdefault(stem, path) is not path:
            raise UserError(
                f"{path} and {by_stem[stem]} would have the same files of picks: give one of "
                "them, or pick them into two folders"
            )
    return {path.name: path for path in files}


def _without_by_products(files: Sequence[Path]) -> list[Path]:
    """Return the files that are not named after another of them, as a power spectrum is."""
    given = {path.stem for path in files} | {core(path.name) for path in files}
    base = {path: BY_PRODUCT.sub("", path.stem) for path in files}
    left_out = [path for path in files if base[path] != path.stem and base[path] in given]
    if left_out:
        warn(
            f"{len(left_out):,} of {len(files):,} files are named after a micrograph that is given "
            f"too (e.g. {few(path.name for path in left_out)}), as power spectra and half sums "
            "are: they are left out; to use them, give them alone"
        )
    alone = [
        path
        for path in files
        if base[path] != path.stem
        and base[path] not in given
        and any(path.with_name(base[path] + suffix).is_file() for suffix in SUFFIXES)
    ]
    if alone:
        warn(
            f"{len(alone):,} of {len(files):,} micrographs are named after another file beside "
            f"them (e.g. {few(path.name for path in alone)}), as power spectra and half sums are: "
            "check that they are micrographs"
        )
    return [path for path in files if path not in left_out]


def expand(
    patterns: Sequence[str], endings: tuple[str, ...], what: str, allow_partial: bool
) -> list[Path]:
    """Return the files with one of ``endings`` that patterns match, each once, in their order.

    Raises `UserError` for a file that is named outright and is not there or ends otherwise, for a
    folder, for a pattern without a file, and when more than a tenth of what the patterns match is
    something else, unless ``allow_partial``.
    """
    used: dict[Path, None] = {}
    others: dict[Path, None] = {}
    for pattern in patterns:
        if not os.path.lexists(pattern):  # a shell leaves the ~ of a quoted '~/raw/*.mrc'
            pattern = os.path.expanduser(pattern)  # noqa: PTH111 (Path's raises where nobody is called so)
        outright = os.path.lexists(pattern)
        paths = [Path(pattern)] if outright else _matches(pattern)
        fitting = [path for path in paths if path.is_file() and path.suffix.lower() in endings]
        if not fitting:
            raise _refusal(pattern, paths, endings, what, outright)
        used.update(dict.fromkeys(fitting))
        others.update(dict.fromkeys(path for path in paths if path not in used))
    n_all = len(used) + len(others)
    leave_out(
        len(others),
        n_all,
        f"{len(others):,} of {n_all:,} files that {few(patterns)} match can be no {what} "
        f"(e.g. {few(map(_what_it_is, others))}), which end in {', '.join(endings)}",
        allow_partial,
    )
    return list(used)


def _matches(pattern: str) -> list[Path]:
    """Return what a pattern matches, sorted; brackets that stand in names are no pattern."""
    # A folder that is there is meant as it stands: data[1] in data[1]/*.mrc
    above = (path for path in Path(pattern).parents if os.path.isdir(path))  # noqa: PTH112 (a name may be too long)
    folder = next(above, Path())
    rest = str(Path(pattern).relative_to(folder))
    for tried in (rest, rest.replace("[", "[[]")):
        names = glob.glob(tried, root_dir=folder, recursive=True)  # noqa: PTH207 (Path.glob shows hidden files)
        found = [folder / name for name in sorted(names)]
        if "**" in rest:  # which matches every folder
            found = [path for path in found if not path.is_dir()]
        if found:
            return found
    return []


def _what_it_is(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        return f"{path}, a link to nothing"
    return f"{path}, a folder" if path.is_dir() else str(path)


def _refusal(
    pattern: str, paths: Sequence[Path], endings: tuple[str, ...], what: str, outright: bool
) -> UserError:
    """Return the error for a pattern none of whose matches fits, or for a file named outright."""
    path, ends = Path(pattern), ", ".join(endings)
    if outright and path.is_dir():
        return _is_folder(path, endings, what)
    if outright and path.is_symlink() and not path.exists():
        return UserError(f"{path} is a link to {path.readlink()}, which is not there: mend it")
    if outright and path.suffix.lower() in endings:
        return UserError(f"{path} is a device or the like, no file: give a {what}")
    if outright and path.suffix.lower() in COMPRESSED and Path(path.stem).suffix in endings:
        return UserError(f"{path} is no {what} but compressed: decompress it and give {path.stem}")
    if outright:
        return UserError(f"{path} is no {what}: those end in {ends}")
    if paths:
        return UserError(
            f"none of the {len(paths):,} files that '{pattern}' matches is a {what} (e.g. "
            f"{few(map(str, paths))}): those end in {ends}"
        )
    there = []
    if os.path.isdir(path.parent):  # noqa: PTH112
        there = sorted({path.suffix for path in path.parent.iterdir() if path.suffix})
    return UserError(
        f"no file matches '{pattern}'; files in {path.parent} end in "
        f"{', '.join(there[:8]) or 'nothing, there is none'}: check folder and ending"
    )


def _is_folder(folder: Path, endings: tuple[str, ...], what: str) -> UserError:
    """Return the error for a folder: with the patterns that would match its files."""
    for below in ("*", "*/*"):
        there = {path.suffix for path in folder.glob(below) if path.suffix.lower() in endings}
        cures = [shlex.quote(str(folder / f"{below}{ending}")) for ending in sorted(there)]
        if cures:
            return UserError(f"{folder} is a folder: give {' or '.join(cures)}")
    return UserError(f"{folder} is a folder without a {what}: those end in {', '.join(endings)}")
