"""A run's TensorBoard event file."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from picking.runs import distributed


@contextlib.contextmanager
def open_board(folder: Path, n_epochs_done: int) -> Iterator[SummaryWriter | None]:
    """Open the run's event file; what an interrupted run wrote after that epoch is hidden.

    It is None, for nothing is to be written, in all processes but the first.
    """
    if not distributed.is_first():
        yield None
        return
    threading.excepthook = _said_by_the_main_thread
    with SummaryWriter(str(folder), purge_step=n_epochs_done + 1) as board:
        yield board


def _said_by_the_main_thread(args: threading.ExceptHookArgs) -> None:
    """Print no traceback of the thread that writes events: the next write or flush raises it."""
    if not isinstance(args.exc_value, OSError):
        threading.__excepthook__(args)
