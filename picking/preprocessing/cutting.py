"""Patches cut from a micrograph, and what writes them into a split of a patch store."""

import abc
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from picking.files import write_saved
from picking.stores.journal import Journal
from picking.stores.patches import TAG_PARTICLE
from picking.stores.writer import Plan, SplitWriter


class Group(NamedTuple):
    """Rows of one micrograph that are of one kind: centres float64 (n, 2), (y, x) in px."""

    centres_px: np.ndarray
    tag: int  # picking.stores.patches.TAG_...
    is_labelled: bool


@dataclasses.dataclass(frozen=True)
class CutPlan(Plan):
    """Rows of ``patch_size_px`` that are cut about centres.

    labelled_px: float64 (n, 2), centres (y, x) in px, as those of all groups.
    """

    patch_size_px: int
    labelled_px: np.ndarray

    @abc.abstractmethod
    def groups(self, noted: dict) -> list[Group]:
        """Return the rows in their order; noted: what the journal says of the micrograph."""

    @abc.abstractmethod
    def counts(self) -> dict:
        """Return what metadata.json says of this micrograph beside its name."""


def cut_patches(image: np.ndarray, centres_px: np.ndarray, patch_size_px: int) -> np.ndarray:
    """Cut square patches whose pixel [p // 2, p // 2] is the rounded centre.

    image: uint8 (h, w); centres_px: (n, 2), (y, x), inside the image. Returns uint8 (n, p, p).
    Beyond its edge the image is mirrored (the edge pixel is not repeated), so that no centre moves.
    """
    corners = nearest_pixels(centres_px, image.shape) - patch_size_px // 2
    beyond = max(-corners.min(initial=0), (corners + patch_size_px - image.shape).max(initial=0))
    if beyond:  # rare, and as dear as cutting
        image = np.pad(image, beyond, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(image, (patch_size_px, patch_size_px))
    return windows[corners[:, 0] + beyond, corners[:, 1] + beyond]


def nearest_pixels(centres_px: np.ndarray, size_px: tuple[int, ...]) -> np.ndarray:
    """Return the pixels nearest to points inside an image, int (n, 2)."""
    # 0.5 px beyond the last one rounds up
    return np.minimum(np.rint(centres_px).astype(int), np.array(size_px) - 1)


def patch_writer(folder: Path, plans: Sequence[CutPlan], journal: Journal) -> SplitWriter:
    """Return what writes the patches or windows of a split into ``folder``, with index.npz."""

    def write_index() -> None:
        noted = journal.noted(folder.name)
        groups = [(i, group) for i, plan in enumerate(plans) for group in plan.groups(noted[i])]

        def column(values: list, kind: type) -> np.ndarray:
            """Repeat the value of each group for each of its rows."""
            return np.repeat(np.array(values, kind), [len(group.centres_px) for _, group in groups])

        tag = column([group.tag for _, group in groups], np.uint8)
        index = {
            "label": (tag == TAG_PARTICLE).astype(np.uint8),
            "labeled": column([group.is_labelled for _, group in groups], np.bool_),
            "micrograph": column([i for i, _ in groups], np.int32),
            "centre": np.concatenate([g.centres_px for _, g in groups]).astype(np.float32),
            "tag": tag,
        }
        write_saved(folder / "index.npz", lambda file: np.savez(file, **index))

    return SplitWriter(folder, journal, plans, "index.npz", write_index)
