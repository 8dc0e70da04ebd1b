"""What decides windows, where they lie, and what a split of them comes to."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from picking.errors import UserError
from picking.formats.picks import Micrograph, inside
from picking.inputs.junk_masks import read_junk_mask
from picking.micrographs.junk import in_junk
from picking.micrographs.preparation import PARTICLE_PX, PREPARATION
from picking.preprocessing.windows.plan import REACH_PX, WindowPlan
from picking.preprocessing.windows.priors import place_priors
from picking.seeds import stream

SPARES = 2  # for each window, to be cut in place of one that lies in painted junk


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
