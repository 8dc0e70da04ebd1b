"""The patch store, read through a memory map."""

from pathlib import Path
from typing import Any

import numpy as np

from picking.errors import UserError
from picking.files import DAMAGED_ARRAY, is_number, open_array, read_arrays, read_json
from picking.micrographs.preparation import MAKE_AGAIN, require_preparation

# What a row of the store is (index.npz, `tag`).
TAG_PARTICLE, TAG_NEGATIVE, TAG_OFF_CENTRE, TAG_OUTLIER, TAG_WINDOW, TAG_NO_PARTICLE = range(6)
# What is known of a place of a window (picked.npy): nothing, it is near a pick, it is no particle;
# or it is in no term of the risk, as junk that somebody painted
UNKNOWN, NEAR_PICK, NO_PARTICLE, IGNORED = range(4)
WINDOW_KEYS = ("scale", "diameter_px", "reach_px")  # of windows in metadata.json
PRIOR_KEYS = ("actual_prior", "pool_prior", "unlabeled_prior")
SHARE_KEYS = ("negative_share", "unknown_share")  # of places, where some are known negatives
TAG_NAMES = ("particle", "negative", "off-centre negative", "outlier negative", "unknown window",
             "window about what is no particle")  # fmt: skip
# What index.npz holds of n patches: name -> type and shape of what belongs to one.
INDEX: dict[str, tuple[type, tuple[int, ...]]] = {
    "label": (np.uint8, ()),
    "labeled": (np.bool_, ()),
    "micrograph": (np.int32, ()),
    "centre": (np.float32, (2,)),
    "tag": (np.uint8, ()),
}


class PatchStore:
    """One split of a finished patch store, as a data set that is read a batch at a time.

    Attributes:
        patches: uint8 (n, p, p), a memory map.
        label: uint8 (n,), the true class; of windows 1 for the labelled, 0 for all else.
        labeled: bool (n,).
        about_negative: bool (n,), windows about what somebody said is no particle.
        complete: bool (m,) of ``names``, micrographs on which every particle is picked.
        micrograph: int32 (n,), into ``names``.
        centre: float32 (n, 2), (y, x) in px.
        tag: uint8 (n,), see `TAG_NAMES`.
        windows: how windows about a few picks were made (`WINDOW_KEYS`); None of patches.
        picked: uint8 (n, p, p), a memory map: `UNKNOWN`, `NEAR_PICK`, `NO_PARTICLE` or `IGNORED`;
            None of patches.
        coarseness: of the coarsest micrograph that has particles, as `coarsest` has it.
        metadata: the whole `metadata.json`; counts: this split's part of it.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.folder, self.split = folder, split
        self.metadata = read_metadata(folder)
        if split not in self.metadata["splits"]:
            there = ", ".join(self.metadata["splits"])
            raise UserError(f"patch store {folder} has no split '{split}'; there are: {there}")
        require_preparation(self.metadata.get("preparation"), f"patch store {folder}", MAKE_AGAIN)
        self.counts = self.metadata["splits"][split]
        self.windows: Any = self.metadata.get("windows")
        self.coarseness: Any = self.metadata.get("coarseness")
        self.picked: Any = None
        try:
            self.names: list[str] = [m["name"] for m in self.counts["micrographs"]]
            self.ids: list[str | None] = [m["empiar_id"] for m in self.counts["micrographs"]]
            complete = [m.get("complete", False) is True for m in self.counts["micrographs"]]
            self.complete: np.ndarray = np.array(complete, bool)
            self.patches = open_array(folder / split / "patches.npy")
            if self.windows is not None:
                self.picked = open_array(folder / split / "picked.npy")
            index = read_arrays(folder / split / "index.npz")
            self._check(index)
        except (*DAMAGED_ARRAY, AttributeError, IndexError) as error:
            raise UserError(
                f"patch store {folder / split} is damaged ({error}): delete it and make it again "
                "with preprocess_coco_full_dataset.py"
            ) from error
        self.label, self.labeled, self.tag = index["label"], index["labeled"], index["tag"]
        self.micrograph, self.centre = index["micrograph"], index["centre"]
        self.about_negative: np.ndarray = self.tag == TAG_NO_PARTICLE

    def _check(self, index: dict[str, np.ndarray]) -> None:
        """Raise one of `DAMAGED_ARRAY` unless patches, index and metadata.json fit together."""
        micrographs, n, side = self.counts["micrographs"], len(index["label"]), self.patch_size_px
        sizes = [self.windows[key] for key in WINDOW_KEYS] if self.windows is not None else []
        priors = [self.counts.get(key) for key in (*PRIOR_KEYS, *SHARE_KEYS)]
        if not (
            isinstance(self.metadata["content_hash"], str)
            and all(isinstance(name, str) for name in self.names)
            and all(isinstance(m["empiar_id"], str | None) for m in micrographs)
            and all(prior is None or is_number(prior) for prior in priors)
            and all(is_number(size) and size > 0 for size in sizes)
            and (self.coarseness is None or is_number(self.coarseness))
            and n == self.counts["n_patches"]
        ):
            raise ValueError(f"metadata.json does not describe split {self.split}")
        for name, array in (("patches", self.patches), ("picked", self.picked)):
            if array is not None and (array.dtype, array.shape) != (np.uint8, (n, side, side)):
                raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, not of {n} rows")
        for name, (kind, of_one) in INDEX.items():
            if index[name].dtype != kind or index[name].shape != (n, *of_one):
                raise ValueError(f"{name} is {index[name].dtype} of shape {index[name].shape}")
        n_values = {"label": 2, "tag": len(TAG_NAMES), "micrograph": len(self.names)}
        for name, end in n_values.items():
            if n and not 0 <= index[name].min() <= index[name].max() < end:
                raise ValueError(f"{name} is not below {end} everywhere")

    def __len__(self) -> int:
        return len(self.label)

    def __reduce__(self) -> tuple:
        # A worker that is not forked opens the memory map anew; pickling would copy all of it.
        return PatchStore, (self.folder, self.split)

    @property
    def patch_size_px(self) -> int:
        """Side of a patch."""
        return self.patches.shape[1]

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
    sections = {"made_from": {}, **metadata} if isinstance(metadata, dict) else {}
    if not all(isinstance(sections.get(key), dict) for key in ("splits", "made_from")):
        raise UserError(
            f"{folder / 'metadata.json'} is damaged or not a patch store's: make the store again"
        )
    return metadata
