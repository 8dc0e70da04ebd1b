"""F1 against clicks: the user of the labelling page, played against known truth.

    root=../shared/data/ribosome-10028      # any set of CryoTransformer's layout
    OMP_NUM_THREADS=1 python -m benchmarks.clicks --data-root $root --seeds 0 1 2
    # Of the results that are there; the lines of all labels are what benchmarks.picking had
    python -m benchmarks.clicks --figure docs/clicks.png --all-labels ribosome-10028=0.868

The annotator clicks a particle's centre with a scatter of 5% of the diameter, overlooks one in
twenty, and pays 1 for each particle added, proposal accepted or rejected, and 10 for each
micrograph opened, which shows at most `SHOWN` places to decide on (corrected: a box of `BOX`).
Whenever a part of --budgets is spent, a network learns from all labels, from where --start stands,
and its picks are the next proposals. --start: `general`, so that there are proposals before any
click, or `none`.

Ways to spend clicks:

    random     particles at random on random micrographs
    whole      every particle of random micrographs, which are complete then: the rest is negative
    score      proposals on random micrographs, the highest scores first: accepted or rejected
    uncertain  the same, those nearest to a probability of 0.5 first
    false      the same, those the network rates lowest among its picks first
    apart      as uncertain, on the micrographs whose picks are least certain on average
    corrected  all proposals in a box of random micrographs accepted at once, for 1, once the false
               ones are rejected; then the particles that are missed there are added

F1 is on --split at the threshold of the highest F1 on val; at the threshold that training tells,
which needs no truth, it is there too. What is finished is read, not run again.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from benchmarks import clicks_figure
from benchmarks.common import ROOT, new_parser, overrides, print_header, print_row, script
from benchmarks.picking import parting_of, paths_of, pick, pick_and_evaluate
from benchmarks.real_sets import RealSet
from picking.detection.picker import load_picker
from picking.detection.thresholds import kept_threshold
from picking.errors import UserError, run_script
from picking.files import make_folder, read_json, write_json
from picking.formats.coordinates import write_picks
from picking.formats.picks import Micrograph, Picks
from picking.seeds import stream

FOLDER = ROOT / "experiments" / "clicks"
SCATTER, OVERLOOKED = 0.05, 0.05
OPENING, SHOWN, BOX = 10, 25, 100
WAYS = ("random", "whole", "score", "uncertain", "false", "apart", "corrected")


@dataclasses.dataclass
class Sheet:
    """What is known and was said of one micrograph.

    left: indices of particles that are not labelled and were not overlooked. picks_px and
    negatives_px: what was clicked, (y, x). opened: somebody looked at it; complete: at all of it.
    """

    truth: Micrograph
    left: list[int]
    picks_px: list[np.ndarray] = dataclasses.field(default_factory=list)
    negatives_px: list[np.ndarray] = dataclasses.field(default_factory=list)
    opened: bool = False
    complete: bool = False


class Annotator:
    """Plays the user; the seed decides what is overlooked, opened, and where clicks fall."""

    def __init__(self, micrographs: list[Micrograph], diameter_px: float, seed: int):
        self.rng, self.diameter_px = stream(seed, "annotator"), diameter_px
        self.paid = 0
        self.sheets = {}
        for one in micrographs:
            seen = self.rng.uniform(size=len(one.centres_px)) >= OVERLOOKED
            order = self.rng.permutation(np.flatnonzero(seen))
            self.sheets[one.path.stem] = Sheet(one, order.tolist())

    def spend(self, way: str, budget: int, candidates: dict[str, Picks], half: float) -> None:
        """Click until so much is paid in all; candidates: of the last network, by stem."""
        if way not in ("random", "whole") and not candidates:
            way = "random"  # nothing is proposed yet
        while self.paid + OPENING < budget:
            stem = self._next(way, candidates, half)
            if stem is None:
                return  # all is labelled
            self.paid += OPENING
            sheet, left = self.sheets[stem], budget - self.paid
            sheet.opened = True
            if way in ("random", "whole"):
                n = min(left, len(sheet.left), SHOWN if way == "random" else left)
                for index in [sheet.left.pop() for _ in range(n)]:
                    self._add(sheet, sheet.truth.centres_px[index])
                sheet.complete = way == "whole" and not sheet.left
            elif way == "corrected":
                self._correct(sheet, self._ordered(way, sheet, candidates[stem], half), left)
            else:
                self._decide(sheet, self._ordered(way, sheet, candidates[stem], half), left)

    def _next(self, way: str, candidates: dict[str, Picks], half: float) -> str | None:
        """Return which micrograph to open, None where nothing is left."""
        if way in ("random", "whole"):
            open_ones = [stem for stem, sheet in self.sheets.items() if sheet.left]
        else:
            open_ones = [
                stem for stem, sheet in self.sheets.items()
                if len(self._ordered(way, sheet, candidates[stem], half))
            ]  # fmt: skip
        if not open_ones:
            return None
        open_ones = [stem for stem in open_ones if not self.sheets[stem].opened] or open_ones
        if way == "apart":
            return min(open_ones, key=lambda stem: _certainty(candidates[stem], half))
        return open_ones[self.rng.integers(len(open_ones))]

    def _ordered(self, way: str, sheet: Sheet, picks: Picks, half: float) -> np.ndarray:
        """Return the candidates of a sheet that nobody has decided on, (n, 2), in a way's order."""
        called = picks.scores >= half if way != "uncertain" else picks.scores >= half / 4
        rows = np.flatnonzero(called)
        decided = np.array([*sheet.picks_px, *sheet.negatives_px]).reshape(-1, 2)
        if len(decided):
            near = cKDTree(decided).query(picks.centres_px[rows])[0] < self.diameter_px / 2
            rows = rows[~near]
        scores = picks.scores[rows]
        key = {"score": -scores, "false": scores}.get(way, abs(scores - half))
        return picks.centres_px[rows[np.argsort(key, kind="stable")]]

    def _decide(self, sheet: Sheet, places_px: np.ndarray, left: int) -> None:
        """Accept or reject proposals in this order, as many as are shown and can be paid."""
        truth_px, taken = sheet.truth.centres_px, set()
        for place in places_px[: min(SHOWN, left)]:
            self.paid += 1
            distance = np.linalg.norm(truth_px - place, axis=1)
            index = int(distance.argmin()) if len(distance) else -1
            if index >= 0 and distance[index] < self.diameter_px / 2 and index not in taken:
                taken.add(index)
                sheet.picks_px.append(place)
                if index in sheet.left:
                    sheet.left.remove(index)
            else:
                sheet.negatives_px.append(place)

    def _correct(self, sheet: Sheet, places_px: np.ndarray, left: int) -> None:
        """Reject what is false in a box, accept the rest at once, add what is missed.

        The box lies about a random one of ``places_px``. It holds `BOX` of them, all if there are
        no more, and fewer where correcting so many could not be paid.
        """
        truth_px, at = sheet.truth.centres_px, places_px[self.rng.integers(len(places_px))]
        reach = abs(places_px - at).max(axis=1)
        order = np.argsort(reach, kind="stable")
        # One particle has one proposal, the nearest
        found = np.full(len(places_px), -1)
        away, of = cKDTree(truth_px).query(places_px)
        for k in np.argsort(away):
            if away[k] < self.diameter_px / 2 and of[k] not in found:
                found[k] = of[k]
        is_false = (found < 0) & (self.rng.uniform(size=len(found)) >= OVERLOOKED)
        missed = [k for k in sheet.left if k not in found]
        for n in range(min(BOX, len(order)), 0, -1):
            inside, side = order[:n], reach[order[n - 1]]
            if is_all := n == len(order):
                side = np.inf
            added = [k for k in missed if abs(truth_px[k] - at).max() <= side]
            if 1 + is_false[inside].sum() + len(added) <= left:
                break
        else:
            self.paid += left  # not even one: what is left is of no use
            return
        self.paid += 1 + int(is_false[inside].sum())
        sheet.negatives_px += list(places_px[inside[is_false[inside]]])
        sheet.picks_px += list(places_px[inside[~is_false[inside]]])
        for k in added:
            self._add(sheet, truth_px[k])
        sheet.left = [k for k in sheet.left if k not in found[inside] and k not in added]
        sheet.complete = is_all

    def _add(self, sheet: Sheet, centre_px: np.ndarray) -> None:
        """Click a particle."""
        self.paid += 1
        sheet.picks_px.append(centre_px + self.rng.normal(0, SCATTER * self.diameter_px, 2))

    @property
    def n_with_picks(self) -> int:
        """Return on how many micrographs particles were clicked."""
        return sum(bool(sheet.picks_px) for sheet in self.sheets.values())

    @property
    def counts(self) -> dict[str, int]:
        """Return how much was said."""
        sheets = self.sheets.values()
        return {
            "picks": sum(len(sheet.picks_px) for sheet in sheets),
            "negatives": sum(len(sheet.negatives_px) for sheet in sheets),
            "complete": sum(sheet.complete for sheet in sheets),
            "micrographs": sum(bool(s.picks_px or s.negatives_px) for s in sheets),
        }


def _certainty(picks: Picks, half: float) -> float:
    """Return the mean score of what would be picked."""
    called = picks.scores[picks.scores >= half]
    return float(called.mean()) if len(called) else 0.0


def main() -> None:
    """Play every way and seed that is missing; print a row for each part of the budget."""
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--data-root", type=Path, default=Path("../shared/data/ribosome-10028"))
    add("--split", choices=("val", "test"), default="val", help="to report on")
    add("--seeds", nargs="+", type=int, default=[0])
    add("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    add("--budgets", nargs="+", type=int, default=[50, 100, 150])
    add("--start", default="general", metavar="general|none|FILE", help="weights to begin with")
    add("--set", nargs="+", default=[], help="config values of the training runs")
    add("--name", default="", help="tells runs with other settings apart")
    add("--figure", type=Path, help="draw the results that are there, and end")
    add("--all-labels", nargs="+", default=[], metavar="SET=F1", help="--figure: dotted lines")
    args = parser.parse_args()
    if args.figure:
        of_all = dict(told.split("=") for told in args.all_labels)
        clicks_figure.draw(FOLDER, args.figure, {name: float(f1) for name, f1 in of_all.items()})
        return
    real = RealSet(args.data_root.resolve())
    print_header(
        "way", "seed", "clicks", "picks", "no particle", "complete", "val F1", "F1", "AP", "at own"
    )
    for way in args.ways:
        for seed in args.seeds:
            for row in play(args, real, way, seed):
                print_row(
                    way, seed, row["paid"], row["picks"], row["negatives"], row["complete"],
                    *(f"{row[key]:.3f}" for key in ("val_f1", "f1", "ap", "f1_at_own")),
                )  # fmt: skip


def play(args: argparse.Namespace, real: RealSet, way: str, seed: int) -> list[dict[str, Any]]:
    """Return a result of the network that starts, if any, and for each part of the budget."""
    folder = FOLDER / real.name / f"{way}{args.name}_seed{seed}"
    path = folder / f"results_{args.split}.json"
    make_folder(folder)
    settings = {"budgets": args.budgets, "start": args.start, "set": args.set}
    if path.exists():
        there = read_json(path)
        if there["settings"] != settings:
            raise UserError(f"{path} was made with {there['settings']}: give a --name")
        return there["rows"]
    annotator = Annotator(list(real.train), real.diameter_px, seed)
    network = None if args.start == "none" else Path(args.start)
    rows, candidates, half = [], {}, 0.5
    at_start = FOLDER / real.name / f"start{args.name}"  # its picks are the same for all
    if network is not None:
        rows.append(row_of(real, args.split, annotator, at_start, network, None))
    for k, budget in enumerate(args.budgets):
        step = folder / f"round_{k}"
        if way not in ("random", "whole") and network is not None:
            is_start = network == Path(args.start)
            proposed = at_start if is_start else folder / f"proposed_{k}"
            candidates, half = candidates_of(real, proposed, network, is_start)
        annotator.spend(way, budget, candidates, half)
        # Picks on one micrograph are no labels yet: then the next proposals are the last network's
        own = None
        if network is None or annotator.n_with_picks > 1:
            network = learn(args, real, annotator, step, seed)
            own = threshold_of(network)
        rows.append(row_of(real, args.split, annotator, step, network, own))
    write_json(path, {"set": real.name, "way": way, "settings": settings, "rows": rows})
    return rows


def row_of(
    real: RealSet, split: str, annotator: Annotator, folder: Path, network: Path, own: float | None
) -> dict[str, Any]:
    """Return what was paid so far, for what, and how well a network picks, at ``own`` too."""
    result = pick_and_evaluate(real, split, folder, network, own)
    kept = ("val_f1", "f1", "ap", "precision", "recall", "f1_at_expected")
    return {
        "paid": annotator.paid,
        **annotator.counts,
        **{key: result[key] for key in kept},
        "f1_at_own": result["f1_at_half"],
    }


def candidates_of(
    real: RealSet, folder: Path, network: Path, is_start: bool
) -> tuple[dict[str, Picks], float]:
    """Return a network's candidates on train, by stem, and the score of an even chance.

    is_start: it never saw such micrographs, so that their scores tell it, as in picking.
    """
    candidates, half = pick(real, "train", folder, network, 0.5), threshold_of(network)
    if is_start:
        half = parting_of(candidates, half)
    return candidates, half


def threshold_of(network: Path) -> float:
    """Return the threshold that training tells."""
    return kept_threshold(load_picker(network, torch.device("cpu")))[0]


def learn(
    args: argparse.Namespace,
    real: RealSet,
    annotator: Annotator,
    folder: Path,
    seed: int,
) -> Path:
    """Learn from all that was said, from where --start stands; return the network."""
    files = folder / "labels"
    sheets = list(annotator.sheets.values())
    places = {
        "picks": [(s.truth, s.picks_px) for s in sheets if s.picks_px],
        "none": [(s.truth, s.negatives_px) for s in sheets if s.negatives_px],
    }
    for name, listed in places.items():
        make_folder(files / name)
        unknown = [np.full(len(at), np.nan) for _, at in listed]
        write_picks(
            files / name,
            [Picks(one.name, np.array(at), nan, np.full(len(at), real.diameter_px), one.size_px)
             for (one, at), nan in zip(listed, unknown, strict=True)],
            ["star"], one_file=True,
        )  # fmt: skip
    more: list[object] = (
        ["--not-particles", files / "none" / "picks.star"] if places["none"] else []
    )
    if complete := [sheet.truth.name for sheet in sheets if sheet.complete]:
        (files / "complete.txt").write_text("\n".join(complete) + "\n")
        more += ["--complete", files / "complete.txt"]
    script(
        "preprocess_coco_full_dataset.py", "--labels", files / "picks" / "picks.star",
        "--micrographs", *paths_of(real, "train"), "--diameter", f"{real.diameter_px:g}px",
        "--expected-particles", real.expected, "--output-dir", folder / "store", "--seed", seed,
        "--num-workers", 0, *more,
    )  # fmt: skip
    config, start = "configs/pu_few_labels.yaml", []
    if args.start != "none":
        config, start = "configs/pu_from_general.yaml", [f"training.initial_weights={args.start}"]
    script(
        "train_pu_fixed_full.py", "--config", config, "--resume", "--exp-name", "run",
        "--experiments-dir", folder, "--data-dir", folder / "store", "--device", "cpu",
        *overrides(f"training.seed={seed}", *start, *args.set),
    )  # fmt: skip
    return folder / "run" / "checkpoints" / "best_model.pt"


if __name__ == "__main__":
    run_script(main)
