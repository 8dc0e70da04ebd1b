"""Full and read-only disks in short: `python -m tests.faults.disk` tries many amounts of room."""

import pytest

from tests.fixtures import run_python


def try_disks(*options):
    """Run the script; return what it printed."""
    done = run_python("-m", "tests.faults.disk", *options)
    if done.returncode == 3:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_cutting_and_training_end_on_a_full_disk_in_one_sentence_and_go_on_once_there_is_room():
    stages = ("both, 0 workers", "active learning, 0 workers")
    printed = try_disks("--faults", "room", "readonly", "--amounts", 1, "--stages", *stages)
    assert printed.count("1 stopped, 0 wrong") == printed.count("2 stopped, 0 wrong") == 2


def test_training_ends_at_a_limit_of_file_size_in_one_sentence_and_goes_on_without_it():
    printed = try_disks("--faults", "size", "--amounts", 1, "--stages", "PU training, 0 workers")
    assert "1 stopped, 0 wrong" in printed
