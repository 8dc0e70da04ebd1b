"""A run's TensorBoard event file."""

import threading
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


def open_board(folder: Path, n_epochs_done: int) -> SummaryWriter:
    """Open the run's event file; what an interrupted run wrote after that epoch is hidden."""
    threading.excepthook = _said_by_the_main_thread
    return SummaryWriter(str(folder), purge_step=n_epochs_done + 1)


def _said_by_the_main_thread(args: threading.ExceptHookArgs) -> None:
    """Print no traceback of the thread that writes events: the next write or flush raises it."""
    if not isinstance(args.exc_value, OSError):
        threading.__excepthook__(args)
