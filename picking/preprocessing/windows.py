"""Learning from a few picks: places near them are the labelled, places anywhere the unlabeled.

A place is positive when it lies within `POSITIVE_RADIUS` diameters of a particle's centre. Windows
are cut about each pick, and at random from the whole of every micrograph; training crops them at
random (`picking.training.augment.window_views`), so that a pick lies anywhere in its crop. A U-Net
scores every place of a crop. Those near a pick are the labelled, in any crop; the nnPU risk
compares them with the other places of the random windows. With N particles a micrograph, n of them
picked, the fractions of places near a particle are known,

    of all places            N a,  a = π (POSITIVE_RADIUS · diameter)² / area
    of those near no pick    π_U = (N - n) a / (1 - n a).

Disks that overlap would cover less than N a; so far apart as particles lie, they do not: measured,
0.99 to 1.00 of N a on four proteins, crowded TRPV1 among them (benchmarks/disks.py).

No place is called negative, since nobody knows where the other particles are, unless somebody says
so. Places near a click on what is no particle are known negatives. So is all of a micrograph that
is picked completely, but for the disk about each pick and a ring around it, as far as a pick may be
off. What was painted as junk is ignored, as the ring is, and no window is centred there. Junk that
nobody painted is learned like all else: networks that never saw any took it for particles. Then

    π_U = (fraction near a particle - fraction near a pick) / fraction of which nothing is known,

see `place_priors`.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from picking.errors import UserError
from picking.formats.picks import Micrograph, inside
from picking.inputs.junk_masks import junk_mask_at, read_junk_mask
from picking.micrographs.junk import coarseness, in_junk
from picking.micrographs.preparation import PARTICLE_PX, PREPARATION, prepare, scale_micrograph
from picking.preprocessing.cutting import CutPlan, Group, cut_patches, nearest_pixels
from picking.seeds import stream
from picking.stores.patches import (
    IGNORED,
    NEAR_PICK,
    NO_PARTICLE,
    TAG_NO_PARTICLE,
    TAG_PARTICLE,
    TAG_WINDOW,
    UNKNOWN,
)

# How far off a particle's centre a place still is positive, in diameters
POSITIVE_RADIUS = 0.25
# And from where on it surely is none: clicks scatter by some 0.05 diameters, and this is three
# times as much beyond
NEGATIVE_RADIUS = 0.4
# A window as stored is twice as wide as what the network sees of it, so that its middle can lie
# anywhere in a crop.
WINDOW_PX = 128
REACH_PX, RING_PX = POSITIVE_RADIUS * PARTICLE_PX, NEGATIVE_RADIUS * PARTICLE_PX
SPARES = 2  # for each window, to be cut in place of one that lies in painted junk


@dataclasses.dataclass(frozen=True)
class WindowPlan(CutPlan):
    """The windows of one micrograph, in the order of their rows in the store.

    windows_px: float64 (n, 2), the centres of the windows anywhere, beside those about the picks.
    negatives_px: float64 (k, 2), places that are no particle. scaled_px: (height, width) that the
    micrograph is scaled to before windows are cut.
    """

    windows_px: np.ndarray
    negatives_px: np.ndarray
    scaled_px: tuple[int, int]

    kinds = ("labelled", "no particle", "unknown")  # what a picture tells apart

    @property
    def scale(self) -> float:
        """Px of a row per px of the micrograph, along y."""
        return self.scaled_px[0] / self.size_px[0]

    @property
    def arrays(self) -> dict[str, tuple[int, int]]:
        """The files of windows and of what is known of their places."""
        return dict.fromkeys(("patches.npy", "picked.npy"), (self.patch_size_px,) * 2)

    @property
    def decoded_px(self) -> tuple[int, int]:
        """What a JPEG is decoded near."""
        return self.scaled_px

    @property
    def n_particles(self) -> int:
        """Picks."""
        return len(self.labelled_px)

    @property
    def n_rows(self) -> int:
        """Windows of this micrograph."""
        return len(self.labelled_px) + len(self.windows_px) + len(self.negatives_px)

    def groups(self, noted: dict | None = None) -> list[Group]:  # noqa: D102
        return [
            Group(self.labelled_px, TAG_PARTICLE, True),
            Group(self.windows_px, TAG_WINDOW, False),
            Group(self.negatives_px, TAG_NO_PARTICLE, False),
        ]

    def identity(self) -> list[str | bytes]:  # noqa: D102
        one = self.micrograph
        beside: list[str | bytes] = []  # of what else there is: without, stores stay what they were
        if self.says_more:
            beside += [f"{RING_PX}:{one.complete}:{len(self.negatives_px)}:"]
            beside += [self.negatives_px.tobytes()]
        if one.junk is not None:
            beside += [one.junk.read_bytes()]
        return [
            f"{one.name}:{self.size_px}:{self.patch_size_px}:{self.scaled_px}:",
            f"{REACH_PX}:{len(self.labelled_px)}:",
            self.labelled_px.tobytes(),
            self.windows_px.tobytes(),
            *beside,
        ]

    @property
    def says_more(self) -> bool:
        """Whether more is known of the micrograph than picks."""
        one = self.micrograph
        return bool(len(self.negatives_px)) or one.complete or one.junk is not None

    def draw(self, image: np.ndarray) -> tuple[list[np.ndarray], dict]:
        """Return the windows and what is known of their places, two of uint8 (n_rows, p, p).

        The journal notes how coarse a micrograph with picks is; of others nobody knows whether they
        are junk all over.
        """
        scale = np.array(self.scaled_px) / self.size_px
        scaled = scale_micrograph(image, self.scaled_px)
        noted = {"coarseness": coarseness(scaled, PARTICLE_PX)} if len(self.labelled_px) else {}
        prepared = prepare(scaled, (PARTICLE_PX, PARTICLE_PX))
        known, about_negatives = self.known_places(self.painted())
        rows = []
        for first, last in ((prepared, prepared), (known, about_negatives)):
            centres_px = np.concatenate([self.labelled_px, self.windows_px])
            cut = cut_patches(first, centres_px * scale, self.patch_size_px)
            if len(self.negatives_px):
                more = cut_patches(last, self.negatives_px * scale, self.patch_size_px)
                cut = np.concatenate([cut, more])
            rows.append(cut)
        return rows, noted

    def painted(self) -> np.ndarray | None:
        """Return where junk was painted, bool of ``scaled_px``; None where nobody did."""
        path = self.micrograph.junk
        return None if path is None else junk_mask_at(path, self.scaled_px)

    def known_places(self, painted: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Return what is known of each place, and what windows about negatives know of it.

        painted: as `painted` has it. Both are uint8 of ``scaled_px``. The latter have no other
        negatives than those that were clicked, which would be lost among all the places of a
        complete micrograph.
        """
        scale = np.array(self.scaled_px) / self.size_px
        picked = _near(self.labelled_px * scale, REACH_PX, self.scaled_px)
        if not self.says_more:
            return picked, picked
        known = np.full(self.scaled_px, UNKNOWN, np.uint8)
        if self.micrograph.complete:
            ring = _near(self.labelled_px * scale, RING_PX, self.scaled_px)
            known = np.where(ring == 1, IGNORED, NO_PARTICLE).astype(np.uint8)
        if painted is not None:
            known[painted] = IGNORED
        clicked = _near(self.negatives_px * scale, REACH_PX, self.scaled_px) == 1
        known[clicked] = NO_PARTICLE
        known[picked == 1] = NEAR_PICK
        about_negatives = np.where((known == NO_PARTICLE) & ~clicked, IGNORED, known)
        return known, about_negatives.astype(np.uint8)

    @functools.cached_property
    def known_fractions(self) -> dict[str, float]:
        """How much is known beside picks: fractions, those that are not 0.

        ``junk`` of the micrograph is painted; of the rest ``negative`` is known to be no particle
        and ``ignored`` is neither learned from.
        """
        if not self.says_more:
            return {}
        painted = self.painted()
        known = self.known_places(painted)[0]
        outside = known if painted is None else known[~painted]
        fractions = {"junk": 0.0 if painted is None else float(painted.mean())}
        if outside.size:
            fractions |= {
                "negative": float((outside == NO_PARTICLE).mean()),
                "ignored": float((outside == IGNORED).mean()),
            }
        return {name: fraction for name, fraction in fractions.items() if fraction}

    def counts(self) -> dict:  # noqa: D102
        complete = {"complete": True} if self.micrograph.complete else {}
        negatives = {"n_not_particles": len(self.negatives_px)} if len(self.negatives_px) else {}
        return {"n_particles": self.n_particles, **negatives, **complete}


@dataclasses.dataclass(frozen=True)
class WindowSettings:
    """What decides windows, beside micrographs and picks."""

    window_px: int  # side, after scaling
    diameter_px: float  # of the particles, on the micrograph
    per_micrograph: int  # windows anywhere
    expected_particles: float | None  # on a micrograph
    seed: int
    # Diameters by name where px have another size
    own_px: Mapping[str, float] = dataclasses.field(default_factory=dict)
    pixel_size_angstrom: float | None = None  # of the others, where known

    @property
    def scale(self) -> float:
        """Px of the scaled micrograph per px of the micrograph, but for those of ``own_px``."""
        return PARTICLE_PX / self.diameter_px

    def diameter_on(self, name: str) -> float:
        """Return the particles' diameter in px of a micrograph."""
        return self.own_px.get(name, self.diameter_px)

    def plan_split(
        self,
        split: str,
        records: Sequence[Micrograph],
        sizes_px: Sequence[tuple[int, int]],
        n_workers: int = 0,
    ) -> list[WindowPlan]:
        """Plan the windows of a split, one `WindowPlan` per record; takes no workers.

        Raises `UserError` when a window would be as large as a micrograph.
        """
        plans = []
        for record, size_px in zip(records, sizes_px, strict=True):
            diameter_px = self.diameter_on(record.name)
            height, width = (max(1, round(n * PARTICLE_PX / diameter_px)) for n in size_px)
            if self.window_px >= min(height, width):
                raise UserError(
                    f"{record.name} is {size_px[1]} x {size_px[0]} px, no larger than a window, "
                    f"{self.window_px / PARTICLE_PX:g} particles of {diameter_px:.0f} px: "
                    "check --diameter"
                )
            negatives_px = record.negatives_px
            within = ((negatives_px >= 0) & (negatives_px < np.array(size_px))).all(axis=1)
            plans.append(
                WindowPlan(
                    micrograph=record,
                    size_px=size_px,
                    patch_size_px=self.window_px,
                    labelled_px=record.centres_px[inside(record, size_px)],
                    windows_px=self._draw_windows(split, record, size_px),
                    negatives_px=negatives_px[within],
                    scaled_px=(height, width),
                )
            )
        return plans

    def _draw_windows(self, split: str, record: Micrograph, size_px: tuple[int, int]) -> np.ndarray:
        """Return centres anywhere but in painted junk, float64 (per_micrograph, 2)."""
        rng = stream(self.seed, "windows", split, record.name)
        windows_px = rng.random((self.per_micrograph, 2)) * np.array(size_px)
        if record.junk is None:
            return windows_px
        rng = stream(self.seed, "spare-windows", split, record.name)
        spare_px = rng.random((SPARES * self.per_micrograph, 2)) * np.array(size_px)
        every_px = np.concatenate([windows_px, spare_px])
        clear = np.flatnonzero(~in_junk(read_junk_mask(record.junk), every_px, size_px))
        if not len(clear):
            return windows_px
        # As many as wanted, some twice where hardly any place is left
        return every_px[np.resize(clear[: self.per_micrograph], self.per_micrograph)]

    def lines(self, split: str, plans: Sequence[WindowPlan]) -> list[str]:
        """Return the lines on a split's windows that users look for."""
        counts = self.summary(plans)
        n_picked = sum(len(p.labelled_px) > 0 for p in plans)
        pool, unlabeled = counts["pool_prior"], counts["unlabeled_prior"]
        known = "left to training to estimate"
        if self.expected_particles is not None:
            known = f"{pool:.4f}; of those near no pick: {unlabeled:.4f}"
        lines = [
            f"Windows of {split} split",
            f"Total images: {len(plans)}, {n_picked} of them with picks",
            f"  Scale: {self.scale:.4f}; a particle becomes {PARTICLE_PX} px wide",
            f"  Picks: {counts['n_labeled']:,}, a window about each",
            f"  Unlabeled windows, anywhere: {counts['n_unlabeled']:,}",
            f"  Fraction of positives among their places: {known}",
        ]
        if n := counts.get("n_not_particles"):
            lines.append(f"  Places without a particle: {n:,}, a window about each")
        complete = [p for p in plans if p.micrograph.complete]
        if complete:
            n_empty = sum(not len(p.labelled_px) for p in complete)
            empty = f", {n_empty:,} of them without a pick" if n_empty else ""
            lines.append(f"  Picked completely: {len(complete):,}{empty}")
        if n := sum(p.micrograph.junk is not None for p in plans):
            lines.append(f"  With painted junk: {n:,}")
        return lines

    def summary(self, plans: Sequence[WindowPlan], noted: Sequence[dict] = ()) -> dict:
        """Return what these micrographs have in all, as metadata.json says it; takes no notes."""
        n_picks = [len(p.labelled_px) for p in plans]
        n_negative = sum(len(p.negatives_px) for p in plans)
        n_complete = sum(p.micrograph.complete for p in plans)
        of_each = [p.known_fractions for p in plans]
        return {
            "n_images": len(plans),
            "n_patches": sum(p.n_rows for p in plans),
            "n_labeled": sum(n_picks),
            "n_unlabeled": sum(len(p.windows_px) for p in plans),
            **place_priors(
                self,
                [p.size_px for p in plans],
                n_picks,
                [self.diameter_on(p.micrograph.name) for p in plans],
                [one.get("junk", 0.0) for one in of_each],
                [one.get("negative", 0.0) for one in of_each],
                [one.get("ignored", 0.0) for one in of_each],
                [p.micrograph.complete for p in plans],
            ),
            **({"n_not_particles": n_negative} if n_negative else {}),
            **({"n_complete": n_complete} if n_complete else {}),
        }

    def description(self, content_hash: str) -> dict:
        """Return what metadata.json says of the whole store, beside counts.

        ``windows`` says that what is not labelled is unknown, and how micrographs are scaled; where
        it is known, of which pixel size those are on which particles are ``diameter_px`` wide.
        """
        windows = {"scale": self.scale, "diameter_px": self.diameter_px, "reach_px": REACH_PX}
        if self.pixel_size_angstrom is not None:
            windows["pixel_size_angstrom"] = self.pixel_size_angstrom
        return {
            "patch_size_px": self.window_px,
            "preparation": PREPARATION,
            "content_hash": content_hash,
            "windows": windows,
        }


def place_priors(
    settings: WindowSettings,
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


def _near(centres_px: np.ndarray, reach_px: float, size_px: tuple[int, int]) -> np.ndarray:
    """Return uint8 (h, w): 1 within reach of the pixel that `cut_patches` takes for a centre."""
    at, reach = nearest_pixels(centres_px, size_px), int(reach_px)
    near = np.zeros([n + 2 * reach for n in size_px], np.uint8)
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disk = (y**2 + x**2 <= reach_px**2).astype(np.uint8)
    for row, column in at:
        near[row : row + len(disk), column : column + len(disk)] |= disk
    return near[reach : reach + size_px[0], reach : reach + size_px[1]]
