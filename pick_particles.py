r"""Pick particles: a trained network and micrographs -> coordinates for RELION and cryoSPARC.

    # once, on validation micrographs: the threshold with the highest F1, kept beside the checkpoint
    python pick_particles.py --checkpoint experiments/run/checkpoints/best_model.pt \
        --micrographs 'val/*.jpg' --diameter 108px --choose-threshold instances_val.json
    # pick; the same command with --resume goes on, also when more micrographs have come, and with
    # another --threshold, --formats, --overlay or --evaluate it makes those without inference
    python pick_particles.py --checkpoint experiments/run/checkpoints/best_model.pt \
        --micrographs 'raw/*.mrc' --diameter 150A --pixel-size 1.77 --output picks --overlay
    # how good the picks are: these, or the files of any picker
    python pick_particles.py --checkpoint experiments/run/checkpoints/best_model.pt \
        --micrographs 'test/*.jpg' --diameter 108px --output picks_test \
        --evaluate instances_test.json
    python pick_particles.py --evaluate instances_test.json --picks 'other/*.box'

The output folder gets <format>/<micrograph>.<suffix> or, with --one-file, picks.<suffix>, and
particles.cs with particles.csg for cryoSPARC; counts against the threshold in thresholds.csv;
summary.csv; and with --evaluate evaluation.json and pr_curve.png. CSV and COCO are in the JPEG's
frame, all others in the MRC's.
"""

import argparse
import contextlib
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from picking.detection import output
from picking.detection.evaluation import (
    Sizes,
    draw_outcomes,
    match_all,
    read_truth,
    report_counts,
    report_quality,
    tell_of_no_picks,
)
from picking.detection.matching import choose_threshold, pick_metrics, pr_curve
from picking.detection.report import draw_picks
from picking.errors import ALLOW_PARTIAL, UserError, run_script, warn
from picking.files import locked, make_folder, remove_half_written
from picking.formats.coco import CATEGORY, may_be_coco
from picking.formats.coordinates import FORMATS, KINDS, NEVER_EMPTY, read_picks, write_picks
from picking.formats.names import few, finder, require_writable
from picking.formats.picks import Picks, merge_duplicates, select, with_whole_box
from picking.formats.relion.writing import remove_relion, require_listable, write_relion
from picking.inputs.diameters import (
    as_number,
    asked_diameters,
    diameter_in_px,
    pixel_size_of,
    require_diameter_fits,
    require_lengths,
)
from picking.inputs.micrograph_lists import given_micrographs
from picking.inputs.paths import Paths, find_coordinates
from picking.inputs.placement import check_placement
from picking.micrographs.left_out import Reasons, give_up_on, readable_sizes, require_some, tell
from picking.micrographs.problems import Notes, UnreadableImage, bad_px_text, warn_of_notes
from picking.micrographs.reading import read_micrograph

if TYPE_CHECKING:
    from picking.detection.picker import Picker

FEW_PICKS = 3  # on a micrograph on average; with fewer the polarity is held to be in question


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, help="best_model.pt of a run: classifier or U-Net")
    add(
        "--micrographs",
        nargs="+",
        metavar="FILE",
        help="files, a quoted 'dir/*.mrc', or a list: micrographs_ctf.star, exposures.cs",
    )
    add("--output", type=Path, help="a new folder")
    add("--diameter", help="of the particles, in px of the micrograph or in Å: 108px, 150A")
    add("--pixel-size", type=float, metavar="Å", help="of the micrographs; default: their headers'")
    add(
        "--invert",
        action="store_true",
        help="particles are white here and dark where the network learned, or the reverse",
    )
    add("--threshold", default="auto", help="lowest score; auto: the checkpoint's, or all")
    add("--formats", nargs="+", choices=FORMATS, default=["star"], help="default: star")
    add(
        "--output-frame",
        choices=("jpeg", "mrc"),
        help="y axis of the files that are written, where a program has the micrographs upside "
        "down; default: by format",
    )
    add(
        "--box",
        type=int,
        metavar="PX",
        help="write no pick about which a box of so many px would cross an edge",
    )
    add("--one-file", action="store_true", help="all micrographs in one; not BOX, CBOX; cs: always")
    add("--overlay", action="store_true", help="PNG of each micrograph with its picks")
    add("--heatmap", action="store_true", help="PNG of each micrograph's scores")
    add("--device", default="auto", help="cpu, cuda:0, ..., or auto for the best there is")
    add("--resume", action="store_true", help="go on in --output; what is done stays")
    add(
        "--choose-threshold",
        nargs="+",
        metavar="TRUTH",
        help="true particles: find the threshold with the highest F1 and save it beside the "
        "checkpoint",
    )
    add("--precision", type=float, help="with --choose-threshold: the lowest with this precision")
    add(
        "--expected-particles",
        type=float,
        metavar="N",
        help="where there is no truth: keep the threshold that picks N a micrograph on average",
    )
    add("--evaluate", nargs="+", metavar="TRUTH", help=f"true particles: {KINDS}")
    add("--picks", nargs="+", metavar="FILE", help="evaluate these, of any such format")
    add(
        "--annotated-margin",
        default="auto",
        metavar="PX|auto",
        help="with TRUTH: ignore picks and particles within PX of an edge; auto: as wide as "
        "possible without losing a true particle, up to a diameter",
    )
    add(
        "--frame",
        choices=("jpeg", "mrc"),
        help="y axis of the --picks files: jpeg = from the top, mrc = from the file's first row; "
        "default: by format",
    )
    add("--truth-frame", choices=("jpeg", "mrc"), help="the same of the TRUTH files")
    add("--strict", action="store_true", help="end at the first micrograph that cannot be picked")
    add("--category", metavar="NAME", help=CATEGORY)
    add("--allow-partial", action="store_true", help=ALLOW_PARTIAL)
    return parser


def parse_args() -> argparse.Namespace:
    """Return the checked command line; margin_px is None for auto."""
    args = argument_parser().parse_args()
    threshold, margin = args.threshold, args.annotated_margin
    lowest, highest = (-math.inf, math.inf) if args.picks else (0, 1)  # others' scores are any
    truth = (args.evaluate or []) + (args.choose_threshold or [])
    for valid, message in (
        (
            args.picks or (args.checkpoint and args.micrographs),
            "give --checkpoint and --micrographs to pick, or --evaluate and --picks",
        ),
        (not (args.picks and args.checkpoint), "give --checkpoint or --picks, not both"),
        (not (args.picks and args.invert), "--invert is for picking: leave it out with --picks"),
        (args.evaluate or not args.picks, "--picks needs --evaluate with the true particles"),
        (
            args.output or args.picks or args.choose_threshold or args.expected_particles,
            "--output is missing: name a new folder for the picks",
        ),
        (
            not (args.choose_threshold or args.expected_particles)
            or not (args.evaluate or args.output or args.picks),
            "a threshold is chosen for the checkpoint alone: pick and --evaluate after it",
        ),
        (
            args.expected_particles is None
            or (0 < args.expected_particles < math.inf and not args.choose_threshold),
            "--expected-particles is above 0 and goes without --choose-threshold",
        ),
        (
            args.precision is None or (args.choose_threshold and 0 < args.precision <= 1),
            "--precision goes with --choose-threshold and is above 0, up to 1",
        ),
        (
            threshold == "auto" or lowest <= as_number(threshold, math.nan) <= highest,
            f"--threshold is '{threshold}': give a number"
            + (", or auto" if args.picks else " from 0 to 1, or auto"),
        ),
        (
            args.category is None or may_be_coco(truth + (args.picks or [])),
            f"--category {args.category} chooses in COCO JSON, and no such file is given",
        ),
        (
            not args.picks or (args.box is None and args.output_frame is None),
            "--box and --output-frame are of picks that are written, not of --picks",
        ),
        (args.box is None or args.box > 0, f"--box is {args.box}: give px, such as 128"),
        (
            margin == "auto" or margin.isdecimal(),
            f"--annotated-margin is '{margin}': give whole px or 'auto'",
        ),
    ):
        if not valid:
            raise UserError(message)
    args.margin_px = None if margin == "auto" else int(margin)
    require_lengths(args.diameter, args.pixel_size)
    return args


def main() -> None:
    """Pick, or evaluate the picks of others, or choose the threshold."""
    args = parse_args()
    given, args.listed = given_micrographs(args.micrographs or [], args.allow_partial)
    if args.output and not args.picks:
        require_writable(given, args.formats, args.one_file)
        if args.listed is not None and not args.listed.exposures:
            require_listable(args.output, args.listed.names)
    sizes, left_out = readable_sizes(given, args.strict)  # without stacks and movies
    paths = {name: given[name] for name in sizes}
    listed = args.listed.pixel_sizes if args.listed else {}
    # None without; and of the micrographs with px of another size
    args.asked_px, args.own_px = asked_diameters(args.diameter, args.pixel_size, paths, listed)
    args.pixel_size_of = pixel_size_of(args.pixel_size, paths, listed)
    if args.asked_px is not None:
        for name, size_px in sizes.items():
            require_diameter_fits(args.own_px.get(name, args.asked_px), {name: size_px})
    if args.picks:
        evaluate_files(args, paths, sizes)
    elif args.choose_threshold or args.expected_particles:
        keep_best_threshold(args, paths, sizes, left_out)
    else:
        pick_micrographs(args, paths, sizes, left_out)
    tell(left_out, len(given))


def load(args: argparse.Namespace) -> "tuple[Picker, float]":
    """Return the network and the diameter of particles in px, but for those of ``own_px``.

    Here torch is imported, which takes seconds: so what is wrong on the command line is said first.
    """
    from picking.detection.picker import load_picker
    from picking.runs.devices import select_device

    picker = load_picker(args.checkpoint, select_device(args.device))._replace(invert=args.invert)
    diameter_px = args.asked_px or diameter_in_px(None, None, picker.input.diameter_px)
    return picker, diameter_px


def true_particles(
    args: argparse.Namespace,
    files: list[str],
    paths: Paths,
    sizes: Sizes,
    diameter_px: float | None,
) -> list[Picks]:
    """Return the true particles in the files that a flag names."""
    return read_truth(
        files, args.truth_frame, paths, sizes, diameter_px, args.allow_partial, args.category,
        args.own_px, args.pixel_size_of,
    )  # fmt: skip


def pick_micrographs(
    args: argparse.Namespace, paths: Paths, sizes: Sizes, left_out: Reasons
) -> None:
    """Pick all micrographs that are not done yet; write and evaluate what they make together.

    left_out: gets those that turn out to be beyond help.
    """
    picker, diameter_px = load(args)
    from picking.detection.picker import fits_inverted, pick
    from picking.detection.score_map import write_heatmap
    from picking.detection.thresholds import kept_threshold

    begun = output.begun_threshold(args.output, picker.checksum) if args.resume else None
    if args.threshold != "auto":
        threshold, source = float(args.threshold), "--threshold"
    elif begun is not None:
        threshold, source = begun, f"with which {args.output} was begun"
    else:
        threshold, source = kept_threshold(picker)
    print(f"Threshold {threshold:.4f} ({source}), diameter {diameter_px:g} px")
    truth = None
    if args.evaluate:
        truth = true_particles(args, args.evaluate, paths, sizes, diameter_px)

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
        formats = [] if args.one_file else [name for name in args.formats if name != "cs"]
        overlay = args.overlay and truth is None

        # 2. Micrograph by micrograph; the file in scored/ comes last and says "done"
        left = output.not_done(args.output, paths, threshold, args.heatmap, args.own_px)
        noted: dict[str, Notes] = {}
        for n, name in enumerate(left, 1):
            started, noted[name] = time.monotonic(), {}
            own_px = args.own_px.get(name, diameter_px)
            try:
                of_file = output.identity(paths[name], args.own_px.get(name))
                scores, picks = pick(picker.for_diameter(own_px), paths[name], own_px, noted[name])
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

        # 3. What those lack that were done already, and what all make together
        paths = {name: path for name, path in paths.items() if name not in left_out}
        for name in left_out:  # what is there is of an earlier file of this name
            output.remove_picks(args.output, name)
        warn_of_notes({name: noted[name] for name in noted if name in paths})
        require_some(paths, left_out)
        candidates = [output.load_picks(args.output, name, sizes[name]) for name in paths]
        all_called = [to_write(args, picks, threshold) for picks in candidates]
        for called in all_called:
            lacks_overlay = overlay and not output.overlay(args.output, called.name).exists()
            lacks = output.lacking(args.output, called.name, formats)
            write_one(args, called, lacks, paths[called.name] if lacks_overlay else None)
        of_all = args.formats if args.one_file else [name for name in args.formats if name == "cs"]
        exposures = args.listed.exposures if args.listed else {}
        write_picks(args.output, all_called, of_all, True, args.output_frame, exposures)
        write_for_relion(args, all_called)
        output.write_summary(args.output / "summary.csv", all_called, left_out)
        if truth is None:
            report_counts(candidates, [], threshold, args.output)
            if not any(len(called.scores) for called in all_called):
                tell_of_no_picks(candidates, threshold)
        else:
            truth = [true for true in truth if true.name not in left_out]
            outcomes, margin_px = match_all(candidates, truth, args.margin_px, diameter_px)
            report_quality(candidates, outcomes, margin_px, threshold, paths, args.output)
            if args.overlay:
                draw_outcomes(outcomes, threshold, diameter_px, paths, args.output / "overlays")
    n_none = sum(not len(called.scores) for called in all_called)
    without = [name for name in formats if name in NEVER_EMPTY]
    if n_none and without:
        print(
            f"No {', '.join(without)} of {n_none:,} micrographs without a pick, since other "
            "programs fall over an empty file; summary.csv names them"
        )
    n_picks = sum(len(called.scores) for called in all_called)
    first = next(iter(paths.values()))
    own_px = args.own_px.get(first.name, diameter_px)
    at_own = picker.for_diameter(own_px)
    if n_picks < FEW_PICKS * len(paths) and fits_inverted(at_own, first, own_px, threshold):
        kind, advice = ("dark", "leave --invert out") if args.invert else ("white", "try --invert")
        warn(
            f"particles may be {kind} here, unlike where the network learned: {first.name} has "
            f"many more picks with its grey inverted: {advice}, and name another --output"
        )
    n_candidates = sum(len(picks.scores) for picks in candidates)
    if args.box is not None:
        n_called = sum(int((picks.scores >= threshold).sum()) for picks in candidates)
        print(
            f"Left out: {n_called - n_picks:,} of {n_called:,} picks, about which a box of "
            f"{args.box} px would cross an edge"
        )
    print(
        f"Finished {args.output}: {n_picks:,} picks of {n_candidates:,} candidates on "
        f"{len(paths):,} micrographs"
    )


def to_write(args: argparse.Namespace, picks: Picks, threshold: float) -> Picks:
    """Return the picks from the threshold up whose box, where one is asked for, crosses no edge."""
    called = select(picks, picks.scores >= threshold)
    return called if args.box is None else with_whole_box(called, args.box, args.output_frame)


def write_one(
    args: argparse.Namespace, picks: Picks, formats: Sequence[str], micrograph: Path | None
) -> None:
    """Write one micrograph's picks in formats, and drawn over the ``micrograph`` where given."""
    write_picks(args.output, [picks], formats, frame=args.output_frame)
    if micrograph is not None:
        draw_picks(read_micrograph(micrograph), picks, output.overlay(args.output, picks.name))


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
    from picking.detection import thresholds
    from picking.detection.picker import pick

    with locked(thresholds.folder_to_lock(args.checkpoint)):
        remove_half_written(args.checkpoint.parent)
        names, outcomes = list(paths), []
        if args.choose_threshold:
            truth = true_particles(args, args.choose_threshold, paths, sizes, diameter_px)
            names = [true.name for true in truth]
        picks, noted = {}, {name: Notes() for name in names}
        for name in names:
            try:
                own_px = args.own_px.get(name, diameter_px)
                at_own = picker.for_diameter(own_px)
                picks[name] = pick(at_own, paths[name], own_px, noted[name])[1]
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
        thresholds.keep_threshold(picker, threshold, on)


def without_picks(
    files: Sequence[Path], picks: Sequence[Picks], truth: Sequence[Picks]
) -> list[Picks]:
    """Return the truth's micrographs on which our own ``files`` have no pick and no record."""
    named, true_name = finder([one.name for one in picks]), finder([one.name for one in truth])
    names = {true_name(name) for name in output.picked_none(files) if named(name) is None}
    return [select(one, np.zeros(len(one.scores), bool)) for one in truth if one.name in names]


def evaluate_files(args: argparse.Namespace, paths: Paths, sizes: Sizes) -> None:
    """Evaluate the picks in files of any picker."""
    truth = true_particles(args, args.evaluate, paths, sizes, args.asked_px)
    files = find_coordinates(args.picks, args.allow_partial)
    known = {true.name: sizes.get(true.name, true.size_px) for true in truth}
    if args.asked_px is not None:
        require_diameter_fits(args.asked_px, {n: size for n, size in known.items() if size})
    picks = read_picks(
        files, known, args.frame, True, allow_partial=args.allow_partial, category=args.category,
        pixel_size_of=args.pixel_size_of,
    )  # fmt: skip
    check_placement(picks, paths, files, args.frame, "--frame", args.asked_px)
    so = "all but the first of each are false picks"  # nothing is merged: pickers must not do that
    merge_duplicates(picks, few(map(str, files)), args.asked_px, so)
    picks += without_picks(files, picks, truth)
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
        outcomes, margin_px = match_all(
            picks, truth, args.margin_px, args.asked_px, all_picked=bool(paths)
        )
        report_quality(picks, outcomes, margin_px, threshold, paths, args.output)
        if args.overlay and args.output is not None:
            draw_outcomes(outcomes, threshold, args.asked_px, paths, args.output / "overlays")


if __name__ == "__main__":
    run_script(main)
