"""What a round's network proposes: candidates with scores, and one threshold for all of them."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from picking.detection.output import load_picks, scored
from picking.errors import UserError
from picking.evaluation.matching import match_picks, pick_metrics
from picking.files import is_number, read_json, write_json
from picking.formats.picks import Picks
from picking.inputs.labels_folder import COMPLETE, LEFT_OUT, UNTOUCHED
from picking.labelling.folder.actions import Labels
from picking.labelling.folder.derived import drawn
from picking.labelling.folder.history import History
from picking.labelling.rounds.plan import last_round, round_folder
from picking.micrographs.junk import in_junk

THRESHOLD = "threshold.json"
BINS = 50
LOWEST_SHOWN = 0.02  # candidates that score less are no proposals
MOST_SHOWN = 5000  # on a micrograph
SETTLED_S = 5.0  # after which a folder's time tells every file that came
COARSE_PX = 20  # of a particle's diameter in masks of junk for counts, a hundred times as fast
FEW_COMPLETE = 3  # micrographs, with fewer of which nothing is known of precision and recall


def not_marked(
    candidates: Picks,
    labels: Labels,
    size_px: tuple[int, int],
    diameter_px: float,
    scale: float = 1.0,
) -> np.ndarray:
    """Return which candidates nobody has decided on, bool (n,), whatever they score.

    Those within half a diameter of a mark are decided on, those in junk, and all where the
    micrograph, of (height, width) px, is complete or left out. scale: of the mask of junk, in px to
    one of the micrograph.
    """
    free = np.ones(len(candidates.scores), bool)
    if labels.state in (COMPLETE, LEFT_OUT) or not len(free):
        return ~free
    if labels.marks:
        from scipy.spatial import cKDTree

        marks = np.array([mark.centre_px for mark in labels.marks.values()])
        free &= cKDTree(marks).query(candidates.centres_px)[0] > diameter_px / 2
    if labels.junk:
        mask = np.asarray(drawn(labels.junk, size_px, scale)) > 0
        free &= ~in_junk(mask, candidates.centres_px, size_px)
    return free


def last_with_proposals(folder: Path) -> Path | None:
    """Return the last round of a folder of labels that has any proposals, None without one.

    One that failed, or has only begun, has none: then those of the round before still stand.
    """
    for k in range(last_round(folder) or 0, 0, -1):
        round_path = round_folder(folder, k)
        if next((round_path / "picks" / "scored").glob("*.npz"), None) is not None:
            return round_path
    return None


class Candidates(NamedTuple):
    """The candidates of a micrograph, and when their file was written."""

    picks: Picks
    time_ns: int


class Free(NamedTuple):
    """Which candidates nobody had decided on, bool (n,), as of these labels."""

    labels: Labels
    of: Candidates
    candidates: np.ndarray


class Proposals:
    """The candidates of one round, read as they come."""

    def __init__(self, round_path: Path, sizes_px: Mapping[str, tuple[int, int]]) -> None:
        self.round_path = round_path
        self._sizes_px = sizes_px
        self._known: dict[str, Candidates] = {}
        self._read_ns: int | None = None  # the time of the folder when it was read last
        self._histogram: list[int] | None = None
        self._numbers: dict[float, dict[str, int]] = {}  # by threshold, of the last one
        self._free: dict[str, Free] = {}

    def update(self) -> bool:
        """Read what was picked since; return whether there was any."""
        picks, changed = self.round_path / "picks", False
        try:
            folder_ns = (picks / "scored").stat().st_mtime_ns
        except OSError:
            return False
        # Thousands of files are looked at only where one was written, or may just have been
        if folder_ns == self._read_ns and time.time_ns() - folder_ns > SETTLED_S * 1e9:
            return False
        self._read_ns = folder_ns
        for name, size_px in self._sizes_px.items():
            path = scored(picks, name)
            try:
                time_ns = path.stat().st_mtime_ns
            except OSError:
                continue
            if name in self._known and self._known[name].time_ns == time_ns:
                continue
            try:
                found = load_picks(picks, name, size_px)
            except (UserError, OSError):  # it is being replaced
                continue
            self._known[name] = Candidates(found, time_ns)
            changed = True
        if changed:
            self._histogram, self._numbers = None, {}
        return changed

    def __len__(self) -> int:
        """Return how many micrographs were picked."""
        return len(self._known)

    def of(self, name: str) -> Picks | None:
        """Return the candidates of a micrograph, None where it was not picked."""
        return self._known[name].picks if name in self._known else None

    def as_json(self, name: str) -> list[list[float]]:
        """Return [y, x, score] of the best candidates of a micrograph, highest first."""
        picks = self.of(name)
        if picks is None:
            return []
        order = np.argsort(-picks.scores, kind="stable")[:MOST_SHOWN]
        order = order[picks.scores[order] >= LOWEST_SHOWN]
        rows = np.column_stack([picks.centres_px[order], picks.scores[order]])
        return [[round(y, 1), round(x, 1), round(score, 4)] for y, x, score in rows.tolist()]

    def histogram(self) -> list[int]:
        """Return how many candidates score in each of `BINS` bins from 0 to 1."""
        counts = self._histogram
        if counts is None:
            scores = [one.picks.scores for one in list(self._known.values())]
            counts = np.histogram(np.concatenate([[], *scores]), BINS, (0, 1))[0].tolist()
            self._histogram = counts
        return counts

    def numbers(self, threshold: float) -> dict[str, int]:
        """Return how many candidates of each micrograph reach the threshold."""
        counts = self._numbers.get(threshold)
        if counts is None:
            known = list(self._known.items())
            counts = {name: int((one.picks.scores >= threshold).sum()) for name, one in known}
            self._numbers = {threshold: counts}
        return counts

    def left(
        self, history: History, diameter_of: Callable[[str], float], threshold: float
    ) -> dict[str, int]:
        """Return how many of the `numbers` nobody has decided on (`not_marked`)."""
        counts = dict(self.numbers(threshold))
        for name, labels in list(history.labels.items()):
            if name not in self._known or labels.state == UNTOUCHED:
                continue
            candidates, before = self._known[name], self._free.get(name)
            # Labels are replaced when something is done to them
            if before is None or before.labels is not labels or before.of is not candidates:
                px = diameter_of(name)
                free = not_marked(
                    candidates.picks, labels, self._sizes_px[name], px, min(1.0, COARSE_PX / px)
                )
                before = self._free[name] = Free(labels, candidates, free)
            scores = candidates.picks.scores[before.candidates]
            counts[name] = int((scores >= threshold).sum())
        return counts

    def uncertainty(self) -> dict[str, float]:
        """Return how unsure the network is of a micrograph's candidates: mean of min(p, 1 - p)."""
        result = {}
        for name, one in list(self._known.items()):
            scores = one.picks.scores[one.picks.scores >= LOWEST_SHOWN]
            result[name] = float(np.minimum(scores, 1 - scores).mean()) if len(scores) else 0.0
        return result

    def threshold(self) -> float:
        """Return the threshold that was chosen on the page, else that of picking, else 0.5."""
        for path in (self.round_path / THRESHOLD, self.round_path / "picks" / "manifest.json"):
            if path.exists():
                try:
                    kept = read_json(path)
                except UserError:
                    continue
                if isinstance(kept, dict) and is_number(kept.get("threshold")):
                    return float(kept["threshold"])
        return 0.5

    def keep_threshold(self, threshold: Any) -> float:
        """Keep a threshold with the round; raises `UserError` for what is none."""
        if not is_number(threshold) or not 0 <= threshold <= 1:
            raise UserError("the threshold is a number from 0 to 1")
        write_json(self.round_path / THRESHOLD, {"threshold": float(threshold)})
        return float(threshold)

    def quality(
        self, history: History, diameter_of: Callable[[str], float], threshold: float
    ) -> dict[str, Any]:
        """Return precision and recall on complete micrographs, with intervals where these can be.

        The network may have learned from these: what it does elsewhere may be worse.
        """
        outcomes = []
        for name, one in list(self._known.items()):
            labels = history.of(name)
            if labels.state == COMPLETE:
                centres = np.array(labels.places_px(True)).reshape(-1, 2)
                unknown, size_px = np.full(len(centres), np.nan), one.picks.size_px
                truth = Picks(name, centres, unknown, unknown, size_px)
                outcomes.append(match_picks(one.picks, truth, radius_px=diameter_of(name) / 2))
        result: dict[str, Any] = {"n_complete": len(outcomes)}
        if len(outcomes) >= FEW_COMPLETE:
            metrics = pick_metrics(outcomes, threshold, n_bootstrap=500)
            result |= {key: metrics[key] for key in ("precision", "recall", "intervals")}
        return result
