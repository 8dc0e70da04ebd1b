"""Fixtures of the tests of picking: micrographs of dark disks, and a network that knows them."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.fixtures.data_sets import boxes, picture, some_centres, write_coco

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
