import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import nn

from models import PUClassifier
from picking.config import AugmentationConfig
from picking.detection import score_map
from picking.preprocessing.cutting import cut_patches
from picking.pu_learning.inputs import Patches
from picking.stores.masks import ImagePlan, MaskSettings, working_size
from picking.training.augment import strong_view, to_float

CPU = torch.device("cpu")
RADIUS_PX = 24


def field(rng, n, size_px):
    """Noisy grey, darker towards one corner, with dark disks at the centres that come along."""
    centres = rng.uniform(0, size_px, (n, 2))
    y, x = np.mgrid[:size_px, :size_px]
    image = rng.normal(140, 30, (size_px, size_px)) - 40 * x * y / size_px**2
    for centre in centres:
        image[np.hypot(y - centre[0], x - centre[1]) < RADIUS_PX] -= 40
    return image.clip(0, 255).astype(np.uint8), centres


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained():
    """A ResNet-18 that has learned for some seconds which 64 px windows are centred on a disk."""
    rng = np.random.default_rng(0)
    image, centres = field(rng, 40, 1000)
    elsewhere = rng.uniform(0, 1000, (80, 2))
    near = np.hypot(*(elsewhere[:, None] - centres).transpose(2, 0, 1)).min(axis=1)
    elsewhere = elsewhere[near > RADIUS_PX][:40]
    windows = torch.tensor(cut_patches(image, np.concatenate([centres, elsewhere]), 64))
    label = (torch.arange(len(windows)) < len(centres)).float()
    torch.manual_seed(0)
    network = PUClassifier("resnet18", dropout=0.0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.3
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    generator = torch.Generator().manual_seed(0)
    views = AugmentationConfig(
        noise=0, blur_px=0, cutout=0
    )  # as in training, milder: steps are few
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(12):
        rows = torch.from_numpy(rng.choice(len(windows), 16, replace=False))
        z = network(strong_view(windows[rows], generator, views))
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(z, label[rows]).backward()
        optimizer.step()
    torch.set_num_threads(threads)
    return network.eval()


class CentreValue(nn.Module):
    """A classifier or a U-Net without weights: how bright the middle, or each pixel, is."""

    def forward(self, x):
        middle = x.shape[-1] // 2
        return x[:, 0, middle, middle] if x.shape[-1] == 32 else x


def patch_by_patch(network, image, scores, patch_px, input_px):
    """Score the patches centred at the map's positions one by one, as in training."""
    cells = np.argwhere(np.ones(scores.logits.shape, dtype=bool))
    patches = cut_patches(image, scores.positions_px(cells), patch_px)
    with torch.no_grad():
        z = Patches(patches, input_px, None).logits(network, patches, CPU)
    return z.numpy().reshape(scores.logits.shape)


# The classifier


@pytest.mark.parametrize("patch_px", [64, 128])
def test_dense_scores_rank_places_as_patch_by_patch_scoring_does(trained, patch_px):
    image, _ = field(np.random.default_rng(1), 4, 128)
    image = np.kron(image, np.ones((patch_px // 64, patch_px // 64), np.uint8))
    scores = score_map.classifier_map(trained, image, patch_px, 64, "fp32", CPU)
    single = patch_by_patch(trained, image, scores, patch_px, 64)
    assert scores.logits.shape == (16, 16)
    assert single.std() > 0.3
    assert spearmanr(scores.logits.ravel(), single.ravel())[0] >= 0.98


def test_scores_do_not_depend_on_how_many_windows_are_scored_at_a_time(trained, monkeypatch):
    image, _ = field(np.random.default_rng(2), 6, 100)
    whole = score_map.classifier_map(trained, image[:, :61], 64, 64, "fp32", CPU)
    monkeypatch.setattr(score_map, "BATCH_WINDOWS", 8)
    tiled = score_map.classifier_map(trained, image[:, :61], 64, 64, "fp32", CPU)
    assert whole.logits.shape == (13, 8)
    np.testing.assert_allclose(tiled.logits, whole.logits, atol=1e-4)


def test_what_lies_far_from_a_place_does_not_change_its_score(trained):
    image, _ = field(np.random.default_rng(3), 6, 144)
    whole = score_map.classifier_map(trained, image[:72], 64, 64, "fp32", CPU)
    part = score_map.classifier_map(trained, image[:72, :112], 64, 64, "fp32", CPU)
    inside = np.s_[:, : (112 - 40) // 8]
    np.testing.assert_allclose(part.logits[inside], whole.logits[inside], atol=1e-4)


@pytest.mark.parametrize("patch_px", [32, 64, 96])
def test_small_windows_score_exactly_as_patches_do(patch_px):
    image, _ = field(np.random.default_rng(4), 5, 150)
    scores = score_map.classifier_map(CentreValue(), image[:131], patch_px, 32, "fp32", CPU)
    single = patch_by_patch(CentreValue(), image[:131], scores, patch_px, 32)
    assert single.std() > 0.3
    np.testing.assert_allclose(scores.logits, single, atol=0.1)  # scaling rounds to grey levels


@pytest.mark.parametrize(("patch_px", "spacing_px"), [(32, 4), (64, 8), (80, 10)])
def test_a_cell_stands_for_where_its_window_has_its_centre(patch_px, spacing_px):
    image = np.full((200, 240), 100, np.uint8)
    image[120 - 4 : 120 + 4, 80 - 4 : 80 + 4] = 200
    scores = score_map.classifier_map(CentreValue(), image, patch_px, 32, "fp32", CPU)
    assert scores.spacing_px.tolist() == [spacing_px] * 2
    assert scores.logits.shape == tuple(-(-n // spacing_px) for n in image.shape)
    bright = np.argwhere(scores.logits > scores.logits.max() / 2)
    assert np.abs(scores.positions_px(bright) - (120, 80)).max() <= 4 + spacing_px


def test_layers_are_shared_only_while_their_map_of_a_window_is_fine():
    assert [score_map.shared_stages(n) for n in (16, 32, 64, 96, 100, 128, 256, 511)] == [
        (0, 1), (0, 1), (1, 4), (1, 4), (1, 4), (2, 8), (3, 16), (0, 1),
    ]  # fmt: skip


# The U-Net


@pytest.mark.parametrize(
    ("size_px", "padded_px"),
    [((4096, 4096), (768, 768)), ((3710, 3838), (742, 768)), ((33, 1000), (25, 768))],
)
def test_a_micrograph_is_scaled_as_for_training(size_px, padded_px):
    for resize, expected in (("stretch", (768, 768)), ("pad", padded_px)):
        settings = MaskSettings(128, resize, 6, 0)
        plan = ImagePlan(None, size_px, np.empty((0, 2)), np.empty(0), settings)
        assert working_size(size_px, 128, 6, resize) == plan.scaled_px == expected


def test_every_pixel_gets_the_mean_of_the_images_it_lies_in():
    class Rows(nn.Module):
        def forward(self, x):
            return torch.ones_like(x) * 3

    scores = score_map.segmentation_map(
        Rows(), np.zeros((70, 40), np.uint8), 32, (140, 120), "fp32", CPU
    )
    assert scores.logits.shape == (70, 40)
    np.testing.assert_allclose(scores.logits, 3, rtol=1e-6)
    assert scores.spacing_px.tolist() == [2, 3]
    assert scores.positions_px(np.array([[0, 0], [69, 39]])).tolist() == [[1, 1.5], [139, 118.5]]


def test_what_a_network_gets_wrong_at_the_rim_of_an_image_leaves_no_seam():
    class WrongAtTheRim(nn.Module):
        def forward(self, x):
            z = torch.zeros_like(x)
            z[..., 0], z[..., -1] = 9, 9
            z[..., 0, :], z[..., -1, :] = 9, 9
            return z

    z = score_map.segmentation_map(
        WrongAtTheRim(), np.zeros((128, 128), np.uint8), 32, (128, 128), "fp32", CPU
    ).logits
    assert z[1:-1, 1:-1].max() < 9 / 10
    assert z[0].min() > 8  # the micrograph's own edge: nothing else is known there


def test_one_image_a_micrograph_is_scored_as_it_is():
    image, _ = field(np.random.default_rng(5), 5, 64)
    scores = score_map.segmentation_map(CentreValue(), image, 64, (64, 64), "fp32", CPU)
    np.testing.assert_allclose(scores.logits, to_float(torch.tensor(image)[None])[0, 0], atol=1e-5)


def test_a_heatmap_has_a_pixel_for_each_cell(tmp_path):
    logits = np.array([[-20, 0], [20, 0], [0, 0]], np.float32)
    scores = score_map.ScoreMap(logits, np.zeros(2), np.ones(2), (3, 2))
    score_map.write_heatmap(scores, tmp_path / "a.png")
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[0, 128], [255, 128], [128, 128]]
