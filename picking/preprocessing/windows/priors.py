"""How many particles to expect on a micrograph, and so which fraction of places is near one."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from picking.errors import UserError, warn
from picking.inputs.annotations import Split
from picking.preprocessing.windows.plan import POSITIVE_RADIUS

if TYPE_CHECKING:
    from picking.preprocessing.windows.settings import WindowSettings


def expected_particles(asked: float | None, splits: Mapping[str, Split]) -> float | None:
    """Return how many particles to expect on a micrograph, None where nothing tells.

    That is ``asked`` or, without it, `mean_of_complete`, which is printed. On micrographs that are
    complete all are picked, whatever is expected. Raises `UserError` when there are more picks on
    the others on average; warns when some of them has more.
    """
    every, expected = [one for split in splits.values() for one in split.micrographs], asked
    if expected is None:
        expected = mean_of_complete((len(one.centres_px), one.complete) for one in every)
        if expected is None:
            return None
        print(
            f"Expected particles on a micrograph: {expected:.1f}, as on the "
            f"{sum(one.complete for one in every):,} that are picked completely "
            "(--expected-particles overrides it)"
        )
    counts = [(len(one.centres_px), one.name) for one in every if not one.complete]
    if max(counts, default=(0, ""))[0] <= expected:
        return expected
    mean = sum(n for n, _ in counts) / len(counts)
    if mean > expected:
        raise UserError(
            f"--expected-particles is {expected:g}, but there are {mean:.1f} picks on a micrograph "
            "on average: give the number of all particles on one micrograph, about"
        )
    more = sorted(((n, name) for n, name in counts if n > expected), reverse=True)
    warn(
        f"--expected-particles is {expected:g}, but {len(more)} of {len(counts)} micrographs have "
        f"more picks (e.g. {', '.join(f'{n} on {name}' for n, name in more[:3])}): give a larger "
        "number unless these are unlike the others"
    )
    return expected


def mean_of_complete(counts: Iterable[tuple[int, bool]]) -> float | None:
    """Return how many particles the micrographs that are complete have on average.

    counts: of each micrograph the picks, and whether it is complete. None where none is or all are,
    and where the others have more picks on average.
    """
    of_kind: dict[bool, list[int]] = {True: [], False: []}
    for n, complete in counts:
        of_kind[complete].append(n)
    if not sum(of_kind[True]) or not of_kind[False]:
        return None
    mean, of_others = (sum(of_kind[kind]) / len(of_kind[kind]) for kind in (True, False))
    return None if mean < of_others else mean


def place_priors(
    settings: "WindowSettings",
    sizes_px: Sequence[tuple[int, int]],
    n_picks: Sequence[int],
    diameters_px: Sequence[float] | None = None,
    junk_fractions: Sequence[float] | float = 0.0,
    negative_fractions: Sequence[float] | float = 0.0,
    ignored_fractions: Sequence[float] | float = 0.0,
    complete: Sequence[bool] | bool = False,
) -> dict[str, float | None]:
    """Return the three priors for places instead of patches.

    With n picks on a micrograph, N particles expected on one without junk and a the fraction of its
    places near one of them; of the part b that painted junk leaves, v are known negatives and w are
    ignored. With means over micrographs, of that part::

        actual = mean(n a / b)
        pool = mean(max(n a / b, N a))              n a / b where the micrograph is complete
        unknown = mean(1 - n a / b - v - w)         0 where it is complete
        unlabeled = (pool - actual) / unknown

    ``actual_prior`` is the fraction near a pick, ``pool_prior`` that near a particle,
    ``unlabeled_prior`` that near a particle among those of which nothing is known; the last two are
    None without an expected number, unless all micrographs are complete. Where there are negatives,
    ``negative_share`` and ``unknown_share`` are mean(v) and unknown.

    Args:
        settings: with N and the diameter.
        sizes_px: (height, width) of each micrograph.
        n_picks: n of each.
        diameters_px: of the particles on each; None: the settings'.
        junk_fractions: 1 - b of each, painted, where no window is cut.
        negative_fractions: v of each.
        ignored_fractions: w of each.
        complete: of each, whether all its particles are picked.

    Raises `UserError` when so many particles would cover more than the micrographs.
    """
    diameters = settings.diameter_px if diameters_px is None else np.asarray(diameters_px)
    disk = math.pi * (POSITIVE_RADIUS * diameters) ** 2 / np.prod(sizes_px, axis=1)
    left = np.broadcast_to(1 - np.asarray(junk_fractions), len(sizes_px))
    # At the scale of windows hardly anything may be left
    picked = np.divide(n_picks * disk, left, out=np.zeros(len(sizes_px)), where=left > 0)
    done = np.broadcast_to(complete, len(sizes_px))
    actual = float(np.mean(picked))
    known = np.asarray(negative_fractions) + np.asarray(ignored_fractions)
    unknown = 1 - actual - float(np.mean(np.where(done, 1 - picked, known)))
    shares: dict[str, float | None] = {}
    if np.any(negative_fractions):
        negative = float(np.mean(negative_fractions))
        shares = {"negative_share": negative, "unknown_share": max(unknown, 0.0)}
    if done.all():
        return {"actual_prior": actual, "pool_prior": actual, "unlabeled_prior": 0.0, **shares}
    if settings.expected_particles is None:
        return {"actual_prior": actual, "pool_prior": None, "unlabeled_prior": None, **shares}
    covered = settings.expected_particles * disk.mean()
    if not 0 < covered < 0.5:
        raise UserError(
            f"--expected-particles {settings.expected_particles:g} of {settings.diameter_px:.0f} "
            f"px would be centred within {covered:.0%} of a micrograph: give the number on one "
            "micrograph, about"
        )
    near = np.maximum(picked, settings.expected_particles * disk)
    pool = float(np.mean(np.where(done, picked, near)))
    if not pool - actual < unknown:
        raise UserError(
            f"what is known leaves {max(unknown, 0):.1%} of the places, too few for what is left "
            f"of --expected-particles {settings.expected_particles:g}: give a smaller number, or "
            "take junk away where it was painted over particles"
        )
    unlabeled = (pool - actual) / unknown
    return {"actual_prior": actual, "pool_prior": pool, "unlabeled_prior": unlabeled, **shares}
