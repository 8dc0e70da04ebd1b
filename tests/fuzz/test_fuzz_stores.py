"""Patch and segmentation stores, finished and not."""

import io
import json

import numpy as np
import pytest
from hypothesis import strategies as st

from picking.config import SegmentationDataConfig
from picking.pu_learning.samplers import PUBatchSampler
from picking.stores.journal import Journal
from picking.stores.patches import PatchStore
from picking.stores.segmentation import CryoEMSegmentationDataset, open_splits

from . import originals
from .mutators import damaged_array, damaged_bytes, damaged_json, damaged_text, damaged_tree
from .oracle import ENDS, outcome, run_cases, short


def spoil_json(draw, path):
    path.write_bytes(draw(damaged_json(path.read_bytes())))


def spoil_array(draw, path):
    """Change an .npy file: its header, its bytes, or what array it holds."""
    if draw(st.booleans()):
        path.write_bytes(draw(damaged_bytes(path.read_bytes(), hot=128)))
        return
    whole = path.read_bytes()
    if draw(st.booleans()):
        np.save(path, draw(damaged_array(np.load(path))))
        return
    shapes = ((10**12, 32, 32), (-1, 32, 32), (2**62, 2, 2), (0, 32, 32), (), (5,), (3, 32, 10**9))
    header = {"descr": draw(st.sampled_from(("|u1", "|O", "<f8", "|V1"))), "fortran_order": False,
              "shape": draw(st.sampled_from(shapes))}  # fmt: skip
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, header)
    path.write_bytes(buffer.getvalue() + whole[128:])


def use_patches(folder):
    """Open both splits and read what training reads."""
    for split in ("train", "val"):
        store = PatchStore(folder, split)
        assert store.patches.dtype == np.uint8 and store[: len(store)].ndim == 3
        assert len(store.names) > store.micrograph.max(initial=-1)
        next(iter(PUBatchSampler(store.labeled, 10)))
        np.bincount(store.label), [store.ids[i] for i in store.micrograph]


def patch_metadata(draw, folder):
    store = originals.copy(originals.patch_store(), folder / "store")
    spoil_json(draw, store / "metadata.json")
    return outcome(lambda: use_patches(store), ["store"])


def window_metadata(draw, folder):
    store = originals.copy(originals.window_store(), folder / "store")
    whole = json.loads((store / "metadata.json").read_text())
    whole["windows"] = draw(damaged_tree(whole["windows"]))
    (store / "metadata.json").write_text(json.dumps(whole))
    return outcome(lambda: use_patches(store), ["store"])


def patch_index(draw, folder):
    store = originals.copy(originals.patch_store(), folder / "store")
    path = store / "train" / "index.npz"
    if draw(st.booleans()):
        path.write_bytes(draw(damaged_bytes(path.read_bytes(), hot=300)))
    else:
        index = dict(np.load(path))
        key = draw(st.sampled_from(sorted(index)))
        if draw(st.integers(0, 5)) == 0:
            del index[key]
        else:
            index[key] = draw(damaged_array(index[key]))
        np.savez(path, **index)
    return outcome(lambda: use_patches(store), ["store"])


def patches(draw, folder):
    store = originals.copy(originals.patch_store(), folder / "store")
    spoil_array(draw, store / "train" / "patches.npy")
    return outcome(lambda: use_patches(store), ["store"])


def use_images(root):
    """Open the splits and read what training reads."""
    data = SegmentationDataConfig(str(root / "train"), str(root / "val"))
    train, val, test = open_splits(data, depth=2)
    for store in (train, val, test):
        batch = CryoEMSegmentationDataset(store.images, store.masks, True)[np.arange(len(store))]
        assert batch.images.dtype == batch.masks.dtype == np.uint8
        assert store.n_particles.shape == store.checksums.shape == (len(store),)
        assert all(isinstance(name, str) for name in (*store.names, *store.micrographs))
        assert len(set(store.names)) == len(store.names)
        assert isinstance(store.content_hash, str)


def image_index(draw, folder):
    store = originals.copy(originals.segmentation_store(), folder / "store")
    spoil_json(draw, store / "train" / "index.json")
    return outcome(lambda: use_images(store), ["store"])


def images(draw, folder):
    store = originals.copy(originals.segmentation_store(), folder / "store")
    spoil_array(draw, store / "train" / draw(st.sampled_from(("images.npy", "masks.npy"))))
    return outcome(lambda: use_images(store), ["store"])


MADE_FROM = {"format": 1, "splits": ["train", "val"]}


def journal(draw, folder):
    """The journal of an unfinished store."""
    path = folder / ".journal"
    whole = Journal(path, MADE_FROM)
    whole.begin("train", "plan", afresh=True)
    for i in range(3):
        whole.add("train", i, {"checksum": i, "image_bytes": 10, "outliers_px": [[1.0, 2.0]]})
    whole.skip("val", ["a.jpg"])
    text = path.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    as_lines = damaged_tree(lines).map(
        lambda tree: "".join(
            json.dumps(line) + "\n" for line in (tree if isinstance(tree, list) else [tree])
        ).encode()
    )
    path.write_bytes(draw(st.one_of(as_lines, damaged_text(text), damaged_bytes(text.encode()))))

    def use():
        again = Journal(path, MADE_FROM)
        again.begin("train", "plan", afresh=False)
        for i in range(3):
            again.holds("train", i, path)
            again.add("train", i, {"checksum": i, "image_bytes": 10})
        again.content_hash()
        assert all(isinstance(name, str) for name in again.skipped["val"])

    return outcome(use, [path.name, folder.name])


CASES = {
    patch_metadata: 80, window_metadata: 30, patch_index: 60, patches: 50, image_index: 80,
    images: 50, journal: 60,
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_damaged_stores_are_read_or_refused_in_one_sentence(case):
    assert set() < run_cases(case, short(CASES[case])) <= ENDS
