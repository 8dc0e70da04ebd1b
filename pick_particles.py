r"""Pick particles: a trained network and micrographs -> coordinates for RELION and cryoSPARC.

    # once, on validation micrographs: the threshold with the highest F1, kept in the checkpoint
    python pick_particles.py --checkpoint experiments/run/checkpoints/best_model.pt \
        --micrographs 'val/*.jpg' --diameter 108px --choose-threshold instances_val.json
    # pick; the same command with --resume goes on, also when more micrographs have come
    python pick_particles.py --checkpoint experiments/run/checkpoints/best_model.pt \
        --micrographs 'raw/*.mrc' --diameter 150A --pixel-size 1.77 --output picks --overlay
    # how good the picks are: these, or the files of any picker
    python pick_particles.py --checkpoint experiments/run/checkpoints/best_model.pt \
        --micrographs 'test/*.jpg' --diameter 108px --output picks_test \
        --evaluate instances_test.json
    python pick_particles.py --evaluate instances_test.json --picks 'other/*.box'

The output folder gets <format>/<micrograph>.<suffix> or, with --one-file, picks.<suffix>; counts
against the threshold in thresholds.csv; summary.csv; and with --evaluate evaluation.json and
pr_curve.png. STAR, BOX and CBOX are in the MRC's frame, CSV and COCO in the JPEG's.
"""

import argparse
from pathlib import Path

from picking.formats.coordinates import FORMATS, match_names, read_picks, write_picks
from picking.formats.picks import Picks, select


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, help="best_model.pt of a run: classifier or U-Net")
    add("--micrographs", nargs="+", metavar="FILE", help="files, or a quoted 'dir/*.mrc'")
    add("--output", type=Path, help="a new folder")
    add("--diameter", help="of the particles, in px of the micrograph or in Å: 108px, 150A")
    add("--pixel-size", type=float, metavar="Å", help="of the micrographs, where Å are given")
    add("--threshold", default="auto", help="lowest score, 0 to 1; auto: the checkpoint's")
    add("--formats", nargs="+", choices=FORMATS, default=["star"], help="default: star")
    add("--one-file", action="store_true", help="all micrographs in one (not BOX, CBOX)")
    add("--overlay", action="store_true", help="PNG of each micrograph with its picks")
    add("--heatmap", action="store_true", help="PNG of each micrograph's scores")
    add("--device", default="auto", help="cpu, cuda:0, ..., or auto for the best there is")
    add("--resume", action="store_true", help="go on in --output; what is done stays")
    add("--choose-threshold", nargs="+", metavar="TRUTH", help="keep the best in --checkpoint")
    add("--precision", type=float, help="choose the threshold that has this precision instead")
    add(
        "--expected-particles",
        type=float,
        metavar="N",
        help="where there is no truth: keep the threshold that picks N a micrograph on average",
    )
    add("--evaluate", nargs="+", metavar="TRUTH", help="COCO, CSV, STAR, BOX or CBOX")
    add("--picks", nargs="+", metavar="FILE", help="evaluate these instead of picking")
    add(
        "--annotated-margin",
        default="auto",
        metavar="PX|auto",
        help="what is nearer to an edge does not count; auto: the largest that no truth enters",
    )
    add("--frame", choices=("jpeg", "mrc"), help="of --picks, if not what their format has")
    add("--truth-frame", choices=("jpeg", "mrc"), help="of the truth, likewise")
    return parser


if __name__ == "__main__":
    argument_parser().parse_args()  # --help and unknown flags are answered before torch is imported

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from picking.config import differing_keys
from picking.detection import matching, peaks, score_map
from picking.detection import report as picks_report
from picking.detection.picker import (
    Picker,
    holder_of,
    keep_threshold,
    kept_threshold,
    load_picker,
    pick,
)
from picking.errors import UserError, run_script
from picking.files import locked, read_json, remove_half_written, sha256, write_json
from picking.formats.frames import check_frame
from picking.formats.micrographs import image_size, read_micrograph
from picking.formats.paths import Paths, as_number, diameter_in_px, expand, find_micrographs
from picking.runs import folder as runs

Sizes = dict[str, tuple[int, int]]  # (height, width) in px by file name


def parse_args() -> argparse.Namespace:
    """Return the checked command line."""
    args = argument_parser().parse_args()
    threshold, margin = args.threshold, args.annotated_margin
    for valid, message in (
        (
            args.picks or (args.checkpoint and args.micrographs),
            "give --checkpoint and --micrographs to pick, or --evaluate and --picks",
        ),
        (not (args.picks and args.checkpoint), "give --checkpoint or --picks, not both"),
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
            threshold == "auto" or 0 <= as_number(threshold, -1) <= 1,
            f"--threshold is '{threshold}': give a number from 0 to 1, or auto",
        ),
        (
            margin == "auto" or margin.isdecimal(),
            f"--annotated-margin is '{margin}': give whole px or 'auto'",
        ),
    ):
        if not valid:
            raise UserError(message)
    return args


def main() -> None:
    """Pick, or evaluate the picks of others, or choose the threshold."""
    args = parse_args()
    paths = find_micrographs(args.micrographs or [])
    sizes = {name: image_size(path) for name, path in paths.items()}  # refuses stacks and movies
    if args.picks:
        evaluate_files(args, paths, sizes)
        return
    picker = load_picker(args.checkpoint, runs.select_device(args.device))
    known_px = picker.wants.get("diameter_px")
    diameter_px = diameter_in_px(args.diameter, args.pixel_size, known_px)
    if "scale" in picker.wants:  # these micrographs' px may be others than those learned from
        scale = picker.wants["scale"] * picker.wants["diameter_px"] / diameter_px
        picker = picker._replace(wants={**picker.wants, "scale": scale})
    if args.choose_threshold or args.expected_particles:
        with locked(holder_of(args.checkpoint)):
            remove_half_written(args.checkpoint.parent)
            if args.choose_threshold:
                choose_threshold(args, picker, diameter_px, paths, sizes)
            else:
                expect_particles(args, picker, diameter_px, paths)
        return
    if args.threshold == "auto":
        threshold, source = kept_threshold(picker)
    else:
        threshold, source = float(args.threshold), "--threshold"
    print(f"Threshold {threshold:.4f} ({source}), diameter {diameter_px:g} px")
    truth = read_truth(args, args.evaluate, paths, sizes) if args.evaluate else None

    with locked(args.output):
        # 1. The folder: empty, or begun with the same arguments
        arguments = {
            "checkpoint": sha256(args.checkpoint.read_bytes()),
            "threshold": threshold,
            "diameter_px": diameter_px,
            "formats": sorted(args.formats),
            "one_file": args.one_file,
            "overlay": args.overlay,
            "heatmap": args.heatmap,
        }
        open_output(args.output, arguments, args.resume)
        (args.output / "scored").mkdir(exist_ok=True)

        # 2. Micrograph by micrograph; the file in scored/ comes last and says "done"
        done = {name: args.output / "scored" / f"{name}.npz" for name in paths}
        left = [name for name in paths if not done[name].exists()]
        if len(left) < len(paths):
            print(f"{len(paths) - len(left)} of {len(paths)} micrographs are done already")
        for n, name in enumerate(left, 1):
            started = time.monotonic()
            scores, found = pick(picker, paths[name], diameter_px)
            called = select(found, found.scores >= threshold)
            if not args.one_file:
                write_picks(args.output, [called], args.formats)
            if args.overlay and truth is None:
                picture = in_folder(args.output / "overlays", name)
                picks_report.draw_picks(read_micrograph(paths[name]), called, picture, True)
            if args.heatmap:
                score_map.write_heatmap(scores, in_folder(args.output / "heatmaps", name))
            peaks.save_picks(done[name], found)
            seconds = time.monotonic() - started
            print(
                f"{n}/{len(left)} {name}: {len(called.scores)} picks, {seconds:.1f} s", flush=True
            )

        # 3. What they make together
        all_found = [peaks.load_picks(done[name], name, sizes[name]) for name in paths]
        all_called = [select(found, found.scores >= threshold) for found in all_found]
        if args.one_file:
            write_picks(args.output, all_called, args.formats, one_file=True)
        peaks.write_summary(args.output / "summary.csv", all_called)
        if truth is not None:
            evaluate(args, all_found, truth, paths, threshold)
        else:
            report_counts(all_found, [], threshold, args.output)
    n_picks = sum(len(called.scores) for called in all_called)
    print(f"Finished {args.output}: {n_picks:,} picks on {len(paths):,} micrographs")


def open_output(folder: Path, arguments: dict[str, Any], resume: bool) -> None:
    """Begin in an empty folder, or check that it was begun with the same; call while locked."""
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
        if differing:
            raise UserError(
                f"{folder} was begun with another {', '.join(differing)}: resume with the same, or "
                "choose another folder"
            )
    remove_half_written(folder, *folder.glob("*/"))
    write_json(manifest, arguments)


def in_folder(folder: Path, name: str) -> Path:
    """Return where the PNG of a micrograph goes."""
    folder.mkdir(exist_ok=True)
    return folder / f"{name}.png"


def report_counts(
    found: list[Picks],
    outcomes: list[matching.Outcome],
    threshold: float | None,
    output: Path | None,
) -> None:
    """Print the counts against the threshold and write them to thresholds.csv."""
    rows = picks_report.threshold_rows(found, outcomes, threshold)
    print(picks_report.table_text(rows, threshold))
    if output is not None:
        picks_report.write_table(rows, output / "thresholds.csv")


# Against the truth


def asked_diameter(args: argparse.Namespace) -> float | None:
    """Return --diameter in px, None where it is not given."""
    return None if args.diameter is None else diameter_in_px(args.diameter, args.pixel_size)


def read_truth(
    args: argparse.Namespace, patterns: Sequence[str], paths: Paths, sizes: Sizes
) -> list[Picks]:
    """Return the true particles; where micrographs are given, of those alone."""
    files = expand(patterns)
    truth = read_picks(files, sizes, args.truth_frame, only_known=bool(sizes))
    check_frame(truth, paths, files, args.truth_frame, "--truth-frame", asked_diameter(args))
    return truth


def compare_all(
    args: argparse.Namespace, found: list[Picks], truth: list[Picks]
) -> tuple[list[matching.Outcome], int]:
    """Match the picks of every micrograph that has truth too; return the margin in px as well."""
    pairs, without_picks, without_truth = match_names(found, truth)
    for names, lacking in ((without_picks, "picks"), (without_truth, "truth")):
        if names:
            print(f"Left out for want of {lacking}: {len(names)} micrographs (e.g. {names[0]})")
    margin_px = 0 if args.annotated_margin == "auto" else int(args.annotated_margin)
    if args.annotated_margin == "auto":
        centres = [(t.centres_px, p.size_px or t.size_px) for p, t in pairs if len(t.centres_px)]
        known = [(c, size) for c, size in centres if size is not None]
        if len(known) == len(centres) > 0:
            margin_px = int(min(min(c.min(), (np.array(size) - c).min()) for c, size in known))
    outcomes = []
    for picks, true in pairs:
        known_diameters = np.isfinite(true.diameters_px).all()
        radius_px = (
            None if known_diameters else diameter_in_px(None, None, asked_diameter(args)) / 2
        )
        outcomes.append(matching.match_picks(picks, true, margin_px, radius_px))
    return outcomes, margin_px


def evaluate(
    args: argparse.Namespace,
    found: list[Picks],
    truth: list[Picks],
    paths: Paths,
    threshold: float | None,
) -> None:
    """Print precision, recall, F1 and AP; with --output write them, the curve and overlays."""
    outcomes, margin_px = compare_all(args, found, truth)
    ids = {name: path.parent.name for name, path in paths.items() if path.parent.name.isdigit()}
    report = matching.pick_metrics(outcomes, threshold, ids)
    ranked = matching.has_scores(outcomes) and any(len(picks.scores) for picks in found)
    if ranked:
        report_counts(found, outcomes, threshold, args.output)
    at = "all picks" if threshold is None else f"threshold {threshold:.4f}"
    print(f"\n{report['n_micrographs']} micrographs, inside a margin of {margin_px} px, {at}:")
    for name in ("precision", "recall", "f1", "ap"):
        value, interval = report[name], report["intervals"].get(name)
        print(f"  {name:<10}", "-" if value is None else f"{value:.3f}", end="")
        print(f"  [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
    if args.output is None:
        return
    write_json(args.output / "evaluation.json", {"margin_px": margin_px, **report})
    if ranked:
        picks_report.draw_pr_curve(
            {"picks": matching.pr_curve(outcomes)}, args.output / "pr_curve.png"
        )
    if args.overlay:
        for outcome in [outcome for outcome in outcomes if outcome.truth.name in paths]:
            name = outcome.truth.name
            called = outcome.picks.scores >= (-math.inf if threshold is None else threshold)
            # Of a prefix of the ranking, matching anew finds the same
            shown = matching.match_picks(select(outcome.picks, called), outcome.truth)
            picture = in_folder(args.output / "overlays", name)
            picks_report.draw_outcome(read_micrograph(paths[name]), shown, picture)


def evaluate_files(args: argparse.Namespace, paths: Paths, sizes: Sizes) -> None:
    """Evaluate the picks in files of any picker."""
    truth = read_truth(args, args.evaluate, paths, sizes)
    files = expand(args.picks)
    sizes = sizes or {true.name: true.size_px for true in truth if true.size_px}
    found = read_picks(files, sizes, args.frame)
    check_frame(found, paths, files, args.frame, "--frame", asked_diameter(args))
    threshold = None if args.threshold == "auto" else float(args.threshold)
    if args.output is None:
        evaluate(args, found, truth, paths, threshold)
        return
    with locked(args.output):
        open_output(args.output, {"picks": sorted(args.picks), "threshold": threshold}, args.resume)
        evaluate(args, found, truth, paths, threshold)


def choose_threshold(
    args: argparse.Namespace, picker: Picker, diameter_px: float, paths: Paths, sizes: Sizes
) -> None:
    """Pick the validation micrographs, choose the threshold against their truth, keep it."""
    truth = read_truth(args, args.choose_threshold, paths, sizes)
    found = [pick(picker, paths[true.name], diameter_px)[1] for true in truth]
    outcomes, margin_px = compare_all(args, found, truth)
    threshold = matching.choose_threshold(matching.pr_curve(outcomes), args.precision)
    report_counts(found, outcomes, threshold, None)
    figures = matching.pick_metrics(outcomes, threshold, n_bootstrap=0)
    chosen_on = {
        "micrographs": [true.name for true in truth],
        "diameter_px": diameter_px,
        "margin_px": margin_px,
        "wanted_precision": args.precision,
        **{name: figures[name] for name in ("precision", "recall", "f1", "ap")},
    }
    keep_threshold(picker, threshold, chosen_on)


def expect_particles(
    args: argparse.Namespace, picker: Picker, diameter_px: float, paths: Paths
) -> None:
    """Pick the micrographs, keep the threshold that gives so many picks on each, on average."""
    found = [pick(picker, path, diameter_px)[1] for path in paths.values()]
    scores = np.sort(np.concatenate([picks.scores for picks in found]))[::-1]
    n_wanted = max(1, round(args.expected_particles * len(paths)))
    if n_wanted > len(scores):
        raise UserError(
            f"--expected-particles {args.expected_particles:g}: there are only {len(scores):,} "
            f"candidates on {len(paths):,} micrographs: ask for fewer, or train longer"
        )
    threshold = float(scores[n_wanted - 1])
    report_counts(found, [], threshold, None)
    chosen_on = {
        "micrographs": list(paths),
        "diameter_px": diameter_px,
        "expected_particles": args.expected_particles,
    }
    keep_threshold(picker, threshold, chosen_on)


if __name__ == "__main__":
    run_script(main)
