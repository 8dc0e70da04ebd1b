"""A set of real micrographs: what follows from it, labels drawn from it, picks held against it.

Sets are laid out as CryoTransformer's: {train,val,test}/ with annotations. Size, diameter, margin
and the number of particles expected come from train alone, so that nothing of val or test enters
training.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT
from picking.detection.thresholds import threshold_for_count
from picking.errors import UserError
from picking.evaluation.matching import (
    Outcome,
    choose_threshold,
    match_picks,
    pick_metrics,
    pr_curve,
)
from picking.formats.coordinates import write_picks
from picking.formats.picks import Micrograph, Picks, select
from picking.inputs import annotations
from picking.micrographs.reading import image_size
from picking.seeds import stream

FOLDER = ROOT / "experiments" / "picking_benchmark"
PARTICLE_PX = 20  # as wide as networks see particles
TILE_PX, TILE_STEP_PX = 128, 16  # side of a U-Net's tiles, about; what its levels divide
METRICS = ("precision", "recall", "f1", "f1_at_half", "f1_at_expected", "f1_whole_frame", "ap")


@dataclasses.dataclass(frozen=True)
class RealSet:
    """A data set's folder.

    asked_margin_px: how far from an edge nobody annotated; None: as far as no particle of train is.
    """

    root: Path
    asked_margin_px: int | None = None

    @property
    def name(self) -> str:
        """The set's name, that of its folder."""
        return self.root.name

    @property
    def folder(self) -> Path:
        """Where all of the benchmark's files of this set are."""
        return FOLDER / self.name

    @cached_property
    def train(self) -> Sequence[Micrograph]:
        """Its micrographs to train on."""
        return self.micrographs("train")

    def micrographs(self, split: str) -> Sequence[Micrograph]:
        """Return the annotated micrographs of a split, their sizes known."""
        read = annotations.read_split(self.root, split).micrographs
        return [dataclasses.replace(m, size_px=image_size(m.path)) for m in read]

    def truth_files(self, split: str) -> list[Path]:
        """Return the files that list a split's particles: its COCO JSON or, without one, CSVs."""
        coco = self.root / "annotations" / f"instances_{split}.json"
        csvs = self.root / annotations.CSV_FOLDER
        return [coco] if coco.exists() else [
            csvs / f"{m.path.stem}.csv" for m in self.micrographs(split)
        ]  # fmt: skip

    @cached_property
    def diameter_px(self) -> float:
        """The particles' diameter."""
        return float(np.median(np.concatenate([m.diameters_px for m in self.train])))

    @cached_property
    def expected(self) -> float:
        """Particles annotated on a micrograph of train, on average."""
        return sum(len(m.centres_px) for m in self.train) / len(self.train)

    @cached_property
    def margin_px(self) -> int:
        """The margin that is not counted, as ``--annotated-margin auto`` of training has it."""
        if self.asked_margin_px is not None:
            return self.asked_margin_px
        return int(
            min(np.minimum(m.centres_px, m.size_px - m.centres_px).min() for m in self.train)
        )

    @property
    def tiles(self) -> tuple[int, int]:
        """Into how many tiles a U-Net's micrograph is cut each way, and their side in px."""
        return tiles_of(max(max(m.size_px) for m in self.train), self.diameter_px)


def tiles_of(longest_px: float, diameter_px: float) -> tuple[int, int]:
    """Return how many tiles of about `TILE_PX` show particles about `PARTICLE_PX` wide; their side.

    longest_px: side of the micrograph.
    """
    side_px = longest_px * PARTICLE_PX / diameter_px
    n = max(1, round(side_px / TILE_PX))
    return n, max(1, round(side_px / n / TILE_STEP_PX)) * TILE_STEP_PX


def draw_labels(
    micrographs: Sequence[Micrograph], split: str, n_labels: int, seed: int
) -> list[Micrograph]:
    """Return the micrographs with so many of their particles, drawn over all of them by the seed.

    With one seed, fewer labels are some of the more.
    """
    owner = np.repeat(np.arange(len(micrographs)), [len(m.centres_px) for m in micrographs])
    if n_labels > len(owner):
        raise UserError(f"{n_labels} labels of {split} are asked for, which has {len(owner)}")
    chosen = np.zeros(len(owner), dtype=bool)
    chosen[stream(seed, "labels", split).permutation(len(owner))[:n_labels]] = True
    drawn = [select(m, chosen[owner == i]) for i, m in enumerate(micrographs)]
    return [m for m in drawn if len(m.centres_px)]


def write_labels(real: RealSet, folder: Path, n_labels: Mapping[str, int], seed: int) -> None:
    """Write so many labels of each split to picks.star in the folder."""
    drawn = [
        m for split, n in n_labels.items() for m in draw_labels(
            real.micrographs(split), split, n, seed
        )
    ]  # fmt: skip
    write_picks(folder, drawn, ["star"], one_file=True)


def match_all(
    candidates: Mapping[str, Picks], truth: Sequence[Micrograph], margin_px: int
) -> list[Outcome]:
    """Match the candidates of each micrograph, by its file's stem, to its particles."""
    return [match_picks(candidates[m.path.stem], m, margin_px) for m in truth]


def evaluate(
    real: RealSet, split: str, val: Mapping[str, Picks], picked: Mapping[str, Picks], half: float
) -> dict[str, Any]:
    """Return `METRICS` of a split at the threshold of the highest F1 on val, and more of the same.

    f1_at_half: F1 at the score that stands for a probability of 0.5. f1_at_expected: where as many
    are picked inside the margin as train's micrographs have particles on average; None with fewer
    candidates. f1_whole_frame: where picks in the margin count, as false ones.

    Args:
        real: the set.
        split: val or test.
        val: candidates at any score on val, by the stem of the micrograph's file.
        picked: the same of ``split``.
        half: the score that stands for a probability of 0.5.
    """
    on_val = match_all(val, real.micrographs("val"), real.margin_px)
    threshold = choose_threshold(pr_curve(on_val))
    truth = real.micrographs(split)
    outcomes = match_all(picked, truth, real.margin_px)

    def f1_at(lowest: float, outcomes: list[Outcome] = outcomes) -> float:
        return pick_metrics(outcomes, lowest, n_bootstrap=0)["f1"]

    try:
        at_expected = f1_at(
            threshold_for_count([one.picks.scores for one in outcomes], real.expected)
        )
    except UserError:
        at_expected = None
    metrics = pick_metrics(outcomes, threshold)
    return {
        **{name: metrics[name] for name in ("precision", "recall", "f1", "ap", "intervals")},
        "threshold": threshold,
        "val_f1": f1_at(threshold, on_val),
        "f1_at_half": f1_at(half),
        "f1_at_expected": at_expected,
        "f1_whole_frame": f1_at(threshold, match_all(picked, truth, 0)),
        "margin_px": real.margin_px,
    }
