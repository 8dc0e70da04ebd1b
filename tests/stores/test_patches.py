"""The finished patch store as it is read, and what of it is damage."""

import json

import numpy as np
import pytest
from PIL import Image

from picking.errors import UserError
from picking.preprocessing.cutting import cut_patches
from picking.stores.patches import PatchStore
from tests.fixtures.plans import PATCH_PX, cut, plan, records_on_disk


@pytest.fixture
def images(tmp_path):
    return records_on_disk(tmp_path / "images")


def finish(folder, n_patches):
    counts = {"n_patches": n_patches, "micrographs": [{"name": "0.png", "empiar_id": "10017"}]}
    (folder / "metadata.json").write_text(
        json.dumps({"content_hash": "x", "splits": {"train": counts}})
    )


def test_a_finished_store_reads_its_rows_through_a_memory_map(tmp_path, images):
    plans = plan(images[:1])
    cut(tmp_path, plans)
    finish(tmp_path, plans[0].n_rows)
    store = PatchStore(tmp_path, "train")
    assert len(store) == plans[0].n_rows and isinstance(store.patches, np.memmap)
    assert store.names == ["0.png"] and store.ids == ["10017"]
    assert store.labeled.sum() == len(plans[0].labelled_px)
    image = np.asarray(Image.open(images[0].path))
    rows = np.array([3, 0, 5])
    np.testing.assert_array_equal(store[rows], cut_patches(image, store.centre[rows], PATCH_PX))


def test_an_unfinished_and_a_damaged_store_are_clear_errors(tmp_path, images):
    plans = plan(images[:1])
    cut(tmp_path, plans)
    with pytest.raises(UserError, match="is not a finished patch store"):
        PatchStore(tmp_path, "train")
    finish(tmp_path, plans[0].n_rows)
    with pytest.raises(UserError, match="has no split 'val'; there are: train"):
        PatchStore(tmp_path, "val")
    for name in ("patches.npy", "index.npz"):
        path = tmp_path / "train" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-200])
        with pytest.raises(UserError, match="train is damaged"):
            PatchStore(tmp_path, "train")
        path.write_bytes(whole)
    finish(tmp_path, plans[0].n_rows + 1)
    with pytest.raises(UserError, match="train is damaged"):
        PatchStore(tmp_path, "train")
    (tmp_path / "metadata.json").write_text("[]")
    with pytest.raises(UserError, match=r"metadata\.json"):
        PatchStore(tmp_path, "train")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("micrograph", lambda a: a + 7),
        ("label", lambda a: a + 2),
        ("tag", lambda a: a.astype(float)),
        ("centre", lambda a: a[:, :1]),
        ("labeled", lambda a: a[:-1]),
    ],
)
def test_an_index_that_does_not_fit_the_store_is_damage(tmp_path, images, name, change):
    plans = plan(images[:1])
    cut(tmp_path, plans)
    finish(tmp_path, plans[0].n_rows)
    path = tmp_path / "train" / "index.npz"
    index = dict(np.load(path))
    index[name] = change(index[name])
    np.savez(path, **index)
    with pytest.raises(UserError, match=f"train is damaged .*{name}"):
        PatchStore(tmp_path, "train")


@pytest.mark.parametrize("shape", [(10**12, 32, 32), (-1, 32, 32), (), (5, 32, 30)])
def test_patches_whose_header_lies_are_damage(tmp_path, images, shape):
    plans = plan(images[:1])
    cut(tmp_path, plans)
    finish(tmp_path, plans[0].n_rows)
    with (tmp_path / "train" / "patches.npy").open("r+b") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(UserError, match="train is damaged"):
        PatchStore(tmp_path, "train")


@pytest.mark.parametrize("name", [5, None, ["a"]])
def test_a_store_whose_metadata_lacks_what_training_reads_is_damage(tmp_path, images, name):
    plans = plan(images[:1])
    cut(tmp_path, plans)
    finish(tmp_path, plans[0].n_rows)
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    metadata["splits"]["train"]["micrographs"][0]["name"] = name
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(UserError, match=r"train is damaged .*metadata\.json"):
        PatchStore(tmp_path, "train")
