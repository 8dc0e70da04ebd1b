"""--evaluate: the true particles, and the picks of any picker held against them."""

import argparse
import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from picking.detection import output
from picking.evaluation.quality import (
    Sizes,
    draw_outcomes,
    match_all,
    read_truth,
    report_quality,
    require_margin,
)
from picking.files import locked
from picking.formats.coordinates import FORMATS, file_of, files_of_all, read_picks
from picking.formats.names import few, finder
from picking.formats.picks import Picks, merge_duplicates, select
from picking.inputs.diameters import require_diameter_fits
from picking.inputs.paths import Paths, find_coordinates
from picking.inputs.placement import check_placement


def true_particles(
    args: argparse.Namespace,
    files: list[str],
    paths: Paths,
    sizes: Sizes,
    diameter_px: float | None,
) -> list[Picks]:
    """Return the true particles in the files that a flag names."""
    truth = read_truth(
        files, args.truth_frame, paths, sizes, diameter_px, args.allow_partial, args.category,
        args.own_px, args.pixel_sizes.of,
    )  # fmt: skip
    require_margin(truth, args.margin_px)
    return truth


def evaluate_files(args: argparse.Namespace, paths: Paths, sizes: Sizes) -> None:
    """Evaluate the picks in files of any picker."""
    truth = true_particles(args, args.evaluate, paths, sizes, args.asked_px)
    files = find_coordinates(args.picks, args.allow_partial)
    known = {true.name: sizes.get(true.name, true.size_px) for true in truth}
    if args.asked_px is not None:
        there = {name: size for name, size in known.items() if size}
        require_diameter_fits(args.asked_px, there, args.own_px)
    picks = read_picks(
        files, known, args.frame, True, allow_partial=args.allow_partial, category=args.category,
        pixel_size_of=args.pixel_sizes.of,
    )  # fmt: skip
    check_placement(picks, paths, files, args.frame, "--frame", args.asked_px)
    so = "all but the first of each are false picks"  # nothing is merged: pickers must not do that
    merge_duplicates(picks, few(map(str, files)), args.asked_px, so)
    picks += without_picks(files, picks, truth)
    outcomes, margin_px = match_all(
        picks, truth, args.margin_px, args.asked_px, all_picked=bool(paths)
    )
    threshold = None if args.threshold == "auto" else float(args.threshold)
    with contextlib.ExitStack() as stack:
        if args.output is not None:
            stack.enter_context(locked(args.output))
            arguments = {
                "picks": sorted(args.picks),
                "threshold": threshold,
                "overlay": args.overlay,
                "evaluate": args.evaluate,
            }
            output.open_output(args.output, arguments, args.resume)
        report_quality(picks, outcomes, margin_px, threshold, paths, args.output)
        if args.overlay and args.output is not None:
            draw_outcomes(outcomes, threshold, args.asked_px, paths, args.output / "overlays")


def without_picks(
    files: Sequence[Path], picks: Sequence[Picks], truth: Sequence[Picks]
) -> list[Picks]:
    """Return the truth's micrographs on which our own ``files`` have no pick and no record."""
    named, true_name = finder([one.name for one in picks]), finder([one.name for one in truth])
    names = {true_name(name) for name in picked_none(files) if named(name) is None}
    return [select(one, np.zeros(len(one.scores), bool)) for one in truth if one.name in names]


def picked_none(files: Sequence[Path]) -> list[str]:
    """Return the micrographs without a pick in folders of picks of which ``files`` are all.

    No file or row may name them: only the summary of the folder knows that they were picked.
    """
    names: list[str] = []
    for folder in sorted({one for path in files for one in path.parents[:2]}):
        summary = folder / "summary.csv"
        if not summary.is_file() or not (folder / "manifest.json").is_file():
            continue
        counts = output.counts_in_summary(summary)
        stems = {name: file_of(folder, "star", name).stem for name in counts}
        given = {path.stem for path in files if folder in path.parents}
        in_one = any(path in files_of_all(folder, name) for path in files for name in FORMATS)
        if in_one or {stem for name, stem in stems.items() if counts[name]} <= given:
            names += [name for name, stem in stems.items() if not counts[name] | (stem in given)]
    return names
