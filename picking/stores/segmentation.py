"""The segmentation store as it is read: images with masks, a batch at a time, never all at once.

`preprocess_coco_full_dataset.py --tasks segmentation` writes it; picking/stores/masks.py says how.
"""

import mmap
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from picking.config import SegmentationDataConfig
from picking.errors import UserError
from picking.files import DAMAGED_ARRAY, is_number, open_array, read_json
from picking.micrographs.preparation import MAKE_AGAIN, require_preparation
from picking.stores.masks import RESIZES

MAKE = "make it, or finish it, with preprocess_coco_full_dataset.py --tasks segmentation"


class SegmentationStore:
    """One split of a segmentation store, e.g. data/cryotransformer_preprocessed/train.

    Attributes: images and masks, uint8 (n, S, S), memory maps; names of the images, each its own;
    micrographs and ids, the micrograph and the EMPIAR id of each; n_particles int64 (n,), listed
    particles whose centre lies in the image; diameters_px float64 (n, 2), along y and x, of a
    particle there as its micrograph was prepared, None in older stores; checksums int64 (n,),
    CRC-32 of the images' bytes; content_hash; coarseness of the coarsest micrograph, as `coarsest`
    has it; size_px, S; tiles, resize and disk, how a micrograph became images and masks
    (picking/stores/masks.py).
    Raises `UserError` when the split is missing, unfinished or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        _require_finished(folder)
        index = read_json(folder / "index.json")
        if isinstance(index, dict):
            said, what = index.get("preparation"), f"segmentation store {folder}"
            require_preparation(said, what, MAKE_AGAIN)
        try:
            self.content_hash: str = index["content_hash"]
            self.size_px: int = index["size_px"]
            self.tiles: int = index["tiles"]
            self.disk: float = index["disk"]
            self.resize: str = index["resize"]
            self.coarseness: float | None = index.get("coarseness")
            listed = index["images"]
            self.names: list[str] = [image["name"] for image in listed]
            self.micrographs: list[str] = [image["micrograph"] for image in listed]
            self.ids: list[str | None] = [image["empiar_id"] for image in listed]
            self.n_particles = np.array([image["n_particles"] for image in listed], np.int64)
            diameters = [image.get("diameter_px") for image in listed]
            self.diameters_px = None if None in diameters else np.array(diameters, np.float64)
            self.checksums = np.array([image["checksum"] for image in listed], np.int64)
            # Copy-on-write: torch warns of arrays that are read-only; the files stay as they are
            self.images = open_array(folder / "images.npy", "c")
            self.masks = open_array(folder / "masks.npy", "c")
            self._check()
        except DAMAGED_ARRAY as error:
            raise UserError(
                f"segmentation store {folder} is damaged ({type(error).__name__}: {error}): delete "
                "it and make it again with preprocess_coco_full_dataset.py --tasks segmentation"
            ) from error

    def _check(self) -> None:
        """Raise ValueError unless index.json, images and masks are whole and fit together."""
        texts = (self.content_hash, *self.names, *self.micrographs, *filter(None, self.ids))
        if not (
            all(isinstance(text, str) and text for text in texts)
            and len(set(self.names)) == len(self.names)
            and type(self.size_px) is type(self.tiles) is int
            and self.resize in RESIZES
            and is_number(self.disk)
            and (self.coarseness is None or is_number(self.coarseness))
            and 0 < self.disk <= 1
            and (self.n_particles >= 0).all()
            and _are_diameters(self.diameters_px, len(self.names))
            and self.n_particles.shape == self.checksums.shape
        ):
            raise ValueError("index.json does not describe images")
        if self.images.shape != (len(self.names), self.size_px, self.size_px):
            raise ValueError(f"{len(self.names)} images of {self.size_px} px are not what is there")
        _require_pairs(self.images, self.masks, str(self.folder))

    def __len__(self) -> int:
        return len(self.names)

    def __reduce__(self) -> tuple:
        # A worker that is not forked opens the memory maps anew; pickling would copy all of them.
        return SegmentationStore, (self.folder,)


class SegmentationBatch(NamedTuple):
    """Images and masks, uint8 (b, S, S); is_training marks a batch that is to be augmented.

    A mask is 0 for background, 1 for particles, 255 where neither is known. unlabeled: further
    images, uint8 (u, S, S), that have no masks (picking/active_learning/unlabeled.py).
    """

    images: np.ndarray
    masks: np.ndarray
    is_training: bool
    unlabeled: np.ndarray | None = None


class CryoEMSegmentationDataset(Dataset):
    """Images with their masks, read by whole batches: ``dataset[positions]``.

    images, masks: uint8 (n, S, S), memory maps or arrays, or the .npy files to map. rows: the
    positions in them that make up the data set, in its order; all by default. Nothing is copied
    until a batch is asked for. Images come as they are stored: ``is_training`` only marks the
    batches, for whoever augments them on the device. Raises `UserError` when images and masks do
    not belong together.
    """

    def __init__(self, images: Any, masks: Any, is_training: bool, rows: Any = None) -> None:
        images, masks = (open_array(a, "c") if isinstance(a, Path) else a for a in (images, masks))
        _require_pairs(images, masks, "segmentation data set")
        self.images, self.masks, self.is_training = images, masks, is_training
        self.rows = np.arange(len(images))[slice(None) if rows is None else rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, positions: Any) -> SegmentationBatch:
        """Return a copy of the images and masks at these positions of the data set."""
        rows = np.atleast_1d(self.rows[positions])
        return SegmentationBatch(
            np.asarray(self.images[rows]), np.asarray(self.masks[rows]), self.is_training
        )

    def __reduce__(self) -> tuple:
        # A worker that is not forked opens memory maps anew; pickling would copy all of them. A
        # part of one has the whole as its base.
        arrays = (
            Path(array.filename) if isinstance(getattr(array, "base", None), mmap.mmap) else array
            for array in (self.images, self.masks)
        )
        return CryoEMSegmentationDataset, (*arrays, self.is_training, self.rows)


class Splits(NamedTuple):
    """The pool, of which some images are labelled, and what is held out."""

    train: SegmentationStore
    val: SegmentationStore
    test: SegmentationStore | None


def open_splits(data: SegmentationDataConfig, depth: int) -> Splits:
    """Open the training, validation and, where there is one, test images.

    depth: how often the network halves them. Raises `UserError` when a split is not there, when
    they do not fit together or the network, or when one holds images of another.
    """
    train_store = SegmentationStore(Path(data.train_dir))
    val_store = SegmentationStore(Path(data.val_dir))
    test_dir = None if data.test_dir is None else Path(data.test_dir)
    if data.test_dir == "auto":
        beside = Path(data.val_dir).parent / "test"
        test_dir = beside if beside.is_dir() else None
    test_store = None if test_dir is None else SegmentationStore(test_dir)
    for name, store in (("validation", val_store), ("test", test_store)):
        if store is None:
            continue
        require_separate(train_store, store, name)
        if store.size_px != train_store.size_px:
            raise UserError(
                f"{store.folder} has images of {store.size_px} px, {train_store.folder} of "
                f"{train_store.size_px} px: make both with the same --seg-size"
            )
    if test_store is not None:
        require_separate(val_store, test_store, "test")
    if not val_store.n_particles.any():
        raise UserError(f"{val_store.folder} holds no particle: F1 needs some to validate on")
    if train_store.size_px % 2**depth:
        raise UserError(
            f"the images of {train_store.folder} have {train_store.size_px} px, which a network of "
            f"model.depth {depth} cannot halve so often: choose a --seg-size that {2**depth} "
            "divides, or another depth"
        )
    return Splits(train_store, val_store, test_store)


def require_separate(train: SegmentationStore, other: SegmentationStore, name: str) -> None:
    """Raise `UserError` when an image of ``other``, the split called ``name``, is in ``train``.

    It is when its micrograph has the same name there, suffix aside, or when an image there has the
    same bytes.
    """
    by_name = {PurePath(one).with_suffix(""): one for one in train.micrographs}
    by_checksum: dict[int, list[int]] = {}
    for row, checksum in enumerate(train.checksums.tolist()):
        by_checksum.setdefault(checksum, []).append(row)
    common = []
    for row, micrograph in enumerate(other.micrographs):
        same_name = by_name.get(PurePath(micrograph).with_suffix(""))
        if same_name is not None:
            common.append(f"{other.names[row]} by name")
            continue
        for there in by_checksum.get(int(other.checksums[row]), ()):
            # Equal checksums say nothing yet: of many images, some pair shares one by chance
            if np.array_equal(train.images[there], other.images[row]):
                common.append(f"{other.names[row]} by content, as {train.names[there]}")
                break
    if common:
        raise UserError(
            f"{len(common)} of {len(other)} {name} images ({other.folder}) are among those of "
            f"{train.folder}: {'; '.join(common[:3])}{'; ...' if len(common) > 3 else ''}: "
            "take them out of one split and preprocess again"
        )


def _are_diameters(diameters_px: np.ndarray | None, n: int) -> bool:
    """Return whether there are none, or two above 0 for each of n images."""
    if diameters_px is None:
        return True
    return diameters_px.shape == (n, 2) and bool((diameters_px > 0).all())


def _require_finished(folder: Path) -> None:
    if not (folder / "index.json").is_file():
        splits = sorted(path.parent for path in folder.glob("*/index.json"))
        raise UserError(
            f"{folder} is not a finished split of a segmentation store (no index.json): "
            + (f"give one of its splits, such as {splits[0]}" if splits else MAKE)
        )


def _require_pairs(images: np.ndarray, masks: np.ndarray, where: str) -> None:
    """Raise `UserError` unless both are uint8 (n, S, S) of the same n and S."""
    if images.ndim != 3 or any(
        (one.dtype, one.shape) != (np.uint8, images.shape) for one in (images, masks)
    ):
        raise UserError(
            f"{where}: images and masks must be uint8 of one shape (n, S, S), not {images.dtype} "
            f"{images.shape} and {masks.dtype} {masks.shape}: preprocess again"
        )
