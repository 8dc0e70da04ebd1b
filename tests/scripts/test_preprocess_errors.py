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

from picking.micrographs.preparation import prepare
from picking.preprocessing.cutting import cut_patches
from picking.stores.patches import PatchStore
from tests.fixtures.data_sets import DIAMETER_PX
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


def link_outside(root):
    path = root / "train" / "train_00.jpg"
    path.rename(root.parent / "elsewhere.jpg")
    path.symlink_to(root.parent / "elsewhere.jpg")


def scale_boxes(root):
    with changed_annotations(root, "train") as listed:
        for box in listed["annotations"]:
            box["bbox"] = [4 * value for value in box["bbox"]]


def box_sides(side_px):
    """Give all boxes these sides, and move them into their image of 384 x 320 px."""

    def change(root):
        with changed_annotations(root, "train") as listed:
            for box in listed["annotations"]:
                x, y, *_ = box["bbox"]
                box["bbox"] = [min(x, 384 - side_px), min(y, 320 - side_px), side_px, side_px]

    return change


# What is wrong with data sets has its tests in tests/formats: one of each kind stands here
MISTAKES = {
    "no data root": (shutil.rmtree, (), "--data-root .*data is not a folder"),
    "a split that is not there": (None, ("--splits", "test"), "split 'test' has no folder"),
    "annotated images that are not there": (
        lambda root: (root / "train/train_01.jpg").unlink(), (), "train_01.jpg"
    ),
    "boxes at another scale": (scale_boxes, (), r"train_0.* 384 x 320 px"),
    "boxes as wide as the micrograph": (
        box_sides(110), (), r"110 px, but train_00.jpg is 384 x 320 px, .*instances_train.json"
    ),
    "boxes of a few px": (box_sides(4), (), r"is 4 px on train_00.jpg, .*instances_train.json"),
    "a link out of the folder": (link_outside, (), "is a link out of"),
    "broken JSON": (
        lambda root: (root / "annotations/instances_val.json").write_text("{"), (), "val.json"
    ),
    "a malformed mapping": (
        lambda root: (root / "empiar_ids.csv").write_text("a,b\n"), (), "empiar_ids.csv"
    ),
    "a patch larger than the image": (None, ("--patch-size", "321"), "--patch-size 321"),
    "output among the images": (None, ("--output-dir", "{root}/val/x"), "among the micrographs"),
    "output in the data's place": (None, ("--output-dir", "{root}"), "among the micrographs"),
    "output where a file is": (None, ("--output-dir", "{root}/train/train_00.jpg"), "among the"),
    "images among the images": (
        None, ("--tasks", "segmentation", "--seg-output-dir", "{root}/val/x"),
        "--seg-output-dir .*/val/x is among the micrographs",
    ),
    "one folder for both": (
        None, ("--tasks", *BOTH, "--output-dir", "{root}/../x", "--seg-output-dir", "{root}/../x"),
        "are both .*/x: ",
    ),
    "output below a file": (None, ("--output-dir", "/dev/null/x"), "a file is in its place"),
    **{
        f"{flag} {value}": (None, (flag, value), re.escape(flag))
        for flag, value in (
            ("--patch-size", "7"), ("--hide-ratio", "-0.1"), ("--hide-ratio", "1"),
            ("--hide-ratio", "nan"), ("--neg-per-pos", "-1"), ("--neg-per-pos", "inf"),
            ("--hard-negatives", "1.5"), ("--num-workers", "-1"), ("--max-images-val", "0"),
            ("--annotated-margin", "wide"), ("--seg-size", "15"), ("--seg-tiles", "0"),
            ("--seg-disk", "0"),
        )
    },
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
            image = prepare(image, (DIAMETER_PX, DIAMETER_PX))
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
