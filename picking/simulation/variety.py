"""Micrographs that have nothing in common: each of a structure, optics and ice of its own.

A network that is to pick what it never saw must see variety first: sizes, symmetries, hollow and
elongated structures, sparse and crowded ice, doses and defocuses over the real range, film, ice and
aggregates, and micrographs without any particle. (crYOLO's general model learned from 43 real data
sets, 10 simulated ones and 10 of empty micrographs.) Every structure is a draw of
`picking.simulation.proteins`, known by its number.

Published micrographs are often denoised: the noise that is left has blobs as wide as parts of a
particle, which a network takes for particles unless it saw such noise. So a third is low-passed.
"""

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from picking.seeds import stream
from picking.simulation.junk import draw_kinds
from picking.simulation.plans import CRYSTALS_PER_UM2, MicrographPlan, simulate_planned
from picking.simulation.proteins import Protein

if TYPE_CHECKING:
    from picking.simulation.micrograph import Simulated

# What is drawn evenly between two values, of a logarithm where they are so called
LOG_DIAMETER_ANGSTROM, LOG_HEIGHT = (math.log(80), math.log(360)), (math.log(0.35), math.log(2))
DEFOCUS_ANGSTROM, LOG_SNR = (7000.0, 30000.0), (math.log(0.012), math.log(0.5))
DIAMETER_PX, SIDE_DIAMETERS = (22.0, 40.0), (11.0, 15.0)  # a micrograph is so wide
COVERED = (0.03, 0.6)  # of the area, before crowding
CAVITY, CAVITY_OF_SHELLS = (0.0, 0.6), (0.0, 0.8)
EMPTY, WITH_JUNK, WITH_CARBON = 0.06, 0.2, 0.05  # fractions of micrographs
# Gaussian, its sigma in diameters: of EMPIAR-10017 as CryoPPP has it, less than a hundredth of the
# power is finer than a third of a diameter
LOWPASSED, LOWPASS_SIGMA = 1 / 3, (0.04, 0.14)
SYMMETRIES = (*("C1",) * 3, *("C2",) * 2, *("D2",) * 2, "C3", "C4", "C5", "C6", "C7", "C12", "D3",
              "D4", "D5", "D7", "I")  # fmt: skip


def plan_varied(n: int, seed: int) -> list[MicrographPlan]:
    """Return the plans of n micrographs, each of its own protein; more begin with the fewer."""
    return [_plan(index, seed) for index in range(n)]


def _plan(index: int, seed: int) -> MicrographPlan:
    rng = stream(seed, "varied", str(index))
    symmetry = SYMMETRIES[rng.integers(len(SYMMETRIES))]
    diameter = math.exp(rng.uniform(*LOG_DIAMETER_ANGSTROM))
    hollow = CAVITY_OF_SHELLS if symmetry[0] in "DI" else CAVITY
    radius_um = diameter * 1e-4 / 2
    protein = Protein(
        name=f"VAR-{index:05d}",
        symmetry=symmetry,
        diameter_angstrom=diameter,
        cavity=0.0 if symmetry == "C1" else rng.uniform(*hollow),
        height=1.0 if symmetry == "I" else math.exp(rng.uniform(*LOG_HEIGHT)),
        contrast=1.0,
        particles_per_um2=rng.uniform(*COVERED) / (math.pi * radius_um**2),
    )
    pixel = diameter / rng.uniform(*DIAMETER_PX)
    side = round(rng.uniform(*SIDE_DIAMETERS) * diameter / pixel)
    kinds = draw_kinds(rng)
    return MicrographPlan(
        split="train",
        stem=f"varied_{index:05d}",
        protein=protein,
        annotated=True,
        size_px=(side, side),
        pixel_size_angstrom=pixel,
        defocus_angstrom=rng.uniform(*DEFOCUS_ANGSTROM),
        snr=math.exp(rng.uniform(*LOG_SNR)),
        density=float(rng.uniform() >= EMPTY),
        carbon=bool(rng.uniform() < WITH_CARBON),
        n_crystals=int(rng.poisson(CRYSTALS_PER_UM2 * (side * pixel * 1e-4) ** 2)),
        junk=kinds if rng.uniform() < WITH_JUNK else (),
        seed=seed,
    )


def simulate_varied(plan: MicrographPlan) -> "Simulated":
    """Simulate the micrograph of a plan, low-passed or not as its name has it."""
    image = simulate_planned(plan)
    rng = stream(plan.seed, "lowpass", plan.stem)
    if rng.uniform() >= LOWPASSED:
        return image
    return dataclasses.replace(image, raw=lowpassed(image.raw, image.diameter_px, rng))


def lowpassed(grey: np.ndarray, diameter_px: float, rng: np.random.Generator) -> np.ndarray:
    """Return (h, w) as denoising might leave it, float32: by a Gaussian of a random width."""
    from scipy.ndimage import gaussian_filter

    sigma_px = diameter_px * rng.uniform(*LOWPASS_SIGMA)
    return gaussian_filter(grey.astype(np.float32), sigma_px, mode="reflect")
