"""Fixtures of picking (dark disks and a network that knows them) and of the launchers."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.fixtures.data_sets import boxes, picture, some_centres, write_coco
from tests.fixtures.launching import copy_project, launch_in

NAMES = ("a.jpg", "b.jpg", "c.jpg")


@pytest.fixture(scope="session")
def disks(tmp_path_factory):
    """Micrographs to read, not to change, with their truth in truth.json.

    ``folder``; ``centres`` and ``sizes`` by file name.
    """
    folder, size_px = tmp_path_factory.mktemp("disks"), (320, 384)
    rng = np.random.default_rng(0)
    centres = {name: some_centres(rng, 12, size_px) for name in NAMES}
    for name in NAMES:
        Image.fromarray(picture(rng, centres[name], size_px)).save(folder / name, quality=95)
    write_coco(folder / "truth.json", {n: boxes(c) for n, c in centres.items()}, size_px)
    return SimpleNamespace(folder=folder, centres=centres, sizes=dict.fromkeys(NAMES, size_px))


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """The checkpoint of a U-Net that knows, and no other networks are built."""
    from tests.fixtures import pickers

    pickers.know(monkeypatch)
    return pickers.write_checkpoint(tmp_path / "best_model.pt")


@pytest.fixture
def repository(tmp_path):
    """A copy of the project, to change."""
    return copy_project(tmp_path)


@pytest.fixture
def launch(repository, tmp_path):
    """What runs a launcher of the copy with a stand-in for Python."""
    return launch_in(repository, tmp_path)
