"""Worker processes: those that hang, and every way to start them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from picking import parallel
from picking.errors import UserError
from picking.parallel import ordered_map, reading_workers
from tests.fixtures import ROOT, active_runs, pu_runs
from tests.fixtures.patch_stores import content, done


def stop_itself(n):
    """Stand for a worker that hangs: it heeds no SIGTERM either."""
    os.kill(os.getpid(), signal.SIGSTOP)
    return n


def give_up(n):
    raise TimeoutError(f"job {n} says so")


def test_a_worker_that_hangs_is_a_clear_error_and_is_killed(monkeypatch):
    monkeypatch.setattr(parallel, "PATIENCE_S", 0.3)
    before = multiprocessing.active_children()
    with pytest.raises(UserError, match=r"a worker process has done nothing .* run again"):
        list(ordered_map(stop_itself, range(3), 2, "Hanging"))
    assert multiprocessing.active_children() == before


def test_a_job_that_says_itself_that_time_is_up_is_no_worker_that_hangs():
    with pytest.raises(TimeoutError, match="job 0 says so"):
        list(ordered_map(give_up, range(3), 2, "Giving up"))


def test_an_error_of_ours_while_workers_read_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="shapes differ"), reading_workers():
        raise RuntimeError("shapes differ")


@pytest.mark.parametrize("wrong", ["was killed", "has read nothing for 30 minutes"])
def test_what_torch_says_of_its_workers_is_one_sentence_that_says_how_to_go_on(wrong):
    says = {
        "was killed": "DataLoader worker (pid 7) is killed by signal: Killed. ",
        "has read nothing for 30 minutes": "DataLoader timed out after 1800 seconds",
    }
    words = f"{wrong}.*--num-workers.*--resume"
    with pytest.raises(UserError, match=words) as error, reading_workers():
        raise RuntimeError(says[wrong])
    assert "\n" not in str(error.value)


STOPPED = """
import os, signal, sys, time
from picking.errors import run_script
from picking.parallel import ordered_map

def signal_all(n):
    if n == 2:
        os.killpg(0, signal.SIGTERM)
    time.sleep(0.1)
    return n

os.setsid()
run_script(lambda: list(ordered_map(signal_all, range(50), 2, "Waiting")))
"""


def test_a_signal_to_parent_and_workers_ends_in_one_sentence_and_no_traceback():
    ended = subprocess.run(
        [sys.executable, "-c", STOPPED], cwd=ROOT, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (143, 1), ended.stderr


# Linux forks until Python 3.14, which starts workers by a server; a user may choose otherwise

SPAWNS = """
import multiprocessing, sys
from tests.fixtures import active_runs, patch_stores, pu_runs
from pathlib import Path

multiprocessing.set_start_method("spawn")
data, store, images, out = map(Path, sys.argv[1:])
patch_stores.done(data, out / "store", "--num-workers", 1, "--splits", "val")
pu_runs.train(store, out, "--num-workers", 1)
active_runs.learn(images, out, "--num-workers", 1, "--iterations", 1)
assert multiprocessing.get_start_method() == "spawn"
"""


def test_spawned_workers_give_the_same_store_and_the_same_weights(
    data_set, store, finished_run, tmp_path
):
    images, out = active_runs.write_store(tmp_path / "images"), tmp_path / "spawned"
    ended = subprocess.run(
        [sys.executable, "-c", SPAWNS, data_set.root, store, images, out],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert content(out / "store") == done(data_set.root, tmp_path / "store", "--splits", "val")
    pu_runs.assert_same_run(out / "run", finished_run)
    alone = active_runs.learn(images, tmp_path, "--iterations", 1)
    active_runs.assert_same_run(out / "uncertainty", alone, iterations=1)


@pytest.mark.parametrize("parent_is_alive", [True, False])
def test_a_worker_that_has_lost_its_parent_complains_no_more(parent_is_alive, capsys, monkeypatch):
    parent = SimpleNamespace(is_alive=lambda: parent_is_alive, join=threading.Event().wait)
    monkeypatch.setattr(parallel.multiprocessing, "parent_process", lambda: parent)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    parallel.follow_parent()
    sys.excepthook(EOFError, EOFError("broken pipe"), None)
    assert ("broken pipe" in capsys.readouterr().err) == parent_is_alive


def slow_first(n):
    time.sleep(0.2 if n == 0 else 0)
    return n, os.getpid()


def die(n):
    os._exit(9)


def complain(n):
    raise UserError(f"number {n}")


@pytest.mark.parametrize("n_workers", [0, 1, 3])
def test_results_come_in_order_from_as_many_processes_as_asked(n_workers):
    results = list(ordered_map(slow_first, range(30), n_workers, "Counting"))
    assert [n for n, _ in results] == list(range(30))
    processes = {process for _, process in results}
    assert len(processes) <= max(1, n_workers)
    assert (os.getpid() in processes) == (n_workers == 0)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_no_job_gives_no_result(n_workers):
    assert list(ordered_map(slow_first, [], n_workers, "Counting")) == []


def test_a_users_mistake_in_a_worker_comes_through():
    with pytest.raises(UserError, match="number 0"):
        list(ordered_map(complain, range(5), 2, "Complaining"))


def test_a_killed_worker_is_a_clear_error_and_no_hang():
    with pytest.raises(UserError, match=r"a worker process was killed.*fewer --num-workers"):
        list(ordered_map(die, range(5), 2, "Dying"))


def test_leaving_early_leaves_no_process_behind():
    results = ordered_map(slow_first, range(50), 2, "Counting")
    process = [next(results), next(results)][1][1]
    results.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
