"""Whole files, locks, room on the disk, and the way out of a script."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from picking import files
from picking.errors import UserError, run_script
from picking.files import locked, read_json, require_room, sha256, write_atomically, write_json
from tests.fixtures import ROOT


def leave(main, capsys):
    """Run a script's main; return its exit status and what it says on stderr."""
    with pytest.raises(SystemExit) as left:
        run_script(main)
    return left.value.code, capsys.readouterr().err


def raises(error):
    def main():
        raise error

    return main


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


# The way out of a script


def test_a_script_that_returns_leaves_with_0(capsys):
    assert leave(lambda: None, capsys) == (0, "")


def test_a_users_mistake_is_one_sentence_and_2(capsys):
    assert leave(raises(UserError("no image: put some there")), capsys) == (
        2,
        "error: no image: put some there\n",
    )


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full at "),
        (errno.EDQUOT, "the disk is full at "),
        (errno.EROFS, "no permission to use "),
        (errno.EACCES, "no permission to use "),
    ],
)
def test_a_full_or_read_only_disk_is_a_sentence_and_2(capsys, number, words):
    for args, place in (((), "the output folder"), (("store/patches.npy",), "store/patches.npy")):
        error = OSError(number, os.strerror(number), *args)
        status, message = leave(raises(error), capsys)
        assert status == 2 and message.startswith(f"error: {words}{place}: ")
        assert message.count("\n") == 1


def test_a_file_too_large_for_its_place_is_a_sentence_and_2(capsys):
    error = OSError(errno.EFBIG, "File too large", "store/patches.npy")
    status, message = leave(raises(error), capsys)
    assert status == 2 and message.startswith("error: store/patches.npy is too large for ")
    assert message.count("\n") == 1


FULL_CONSOLE = """
from picking.errors import UserError, run_script

def main():
    print("a line that nobody can keep")
    raise UserError("no image: put some there")

run_script(main)
"""


def test_a_console_on_the_full_disk_too_changes_no_exit_status():
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    with full.open("w") as console:
        done = subprocess.run(
            [sys.executable, "-c", FULL_CONSOLE], cwd=ROOT, stdout=console, stderr=console
        )
        assert done.returncode == 2
        done = subprocess.run(
            [sys.executable, "-c", FULL_CONSOLE.replace("raise", "return #")],
            cwd=ROOT, stdout=console, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: the disk is full") and done.stderr.count("\n") == 1


def test_ctrl_c_is_130_and_sigterm_is_143_and_both_say_how_to_go_on(capsys, monkeypatch):
    monkeypatch.setattr(os, "_exit", sys.exit)  # they leave without unwinding
    status, message = leave(raises(KeyboardInterrupt()), capsys)
    assert status == 130 and "the same command goes on" in message
    status, message = leave(lambda: os.kill(os.getpid(), signal.SIGTERM), capsys)
    assert status == 143 and "the same command goes on" in message


FINALISER = """
class Swallows:
    def __del__(self):
        signal.raise_signal({number})

def main():
    Swallows()
    time.sleep(60)
"""
WRAPPER = """
class Wraps:
    def __set_name__(self, owner, name):
        signal.raise_signal({number})

def main():
    type("Owner", (), {{"wraps": Wraps()}})
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("amid", [FINALISER, WRAPPER])
def test_a_stop_that_python_swallows_or_makes_another_error_of_is_a_stop(amid, number, status):
    head = "import signal, time\nfrom picking.errors import run_script\n"
    script = head + amid.format(number=int(number)) + "run_script(main)\n"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr.count("\n")) == (status, 1)
    assert "the same command goes on" in result.stderr


@pytest.mark.parametrize("error", [ZeroDivisionError("ours"), OSError(errno.EIO, "I/O error")])
def test_a_defect_of_ours_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        run_script(raises(error))


def test_a_message_is_one_line_of_bounded_length_whatever_stood_in_the_file():
    message = str(UserError("a.json: 'x\ny\x00\ud800' is wrong: mend it"))
    assert message == r"a.json: 'x\ny\x00\ud800' is wrong: mend it"
    message = str(UserError(f"a.json holds {'x' * 100_000}: mend it"))
    assert len(message) < 1000 and message.startswith("a.json") and message.endswith("mend it")


def test_names_that_are_not_utf_8_are_printed_written_and_hashed(tmp_path):
    code = "from picking.errors import run_script; run_script(lambda: print('caf\\udce9'))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "caf\\udce9\n", "")
    write_atomically(tmp_path / "a.txt", "caf\udce9")
    assert (tmp_path / "a.txt").read_bytes() == b"caf\xe9"
    assert sha256("caf\udce9") == sha256(b"caf\xe9")


def test_a_damaged_line_of_json_is_named_by_its_number(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n[2]\n\xff\n')
    assert files.read_json_lines(tmp_path / "a.jsonl", 1) == [{"a": 1}]
    with pytest.raises(UserError, match=r"a\.jsonl, line 2 "):
        files.read_json_lines(tmp_path / "a.jsonl", 3)


def test_an_archive_that_inflates_to_more_than_itself_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(10**6))
    with pytest.raises(ValueError, match="larger"):
        files.read_arrays(tmp_path / "bomb.npz")
    np.savez(tmp_path / "a.npz", a=np.zeros(10))
    assert list(files.read_arrays(tmp_path / "a.npz")) == ["a"]
