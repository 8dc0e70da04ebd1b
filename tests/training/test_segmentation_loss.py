import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, log_loss
from torch._subclasses.fake_tensor import FakeTensorMode

from picking.mask_values import IGNORE
from picking.training.losses import SEGMENTATION_PRESETS, focal_dice

PLAIN = {"alpha": 0.5, "gamma": 0.0}
ONLY_FOCAL = {"focal_weight": 1.0, "dice_weight": 0.0}
ONLY_DICE = {"focal_weight": 0.0, "dice_weight": 1.0}


def batch(seed=0, shape=(3, 8, 10), ignored=0.2):
    """Logits (float64) that are somewhat right, and masks with ignored pixels."""
    rng = np.random.default_rng(seed)
    masks = (rng.random(shape) < 0.3).astype(np.uint8)
    z = torch.from_numpy(rng.normal(size=shape) * 2 + 2 * masks - 1)
    masks[rng.random(shape) < ignored] = IGNORE
    return z, torch.from_numpy(masks)


def numpy_loss(z, masks, alpha, gamma, focal_weight, dice_weight):
    """Pixel by pixel from the formula."""
    z, masks = z.numpy().ravel(), masks.numpy().ravel()
    focal, overlap, predicted, particle, n = 0.0, 0.0, 0.0, 0.0, 0
    for logit, y in zip(z, masks, strict=True):
        if y == IGNORE:
            continue
        p = 1 / (1 + np.exp(-logit))
        p_t, alpha_t = (p, alpha) if y == 1 else (1 - p, 1 - alpha)
        focal -= alpha_t * (1 - p_t) ** gamma * np.log(p_t)
        overlap, predicted, particle, n = overlap + p * y, predicted + p, particle + y, n + 1
    dice = 1 - (2 * overlap + 1) / (predicted + particle + 1)
    return focal_weight * focal / n + dice_weight * dice


@pytest.mark.parametrize(
    "arguments",
    [
        *SEGMENTATION_PRESETS.values(),
        {**PLAIN, **ONLY_FOCAL},
        {"alpha": 0.9, "gamma": 0.5, **ONLY_FOCAL},
        {**PLAIN, **ONLY_DICE},
    ],
)
def test_loss_equals_an_independent_computation_and_its_gradient_the_numeric_one(arguments):
    z, masks = batch()
    expected = numpy_loss(z, masks, **arguments)
    assert focal_dice(z, masks, **arguments).item() == pytest.approx(expected, abs=1e-12)
    with_channel = focal_dice(z.float().unsqueeze(1), masks, **arguments)
    assert with_channel.shape == () and with_channel.item() == pytest.approx(expected, rel=1e-5)
    z.requires_grad_()
    assert torch.autograd.gradcheck(lambda logits: focal_dice(logits, masks, **arguments), z)


def test_without_focus_focal_is_half_the_cross_entropy_of_scikit_learn():
    z, masks = batch()
    valid = masks != IGNORE
    expected = log_loss(masks[valid], torch.sigmoid(z[valid])) / 2
    assert focal_dice(z, masks, **PLAIN, **ONLY_FOCAL).item() == pytest.approx(expected)


def test_dice_of_a_hard_prediction_is_one_minus_its_f1():
    z, masks = batch(shape=(2, 200, 200))
    valid = masks != IGNORE
    hard = torch.where(z > 0, 100.0, -100.0)
    expected = 1 - f1_score(masks[valid], hard[valid] > 0)
    assert focal_dice(hard, masks, **PLAIN, **ONLY_DICE).item() == pytest.approx(expected, abs=1e-4)


def test_dice_is_taken_over_the_batch_and_not_image_by_image():
    z, masks = batch()
    masks[0] = 0  # an image without particles
    as_one_image = z.reshape(1, 24, 10), masks.reshape(1, 24, 10)
    of_batch = focal_dice(z, masks, **PLAIN, **ONLY_DICE)
    assert of_batch == focal_dice(*as_one_image, **PLAIN, **ONLY_DICE)
    each = [
        focal_dice(a[None], b[None], **PLAIN, **ONLY_DICE) for a, b in zip(z, masks, strict=True)
    ]
    assert abs(of_batch - sum(each) / 3) > 0.02


def test_alpha_weighs_particles_against_background():
    for alpha in (0.25, 0.5, 0.75):
        z = torch.zeros(1, 1, 2, requires_grad=True)
        masks = torch.tensor([[[1, 0]]], dtype=torch.uint8)
        focal_dice(z, masks, alpha, 2.0, **ONLY_FOCAL).backward()
        particle, background = z.grad.flatten()
        assert particle < 0 < background
        assert (-particle / background).item() == pytest.approx(alpha / (1 - alpha))


def test_the_reference_weighs_particles_down_and_gamma_weighs_easy_pixels_down():
    assert SEGMENTATION_PRESETS["reference"] == {
        "alpha": 0.25, "gamma": 2.0, "focal_weight": 0.7, "dice_weight": 0.3
    }  # fmt: skip
    easy, hard = torch.tensor([[[3.0]]]), torch.tensor([[[-1.0]]])
    particle = torch.ones(1, 1, 1, dtype=torch.uint8)

    def ratio(gamma):
        one, other = (focal_dice(z, particle, 0.5, gamma, **ONLY_FOCAL) for z in (easy, hard))
        return (one / other).item()

    p_easy, p_hard = torch.sigmoid(torch.tensor([3.0, -1.0])).tolist()
    assert ratio(2.0) / ratio(0.0) == pytest.approx(((1 - p_easy) / (1 - p_hard)) ** 2, rel=1e-4)


def test_ignored_pixels_have_no_influence_and_no_gradient_whatever_their_logit():
    z, masks = batch()
    ignored = masks == IGNORE
    arguments = SEGMENTATION_PRESETS["default"]
    expected = focal_dice(z, masks, **arguments)
    wild = torch.tensor([np.nan, np.inf, -np.inf, 1e30], dtype=z.dtype)
    broken = z.clone()
    broken[ignored] = wild[torch.arange(int(ignored.sum())) % 4]
    broken.requires_grad_()
    loss = focal_dice(broken, masks, **arguments)
    loss.backward()
    assert torch.equal(loss, expected)
    assert (broken.grad[ignored] == 0).all() and (broken.grad[~ignored] != 0).all()


def test_without_a_valid_pixel_loss_and_gradient_are_zero():
    z = torch.randn(2, 1, 4, 4, requires_grad=True)
    masks = torch.full((2, 4, 4), IGNORE, dtype=torch.uint8)
    loss = focal_dice(z, masks, **SEGMENTATION_PRESETS["default"])
    loss.backward()
    assert loss.item() == 0 and (z.grad == 0).all()


def test_without_particle_and_prediction_dice_is_zero():
    masks = torch.zeros(1, 4, 4, dtype=torch.uint8)
    loss = focal_dice(torch.full((1, 4, 4), -100.0), masks, **PLAIN, **ONLY_DICE)
    assert loss.item() == 0


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_extreme_logits_give_a_finite_loss_and_gradient(gamma):
    values = torch.tensor([0.0, 1e-3, 30.0, 110.0, 1e4, 1e30])
    z = torch.stack([values, -values]).repeat(1, 2).unsqueeze(0).requires_grad_()
    masks = torch.tensor([0, 1], dtype=torch.uint8).repeat_interleave(6).expand(1, 2, 12)
    loss = focal_dice(z, masks, 0.75, gamma, 0.7, 0.3)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(z.grad).all()


def test_half_precision_logits_are_summed_in_full_precision():
    z, masks = batch(shape=(2, 300, 300))  # sums far beyond the 256 that bfloat16 counts to
    z = z.bfloat16().unsqueeze(1)
    arguments = SEGMENTATION_PRESETS["default"]
    expected = focal_dice(z.double(), masks, **arguments).item()
    with torch.autocast("cpu", torch.bfloat16):
        loss = focal_dice(z, masks, **arguments)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected, rel=1e-5)


def test_descending_the_loss_finds_the_mask():
    _, masks = batch()
    z = torch.zeros(masks.shape, requires_grad=True)
    optimizer = torch.optim.SGD([z], lr=30)
    for _ in range(100):
        optimizer.zero_grad()
        focal_dice(z, masks, **SEGMENTATION_PRESETS["default"]).backward()
        optimizer.step()
    valid = masks != IGNORE
    assert torch.equal(z[valid] > 0, masks[valid] == 1)
    assert (z[~valid] == 0).all()


def test_on_a_gpu_nothing_waits_for_a_value():
    with FakeTensorMode():  # asking a fake tensor for its value raises
        z = torch.empty(2, 1, 8, 8, device="cuda", requires_grad=True)
        masks = torch.empty(2, 8, 8, dtype=torch.uint8, device="cuda")
        try:
            z[0] + 1
        except RuntimeError as error:
            pytest.skip(f"this torch cannot fake a GPU without a driver: {error}")
        assert focal_dice(z, masks, **SEGMENTATION_PRESETS["default"]).device.type == "cuda"
