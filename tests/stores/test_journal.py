"""What is done of a store: gone on with, done again, refused."""

import json

import numpy as np
import pytest
from PIL import Image

from picking.errors import UserError
from picking.stores.journal import Journal
from tests.fixtures.images import grain
from tests.fixtures.plans import (
    MADE_FROM,
    SIZE_PX,
    cut,
    note_reads,
    plan,
    records_on_disk,
    rows_of,
)  # fmt: skip


@pytest.fixture
def images(tmp_path):
    return records_on_disk(tmp_path / "images")


def test_what_is_cut_is_not_cut_again(tmp_path, images, monkeypatch):
    plans = plan(images)
    cut(tmp_path / "store", plans)
    before = rows_of(tmp_path / "store")
    names = note_reads(monkeypatch)
    cut(tmp_path / "store", plans)
    assert names == [] and rows_of(tmp_path / "store") == before


def test_a_mended_image_is_cut_again_and_the_others_are_not(tmp_path, images, monkeypatch):
    plans = plan(images)
    cut(tmp_path / "store", plans)
    before = np.load(tmp_path / "store" / "train" / "patches.npy")
    Image.fromarray(grain(SIZE_PX)).save(images[1].path)
    names = note_reads(monkeypatch)
    cut(tmp_path / "store", plans)
    assert names == ["1.png"]
    rows = np.load(tmp_path / "store" / "train" / "patches.npy")
    index = np.load(tmp_path / "store" / "train" / "index.npz")
    of_it = index["micrograph"] == 1
    assert (rows[of_it] != before[of_it]).any(axis=(1, 2)).all()
    np.testing.assert_array_equal(rows[~of_it], before[~of_it])


def test_rows_cut_by_another_plan_are_cut_again(tmp_path, images, monkeypatch):
    cut(tmp_path / "store", plan(images))
    names = note_reads(monkeypatch)
    cut(tmp_path / "store", plan(images, margin_px=30))
    cut(tmp_path / "other", plan(images, margin_px=30))
    assert len(names) == 6 and rows_of(tmp_path / "store") == rows_of(tmp_path / "other")
    cut(tmp_path / "store", plan(images))  # the first plan's lines in the journal are void
    cut(tmp_path / "third", plan(images))
    assert rows_of(tmp_path / "store") == rows_of(tmp_path / "third")


def test_rows_whose_file_was_deleted_are_cut_again(tmp_path, images):
    plans = plan(images)
    cut(tmp_path / "store", plans)
    before = rows_of(tmp_path / "store")
    (tmp_path / "store" / "train" / "patches.npy").unlink()
    cut(tmp_path / "store", plans)
    assert rows_of(tmp_path / "store") == before


def test_a_store_begun_otherwise_is_refused_with_the_names_of_the_arguments(tmp_path, images):
    cut(tmp_path / "store", plan(images))
    before = rows_of(tmp_path / "store")
    with pytest.raises(UserError) as error:
        Journal(tmp_path / "store" / ".journal", {**MADE_FROM, "seed": 7, "hide_ratio": 0.4})
    assert "seed: 42 there, 7 now" in str(error.value)
    assert "hide_ratio: 0.3 there, 0.4 now" in str(error.value)
    assert "splits" not in str(error.value)
    assert rows_of(tmp_path / "store") == before


def test_a_journal_without_any_cut_micrograph_binds_nobody(tmp_path):
    Journal(tmp_path / ".journal", MADE_FROM).begin("train", "a plan", afresh=True)
    journal = Journal(tmp_path / ".journal", {**MADE_FROM, "seed": 7})
    assert journal.done == {} and journal.plans == {}
    assert json.loads((tmp_path / ".journal").read_text())["seed"] == 7


@pytest.mark.parametrize(
    "fault", ["garbage", "a changed number", "no object", "torn", "a first line"]
)
def test_a_damaged_line_of_the_journal_ends_it_and_the_rest_is_cut_again(tmp_path, images, fault):
    plans = plan(images)
    cut(tmp_path / "store", plans)
    before = rows_of(tmp_path / "store")
    path = tmp_path / "store" / ".journal"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[3] = {
        "garbage": b"\xff{\n", "no object": b"null\n", "torn": lines[3][:-4],
        "a first line": lines[0],
        "a changed number": lines[3].replace(b'"image_bytes": ', b'"image_bytes": 1'),
    }[fault]  # fmt: skip
    path.write_bytes(b"".join(lines))
    assert len(Journal(path, MADE_FROM).done) == 1
    cut(tmp_path / "store", plans)
    assert rows_of(tmp_path / "store") == before
