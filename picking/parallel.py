"""Work shared out over processes: results in order, memory bounded, no process left behind."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np

from picking.errors import LAST_WORDS, Stopped, UserError, raise_if_stopped

# An image or a batch takes seconds, on a slow disk too: a worker that takes longer than this hangs
PATIENCE_S = 1800
DYING_S = 0.5  # in which what a killed process has open is closed, one after another
POLL_S = 0.2  # how often a stop is looked for meanwhile


def ordered_map(
    function: Callable[[Any], Any],
    jobs: Iterable[Any],
    n_workers: int,
    title: str | None,
    n_total: int | None = None,
) -> Iterator[Any]:
    """Yield ``function(job)`` for every job, in order, from ``n_workers`` processes (0: here).

    At most four jobs a worker are under way, so memory does not grow with their number. A
    progress bar named ``title``, where there is one, goes to the terminal; ``n_total`` counts jobs
    done earlier too.
    """
    from tqdm import tqdm

    jobs = list(jobs)
    n_total = len(jobs) if n_total is None else n_total
    disable = True if title is None else None  # None: where there is no terminal
    n_done = n_total - len(jobs)
    bar = tqdm(total=n_total, initial=n_done, desc=title, disable=disable, unit="image")
    with bar:
        for result in _results(function, jobs, min(n_workers, len(jobs))):
            bar.update()
            yield result


def ahead(function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Any]:
    """Yield ``function(job)`` for every job, in order; the next one is under way in a thread."""
    with ThreadPoolExecutor(1) as thread:
        under_way: deque[Future] = deque()
        for job in jobs:
            under_way.append(thread.submit(function, job))
            if len(under_way) > 1:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def _results(function: Callable, jobs: list, n_workers: int) -> Iterator[Any]:
    if n_workers < 1:
        for job in jobs:
            raise_if_stopped()
            yield function(job)
        return
    others = multiprocessing.active_children()
    pending: deque = deque()
    with ProcessPoolExecutor(n_workers, initializer=_start_worker) as pool:
        try:
            for job in jobs:
                pending.append(pool.submit(function, job))
                if len(pending) >= 4 * n_workers:
                    yield _result(pending.popleft(), others)
            while pending:
                yield _result(pending.popleft(), others)
        except BrokenProcessPool as error:
            _kill_workers(others)
            raise_if_stopped()  # the signal may have ended a worker that had just been started
            raise UserError(
                "a worker process was killed, most often for want of memory: run again with fewer "
                "--num-workers (what is done is kept)"
            ) from error
        except Stopped:
            _kill_workers(others)
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _result(future: Future, others: list) -> Any:
    """Return a job's result; workers that do not come to it are killed, with a `UserError`."""
    give_up = time.monotonic() + PATIENCE_S
    while not wait_for([future], timeout=POLL_S).done:
        raise_if_stopped()
        if time.monotonic() >= give_up:
            _kill_workers(others)
            raise UserError(
                f"a worker process has done nothing for {PATIENCE_S / 60:g} minutes: see whether "
                "the disk hangs, then run again (what is done is kept)"
            )
    raise_if_stopped()
    return future.result()


def _kill_workers(others: list) -> None:
    """Kill this process's children but for ``others``: what hangs may heed no SIGTERM."""
    told = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would raise that they were killed
    try:
        for child in multiprocessing.active_children():
            if child not in others:
                child.kill()
                child.join(5)
    finally:
        signal.signal(signal.SIGCHLD, told or signal.SIG_DFL)


@contextlib.contextmanager
def reading_workers() -> Iterator[None]:
    """Raise `UserError` when a worker of a DataLoader is killed or hangs, whatever runs meanwhile.

    Torch raises its error from the signal that tells of a worker's end, so amid anything.
    """
    others = multiprocessing.active_children()
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith(("DataLoader worker", "DataLoader timed out")):
            raise
        _kill_workers(others)
        what = "was killed, most often for want of memory (or of shared memory, /dev/shm)"
        if "timed out" in str(error):
            what = f"has read nothing for {PATIENCE_S / 60:g} minutes: see whether the disk hangs"
        raise UserError(
            f"a process that reads the data {what}: lower --num-workers, 0 reads without any, and "
            "go on with --resume"
        ) from error


def batch_loader(dataset: Any, sampler: Any, n_workers: int, device: Any) -> Any:
    """Return a DataLoader of whole batches, ``dataset[indices]`` for what the sampler yields.

    n_workers: processes that read them; 0: this one, straight from the memory map.
    """
    from torch.utils.data import DataLoader  # preprocessing never waits for torch

    return DataLoader(
        dataset,
        sampler=sampler,
        batch_size=None,
        num_workers=n_workers,
        pin_memory=device.type == "cuda",
        persistent_workers=n_workers > 0,
        worker_init_fn=follow_parent,
        timeout=PATIENCE_S if n_workers else 0,
    )


def keep_freed_memory() -> None:
    """Have this process keep what an image or a batch frees, not hand it back and fetch it anew.

    Page faults were a third of the time in which the CPU makes views, and a twentieth of
    preprocessing's. Freeing one large block raises glibc's threshold (mallopt(3),
    M_MMAP_THRESHOLD); with other C libraries nothing happens.
    """
    np.empty(2**25 - 2**16, np.uint8)  # just under the 32 MiB that glibc heeds


def _start_worker() -> None:
    keep_freed_memory()
    follow_parent()


def follow_parent(number: int = 0) -> None:
    """Leave signals to the parent, and end when the parent does, however it ends; in a worker.

    Torch's own workers look for their parent every five seconds only, and hold its locks till then.
    """
    for number in LAST_WORDS:
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    def say(*error: Any) -> None:
        parent.join(DYING_S)
        if parent.is_alive():  # else all there is to say is that a pipe to it is broken
            sys.__excepthook__(*error)

    sys.excepthook = say
    threading.Thread(target=watch, daemon=True).start()
