import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr
from torch import nn

from models import AttentionUNet, PUClassifier, UNet
from picking.config import AugmentationConfig
from picking.detection.scores import score_map
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
    """A classifier without weights: how bright the middle is."""

    def forward(self, x):
        middle = x.shape[-1] // 2
        return x[:, 0, middle, middle]


class Pixelwise(nn.Module):
    """A U-Net without weights: how bright each pixel is."""

    depth, reach_px = 3, 0

    def forward(self, x):
        assert not any(n % 2**self.depth for n in x.shape[2:])
        return x


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
        plan = ImagePlan(None, size_px, np.empty((0, 2)), np.empty(0), 20.0, settings)
        assert working_size(size_px, 128, 6, resize) == plan.scaled_px == expected


@pytest.mark.parametrize("size_px", [(70, 40), (33, 129), (1, 5)])
def test_a_cell_of_a_u_net_is_a_pixel_of_the_scaled_micrograph(size_px):
    image = field(np.random.default_rng(5), 5, 130)[0][: size_px[0], : size_px[1]]
    of_px = (size_px[0] * 2, size_px[1] * 3)
    scores = score_map.segmentation_map(Pixelwise(), image, of_px, "fp32", CPU)
    padded = np.pad(image, [(0, -n % 8) for n in size_px], mode="reflect")
    standardised = to_float(torch.tensor(padded)[None])[0, 0, : size_px[0], : size_px[1]]
    np.testing.assert_allclose(scores.logits, standardised, atol=1e-5)
    assert scores.spacing_px.tolist() == [2, 3]
    at = scores.positions_px(np.array([[0, 0], np.array(size_px) - 1]))
    assert at.tolist() == [[1, 1.5], [of_px[0] - 1, of_px[1] - 1.5]]


@pytest.mark.parametrize("network", [UNet, AttentionUNet])
@pytest.mark.parametrize(
    ("depth", "size_px"), [(1, (131, 50)), (2, (301, 40)), (3, (500, 33)), (4, (401, 16))]
)
def test_a_u_net_scores_strips_as_it_scores_the_whole(network, depth, size_px, monkeypatch):
    torch.manual_seed(depth)
    model = network(width=4, depth=depth).eval()
    for module in model.modules():  # else what differs far away is less than rounding
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    heights = []
    model.register_forward_hook(lambda _, inputs, output: heights.append(output.shape[2]))
    image = np.random.default_rng(6).integers(0, 256, size_px, dtype=np.uint8)
    whole = score_map.segmentation_map(model, image, size_px, "fp32", CPU).logits
    assert {*heights} == {-(-size_px[0] // 2**depth) * 2**depth}
    heights.clear()
    monkeypatch.setattr(score_map, "STRIP_PX", 100)
    strips = score_map.segmentation_map(model, image, size_px, "fp32", CPU).logits
    assert len(heights) > 2 * len(score_map.FLIPS)
    assert max(heights) <= 4 * model.reach_px
    np.testing.assert_allclose(strips, whole, atol=1e-4 * whole.std())


def test_a_heatmap_has_a_pixel_for_each_cell(tmp_path):
    logits = np.array([[-20, 0], [20, 0], [0, 0]], np.float32)
    scores = score_map.ScoreMap(logits, np.zeros(2), np.ones(2), (3, 2))
    score_map.write_heatmap(scores, tmp_path / "a.png")
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[0, 128], [255, 128], [128, 128]]
