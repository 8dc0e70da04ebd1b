"""A threshold that is kept beside the checkpoint: the best against truth, or for a number."""

import argparse
import contextlib

from picking.detection import thresholds
from picking.detection.evaluate import true_particles
from picking.detection.micrographs import picked
from picking.detection.picker import load
from picking.errors import UserError
from picking.evaluation.matching import Outcome, choose_threshold, pick_metrics, pr_curve
from picking.evaluation.quality import Sizes, match_all, report_counts
from picking.files import locked, remove_half_written
from picking.inputs.paths import Paths
from picking.micrographs.left_out import Reasons, give_up_on, require_some
from picking.micrographs.problems import UnreadableImage, warn_of_notes
from picking.runs import distributed
from picking.runs.checkpoints import SHIPPED


def keep_best_threshold(
    args: argparse.Namespace, paths: Paths, sizes: Sizes, left_out: Reasons
) -> None:
    """Keep the best threshold against the truth, or the one that gives the expected number.

    left_out: gets micrographs that turn out to be beyond help.
    """
    picker, diameter_px = load(args, sizes)
    if distributed.place()[1] > 1:
        raise UserError("a threshold is chosen by one process: start the script without torchrun")
    if picker.path.resolve() == SHIPPED.resolve():
        raise UserError(
            "a threshold is kept beside its checkpoint, and that of the project is everybody's: "
            "copy it and name the copy; or, for --expected-particles, give --output too"
        )
    with locked(thresholds.folder_to_lock(picker.path)):
        remove_half_written(picker.path.parent)
        names = list(paths)
        outcomes: list[Outcome] = []
        if args.choose_threshold:
            truth = true_particles(args, args.choose_threshold, paths, sizes, diameter_px)
            names = [true.name for true in truth]
        picks, noted = {}, {}
        results = picked(args, picker, diameter_px, {name: paths[name] for name in names})
        with contextlib.closing(results):
            for one in results:
                if isinstance(one.picks, UnreadableImage):
                    give_up_on(one.name, one.picks, left_out, args.strict)
                else:
                    picks[one.name], noted[one.name] = one.picks, one.notes
        warn_of_notes(noted)
        require_some(picks, left_out)
        if args.choose_threshold:
            truth = [true for true in truth if true.name not in left_out]
            outcomes, margin_px = match_all([*picks.values()], truth, args.margin_px, diameter_px)
            threshold = choose_threshold(pr_curve(outcomes), args.precision)
            metrics = pick_metrics(outcomes, threshold, n_bootstrap=0)
            chosen_on = {"margin_px": margin_px, "wanted_precision": args.precision}
            chosen_on |= {name: metrics[name] for name in ("precision", "recall", "f1", "ap")}
        else:
            scores = [one.scores for one in picks.values()]
            threshold = thresholds.threshold_for_count(scores, args.expected_particles)
            chosen_on = {"expected_particles": args.expected_particles}
        report_counts([*picks.values()], outcomes, threshold, None)
        on = {"micrographs": [*picks], "diameter_px": diameter_px, **chosen_on}
        thresholds.keep_threshold(picker, threshold, on, [*picks.values()])
