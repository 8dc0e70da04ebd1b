"""Features of a pool by the general network that is shipped, and a run that chooses by them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from picking.active_learning import pool_scores, queries
from picking.active_learning import run as running
from picking.active_learning.pool_scores import general_features
from picking.detection.picker import load_picker
from picking.micrographs.preparation import prepare, scale_micrograph
from picking.runs.checkpoints import GENERAL, load_checkpoint
from picking.stores.journal import Journal
from picking.stores.masks import MaskSettings, mask_writer
from picking.stores.segmentation import SegmentationStore
from picking.stores.writer import write_split
from picking.training.augment import to_float
from tests.fixtures import active_runs
from tests.fixtures.data_sets import some_centres
from tests.fixtures.plans import record

CPU = torch.device("cpu")
SIZE_PX = (480, 960)
KINDS = ((40.0, 80), (40.0, 6), (80.0, 20), (80.0, 1))  # diameter in px, and particles


def store_of(folder, side_px):
    """A split of a micrograph of each kind, as a square image of ``side_px`` each."""
    rng, records = np.random.default_rng(0), []
    folder.mkdir(parents=True)
    y, x = np.ogrid[: SIZE_PX[0], : SIZE_PX[1]]
    for i, (diameter_px, n) in enumerate(KINDS):
        centres = some_centres(rng, n, SIZE_PX, apart_px=diameter_px)
        grey = rng.normal(140, 30, SIZE_PX)
        for cy, cx in centres:
            grey[np.hypot(y - cy, x - cx) < diameter_px / 2] -= 40
        records.append(record(f"{i}.png", centres, folder.parent, diameter_px))
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(records[-1].path)
    journal = Journal(folder.parent / f".journal {folder.name}", {"splits": [folder.name]})
    settings = MaskSettings(side_px, "stretch", 1, 0)
    plans = settings.plan_split(folder.name, records, [SIZE_PX] * len(records))
    assert write_split([mask_writer(folder, plans, journal)], n_workers=0) == {}
    return SegmentationStore(folder)


def test_a_store_says_how_wide_particles_are_along_both_axes_of_its_images(tmp_path):
    store = store_of(tmp_path / "train", 240)  # half the height, a quarter of the width
    assert store.diameters_px.tolist() == [[20, 10], [20, 10], [40, 20], [40, 20]]


def test_features_are_the_general_network_s_where_particles_are_twenty_px_wide(tmp_path):
    store = store_of(tmp_path / "train", 240)
    network, seen = load_picker(Path(GENERAL), CPU).network, []
    network.bottleneck.register_forward_hook(lambda *args: seen.append(args[2].mean((2, 3))))
    # Square again: 480 px of 40 px particles are 240, of 80 px ones 120; the width is twice that
    for image, size_px in zip(store.images, [(240, 480)] * 2 + [(120, 240)] * 2, strict=True):
        again = prepare(scale_micrograph(image, size_px), (20, 20))
        with torch.no_grad():
            network(to_float(torch.from_numpy(again[None])))
    features = general_features(store, CPU)
    assert features.shape == (4, 64) and features.dtype == np.float32
    np.testing.assert_allclose(features, torch.cat(seen).numpy(), rtol=1e-3, atol=1e-4)


def test_crowded_micrographs_look_alike_and_unlike_empty_ones_whatever_px_their_particles_have(
    tmp_path,
):
    small, large = (
        general_features(store_of(tmp_path / str(side_px) / "train", side_px), CPU)
        for side_px in (240, 480)
    )
    one, other = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (small, large))
    cosine, crowded = one @ other.T, np.array([True, False, True, False])
    alike = crowded[:, None] == crowded
    assert cosine[alike].min() > 0.7 > 0.6 > cosine[~alike].max()


def test_the_pool_is_shown_to_the_general_network_once(tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(
        pool_scores, "load_checkpoint", lambda *args: loaded.append(1) or load_checkpoint(*args)
    )
    general_features.cache_clear()
    store = active_runs.write_store(tmp_path / "images")
    flags = ("--strategy", "typical_first", "--iterations", 3, "--epochs", 1)
    run = active_runs.learn(store, tmp_path, *flags, run="typical_first")
    assert loaded == [1] and len(active_runs.labelled_of(run, 2)["indices"]) > 2
    # Resumed with another general network it would choose by other features
    shutil.rmtree(run / "iteration_2")
    monkeypatch.setattr(running, "sha256_of_file", lambda path: "other")
    said = active_runs.refused(store, tmp_path, *flags, "--resume")
    assert "begun with another general network" in said and "--run-name" in said


def test_a_run_of_typical_first_chooses_what_features_say(tmp_path, monkeypatch):
    store = active_runs.write_store(tmp_path / "images")

    def general(store, device):
        features = np.eye(3, 64)[np.arange(len(store)) % 3]  # three kinds, in turn
        return features + np.random.default_rng(0).normal(0, 1e-3, features.shape)

    monkeypatch.setattr(queries, "general_features", general)
    flags = ("--strategy", "typical_first", "--iterations", 2, "--epochs", 1)
    run = active_runs.learn(store, tmp_path, *flags, run="typical_first")
    first, both = (active_runs.labelled_of(run, k)["indices"] for k in (0, 1))
    assert len(first) == 2 and len(both) == 4
    assert {i % 3 for i in both} == {0, 1, 2}


@pytest.mark.parametrize(
    ("diameter_px", "message"), [(None, "does not say how wide"), (1.5, "down to 1.5 px")]
)
def test_where_particles_are_unknown_or_too_small_the_general_network_is_not_asked(
    tmp_path, diameter_px, message
):
    store = active_runs.write_store(tmp_path / "images")
    index = json.loads((store / "train" / "index.json").read_text())
    for image in index["images"]:
        image["diameter_px"] = diameter_px and [diameter_px] * 2
    (store / "train" / "index.json").write_text(json.dumps(index))
    flags = ("--strategy", "typical_first", "--iterations", 2, "--epochs", 1)
    said = active_runs.refused(store, tmp_path, *flags)
    assert message in said and str(store / "train") in said and "delete it and make" in said
    assert not (tmp_path / "experiments" / "typical_first").exists()
