"""The finished patch store as it is read, and what of it is damage."""

import json

import numpy as np
import pytest
from PIL import Image

from picking.errors import UserError
from picking.micrographs.preparation import PREPARATION, prepare
from picking.preprocessing.cutting import cut_patches
from picking.stores.patches import PatchStore
from tests.fixtures.plans import PATCH_PX, cut, plan, records_on_disk


@pytest.fixture
def finished(tmp_path):
    """The folder of a store of one micrograph, its record and its plan."""
    (one, *_) = records_on_disk(tmp_path / "images")
    (planned,) = plan([one])
    cut(tmp_path / "store", [planned])
    edit_metadata(tmp_path / "store", planned.n_rows)
    return tmp_path / "store", one, planned


def edit_metadata(folder, n_patches, name="0.png", **changes):
    counts = {"n_patches": n_patches, "micrographs": [{"name": name, "empiar_id": "10017"}]}
    content = {"content_hash": "x", "preparation": PREPARATION, "splits": {"train": counts}}
    content |= changes
    (folder / "metadata.json").write_text(json.dumps(content))


def test_a_finished_store_reads_its_rows_through_a_memory_map(finished):
    folder, one, planned = finished
    store = PatchStore(folder, "train")
    assert len(store) == planned.n_rows and isinstance(store.patches, np.memmap)
    assert store.names == ["0.png"] and store.ids == ["10017"]
    assert store.labeled.sum() == len(planned.labelled_px)
    rows = np.array([3, 0, 5])
    prepared = prepare(np.asarray(Image.open(one.path)), (20, 20))
    wanted = cut_patches(prepared, store.centre[rows], PATCH_PX)
    np.testing.assert_array_equal(store[rows], wanted)


def refused(folder, words="train is damaged", split="train"):
    with pytest.raises(UserError, match=words):
        PatchStore(folder, split)


def test_an_unfinished_and_a_damaged_store_are_clear_errors(finished):
    folder, _, planned = finished
    refused(folder, "no split 'val'; there are: train", split="val")
    for name in ("patches.npy", "index.npz"):
        whole = (folder / "train" / name).read_bytes()
        (folder / "train" / name).write_bytes(whole[:-200])
        refused(folder)
        (folder / "train" / name).write_bytes(whole)
    edit_metadata(folder, planned.n_rows + 1)
    refused(folder)
    (folder / "metadata.json").write_text("[]")
    refused(folder, r"metadata\.json")
    (folder / "metadata.json").unlink()
    refused(folder, "is not a finished patch store")


@pytest.mark.parametrize("preparation", [None, "none", 3])
def test_a_store_whose_micrographs_were_prepared_in_another_way_is_refused(finished, preparation):
    folder, _, planned = finished
    edit_metadata(folder, planned.n_rows, preparation=preparation)
    refused(folder, "store is of another version, .* make it again with preprocess_coco")


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
def test_an_index_that_does_not_fit_the_store_is_damage(finished, name, change):
    path = finished[0] / "train" / "index.npz"
    index = dict(np.load(path))
    np.savez(path, **{**index, name: change(index[name])})
    refused(finished[0], f"train is damaged .*{name}")


@pytest.mark.parametrize("shape", [(10**12, 32, 32), (-1, 32, 32), (), (5, 32, 30)])
def test_patches_whose_header_lies_are_damage(finished, shape):
    with (finished[0] / "train" / "patches.npy").open("r+b") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
    refused(finished[0])


@pytest.mark.parametrize("name", [5, None, ["a"]])
def test_a_store_whose_metadata_lacks_what_training_reads_is_damage(finished, name):
    folder, _, planned = finished
    edit_metadata(folder, planned.n_rows, name)
    refused(folder, r"train is damaged .*metadata\.json")
