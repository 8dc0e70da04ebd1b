"""What follows from the events, for scripts to read: STAR files, masks of junk, a table of states.

    picks.star  not_particles.star  junk/<stem>.png  micrographs.csv

Each is written anew, whole, when something changed that it tells of.
"""

import csv
import datetime
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from picking.files import make_folder, write_atomically, write_saved
from picking.formats.names import stem
from picking.formats.picks import Picks, flip_y
from picking.formats.star import star_text
from picking.inputs.labels_folder import JUNK, NEGATIVES, PICKS, TABLE
from picking.labelling.folder.actions import Labels, Stroke
from picking.labelling.folder.history import History

COLUMNS = ("name", "state", "picks", "not_particles")


def junk_file(folder: Path, name: str) -> Path:
    """Return where the mask of junk of the micrograph called ``name`` is."""
    return folder / JUNK / f"{stem(name)}.png"


def tables(
    labels: Mapping[str, Labels],
    sizes_px: Mapping[str, tuple[int, int]],
    names: Iterable[str],
    diameters_px: Mapping[str, float],
    listed: Mapping[str, str],
) -> dict[str, str | None]:
    """Return what picks.star, not_particles.star and micrographs.csv are to hold, by file name.

    None for a STAR file without a place, since programs misread it. A micrograph that is left out
    is in the table alone.

    Args:
        labels: of the micrographs that were acted on, by name.
        sizes_px: (height, width) of these.
        names: of all micrographs.
        diameters_px: of the particles, by name.
        listed: the names that STAR files have for micrographs; else the MRC's file name.
    """
    texts: dict[str, str | None] = {}
    for file, of_particles in ((PICKS, True), (NEGATIVES, False)):
        picks = []
        for name, one in labels.items():
            places = one.places_px(of_particles)
            if places and not one.left_out:
                diameter_px = diameters_px.get(name, np.nan)
                picks.append(_picks(name, places, sizes_px[name], diameter_px))
        shown = [listed.get(p.name, f"{stem(p.name)}.mrc") for p in picks]
        texts[file] = star_text([flip_y(p) for p in picks], shown) if picks else None
    texts[TABLE] = _table(labels, names)
    return texts


def write_tables(folder: Path, texts: Mapping[str, str | None]) -> None:
    """Write what `tables` returned, and remove the files that are not to be."""
    for file, text in texts.items():
        if text is None:
            (folder / file).unlink(missing_ok=True)
        else:
            write_atomically(folder / file, text)


def write_junk(path: Path, strokes: Sequence[Stroke], size_px: tuple[int, int]) -> None:
    """Write the mask of a micrograph, 255 where junk is; without junk there is no file."""
    mask = drawn(strokes, size_px) if strokes else None
    if mask is None or mask.getbbox() is None:
        path.unlink(missing_ok=True)
        return
    make_folder(path.parent)
    # Level 1 takes a fifth of the time, and a mask is small in any case
    write_saved(path, lambda file: mask.save(file, "PNG", compress_level=1))


def stale_junk(folder: Path, history: History) -> list[str]:
    """Return the micrographs whose masks a process that was killed may not have written."""
    stale = []
    for name in history.labels:
        last, path = history.last_change(name, "junk"), junk_file(folder, name)
        if last is None:
            continue
        is_there = path.exists()
        written = path.stat().st_mtime if is_there else 0.0
        if is_there != bool(history.of(name).junk) or written < _seconds(last):
            stale.append(name)
    return stale


def drawn(strokes: Sequence[Stroke], size_px: tuple[int, int], scale: float = 1.0) -> Image.Image:
    """Return the mask of junk as a grey image: 255 on it, else 0.

    size_px: (height, width) of the micrograph. scale: px of the mask to one of that.
    """
    height, width = (max(1, round(scale * n)) for n in size_px)
    mask = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(mask)
    for stroke in strokes:
        colour, r = 0 if stroke.erases else 255, scale * stroke.radius_px
        # Pillow counts from the centre of the first px, and we from its corner
        path = [(scale * x - 0.5, scale * y - 0.5) for y, x in stroke.path_px]
        if len(path) > 1:
            draw.line(path, fill=colour, width=max(1, round(2 * r)))
        for x, y in path:
            draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    return mask


def _picks(
    name: str, places: Sequence[tuple[float, float]], size_px: tuple[int, int], diameter_px: float
) -> Picks:
    n = len(places)
    return Picks(name, np.array(places), np.full(n, np.nan), np.full(n, diameter_px), size_px)


def _table(labels: Mapping[str, Labels], names: Iterable[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name in dict.fromkeys([*names, *labels]):
        writer.writerow([name, *counts(labels.get(name, Labels()))])
    return text.getvalue()


def counts(labels: Labels) -> tuple[str, int, int]:
    """Return the state of a micrograph, its particles, and its places that are none."""
    n_particles = sum(mark.is_particle for mark in labels.marks.values())
    return labels.state, n_particles, len(labels.marks) - n_particles


def _seconds(time: str) -> float:
    return datetime.datetime.fromisoformat(time).timestamp()
