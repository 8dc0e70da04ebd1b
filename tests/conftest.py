"""Fixtures: a tiny data set with CryoTransformer's habits, its stores and run, real micrographs."""

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

pytest.register_assert_rewrite("tiny_runs", "tiny_stores")  # for pytest's detailed messages

# Tests send Ctrl-C, which a shell lets what it runs in the background ignore
signal.signal(signal.SIGINT, signal.default_int_handler)

DIAMETER_PX = 20
SIZE_PX = (320, 384)
N_PARTICLES = 10
SPLITS = {"train": 3, "val": 2, "test": 1}


def coco(images, size_px=SIZE_PX):
    """COCO content as CryoTransformer's notebook wrote it, from file name -> boxes (x, y, w, h)."""
    listed = [
        {"id": i, "file_name": name, "height": size_px[0], "width": size_px[1], "license": 1}
        for i, name in enumerate(images)
    ]
    boxes = [
        {"id": n, "image_id": i, "category_id": 1, "bbox": list(map(float, box)),
         "area": float(box[2]) ** 2, "iscrowd": 1, "segmentation": []}
        for n, (i, box) in enumerate((i, b) for i, bs in enumerate(images.values()) for b in bs)
    ]  # fmt: skip
    return {
        "info": [{"description": "CryoTransformer", "year": 2023}],
        "categories": [{"id": 1, "name": "protein"}],
        "images": listed,
        "annotations": boxes,
    }


def write_coco(path, images, size_px=SIZE_PX):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(coco(images, size_px)))


def write_csv(path, centres_px, diameter_px=DIAMETER_PX):
    """A CryoPPP CSV with the further columns that some of them have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{x},{y},{diameter_px},-1.5,0.25" for y, x in centres_px]
    header = "X-Coordinate,Y-Coordinate,Diameter,AnglePsi,Class Number"
    path.write_text("\n".join([header, *rows]) + "\n")


def boxes(centres_px, diameter_px=DIAMETER_PX):
    """Boxes (x, y, w, h) around centres (y, x)."""
    half = diameter_px / 2
    return [[x - half, y - half, diameter_px, diameter_px] for y, x in centres_px]


def some_centres(rng, n, size_px=SIZE_PX, margin_px=12, apart_px=24):
    """Centres (y, x) at random, in whole px, no two nearer than ``apart_px``."""
    centres = np.empty((0, 2))
    while len(centres) < n:
        one = rng.integers(margin_px, np.array(size_px) - margin_px).astype(float)
        if (np.hypot(*(centres - one).T) >= apart_px).all():
            centres = np.vstack([centres, one])
    return centres


def picture(rng, centres_px, size_px=SIZE_PX):
    """A noisy grey image with a dark disk at every centre, uint8 (h, w)."""
    image = rng.normal(140, 20, size_px)
    y, x = np.ogrid[: size_px[0], : size_px[1]]
    for centre_y, centre_x in centres_px:
        image[(y - centre_y) ** 2 + (x - centre_x) ** 2 < (DIAMETER_PX / 2) ** 2] -= 60
    return np.clip(image, 0, 255).astype(np.uint8)


def write_data_set(root, splits=SPLITS, seed=0):
    """Write micrographs, JSON for train and val, CSVs for all; return stem -> centres (y, x).

    The first micrograph has a particle whose box hangs over the upper edge.
    """
    rng = np.random.default_rng(seed)
    centres = {}
    for split, n in splits.items():
        (root / split).mkdir(parents=True)
        names = [f"{split}_{i:02}" for i in range(n)]
        for name in names:
            centres[name] = some_centres(rng, N_PARTICLES)
            if not centres.keys() - {name}:
                centres[name][0] = (7, 30)
            image = Image.fromarray(picture(rng, centres[name]))
            image.save(root / split / f"{name}.jpg", quality=95)
            write_csv(root / "particle_coordinates" / f"{name}.csv", centres[name])
        if split != "test":  # as in the released data set
            write_coco(
                root / "annotations" / f"instances_{split}.json",
                {f"{name}.jpg": boxes(centres[name]) for name in names},
            )
    return centres


@pytest.fixture(autouse=True)
def own_signal_handlers():
    """Give signals back to pytest, since `run_script` handles some."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    hook = sys.unraisablehook
    yield
    sys.unraisablehook = hook
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
    import tiny_stores

    output = tmp_path_factory.mktemp("preprocessed") / "store"
    result = tiny_stores.preprocess(data_set.root, output, montage=True)
    assert (result.status, result.err) == (0, "")
    return SimpleNamespace(output=output, printed=result.out)


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A patch store to train on, of patches hard to tell apart: 21 labelled, 39 unlabeled."""
    import tiny_stores

    root = tmp_path_factory.mktemp("training")
    write_data_set(root / "data", {"train": 3, "val": 2, "test": 2})
    tiny_stores.done(root / "data", root / "store")
    rng = np.random.default_rng(0)
    for path in (root / "store").glob("*/patches.npy"):
        patches = np.load(path)
        fainter = 110 + 0.12 * (patches.astype(float) - 130) + rng.normal(0, 40, patches.shape)
        np.save(path, fainter.clip(0, 255).astype(np.uint8))
    return root / "store"


@pytest.fixture(scope="session")
def finished_run(store, tmp_path_factory):
    """The folder of one uninterrupted run, to look at and to compare with."""
    import tiny_runs  # here: it takes seconds, and most tests need no run

    return tiny_runs.train(store, tmp_path_factory.mktemp("finished_run"))


@pytest.fixture(scope="session")
def empiar10017():
    """The folder of twelve real micrographs; skips where it is not."""
    default = Path(__file__).parents[1] / "../shared/data/empiar-10017"
    folder = Path(os.environ.get("EMPIAR10017_DIR", default))
    if not folder.is_dir():
        pytest.skip(f"no real micrographs at {folder}: set EMPIAR10017_DIR")
    return folder
