import numpy as np
import torch
from PIL import Image
from torch import nn

from picking.detection.network_input import PatchInput, TileInput, WindowInput, input_of
from picking.detection.scores.score_map import segmentation_map
from picking.micrographs.preparation import PREPARATION
from tests.fixtures.images import grain


def test_a_classifiers_input_size_is_that_of_its_config():
    config = {"data": {"input_size_px": 64}}
    wants = {"patch_size_px": 128, "preparation": PREPARATION}
    checkpoint = {"kind": "pu_classifier", "config": config, "input": wants}
    assert input_of(checkpoint, "a") == PatchInput(128, 64, diameter_px=None)


def scores_of(wants, image, path):
    """The map of a network that gives back its input."""
    Image.fromarray(image).save(path)
    network = nn.Identity()
    network.depth, network.reach_px = 0, 0
    return segmentation_map(network, wants.scaled(path), image.shape, "fp32", torch.device("cpu"))


def test_tiles_are_scored_at_their_size(tmp_path):
    tiles = TileInput(side_px=48, tiles=2, resize="stretch", disk=1.0)
    scores = scores_of(tiles, grain((128, 128)), tmp_path / "a.png")
    assert (scores.logits.shape, scores.size_px) == ((96, 96), (128, 128))


def test_a_map_of_a_scaled_micrograph_lies_where_the_micrograph_does(tmp_path):
    y, x = (np.arange(n) + 0.5 for n in (331, 402))
    centre = (121.3, 240.6)
    image = 240 * np.exp(-((y[:, None] - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * 9**2))
    image += grain((331, 402), 0)
    windows = WindowInput(side_px=200, scale=20 / 36, diameter_px=36.0, disk=0.5)
    scores = scores_of(windows, image.astype(np.uint8), tmp_path / "a.png")
    assert scores.logits.shape == (184, 223) and scores.size_px == (331, 402)
    weight = np.maximum(scores.logits - 0.5, 0)
    cells = np.argwhere(weight)
    at = np.average(scores.positions_px(cells), axis=0, weights=weight[tuple(cells.T)])
    np.testing.assert_allclose(at, centre, atol=0.3)
