"""session.yaml: which micrographs a folder of labels is of, and how large their particles are."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from picking.errors import UserError
from picking.files import make_folder, write_atomically
from picking.formats.names import few
from picking.inputs.diameters import require_lengths
from picking.inputs.labels_folder import SESSION, read_session_file
from picking.inputs.paths import Paths

# What a folder of labels may hold before its session is written
OURS = (SESSION, ".lock", ".token", "events.jsonl")


@dataclasses.dataclass(frozen=True)
class Session:
    """What a folder of labels is of.

    micrographs: patterns or files, as they were given. diameter: of the particles, such as 150A or
    270px. pixel_size: Å per px, None where the micrographs' headers say it.
    """

    micrographs: tuple[str, ...]
    diameter: str
    pixel_size: float | None


def read_session(folder: Path) -> Session | None:
    """Return the session of a folder, None without one; raises `UserError` for a damaged one."""
    path = folder / SESSION
    return Session(*read_session_file(path)) if path.exists() else None


def asked_session(
    folder: Path,
    micrographs: Sequence[str] | None,
    diameter: str | None,
    pixel_size: float | None,
) -> Session:
    """Return the session of a folder with what is given anew; None stands for as it was.

    Raises `UserError` where something is missing, and for a folder of other things.
    """
    before = read_session(folder)
    if before is None:
        there = [p.name for p in folder.iterdir() if p.name not in OURS] if folder.is_dir() else []
        if there and not (folder / "events.jsonl").exists():
            raise UserError(
                f"--output {folder} is no folder of labels (it holds {min(there)}): choose another"
            )
        if not micrographs:
            raise UserError(
                f"--micrographs is missing, and {folder} does not know them yet: give files or a "
                "quoted 'raw/*.mrc'"
            )
        if diameter is None:
            raise UserError("--diameter is missing: give the particles', such as 108px or 150A")
        before = Session((), diameter, None)
    require_lengths(diameter, pixel_size)
    return Session(
        tuple(micrographs or before.micrographs),
        diameter or before.diameter,
        before.pixel_size if pixel_size is None else pixel_size,
    )


def write_session(folder: Path, session: Session) -> None:
    """Write the session, unless it is there already."""
    if session == read_session(folder):
        return
    make_folder(folder)
    content = {**dataclasses.asdict(session), "micrographs": list(session.micrographs)}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    write_atomically(folder / SESSION, text)


def require_same_micrographs(
    folder: Path,
    labelled_px: Mapping[str, tuple[int, int]],
    sizes_px: Mapping[str, tuple[int, int]],
    former: Paths,
    given: Paths,
) -> list[str]:
    """Raise `UserError` where a folder's labels are of other micrographs than those given.

    More may have come. Some may have gone; their labels are kept, and their names are returned.

    Args:
        folder: of the labels.
        labelled_px: (height, width) by name of the micrographs that were labelled.
        sizes_px: of those given, where they can be read.
        former: those that the session named and that are still there.
        given: those given.
    """
    gone = [name for name in labelled_px if name not in given]
    cure = "choose another --output, or give the micrographs that it is of"
    if labelled_px and len(gone) == len(labelled_px):
        raise UserError(
            f"{folder} has labels of {few(labelled_px)}, and none of these is among the "
            f"micrographs given ({few(given)}): {cure}"
        )
    for name, size_px in labelled_px.items():
        if name in sizes_px and sizes_px[name] != size_px:
            is_px = " x ".join(map(str, sizes_px[name][::-1]))
            was_px = " x ".join(map(str, size_px[::-1]))
            raise UserError(
                f"{folder} has labels of a {name} of {was_px} px, but {given[name]} has {is_px} "
                f"px: {cure}"
            )
        if name in former and name in given and not former[name].samefile(given[name]):
            raise UserError(
                f"{folder} has labels of {former[name]}, and {given[name]} is another file of "
                f"this name: {cure}"
            )
    return gone
