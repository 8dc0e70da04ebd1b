"""Where every patch lies: planned from annotations, image sizes and the seed.

Nothing is decoded for it, and every micrograph has random streams of its own, as
`picking/stores/writer.py` needs it.
"""

import dataclasses

import numpy as np

from picking.errors import UserError
from picking.formats.picks import Micrograph, inside
from picking.parallel import ordered_map
from picking.preprocessing import negatives
from picking.seeds import stream

# An outlier (ice, carbon edge) is the most unusual of this many candidates.
OUTLIER_CANDIDATES = 4


@dataclasses.dataclass(frozen=True)
class PlanSettings:
    """What decides a plan, beside the annotations; METHODS and the script's --help explain it."""

    patch_size_px: int
    hide_ratio: float
    neg_per_pos: float
    seed: int
    neg_rule: str
    margin_px: float
    top_up: bool
    hard_share: float  # of the negatives, in train


@dataclasses.dataclass(frozen=True)
class MicrographPlan:
    """The patches of one micrograph, in the order of their rows in the store.

    All centres are float64 (n, 2), (y, x) in px. Rows: labelled and hidden positives, ordinary
    and off-centre negatives, windows of which nothing is known, then ``n_outliers`` of
    ``outlier_candidates_px``, which are chosen when the image is decoded.

    Of windows about picks, scaled_px: (height, width) that the micrograph is scaled to before they
    are cut, and reach_px: how far from a pick a place counts as picked, after scaling.
    """

    micrograph: Micrograph
    size_px: tuple[int, int]
    patch_size_px: int
    labelled_px: np.ndarray
    hidden_px: np.ndarray
    negatives_px: np.ndarray
    off_centre_px: np.ndarray
    outlier_candidates_px: np.ndarray
    n_outliers: int
    n_negatives_wanted: int
    n_outside: int
    windows_px: np.ndarray = dataclasses.field(default_factory=lambda: np.empty((0, 2)))
    scaled_px: tuple[int, int] | None = None
    reach_px: float = 0.0

    @property
    def n_negative(self) -> int:
        """Negatives of all kinds."""
        return len(self.negatives_px) + len(self.off_centre_px) + self.n_outliers

    @property
    def n_rows(self) -> int:
        """Patches of this micrograph."""
        n_positive = len(self.labelled_px) + len(self.hidden_px)
        return n_positive + self.n_negative + len(self.windows_px)


def plan_split(
    split: str,
    records: list[Micrograph],
    sizes_px: list[tuple[int, int]],
    settings: PlanSettings,
    n_workers: int,
) -> list[MicrographPlan]:
    """Plan the patches of a split, one `MicrographPlan` per record.

    With ``top_up``, micrographs with room make up for the negatives that others lack.
    """
    jobs = [(split, m, size, settings, 0) for m, size in zip(records, sizes_px, strict=True)]
    plans = list(ordered_map(_plan_micrograph, jobs, n_workers, f"Planning {split}"))
    if not settings.top_up:
        return plans
    short = sum(p.n_negatives_wanted - p.n_negative for p in plans)
    room = [i for i, p in enumerate(plans) if p.n_negative >= p.n_negatives_wanted]
    extra = dict.fromkeys(room, 0)
    while short > 0 and room:
        share = -(-short // len(room))
        for i in room:
            extra[i] += min(share, short)
            before = plans[i].n_negative
            plans[i] = _plan_micrograph((*jobs[i][:4], extra[i]))
            short -= plans[i].n_negative - before
            if short <= 0:
                break
        room = [i for i in room if plans[i].n_negative >= plans[i].n_negatives_wanted + extra[i]]
    return plans


def _plan_micrograph(job: tuple) -> MicrographPlan:
    split, record, size_px, settings, n_extra = job
    patch = settings.patch_size_px
    if patch > min(size_px):
        raise UserError(
            f"{record.name} is {size_px[1]} x {size_px[0]} px, smaller than --patch-size {patch}: "
            "choose a smaller patch"
        )
    within = inside(record, size_px)
    centres = record.centres_px[within]
    order = stream(settings.seed, "hide", split, record.name).permutation(len(centres))
    n_hidden = int(len(centres) * settings.hide_ratio)

    n_wanted = round(settings.neg_per_pos * len(centres))
    n_draw = n_wanted + n_extra
    n_hard = round(settings.hard_share * n_wanted) if split == "train" else 0
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
    return MicrographPlan(
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
        n_outside=int((~within).sum()),
    )
