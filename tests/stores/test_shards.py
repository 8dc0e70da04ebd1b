"""Several processes fill one store, in any order; the ordinary command ends with the same bytes."""

import fcntl
import multiprocessing
import os
import sys
from unittest import mock

import pytest

from picking import files
from picking.files import locked
from picking.formats import micrographs
from picking.stores import writer
from picking.stores.shards import Shard, read_shard
from tests.fixtures.data_sets import write_data_set
from tests.fixtures.patch_stores import content, damage, done, note_reads, preprocess
from tests.scripts.test_preprocess_segmentation import segment

HARD = ("--hard-negatives", "0.4")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Micrographs to read, not to change; their number is no multiple of that of the shards."""
    root = tmp_path_factory.mktemp("of_shards") / "data"
    write_data_set(root, {"train": 7, "val": 2})
    return root


@pytest.fixture(scope="module")
def at_once(data, tmp_path_factory):
    """What one process makes of ``data``."""
    return done(data, tmp_path_factory.mktemp("at_once") / "store", *HARD)


def cut(root, store, shard, *options):
    """Run one shard, which must say that it is done; return what it printed."""
    result = preprocess(root, store, *HARD, "--shard", shard, *options)
    assert (result.status, result.err) == (0, "")
    number, n = shard.split("/")
    last = f"Shard {number} of {n} is done; when all are, run the same command without --shard"
    assert result.out.splitlines()[-1] == last
    return result.out


def stopped_amid(n_read, run):
    """Run the script and interrupt it when it comes to read its ``n_read``-th micrograph."""
    read, names = micrographs.read_micrograph, []

    def interrupted(path):
        names.append(path.name)
        if len(names) == n_read:
            raise KeyboardInterrupt
        return read(path)

    with (
        mock.patch.object(micrographs, "read_micrograph", interrupted),
        mock.patch("os._exit", sys.exit),
    ):
        assert run().status == 130


def test_shards_in_any_order_one_interrupted_and_one_missing_end_with_the_same_bytes(
    data, at_once, tmp_path, monkeypatch
):
    store = tmp_path / "store"
    cut(data, store, "3/4")
    stopped_amid(2, lambda: preprocess(data, store, *HARD, "--shard", "1/4"))
    assert not any("index" in name or "json" in name for name in content(store))
    reads = note_reads(monkeypatch)
    cut(data, store, "1/4")
    assert reads == ["train_04.jpg", "val_00.jpg"]  # 0 was done before
    cut(data, store, "2/4", "--num-workers", "2")
    reads.clear()
    result = preprocess(data, store, *HARD)
    assert result.status == 0
    assert reads == ["train_03.jpg"]  # of the fourth shard, which nobody ran
    assert "rows of 6 micrographs were there and were checked; those of 0 differed" in result.out
    assert content(store) == at_once
    assert not list(store.glob(".lock-*"))


def test_the_pictures_are_those_of_one_process(data_set, preprocessed, tmp_path):
    assert preprocess(data_set.root, tmp_path / "store", "--shard", "2/2").status == 0
    assert preprocess(data_set.root, tmp_path / "store", montage=True).status == 0
    assert content(tmp_path / "store") == content(preprocessed.output)


@pytest.mark.parametrize("tasks", [("segmentation",), ("patches", "segmentation")])
def test_shards_make_masks_and_both_stores_too(data, tmp_path, tasks):
    for shard in ("2/2", "1/2"):
        result = segment(data, tmp_path / "shards", "--shard", shard, tasks=tasks)
        assert (result.status, result.err) == (0, "")
    for folder in ("shards", "at_once"):
        assert segment(data, tmp_path / folder, tasks=tasks).status == 0
    assert content(tmp_path / "shards") == content(tmp_path / "at_once")


# What is lost, or not to be read


def test_rows_that_were_lost_on_their_way_are_cut_again(data, at_once, tmp_path, monkeypatch):
    store = tmp_path / "store"
    for shard in ("1/2", "2/2"):
        cut(data, store, shard)
    with (store / "train" / "patches.npy").open("r+b") as file:
        file.seek(200)
        file.write(bytes(7))
    with (store / "val" / "patches.npy").open("r+b") as file:
        file.truncate(os.fstat(file.fileno()).st_size - 1)
    reads = note_reads(monkeypatch)
    cut(data, store, "1/2")
    assert not reads  # shards look at no rows
    result = preprocess(data, store, *HARD)
    assert reads == ["train_00.jpg", "val_01.jpg"]
    for split, n in (("train", 7), ("val", 2)):
        words = f"Split {split}: rows of {n} micrographs were there and were checked; those of 1 "
        assert words in result.out
    assert content(store) == at_once


def test_lost_masks_are_drawn_again_and_the_patches_stay(data, tmp_path, monkeypatch):
    both, store = ("patches", "segmentation"), tmp_path / "shards"
    segment(data, store, "--shard", "1/1", tasks=both)
    path = store / "seg" / "train" / "masks.npy"
    path.write_bytes(path.read_bytes()[:-1] + bytes([7]))
    journal = store / "patches" / ".journal"
    with (
        mock.patch("picking.stores.shards.remove_journals"),
        mock.patch("picking.stores.journal.Journal.remove"),
    ):
        assert segment(data, store, tasks=both).status == 0
    assert b'"i"' not in journal.read_bytes()
    assert (store / "seg" / ".journal").read_bytes().count(b'"i"') == 1
    segment(data, store, tasks=both)  # removes the journals
    assert segment(data, tmp_path / "at_once", tasks=both).status == 0
    assert content(store) == content(tmp_path / "at_once")


def test_a_shard_whose_journal_is_torn_loses_time_only(data, at_once, tmp_path, monkeypatch):
    store = tmp_path / "store"
    cut(data, store, "1/2")
    journal = store / ".journal-1-of-2"
    journal.write_bytes(journal.read_bytes()[:-9])
    cut(data, store, "2/2")
    reads = note_reads(monkeypatch)
    assert done(data, store, *HARD) == at_once
    assert reads == ["val_00.jpg"]


def test_another_number_of_shards_does_only_what_is_missing(data, at_once, tmp_path, monkeypatch):
    store = tmp_path / "store"
    stopped_amid(3, lambda: preprocess(data, store, *HARD))  # a usual run, given up
    cut(data, store, "1/4")
    reads = note_reads(monkeypatch)
    cut(data, store, "2/2")
    cut(data, store, "1/2")
    assert reads == ["train_03.jpg", "train_05.jpg", "val_01.jpg", "train_02.jpg", "train_06.jpg"]
    reads.clear()
    assert done(data, store, *HARD) == at_once
    assert not reads


@pytest.mark.parametrize("skip", [(), ("--skip-unreadable",)])
def test_a_shard_does_what_it_can_of_unreadable_images_and_leaves_the_rest_to_the_last_command(
    own_data, tmp_path, monkeypatch, skip
):
    store, image = tmp_path / "store", own_data / "train" / "train_01.jpg"
    whole = damage(image)
    result = preprocess(own_data, store, *skip, "--shard", "2/2")
    assert preprocess(own_data, store, *skip, "--shard", "1/2").status == 0
    if skip:
        assert (result.status, result.err) == (0, "")
        assert "Note: 1 micrographs cannot be read and are left to the command" in result.out
    else:
        assert result.status == 2 and "train_01.jpg cannot be decoded" in result.err
        image.write_bytes(whole)
    reads = note_reads(monkeypatch)
    went_on = done(own_data, store, *skip)
    assert reads == ["train_01.jpg", *(["train_00.jpg", "train_02.jpg"] if skip else [])]
    assert went_on == done(own_data, tmp_path / "at_once", *skip)


def test_shards_leave_out_what_the_last_command_has_found_unreadable(
    own_data, tmp_path, monkeypatch
):
    store, skip = tmp_path / "store", "--skip-unreadable"
    damage(own_data / "train" / "train_00.jpg")
    for shard in ("1/2", "2/2"):
        preprocess(own_data, store, skip, "--shard", shard)
    stopped_amid(2, lambda: preprocess(own_data, store, skip))
    for shard in ("1/2", "2/2"):
        preprocess(own_data, store, skip, "--shard", shard)
    reads = note_reads(monkeypatch)
    went_on = done(own_data, store, skip)
    assert not reads
    assert went_on == done(own_data, tmp_path / "at_once", skip)


# Together


def test_shards_at_the_same_time_end_with_the_same_bytes(data, at_once, tmp_path):
    store, fork = tmp_path / "store", multiprocessing.get_context("fork")
    shards = [fork.Process(target=cut, args=(data, store, f"{i}/3")) for i in (1, 2, 3)]
    for process in shards:
        process.start()
    for process in shards:
        process.join()
        assert process.exitcode == 0
    result = preprocess(data, store, *HARD)
    assert "of 7 micrographs were there and were checked; those of 0 differed" in result.out
    assert content(store) == at_once


def test_shards_share_the_folder_with_each_other_but_with_nobody_else(
    data, at_once, tmp_path, monkeypatch
):
    monkeypatch.setattr(files, "LOCK_PATIENCE_S", 0)
    store = tmp_path / "store"
    with locked(store, Shard(1, 2)):
        same = preprocess(data, store, *HARD, "--shard", "1/2")
        assert same.status == 2
        assert f"store is in use by process {os.getpid()} on " in same.err
        whole = preprocess(data, store, *HARD)
        assert whole.status == 2
        assert "store is in use by processes with --shard: wait for it" in whole.err
        assert not (store / "train").exists()
        cut(data, store, "2/2")
    with locked(store):
        refused = preprocess(data, store, *HARD, "--shard", "1/2")
        assert refused.status == 2 and f"in use by process {os.getpid()} on " in refused.err
    assert done(data, store, *HARD) == at_once
    finished = preprocess(data, store, *HARD, "--shard", "1/2")
    assert finished.status == 0 and "is complete already: nothing to do" in finished.out


def test_a_shard_with_other_arguments_is_refused_before_it_writes(data, tmp_path):
    cut(data, tmp_path / "store", "1/2")
    before = content(tmp_path / "store")
    result = preprocess(data, tmp_path / "store", *HARD, "--seed", "7", "--shard", "2/2")
    assert result.status == 2 and "made with other arguments (seed: 42 there, 7 now)" in result.err
    assert content(tmp_path / "store") == before


def test_one_allocates_at_a_time_and_what_is_allocated_is_not_touched_again(tmp_path, monkeypatch):
    path, allocated = tmp_path / "a.npy", []

    def zeros(descriptor, offset, n_bytes):
        """As the C library does it where the file system cannot; others must wait meanwhile."""
        with path.open("rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        allocated.append(os.pwrite(descriptor, bytes(n_bytes), offset))

    monkeypatch.setattr(writer.os, "posix_fallocate", zeros)
    start = writer.allocate(path, (4, 3, 3))
    row = bytes(range(1, 10))
    with path.open("r+b") as file:
        file.seek(start + 9)
        file.write(row)
    assert writer.allocate(path, (4, 3, 3)) == start
    assert path.read_bytes()[start:] == bytes(9) + row + bytes(18)
    assert allocated == [36]


def test_a_dry_run_of_a_shard_plans_and_writes_nothing(data, tmp_path):
    result = preprocess(data, tmp_path / "store", "--shard", "2/3", "--dry-run")
    assert result.status == 0 and "Processing train split" in result.out
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "text", ["0/4", "5/4", "a/b", "1/0", "-1/4", "1", "1/2/3", "", "1/1000000000"]
)
def test_a_shard_that_cannot_be_is_one_sentence(data, tmp_path, text):
    result = preprocess(data, tmp_path / "store", f"--shard={text}")
    advice = "give I/N with I from 1 to N, such as 2/8"
    assert (result.status, result.err) == (2, f"error: --shard is '{text}': {advice}\n")
    assert not (tmp_path / "store").exists()


def test_every_micrograph_is_in_one_share():
    for n in (1, 5, 12):
        shares = [read_shard(f"{i}/5").share(n) for i in range(1, 6)]
        assert sorted(i for share in shares for i in share) == list(range(n))
