"""Which micrograph to look at next, and why, in a word."""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from picking.inputs.labels_folder import IN_PART, UNTOUCHED

UNLIKE, TYPICAL, UNCERTAIN = "unlike the others", "typical of all", "most uncertain"
NOT_COMPLETE, NEXT_IN_LIST = "not complete yet", "next in the list"


class Proposal(NamedTuple):
    """The name of a micrograph, and why it is worth looking at."""

    name: str
    why: str


def propose(
    states: Mapping[str, str],
    features: Mapping[str, np.ndarray],
    uncertainty: Mapping[str, float],
    seen: Collection[str],
    current: str | None,
) -> Proposal | None:
    """Return what to look at next, None where nothing is left.

    Those that nobody has touched come first. With a network's scores the most uncertain one does;
    without, the one farthest from all that were looked at, as k-centre chooses (Gonzalez 1985;
    Sener and Savarese 2018), and at the very beginning the one nearest to all others.

    Args:
        states: of the micrographs that can be labelled, by name.
        features: of those whose thumbnails there are, by name.
        uncertainty: of those that a network has picked, by name; empty before the first round.
        seen: names of those that were looked at in this session, which come last.
        current: the one that is open, which is never proposed.
    """
    others = [name for name in states if name != current]
    untouched = [name for name in others if states[name] == UNTOUCHED]
    fresh = [name for name in untouched if name not in seen]
    if not fresh:
        again = untouched or [name for name in others if states[name] == IN_PART]
        return Proposal(again[0], NOT_COMPLETE) if again else None
    if scored := [name for name in fresh if name in uncertainty]:
        return Proposal(max(scored, key=lambda name: uncertainty[name]), UNCERTAIN)
    known = [name for name in fresh if name in features]
    if not known:
        return Proposal(fresh[0], NEXT_IN_LIST)
    looked_at = [n for n in features if n == current or n in seen or states.get(n) != UNTOUCHED]
    points = _standardised([features[name] for name in (*known, *looked_at)])
    own, centres = points[: len(known)], points[len(known) :]
    if not len(centres):
        return Proposal(known[int(_distances(own, own).mean(axis=1).argmin())], TYPICAL)
    return Proposal(known[int(_distances(own, centres).min(axis=1).argmax())], UNLIKE)


def _standardised(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Return features, (n, C), of which each has deviation 1 over the micrographs."""
    points = np.stack(rows).astype(np.float64)
    deviation = points.std(axis=0)
    return (points - points.mean(axis=0)) / np.where(deviation > 0, deviation, 1)


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return squared distances, (n, m), of (n, C) and (m, C)."""
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)
    return np.maximum(squares - 2 * a @ b.T, 0)
