"""A run's log: on the console and on disk line by line, and what ended the run in it."""

import errno
import logging
import os
from pathlib import Path

import pytest

from picking.errors import Stopped, UserError
from picking.runs.log import open_log

logger = logging.getLogger("picking.somewhere")


def test_the_log_is_on_disk_line_by_line_and_goes_on_where_it_ended(tmp_path, capsys):
    path = tmp_path / "training.log"
    with open_log(path):
        logger.info("one π, 100%")
        assert path.read_text() == "one π, 100%\n"
    with open_log(path):
        logger.warning("two")
    assert path.read_text() == "one π, 100%\ntwo\n" == capsys.readouterr().out


def test_without_a_file_lines_go_to_the_console_and_without_a_log_nowhere(capsys):
    with open_log():
        logger.info("one")
    logger.warning("another process says this too")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("one\n", "")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UserError("no image: put some there"), "error: no image: put some there\n"),
        (OSError(errno.ENOSPC, "No space left", "last.pt"), "error: the disk is full at last.pt"),
        (Stopped("terminated: what was saved is kept"), "terminated: what was saved is kept\n"),
        (ZeroDivisionError("ours"), "Traceback"),
    ],
)
def test_what_ended_the_run_is_in_the_log(tmp_path, capsys, error, words):
    path = tmp_path / "training.log"
    with pytest.raises(type(error)), open_log(path):
        logger.info("one")
        raise error
    ours, _, last = path.read_text().partition("\n")
    assert ours == "one" and last.startswith(words)
    assert words != "Traceback" or last.endswith("ZeroDivisionError: ours\n")
    assert capsys.readouterr().out == "one\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_ends_the_run_and_is_named():
    full = Path("/dev/full")
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as error, open_log(full):
        logger.info("one")
    assert error.value.filename == "/dev/full"
