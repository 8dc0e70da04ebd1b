"""What writes the rows of a split: workers, images that cannot be read, rows that are lost."""

import os

import numpy as np
import pytest
from PIL import Image

from picking.preprocessing.cutting import patch_writer
from picking.stores import writer
from picking.stores.writer import write_split
from tests.fixtures.images import grain
from tests.fixtures.plans import PATCH_PX, cut, note_reads, plan, record, records_on_disk, rows_of


@pytest.fixture
def images(tmp_path):
    return records_on_disk(tmp_path / "images")


def test_a_micrograph_without_any_patch_is_no_stumbling_block(tmp_path, images):
    outside = record("1.png", [[-3.0, 5.0]], images[1].path.parent)
    plans = plan([images[0], outside, images[2]])
    assert plans[1].n_rows == 0
    assert not cut(tmp_path / "store", plans).unreadable
    index = np.load(tmp_path / "store" / "train" / "index.npz")
    assert set(index["micrograph"]) == {0, 2}


def test_unreadable_images_are_named_and_the_others_are_cut(tmp_path, images):
    plans = plan(images)
    whole = images[0].path.read_bytes()
    images[0].path.write_bytes(whole[:-300])
    images[1].path.unlink()
    done = cut(tmp_path / "store", plans)
    assert set(done.unreadable) == {"0.png", "1.png"}
    assert "0.png cannot be read" in done.unreadable["0.png"]
    assert set(done.journal.done) == {("train", 2)}
    assert not (tmp_path / "store" / "train" / "index.npz").exists()


def test_an_image_that_changes_its_size_meanwhile_is_not_cut(tmp_path, images):
    plans = plan(images)
    Image.fromarray(grain((400, 400))).save(images[1].path)
    assert "changed its size" in cut(tmp_path / "store", plans).unreadable["1.png"]


def test_rows_lost_after_the_journal_called_them_done_are_cut_again(
    tmp_path, images, monkeypatch, capsys
):
    """As after a power cut, which loses what was written but not yet on the disk."""
    plans = plan(images, hard_fraction=0.5)
    cut(tmp_path / "store", plans)
    before = rows_of(tmp_path / "store")
    with (tmp_path / "store" / "train" / "patches.npy").open("r+b") as file:
        file.seek(-plans[2].n_rows * PATCH_PX**2, os.SEEK_END)
        file.write(bytes(100))
    names = note_reads(monkeypatch)
    again = cut(tmp_path / "store", plans)
    assert names == ["2.png"] and rows_of(tmp_path / "store") == before
    (line,) = capsys.readouterr().out.splitlines()
    assert "3 micrographs" in line and "1 were damaged" in line

    # The same process does not read them once more
    monkeypatch.setattr(writer, "checksum_at", None)
    assert not write_split([patch_writer(tmp_path / "store/train", plans, again.journal)], 0)
    assert rows_of(tmp_path / "store") == before


def test_lost_rows_of_an_image_that_cannot_be_read_are_never_taken_for_whole(tmp_path, images):
    plans = plan(images)
    cut(tmp_path / "store", plans)
    path = tmp_path / "store" / "train" / "patches.npy"
    np.save(path, np.zeros_like(np.load(path)))
    whole = images[0].path.read_bytes()
    images[0].path.write_bytes(b"0" * len(whole))
    for _ in range(2):
        assert set(cut(tmp_path / "store", plans).unreadable) == {"0.png"}
    assert not (tmp_path / "store" / "train" / "index.npz").exists()
