"""A run of picking: micrograph by micrograph, and what all make together.

Processes of torchrun and of --num-workers share the micrographs out, each wholly to one of them;
the first makes of their picks what all make together. What it keeps of each micrograph meanwhile
is the candidates' scores, so that memory hardly grows with their number.

It imports torch, which takes seconds: pick_particles.py checks what it can before.
"""

import argparse
import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from picking.detection import output
from picking.detection.evaluate import true_particles
from picking.detection.micrographs import Pictures, drawn, fits_inverted, junk_on, picked
from picking.detection.picker import Picker, load
from picking.detection.thresholds import threshold_of, threshold_of_scores
from picking.errors import warn
from picking.evaluation.quality import (
    Sizes,
    draw_outcomes,
    match_all,
    report_counts,
    report_quality,
    tell_of_no_picks,
)
from picking.files import locked
from picking.formats.coordinates import NEVER_EMPTY, write_picks
from picking.formats.picks import Picks
from picking.formats.relion.writing import remove_relion, write_relion
from picking.inputs.paths import Paths
from picking.micrographs.left_out import Reasons, give_up_on, require_some
from picking.micrographs.problems import IN_JUNK, Notes, UnreadableImage, notes_text, warn_of_notes
from picking.runs import distributed

# On a micrograph on average, or of the candidates; with fewer the polarity is in question
FEW_PICKS, FEW_OF_CANDIDATES = 3, 0.05


def pick_micrographs(
    args: argparse.Namespace, paths: Paths, sizes: Sizes, left_out: Reasons
) -> None:
    """Pick all micrographs that are not done yet; write and evaluate what they make together.

    left_out: gets those that turn out to be beyond help; only the first process has to tell.
    """
    picker, diameter_px = load(args, sizes)
    distributed.require_same([*paths], "micrographs")
    is_first, truth = distributed.is_first(), None
    if args.evaluate and is_first:
        truth = true_particles(args, args.evaluate, paths, sizes, diameter_px)
    # Formats with a file for each micrograph, and whether picks alone are drawn over each
    formats = [] if args.one_file else [name for name in args.formats if name != "cs"]
    overlay = args.overlay and not args.evaluate

    with locked(args.output) if is_first else contextlib.nullcontext():
        # 1. The folder, and which micrographs are left
        given = {*paths, *left_out}
        begun = _begin(args, picker, diameter_px, paths, given) if is_first else None
        arguments, threshold, left = distributed.from_each(begun)[0]

        # 2. Micrograph by micrograph
        rank, n_processes = distributed.place()
        own = left[rank::n_processes]
        now = (formats, overlay) if threshold is not None else ([], False)
        noted = _pick_each(args, picker, diameter_px, threshold, paths, own, *now, left_out)
        for others_noted, others_left_out in distributed.from_each((noted, left_out)):
            noted |= others_noted
            left_out |= others_left_out
        distributed.end()
        if not is_first:
            left_out.clear()
            return
        paths = {name: path for name, path in paths.items() if name not in left_out}
        for name in left_out:  # what is there is of an earlier file of this name
            output.remove_picks(args.output, name)
        warn_of_notes({name: noted[name] for name in left if name in paths})
        require_some(paths, left_out)
        if threshold is None:
            every = (output.load_picks(args.output, name, sizes[name]) for name in paths)
            scores = {picks.name: output.to_write(args, picks, 0.0).scores for picks in every}
            threshold = threshold_of_scores(args, picker, scores)
            output.open_output(args.output, {**arguments, "threshold": threshold}, resume=True)

        # 3. What those lack that were done already, and what all make together
        true_names = {true.name for true in truth or ()}
        of_all = [name for name in args.formats if name not in formats]
        all_called: list[Picks] = []
        candidates: list[Picks] = []
        n_called = []
        in_junk: dict[str, int] = {}

        def each_called() -> Iterator[Picks]:
            for name in paths:
                picks = output.load_picks(args.output, name, sizes[name])
                called = output.to_write(args, picks, threshold)
                write_formats(args, [called], output.lacking(args.output, name, formats), False)
                candidates.append(picks if name in true_names else _scores_alone(picks))
                n_called.append(len(called.scores))
                in_junk[name] = output.n_in_junk(args.output, name)
                if of_all or args.listed:
                    all_called.append(called)
                yield called

        output.write_summary(args.output / "summary.csv", each_called(), left_out, in_junk)
        write_formats(args, all_called, of_all, one_file=True)
        write_for_relion(args, all_called)
        if truth is None:
            report_counts(candidates, [], threshold, args.output)
            tell_of_no_picks(candidates, threshold)
        else:
            truth = [true for true in truth if true.name not in left_out]
            outcomes, margin_px = match_all(candidates, truth, args.margin_px, diameter_px)
            report_quality(candidates, outcomes, margin_px, threshold, paths, args.output)
            if args.overlay:
                folder = args.output / "overlays"
                junk_of = partial(junk_on, args, picker, diameter_px)
                draw_outcomes(outcomes, threshold, diameter_px, paths, folder, junk_of)

        # 4. Pictures last: all that programs take is there
        if overlay:
            _draw_overlays(args, picker, diameter_px, threshold, paths)
    n_candidates = sum(len(picks.scores) for picks in candidates)
    if noted and sum(n_called) < max(FEW_PICKS * len(paths), FEW_OF_CANDIDATES * n_candidates):
        _warn_of_polarity(args, picker, diameter_px, threshold, next(iter(paths.values())))
    _tell_of_the_end(args, candidates, n_called, threshold, formats, sum(in_junk.values()))


def _begin(
    args: argparse.Namespace, picker: Picker, diameter_px: float, paths: Paths, given: set[str]
) -> tuple[dict[str, Any], float | None, list[str]]:
    """Open the folder; return what it was begun with, the threshold, and what is not done.

    The folder is empty, or begun alike; what another threshold, another format or micrographs that
    are not ``given`` any more left there goes. The threshold is None where it follows from all
    scores; until then what is there stays.
    """
    threshold, source = threshold_of(args, picker)
    by_scores = threshold is None and args.expected_particles is None
    told = "once all are scored" if threshold is None else f"{threshold:.4f}"
    print(f"Threshold {told} ({source}), diameter {diameter_px:g} px")
    arguments = {
        "checkpoint": picker.checksum,
        "threshold": output.begun_threshold(args.output) if threshold is None else threshold,
        **({"threshold_of_scores": True} if by_scores else {}),
        "diameter_px": diameter_px,
        "formats": sorted(args.formats),
        "one_file": args.one_file,
        "overlay": args.overlay,
        "heatmap": args.heatmap,
        **({"invert": True} if args.invert else {}),  # older folders do not say it
        **({"keep_junk": True} if args.keep_junk else {}),
        "evaluate": args.evaluate,
        **({"box_px": args.box} if args.box else {}),
        **({"output_frame": args.output_frame} if args.output_frame else {}),
    }
    output.open_output(args.output, arguments, args.resume)
    output.remove_others(args.output, given)
    of_each = args.own_px, args.masks
    left = output.not_done(args.output, paths, threshold or 0.0, args.heatmap, *of_each)
    if threshold is None:  # then picks are written where they are lacking
        for name in left:
            output.remove_picks(args.output, name)
    return arguments, threshold, left


def _pick_each(
    args: argparse.Namespace,
    picker: Picker,
    diameter_px: float,
    threshold: float | None,
    paths: Paths,
    left: Sequence[str],
    formats: Sequence[str],
    overlay: bool,
    left_out: Reasons,
) -> dict[str, Notes]:
    """Pick those that are left; return what reading noted of each.

    A micrograph's file in scored/ is written last and says that it is done.

    Args:
        args: the command line.
        picker: the network.
        diameter_px: of the particles, where ``args.own_px`` has none of the micrograph.
        threshold: from which score a candidate is a pick; None: not known yet.
        paths: the micrographs.
        left: the names of those to pick.
        formats: those with a file for each micrograph.
        overlay: whether the picks are drawn over each.
        left_out: gets those that turn out to be beyond help.
    """
    noted: dict[str, Notes] = {}
    pictures = Pictures(args.output, threshold or 0.0, overlay, args.heatmap)
    results = picked(args, picker, diameter_px, {name: paths[name] for name in left}, pictures)
    with contextlib.closing(results):
        for n, one in enumerate(results, 1):
            noted[one.name] = one.notes
            if isinstance(one.picks, UnreadableImage):
                give_up_on(one.name, one.picks, left_out, args.strict)
                continue
            called, what = one.picks, "candidates"
            if threshold is not None:
                called, what = output.to_write(args, one.picks, threshold), "picks"
            write_formats(args, [called], formats, one_file=False)
            output.save_picks(args.output, one.picks, one.of_file, one.notes.get(IN_JUNK, 0))
            print(
                f"{n}/{len(left)} {one.name}: {len(called.scores)} {what}, {one.seconds:.1f} s"
                f"{notes_text(one.notes)}",
                flush=True,
            )
    return noted


def _draw_overlays(
    args: argparse.Namespace, picker: Picker, diameter_px: float, threshold: float, paths: Paths
) -> None:
    """Draw the overlays that are lacking."""
    lacking = {n: path for n, path in paths.items() if not output.overlay(args.output, n).exists()}
    if not lacking:
        return
    print(f"Drawing overlays of {len(lacking):,} micrographs", flush=True)
    pictures = Pictures(args.output, threshold, overlay=True, heatmap=False)
    with contextlib.closing(drawn(args, picker, diameter_px, pictures, lacking)) as reasons:
        for reason in reasons:
            if reason is not None:  # it could be read when it was picked
                warn(f"no overlay: {reason}")


def _scores_alone(picks: Picks) -> Picks:
    """Return what is counted of a micrograph's candidates, in a quarter of the memory."""
    nowhere = np.empty((0, 2))
    return dataclasses.replace(picks, centres_px=nowhere, diameters_px=nowhere[:, 0])


def _warn_of_polarity(
    args: argparse.Namespace,
    picker: Picker,
    diameter_px: float,
    threshold: float,
    micrograph: Path,
) -> None:
    """Warn where a micrograph with few picks has many more with its grey inverted."""
    own_px = args.own_px.get(micrograph.name, diameter_px)
    if fits_inverted(picker.for_diameter(own_px), micrograph, own_px, threshold):
        kind, advice = ("dark", "leave --invert out") if args.invert else ("white", "try --invert")
        warn(
            f"particles may be {kind} here, unlike where the network learned: {micrograph.name} "
            f"has many more picks with its grey inverted: {advice}, and name another --output"
        )


def _tell_of_the_end(
    args: argparse.Namespace,
    candidates: Sequence[Picks],
    n_called: Sequence[int],
    threshold: float,
    formats: Sequence[str],
    n_in_junk: int,
) -> None:
    """Print how many picks there are on each micrograph, and what of them is in no file."""
    n_none = n_called.count(0)
    without = [name for name in formats if name in NEVER_EMPTY]
    if n_none and without:
        print(
            f"No {', '.join(without)} of {n_none:,} micrographs without a pick, since other "
            "programs fall over an empty file; summary.csv names them"
        )
    n_picks = sum(n_called)
    if args.box is not None:
        n_above = sum(int((picks.scores >= threshold).sum()) for picks in candidates)
        print(
            f"Left out: {n_above - n_picks:,} of {n_above:,} picks, about which a box of "
            f"{args.box} px would cross an edge"
        )
    if n_in_junk:
        seen = [] if args.keep_junk else ["on carbon, ice or aggregates"]
        painted = ["in painted junk"] if args.junk else []
        print(
            f"Left out: {n_in_junk:,} candidates {' or '.join(seen + painted)}; summary.csv says "
            f"where, --overlay shows it{', --keep-junk picks there too' if not painted else ''}"
        )
    n_candidates = sum(len(picks.scores) for picks in candidates)
    print(
        f"Finished {args.output}: {n_picks:,} picks of {n_candidates:,} candidates on "
        f"{len(candidates):,} micrographs"
    )


def write_formats(
    args: argparse.Namespace, picks: Sequence[Picks], formats: Sequence[str], one_file: bool
) -> None:
    """Write picks in formats, under the names that a list of micrographs has for them."""
    exposures = args.listed.exposures if args.listed else {}
    names = args.listed.names if args.listed else {}
    write_picks(args.output, picks, formats, one_file, args.output_frame, exposures, names)


def write_for_relion(args: argparse.Namespace, picks: Sequence[Picks]) -> None:
    """Write the picks as RELION's own picking does, where its list names the micrographs."""
    listed = args.listed
    if listed is None or listed.exposures:
        remove_relion(args.output)
        return
    write_relion(
        args.output, picks, listed.names, listed.groups, listed.optics, listed.project,
        listed.path, args.output_frame,
    )  # fmt: skip
    if not listed.optics:
        print(f"No particles.star, since {listed.path} says nothing of the microscope")
