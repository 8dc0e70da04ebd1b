"""Fixtures: a tiny data set with CryoTransformer's habits, its stores and run, real micrographs."""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.fixtures import ROOT
from tests.fixtures.data_sets import write_data_set

# Tests send Ctrl-C, which a shell lets what it runs in the background ignore
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_signal_handlers():
    """Give signals back to pytest, since `run_script` handles some."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    if torch_workers := sys.modules.get("torch.utils.data._utils.signal_handling"):
        torch_workers._SIGCHLD_handler_set = False  # or a worker's death is never told again


@pytest.fixture
def own_kernels():
    """Give torch's choice of kernels back to what it was."""
    import torch

    yield
    torch.use_deterministic_algorithms(False)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@pytest.fixture(scope="session")
def data_set(tmp_path_factory):
    """A tiny data set to read, not to change: ``root`` and ``centres_px``, by stem."""
    root = tmp_path_factory.mktemp("data_set")
    return SimpleNamespace(root=root, centres_px=write_data_set(root))


@pytest.fixture
def own_data(tmp_path):
    """A tiny data set of two splits to be changed by the test."""
    write_data_set(tmp_path / "data", {"train": 3, "val": 2})
    return tmp_path / "data"


@pytest.fixture(scope="session")
def preprocessed(data_set, tmp_path_factory):
    """A store of the tiny data set with its pictures, and what the script printed."""
    from tests.fixtures import patch_stores

    output = tmp_path_factory.mktemp("preprocessed") / "store"
    result = patch_stores.preprocess(data_set.root, output, montage=True)
    assert (result.status, result.err) == (0, "")
    return SimpleNamespace(output=output, printed=result.out)


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A patch store to train on, of patches hard to tell apart: 21 labelled, 39 unlabeled."""
    from tests.fixtures import patch_stores

    root = tmp_path_factory.mktemp("training")
    write_data_set(root / "data", {"train": 3, "val": 2, "test": 2})
    patch_stores.done(root / "data", root / "store")
    rng = np.random.default_rng(0)
    for path in (root / "store").glob("*/patches.npy"):
        patches = np.load(path)
        fainter = 110 + 0.12 * (patches.astype(float) - 130) + rng.normal(0, 40, patches.shape)
        np.save(path, fainter.clip(0, 255).astype(np.uint8))
    return root / "store"


@pytest.fixture(scope="session")
def finished_run(store, tmp_path_factory):
    """The folder of one uninterrupted run, to look at and to compare with."""
    from tests.fixtures import pu_runs  # here: it takes seconds, and most tests need no run

    return pu_runs.train(store, tmp_path_factory.mktemp("finished_run"))


@pytest.fixture(scope="session")
def seg_store(tmp_path_factory):
    """A segmentation store of tiny images."""
    from tests.fixtures import active_runs

    return active_runs.write_store(tmp_path_factory.mktemp("seg_store"))


@pytest.fixture(scope="session")
def active_run(seg_store, tmp_path_factory):
    """The folder of one uninterrupted run of active learning on it."""
    from tests.fixtures import active_runs

    return active_runs.learn(seg_store, tmp_path_factory.mktemp("active_run"))


@pytest.fixture(scope="session")
def relion_project(tmp_path_factory):
    """A RELION project of simulated micrographs with known particles, to read, not to change."""
    from tests.fixtures.relion_project import write_project

    return write_project(tmp_path_factory.mktemp("relion_project"))


@pytest.fixture(scope="session")
def empiar10017():
    """The folder of twelve real micrographs; skips where it is not."""
    default = ROOT / "../shared/data/empiar-10017"
    folder = Path(os.environ.get("EMPIAR10017_DIR", default))
    if not folder.is_dir():
        pytest.skip(f"no real micrographs at {folder}: set EMPIAR10017_DIR")
    return folder
