"""Whole files, locks, room on the disk."""

import errno
import os
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from picking import files
from picking.errors import UserError
from picking.files import locked, read_json, require_room, sha256, write_atomically, write_json
from tests.fixtures import ROOT

# Atomic files


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "a.txt"
    write_atomically(path, "first")
    write_atomically(path, b"second")
    assert path.read_text() == "second"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomically(path, "old")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as error:
        write_atomically(path, "new")
    assert error.value.filename == str(path)  # the error of a write names no file by itself
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_temporary_file_has_a_new_name_and_never_follows_a_link(tmp_path, monkeypatch):
    names = []
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda file: names.extend(tmp_path.glob(".*.tmp")))
        for _ in range(2):
            write_atomically(tmp_path / "a.txt", "mine")
    assert len({*names}) == 2
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / ".known.tmp").symlink_to(tmp_path / "theirs")
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "known")
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "a.txt", "new")
    assert (tmp_path / "theirs").read_text() == "theirs"


def test_json_comes_back_as_it_was_written(tmp_path):
    content = {"π": 0.35, "none": None, "list": [1, 2.5, "a"]}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_does_not_know_is_not_written(tmp_path, value):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"auc": value})
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("text", [None, "", "{'a': 1}", '{"a": 1', "[" * 100_000])
def test_a_json_that_is_missing_or_broken_is_an_error_that_names_it(tmp_path, text):
    if text is not None:
        (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=r"a\.json"):
        read_json(tmp_path / "a.json")
    with pytest.raises(UserError, match="folder"):
        read_json(tmp_path)


def test_a_hash_is_of_the_bytes_in_order():
    assert sha256("ab", b"c") == sha256("abc") != sha256("acb")
    assert sha256() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


# Locks

HOLD = """
import sys
from pathlib import Path
from picking.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(folder):
    """Start a process that holds ``folder``; return it once it does."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "held\n"
    return process


def test_a_folder_in_use_says_by_whom_and_a_killed_process_frees_it(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOCK_PATIENCE_S", 0.2)
    process = hold(tmp_path / "run")
    words = f"run .*process {process.pid} on "
    with pytest.raises(UserError, match=words), locked(tmp_path / "run"):
        pass
    process.kill()
    process.communicate()
    with locked(tmp_path / "run"):
        assert f"process {os.getpid()} " in (tmp_path / "run" / ".lock").read_text()


def test_a_lock_that_is_given_back_a_little_later_is_waited_for(tmp_path, monkeypatch):
    process = hold(tmp_path)
    waited = []

    def kill_and_sleep(seconds):
        waited.append(seconds)
        process.kill()
        process.wait()

    monkeypatch.setattr(
        files, "time", SimpleNamespace(sleep=kill_and_sleep, monotonic=time.monotonic)
    )
    with locked(tmp_path):
        assert len(waited) == 1
    process.communicate()


def test_a_file_system_without_locks_is_no_reason_to_stop(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with locked(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()


@pytest.mark.parametrize("below", ["", "run"])
def test_a_file_in_the_folders_place_is_an_error_that_names_it(tmp_path, below):
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match=r"a\.txt"), locked(tmp_path / "a.txt" / below):
        pass


# Room


def test_room_is_asked_of_the_nearest_folder_that_exists(tmp_path, monkeypatch):
    asked = []

    def usage(folder):
        asked.append(folder)
        return SimpleNamespace(free=44_000_000_000)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    require_room(tmp_path / "a" / "b", 44_000_000_000)
    assert asked == [tmp_path]
    with pytest.raises(UserError, match=r"44\.1 GB .* 44\.0 GB .*--output-dir"):
        require_room(tmp_path / "a", 44_100_000_000)


def test_a_damaged_line_of_json_is_named_by_its_number(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n[2]\n\xff\n')
    assert files.read_json_lines(tmp_path / "a.jsonl", 1) == [{"a": 1}]
    with pytest.raises(UserError, match=r"a\.jsonl, line 2 "):
        files.read_json_lines(tmp_path / "a.jsonl", 3)


def test_names_that_are_not_utf_8_are_written_and_hashed(tmp_path):
    write_atomically(tmp_path / "a.txt", "caf\udce9")
    assert (tmp_path / "a.txt").read_bytes() == b"caf\xe9"
    assert sha256("caf\udce9") == sha256(b"caf\xe9")


def test_an_archive_that_inflates_to_more_than_itself_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(10**6))
    with pytest.raises(ValueError, match="larger"):
        files.read_arrays(tmp_path / "bomb.npz")
    np.savez(tmp_path / "a.npz", a=np.zeros(10))
    assert list(files.read_arrays(tmp_path / "a.npz")) == ["a"]
