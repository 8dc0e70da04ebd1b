"""Warps against geometry and statistics worked out independently."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch._subclasses.fake_tensor import DataDependentOutputException

from picking.config import WarpConfig
from picking.mask_values import IGNORE
from picking.training.augment import to_float
from picking.training.warps import warp
from tests.fixtures.gpu import fake_gpu
from tests.fixtures.images import (
    generator,
    noise_images,
    require_own_draws,
    require_white_noise,
    symmetries,
)

OFF = {
    "flip": False, "rotation_degrees": 0, "elastic": 0, "noise": 0, "contrast": 0, "gradient": 0
}  # fmt: skip


def only(**strengths) -> WarpConfig:
    """Switch everything off but these."""
    return WarpConfig(**{**OFF, **strengths})


def disks(n: int, side_px: int = 128, n_disks: int = 6, seed: int = 0):
    """Dark disks on bright ground, and the masks of them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side_px, :side_px]
    masks = np.zeros((n, side_px, side_px), dtype=np.uint8)
    for mask in masks:
        for centre_y, centre_x in rng.uniform(0, side_px, (n_disks, 2)):
            mask[(y - centre_y) ** 2 + (x - centre_x) ** 2 < (0.08 * side_px) ** 2] = 1
    return torch.from_numpy(np.where(masks, 40, 200).astype(np.uint8)), torch.from_numpy(masks)


def noise_and_masks(n: int, side_px: int):
    """White noise, and masks of its bright pixels."""
    images = noise_images(n, side_px)
    return images, (images > 150).to(torch.uint8)


def flat(n: int, side_px: int):
    """Images of the median grey, 0 to networks, and empty masks."""
    return torch.full((n, side_px, side_px), 128, dtype=torch.uint8), torch.zeros(
        (n, side_px, side_px), dtype=torch.uint8
    )


def test_with_everything_off_images_and_masks_are_unchanged():
    images, masks = noise_and_masks(4, 32)
    masks[0, :5] = IGNORE
    x, moved = warp(images, masks, generator(), only())
    assert torch.equal(x, to_float(images)) and torch.equal(moved, masks)


def test_warps_are_finite_images_and_masks_of_the_same_size_and_leave_their_input_alone():
    images, masks = noise_and_masks(5, 48)
    before = images.clone(), masks.clone()
    x, moved = warp(images, masks, generator(), WarpConfig())
    assert x.shape == (5, 1, 48, 48) and x.dtype == torch.float32 and x.is_contiguous()
    assert torch.isfinite(x).all()
    assert moved.shape == masks.shape and moved.dtype == torch.uint8
    assert set(moved.unique().tolist()) == {0, 1, IGNORE}
    assert torch.equal(images, before[0]) and torch.equal(masks, before[1])


@pytest.mark.parametrize(
    "config",
    [
        only(flip=True),
        only(rotation_degrees=180),
        only(elastic=0.05),
        WarpConfig(noise=0, gradient=0, contrast=0, elastic=0.05, rotation_degrees=90),
    ],
)
def test_image_and_mask_are_moved_alike(config):
    images, masks = disks(40)
    x, moved = warp(images, masks, generator(), config)
    levels = to_float(images).flatten(1).aminmax(dim=1)
    middle = ((levels.min + levels.max) / 2).view(-1, 1, 1)
    valid = moved != IGNORE
    dark, particle = (x[:, 0] < middle) & valid, moved == 1
    iou = (dark & particle).sum((1, 2)) / (dark | particle).sum((1, 2))
    assert iou.min() > 0.93
    still = (dark & (masks == 1)).sum((1, 2)) / (dark | (masks == 1)).sum((1, 2))
    assert still.mean() < 0.8  # and they have moved


def test_flips_and_quarter_turns_are_the_eight_symmetries_and_each_is_as_likely():
    images, masks = noise_and_masks(800, 8)
    x, moved = warp(images, masks, generator(), only(flip=True))
    counts = np.zeros(8)
    for view, mask, image, before in zip(
        x[:, 0], moved, to_float(images)[:, 0], masks, strict=True
    ):
        fits = [np.allclose(view, one, atol=1e-4) for one in symmetries(image.numpy())]
        (which,) = np.flatnonzero(fits)
        assert np.array_equal(mask, symmetries(before.numpy())[which])
        counts[which] += 1
    assert stats.chisquare(counts).pvalue > 0.001


def test_angles_are_even_up_to_the_largest_to_either_side():
    side_px = 64
    bar = np.zeros((side_px, side_px), dtype=np.uint8)
    bar[29:35, 8:56] = 1
    masks = torch.from_numpy(bar).expand(400, side_px, side_px)
    _, moved = warp(masks * 100, masks, generator(), only(rotation_degrees=30))
    y, x = np.mgrid[:side_px, :side_px] - (side_px - 1) / 2
    angles = []
    for mask in (moved == 1).numpy():  # the direction of the second moments
        a, b, c = (np.mean(each[mask]) for each in (x * x, y * y, x * y))
        angles.append(np.degrees(np.arctan2(2 * c, a - b) / 2))
    assert stats.kstest(angles, stats.uniform(-30, 60).cdf).pvalue > 0.001


def test_what_comes_from_outside_is_ignored_in_the_mask_and_mirrored_in_the_image():
    side_px = 64
    halves = torch.full((50, side_px, side_px), 108, dtype=torch.uint8)
    halves[:, :, side_px // 2 :] = 148
    x, moved = warp(halves, torch.ones_like(halves), generator(), only(rotation_degrees=45))
    outside = moved == IGNORE
    assert (moved[~outside] == 1).all()
    # Of a square turned by 45 degrees, sqrt(8) - 2 of its area lies outside of the other one; /2
    fraction = outside.float().mean((1, 2))
    assert fraction.max() == pytest.approx(3 - 2 * 2**0.5, abs=0.01) and fraction.min() < 0.01
    corners = outside[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners[fraction > 0.1].all()
    # Mirrored halves hold their two greys, -1 and 1 to networks, but for the line in between.
    assert (x[:, 0][outside].abs() < 0.9).float().mean() < 0.05
    assert x.abs().max() < 1.001


def test_pixels_ignored_before_are_ignored_after_wherever_they_went():
    images, masks = disks(30)
    masks[:, :, 96:] = IGNORE  # padding, in a grey that nothing else has
    images[:, :, 96:] = 0
    x, moved = warp(images, masks, generator(), only(flip=True, elastic=0.03))
    padding = x[:, 0] < to_float(images).amin((1, 2, 3)).view(-1, 1, 1) + 0.1
    assert (moved[padding] == IGNORE).float().mean() > 0.999
    assert padding.float().mean() == pytest.approx(0.25, abs=0.03)


def test_elastic_displacements_are_smooth_and_as_long_as_configured():
    side_px, strength = 128, 0.05
    columns = torch.arange(0, 2 * side_px, 2, dtype=torch.uint8)
    images = columns.expand(60, side_px, side_px).contiguous()
    x, moved = warp(images, torch.zeros_like(images), generator(), only(elastic=strength))
    before = to_float(images)[:, 0]
    column_px = (before[0, 0, 1] - before[0, 0, 0]).item()
    displacement_px = ((x[:, 0] - before) / column_px)[:, 16:-16, 16:-16]
    largest = displacement_px.abs().amax((1, 2))
    assert strength * side_px * 0.8 < largest.median() < largest.max() < strength * side_px * 1.5
    assert displacement_px.mean().abs() < 0.5
    nodes_px = displacement_px[:, 16::32, 16::32].flatten(1)  # between the outermost nodes
    assert stats.kstest(nodes_px.flatten() / side_px, stats.uniform(-0.05, 0.1).cdf).pvalue > 0.001
    # Steeper than 1 it would fold.
    assert displacement_px.diff(dim=1).abs().max() < 0.8
    assert displacement_px.diff(dim=2).abs().max() < 0.8
    assert (moved == IGNORE).float().mean() < 0.1


def test_the_fraction_of_particles_stays_as_it_is():
    images, masks = disks(300, side_px=64)
    _, moved = warp(images, masks, generator(), WarpConfig())
    fraction = (moved == 1).sum() / (moved != IGNORE).sum()
    assert fraction.item() == pytest.approx((masks == 1).float().mean().item(), rel=0.03)


def test_contrast_is_an_even_factor_that_never_inverts():
    images, masks = noise_and_masks(2000, 8)
    x, _ = warp(images, masks, generator(), only(contrast=0.6))
    before = to_float(images)
    factor = (x * before).sum((1, 2, 3)) / (before * before).sum((1, 2, 3))
    torch.testing.assert_close(x, before * factor.view(-1, 1, 1, 1))
    assert stats.kstest(factor, stats.uniform(0.4, 1.2).cdf).pvalue > 0.001


def test_the_gradient_is_a_smooth_field_of_its_strength_and_each_image_has_its_own():
    strength, side_px = 0.8, 64
    x, _ = warp(*flat(300, side_px), generator(), only(gradient=strength))
    field = x[:, 0]
    assert stats.kstest(field[:, 0, 0], stats.uniform(-0.8, 1.6).cdf).pvalue > 0.001
    assert field.abs().max() < 1.5 * strength
    assert field.diff(dim=2).abs().max() < 6 * strength / side_px
    assert (field.amax((1, 2)) - field.amin((1, 2))).median() > strength
    assert abs(np.corrcoef(field[:-1].flatten(1)[:, 0], field[1:].flatten(1)[:, 0])[0, 1]) < 0.2


def test_noise_is_white_gaussian_and_as_strong_as_configured():
    x, _ = warp(*flat(400, 32), generator(), only(noise=0.8))
    require_white_noise(x[:, 0], largest=0.8)


def test_warps_depend_on_their_generator_and_on_nothing_global():
    images, masks = noise_and_masks(8, 32)
    require_own_draws(lambda draws: warp(images, masks, draws, WarpConfig()))


def test_masks_of_another_size_and_images_that_are_not_square_are_refused():
    images, masks = noise_and_masks(3, 32)
    for pair in ((images, masks[:2]), (images[:, :16], masks[:, :16])):
        with pytest.raises(ValueError, match="squares"):
            warp(*pair, generator(), WarpConfig())


def test_on_a_gpu_warps_stay_there_and_nothing_waits_for_a_value():
    with fake_gpu() as images:
        x, moved = warp(images, images, generator(), WarpConfig())
        assert (x.device.type, moved.device.type) == ("cuda", "cuda")
        with pytest.raises(DataDependentOutputException):
            x.sum().item()


def test_processes_that_share_a_batch_warp_it_as_one():
    images, masks = disks(6, 32)
    x, moved = warp(images, masks, generator(), WarpConfig())
    for rank in range(3):
        part = slice(2 * rank, 2 * rank + 2)
        own = warp(images[part], masks[part], generator(), WarpConfig(), (rank, 3))
        assert torch.equal(own[0], x[part])
        assert torch.equal(own[1], moved[part])
