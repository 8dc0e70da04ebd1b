"""Carbon, crystals, and what else spoils parts of a micrograph: where it lies and what it absorbs.

Any data set has edges of carbon and small crystals. A set with junk has more beside: film or foil
about a hole, patches of crystalline ice, piles of particles. A step of thickness is no junk:
particles lie on both sides, and nothing that looks for junk is to take one side away.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

KINDS = ("film", "foil", "ice", "aggregate", "step")
MOST_KINDS = 2  # on a micrograph with junk
# Fractions of the mean counts
FILM_ABSORPTION, FOIL_ABSORPTION = (0.04, 0.12), 0.6
ICE_ABSORPTION, STEP_ABSORPTION = 0.04, (0.02, 0.06)
HOLE_RADIUS_ANGSTROM = (3000.0, 8000.0)
# In diameters of the particle
ICE_RADIUS, PILE_RADIUS, STEP_WIDTH = (3.0, 7.0), (1.5, 3.5), (2.0, 4.0)


@dataclass(frozen=True)
class Junk:
    """Of a micrograph: float32 (h, w) each, but for ``where``.

    absorbed: as a fraction of the mean counts. film, ice, piles: 0 to 1, how much there is.
    where: bool (h, w), no particle is there.
    """

    absorbed: np.ndarray
    film: np.ndarray
    ice: np.ndarray
    piles: np.ndarray
    where: np.ndarray


def draw_kinds(rng: np.random.Generator) -> tuple[str, ...]:
    """Return the kinds of junk on a micrograph that has some, one or more."""
    return tuple(KINDS[i] for i in rng.permutation(len(KINDS))[: rng.integers(1, MOST_KINDS + 1)])


def scatter_junk(
    kinds: Sequence[str],
    shape: tuple[int, int],
    diameter_px: float,
    pixel_size_angstrom: float,
    rng: np.random.Generator,
) -> Junk:
    """Return one of each of the kinds, of `KINDS`; diameter_px: of the particles."""
    absorbed, film, ice, piles = (np.zeros(shape, np.float32) for _ in range(4))
    for kind in kinds:
        if kind in ("film", "foil"):
            hole_px = rng.uniform(*HOLE_RADIUS_ANGSTROM) / pixel_size_angstrom
            cover = carbon_film(shape, hole_px, rng)
            absorption = FOIL_ABSORPTION if kind == "foil" else rng.uniform(*FILM_ABSORPTION)
            np.maximum(film, cover, out=film)
            absorbed += absorption * cover
        elif kind == "ice":
            cover = patch(shape, rng.uniform(*ICE_RADIUS) * diameter_px, rng)
            np.maximum(ice, cover, out=ice)
            absorbed += ICE_ABSORPTION * cover
        elif kind == "aggregate":
            cover = patch(shape, rng.uniform(*PILE_RADIUS) * diameter_px, rng)
            np.maximum(piles, cover, out=piles)
        else:
            width_px = rng.uniform(*STEP_WIDTH) * diameter_px
            absorbed += rng.uniform(*STEP_ABSORPTION) * step(shape, width_px, rng)
    where = np.maximum(np.maximum(film, ice), piles) > 0.5
    return Junk(absorbed, film, ice, piles, where)


def carbon_film(
    shape: tuple[int, int], hole_radius_px: float, rng: np.random.Generator
) -> np.ndarray:
    """Return the support film, float32 (h, w): 1 on carbon, 0 in the hole, a soft edge between."""
    direction = rng.uniform(0, 2 * math.pi)
    edge_px = rng.uniform(0.1, 0.35) * min(shape)  # from the image's centre to the edge
    towards = np.array([math.sin(direction), math.cos(direction)])
    hole = np.array(shape) / 2 - (hole_radius_px - edge_px) * towards
    y, x = (np.arange(n) - c for n, c in zip(shape, hole, strict=True))
    outside_px = np.hypot(y[:, None], x[None, :]) - hole_radius_px
    return (1 / (1 + np.exp(-np.clip(outside_px / 3, -30, 30)))).astype(np.float32)


def ice_crystals(
    shape: tuple[int, int], n: int, pixel_size_angstrom: float, rng: np.random.Generator
) -> np.ndarray:
    """Return n irregular pieces of ice, float32 (h, w), thickness 1 in the middle, 0 outside."""
    ice = np.zeros(shape, np.float32)
    for _ in range(n):
        centre = rng.uniform(0, shape)
        radius_px = rng.uniform(40, 130) / pixel_size_angstrom
        waves = rng.normal(0, 0.25, 4) / np.arange(1, 5)
        turns = rng.uniform(0, 2 * math.pi, 4)
        reach = int(2.5 * radius_px)
        top, left = np.maximum(centre.astype(int) - reach, 0)
        box = ice[top : top + 2 * reach, left : left + 2 * reach]
        y = np.arange(top, top + box.shape[0])[:, None] - centre[0]
        x = np.arange(left, left + box.shape[1])[None, :] - centre[1]
        around = np.arctan2(y, x)
        rim = 1 + sum(
            a * np.cos((k + 2) * around + t)
            for k, (a, t) in enumerate(zip(waves, turns, strict=True))
        )
        depth = 1 - np.hypot(y, x) / (radius_px * np.maximum(rim, 0.3))
        np.maximum(box, np.clip(3 * depth, 0, 1), out=box)
    return ice


def patch(shape: tuple[int, int], radius_px: float, rng: np.random.Generator) -> np.ndarray:
    """Return an irregular patch, float32 (h, w): 1 in the middle, 0 outside."""
    y, x = (np.arange(n) - c for n, c in zip(shape, rng.uniform(0, shape), strict=True))
    around, distance_px = np.arctan2(y[:, None], x), np.hypot(y[:, None], x)
    waves, turns = rng.normal(0, 0.15, 4), rng.uniform(0, 2 * math.pi, 4)
    rim = 1 + sum(
        a * np.cos((k + 2) * around + t) for k, (a, t) in enumerate(zip(waves, turns, strict=True))
    )
    depth = 1 - distance_px / (radius_px * np.maximum(rim, 0.3))
    return np.clip(4 * depth, 0, 1).astype(np.float32)


def step(shape: tuple[int, int], width_px: float, rng: np.random.Generator) -> np.ndarray:
    """Return what rises from 0 to 1 across a line within some ``width_px``, float32 (h, w)."""
    angle = rng.uniform(0, 2 * math.pi)
    middle = rng.uniform(0.25, 0.75, 2) * shape
    y, x = (np.arange(n) - c for n, c in zip(shape, middle, strict=True))
    across_px = y[:, None] * math.sin(angle) + x * math.cos(angle)
    return (1 / (1 + np.exp(-np.clip(4 * across_px / width_px, -30, 30)))).astype(np.float32)
