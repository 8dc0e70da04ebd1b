"""A run of picking: micrograph by micrograph, what all make together, and the threshold.

It imports torch, which takes seconds: pick_particles.py checks what it can before.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from picking.detection import output, thresholds
from picking.detection.evaluate import true_particles
from picking.detection.picker import Picker, fits_inverted, load_picker, pick
from picking.detection.score_map import ScoreMap, write_heatmap
from picking.errors import warn
from picking.evaluation.matching import Outcome, choose_threshold, pick_metrics, pr_curve
from picking.evaluation.quality import (
    Sizes,
    draw_outcomes,
    match_all,
    report_counts,
    report_quality,
    tell_of_no_picks,
)
from picking.evaluation.report import draw_picks
from picking.files import locked, make_folder, remove_half_written
from picking.formats.coordinates import NEVER_EMPTY, write_picks
from picking.formats.picks import Picks, select, with_whole_box
from picking.formats.relion.writing import remove_relion, write_relion
from picking.inputs.diameters import (
    diameter_in_px,
)
from picking.inputs.paths import Paths
from picking.micrographs.left_out import Reasons, give_up_on, require_some
from picking.micrographs.problems import Notes, UnreadableImage, bad_px_text, warn_of_notes
from picking.micrographs.reading import read_micrograph
from picking.runs.devices import select_device

# On a micrograph on average, or of the candidates; with fewer the polarity is in question
FEW_PICKS, FEW_OF_CANDIDATES = 3, 0.05


def load(args: argparse.Namespace) -> tuple[Picker, float]:
    """Return the network and the diameter of particles in px, but for those of ``own_px``."""
    picker = load_picker(args.checkpoint, select_device(args.device))._replace(invert=args.invert)
    diameter_px = args.asked_px or diameter_in_px(None, None, picker.input.diameter_px)
    return picker, diameter_px


def threshold_of(args: argparse.Namespace, picker: Picker) -> tuple[float, str]:
    """Return from which score a candidate is a pick, and where that number comes from."""
    begun = output.begun_threshold(args.output, picker.checksum) if args.resume else None
    if args.threshold != "auto":
        return float(args.threshold), "--threshold"
    if begun is not None:
        return begun, f"with which {args.output} was begun"
    return thresholds.kept_threshold(picker)


def pick_micrographs(
    args: argparse.Namespace, paths: Paths, sizes: Sizes, left_out: Reasons
) -> None:
    """Pick all micrographs that are not done yet; write and evaluate what they make together.

    left_out: gets those that turn out to be beyond help.
    """
    picker, diameter_px = load(args)
    threshold, source = threshold_of(args, picker)
    print(f"Threshold {threshold:.4f} ({source}), diameter {diameter_px:g} px")
    truth = None
    if args.evaluate:
        truth = true_particles(args, args.evaluate, paths, sizes, diameter_px)
    # Formats with a file for each micrograph, and whether picks alone are drawn over each
    formats = [] if args.one_file else [name for name in args.formats if name != "cs"]
    overlay = args.overlay and truth is None

    with locked(args.output):
        # 1. The folder: empty, or begun alike; what another threshold or format left there goes
        arguments = {
            "checkpoint": picker.checksum,
            "threshold": threshold,
            "diameter_px": diameter_px,
            "formats": sorted(args.formats),
            "one_file": args.one_file,
            "overlay": args.overlay,
            "heatmap": args.heatmap,
            **({"invert": True} if args.invert else {}),  # older folders do not say it
            "evaluate": args.evaluate,
            **({"box_px": args.box} if args.box else {}),
            **({"output_frame": args.output_frame} if args.output_frame else {}),
        }
        output.open_output(args.output, arguments, args.resume)
        for folder, wanted in (("overlays", args.overlay), ("heatmaps", args.heatmap)):
            if wanted:
                make_folder(args.output / folder)

        # 2. Micrograph by micrograph
        noted = _pick_each(args, picker, diameter_px, threshold, paths, formats, overlay, left_out)
        paths = {name: path for name, path in paths.items() if name not in left_out}
        for name in left_out:  # what is there is of an earlier file of this name
            output.remove_picks(args.output, name)
        warn_of_notes({name: noted[name] for name in noted if name in paths})
        require_some(paths, left_out)

        # 3. What those lack that were done already, and what all make together
        candidates = [output.load_picks(args.output, name, sizes[name]) for name in paths]
        all_called = [to_write(args, picks, threshold) for picks in candidates]
        for called in all_called:
            lacks_overlay = overlay and not output.overlay(args.output, called.name).exists()
            lacks = output.lacking(args.output, called.name, formats)
            write_one(args, called, lacks, paths[called.name] if lacks_overlay else None)
        of_all = [name for name in args.formats if name not in formats]
        write_formats(args, all_called, of_all, one_file=True)
        write_for_relion(args, all_called)
        output.write_summary(args.output / "summary.csv", all_called, left_out)
        if truth is None:
            report_counts(candidates, [], threshold, args.output)
            tell_of_no_picks(candidates, threshold)
        else:
            truth = [true for true in truth if true.name not in left_out]
            outcomes, margin_px = match_all(candidates, truth, args.margin_px, diameter_px)
            report_quality(candidates, outcomes, margin_px, threshold, paths, args.output)
            if args.overlay:
                draw_outcomes(outcomes, threshold, diameter_px, paths, args.output / "overlays")
    n_picks, n_candidates = (sum(len(p.scores) for p in some) for some in (all_called, candidates))
    if noted and n_picks < max(FEW_PICKS * len(paths), FEW_OF_CANDIDATES * n_candidates):
        _warn_of_polarity(args, picker, diameter_px, threshold, next(iter(paths.values())))
    _tell_of_the_end(args, candidates, all_called, threshold, formats)


def _pick_each(
    args: argparse.Namespace,
    picker: Picker,
    diameter_px: float,
    threshold: float,
    paths: Paths,
    formats: Sequence[str],
    overlay: bool,
    left_out: Reasons,
) -> dict[str, Notes]:
    """Pick those that are not done; return what reading noted of each.

    A micrograph's file in scored/ is written last and says that it is done.

    Args:
        args: the command line.
        picker: the network.
        diameter_px: of the particles, where ``args.own_px`` has none of the micrograph.
        threshold: from which score a candidate is a pick.
        paths: the micrographs.
        formats: those with a file for each micrograph.
        overlay: whether the picks are drawn over each.
        left_out: gets those that turn out to be beyond help.
    """
    left = output.not_done(args.output, paths, threshold, args.heatmap, args.own_px)
    noted: dict[str, Notes] = {}
    for n, name in enumerate(left, 1):
        started, noted[name] = time.monotonic(), {}
        try:
            of_file = output.identity(paths[name], args.own_px.get(name))
            scores, picks = pick_one(args, picker, diameter_px, paths[name], noted[name])
        except UnreadableImage as error:
            give_up_on(name, error, left_out, args.strict)
            continue
        called = to_write(args, picks, threshold)
        for picture in (output.heatmap, output.overlay):  # of a file that was replaced
            picture(args.output, name).unlink(missing_ok=True)
        write_one(args, called, formats, paths[name] if overlay else None)
        if args.heatmap:
            write_heatmap(scores, output.heatmap(args.output, name))
        output.save_picks(args.output, picks, of_file)
        seconds = time.monotonic() - started
        print(
            f"{n}/{len(left)} {name}: {len(called.scores)} picks, {seconds:.1f} s"
            f"{bad_px_text(noted[name])}",
            flush=True,
        )
    return noted


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
    all_called: Sequence[Picks],
    threshold: float,
    formats: Sequence[str],
) -> None:
    """Print how many picks there are, and what of them is in no file."""
    n_none = sum(not len(called.scores) for called in all_called)
    without = [name for name in formats if name in NEVER_EMPTY]
    if n_none and without:
        print(
            f"No {', '.join(without)} of {n_none:,} micrographs without a pick, since other "
            "programs fall over an empty file; summary.csv names them"
        )
    n_picks = sum(len(called.scores) for called in all_called)
    if args.box is not None:
        n_called = sum(int((picks.scores >= threshold).sum()) for picks in candidates)
        print(
            f"Left out: {n_called - n_picks:,} of {n_called:,} picks, about which a box of "
            f"{args.box} px would cross an edge"
        )
    n_candidates = sum(len(picks.scores) for picks in candidates)
    print(
        f"Finished {args.output}: {n_picks:,} picks of {n_candidates:,} candidates on "
        f"{len(candidates):,} micrographs"
    )


def pick_one(
    args: argparse.Namespace, picker: Picker, diameter_px: float, path: Path, notes: Notes
) -> tuple[ScoreMap, Picks]:
    """Pick a micrograph as `pick` does, by its own diameter where its px have another size."""
    own_px = args.own_px.get(path.name, diameter_px)
    return pick(picker.for_diameter(own_px), path, own_px, notes)


def to_write(args: argparse.Namespace, picks: Picks, threshold: float) -> Picks:
    """Return the picks from the threshold up whose box, where one is asked for, crosses no edge."""
    called = select(picks, picks.scores >= threshold)
    return called if args.box is None else with_whole_box(called, args.box, args.output_frame)


def write_one(
    args: argparse.Namespace, picks: Picks, formats: Sequence[str], micrograph: Path | None
) -> None:
    """Write one micrograph's picks in formats, and drawn over the ``micrograph`` where given."""
    write_formats(args, [picks], formats, one_file=False)
    if micrograph is not None:
        draw_picks(read_micrograph(micrograph), picks, output.overlay(args.output, picks.name))


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


def keep_best_threshold(
    args: argparse.Namespace, paths: Paths, sizes: Sizes, left_out: Reasons
) -> None:
    """Keep the best threshold against the truth, or the one that gives the expected number.

    left_out: gets micrographs that turn out to be beyond help.
    """
    picker, diameter_px = load(args)
    with locked(thresholds.folder_to_lock(args.checkpoint)):
        remove_half_written(args.checkpoint.parent)
        names = list(paths)
        outcomes: list[Outcome] = []
        if args.choose_threshold:
            truth = true_particles(args, args.choose_threshold, paths, sizes, diameter_px)
            names = [true.name for true in truth]
        picks, noted = {}, {name: Notes() for name in names}
        for name in names:
            try:
                picks[name] = pick_one(args, picker, diameter_px, paths[name], noted[name])[1]
            except UnreadableImage as error:
                give_up_on(name, error, left_out, args.strict)
        warn_of_notes({name: noted[name] for name in picks})
        require_some(picks, left_out)
        if args.choose_threshold:
            truth = [true for true in truth if true.name not in left_out]
            outcomes, margin_px = match_all([*picks.values()], truth, args.margin_px, diameter_px)
            threshold = choose_threshold(pr_curve(outcomes), args.precision)
            metrics = pick_metrics(outcomes, threshold, n_bootstrap=0)
            chosen_on = {"margin_px": margin_px, "wanted_precision": args.precision}
            chosen_on |= {name: metrics[name] for name in ("precision", "recall", "f1", "ap")}
        else:
            threshold = thresholds.threshold_for_count([*picks.values()], args.expected_particles)
            chosen_on = {"expected_particles": args.expected_particles}
        report_counts([*picks.values()], outcomes, threshold, None)
        on = {"micrographs": [*picks], "diameter_px": diameter_px, **chosen_on}
        thresholds.keep_threshold(picker, threshold, on, [*picks.values()])
