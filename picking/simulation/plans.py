"""What a simulated data set is asked to be, and the plan of every micrograph of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from picking.errors import UserError
from picking.inputs.annotations import SPLITS
from picking.seeds import stream
from picking.simulation.junk import draw_kinds
from picking.simulation.proteins import PROTEINS, Protein

if TYPE_CHECKING:  # scipy is loaded when there is something to simulate, so that --help is quick
    from picking.simulation.ctf import Optics
    from picking.simulation.micrograph import Simulated

DEFOCUS_ANGSTROM = (9000.0, 25000.0)
DENSITY_SPREAD = (0.5, 1.4)  # of a micrograph, over the data set's
CARBON_FRACTION = 0.2  # of micrographs
CRYSTALS_PER_UM2 = 20.0


@dataclass(frozen=True)
class Arguments:
    """What a data set follows from."""

    n_train: int = 30  # micrographs
    n_val: int = 8
    n_test: int = 8
    size_px: Sequence[int] = (1024, 1024)  # height, width
    n_proteins: int = 3  # the first so many of `PROTEINS`
    proteins: Sequence[str] = ()  # these by name instead
    protein_ratio: float = 1.0  # micrographs of a protein over those of the next
    pixel_size_angstrom: float = 2.0
    snr: Sequence[float] = (0.03, 0.08)  # per raw pixel, drawn for each micrograph between these
    density: float = 1.0  # number of particles over the usual one
    annotation_margin: float = 0.6  # of edges without listed particles, in largest diameters
    n_unannotated: int = 0  # training micrographs without a CSV
    omit_test_json: bool = False  # the test split has CSVs only
    mrc: bool = False  # raw counts are written too
    junk: float = 0.0  # fraction of micrographs with film, foil, ice, aggregates or steps
    seed: int = 42

    @property
    def chosen(self) -> list[Protein]:
        """The proteins on the micrographs, the most frequent first."""
        by_name = {protein.name: protein for protein in PROTEINS}
        return [by_name[name] for name in self.proteins or list(by_name)[: self.n_proteins]]

    @property
    def margin_px(self) -> int:
        """Distance from the edges within which no particle is listed."""
        largest = max(protein.diameter_angstrom for protein in self.chosen)
        return math.ceil(self.annotation_margin * largest / self.pixel_size_angstrom)


@dataclass(frozen=True)
class MicrographPlan:
    """What one micrograph will show; the rest follows from the seed and the file's name."""

    split: str
    stem: str  # file name without suffix
    protein: Protein
    annotated: bool  # it has a CSV
    size_px: tuple[int, int]  # height, width
    pixel_size_angstrom: float
    defocus_angstrom: float
    snr: float  # per raw pixel
    density: float  # number of particles over the usual one
    carbon: bool  # the edge of the support film crosses the image
    n_crystals: int  # pieces of ice
    junk: tuple[str, ...]  # kinds, see picking/simulation/junk.py
    seed: int

    @property
    def optics(self) -> "Optics":
        """How it is taken."""
        from picking.simulation.ctf import Optics

        return Optics(self.pixel_size_angstrom, self.defocus_angstrom)


def plan_dataset(asked: Arguments) -> list[MicrographPlan]:
    """Return the plan of every micrograph, in the order of its file name.

    The proteins of a split are equally frequent, or in the proportions of ``protein_ratio``, in
    random order; defocus, signal-to-noise ratio, density, carbon and ice are drawn for each
    micrograph.
    """
    seed, (height, width) = asked.seed, asked.size_px
    lost = stream(seed, "unannotated").permutation(asked.n_train)[: asked.n_unannotated]
    area_um2 = height * width * (asked.pixel_size_angstrom * 1e-4) ** 2
    plans: list[MicrographPlan] = []
    for split in SPLITS:
        n = getattr(asked, f"n_{split}")
        order = stream(seed, "proteins", split).permutation(n)
        proteins = protein_indices(n, len(asked.chosen), asked.protein_ratio)[order]
        for index, protein in enumerate(proteins):
            stem = f"mic_{len(plans):05d}"
            rng, of_junk = stream(seed, "conditions", stem), stream(seed, "junk", stem)
            plans.append(
                MicrographPlan(
                    split=split,
                    stem=stem,
                    protein=asked.chosen[protein],
                    annotated=split != "train" or index not in lost,
                    size_px=(height, width),
                    pixel_size_angstrom=asked.pixel_size_angstrom,
                    defocus_angstrom=round(rng.uniform(*DEFOCUS_ANGSTROM), 1),
                    snr=math.exp(rng.uniform(*np.log(asked.snr))),
                    density=asked.density * rng.uniform(*DENSITY_SPREAD),
                    carbon=bool(rng.uniform() < CARBON_FRACTION),
                    n_crystals=int(rng.poisson(CRYSTALS_PER_UM2 * area_um2)),
                    junk=draw_kinds(of_junk) if of_junk.uniform() < asked.junk else (),
                    seed=seed,
                )
            )
    return plans


def protein_indices(n: int, n_proteins: int, ratio: float) -> np.ndarray:
    """Return n indices of proteins, each protein having ``ratio`` times as many as the next."""
    if ratio == 1:
        return np.arange(n) % n_proteins
    ends = np.cumsum(ratio ** -np.arange(n_proteins, dtype=float))
    return np.searchsorted(ends / ends[-1], (np.arange(n) + 0.5) / n)


def simulate_planned(plan: MicrographPlan) -> "Simulated":
    """Simulate the micrograph of a plan; the same plan gives the same one, bit for bit."""
    from picking.simulation.micrograph import simulate_micrograph

    return simulate_micrograph(
        plan.protein,
        plan.optics,
        plan.size_px,
        stream(plan.seed, "micrograph", plan.stem),
        snr=plan.snr,
        density=plan.density,
        carbon=plan.carbon,
        n_crystals=plan.n_crystals,
        junk=plan.junk,
        junk_rng=stream(plan.seed, "junk-micrograph", plan.stem) if plan.junk else None,
    )


def check_arguments(asked: Arguments, num_workers: int) -> None:
    """Raise `UserError` for what cannot be simulated; size_px may be (side,)."""
    unknown = [name for name in asked.proteins if name not in {p.name for p in PROTEINS}]
    if unknown or len(set(asked.proteins)) < len(asked.proteins):
        known = f"{PROTEINS[0].name} to {PROTEINS[-1].name}"
        raise UserError(
            f"--proteins {' '.join(asked.proteins)}: give each once, of {known}, or how many"
        )
    values = [value for key, value in vars(asked).items() if key != "proteins"]
    numbers = [n for v in values for n in (v if isinstance(v, Sequence) else [v])]
    if not all(math.isfinite(n) for n in numbers):
        raise UserError("the simulator's arguments must be finite numbers: correct them")
    n_micrographs = [asked.n_train, asked.n_val, asked.n_test]
    if min(n_micrographs) < 0 or sum(n_micrographs) == 0:
        raise UserError(f"numbers of micrographs {n_micrographs}: give none below 0 and one above")
    for flag, value, low, high in (
        ("proteins", asked.n_proteins, 1, len(PROTEINS)),
        ("protein-ratio", asked.protein_ratio, 1, 10),  # 1: equal numbers
        ("pixel-size", asked.pixel_size_angstrom, 0.5, 8),  # Å
        ("density", asked.density, 0, 10),
        ("junk", asked.junk, 0, 1),
        ("unannotated", asked.n_unannotated, 0, asked.n_train),
        ("seed", asked.seed, 0, math.inf),
        ("num-workers", num_workers, 0, math.inf),
    ):
        if not low <= value <= high:
            raise UserError(f"--{flag} {value}: give {low} to {high}")
    if len(asked.snr) != 2 or not 0 < asked.snr[0] <= asked.snr[1]:
        raise UserError(f"--snr {asked.snr}: give a low and a high value above 0, in this order")
    sides_px = asked.size_px
    if not 1 <= len(sides_px) <= 2 or not 64 <= min(sides_px) <= max(sides_px) <= 16384:
        raise UserError(f"--size {sides_px}: give a side, or height and width, of 64 to 16384")
    if asked.annotation_margin < 0 or 2 * asked.margin_px >= min(sides_px):
        raise UserError(
            f"--annotation-margin {asked.annotation_margin} is {asked.margin_px} px, which leaves "
            f"nothing of {min(sides_px)} px: lower it or raise --size"
        )
