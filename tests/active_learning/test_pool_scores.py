import gc
import weakref

import numpy as np
import pytest
import torch
from scipy.special import entr  # -x log(x)
from torch import nn

from models import AttentionUNet
from picking.active_learning.pool_scores import pixel_scores, score_pool
from picking.errors import UserError
from picking.training.augment import to_float

CPU = torch.device("cpu")
N, SIDE_PX, WIDTH, DEPTH = 14, 32, 4, 2


@pytest.fixture(scope="module")
def images():
    """Disks on noise of many strengths, uint8 (N, S, S)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    pictures = rng.normal(128, np.linspace(5, 60, N)[:, None, None], (N, SIDE_PX, SIDE_PX))
    for i, picture in enumerate(pictures):
        for cy, cx in rng.integers(4, SIDE_PX - 4, (i % 4, 2)):
            picture[(y - cy) ** 2 + (x - cx) ** 2 < 16] -= 60
    return np.clip(pictures, 0, 255).astype(np.uint8)


@pytest.fixture
def network(images):
    """A network with the logits of a trained one, of both classes, and batch norm that has run."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = AttentionUNet(width=WIDTH, depth=DEPTH).eval()
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_().mul_(0.3)
        z = logits_of(network, images)
        network.head.weight *= 2 / z.std()
        network.head.bias.add_(-z.mean()).mul_(2 / z.std()).sub_(1)  # deviation 2 around -1
    return network


class Pixelwise(nn.Module):
    """A network that sees one pixel at a time: its logits are a function of the image."""

    def __init__(self, logits):
        super().__init__()
        self.bottleneck, self.logits = nn.Identity(), logits

    def forward(self, x):
        return self.logits(self.bottleneck(x))


def logits_of(network, images):
    with torch.no_grad():
        return network(to_float(torch.from_numpy(images))).double().numpy()[:, 0]


def score(network, images, rows=None, batch_size=4, **keywords):
    rows = np.arange(len(images)) if rows is None else rows
    return score_pool(network, images, rows, CPU, batch_size=batch_size, **keywords)


def by_hand(z):
    """The scores of one image from its whole map of logits, in float64 and by their definitions."""
    p = 1 / (1 + np.exp(-z))
    maps = {
        "uncertainty": np.minimum(p, 1 - p),
        "entropy": entr(p) + entr(1 - p),
        "particle_entropy": p * (entr(p) + entr(1 - p)),
        "margin": np.abs(2 * p - 1) < 0.2,
    }
    scores = {name: values.mean() for name, values in maps.items()}
    for name in ("uncertainty", "entropy", "margin"):
        values = maps[name]
        scores[f"foreground_{name}"] = values[p > 0.2].mean() if (p > 0.2).any() else 0
    return scores | {"foreground": (p > 0.2).mean(), "positive": (p >= 0.5).mean()}


def test_scores_are_those_of_an_independent_computation_from_whole_maps(network, images):
    scores = score(network, images)
    expected = [by_hand(z) for z in logits_of(network, images)]
    for name in expected[0]:
        numbers = np.array([each[name] for each in expected])
        assert np.ptp(numbers) > 0
        np.testing.assert_allclose(getattr(scores, name), numbers, rtol=1e-4, err_msg=name)


def test_entropy_is_finite_and_exact_for_very_sure_pixels_of_both_classes():
    z = torch.tensor([0.0, 20.0, -20.0, 100.0, -100.0, 1e30]).view(-1, 1, 1, 1)
    entropy = pixel_scores(z)["entropy"].double().numpy()
    # At large |z|, H -> (1 + |z|) exp(-|z|), which p·log(p) loses in float32 where p is near 1.
    expected = [np.log(2), *[21 * np.exp(-20.0)] * 2, 0, 0, 0]
    np.testing.assert_allclose(entropy, expected, rtol=1e-5, atol=1e-30)


def test_foreground_scores_are_zero_where_no_pixel_is_foreground():
    scores = pixel_scores(torch.full((2, 1, 4, 4), -1.5))  # p = 0.18
    for name in ("uncertainty", "entropy", "margin"):
        assert scores[f"foreground_{name}"].tolist() == [0, 0]
    assert scores["uncertainty"].min() > 0.18 and scores["foreground"].tolist() == [0, 0]


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_batch_size_changes_no_score(network, images, batch_size):
    extras = frozenset({"bald", "badge"})
    one, other = (score(network, images, batch_size=b, extras=extras) for b in (4, batch_size))
    for name, values in vars(one).items():
        if values is None:  # general: of another network
            continue
        np.testing.assert_allclose(values, getattr(other, name), rtol=1e-3, atol=1e-6, err_msg=name)


def test_a_pool_on_disk_is_read_once_and_a_batch_at_a_time(network, images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    on_disk = np.load(tmp_path / "images.npy", mmap_mode="r")
    reads = []

    class Watched:
        def __getitem__(self, rows):
            reads.append(np.atleast_1d(rows))
            return on_disk[rows]

    rows = np.array([12, 3, 4, 7, 8, 1, 0])
    scores = score(network, Watched(), rows, batch_size=3)
    assert [len(each) for each in reads] == [3, 3, 1]
    assert np.concatenate(reads).tolist() == rows.tolist()
    assert scores.rows.tolist() == rows.tolist() and len(scores) == 7
    everything = score(network, images)
    np.testing.assert_allclose(scores.entropy, everything.entropy[rows], rtol=1e-5)
    np.testing.assert_allclose(scores.features, everything.features[rows], rtol=1e-4, atol=1e-6)


def test_features_are_the_bottleneck_s_channels_averaged_over_the_image(network, images):
    maps = []
    handle = network.bottleneck.register_forward_hook(lambda *args: maps.append(args[2]))
    logits_of(network, images)
    handle.remove()
    expected = maps[0].detach().numpy().mean(axis=(2, 3))
    features = score(network, images).features
    assert features.shape == (N, WIDTH * 2**DEPTH) and features.dtype == np.float32
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-6)


def test_no_map_outlives_its_batch(network, images):
    alive_at_next_batch, maps = [], []

    def watch(module, inputs, output):
        alive_at_next_batch.append(sum(each() is not None for each in maps))
        maps.extend(weakref.ref(each) for each in (*inputs, output))

    watched = [network.bottleneck, network.head]
    handles = [module.register_forward_hook(watch) for module in watched]
    score(network, images, extras=frozenset({"badge"}))
    gc.collect()
    assert len(maps) == 2 * 2 * 4 and not any(each() is not None for each in maps)
    # At the head, the bottleneck's map of the same batch is gone; the next batch finds at most the
    # logits, which the loop's own name still holds.
    assert max(alive_at_next_batch) <= 1
    for handle in handles:
        handle.remove()


def test_hooks_are_removed_after_success_and_after_an_error(network, images):
    state = {key: value.clone() for key, value in network.state_dict().items()}
    score(network, images, extras=frozenset({"badge", "bald"}))
    with pytest.raises(ValueError, match="multiples"):
        score(network, images[:, :30, :30])
    assert not any(module._forward_hooks for module in network.modules())
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_names_the_image_and_the_remedy(images, value):
    images = images.copy()
    images[6] = 128  # flat, so zeros to the network

    def logits(x):
        flat = x.abs().amax(dim=(1, 2, 3), keepdim=True) == 0
        return torch.where(flat, value, x)

    with pytest.raises(UserError, match="not finite for image 6 of the pool: lower"):
        score(Pixelwise(logits), images, np.array([1, 6, 3]))


def test_bald_is_the_mutual_information_over_the_eight_turned_and_flipped_images(network, images):
    def entropy(p):
        return entr(p) + entr(1 - p)

    views = []
    for turns in range(4):
        turned = np.rot90(images, turns, (1, 2))
        for flip in (np.copy, np.fliplr):  # over axis 1: upside down
            p = 1 / (1 + np.exp(-logits_of(network, flip(turned).copy())))
            views.append(np.rot90(flip(p), -turns, (1, 2)))
    views = np.stack(views)
    expected = entropy(views.mean(axis=0)) - entropy(views).mean(axis=0)
    bald = score(network, images, extras=frozenset({"bald"})).bald
    np.testing.assert_allclose(bald, expected.mean(axis=(1, 2)), rtol=1e-3, atol=1e-7)
    assert score(network, images).bald is None


def test_badge_is_the_gradient_that_autograd_finds_at_the_network_s_own_labels(network, images):
    badge = score(network, images, extras=frozenset({"badge"})).badge
    assert badge.shape == (N, 2 * WIDTH)
    for image, embedding in zip(images, badge, strict=True):
        z = network(to_float(torch.from_numpy(image[None])))
        losses = nn.functional.binary_cross_entropy_with_logits(
            z, (z >= 0).float(), reduction="none"
        )
        for pixels, half in ((z >= 0, embedding[:WIDTH]), (z < 0, embedding[WIDTH:])):
            expected = np.zeros(WIDTH)
            if pixels.any():
                loss = losses[pixels].mean()
                (gradient,) = torch.autograd.grad(loss, network.head.weight, retain_graph=True)
                expected = gradient.flatten().numpy()
            np.testing.assert_allclose(half, expected, rtol=1e-3, atol=1e-6)


def test_scores_of_a_network_in_bfloat16_are_computed_in_float32_from_its_logits(network, images):
    scores = score(network, images, precision="bf16", extras=frozenset({"badge"}))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        z = network(to_float(torch.from_numpy(images)))
    assert z.dtype == torch.bfloat16
    expected = [by_hand(each)["entropy"] for each in z.double().numpy()[:, 0]]
    np.testing.assert_allclose(scores.entropy, expected, rtol=1e-5)
    assert scores.badge.dtype == scores.features.dtype == np.float32
