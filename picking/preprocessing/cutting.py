"""Cut what a plan says from a micrograph, for `picking/stores/writer.py`."""

from pathlib import Path

import numpy as np

from picking.files import sha256
from picking.formats.micrographs import scale_micrograph
from picking.preprocessing.plan import MicrographPlan
from picking.stores.journal import Journal
from picking.stores.patches import (
    TAG_NEGATIVE,
    TAG_OFF_CENTRE,
    TAG_OUTLIER,
    TAG_PARTICLE,
    TAG_WINDOW,
)
from picking.stores.writer import Filling


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
