"""Where every patch lies: planned from annotations, image sizes and the seed.

Nothing is decoded for it, and every micrograph has random streams of its own, as
`picking/stores/writer.py` needs it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from picking.errors import UserError
from picking.formats.picks import Micrograph, inside, typical_diameters
from picking.micrographs.junk import coarseness
from picking.micrographs.preparation import PREPARATION, prepare
from picking.parallel import ordered_map
from picking.preprocessing import negatives
from picking.preprocessing.cutting import CutPlan, Group, cut_patches
from picking.seeds import stream
from picking.stores.patches import TAG_NEGATIVE, TAG_OFF_CENTRE, TAG_OUTLIER, TAG_PARTICLE

# An outlier (ice, carbon edge) is the most unusual of this many candidates.
OUTLIER_CANDIDATES = 4


@dataclasses.dataclass(frozen=True)
class PatchPlan(CutPlan):
    """The patches of one micrograph, in the order of their rows in the store.

    Rows: labelled and hidden positives, ordinary and off-centre negatives, then ``n_outliers`` of
    ``outlier_candidates_px``, which are chosen when the image is decoded.
    """

    hidden_px: np.ndarray
    negatives_px: np.ndarray
    off_centre_px: np.ndarray
    outlier_candidates_px: np.ndarray
    n_outliers: int
    n_negatives_wanted: int
    diameter_px: float  # of the particles, for the preparation

    kinds = ("labelled", "hidden", "negative")  # what a picture tells apart
    scale = 1.0  # px of a row per px of the micrograph

    @property
    def arrays(self) -> dict[str, tuple[int, int]]:
        """The file of patches."""
        return {"patches.npy": (self.patch_size_px, self.patch_size_px)}

    @property
    def n_particles(self) -> int:
        """Positives, labelled and hidden."""
        return len(self.labelled_px) + len(self.hidden_px)

    @property
    def n_negative(self) -> int:
        """Negatives of all kinds."""
        return len(self.negatives_px) + len(self.off_centre_px) + self.n_outliers

    @property
    def n_rows(self) -> int:
        """Patches of this micrograph."""
        return self.n_particles + self.n_negative

    def groups(self, noted: dict) -> list[Group]:  # noqa: D102
        outliers_px = np.array(noted["outliers_px"]).reshape(-1, 2)
        return [*self._planned(), Group(outliers_px, TAG_OUTLIER, False)]

    def _planned(self) -> list[Group]:
        return [
            Group(self.labelled_px, TAG_PARTICLE, True),
            Group(self.hidden_px, TAG_PARTICLE, False),
            Group(self.negatives_px, TAG_NEGATIVE, False),
            Group(self.off_centre_px, TAG_OFF_CENTRE, False),
        ]

    def identity(self) -> list[str | bytes]:  # noqa: D102
        parts: list[str | bytes] = [
            f"{self.micrograph.name}:{self.size_px}:{self.patch_size_px}:{self.n_outliers}",
            f":{self.diameter_px}",
        ]
        for rows in (*(group.centres_px for group in self._planned()), self.outlier_candidates_px):
            parts += [f":{len(rows)}:", rows.tobytes()]
        return parts

    def draw(self, image: np.ndarray) -> tuple[list[np.ndarray], dict]:
        """Return the patches, uint8 (n_rows, p, p), and what the journal notes."""
        noted = {"coarseness": coarseness(image, self.diameter_px)}
        image = prepare(image, (self.diameter_px, self.diameter_px))
        centres_px = np.concatenate([group.centres_px for group in self._planned()])
        patches = cut_patches(image, centres_px, self.patch_size_px)
        outliers_px = self.outlier_candidates_px
        if self.n_outliers:
            candidates = cut_patches(image, outliers_px, self.patch_size_px)
            chosen = _most_unusual(candidates, self.n_outliers)
            outliers_px = outliers_px[chosen]
            patches = np.concatenate([patches, candidates[chosen]])
        return [patches], {**noted, "outliers_px": outliers_px[: self.n_outliers].tolist()}

    def counts(self) -> dict:  # noqa: D102
        return {
            "n_particles": self.n_particles,
            "n_negative": self.n_negative,
            "n_negative_short": max(0, self.n_negatives_wanted - self.n_negative),
        }


@dataclasses.dataclass(frozen=True)
class PatchSettings:
    """What decides patches, beside the annotations."""

    patch_size_px: int  # side
    hide_ratio: float  # fraction of the positives hidden among the unlabeled
    neg_per_pos: float  # negatives wanted per particle
    seed: int
    neg_rule: str  # how far from particles negatives lie, of `negatives.RULES`
    margin_px: float  # no negative lies this near to an edge
    top_up: bool  # draw missing negatives from other micrographs
    hard_fraction: float  # of the negatives, in train: off-centre or unusual ones

    def plan_split(
        self,
        split: str,
        records: Sequence[Micrograph],
        sizes_px: Sequence[tuple[int, int]],
        n_workers: int,
    ) -> list[PatchPlan]:
        """Plan the patches of a split, one `PatchPlan` per record.

        With ``top_up``, micrographs with room make up for the negatives that others lack.
        """
        diameters_px = typical_diameters(records)
        jobs = [(split, *one, self, 0) for one in zip(records, sizes_px, diameters_px, strict=True)]
        plans = list(ordered_map(_plan_micrograph, jobs, n_workers, f"Planning {split}"))
        if not self.top_up:
            return plans
        short = sum(p.n_negatives_wanted - p.n_negative for p in plans)
        room = [i for i, p in enumerate(plans) if p.n_negative >= p.n_negatives_wanted]
        extra = dict.fromkeys(room, 0)
        while short > 0 and room:
            each = -(-short // len(room))
            for i in room:
                extra[i] += min(each, short)
                before = plans[i].n_negative
                plans[i] = _plan_micrograph((*jobs[i][:5], extra[i]))
                short -= plans[i].n_negative - before
                if short <= 0:
                    break
            room = [
                i for i in room if plans[i].n_negative >= plans[i].n_negatives_wanted + extra[i]
            ]
        return plans

    def lines(self, split: str, plans: Sequence[PatchPlan]) -> list[str]:
        """Return the lines on a split's patches that users look for."""
        counts = _count(plans)
        priors = {
            name: "none" if prior is None else f"{prior:.4f}"
            for name, prior in split_priors(**counts).items()
        }
        n_short = _shortage(plans)
        lines = [
            f"Processing {split} split",
            f"Total images: {len(plans)}",
            f"  Positive patches: {counts['n_labeled']:,}",
            f"  Unlabeled patches: {counts['n_hidden'] + counts['n_negative']:,} "
            f"({counts['n_hidden']:,} hidden positives, {counts['n_negative']:,} negatives)",
            f"  Actual prior (π): {priors['actual_prior']}   in the unlabeled set: "
            f"{priors['unlabeled_prior']}   in the pool: {priors['pool_prior']}",
        ]
        if n_short:
            room = "" if self.top_up else "; --top-up fills them from micrographs with room"
            lines.append(
                f"  Shortage: {n_short:,} of {sum(p.n_negatives_wanted for p in plans):,} "
                f"negatives find no place by the rule '{self.neg_rule}'{room}"
            )
        return lines

    def summary(self, plans: Sequence[PatchPlan], noted: list[dict]) -> dict:
        """Return what these micrographs have in all, as metadata.json says it."""
        counts = _count(plans)
        n_particles = counts["n_labeled"] + counts["n_hidden"]
        return {
            "n_images": len(plans),
            "n_patches": sum(counts.values()),
            **counts,
            "n_hard_negative": sum(len(p.off_centre_px) + p.n_outliers for p in plans),
            **split_priors(**counts),
            "hide_ratio_requested": self.hide_ratio,
            "hide_ratio": counts["n_hidden"] / n_particles if n_particles else None,
            "neg_per_pos_requested": self.neg_per_pos,
            "neg_per_pos": counts["n_negative"] / n_particles if n_particles else None,
            "n_negative_short": _shortage(plans),
        }

    def description(self, content_hash: str) -> dict:
        """Return what metadata.json says of the whole store, beside counts."""
        return {
            "patch_size_px": self.patch_size_px,
            "preparation": PREPARATION,
            "content_hash": content_hash,
        }


def split_priors(n_labeled: int, n_hidden: int, n_negative: int) -> dict[str, float | None]:
    """Return the three priors of a split, None where there is no patch to divide by.

    - ``actual_prior``: labelled positives / all patches.
    - ``pool_prior``: all positives / all patches.
    - ``unlabeled_prior``: hidden positives / unlabeled patches; π_U of `nnpu_risk`.

    Args:
        n_labeled: positives in P.
        n_hidden: positives in U.
        n_negative: negatives, all of them in U.
    """
    n_unlabeled = n_hidden + n_negative
    n_all = n_labeled + n_unlabeled
    return {
        "actual_prior": n_labeled / n_all if n_all else None,
        "pool_prior": (n_labeled + n_hidden) / n_all if n_all else None,
        "unlabeled_prior": n_hidden / n_unlabeled if n_unlabeled else None,
    }


def _count(plans: Sequence[PatchPlan]) -> dict[str, int]:
    """Return how many patches of each kind are planned."""
    return {
        "n_labeled": sum(len(p.labelled_px) for p in plans),
        "n_hidden": sum(len(p.hidden_px) for p in plans),
        "n_negative": sum(p.n_negative for p in plans),
    }


def _shortage(plans: Sequence[PatchPlan]) -> int:
    """Return how many of the wanted negatives a split lacks, after any top-up."""
    return max(0, sum(p.n_negatives_wanted - p.n_negative for p in plans))


def _plan_micrograph(job: tuple) -> PatchPlan:
    split, record, size_px, diameter_px, settings, n_extra = job
    patch = settings.patch_size_px
    if patch > min(size_px):
        raise UserError(
            f"{record.name} is {size_px[1]} x {size_px[0]} px, smaller than --patch-size {patch}: "
            "choose a smaller patch"
        )
    centres = record.centres_px[inside(record, size_px)]
    order = stream(settings.seed, "hide", split, record.name).permutation(len(centres))
    n_hidden = int(len(centres) * settings.hide_ratio)

    n_wanted = round(settings.neg_per_pos * len(centres))
    n_draw = n_wanted + n_extra
    n_hard = round(settings.hard_fraction * n_wanted) if split == "train" else 0
    n_off_centre = n_hard // 2
    n_outliers = n_hard - n_off_centre
    rng = stream(settings.seed, "negatives", split, record.name)
    particles = (size_px, record.centres_px, record.diameters_px)
    grid = negatives.allowed_grid(*particles, patch, settings.neg_rule, settings.margin_px)
    off_centre = np.empty((0, 2))
    if n_off_centre:
        ring = negatives.off_centre_grid(*particles, settings.margin_px)
        off_centre = negatives.draw_apart(ring, n_off_centre, patch / 2, rng)
        negatives.keep_apart(grid, off_centre, patch / 2)
    n_ordinary = n_draw - len(off_centre) - n_outliers
    drawn = negatives.draw_apart(grid, n_ordinary + OUTLIER_CANDIDATES * n_outliers, patch / 2, rng)
    candidates = drawn[n_ordinary:]
    return PatchPlan(
        micrograph=record,
        size_px=size_px,
        patch_size_px=patch,
        labelled_px=centres[order[n_hidden:]],
        hidden_px=centres[order[:n_hidden]],
        negatives_px=drawn[:n_ordinary],
        off_centre_px=off_centre,
        outlier_candidates_px=candidates,
        n_outliers=min(n_outliers, len(candidates)),
        n_negatives_wanted=n_wanted,
        diameter_px=diameter_px,
    )


def _most_unusual(patches: np.ndarray, n: int) -> np.ndarray:
    """Return the indices of the n patches whose mean or deviation is furthest from the median."""
    flat = patches.reshape(len(patches), -1)
    unusual = np.zeros(len(patches))
    for statistic in (flat.mean(axis=1), np.log(flat.std(axis=1) + 1)):
        distance = np.abs(statistic - np.median(statistic))
        unusual = np.maximum(unusual, distance / (np.median(distance) + 1e-9))
    return np.argsort(-unusual, kind="stable")[:n]
