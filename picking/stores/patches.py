"""The patch store: plan where every patch lies, cut, read through a memory map.

The plan follows from annotations, image sizes and the seed before any image is decoded, and every
micrograph has random streams of its own, as `picking/stores/writer.py` needs it.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from picking.errors import UserError
from picking.files import DAMAGED_ARRAY, is_number, open_array, read_arrays, read_json, sha256
from picking.formats import annotations
from picking.formats.micrographs import scale_micrograph
from picking.parallel import ordered_map
from picking.preprocessing import negatives
from picking.seeds import stream
from picking.stores.journal import Journal
from picking.stores.writer import Filling

# What a row of the store is (index.npz, `tag`).
TAG_PARTICLE, TAG_NEGATIVE, TAG_OFF_CENTRE, TAG_OUTLIER, TAG_WINDOW = range(5)
WINDOW_KEYS = ("scale", "diameter_px", "reach_px")  # of windows in metadata.json
TAG_NAMES = ("particle", "negative", "off-centre negative", "outlier negative", "unknown window")
# An outlier (ice, carbon edge) is the most unusual of this many candidates.
OUTLIER_CANDIDATES = 4
# What index.npz holds of n patches: name -> type and shape of what belongs to one.
INDEX: dict[str, tuple[type, tuple[int, ...]]] = {
    "label": (np.uint8, ()),
    "labeled": (np.bool_, ()),
    "micrograph": (np.int32, ()),
    "centre": (np.float32, (2,)),
    "tag": (np.uint8, ()),
}


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

    micrograph: annotations.Micrograph
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
    records: list[annotations.Micrograph],
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
    within = annotations.inside(record, size_px)
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


def cut_patches(image: np.ndarray, centres_px: np.ndarray, patch_size_px: int) -> np.ndarray:
    """Cut square patches whose pixel [p // 2, p // 2] is the rounded centre.

    image: uint8 (h, w); centres_px: (n, 2), (y, x), inside the image. Returns uint8 (n, p, p).
    Beyond its edge the image is mirrored (the edge pixel is not repeated), so that no centre moves.
    """
    corners = _pixels(centres_px, image.shape) - patch_size_px // 2
    beyond = max(-corners.min(initial=0), (corners + patch_size_px - image.shape).max(initial=0))
    if beyond:  # rare, and as dear as cutting
        image = np.pad(image, beyond, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(image, (patch_size_px, patch_size_px))
    return windows[corners[:, 0] + beyond, corners[:, 1] + beyond]


def filling(folder: Path, plans: list[MicrographPlan], journal: Journal) -> Filling:
    """Return how `fill_split` cuts a split into ``folder/patches.npy`` with its ``index.npz``."""
    side_px = plans[0].patch_size_px
    files = ["patches.npy", *(["picked.npy"] if plans[0].scaled_px else [])]
    return Filling(
        folder=folder,
        journal=journal,
        plans=plans,
        plan_hash=_plan_hash(plans),
        arrays=dict.fromkeys(files, (side_px, side_px)),
        draw=_cut_micrograph,
        index="index.npz",
        write_index=_write_index,
    )


def _plan_hash(plans: list[MicrographPlan]) -> str:
    """Return a hash of everything that decides which row holds what."""
    parts: list[str | bytes] = []
    for p in plans:
        parts.append(f"{p.micrograph.name}:{p.size_px}:{p.patch_size_px}:{p.n_outliers}")
        for rows in (
            p.labelled_px, p.hidden_px, p.negatives_px, p.off_centre_px, p.outlier_candidates_px
        ):  # fmt: skip
            parts += [f":{len(rows)}:", rows.tobytes()]
        if len(p.windows_px):
            parts += [f":{p.scaled_px}:{p.reach_px}:", p.windows_px.tobytes()]
    return sha256(*parts)


def _cut_micrograph(plan: MicrographPlan, image: np.ndarray) -> tuple[list[np.ndarray], dict]:
    """Return the patches of one micrograph and where its outliers are; runs in a worker."""
    fixed = [
        plan.labelled_px, plan.hidden_px, plan.negatives_px, plan.off_centre_px, plan.windows_px
    ]  # fmt: skip
    if plan.scaled_px:
        scale = np.array(plan.scaled_px) / plan.size_px
        centres_px = np.concatenate(fixed) * scale
        scaled = scale_micrograph(image, plan.scaled_px)
        picked = _near(plan.labelled_px * scale, plan.reach_px, plan.scaled_px)
        return [cut_patches(one, centres_px, plan.patch_size_px) for one in (scaled, picked)], {}
    patches = cut_patches(image, np.concatenate(fixed), plan.patch_size_px)
    outliers_px = plan.outlier_candidates_px
    if plan.n_outliers:
        candidates = cut_patches(image, outliers_px, plan.patch_size_px)
        chosen = _most_unusual(candidates, plan.n_outliers)
        outliers_px = outliers_px[chosen]
        patches = np.concatenate([patches, candidates[chosen]])
    return [patches], {"outliers_px": outliers_px[: plan.n_outliers].tolist()}


def _near(centres_px: np.ndarray, reach_px: float, size_px: tuple[int, int]) -> np.ndarray:
    """Return uint8 (h, w): 1 within reach of the pixel that `cut_patches` takes for a centre."""
    at, reach = _pixels(centres_px, size_px), int(reach_px)
    near = np.zeros([n + 2 * reach for n in size_px], np.uint8)
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disk = (y**2 + x**2 <= reach_px**2).astype(np.uint8)
    for row, column in at:
        near[row : row + len(disk), column : column + len(disk)] |= disk
    return near[reach : reach + size_px[0], reach : reach + size_px[1]]


def _pixels(centres_px: np.ndarray, size_px: tuple[int, ...]) -> np.ndarray:
    """Return the pixels nearest to points inside an image, int (n, 2)."""
    # 0.5 px beyond the last one rounds up
    return np.minimum(np.rint(centres_px).astype(int), np.array(size_px) - 1)


def _most_unusual(patches: np.ndarray, n: int) -> np.ndarray:
    """Return the indices of the n patches whose mean or deviation is furthest from the median."""
    flat = patches.reshape(len(patches), -1)
    unusual = np.zeros(len(patches))
    for statistic in (flat.mean(axis=1), np.log(flat.std(axis=1) + 1)):
        distance = np.abs(statistic - np.median(statistic))
        unusual = np.maximum(unusual, distance / (np.median(distance) + 1e-9))
    return np.argsort(-unusual, kind="stable")[:n]


def _write_index(filling: Filling) -> None:
    split, entries = filling.folder.name, filling.journal.done
    centres, tags, labeled, micrograph = [], [], [], []
    for i, plan in enumerate(filling.plans):
        outliers = np.array(entries[split, i].get("outliers_px", [])).reshape(-1, 2)
        for rows, tag, is_labeled in (
            (plan.labelled_px, TAG_PARTICLE, True),
            (plan.hidden_px, TAG_PARTICLE, False),
            (plan.negatives_px, TAG_NEGATIVE, False),
            (plan.off_centre_px, TAG_OFF_CENTRE, False),
            (plan.windows_px, TAG_WINDOW, False),
            (outliers, TAG_OUTLIER, False),
        ):
            centres.append(rows)
            tags.append(np.full(len(rows), tag, np.uint8))
            labeled.append(np.full(len(rows), is_labeled))
            micrograph.append(np.full(len(rows), i, np.int32))
    tag_column = np.concatenate(tags)
    np.savez(
        filling.folder / filling.index,
        label=(tag_column == TAG_PARTICLE).astype(np.uint8),
        labeled=np.concatenate(labeled),
        micrograph=np.concatenate(micrograph),
        centre=np.concatenate(centres).astype(np.float32),
        tag=tag_column,
    )


class PatchStore:
    """One split of a finished patch store, as a data set that is read a batch at a time.

    Attributes: patches uint8 (n, p, p), a memory map; label uint8 (n,), true class, or where
    ``truth_known`` is false 1 for the labelled and 0 for all else; labeled bool (n,); micrograph
    int32 (n,), into ``names``; centre float32 (n, 2), (y, x) in px; tag uint8 (n,), see
    `TAG_NAMES`; picked uint8 (n, p, p), a memory map, of windows where a place is near a pick, None
    of patches; metadata, the whole `metadata.json`; counts, this split's part of it.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.folder, self.split = folder, split
        self.metadata = read_metadata(folder)
        problem = next((text for valid, text in _requirements(self.metadata) if not valid), None)
        if problem:
            raise UserError(
                f"{folder / 'metadata.json'} is damaged ({problem}): delete the store and make it "
                "again"
            )
        if split not in self.metadata["splits"]:
            there = ", ".join(self.metadata["splits"])
            raise UserError(f"patch store {folder} has no split '{split}'; there are: {there}")
        self.counts = self.metadata["splits"][split]
        self.names: list[str] = [m["name"] for m in self.counts["micrographs"]]
        self.ids: list[str | None] = [m["empiar_id"] for m in self.counts["micrographs"]]
        try:
            self.patches = open_array(folder / split / "patches.npy")
            self.picked: np.ndarray | None = None
            if self.windows is not None:
                self.picked = open_array(folder / split / "picked.npy")
            index = read_arrays(folder / split / "index.npz")
            self._check(index)
        except DAMAGED_ARRAY as error:
            raise UserError(
                f"patch store {folder / split} is damaged ({error}): delete it and make it again "
                "with preprocess_coco_full_dataset.py"
            ) from error
        self.label, self.labeled, self.tag = index["label"], index["labeled"], index["tag"]
        self.micrograph, self.centre = index["micrograph"], index["centre"]

    def _check(self, index: dict[str, np.ndarray]) -> None:
        """Raise ValueError unless patches, index and metadata.json fit together."""
        shape, n = self.patches.shape, self.counts["n_patches"]
        if self.patches.dtype != np.uint8 or len(shape) != 3 or shape[1] != shape[2]:
            raise ValueError(f"patches are {self.patches.dtype} of shape {shape}")
        if self.picked is not None and (self.picked.dtype, self.picked.shape) != (np.uint8, shape):
            raise ValueError(f"picked is {self.picked.dtype} of shape {self.picked.shape}")
        if not shape[0] == len(index["label"]) == n:
            raise ValueError(f"{shape[0]} patches, {len(index['label'])} rows, {n} expected")
        for name, (kind, of_one) in INDEX.items():
            if index[name].dtype != kind or index[name].shape != (n, *of_one):
                raise ValueError(f"{name} is {index[name].dtype} of shape {index[name].shape}")
        for name, n_values in (
            ("label", 2), ("tag", len(TAG_NAMES)), ("micrograph", len(self.names))
        ):  # fmt: skip
            if n and not 0 <= index[name].min() <= index[name].max() < n_values:
                raise ValueError(f"{name} is not below {n_values} everywhere")

    def __len__(self) -> int:
        return len(self.label)

    def __reduce__(self) -> tuple:
        # A worker that is not forked opens the memory map anew; pickling would copy all of it.
        return PatchStore, (self.folder, self.split)

    @property
    def patch_size_px(self) -> int:
        """Side of a patch."""
        return self.patches.shape[1]

    @property
    def windows(self) -> dict[str, float] | None:
        """How windows about a few picks were made (preprocessing/windows.py); None of patches."""
        return self.metadata.get("windows")

    @property
    def truth_known(self) -> bool:
        """Whether the class of what is not labelled is known; of windows it is not."""
        return self.windows is None

    @property
    def input(self) -> dict[str, Any]:
        """What picking must do to a micrograph to get such patches: goes into checkpoints."""
        return {"patch_size_px": self.patch_size_px, **(self.windows or {})}

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """Return a copy of the patches of these rows, uint8 (n, p, p)."""
        return np.array(self.patches[rows])


def read_metadata(folder: Path) -> dict:
    """Return a finished store's `metadata.json`; raises `UserError` when there is none."""
    if not (folder / "metadata.json").is_file():
        raise UserError(
            f"{folder} is not a finished patch store (no metadata.json): make it with "
            "preprocess_coco_full_dataset.py, or run that again to finish it"
        )
    metadata = read_json(folder / "metadata.json")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("splits"), dict):
        raise UserError(f"{folder / 'metadata.json'} is not a patch store's: make the store again")
    if not isinstance(metadata.get("made_from", {}), dict):
        raise UserError(f"{folder / 'metadata.json'} is damaged (made_from): make the store again")
    return metadata


def _requirements(metadata: dict) -> Iterator[tuple[bool, str]]:
    """Yield what training reads of metadata.json: whether it is there, and what is wrong if not."""
    yield isinstance(metadata.get("content_hash"), str), "no content_hash"
    windows: Any = metadata.get("windows")
    if windows is not None:
        yield isinstance(windows, dict), "windows are not described"
        for key in WINDOW_KEYS:
            valid = is_number(windows.get(key)) and windows[key] > 0
            yield valid, f"{key} of windows is missing"
    for name, counts in metadata["splits"].items():
        listed: Any = counts.get("micrographs") if isinstance(counts, dict) else None
        yield isinstance(listed, list), f"no micrographs in split {name}"
        yield type(counts.get("n_patches")) is int, f"no n_patches in split {name}"
        for m in listed:
            valid = isinstance(m, dict) and isinstance(m.get("name"), str)
            valid = valid and isinstance(m.get("empiar_id", 0), str | None)
            yield valid, f"a micrograph without name or empiar_id in split {name}"
        for key in ("actual_prior", "pool_prior", "unlabeled_prior"):
            valid = counts.get(key) is None or is_number(counts[key])
            yield valid, f"{key} of split {name} is no number"
