"""--evaluate: read the truth, match it with the picks, print and write the metrics."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from picking.errors import UserError, warn
from picking.evaluation import matching
from picking.evaluation.report import (
    draw_outcome,
    draw_pr_curve,
    table_text,
    threshold_rows,
    write_table,
)
from picking.files import make_folder, write_json
from picking.formats.coordinates import match_names, read_picks
from picking.formats.names import TRUTH, few
from picking.formats.picks import Picks, known_as, merge_duplicates, select
from picking.inputs.paths import Paths, find_coordinates
from picking.inputs.placement import check_placement
from picking.micrographs.problems import UnreadableImage
from picking.micrographs.reading import read_micrograph

Sizes = dict[str, tuple[int, int]]  # (height, width) in px by file name

# What is done to coordinates by mistake: (y, x) is swapped, times a factor, or from the other edge
AS_READ = "as read"
CHANGES: dict[str, tuple[bool, float, tuple[int, int]]] = {
    AS_READ: (False, 1, (0, 0)),
    "turned upside down": (False, 1, (1, 0)),
    "mirrored left to right": (False, 1, (0, 1)),
    "turned by 180 degrees": (False, 1, (1, 1)),
    "with x and y swapped": (True, 1, (0, 0)),
    **{f"times {k}": (False, k, (0, 0)) for k in (2, 4, 8)},
    **{f"divided by {k}": (False, 1 / k, (0, 0)) for k in (2, 4, 8)},
}
MORE_FOUND, LEAST_FOUND = 0.25, 5  # a fraction and a number of particles that are no chance


def read_truth(
    patterns: Sequence[str],
    frame: str | None,
    paths: Paths,
    sizes_px: Sizes,
    diameter_px: float | None,
    allow_partial: bool = False,
    category: str | None = None,
    own_px: Mapping[str, float] = MappingProxyType({}),
    pixel_size_of: Callable[[str], float | None] = lambda name: None,
) -> list[Picks]:
    """Return the true particles, each once; where micrographs are given, of those alone.

    own_px: by micrograph, the diameter of particles of which the truth states none, where it is not
    that of the other micrographs. pixel_size_of: as `read_picks` takes it.

    Raises `UserError` when there are none, when names do not fit, unless ``allow_partial``, and
    when most of them fit the micrographs better upside down.
    """
    files = find_coordinates(patterns, allow_partial)
    truth = read_picks(
        files, sizes_px, frame, bool(sizes_px), what=TRUTH, allow_partial=allow_partial,
        category=category, pixel_size_of=pixel_size_of,
    )  # fmt: skip
    truth = [known_as(true, own_px[true.name]) if true.name in own_px else true for true in truth]
    if not truth:
        raise UserError(f"{few(map(str, files))}: no true particle is listed: give other files")
    without = [name for name in paths if name not in {true.name for true in truth}]
    if without:
        print(f"Left out for want of truth: {len(without):,} micrographs (e.g. {few(without)})")
    check_placement(truth, paths, files, frame, "--truth-frame", diameter_px, own_px)
    return merge_duplicates(truth, few(map(str, files)), diameter_px)


def require_margin(truth: Sequence[Picks], margin_px: int | None) -> None:
    """Raise `UserError` when a margin leaves nothing of a micrograph; call before it is picked."""
    for size_px in [true.size_px for true in truth if true.size_px is not None]:
        if margin_px is not None and 2 * margin_px >= min(size_px):
            raise UserError(
                f"--annotated-margin {margin_px} leaves nothing of micrographs of {size_px[1]} x "
                f"{size_px[0]} px: give a smaller one, or leave it out"
            )


def match_all(
    picks: Sequence[Picks],
    truth: Sequence[Picks],
    margin_px: int | None,
    diameter_px: float | None,
    all_picked: bool = False,
) -> tuple[list[matching.Outcome], int]:
    """Match the picks of every micrograph that has truth too; return the margin in px as well.

    margin_px: what is nearer to an edge does not count; None: the widest that no true particle
    enters, up to a diameter. diameter_px: of particles where the truth states none. all_picked: as
    `match_names` takes it.
    """
    pairs, without_picks, _ = match_names(picks, truth, all_picked)
    if without_picks and len(pairs) == len(truth):
        warn(
            f"{len(without_picks):,} of {len(truth):,} micrographs are not named by the picks "
            f"(e.g. {few(without_picks)}): they count as without picks, all their particles missed"
        )
    elif without_picks:
        print(
            f"Left out for want of picks: {len(without_picks):,} micrographs (e.g. "
            f"{few(without_picks)}); give --micrographs to count their particles as missed"
        )
    if margin_px is None:
        margin_px = _widest_margin(pairs, diameter_px)
    return [_match(some, true, margin_px, diameter_px) for some, true in pairs], margin_px


def _match(
    picks: Picks, truth: Picks, margin_px: int, diameter_px: float | None
) -> matching.Outcome:
    """Match by the diameters that the truth states, by the one given only where it states none."""
    radius_px = None
    if diameter_px is not None and not np.isfinite(truth.diameters_px).all():
        radius_px = diameter_px / 2
    return matching.match_picks(picks, truth, margin_px, radius_px)


def _widest_margin(pairs: Sequence[tuple[Picks, Picks]], diameter_px: float | None) -> int:
    """Return the widest margin that no true particle enters, in px; 0 where a size is unknown.

    It is a diameter at most, those that the truth states or the one given: a few particles may be
    far from all edges by chance, and all false picks would be in the margin.
    """
    centres = [(t.centres_px, p.size_px or t.size_px) for p, t in pairs if len(t.centres_px)]
    known = [(c, size) for c, size in centres if size is not None]
    if not known or len(known) < len(centres):
        return 0
    widest_px = int(min(min(c.min(), (np.array(size) - c).min()) for c, size in known))
    stated = np.concatenate([t.diameters_px for _, t in pairs])
    stated = stated[np.isfinite(stated)]
    most_px = int(np.median(stated) if len(stated) else diameter_px or 0)
    if widest_px > most_px:
        print(
            f"The margin is a diameter, {most_px} px; no true particle is nearer than {widest_px} "
            f"px to an edge: give --annotated-margin {widest_px} if that is what annotators left"
        )
    return min(widest_px, most_px)


def report_counts(
    picks: Sequence[Picks],
    outcomes: Sequence[matching.Outcome],
    threshold: float | None,
    output: Path | None,
) -> None:
    """Print the counts against the threshold and write them to thresholds.csv in ``output``."""
    rows = threshold_rows(picks, outcomes, threshold)
    print(table_text(rows, threshold))
    if output is not None:
        write_table(rows, output / "thresholds.csv")


def report_quality(
    picks: Sequence[Picks],
    outcomes: Sequence[matching.Outcome],
    margin_px: int,
    threshold: float | None,
    paths: Paths,
    output: Path | None,
) -> None:
    """Print precision, recall, F1 and AP; with ``output`` write them and their curve there."""
    ids = {name: path.parent.name for name, path in paths.items() if path.parent.name.isdigit()}
    report = matching.pick_metrics(outcomes, threshold, ids)
    ranked = matching.has_scores(outcomes) and any(len(one.scores) for one in picks)
    if ranked:
        report_counts(picks, outcomes, threshold, output)
    at = "all picks" if threshold is None else f"threshold {threshold:.4f}"
    print(f"\n{report['n_micrographs']} micrographs, inside a margin of {margin_px} px, {at}:")
    n_picks, n_truth = report["n_margin_picks"], report["n_margin_truth"]
    if margin_px:
        print(f"  in the margin, not counted: {n_picks:,} picks, {n_truth:,} true particles")
    for name in ("precision", "recall", "f1", "ap"):
        value, interval = report[name], report["intervals"].get(name)
        print(f"  {name:<10}", "-" if value is None else f"{value:.3f}", end="")
        print(f"  [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
    if not report["n_picks"]:
        tell_of_no_picks(picks, threshold)
    elif report["n_truth"]:
        _tell_of_mismatch(outcomes, threshold, report["n_found"])
    if output is None:
        return
    write_json(output / "evaluation.json", {"margin_px": margin_px, **report})
    if ranked:
        draw_pr_curve(matching.pr_curve(outcomes), output / "pr_curve.png")


def tell_of_no_picks(candidates: Sequence[Picks], threshold: float | None) -> None:
    """Say so where not even one candidate a micrograph reaches the threshold, and what to do."""
    scores = np.concatenate([[], *(one.scores for one in candidates)])
    if not len(scores):
        warn("there is no candidate at all: check the files, --diameter and the contrast")
    n_picks = 0 if threshold is None else int((scores >= threshold).sum())
    if threshold is None or n_picks >= len(candidates) or not len(scores):
        return
    reach = f"only {n_picks:,} candidates reach" if n_picks else "no candidate reaches"
    warn(
        f"{reach} the threshold {threshold:.4g} on {len(candidates):,} micrographs: of "
        f"{len(scores):,} the highest score is {scores.max():.4g}; check --diameter; the table "
        "says how many picks a lower --threshold gives, and with a checkpoint --choose-threshold "
        "or --expected-particles finds one"
    )


def _tell_of_mismatch(
    outcomes: Sequence[matching.Outcome], threshold: float | None, n_found: int
) -> None:
    """Say so if the picks would find far more particles mirrored, swapped or scaled.

    Where none is found and that is no explanation either, say how far the nearest pick is.
    """
    lowest = -math.inf if threshold is None else threshold
    shown = [
        (one, select(one.picks, ~(one.picks.scores < lowest)).centres_px)
        for one in outcomes
        if len(one.truth.centres_px)
    ]
    n_truth = sum(len(one.truth.centres_px) for one, _ in shown)
    found = {}
    for name, (swaps, factor, from_other) in CHANGES.items():
        distances = []
        for one, centres in shown:
            size_px = one.picks.size_px or one.truth.size_px or (0, 0)
            changed = np.abs(centres * factor - np.array(size_px) * from_other)
            changed = changed[:, ::-1] if swaps else changed
            distances.append(_nearest(one.truth.centres_px, changed))
        n = sum(
            int((d <= one.radius_px).sum()) for d, (one, _) in zip(distances, shown, strict=True)
        )
        found[name] = n / n_truth
        if name == AS_READ:
            nearest_px = min(float(d.min()) for d in distances)
    likely = max(found, key=found.__getitem__)
    no_chance = max(found[AS_READ] + MORE_FOUND, 2 * found[AS_READ], LEAST_FOUND / n_truth)
    if found[likely] >= no_chance:
        warn(
            f"{found[AS_READ]:.0%} of the true particles have a pick within their radius, but "
            f"{found[likely]:.0%} would if the picks were {likely}: check --frame and "
            "--truth-frame, and whether picks and truth are of the same micrographs and scale"
        )
    elif not n_found:
        warn(
            "no pick lies within the radius of a true particle, the nearest is "
            f"{nearest_px:.0f} px from one: check --frame, --truth-frame, the scale of both and "
            "whether they are of the same micrographs"
        )


def _nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return how far the nearest of the others, (m, 2), is from each point, (n, 2): float (n,)."""
    from scipy.spatial import cKDTree

    return cKDTree(others).query(points)[0] if len(others) else np.full(len(points), np.inf)


def draw_outcomes(
    outcomes: Sequence[matching.Outcome],
    threshold: float | None,
    diameter_px: float | None,
    paths: Paths,
    folder: Path,
    junk_of: Callable[[Path], np.ndarray | None] = lambda path: None,
) -> None:
    """Draw true, false and missed picks over each micrograph that is given, a PNG each.

    diameter_px: as `match_all` had it. junk_of: returns where a micrograph's junk is.
    """
    make_folder(folder)
    for outcome in outcomes:
        name = outcome.truth.name
        if name in paths:
            called = outcome.picks.scores >= (-math.inf if threshold is None else threshold)
            # Matched anew without the picks below the threshold, which may hold other particles
            shown = _match(select(outcome.picks, called), outcome.truth, 0, diameter_px)
            try:
                path, junk = folder / f"{name}.png", junk_of(paths[name])
                draw_outcome(read_micrograph(paths[name]), shown, path, junk)
            except UnreadableImage as error:
                warn(f"no overlay: {error}")
