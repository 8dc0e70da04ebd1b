"""Files of cryoSPARC as columns: tables, groups of tables, and values that were checked."""

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from picking.errors import UserError, warn
from picking.files import DAMAGED_ARRAY
from picking.formats.picks import valid

STREAM = b"\x95CSDAT"  # begins the other format of a .cs, which only cryoSPARC's own tools read
MAX_HEADER = 1 << 20  # characters; a refinement of many classes has hundreds of fields


def read_table(path: Path) -> np.ndarray:
    """Return the structured array of a .cs, a memory map; nothing in it is ever executed."""
    stream = False
    try:
        if not path.is_file():
            raise UserError(f"{path} is not there: check the path")
        with path.open("rb") as file:
            stream = file.read(len(STREAM)) == STREAM
        table = np.lib.format.open_memmap(path, mode="r", max_header_size=MAX_HEADER)
    except DAMAGED_ARRAY as error:
        if stream:
            raise UserError(
                f"{path} is in cryoSPARC's stream format: export the job's results, or save it "
                "anew with Dataset.load(...).save(...) of cryosparc-tools"
            ) from error
        raise UserError(
            f"{path} cannot be read as cryoSPARC's .cs ({str(error)[:200]}): copy or export it "
            "again"
        ) from error
    if table.dtype.names is None or table.ndim != 1 or "uid" not in table.dtype.names:
        raise UserError(
            f"{path} is no .cs: it must be a structured array with uid: export it again"
        )
    return table


def members(path: Path, slot: str, wanted: Iterable[str]) -> list[Path]:
    """Return the .cs files that a .csg names for the slots of the wanted fields.

    That of ``slot``, which it must have, comes first. They are relative to the .csg.
    """
    try:
        # Of this loader nothing but texts, lists and dictionaries comes
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
        results = content["results"]
        names = {name: one["metafile"].removeprefix(">") for name, one in results.items()}
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there: check the path") from error
    except (
        yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError
    ) as error:  # fmt: skip
        raise UserError(f"{path} is no group of cryoSPARC's: export the results again") from error
    if slot not in names:
        raise UserError(
            f"{path} has no '{slot}' among its results ({', '.join(names)[:200]}): give the .csg "
            f"of {'particles' if slot == 'location' else 'exposures'}"
        )
    slots = {name.partition("/")[0] for name in wanted}
    files = [names[slot], *(names[name] for name in names if name in slots)]
    return [path.parent / name for name in dict.fromkeys(files)]


def group_beside(path: Path, slot: str, wanted: Iterable[str]) -> list[Path]:
    """Return what a .csg in the same folder names together with this .cs; [] without such."""
    for group in sorted(path.parent.glob("*.csg")):
        try:
            files = members(group, slot, wanted)
        except UserError:
            continue
        if path in files:
            return files
    return []


def joined(files: Sequence[Path], wanted: Iterable[str]) -> dict[str, np.ndarray]:
    """Return the wanted columns of all files, in the first's order, for rows whose uid is in each.

    Of a column that several files have the first one counts. Raises `UserError` where no uid is in
    all of them, or where one stands twice.
    """
    wanted = set(wanted)
    tables = [read_table(path) for path in files]
    uids = [uids_of(table["uid"], path) for table, path in zip(tables, files, strict=True)]
    kept = uids[0]
    if len(files) > 1:
        names = ", ".join(path.name for path in files)
        for of_file, path in zip(uids, files, strict=True):
            if len(np.unique(of_file)) < len(of_file):
                raise UserError(
                    f"{path}: a uid stands twice, so it fits no other file: export it again"
                )
        common = functools.reduce(np.intersect1d, uids)
        fewest = min(len(of_file) for of_file in uids)
        if fewest and not len(common):
            raise UserError(f"{names}: no uid is in all of them: give files of the same job")
        if len(common) < fewest:
            warn(f"{names}: {len(common)} uids are in all of them, of {fewest} in the smallest")
        kept = uids[0][np.isin(uids[0], common)]
    columns: dict[str, np.ndarray] = {}
    for table, of_file in zip(tables, uids, strict=True):
        order = np.argsort(of_file, kind="stable")
        rows = order[np.searchsorted(of_file[order], kept)] if len(files) > 1 else slice(None)
        for name in table.dtype.names or ():
            if name in wanted and name not in columns:
                columns[name] = np.array(table[name][rows])
    return columns


# Values


def numbers(
    columns: Any, name: str, path: Path, width: int = 1, unknown: bool = False
) -> np.ndarray:
    """Return a column as float64 (n,), or (n, width); NaN only where ``unknown`` is allowed."""
    if name not in columns:
        raise UserError(f"{path} has no {name}: give the passthrough file of the same job too")
    values = np.asarray(columns[name])
    if values.shape[1:] != ((width,) if width > 1 else ()) or values.dtype.kind not in "fiu":
        raise UserError(f"{path}: {name} must hold {width} number(s) a row: export it again")
    with np.errstate(invalid="ignore"):  # of a damaged float32
        floats = values.astype(np.float64)
    bad = np.flatnonzero(~valid(floats, unknown).all(axis=tuple(range(1, floats.ndim))))
    if len(bad):
        raise UserError(
            f"{path}: {name} has no finite number in row {bad[0] + 1} of {len(floats)}: export it "
            "again"
        )
    return floats


def uids_of(values: Any, path: Path) -> np.ndarray:
    """Return whole numbers as uint64 (n,)."""
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise UserError(f"{path}: a uid must be a whole number: export the file again")
    return array.astype(np.uint64)


def texts(values: Any, path: Path) -> list[str]:
    """Return paths as text; those of an exported group begin with >, for 'relative to it'."""
    array = np.asarray(values)
    try:
        listed = array.tolist()
    except ValueError:  # characters that there are not
        listed = [None]
    decoded = [
        one.decode(errors="backslashreplace") if isinstance(one, bytes) else one for one in listed
    ]
    if array.ndim != 1 or not all(isinstance(one, str) for one in decoded):
        raise UserError(f"{path}: the path of a micrograph must be text: export the file again")
    return [one.removeprefix(">") for one in decoded]
