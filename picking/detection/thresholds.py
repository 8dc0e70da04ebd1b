"""The threshold from which a candidate is a pick: chosen once, kept beside the checkpoint.

<checkpoint>.threshold.json holds it with the checksum of the weights that it was chosen for. The
checkpoint file stays unchanged, so --resume still works after a new choice.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from picking.detection import output
from picking.detection.picker import Picker
from picking.errors import UserError, warn
from picking.files import is_number, read_json, sha256, write_json
from picking.formats.picks import Picks
from picking.metrics.calibration import LEAST_F1, part
from picking.micrographs.problems import examples


def threshold_file(checkpoint: Path) -> Path:
    """Return where the threshold of a checkpoint is kept."""
    return checkpoint.with_name(f"{checkpoint.stem}.threshold.json")


def threshold_of(args: argparse.Namespace, picker: Picker) -> tuple[float | None, str]:
    """Return from which score a candidate is a pick, and where that number comes from.

    None where it follows from the scores of all micrographs, see `threshold_of_scores`.
    """
    kept = args.keeps_threshold
    begun = output.begun_threshold(args.output, picker.checksum) if kept else None
    if args.threshold != "auto":
        return float(args.threshold), "--threshold"
    if args.expected_particles is not None:
        return None, f"{args.expected_particles:g} picks a micrograph"
    if begun is not None:
        return begun, f"with which {args.output} was begun"
    if picker.is_general and not threshold_file(picker.path).exists():
        return None, "what parts their scores best"
    return kept_threshold(picker)


def threshold_of_scores(
    args: argparse.Namespace, picker: Picker, scores: Mapping[str, np.ndarray]
) -> float:
    """Return the threshold that the candidates' scores of each micrograph tell, and print it.

    scores: (n,) by the micrographs' names.

    That for as many picks as are expected; or, of the network that comes with the project and never
    saw such micrographs, the one that parts two kinds of candidates best.
    """
    if args.expected_particles is not None:
        threshold = threshold_for_count([*scores.values()], args.expected_particles)
        print(f"\n{args.expected_particles:g} picks a micrograph on average reach {threshold:.4f}")
        return threshold
    every = np.concatenate([[], *scores.values()])
    parted = part(every)
    if parted is None:
        threshold, source = kept_threshold(picker)
        print(f"\n{len(every):,} candidates are too few to tell a threshold: {source}")
        return threshold
    print(
        f"\nScores part best at {parted.threshold:.4f}: the picks are so many as two kinds of "
        "candidates, particles and not, would have it. Look at some (--overlay); where you know "
        "about how many there are on a micrograph, --expected-particles is better"
    )
    _warn_of_one_kind(scores, parted.f1, args.invert)
    return parted.threshold


def _warn_of_one_kind(scores: Mapping[str, np.ndarray], f1: float, is_inverted: bool) -> None:
    """Warn where scores hardly part into two kinds, on all micrographs together or on some.

    f1: that can be expected on all together.
    """
    if f1 < LEAST_F1:
        kind, advice = ("dark", "leave --invert out") if is_inverted else ("white", "--invert")
        warn(
            f"scores hardly part into two kinds (F1 to be expected {f1:.2f}), so picks may be "
            f"wrong: look at overlays. Are there particles, are they {kind} ({advice}), is "
            "--diameter right? Another diameter or grey wants another --output"
        )
        return
    parted = {name: part(of_one) for name, of_one in scores.items()}
    alone = [name for name, one in parted.items() if one is not None and one.f1 < LEAST_F1]
    if alone:
        warn(
            f"on {len(alone):,} of {len(scores):,} micrographs scores hardly part into two kinds "
            f"({examples(alone)}), as without particles, and they count in the threshold of all: "
            "look at their overlays, and go on without those that are empty (--resume)"
        )


def kept_threshold(picker: Picker) -> tuple[float, str]:
    """Return the threshold to pick with, and a word on where it comes from.

    The one that was chosen for picking, else that of training. Raises `UserError` when there is
    none, or when the one that was chosen belongs to other weights.
    """
    path, chosen = threshold_file(picker.path), "the checkpoint's, chosen for picking"
    if path.exists():
        kept = read_json(path)
        if not isinstance(kept, dict) or not is_number(kept.get("threshold")):
            raise UserError(f"{path} is damaged: choose the threshold again")
        if kept.get("checkpoint") != picker.checksum:
            raise UserError(
                f"the threshold in {path} was chosen for other weights than {picker.path} holds "
                "now: choose it again with --choose-threshold, give --threshold, or delete it"
            )
        if is_number(top := kept.get("top_fraction")):  # older versions did not say
            chosen += f" as the top {top:.0%}"
        return float(kept["threshold"]), chosen
    if "pick_threshold" in picker.thresholds:  # as older versions kept it
        return picker.thresholds["pick_threshold"], chosen
    if picker.calibration is not None:
        source = "where training expects the highest F1: --choose-threshold finds a better one"
        return picker.calibration.threshold, source
    if "threshold" in picker.thresholds:
        source = "the checkpoint's, of training: --choose-threshold finds a better one"
        return picker.thresholds["threshold"], source
    raise UserError(
        f"checkpoint {picker.path} has no threshold: give --threshold, or choose one on "
        "validation micrographs with --choose-threshold"
    )


def keep_threshold(
    picker: Picker, threshold: float, chosen_on: dict[str, Any], picks: Sequence[Picks]
) -> None:
    """Write the threshold beside the checkpoint, unless that was replaced meanwhile.

    picks: all candidates of each micrograph that it was chosen on; how many reach it is kept too.
    """
    if sha256(picker.path.read_bytes()) != picker.checksum:
        raise UserError(
            f"checkpoint {picker.path} was replaced while the threshold was chosen: choose it "
            "again once training is done"
        )
    path = threshold_file(picker.path)
    scores = np.concatenate([one.scores for one in picks])
    n_called, n_all = (len(some) / len(picks) for some in (scores[scores >= threshold], scores))
    kept = {
        "threshold": threshold,
        "top_fraction": n_called / max(n_all, 1),
        "picks_per_micrograph": n_called,
        "candidates_per_micrograph": n_all,
        "checkpoint": picker.checksum,
        "chosen_on": chosen_on,
    }
    write_json(path, kept)
    print(
        f"Threshold {threshold:.4f} is kept in {path}: {n_called:,.0f} of {n_all:,.0f} candidates "
        f"a micrograph reach it, the top {kept['top_fraction']:.0%}"
    )


def folder_to_lock(checkpoint: Path) -> Path:
    """Return the folder of the checkpoint's run, which training locks, or the checkpoint's own."""
    run = checkpoint.parent.parent
    return run if (run / "config.yaml").exists() else checkpoint.parent


def threshold_for_count(scores: Sequence[np.ndarray], expected_particles: float) -> float:
    """Return the threshold that leaves so many picks a micrograph on average.

    scores: of the candidates of each. Raises `UserError` when there are fewer candidates.
    """
    highest_first = np.sort(np.concatenate(scores))[::-1]
    n_wanted = max(1, round(expected_particles * len(scores)))
    if n_wanted > len(highest_first):
        raise UserError(
            f"--expected-particles {expected_particles:g}: there are only {len(highest_first):,} "
            f"candidates on {len(scores):,} micrographs: ask for fewer, check "
            "--diameter, or train longer"
        )
    return float(highest_first[n_wanted - 1])
