"""Picks against the truth: one-to-one matching, precision, recall, F1, average precision.

Centres are (y, x) in px, in the JPEG's frame. What is counted:

- Picks and particles whose centre is nearer than the margin to an edge are left out before
  matching, and count neither way: a pick just outside does not find a particle just inside.
- A pick may find a particle within half that particle's diameter; one pick finds one particle.
- Picks are taken from the highest score down, and each is matched if earlier ones can be
  rearranged, without losing one, so that it finds a particle (an augmenting path). So at every
  threshold as many are matched as in the best one-to-one assignment of the picks above it, and one
  pass gives the whole curve. Precision, recall and F1 are what an optimal assignment gives;
  average precision is that of the ranking, particles never matched being missed at every threshold.
- Micro metrics are of all micrographs together, macro ones the mean over EMPIAR ids.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from picking.errors import UserError
from picking.formats.picks import Picks, select
from picking.metrics.rates import PRCurve, interval, micrograph_weights, plain, rates


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One micrograph's picks and particles inside the margin, and which are which.

    picks, truth: what counts. matched: int (n_picks,), the row in ``truth`` or -1 for a false pick.
    radius_px: (n_truth,), how far from a particle a pick may be. margin_scores: (k,), of the picks
    in the margin, which do not count. n_margin_truth: particles there.
    """

    picks: Picks
    truth: Picks
    matched: np.ndarray
    radius_px: np.ndarray
    margin_scores: np.ndarray
    n_margin_truth: int


# Matching


def match_picks(
    picks: Picks, truth: Picks, margin_px: float = 0.0, radius_px: float | None = None
) -> Outcome:
    """Match a micrograph's picks to its truth inside the margin.

    ``radius_px`` replaces half of each particle's diameter. Raises `UserError` when neither is
    known, or the size of the micrograph is not although there is a margin.
    """
    counts, is_true = _inside(picks, truth, margin_px), _inside(truth, picks, margin_px)
    margin_scores, n_margin_truth = picks.scores[~counts], int((~is_true).sum())
    picks, truth = select(picks, counts), select(truth, is_true)
    if radius_px is None and not np.isfinite(truth.diameters_px).all():
        raise UserError(f"{truth.name}: the truth states no diameters: give --diameter")
    radius = truth.diameters_px / 2
    if radius_px is not None:
        radius = np.full(len(radius), float(radius_px))
    matched = match(picks.centres_px, picks.scores, truth.centres_px, radius)
    return Outcome(picks, truth, matched, radius, margin_scores, n_margin_truth)


def match(
    picks_px: np.ndarray, scores: np.ndarray, truth_px: np.ndarray, radius_px: float | np.ndarray
) -> np.ndarray:
    """Match picks to particles one to one; return the particle of each pick or -1, int (n,).

    Args:
        picks_px: (n, 2).
        scores: (n,); equal ones, and NaN, in the order given, NaN last.
        truth_px: (m, 2).
        radius_px: how far a pick may be from its particle, for all or for each of the m.
    """
    from scipy.spatial import cKDTree

    matched = np.full(len(picks_px), -1)
    if not len(picks_px) or not len(truth_px):
        return matched
    near: list[list[int]] = [[] for _ in range(len(picks_px))]
    for j, rows in enumerate(cKDTree(picks_px).query_ball_point(truth_px, radius_px)):
        for i in rows:
            near[i].append(j)
    finder = np.full(len(truth_px), -1)  # the pick of each particle
    for i in np.argsort(-scores, kind="stable"):
        if not near[i]:
            continue
        distance = np.hypot(*(truth_px[near[i]] - picks_px[i]).T)
        near[i] = [near[i][k] for k in np.argsort(distance, kind="stable")]
        _augment(int(i), near, matched, finder)
    return matched


def _augment(start: int, near: list[list[int]], matched: np.ndarray, finder: np.ndarray) -> None:
    """Match pick ``start`` by the fewest rearrangements, if that unmatches none; in place.

    near: the particles in reach of each pick; matched, finder: particle of pick, pick of particle.
    """
    reached_from: dict[int, int] = {}  # particle -> the pick that it was first reached from
    queue = [start]
    for i in queue:  # which grows meanwhile
        for j in near[i]:
            if j in reached_from:
                continue
            reached_from[j] = i
            if finder[j] >= 0:
                queue.append(int(finder[j]))
                continue
            free = j
            while free >= 0:  # back to the start: each pick takes the particle it reached
                pick = reached_from[free]
                finder[free], matched[pick], free = pick, free, int(matched[pick])
            return


def _inside(picks: Picks, other: Picks, margin_px: float) -> np.ndarray:
    """Return what is not nearer than the margin to an edge, bool (n,); exactly at it is inside."""
    if not margin_px:
        return np.ones(len(picks.scores), dtype=bool)
    size_px = picks.size_px or other.size_px
    if size_px is None:
        raise UserError(
            f"{picks.name}: its size is unknown, so nothing tells what is inside the margin of "
            f"{margin_px:g} px: give its micrograph"
        )
    high = np.array(size_px) - margin_px
    y, x = ((picks.centres_px >= margin_px) & (picks.centres_px <= high)).T
    return y & x


# Metrics


def pick_metrics(
    outcomes: Sequence[Outcome],
    threshold: float | None = None,
    ids: Mapping[str, str | None] | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the metrics of picks against the truth, as plain floats, ints and None.

    At the top level those of all micrographs together: n_micrographs, n_picks, n_truth, n_found,
    precision, recall, f1, ap (None for picks without scores); ``threshold``; under ``best`` the
    threshold of the highest F1 on these very micrographs with precision, recall and f1, which is
    no fair measure of a picker unless the threshold was to be chosen here; under ``intervals``
    [low, high] of precision, recall and f1; n_margin_picks and n_margin_truth, what the margin
    leaves out; under ``per_micrograph`` what stands at the top level up to ap; with ``ids`` (EMPIAR
    id by name of the truth) the same under ``per_id``, and under ``macro`` the means over ids.

    Args:
        outcomes: of `match_picks`, one for each micrograph.
        threshold: picks that score less do not count; None: all count.
        ids: a micrograph without an id is of `unknown`.
        n_bootstrap: resamples of the micrographs for the 95% intervals.
        seed: of the resampling.
    """
    if threshold is not None and not has_scores(outcomes):
        raise UserError("the picks have no scores: leave the threshold out")
    counts = np.array([_counts(each, threshold) for each in outcomes]).reshape(-1, 3)
    resampled = rates(*(micrograph_weights(len(outcomes), n_bootstrap, seed) @ counts).T)
    best: dict[str, Any] | None = None
    if has_scores(outcomes) and any(len(each.matched) for each in outcomes):
        best_threshold = choose_threshold(pr_curve(outcomes))
        chosen = _summary(outcomes, best_threshold)
        best = {"threshold": best_threshold}
        best |= {name: chosen[name] for name in ("precision", "recall", "f1")}
    lowest = -np.inf if threshold is None else threshold
    report: dict[str, Any] = {
        **_summary(outcomes, threshold),
        "threshold": threshold,
        "n_margin_picks": sum(int((~(each.margin_scores < lowest)).sum()) for each in outcomes),
        "n_margin_truth": sum(each.n_margin_truth for each in outcomes),
        "best": best,
        "intervals": {name: interval(values) for name, values in resampled.items()},
        "per_micrograph": {each.truth.name: _summary([each], threshold) for each in outcomes},
    }
    if ids and any(ids.values()):
        by_id: dict[str, list[Outcome]] = {}
        for each in outcomes:
            by_id.setdefault(ids.get(each.truth.name) or "unknown", []).append(each)
        per_id = {name: _summary(group, threshold) for name, group in sorted(by_id.items())}
        report["per_id"] = per_id
        report["macro"] = {}
        for name in ("precision", "recall", "f1", "ap"):
            known = [one[name] for one in per_id.values() if one[name] is not None]
            report["macro"][name] = float(np.mean(known)) if known else None
    return report


def has_scores(outcomes: Sequence[Outcome]) -> bool:
    """Return whether every pick has a score, without which there is no ranking."""
    return all(np.isfinite(each.picks.scores).all() for each in outcomes)


def pr_curve(outcomes: Sequence[Outcome]) -> PRCurve:
    """Return the curve of all micrographs; particles never matched are missed throughout."""
    if not has_scores(outcomes):
        raise UserError("the picks have no scores, so there is no curve: evaluate them as they are")
    scores = np.concatenate([[], *(each.picks.scores for each in outcomes)])
    correct = np.concatenate([np.zeros(0, bool), *(each.matched >= 0 for each in outcomes)])
    return PRCurve.of(scores, correct, sum(len(each.truth.centres_px) for each in outcomes))


def choose_threshold(curve: PRCurve, precision: float | None = None) -> float:
    """Return the threshold of the highest F1, of equally good ones the highest.

    With ``precision`` it is the one that finds most particles at that precision or a higher one.
    It lies midway to the next lower score, see `PRCurve.below`. Raises `UserError` when there is
    no pick, or none reaches the precision.
    """
    if not len(curve.thresholds):
        raise UserError("no threshold can be chosen: there is no pick")
    if precision is None:
        return curve.best_f1_threshold()
    enough = np.flatnonzero(curve.precision >= precision)
    if not len(enough):
        raise UserError(
            f"no threshold has precision {precision:g}: the highest is "
            f"{curve.precision.max():.3f}; ask for less"
        )
    return curve.below(int(enough[np.argmax(curve.n_correct[enough])]))


def _counts(outcome: Outcome, threshold: float | None) -> tuple[int, int, int]:
    """Return how many are called, how many of those are matched, how many particles are."""
    called = np.ones(len(outcome.matched), dtype=bool)
    if threshold is not None:
        called = outcome.picks.scores >= threshold
    return (
        int(called.sum()),
        int((outcome.matched[called] >= 0).sum()),
        len(outcome.truth.centres_px),
    )


def _summary(outcomes: Sequence[Outcome], threshold: float | None) -> dict[str, Any]:
    counts = np.sum([(0, 0, 0), *(_counts(each, threshold) for each in outcomes)], axis=0)
    n_picks, n_found, n_truth = counts.tolist()
    return {
        "n_micrographs": len(outcomes),
        "n_picks": n_picks,
        "n_truth": n_truth,
        "n_found": n_found,
        **plain(rates(n_picks, n_found, n_truth)),
        "ap": pr_curve(outcomes).average_precision if has_scores(outcomes) else None,
    }
