"""Bookkeeping of the folder of picks, for --resume: arguments, micrographs done; the summary.

scored/<micrograph>.npz holds a micrograph's picks at any threshold, and of which file they are. It
is written last of a micrograph's files, so what is there is done. What another threshold or other
formats make of it needs no network: `open_output` removes what the last command no longer asks for,
and what is then lacking is written anew.
"""

import argparse
import csv
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from picking.config import differing_keys
from picking.errors import UserError
from picking.files import (
    DAMAGED_ARRAY,
    is_number,
    make_folder,
    read_arrays,
    read_json,
    remove_half_written,
    sha256_of_file,
    write_atomically,
    write_json,
    write_saved,
)
from picking.formats.coordinates import FORMATS, file_of, files_of_all
from picking.formats.picks import Picks, select, with_whole_box
from picking.inputs.paths import Paths
from picking.micrographs.problems import UnreadableImage, examples

# The arguments that decide what is in scored/; all others only choose from it.
DECIDING = ("checkpoint", "diameter_px", "invert", "keep_junk", "picks")
OLDER_LOWEST = 0.05  # Older versions kept no candidate below this score
# What all micrographs make together
OF_ALL = ("thresholds.csv", "summary.csv", "evaluation.json", "pr_curve.png")


def begun_threshold(folder: Path, checksum: str | None = None) -> float | None:
    """Return the threshold of picks that are there, None without such.

    With the checksum of a checkpoint: None also for picks of another, and for a threshold that
    follows from the scores of all that are picked.
    """
    manifest = folder / "manifest.json"
    began = read_json(manifest) if manifest.exists() else None
    if not isinstance(began, dict):
        return None
    if checksum and (began.get("checkpoint") != checksum or began.get("threshold_of_scores")):
        return None
    return began["threshold"] if is_number(began.get("threshold")) else None


def open_output(folder: Path, arguments: dict[str, Any], resume: bool) -> None:
    """Begin in an empty folder, or go on in one that was begun alike; call while locked.

    Where arguments differ that are not `DECIDING`, files that the former ones made are removed.
    """
    manifest = folder / "manifest.json"
    # What a process left that was killed while it wrote its first file is no beginning
    no_beginning = {folder / ".lock", *folder.glob(".*.tmp")}
    there = sorted(path.name for path in folder.iterdir() if path not in no_beginning)
    if there and not (resume and manifest.exists()):
        advice = "choose another folder" if not manifest.exists() else "go on with --resume"
        raise UserError(f"--output {folder} is not empty (it holds {there[0]}): {advice}")
    if there:
        began = read_json(manifest)
        if not isinstance(began, dict):
            raise UserError(f"{manifest} is damaged: choose another folder")
        differing = differing_keys(began, arguments)
        differing = [key for key in differing if key != "threshold_of_scores"]  # its source alone
        deciding = [key for key in DECIDING if key in differing]
        if deciding:
            raise UserError(
                f"{folder} was begun with another {', '.join(deciding)}: resume with the same, or "
                "choose another folder"
            )
        if differing:
            _remove_stale(folder, differing)
    remove_half_written(folder, *folder.glob("*/"))
    write_json(manifest, arguments)


def _remove_stale(folder: Path, differing: Sequence[str]) -> None:
    """Remove what a command made that differs in these arguments, and say so.

    Heatmaps stay: they hold at any threshold.
    """
    stale = [folder / name for name in OF_ALL]
    for name, suffix in FORMATS.items():
        stale += [*files_of_all(folder, name), *(folder / name).glob(f"*{suffix}")]
    if {"threshold", "evaluate", "overlay"} & {*differing}:
        stale += (folder / "overlays").glob("*.png")
    stale = [path for path in stale if path.is_file()]
    for path in stale:
        path.unlink()
    for parent in {path.parent for path in stale} - {folder}:
        if not any(parent.iterdir()):
            parent.rmdir()
    if stale:
        print(
            f"Removed {len(stale):,} files of another {', '.join(differing)}: what is asked for "
            "now is made anew from scored/"
        )


def not_done(
    folder: Path,
    micrographs: Paths,
    threshold: float = 1.0,
    with_heatmap: bool = False,
    own_px: Mapping[str, float] = MappingProxyType({}),
    masks: Mapping[str, Path] = MappingProxyType({}),
) -> list[str]:
    """Return the names of the micrographs that are still to be picked, and print how many are done.

    A micrograph is picked again if its file changed since, if a heatmap is wanted and lacking, or
    if candidates down to the threshold were not kept, for another diameter of its own, and with
    another mask of junk, by name in ``masks``.
    """
    left, replaced = [], []
    for name, path in micrographs.items():
        saved = scored(folder, name)
        if not saved.exists() or (with_heatmap and not heatmap(folder, name).exists()):
            left.append(name)
        elif not _serves(saved, path, threshold, own_px.get(name), masks.get(name)):
            left.append(name)
            replaced.append(name)
    if len(left) < len(micrographs):
        done = len(micrographs) - len(left)
        print(f"{done} of {len(micrographs)} micrographs are done already")
    if replaced:
        print(
            f"Picking again {len(replaced)} micrographs whose files or masks of junk have changed, "
            "or may have, or whose candidates of an older version end above the threshold (e.g. "
            f"{replaced[0]})"
        )
    return left


def lacking(folder: Path, name: str, formats: Sequence[str]) -> list[str]:
    """Return those of the formats in which there is no file of the micrograph called ``name``."""
    return [each for each in formats if not file_of(folder, each, name).exists()]


def remove_picks(folder: Path, name: str) -> bool:
    """Remove the files of picks and pictures of the micrograph called ``name``, but not scored/.

    Returns whether there were any.
    """
    written = [file_of(folder, each, name) for each in FORMATS]
    pictures = [overlay(folder, name), heatmap(folder, name)]
    there = [path for path in (*written, *pictures) if path.exists()]
    for path in there:
        path.unlink()
    return bool(there)


def remove_others(folder: Path, given: Collection[str]) -> None:
    """Remove the files of picks of micrographs that are not ``given`` any more, and say so."""
    before = sorted(path.name.removesuffix(".npz") for path in (folder / "scored").glob("*.npz"))
    removed = [name for name in before if name not in given and remove_picks(folder, name)]
    if removed:
        print(
            f"Removed the picks of {len(removed):,} micrographs that are not among those given now "
            f"({examples(removed)}); their scores are kept, for when they are given again"
        )


def overlay(folder: Path, name: str) -> Path:
    """Return where the picture of a micrograph with its picks is."""
    return folder / "overlays" / f"{name}.png"


def heatmap(folder: Path, name: str) -> Path:
    """Return where the picture of a micrograph's scores is."""
    return folder / "heatmaps" / f"{name}.png"


def scored(folder: Path, name: str) -> Path:
    """Return where the picks of a micrograph are kept at any threshold."""
    return folder / "scored" / f"{name}.npz"


def identity(
    micrograph: Path, own_px: float | None = None, mask: Path | None = None
) -> tuple[str, ...]:
    """Return the size, the time and the checksum of a file; take them before it is picked.

    own_px: particles' diameter there, where it is not that of the other micrographs; comes behind.
    mask: of painted junk; what it holds comes behind that.
    """
    try:
        status, checksum = micrograph.stat(), sha256_of_file(micrograph)
    except OSError as error:
        raise UnreadableImage(f"{micrograph} cannot be read ({error}): check the path") from error
    of_file = str(status.st_size), str(status.st_mtime_ns), checksum
    return (*of_file, *_beside(own_px, mask))


def _beside(own_px: float | None, mask: Path | None) -> tuple[str, ...]:
    """Return what decides on a micrograph's picks beside its file."""
    diameter = "" if own_px is None else str(own_px)
    if mask is not None:
        return diameter, sha256_of_file(mask)
    return (diameter,) if diameter else ()


def save_picks(folder: Path, picks: Picks, of_file: tuple[str, ...], n_in_junk: int = 0) -> None:
    """Write centres, scores and diameters of a micrograph, and of which file they are.

    n_in_junk: how many more there would be on carbon, ice and aggregates.
    """
    make_folder(folder / "scored")
    arrays: dict[str, Any] = {
        "centres_px": picks.centres_px,
        "scores": picks.scores,
        "diameters_px": picks.diameters_px,
        "of_file": np.array(of_file),
        "lowest_score": np.array(0.0),
        "n_in_junk": np.array(n_in_junk),
    }
    write_saved(scored(folder, picks.name), lambda file: np.savez(file, **arrays))


def load_picks(folder: Path, name: str, size_px: tuple[int, int]) -> Picks:
    """Return what `save_picks` wrote of the micrograph called ``name``."""
    saved = _read(scored(folder, name))
    return Picks(name, saved["centres_px"], saved["scores"], saved["diameters_px"], size_px)


def n_in_junk(folder: Path, name: str) -> int:
    """Return how many candidates `save_picks` was told to have been left out."""
    return int(_read(scored(folder, name)).get("n_in_junk", 0))


def _serves(
    path: Path, micrograph: Path, threshold: float, own_px: float | None, mask: Path | None
) -> bool:
    """Return whether saved picks are of this very file, or a copy, and reach the threshold."""
    saved = _read(path)
    if "of_file" not in saved:  # of an older version, which did not say
        return False
    if "lowest_score" not in saved and threshold < OLDER_LOWEST:
        return False
    n_bytes, time_ns, checksum, *beside = saved["of_file"].tolist()
    if tuple(beside) != _beside(own_px, mask):
        return False
    try:
        status = micrograph.stat()
        if n_bytes != str(status.st_size):
            return False
        return time_ns == str(status.st_mtime_ns) or checksum == sha256_of_file(micrograph)
    except OSError:  # gone meanwhile: whoever picks it will say so
        return False


def _read(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays; raises `UserError` when the file is damaged."""
    try:
        saved = read_arrays(path)
        if len({len(saved[key]) for key in ("centres_px", "scores", "diameters_px")}) > 1:
            raise ValueError("the arrays do not belong together")
    except DAMAGED_ARRAY as error:
        raise UserError(
            f"{path} is damaged ({error}): delete it and go on with --resume"
        ) from error
    return saved


def to_write(args: argparse.Namespace, picks: Picks, threshold: float) -> Picks:
    """Return the picks from the threshold up whose box, where one is asked for, crosses no edge."""
    called = select(picks, picks.scores >= threshold)
    return called if args.box is None else with_whole_box(called, args.box, args.output_frame)


def write_summary(
    path: Path,
    picks: Iterable[Picks],
    left_out: Mapping[str, str],
    in_junk: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Write a CSV with a line for each micrograph: picks, median score, median diameter.

    left_out: names of those without picks -> why, in a column of its own. in_junk: names -> how
    many candidates were left out on carbon, ice and aggregates, in the last; may grow with picks.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["micrograph", "picks", "median_score", "median_diameter_px", "left_out", "in_junk"]
    )
    for one in picks:
        medians = ["", ""]
        if len(one.scores):
            medians = [f"{np.median(v):.4g}" for v in (one.scores, one.diameters_px)]
        writer.writerow([one.name, len(one.scores), *medians, "", in_junk.get(one.name, 0)])
    writer.writerows([name, "", "", "", reason, ""] for name, reason in left_out.items())
    write_atomically(path, text.getvalue())


def counts_in_summary(path: Path) -> dict[str, int]:
    """Return how many picks each micrograph has by `write_summary`, without those left out.

    Raises `UserError` when the file is damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if not row.get("left_out")]
        return {row["micrograph"]: int(row["picks"]) for row in rows}
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f"{path} is damaged: pick again with --resume") from error
