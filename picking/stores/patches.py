"""The patch store, read through a memory map."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from picking.errors import UserError
from picking.files import DAMAGED_ARRAY, is_number, open_array, read_arrays, read_json

# What a row of the store is (index.npz, `tag`).
TAG_PARTICLE, TAG_NEGATIVE, TAG_OFF_CENTRE, TAG_OUTLIER, TAG_WINDOW = range(5)
WINDOW_KEYS = ("scale", "diameter_px", "reach_px")  # of windows in metadata.json
TAG_NAMES = ("particle", "negative", "off-centre negative", "outlier negative", "unknown window")
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

    Attributes: patches uint8 (n, p, p), a memory map; label uint8 (n,), true class, or where
    rows are windows 1 for the labelled and 0 for all else; labeled bool (n,); micrograph int32
    (n,), into ``names``; centre float32 (n, 2), (y, x) in px; tag uint8 (n,), see `TAG_NAMES`;
    windows, how windows about a few picks were made (`WINDOW_KEYS`), and picked uint8 (n, p, p), a
    memory map, where a place of them is near a pick, both None of patches; metadata, the whole
    `metadata.json`; counts, this split's part of it.
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
        self.windows: Any = self.metadata.get("windows")
        self.names: list[str] = [m["name"] for m in self.counts["micrographs"]]
        self.ids: list[str | None] = [m["empiar_id"] for m in self.counts["micrographs"]]
        try:
            self.patches = open_array(folder / split / "patches.npy")
            self.picked: Any = None
            if self.windows:
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
