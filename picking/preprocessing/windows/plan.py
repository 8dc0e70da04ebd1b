"""The windows of one micrograph, and what is known of the places in them."""

import dataclasses
import functools

import numpy as np

from picking.inputs.junk_masks import junk_mask_at
from picking.micrographs.junk import coarseness
from picking.micrographs.preparation import PARTICLE_PX, prepare, scale_micrograph
from picking.preprocessing.cutting import CutPlan, Group, cut_patches, nearest_pixels
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


def _near(centres_px: np.ndarray, reach_px: float, size_px: tuple[int, int]) -> np.ndarray:
    """Return uint8 (h, w): 1 within reach of the pixel that `cut_patches` takes for a centre."""
    at, reach = nearest_pixels(centres_px, size_px), int(reach_px)
    near = np.zeros([n + 2 * reach for n in size_px], np.uint8)
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disk = (y**2 + x**2 <= reach_px**2).astype(np.uint8)
    for row, column in at:
        near[row : row + len(disk), column : column + len(disk)] |= disk
    return near[reach : reach + size_px[0], reach : reach + size_px[1]]
