"""Paths on the command line: micrographs and files of coordinates."""

import glob
from collections.abc import Sequence
from pathlib import Path

from picking.errors import UserError
from picking.micrographs.reading import SUFFIXES

Paths = dict[str, Path]  # by file name


def expand(patterns: Sequence[str]) -> list[Path]:
    """Return the files that patterns match, each once; raises for a pattern without any."""
    files: dict[Path, None] = {}
    for pattern in patterns:
        names = [pattern] if Path(pattern).is_file() else glob.glob(pattern, recursive=True)  # noqa: PTH207 (Path.glob takes no absolute pattern)
        matches = [path for path in map(Path, sorted(names)) if path.is_file()]
        if not matches:
            folder = Path(pattern).parent
            there = sorted({path.suffix for path in folder.iterdir()}) if folder.is_dir() else []
            raise UserError(
                f"no file matches '{pattern}'; files in {folder} end in "
                f"{', '.join(there[:8]) or 'nothing, there is none'}: check folder and ending"
            )
        files.update(dict.fromkeys(matches))
    return list(files)


def find_micrographs(patterns: Sequence[str]) -> Paths:
    """Return file name -> path of the micrographs; no two may share the name without suffix."""
    files = expand(patterns)
    by_stem: Paths = {}
    for path in files:
        if path.suffix.lower() in SUFFIXES and by_stem.setdefault(path.stem, path) is not path:
            raise UserError(
                f"{path} and {by_stem[path.stem]} would have the same files of picks: give one of "
                "them, or pick them into two folders"
            )
    if files and not by_stem:
        raise UserError(
            f"{files[0]} is no micrograph: --micrographs takes files that end in "
            f"{', '.join(SUFFIXES)}"
        )
    return {path.name: path for path in by_stem.values()}
