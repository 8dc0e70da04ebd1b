"""The script that makes a patch store: stopped, gone on with, finished already; the same bytes."""

import contextlib
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace
from unittest import mock

import pytest
from PIL import Image

import preprocess_coco_full_dataset as script
from picking import files
from picking.errors import UserError
from tests.fixtures import ROOT
from tests.fixtures.data_sets import SIZE_PX, write_csv, write_data_set
from tests.fixtures.images import grain
from tests.fixtures.patch_stores import (
    PATCH_PX,
    changed_annotations,
    content,
    damage,
    done,
    metadata_of,
    preprocess,
)
from tests.fixtures.plans import note_reads

SLOWLY = """
import time
import preprocess_coco_full_dataset as script
from picking.errors import run_script
from picking.micrographs import reading
read = reading.read_grey

def slowly(*args):
    time.sleep(0.1)
    return read(*args)

reading.read_grey = slowly
run_script(script.main)
"""


def no_room(*args):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("end", "n_workers"), [(signal.SIGKILL, 0), (signal.SIGKILL, 2), (signal.SIGTERM, 2)]
)
def test_killed_in_the_middle_and_started_again_it_ends_with_the_same_bytes(
    tmp_path, monkeypatch, end, n_workers
):
    root, output, options = tmp_path / "data", tmp_path / "store", ("--hard-negatives", "0.4")
    write_data_set(root, {"train": 16, "test": 2})
    journal = output / ".journal"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, "--data-root", root, "--output-dir", output,
         "--patch-size", str(PATCH_PX), "--num-workers", str(n_workers), *options],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not journal.exists() or journal.read_bytes().count(b'"i"') < 3:
        assert process.poll() is None
    process.send_signal(end)
    said = process.communicate()[1]
    if end == signal.SIGTERM:
        assert process.returncode == 143 and said.startswith("terminated: what was saved is kept")
    assert not (output / "metadata.json").exists()
    n_cut = journal.read_bytes().count(b'"i"')
    assert 3 <= n_cut < 16
    with journal.open("ab") as file:
        file.write(b'{"split": "train", "i"')  # torn by the kill

    names = note_reads(monkeypatch)
    went_on = done(root, output, *options)
    assert len(names) == 16 + 2 - n_cut
    assert went_on == done(root, tmp_path / "at_once", *options)
    assert ".journal" not in went_on


def test_a_finished_store_is_left_alone(data_set, preprocessed):
    stamps = {path: path.stat().st_mtime_ns for path in preprocessed.output.rglob("*")}
    result = preprocess(data_set.root, preprocessed.output)
    assert result.status == 0 and "is complete already: nothing to do" in result.out
    assert stamps == {path: path.stat().st_mtime_ns for path in preprocessed.output.rglob("*")}


@pytest.mark.parametrize(
    "options",
    ["--seed 7", "--hide-ratio 0.4", "--neg-per-pos 2", "--neg-rule disjoint",
     "--annotated-margin 9", "--top-up", "--hard-negatives", "--splits train",
     "--max-images train=2", "--patch-size 40"],
)  # fmt: skip
def test_a_store_made_with_other_arguments_is_refused_with_their_names(
    data_set, preprocessed, options
):
    before, (flag, *_) = content(preprocessed.output), options.split()
    changed = options.replace(" train=", "-train ").split()
    result = preprocess(data_set.root, preprocessed.output, *changed)
    assert result.status == 2 and result.out == ""
    assert f"{flag[2:].replace('-', '_')}: " in result.err
    assert content(preprocessed.output) == before


def test_a_store_made_from_other_data_is_refused(own_data, tmp_path):
    done(own_data, tmp_path / "store")
    write_csv(own_data / "particle_coordinates" / "train_00.csv", [])  # not read: there is a JSON
    assert preprocess(own_data, tmp_path / "store").status == 0
    Image.fromarray(grain(SIZE_PX)).save(own_data / "train" / "train_00.jpg")
    assert "(images_hash: " in preprocess(own_data, tmp_path / "store").err
    path = own_data / "annotations" / "instances_val.json"
    path.write_text(path.read_text().replace('"iscrowd": 1', '"iscrowd": 0'))
    assert "(annotations_hash: " in preprocess(own_data, tmp_path / "store").err


@pytest.mark.parametrize("how", ["mended", "skipped"])
def test_after_an_unreadable_image_both_ways_that_the_error_names_go_on(
    own_data, tmp_path, monkeypatch, how
):
    whole = damage(own_data / "train" / "train_01.jpg")
    assert preprocess(own_data, tmp_path / "store").status == 2
    names = note_reads(monkeypatch)
    if how == "mended":
        (own_data / "train" / "train_01.jpg").write_bytes(whole)
        went_on = done(own_data, tmp_path / "store")
        assert names == ["train_01.jpg"]
        assert went_on == done(own_data, tmp_path / "at_once")
    else:
        went_on = done(own_data, tmp_path / "store", "--skip-unreadable")
        assert names.count("val_00.jpg") == 0
        assert went_on == done(own_data, tmp_path / "at_once", "--skip-unreadable")


def test_what_was_skipped_once_stops_a_run_that_may_not_skip(own_data, tmp_path):
    damage(own_data / "train" / "train_01.jpg")
    with mock.patch.object(script, "count_splits", side_effect=UserError("stopped")):
        assert preprocess(own_data, tmp_path / "store", "--skip-unreadable").status == 2
    result = preprocess(own_data, tmp_path / "store")
    assert result.status == 2 and "train_01.jpg cannot be read" in result.err
    went_on = done(own_data, tmp_path / "store", "--skip-unreadable")
    assert went_on == done(own_data, tmp_path / "at_once", "--skip-unreadable")


def test_what_is_allocated_already_is_not_asked_of_the_disk_again(own_data, tmp_path, monkeypatch):
    whole = damage(own_data / "val" / "val_01.jpg")
    assert preprocess(own_data, tmp_path / "store").status == 2
    (own_data / "val" / "val_01.jpg").write_bytes(whole)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=20_000))
    assert preprocess(own_data, tmp_path / "store").status == 0


def test_a_disk_that_runs_full_is_a_sentence_and_the_next_run_goes_on(
    own_data, tmp_path, monkeypatch
):
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", no_room)
        result = preprocess(own_data, tmp_path / "store")
    assert result.status == 2
    assert re.fullmatch(r"error: the disk is full at .*\n", result.err)
    assert done(own_data, tmp_path / "store") == done(own_data, tmp_path / "at_once")


def test_what_a_kill_left_beside_the_store_is_gone_once_it_is_finished(own_data, tmp_path):
    output = tmp_path / "store"
    (output / "train").mkdir(parents=True)
    for half in (output / ".metadata.json.99.tmp", output / "train" / ".index.json.99.tmp"):
        half.write_text("half")
    assert done(own_data, output) == done(own_data, tmp_path / "at_once")
    (output / ".journal").write_text("{}\n")  # killed between metadata.json and the last step
    result = preprocess(own_data, output)
    assert result.status == 0 and "is complete already: nothing to do" in result.out
    assert not (output / ".journal").exists()


def test_a_store_that_another_process_finished_meanwhile_is_not_made_again(
    own_data, tmp_path, monkeypatch
):
    locked = files.locked

    @contextlib.contextmanager
    def locked_late(folder):
        monkeypatch.setattr(files, "locked", locked)
        done(own_data, folder)
        with locked(folder):
            yield

    monkeypatch.setattr(files, "locked", locked_late)
    reads = note_reads(monkeypatch)
    result = preprocess(own_data, tmp_path / "store")
    assert result.status == 0 and "is complete already: nothing to do" in result.out
    assert len(reads) == 3 + 2  # of the other process alone


def test_a_store_of_one_category_does_not_go_on_with_another(own_data, tmp_path):
    for split in ("train", "val", "test"):
        if not (own_data / "annotations" / f"instances_{split}.json").is_file():
            continue
        with changed_annotations(own_data, split) as listed:
            listed["categories"] = [{"id": 1, "name": "particle"}, {"id": 2, "name": "ice"}]
            for box in listed["annotations"][::2]:
                box["category_id"] = 2
    flags = ("--splits", "train", "val")
    first = preprocess(own_data, tmp_path / "store", *flags)
    assert first.status == 0 and first.err.count("warning: ") == 2
    assert first.err.count("boxes of 'ice' are left out") == 2
    assert metadata_of(tmp_path / "store")["made_from"]["category"] == "particle"
    for same in ((), ("--category", "Particle")):
        again = preprocess(own_data, tmp_path / "store", *flags, *same)
        assert again.status == 0 and "is complete already" in again.out
    other = preprocess(own_data, tmp_path / "store", *flags, "--category", "ice")
    assert other.status == 2 and "category: particle there, ice now" in other.err
    assert preprocess(own_data, tmp_path / "ice", *flags, "--category", "ice").status == 0
    unknown = preprocess(own_data, tmp_path / "none", *flags, "--category", "carbon")
    assert unknown.status == 2 and re.search("'ice'.*'particle'|'particle'.*'ice'", unknown.err)
    with changed_annotations(own_data, "val") as listed:
        listed["annotations"] = listed["annotations"][::2]  # ice alone, which is no particle
    mixed = preprocess(own_data, tmp_path / "mixed", *flags)
    assert mixed.status == 2 and "different categories, 'particle' in " in mixed.err
