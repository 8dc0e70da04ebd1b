"""A run's log: lines on the console and, at once, in training.log, with what ended the run.

Modules log by `logging.getLogger(__name__)`. Of several processes only the first opens the log, and
what the others log goes nowhere.
"""

import contextlib
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path

from picking.errors import PRINTS, Stopped, sentence_of
from picking.files import naming

LOGGER = logging.getLogger("picking")
LOGGER.setLevel(logging.INFO)
LOGGER.propagate = False
LOGGER.addHandler(logging.NullHandler())  # without any, warnings would go to the console


class _Lines(logging.Handler):
    """Prints lines and adds them to a file, each at once; a full disk raises."""

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self.path = path

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), flush=True)
        self.add(record.getMessage())

    def add(self, line: str) -> None:
        """Add a line to the file alone."""
        if self.path is not None:
            with naming(self.path), self.path.open("a", encoding="utf-8", errors=PRINTS) as file:
                file.write(line + "\n")


@contextlib.contextmanager
def open_log(path: Path | None = None) -> Iterator[None]:
    """Print log lines and, with ``path``, add them to that file.

    What ends the run, a user's mistake, a stop or a defect with its traceback, goes to the file
    too; the console has it from `run_script`.
    """
    lines = _Lines(path)
    LOGGER.addHandler(lines)
    try:
        yield
    except (Stopped, Exception) as error:
        with contextlib.suppress(OSError):
            lines.add(_last_words(error))
        raise
    finally:
        LOGGER.removeHandler(lines)


def shown(value: float | None) -> str:
    """Return a number with four digits, or none."""
    return "none" if value is None else f"{value:.4f}"


def _last_words(error: BaseException) -> str:
    sentence = sentence_of(error)
    if sentence is None:
        return "".join(traceback.format_exception(error)).rstrip()
    return sentence if isinstance(error, Stopped) else f"error: {sentence}"
