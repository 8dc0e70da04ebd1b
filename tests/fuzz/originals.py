"""The good files and folders that cases start from, made once a process; to copy, not to change."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path


@functools.cache
def _root():
    folder = tempfile.mkdtemp(prefix="fuzz_originals")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def copy(folder, target):
    """Copy a folder for a case to change it; return where."""
    return Path(shutil.copytree(folder, target))


@functools.cache
def data_set():
    """A tiny data set, annotated by JSON (train, val) and by CSV (all)."""
    from tests.fixtures.data_sets import write_data_set

    write_data_set(_root() / "data", {"train": 2, "val": 2, "test": 1})
    return _root() / "data"


@functools.cache
def segmentation_store():
    """A segmentation store of three tiny splits."""
    from tests.fixtures import active_runs

    return active_runs.write_store(_root() / "segmentation")


@functools.cache
def patch_store():
    """A patch store of two splits, and its copy as if of windows."""
    from tests.fixtures import patch_stores

    patch_stores.done(data_set(), _root() / "patches", "--splits", "train", "val")
    return _root() / "patches"


@functools.cache
def window_store():
    """The patch store as if its patches were windows about a few picks."""
    from tests.fixtures import pu_runs

    (_root() / "windows").mkdir()
    return pu_runs.as_windows(patch_store(), _root() / "windows")


@functools.cache
def active_runs():
    """A folder with a run of three iterations, the last one not complete, and the flags for it."""
    from tests.fixtures import active_runs

    folder = _root() / "active"
    run = active_runs.learn(segmentation_store(), folder)
    (run / "iteration_2" / "metrics.json").unlink()
    return folder


@functools.cache
def pu_runs(windows):
    """A folder with a run whose last epoch is still to be done; of a U-Net for ``windows``."""
    import torch

    from tests.fixtures import pu_runs

    folder = _root() / ("pu_unet" if windows else "pu")
    run = pu_runs.train(**pu_arguments(windows), experiments=folder)
    (run / "results.json").unlink()
    last = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    progress = last["progress"]
    progress["step"] = progress["step"] * 2 // 3
    progress["epoch"] = 2
    torch.save(last, run / "checkpoints" / "last.pt")
    return folder


def pu_arguments(windows):
    """The arguments of `pu_runs.train` for the run of `pu_runs`."""
    from tests.fixtures import pu_runs

    if windows:
        return {"store": window_store(), "overrides": pu_runs.UNET}
    return {"store": patch_store()}


@functools.cache
def learning_runs():
    """Fabricated runs for the analysis."""
    from tests.fixtures.run_folders import RISING, SLOW, write_run

    folder = _root() / "learning"
    write_run(folder, "random", SLOW[:4], test_f1s=SLOW[:4])
    write_run(folder, "uncertainty", RISING[:4], test_f1s=RISING[:4])
    write_run(folder, "full", [0.73], test_f1s=[0.7])
    return folder


@functools.cache
def picked():
    """A folder of picks of `data_set`'s validation micrographs, by `best_model` of a tiny run."""
    from . import scripts

    scripts.pick(best_model(), _root() / "picked", "--threshold", 0)  # all candidates
    return _root() / "picked"


def best_model():
    """The best network of the active-learning run."""
    return active_runs() / "uncertainty" / "iteration_1" / "best_model.pt"


def best_pu_model():
    """The best network of the PU run of a U-Net."""
    return pu_runs(True) / "run" / "checkpoints" / "best_model.pt"
