"""Picking micrographs with a network: one, and one after another in this process or in workers."""

import argparse
import dataclasses
import functools
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from picking.detection import output
from picking.detection.network_input import PatchInput
from picking.detection.picker import Picker, load_picker
from picking.detection.scores import peaks
from picking.detection.scores.score_map import (
    ScoreMap,
    classifier_map,
    segmentation_map,
    write_heatmap,
)
from picking.errors import UserError, raise_if_stopped
from picking.evaluation.report import draw_picks
from picking.files import make_folder
from picking.formats.picks import Picks, select
from picking.inputs.junk_masks import junk_mask_at
from picking.inputs.paths import Paths
from picking.micrographs.junk import MUCH_COARSER, coarseness, in_junk, junk_mask
from picking.micrographs.preparation import prepare
from picking.micrographs.problems import IN_JUNK, Notes, UnreadableImage
from picking.micrographs.reading import image_size, read_micrograph
from picking.parallel import ahead, ordered_map

INVERTED_TIMES = 3  # as many picks on an inverted micrograph say that it should be


class Seen(NamedTuple):
    """A micrograph as the network is to see it, uint8 (h, w), and its junk, bool of that shape.

    junk: None where nothing is left out for it.
    """

    image: np.ndarray
    junk: np.ndarray | None


def read(
    picker: Picker, path: Path, diameter_px: float, notes: Notes, mask: Path | None = None
) -> Seen:
    """Return a micrograph as the network is to see it.

    diameter_px: of the particles. notes: gets what must be said of the file. mask: of junk that
    somebody painted, in addition to what is found. Raises `UnreadableImage` when the file is no
    micrograph, without contrast, or junk all over, and `UserError` for a damaged mask.
    """
    grey = picker.input.scaled(path, notes)
    grey = np.negative(grey, dtype=np.float32) if picker.invert else grey
    scaled_px = diameter_px * np.array(grey.shape) / image_size(path)
    painted = None if mask is None else junk_mask_at(mask, grey.shape)
    if picker.keep_junk:
        return Seen(prepare(grey, scaled_px), painted)
    if picker.input.coarseness is not None:
        require_ice(path, coarseness(grey, scaled_px), picker.input.coarseness)
    found = junk_mask(grey, scaled_px)
    return Seen(prepare(grey, scaled_px), found if painted is None else found | painted)


def require_ice(path: Path, coarse: float | None, usual: float) -> None:
    """Raise `UnreadableImage` where a micrograph is junk all over, as far as training tells.

    coarse: how coarse it is, None where that is unknown; usual: the coarsest of training.
    """
    if coarse is not None and coarse > MUCH_COARSER * usual:
        raise UnreadableImage(
            f"{path} is junk all over, so it seems: against its fine noise, grey changes "
            f"{coarse / usual:.1f} times as much over a part of a particle as on any micrograph of "
            "training; look at it, and if it is none give --keep-junk"
        )


def pick(
    picker: Picker,
    path: Path,
    diameter_px: float,
    notes: Notes | None = None,
    seen: Seen | None = None,
) -> tuple[ScoreMap, Picks]:
    """Return a micrograph's scores and its picks at any threshold worth looking at.

    The picks' scores are calibrated where the checkpoint says how; the map's are the network's own.
    notes, and errors but for one: as of `read`; how many picks are left out since they lie in junk
    is noted too. seen: what `read` returned, if it was called before.
    Raises `UserError` when the scores are not finite.
    """
    raise_if_stopped()
    wants, how = picker.input, (picker.precision, picker.device)
    notes = {} if notes is None else notes
    if seen is None:
        seen = read(picker, path, diameter_px, notes)
    size_px = image_size(path)
    if isinstance(wants, PatchInput):
        sizes_px = wants.patch_size_px, wants.input_size_px
        scores = classifier_map(picker.network, seen.image, *sizes_px, *how)
    else:
        scores = segmentation_map(picker.network, seen.image, size_px, *how)
    if not np.isfinite(scores.logits).all():
        raise UserError(f"the scores of {path} are not finite: set training.precision=fp32")
    if isinstance(wants, PatchInput):
        picks = peaks.classifier_picks(scores, path.name, diameter_px)
    else:
        threshold = picker.thresholds.get("threshold") or 0.5
        picks = peaks.segmentation_picks(scores, path.name, diameter_px, wants.disk, threshold)
        if picker.calibration is not None:
            picks = dataclasses.replace(picks, scores=picker.calibration(picks.scores))
    if seen.junk is not None and seen.junk.any():
        spoilt = in_junk(seen.junk, picks.centres_px, size_px)
        notes[IN_JUNK] = int(spoilt.sum())
        picks = select(picks, ~spoilt)
    return scores, picks


def fits_inverted(picker: Picker, path: Path, diameter_px: float, threshold: float) -> bool:
    """Return whether a micrograph has several times the picks when its grey is inverted."""
    both = picker, picker._replace(invert=not picker.invert)
    here, there = [(pick(one, path, diameter_px)[1].scores >= threshold).sum() for one in both]
    return bool(there >= INVERTED_TIMES * (here + 1))


# Micrograph by micrograph, in this process or in workers


_pickers: dict[str, Picker] = {}  # the one in use by its checksum; workers that are forked have it


class Pictures(NamedTuple):
    """Which pictures of a micrograph are drawn, of picks from which score up, into which folder."""

    output: Path
    threshold: float
    overlay: bool
    heatmap: bool


class Picked(NamedTuple):
    """What came of a micrograph: picks at any threshold, or why there are none.

    notes: of reading. of_file: its identity. seconds: from reading to the last picture.
    """

    name: str
    picks: Picks | UnreadableImage
    notes: Notes
    of_file: tuple[str, ...]
    seconds: float


def picked(
    args: argparse.Namespace,
    picker: Picker,
    diameter_px: float,
    paths: Paths,
    pictures: Pictures | None = None,
) -> Generator[Picked, None, None]:
    """Pick micrographs, each by its own diameter where its px have another size, in order.

    With ``args.num_workers`` each is one worker's; else the next is read while one is scored.
    Close it, so that no worker goes on where this process does not.
    """
    work = _work(args, picker, diameter_px, pictures)
    if args.num_workers:
        alone = functools.partial(_pick_in_worker, work)
        yield from ordered_map(alone, _jobs(args, paths), args.num_workers, title=None)
    else:
        for one in ahead(functools.partial(_read, work), _jobs(args, paths)):
            yield _score(work, *one)


def drawn(
    args: argparse.Namespace, picker: Picker, diameter_px: float, pictures: Pictures, paths: Paths
) -> Generator[UnreadableImage | None, None, None]:
    """Draw the picks in scored/ over micrographs, and yield of each why it cannot be, or None.

    Close it, so that no worker goes on where this process does not.
    """
    draw = functools.partial(_draw, _work(args, picker, diameter_px, pictures))
    yield from ordered_map(draw, _jobs(args, paths), args.num_workers, title=None)


Job = tuple[Path, float | None, Path | None]  # a micrograph, its own diameter, its mask of junk


def _jobs(args: argparse.Namespace, paths: Paths) -> list[Job]:
    return [(path, args.own_px.get(name), args.masks.get(name)) for name, path in paths.items()]


def _work(
    args: argparse.Namespace, picker: Picker, diameter_px: float, pictures: Pictures | None
) -> argparse.Namespace:
    """Return what is the same of all jobs; small, since each job takes it to its worker."""
    _pickers.clear()
    _pickers[picker.checksum] = picker
    return argparse.Namespace(
        checkpoint=args.checkpoint, checksum=picker.checksum, device=picker.device,
        invert=args.invert, keep_junk=args.keep_junk, diameter_px=diameter_px, pictures=pictures,
        box=args.box, output_frame=args.output_frame,
    )  # fmt: skip


def _pick_in_worker(work: argparse.Namespace, job: Job) -> Picked:
    torch.set_num_threads(1)
    return _score(work, *_read(work, job))


def _picker(work: argparse.Namespace, own_px: float) -> Picker:
    """Return the network for particles of that diameter; a worker that is not forked loads it."""
    if work.checksum not in _pickers:
        picker = load_picker(work.checkpoint, work.device)
        picker = picker._replace(invert=work.invert, keep_junk=work.keep_junk)
        if picker.checksum != work.checksum:
            raise UserError(f"checkpoint {work.checkpoint} was replaced meanwhile: start again")
        _pickers[work.checksum] = picker
    return _pickers[work.checksum].for_diameter(own_px)


def _read(work: argparse.Namespace, job: Job) -> tuple[Any, ...]:
    """Return what `_score` takes of a micrograph, its image or why there is none last."""
    path, own_px, mask = job
    diameter_px = own_px or work.diameter_px
    started, notes = time.monotonic(), Notes()
    of_file: tuple[str, ...] = ()
    seen: Seen | UnreadableImage
    try:
        of_file = output.identity(*job)
        seen = read(_picker(work, diameter_px), path, diameter_px, notes, mask)
    except UnreadableImage as error:
        seen = error
    return path, diameter_px, of_file, notes, time.monotonic() - started, seen


def _score(
    work: argparse.Namespace,
    path: Path,
    diameter_px: float,
    of_file: tuple[str, ...],
    notes: Notes,
    seconds: float,
    seen: Seen | UnreadableImage,
) -> Picked:
    """Pick a micrograph that was read in so many seconds, and draw its pictures."""
    started = time.monotonic()
    if isinstance(seen, UnreadableImage):
        return Picked(path.name, seen, notes, of_file, seconds)
    try:
        scores, picks = pick(_picker(work, diameter_px), path, diameter_px, notes, seen)
        if work.pictures is not None:
            folder, threshold, overlay, heatmap = work.pictures
            if overlay:
                draw_overlay(folder, output.to_write(work, picks, threshold), path, seen.junk)
            else:  # of a file that was replaced
                output.overlay(folder, path.name).unlink(missing_ok=True)
            picture = output.heatmap(folder, path.name)
            if heatmap:
                make_folder(picture.parent)
                write_heatmap(scores, picture)
            else:
                picture.unlink(missing_ok=True)
    except UnreadableImage as error:  # it was there when it was read
        return Picked(path.name, error, notes, of_file, seconds)
    return Picked(path.name, picks, notes, of_file, seconds + time.monotonic() - started)


def draw_overlay(folder: Path, picks: Picks, micrograph: Path, junk: np.ndarray | None) -> None:
    """Draw a micrograph's picks and its junk over it, into the folder of all picks."""
    path = output.overlay(folder, picks.name)
    make_folder(path.parent)
    draw_picks(read_micrograph(micrograph), picks, path, junk)


def _draw(work: argparse.Namespace, job: Job) -> UnreadableImage | None:
    """Draw the picks that are kept of a micrograph; return why not where it cannot be read."""
    raise_if_stopped()
    path, own_px, mask = job
    diameter_px = own_px or work.diameter_px
    try:
        picks = output.load_picks(work.pictures.output, path.name, image_size(path))
        called = output.to_write(work, picks, work.pictures.threshold)
        junk = _junk(_picker(work, diameter_px), path, diameter_px, mask)
        draw_overlay(work.pictures.output, called, path, junk)
    except UnreadableImage as error:
        return error
    return None


def _junk(picker: Picker, path: Path, diameter_px: float, mask: Path | None) -> np.ndarray | None:
    if picker.keep_junk and mask is None:
        return None
    return read(picker, path, diameter_px, {}, mask).junk


def junk_on(
    args: argparse.Namespace, picker: Picker, diameter_px: float, path: Path
) -> np.ndarray | None:
    """Return where a micrograph's junk is, as in picking it; None where nothing is left out."""
    own_px, mask = args.own_px.get(path.name, diameter_px), args.masks.get(path.name)
    return _junk(picker.for_diameter(own_px), path, own_px, mask)
