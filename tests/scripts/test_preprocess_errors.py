"""The script that makes a patch store: what gets a clear error, and what is skipped when asked."""

import errno
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from picking.preprocessing.cutting import cut_patches
from picking.stores.patches import PatchStore
from tests.fixtures.patch_stores import (
    BOTH,
    PATCH_PX,
    changed_annotations,
    content,
    damage,
    done,
    metadata_of,
    preprocess,
    segment,
)


def change_json(split, change):
    def apply(root):
        with changed_annotations(root, split) as listed:
            change(listed)

    return apply


def write(name, text):
    def apply(root):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    return apply


def remove(*names):
    def apply(root):
        for name in names:
            path = root / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return apply


def copy_images(root):
    for i in range(9):
        shutil.copy(root / "train" / "train_00.jpg", root / "train" / f"more_{i}.jpg")


def link_outside(root):
    path = root / "train" / "train_00.jpg"
    path.rename(root.parent / "elsewhere.jpg")
    path.symlink_to(root.parent / "elsewhere.jpg")


def empty_csv_header(root):
    shutil.rmtree(root / "annotations")
    write("particle_coordinates/train_00.csv", "x,y\n1,2\n")(root)


def set_name(name):
    return change_json("train", lambda c: c["images"][0].update(file_name=name))


def scale_boxes(content):
    for box in content["annotations"]:
        box["bbox"] = [4 * value for value in box["bbox"]]


MISTAKES = {
    "no data root": (shutil.rmtree, (), "--data-root .*data is not a folder"),
    "an empty root": (
        remove("train", "val", "annotations", "particle_coordinates"), (),
        "has none of train/, val/ and test/",
    ),
    "an empty split": (
        remove("train/train_00.jpg", "train/train_01.jpg", "train/train_02.jpg"), (),
        "train holds no image",
    ),
    "a split that is not there": (None, ("--splits", "test"), "split 'test' has no folder"),
    "no annotation": (
        remove("annotations", "particle_coordinates"), (),
        "split 'train' has no annotation: looked for .*instances_train.json and for CSVs",
    ),
    "annotated images that are not there": (
        remove("train/train_01.jpg"), (), "2 of 3 annotated images .*missing: train_01.jpg"
    ),
    "images without annotation": (copy_images, (), "9 of 12 images in .* have no annotation"),
    "boxes at another scale": (
        change_json("train", scale_boxes), (),
        r"train_0.*centres lie outside the image of 384 x 320 px \(largest x .*another scale",
    ),
    "another image size": (
        change_json("val", lambda c: c["images"][0].update(width=3838)), (),
        "annotated as 3838 x 320 px, but the image has 384 x 320 px",
    ),
    "a name that climbs out": (set_name("../val/val_00.jpg"), (), "leaves the split's folder"),
    "an absolute name": (set_name("/data/train_00.jpg"), (), "leaves the split's folder"),
    "a link out of the folder": (link_outside, (), "is a link out of"),
    "a name that stands twice": (set_name("train_01.jpg"), (), "'train_01.jpg' stands twice"),
    "two names of one image": (set_name("./train_01.jpg"), (), "are both .*train_01.jpg"),
    "broken JSON": (
        write("annotations/instances_val.json", '{"images": ['), (), "is not valid JSON"
    ),
    "another JSON": (write("annotations/instances_val.json", "[1, 2]"), (), "val.json .*COCO"),
    "a malformed box": (
        change_json("val", lambda c: c["annotations"][4].update(bbox=[1, 2, 3])), (),
        r"annotations\[4\]: 'bbox' must be four finite numbers",
    ),
    "a malformed CSV": (empty_csv_header, (), "train_00.csv has no column"),
    "a malformed mapping": (write("empiar_ids.csv", "a,b\n"), (), "needs the columns file_name"),
    "a patch larger than the image": (None, ("--patch-size", "321"), "384 x 320 px, smaller than"),
    "a tiny patch": (None, ("--patch-size", "7"), "--patch-size is 7"),
    "a negative hide ratio": (None, ("--hide-ratio", "-0.1"), "--hide-ratio is -0.1"),
    "a hide ratio of one": (None, ("--hide-ratio", "1"), "--hide-ratio is 1.0"),
    "a hide ratio that is no number": (None, ("--hide-ratio", "nan"), "--hide-ratio is nan"),
    "negative negatives": (None, ("--neg-per-pos", "-1"), "--neg-per-pos is -1.0"),
    "endless negatives": (None, ("--neg-per-pos", "inf"), "--neg-per-pos is inf"),
    "hard negatives above all": (None, ("--hard-negatives", "1.5"), "--hard-negatives is 1.5"),
    "negative workers": (None, ("--num-workers", "-1"), "--num-workers is -1"),
    "no images": (None, ("--max-images-val", "0"), "--max-images-... must be 1 or more"),
    "a margin in words": (None, ("--annotated-margin", "wide"), "--annotated-margin is 'wide'"),
    "output among the images": (None, ("--output-dir", "{root}/val/x"), "among the micrographs"),
    "output in the data's place": (None, ("--output-dir", "{root}"), "among the micrographs"),
    "output where a file is": (None, ("--output-dir", "{root}/train/train_00.jpg"), "among the"),
    "a tiny image": (None, ("--seg-size", "15"), "--seg-size is 15"),
    "no tile": (None, ("--seg-tiles", "0"), "--seg-tiles is 0"),
    "images among the images": (
        None, ("--tasks", "segmentation", "--seg-output-dir", "{root}/val/x"),
        "--seg-output-dir .*/val/x is among the micrographs",
    ),
    "one folder for both": (
        None, ("--tasks", *BOTH, "--output-dir", "{root}/../x", "--seg-output-dir", "{root}/../x"),
        "are both .*/x: ",
    ),
    "output below a file": (None, ("--output-dir", "/dev/null/x"), "a file is in its place"),
}  # fmt: skip


@pytest.mark.parametrize("tasks", [["patches"], ["segmentation"], BOTH])
def test_unreadable_images_are_named_and_counted_and_stop_it(own_data, tmp_path, tasks):
    for name in ("train_00", "val_01"):
        damage(own_data / name.split("_")[0] / f"{name}.jpg")
    result = segment(own_data, tmp_path, tasks=tasks)
    assert result.status == 2
    assert re.fullmatch(
        r"error: 2 of 5 .*train_00\.jpg .*; .*val_01\.jpg .*--skip-unreadable\n", result.err
    )
    assert not list(tmp_path.glob("*/metadata.json"))


def test_an_image_without_a_readable_header_is_named_before_anything_is_cut(own_data, tmp_path):
    damage(own_data / "val" / "val_01.jpg", header=True)
    result = preprocess(own_data, tmp_path / "store")
    assert result.status == 2 and "error: 1 of 2 micrographs cannot be read: " in result.err
    assert "val_01.jpg cannot be read" in result.err
    assert not list((tmp_path / "store").glob("*/patches.npy"))


@pytest.mark.parametrize("name", ["train_00", "train_01", "val_00", "val_01"])
def test_skipping_an_unreadable_image_is_as_if_it_were_not_there(own_data, tmp_path, name):
    split = name.split("_")[0]
    path = own_data / split / f"{name}.jpg"
    damage(path, header=split == "val")
    skipped = done(own_data, tmp_path / "skipped", "--skip-unreadable")
    part = metadata_of(tmp_path / "skipped")["splits"][split]
    assert part["skipped_unreadable"] == [f"{name}.jpg"]
    path.unlink()
    shutil.rmtree(own_data / "annotations")  # the CSVs of those that are there serve
    without = done(own_data, tmp_path / "without")
    for kind in ("patches.npy", "index.npz"):
        for folder in ("train", "val"):
            assert skipped[f"{folder}/{kind}"] == without[f"{folder}/{kind}"]


def test_a_skipped_image_that_set_the_margin_moves_the_negatives_of_every_split(own_data, tmp_path):
    """Only `train_00` comes near the edge; the margin of all splits follows from it."""
    damage(own_data / "train" / "train_00.jpg")
    done(own_data, tmp_path / "store", "--skip-unreadable")
    margin_px = metadata_of(tmp_path / "store")["annotated_margin_px"]
    assert margin_px > 7
    for split in ("train", "val"):
        store = PatchStore(tmp_path / "store", split)
        for i, name in enumerate(store.names):
            image = np.asarray(Image.open(own_data / split / name))
            here = store.micrograph == i
            np.testing.assert_array_equal(
                store.patches[here], cut_patches(image, store.centre[here], PATCH_PX)
            )
        assert store.centre[store.label == 0].min() >= margin_px


@pytest.mark.parametrize(("task", "what"), [("patches", "patch"), ("segmentation", "mask")])
def test_a_split_of_unreadable_images_only_is_refused_even_when_they_are_skipped(
    own_data, tmp_path, task, what
):
    for path in (own_data / "train").iterdir():
        damage(path)
    result = segment(own_data, tmp_path, "--skip-unreadable", tasks=[task])
    assert result.status == 2 and f"split 'train' yields no {what}" in result.err


@pytest.mark.parametrize(("spoil", "options", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_status_2(own_data, tmp_path, spoil, options, words):
    if spoil:
        spoil(own_data)
    before = content(tmp_path)
    options = [option.format(root=own_data) for option in options]
    result = preprocess(own_data, tmp_path / "store", *options)
    assert result.status == 2
    assert re.fullmatch(rf"error: [^\n]*{words}[^\n]*\n", result.err), result.err
    ours = (f"store{os.sep}", "store")
    assert {k: v for k, v in content(tmp_path).items() if not k.startswith(ours)} == before
    assert not (tmp_path / "store" / "metadata.json").exists()


def test_a_disk_that_is_short_is_refused_before_anything_is_cut(own_data, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=20_000))
    result = preprocess(own_data, tmp_path / "store")
    assert result.status == 2
    assert re.fullmatch(r"error: .* GB are needed but 0\.0 GB are free at .*\n", result.err)
    assert not list((tmp_path / "store").glob("*/*"))


def test_an_output_folder_that_is_read_only_is_a_sentence(own_data, tmp_path, monkeypatch):
    def refuse(path, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    result = preprocess(own_data, tmp_path / "store")
    assert result.status == 2
    assert result.err.startswith(f"error: no permission to use {tmp_path}/store: ")


def test_an_unknown_option_shows_the_usage_and_leaves_with_2(own_data, tmp_path):
    result = preprocess(own_data, tmp_path / "store", "--hide_ratio", "0.3")
    assert result.status == 2 and "unrecognized arguments: --hide_ratio" in result.err
