import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from models import AttentionUNet, UNet
from picking.detection.micrographs import pick
from picking.detection.network_input import PatchInput, TileInput, WindowInput
from picking.detection.picker import for_scoring, load_picker
from picking.errors import UserError
from picking.metrics.calibration import Calibration
from picking.micrographs.preparation import TRAIN_AGAIN
from tests.fixtures.images import grain
from tests.fixtures.pickers import TILES, classifier_content, know, write_checkpoint

CPU = torch.device("cpu")
LINE = {"slope": 2.0, "offset": 1.0, "threshold": 0.4}
ANOTHER_WAY = (
    rf"^checkpoint .*some\.pt is of another version, which prepared .* way: {TRAIN_AGAIN}$"
)


@pytest.fixture(autouse=True)
def networks_that_know(monkeypatch):
    know(monkeypatch)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "active_run"}, "no model to pick with"),
        ({"config": {"data": 3}}, "unknown key|must be a section"),
        ({"config": []}, "holds no configuration"),
        ({"threshold": 7.0}, "threshold is not from 0 to 1"),
        ({"threshold": "high"}, "threshold is not from 0 to 1"),
        ({"pick_threshold": -1.0}, "pick_threshold is not from 0 to 1"),
        ({"calibration": [1, 2]}, "damaged .calibration"),
        ({"calibration": {"slope": 1.0, "offset": 0.0}}, "damaged .calibration"),
        ({"calibration": {**LINE, "slope": -1.0}}, "damaged .calibration"),
        ({"calibration": {**LINE, "offset": float("nan")}}, "damaged .calibration"),
        ({"calibration": {**LINE, "threshold": 2.0}}, "damaged .calibration"),
        ({"input": None}, "does not say how its input was prepared"),
        ({"input": {**TILES, "side_px": 95}}, "halved"),
        ({"input": {**TILES, "tiles": 10**6}}, "damaged"),
        ({"input": {**TILES, "resize": "fold"}}, "damaged"),
        ({"input": {**TILES, "disk": -1.0}}, "damaged"),
        ({"input": {**TILES, "coarseness": "high"}}, "damaged"),
        ({"input": {**TILES, "preparation": "grey as it is"}}, ANOTHER_WAY),
        (classifier_content(patch_size_px=32, preparation="none"), ANOTHER_WAY),
        ({"input": {k: TILES[k] for k in TILES if k != "preparation"}}, "older version; train"),
        ({"network": {}}, "another architecture"),
        ({"network": {"other": torch.zeros(1)}}, "another architecture"),
        ({"kind": "pu_classifier", "input": {"patch_size_px": 32}, "config": 3}, "input_size_px"),
        (classifier_content("unet", patch_size_px=32), "not what its input says"),
    ],
)
def test_a_checkpoint_that_contradicts_itself_is_refused(tmp_path, changes, words):
    path = write_checkpoint(tmp_path / "some.pt", **changes)
    with pytest.raises(UserError, match=words) as error:
        load_picker(path, CPU)
    assert "some.pt" in str(error.value)


def test_windows_are_scaled_by_the_diameter_of_these_micrographs_and_nothing_else_is(tmp_path):
    wants = {"patch_size_px": 64, "scale": 0.5, "diameter_px": 40.0, "reach_px": 5.0}
    write_checkpoint(tmp_path / "unet.pt", **classifier_content("unet", **wants))
    picker = load_picker(tmp_path / "unet.pt", CPU)
    assert picker.input == WindowInput(32, 0.5, 40.0, disk=0.5)
    assert picker.for_diameter(80).input == WindowInput(32, 0.25, 40.0, disk=0.5)
    for changes in ({}, classifier_content(patch_size_px=64)):
        picker = load_picker(write_checkpoint(tmp_path / "other.pt", **changes), CPU)
        assert isinstance(picker.input, PatchInput | TileInput)
        assert picker.for_diameter(80) is picker


def test_the_scores_of_picks_are_calibrated_and_nothing_else_is(tmp_path):
    image = grain((96, 96), 150)
    y, x = np.ogrid[:96, :96]
    for cy, cx, grey in ((30, 30, 60), (30, 66, 90), (66, 48, 120)):
        image[(y - cy) ** 2 + (x - cx) ** 2 < 100] = grey
    Image.fromarray(image).save(tmp_path / "a.png")
    old = load_picker(write_checkpoint(tmp_path / "old.pt"), CPU)
    raw, plain = pick(old, tmp_path / "a.png", 20)
    path = write_checkpoint(tmp_path / "new.pt", calibration=LINE)
    scores, picks = pick(load_picker(path, CPU), tmp_path / "a.png", 20)
    assert len(plain.scores) >= 3
    np.testing.assert_array_equal(scores.logits, raw.logits)
    np.testing.assert_array_equal(picks.centres_px, plain.centres_px)
    np.testing.assert_array_equal(picks.diameters_px, plain.diameters_px)
    np.testing.assert_array_equal(picks.scores, Calibration(**LINE)(plain.scores))


def test_scores_that_are_not_finite_are_refused(tmp_path):
    class Broken(nn.Module):
        depth, reach_px = 1, 0

        def forward(self, x):
            return x * torch.nan

    Image.fromarray(grain((64, 64))).save(tmp_path / "a.png")
    picker = load_picker(write_checkpoint(tmp_path / "some.pt"), CPU)._replace(network=Broken())
    with pytest.raises(UserError, match=r"a\.png are not finite"):
        pick(picker, tmp_path / "a.png", 20)


@pytest.mark.parametrize("kind", [UNet, AttentionUNet])
def test_a_network_made_ready_for_scoring_says_the_same(kind):
    torch.manual_seed(0)
    network = kind(width=4, depth=2)
    images = torch.randn(3, 1, 32, 32)
    with torch.no_grad():
        for _ in range(3):
            network(images * 2 + 1)  # so that batch norm has something to do
        before = network.eval()(images)
        assert (network(images + 1) - before).abs().max() > 0.01
        ready = for_scoring(network)
        torch.testing.assert_close(ready(images), before, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(each, nn.BatchNorm2d) for each in ready.modules())
