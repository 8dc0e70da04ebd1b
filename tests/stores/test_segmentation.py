"""The segmentation store as it is read, splits that overlap, and its data set."""

import json
import pickle
import shutil
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from picking.errors import UserError
from picking.micrographs.preparation import MAKE_AGAIN
from picking.stores.journal import Journal
from picking.stores.masks import MaskSettings, mask_writer
from picking.stores.segmentation import (
    CryoEMSegmentationDataset,
    SegmentationStore,
    require_separate,
)
from picking.stores.writer import write_split
from tests.fixtures.data_sets import picture, some_centres
from tests.fixtures.plans import record

SIZE_PX = (300, 420)  # neither square nor a multiple of a working size


def fill(folder, names, seed=0, side_px=48, tiles=1, damage=None, disk=1.0):
    """Fill a split with micrographs of noise; return what is wrong with them."""
    images = folder.parent / f"images {seed}"
    images.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    records = []
    for name in names:
        records.append(record(name, some_centres(rng, 5, SIZE_PX), images, 40.0))
        image = Image.fromarray(picture(rng, records[-1].centres_px, SIZE_PX))
        image.save(images / name)
        if name == damage:
            (images / name).write_bytes(b"")
    journal = Journal(folder.parent / f".journal {folder.name} {seed}", {"splits": [folder.name]})
    settings = MaskSettings(side_px, "stretch", tiles, 0, disk)
    plans = settings.plan_split(folder.name, records, [SIZE_PX] * len(names))
    return write_split([mask_writer(folder, plans, journal)], n_workers=0)


@pytest.fixture(scope="session")
def filled(tmp_path_factory):
    """A store to copy."""
    folder = tmp_path_factory.mktemp("filled") / "store"
    assert fill(folder / "train", ["a.png", "b.png", "c.png"]) == {}
    return folder


@pytest.fixture
def split(filled, tmp_path):
    """The folder of a split of three images, to be changed by the test."""
    return shutil.copytree(filled, tmp_path / "store") / "train"


def test_a_store_reads_images_and_masks_through_memory_maps(tmp_path):
    folder = tmp_path / "store" / "train"
    fill(folder, ["a.png", "b.png"], tiles=2)
    store = SegmentationStore(folder)
    assert isinstance(store.images, np.memmap) and isinstance(store.masks, np.memmap)
    assert len(store) == 8 and store.images.shape == store.masks.shape == (8, 48, 48)
    assert store.size_px == 48 and store.ids == [None] * 8
    assert store.names[:3] == ["a.png#r0c0", "a.png#r0c1", "a.png#r1c0"]
    assert store.micrographs == ["a.png"] * 4 + ["b.png"] * 4
    assert store.n_particles.reshape(2, 4).sum(axis=1).tolist() == [5, 5]
    assert store.checksums.tolist() == [zlib.crc32(image.tobytes()) for image in store.images]


def test_the_content_hash_tells_stores_of_other_images_or_other_masks_apart(tmp_path):
    fill(tmp_path / "a" / "train", ["a.png"])
    fill(tmp_path / "b" / "train", ["a.png"])
    fill(tmp_path / "c" / "train", ["a.png"], seed=1)
    fill(tmp_path / "d" / "train", ["a.png"], disk=0.6)
    stores = [SegmentationStore(tmp_path / x / "train") for x in "abcd"]
    a, b, c, d = (store.content_hash for store in stores)
    assert a == b and len({a, c, d}) == 3
    assert [store.disk for store in stores] == [1, 1, 1, 0.6]
    journal = Journal(tmp_path / ".journal", {"splits": ["train", "val"]})
    for checksum in (5, 6):  # of images and masks
        journal.add("train", 0, {"checksum": checksum})
        journal.add("val", 0, {"checksum": checksum + 1})
        hashes = {journal.content_hash("train"), journal.content_hash("val")}
        hashes.add(journal.content_hash())
        assert len(hashes) == 3 and not hashes & {a}
        a = journal.content_hash("train")


def test_writing_to_what_was_read_leaves_the_files_alone(split):
    before = (split / "images.npy").read_bytes()
    store = SegmentationStore(split)
    torch.as_tensor(store.images[:2]).fill_(7)
    del store
    assert (split / "images.npy").read_bytes() == before


def edit_index(folder, change):
    index = json.loads((folder / "index.json").read_text())
    change(index)
    (folder / "index.json").write_text(json.dumps(index))


def shorten(name):
    def change(folder):
        path = folder / name
        path.write_bytes(path.read_bytes()[:-100])

    return change


def resave(name, change):
    def apply(folder):
        rows = change(np.load(folder / name))
        np.save(folder / name, rows)

    return apply


def edit(change):
    return lambda folder: edit_index(folder, change)


SPOILT = {
    "not a store": lambda f: [path.unlink() for path in f.iterdir()],
    "unfinished": lambda f: (f / "index.json").unlink(),
    "no masks": lambda f: (f / "masks.npy").unlink(),
    "short images": shorten("images.npy"),
    "short masks": shorten("masks.npy"),
    "no array": lambda f: (f / "images.npy").write_bytes(b"x"),
    "broken index": lambda f: (f / "index.json").write_text("{"),
    "another index": lambda f: (f / "index.json").write_text("[1]"),
    "an index without names": edit(lambda index: index["images"][1].pop("name")),
    "a short index": edit(lambda index: index["images"].pop()),
    "an array of nothing": resave("masks.npy", lambda m: np.array(3)),
    "a header that is no literal": lambda f: (f / "masks.npy").write_bytes(
        b"\x93NUMPY\x01\x00\x04\x00{(((" + bytes(99)
    ),
    "a checksum without end": edit(lambda index: index["images"][0].update(checksum=10**30)),
    "a name that is a list": edit(lambda index: index["images"][0].update(micrograph=["a"])),
    "a name twice": edit(lambda i: i["images"][0].update(name=i["images"][1]["name"])),
    "fewer masks": resave("masks.npy", lambda m: m[:2]),
    "smaller masks": resave("masks.npy", lambda m: m[:, :40, :40]),
    "float masks": resave("masks.npy", lambda m: m.astype(float)),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_spoilt_store_is_a_sentence_that_names_it(split, spoil):
    spoil(split)
    with pytest.raises(UserError, match="train") as error:
        SegmentationStore(split)
    assert "\n" not in str(error.value)


def test_a_store_whose_micrographs_were_prepared_in_another_way_is_refused(split):
    edit(lambda index: index.update(preparation="grey as it is"))(split)
    with pytest.raises(UserError, match=f"store .* is of another version, .* way: {MAKE_AGAIN}"):
        SegmentationStore(split)


def test_a_missing_folder_and_the_folder_above_the_splits_are_sentences(split, tmp_path):
    with pytest.raises(UserError, match=r"nowhere .*--tasks segm"):
        SegmentationStore(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"give one of its splits, such as .*train"):
        SegmentationStore(split.parent)


def test_a_split_that_is_filled_anew_is_unfinished_until_it_is_whole(split):
    assert fill(split, ["a.png", "b.png", "d.png"], seed=0, damage="d.png").keys() == {"d.png"}
    with pytest.raises(UserError, match="not a finished split"):
        SegmentationStore(split)


# Training and validation apart


@pytest.mark.parametrize("name", ["b.png", "b.tif"])
def test_an_image_of_the_same_name_is_refused_whatever_its_suffix_and_content(split, name):
    fill(split.parent / "val", ["x.png", name], seed=1)
    with pytest.raises(UserError, match=rf"1 of 2 validation images .*train: {name} by name: "):
        require_separate(
            SegmentationStore(split), SegmentationStore(split.parent / "val"), "validation"
        )


def test_an_image_of_the_same_content_is_refused_whatever_its_name(split):
    fill(split.parent / "test", ["x.png", "y.png", "z.png"])  # the same seed
    with pytest.raises(UserError, match=r"3 of 3 test images .*x\.png by content, as a\.png; y"):
        require_separate(SegmentationStore(split), SegmentationStore(split.parent / "test"), "test")


def test_an_equal_checksum_alone_is_no_equal_image(split):
    fill(split.parent / "val", ["x.png"], seed=1)
    train, val = SegmentationStore(split), SegmentationStore(split.parent / "val")
    val.checksums[0] = train.checksums[1]
    require_separate(train, val, "validation")
    val.images[0] = train.images[1]
    with pytest.raises(UserError, match=r"x\.png by content, as b\.png"):
        require_separate(train, val, "validation")


# The data set


def pairs(n=6, side_px=8):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, side_px, side_px), dtype=np.uint8)
    return images, rng.integers(0, 2, (n, side_px, side_px), dtype=np.uint8)


def test_a_batch_is_the_images_and_masks_at_the_positions_of_the_rows():
    images, drawn = pairs()
    dataset = CryoEMSegmentationDataset(images, drawn, is_training=True, rows=[4, 1, 5, 1])
    assert isinstance(dataset, Dataset) and len(dataset) == 4
    for positions, rows in (
        ([2, 0], [5, 4]), (np.array([3, 3]), [1, 1]), (slice(1, 3), [1, 5]), (1, [1])
    ):  # fmt: skip
        batch = dataset[positions]
        np.testing.assert_array_equal(batch.images, images[rows])
        np.testing.assert_array_equal(batch.masks, drawn[rows])
        assert batch.images.dtype == batch.masks.dtype == np.uint8
    whole = CryoEMSegmentationDataset(images, drawn, is_training=True)
    np.testing.assert_array_equal(whole[range(6)].images, images)


@pytest.mark.parametrize("is_training", [True, False])
def test_batches_are_marked_and_never_changed(is_training):
    images, drawn = pairs()
    dataset = CryoEMSegmentationDataset(images, drawn, is_training)
    for _ in range(3):
        batch = dataset[[0, 3]]
        assert batch.is_training is is_training
        np.testing.assert_array_equal(batch.images, images[[0, 3]])
    batch.images[:] = 0  # a copy
    assert images[0].any()


def test_rows_that_are_not_there_are_an_error_at_once():
    with pytest.raises(IndexError):
        CryoEMSegmentationDataset(*pairs(), is_training=True, rows=[2, 6])


@pytest.mark.parametrize(("n_masks", "side_px"), [(5, 8), (6, 7)])
def test_masks_that_do_not_belong_to_the_images_are_refused(n_masks, side_px):
    with pytest.raises(UserError, match="one shape"):
        CryoEMSegmentationDataset(pairs()[0], pairs(n_masks, side_px)[1], is_training=True)


def test_a_loader_gives_batches_as_tensors(split):
    store = SegmentationStore(split)
    dataset = CryoEMSegmentationDataset(store.images, store.masks, True, rows=[2, 0])
    loader = DataLoader(dataset, sampler=[np.array([1, 0]), np.array([0])], batch_size=None)
    first, second = loader
    assert first.images.dtype == torch.uint8 and first.is_training is True
    np.testing.assert_array_equal(first.images, store.images[[0, 2]])
    np.testing.assert_array_equal(second.masks, store.masks[[2]])


def test_store_and_data_set_are_pickled_by_their_files_and_parts_of_them_whole(tmp_path):
    folder = tmp_path / "store" / "train"
    fill(folder, ["a.png", "b.png", "c.png"], side_px=200)
    store = SegmentationStore(folder)
    dataset = CryoEMSegmentationDataset(store.images, store.masks, False, rows=[2, 0])
    for one in (store, dataset):
        assert len(pickle.dumps(one)) < 1000 < store.images[0].nbytes
    assert pickle.loads(pickle.dumps(store)).names == store.names
    part = CryoEMSegmentationDataset(store.images[1:], store.masks[1:], False)
    for one in (dataset, part, CryoEMSegmentationDataset(*pairs(), False)):
        again, wanted = pickle.loads(pickle.dumps(one))[[1, 0]], one[[1, 0]]
        np.testing.assert_array_equal(again.images, wanted.images)
        np.testing.assert_array_equal(again.masks, wanted.masks)
        assert not again.is_training
