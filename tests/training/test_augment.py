"""The weak and the strong view against independent computations with NumPy and SciPy."""

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from scipy.spatial import distance
from torch._subclasses.fake_tensor import DataDependentOutputException

from picking.config import AugmentationConfig
from picking.errors import UserError
from picking.training.augment import strong_view, to_float, weak_view, window_views
from tests.fixtures.gpu import fake_gpu
from tests.fixtures.images import (
    generator,
    noise_images,
    require_own_draws,
    require_white_noise,
    symmetries,
)

STILL = {"rotation_degrees": 0, "scale": 0}  # of windows
OFF = {"shift_px": 0, "contrast": 0, "brightness": 0, "noise": 0, "blur_px": 0, "cutout": 0} | STILL


def only(**strengths: float) -> AugmentationConfig:
    """Switch everything off but these."""
    return AugmentationConfig(**{**OFF, **strengths})


def particle_patches(n: int, side_px: int = 64) -> torch.Tensor:
    """Faint lopsided blobs, a third of the patch wide, under noise twice as strong."""
    y, x = np.mgrid[:side_px, :side_px] - side_px / 2
    width_px = side_px / 6
    blob = np.exp(-((y / width_px) ** 2 + (x / width_px / 1.5) ** 2)) * (1 + x / side_px)
    noise = np.random.default_rng(1).normal(0, 2, (n, side_px, side_px))
    noise = ndimage.gaussian_filter(noise, (0, 2, 2)) * 6
    return torch.from_numpy((128 - 30 * (blob + 0.5 * noise)).clip(0, 255).astype(np.uint8))


def both_views(patches, draws, config):
    return weak_view(patches, draws, config), strong_view(patches, draws, config)


def matching(view: torch.Tensor, candidates: list[np.ndarray]) -> list[int]:
    return np.flatnonzero((np.stack(candidates) == view.numpy()).all(axis=(1, 2))).tolist()


def test_views_are_finite_float_images_of_the_patches_size():
    patches = noise_images(5, 48)
    for view in (to_float(patches), *both_views(patches, generator(), AugmentationConfig())):
        assert view.shape == (5, 1, 48, 48)
        assert view.dtype == torch.float32
        assert view.is_contiguous()
        assert torch.isfinite(view).all()
        assert view.abs().max() < 10


def test_grey_becomes_deviations_from_the_micrographs_median():
    patches = noise_images(6, 32)
    before = patches.clone()
    x = to_float(patches)
    np.testing.assert_allclose(x[:, 0], (patches.numpy().astype(float) - 128) / 20, atol=1e-6)
    assert torch.equal(patches, before)
    # Whatever lies around, so that a micrograph may be seen in parts
    assert torch.equal(to_float(patches[:, 5:20, 7:]), x[:, :, 5:20, 7:])


def test_a_flat_patch_at_the_median_is_zeros_and_stays_finite():
    patches = torch.full((3, 32, 32), 128, dtype=torch.uint8)
    assert torch.equal(to_float(patches), torch.zeros(3, 1, 32, 32))
    for grey in (0, 128, 255):
        patches = torch.full((3, 32, 32), grey, dtype=torch.uint8)
        assert torch.isfinite(strong_view(patches, generator(), AugmentationConfig())).all()


@pytest.mark.parametrize("view", [weak_view, strong_view])
def test_with_all_else_off_a_view_is_one_of_the_eight_symmetries_and_each_is_as_likely(view):
    patches = noise_images(800, 8)
    views = view(patches, generator(), only())
    counts = np.zeros(8)
    for moved, x in zip(views[:, 0], to_float(patches)[:, 0], strict=True):
        (which,) = matching(moved, symmetries(x.numpy()))
        counts[which] += 1
    assert stats.chisquare(counts).pvalue > 0.001


def test_a_shift_moves_whole_pixels_and_mirrors_what_comes_from_outside():
    side_px, limit_px = 7, 2
    patches = noise_images(400, side_px)
    views = weak_view(patches, generator(), only(shift_px=limit_px))
    seen = np.zeros((2 * limit_px + 1,) * 2)
    for moved, x in zip(views[:, 0], to_float(patches)[:, 0], strict=True):
        padded = np.pad(x.numpy(), limit_px, mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (side_px, side_px))
        candidates = [one for row in windows for window in row for one in symmetries(window)]
        (which,) = matching(moved, candidates)
        seen[np.unravel_index(which // 8, seen.shape)] += 1
    assert stats.chisquare(seen.ravel()).pvalue > 0.001


def test_the_widest_shift_that_a_mirror_allows_works_and_a_wider_one_is_refused():
    patches = noise_images(50, 8)
    assert torch.isfinite(weak_view(patches, generator(), only(shift_px=7))).all()
    with pytest.raises(UserError, match=r"augmentation\.shift_px is 8, but patches are 8 px wide"):
        weak_view(patches, generator(), only(shift_px=8))


def test_contrast_and_brightness_stay_within_their_strength_and_never_invert():
    patches = noise_images(2000, 8)
    strong = strong_view(patches, generator(), only(contrast=0.6, brightness=0.3))
    before = to_float(patches)
    factors = (strong.std(dim=(1, 2, 3)) / before.std(dim=(1, 2, 3))).numpy()
    offsets = strong.mean(dim=(1, 2, 3)).numpy() - factors * before.mean(dim=(1, 2, 3)).numpy()
    assert stats.kstest(offsets, stats.uniform(-0.3, 0.6).cdf).pvalue > 0.001
    assert stats.kstest(factors, stats.uniform(0.4, 1.2).cdf).pvalue > 0.001
    for view, x in zip(strong[:50, 0], before[:50, 0], strict=True):
        fits = [np.corrcoef(view.ravel(), one.ravel())[0, 1] for one in symmetries(x.numpy())]
        assert max(fits) == pytest.approx(1, abs=1e-4)


def test_noise_is_white_gaussian_as_strong_as_configured_and_each_patch_has_its_own():
    flat = torch.full((400, 64, 64), 128, dtype=torch.uint8)
    strong = strong_view(flat, generator(), only(noise=0.8))[:, 0]
    noise = require_white_noise(strong, largest=0.8)
    between_samples = (noise[1:] * noise[:-1]).mean(axis=(1, 2))
    assert abs(between_samples).max() < 5 / 64


def test_blur_is_scipys_gaussian_mirrored_at_the_border():
    image = np.zeros((15, 15), dtype=np.uint8)
    image[[7, 0, 0, 14, 14], [7, 0, 14, 0, 14]] = 255  # the same after any flip or turn
    patches = torch.from_numpy(image).expand(300, 15, 15)
    x = to_float(patches)[0, 0].numpy().astype(np.float64)
    strong = strong_view(patches, generator(), only(blur_px=1.5))[:, 0].numpy()
    # Neighbouring taps of a Gaussian are a factor of exp(-1 / 2 sigma^2) apart.
    background = x[7, 0]
    ratios = (strong[:, 7, 8] - background) / (strong[:, 7, 7] - background)
    sigmas_px = np.sqrt(-0.5 / np.log(ratios.clip(1e-6)))
    assert 1.4 < sigmas_px.max() < 1.501
    assert np.median(sigmas_px) == pytest.approx(0.75, abs=0.15)
    for view, sigma_px in zip(strong, sigmas_px, strict=True):
        expected = ndimage.gaussian_filter(x, sigma_px, radius=3, mode="mirror")
        np.testing.assert_allclose(view, expected, atol=2e-3)


def test_cutout_blanks_one_rectangle_of_the_configured_size():
    side_px = 40
    checks = np.indices((side_px, side_px)).sum(axis=0) % 2 * 255  # no pixel is average
    patches = torch.from_numpy(checks.astype(np.uint8)).expand(500, side_px, side_px)
    blank = strong_view(patches, generator(), only(cutout=0.5))[:, 0].numpy() == 0
    heights, widths = blank.any(axis=2).sum(axis=1), blank.any(axis=1).sum(axis=1)
    assert np.array_equal(blank.sum(axis=(1, 2)), heights * widths)
    for sides in (heights, widths):
        assert sides.min() == 0.25 * side_px
        assert sides.max() == 0.5 * side_px
    assert blank.mean() == pytest.approx(0.375**2, abs=0.01)
    for half in (blank[:, : side_px // 2], blank[:, :, : side_px // 2]):
        assert half.sum() / blank.sum() == pytest.approx(0.5, abs=0.05)


def test_a_strong_view_differs_from_the_weak_one_but_the_particle_survives():
    patches = particle_patches(200)
    config = AugmentationConfig(shift_px=0)
    weak, strong = both_views(patches, generator(), config)
    x = to_float(patches)[:, 0].numpy()
    fits = [
        max(np.corrcoef(view.ravel(), one.ravel())[0, 1] for one in symmetries(patch))
        for view, patch in zip(strong[:, 0].numpy(), x, strict=True)
    ]
    assert max(fits) < 0.9999
    assert np.quantile(fits, 0.05) > 0.7
    assert not torch.isclose(weak, strong).flatten(1).all(dim=1).any()


# Crops of windows


def distinct(size_px: int) -> np.ndarray:
    """An image with no value twice, so that each px says where it is; up to 16 px wide."""
    values = np.random.default_rng(7).permutation(256).astype(np.uint8)
    return values[: size_px**2].reshape(size_px, size_px)


def copies(n: int, size_px: int) -> torch.Tensor:
    return torch.from_numpy(distinct(size_px)).expand(n, size_px, size_px)


def near_middle(n: int, size_px: int, reach_px: float) -> torch.Tensor:
    """Of n windows, 1 within reach of the middle."""
    y, x = np.indices((size_px, size_px)) - size_px // 2
    disk = (np.hypot(y, x) <= reach_px).astype(np.uint8)
    return torch.from_numpy(disk).expand(n, size_px, size_px)


def where_cut(views: torch.Tensor, size_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Which crop of `distinct` each view is: its place, int (n,), row by row, and symmetry."""
    side_px = views.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(distinct(size_px), (side_px, side_px))
    candidates = np.stack([one for row in windows for each in row for one in symmetries(each)])
    x = to_float(torch.from_numpy(candidates)).flatten(1).numpy()
    same = distance.cdist(views.flatten(1).numpy(), x) < 1e-4
    assert (same.sum(axis=1) == 1).all()
    return np.divmod(same.argmax(axis=1), 8)


@pytest.mark.parametrize(("size_px", "side_px"), [(12, 6), (13, 6), (15, 7)])
def test_what_is_known_is_cut_as_its_windows_and_the_own_disk_stays_whole(size_px, side_px):
    n_picks, reach_px = 40, 2.0
    picked = near_middle(1, size_px, reach_px).clone()
    n_own = picked.sum()
    picked[0, :2, :2], picked[0, -1], picked[0, :, -1] = 1, 2, 3  # another pick, and what else is
    views = window_views(
        copies(50, size_px), picked.expand(50, -1, -1), n_picks, side_px, reach_px, generator(),
        only(),
    )  # fmt: skip
    weak, strong, near = views
    assert weak.shape == (50, 1, side_px, side_px) and strong.shape == (10, 1, side_px, side_px)
    assert near.shape == (50, side_px, side_px) and near.dtype == torch.uint8
    cut = np.lib.stride_tricks.sliding_window_view(picked[0].numpy(), (side_px, side_px))
    cut = cut.reshape(-1, side_px, side_px)
    for i, (place, symmetry) in enumerate(zip(*where_cut(weak, size_px), strict=True)):
        np.testing.assert_array_equal(near[i].numpy(), symmetries(cut[place])[symmetry])
        assert i >= n_picks or (near[i] == 1).sum() >= n_own


def test_picks_come_to_lie_evenly_wherever_their_disk_is_whole():
    n, side_px, reach_px = 5000, 10, 3
    windows = noise_images(1, 20).expand(n + 1, 20, 20)
    picked = near_middle(n + 1, 20, reach_px)
    near = window_views(windows, picked, n, side_px, reach_px, generator(), only())[2][:n]
    at = np.indices((side_px, side_px)).reshape(2, -1)
    middles = near.flatten(1).numpy() @ at.T / near.sum(dim=(1, 2)).numpy()[:, None]
    places, counts = np.unique(middles, axis=0, return_counts=True)
    assert {tuple(place) for place in places} == {(y, x) for y in range(3, 7) for x in range(3, 7)}
    assert stats.chisquare(counts).pvalue > 0.001


def test_crops_about_no_pick_come_evenly_from_everywhere_in_their_window():
    picked = near_middle(4000, 12, 1.5)
    weak, _, _ = window_views(copies(4000, 12), picked, 0, 5, 1.5, generator(), only())
    place, symmetry = where_cut(weak, 12)
    assert stats.chisquare(np.bincount(place, minlength=64)).pvalue > 0.001
    assert stats.chisquare(np.bincount(symmetry, minlength=8)).pvalue > 0.001
    # the symmetry tells nothing of the place
    assert stats.chi2_contingency(np.histogram2d(place // 8, symmetry, 8)[0]).pvalue > 0.001


def test_windows_are_turned_and_scaled_about_their_pick_by_draws_of_their_own():
    n, side_px, spot_px = 200, 33, 8  # a dot beside the pick, and the pick
    windows = np.zeros((n, 81, 81), np.uint8)
    windows[:, 40 + spot_px, 40] = 255
    picked = torch.zeros(n, 81, 81, dtype=torch.uint8)
    picked[:, 40, 40] = 1
    config = only(rotation_degrees=45, scale=0.2)
    blurred = torch.from_numpy(ndimage.gaussian_filter(windows, (0, 1, 1)) * 5)
    weak, _, near = window_views(blurred, picked, n - 1, side_px, 12, generator(), config)
    weak, near = weak[:-1], near[:-1]
    weight = (weak[:, 0] - to_float(torch.zeros(1, 1, 1))[0]).clamp(min=0).double()
    y, x = np.indices((side_px, side_px))
    total = weight.sum((1, 2))
    dot = np.stack([(weight * torch.from_numpy(at)).sum((1, 2)) / total for at in (y, x)], axis=1)
    pick = np.array([np.argwhere(one.numpy()).mean(axis=0) for one in near if one.any()])
    offset = dot[[bool(one.any()) for one in near]] - pick
    length, angle = np.hypot(*offset.T), np.arctan2(*offset.T)
    assert len(pick) > 0.6 * n  # at the nearest px: scaled down, the pick's may be skipped
    assert abs(length - spot_px).max() < 0.25 * spot_px + 1
    assert length.std() > 0.05 * spot_px
    assert stats.kstest(angle, "uniform", (-np.pi, 2 * np.pi)).pvalue > 0.001


def test_what_a_turn_brings_in_from_outside_is_mirrored():
    windows = torch.full((50, 16, 16), 148, dtype=torch.uint8)
    turned = only(rotation_degrees=45, scale=0.3)
    weak, _, near = window_views(windows, windows // 148, 25, 8, 2, generator(), turned)
    assert torch.allclose(weak, torch.ones_like(weak), atol=1e-5) and near.all()


def test_the_strong_view_of_a_window_is_the_weak_one_place_for_place():
    windows, picked = noise_images(30, 32), near_middle(30, 32, 3)
    weak, strong, _ = window_views(windows, picked, 10, 16, 3, generator(), only())
    assert torch.equal(strong, weak[10:])
    weak, strong, _ = window_views(windows, picked, 10, 16, 3, generator(), only(cutout=0.5))
    blank = strong == 0
    assert torch.equal(strong[~blank], weak[10:][~blank])
    assert (blank.flatten(1).sum(dim=1) >= 16).all()
    distorted = AugmentationConfig(**STILL)
    again, strong, _ = window_views(windows, picked, 10, 16, 3, generator(), distorted)
    assert torch.equal(again, weak)  # distortions do not touch the weak view
    fits = [
        np.corrcoef(one.flatten(), two.flatten())[0, 1]
        for one, two in zip(weak[10:], strong, strict=True)
    ]
    assert 0.3 < np.median(fits) < 0.999


def test_views_depend_on_their_generator_and_on_nothing_global():
    patches, picked, config = noise_images(16, 32), near_middle(16, 32, 3), AugmentationConfig()
    require_own_draws(lambda draws: both_views(patches, draws, config))
    require_own_draws(lambda draws: window_views(patches, picked, 6, 16, 3, draws, config))


def test_on_a_gpu_views_stay_there_and_nothing_waits_for_a_value():
    with fake_gpu() as patches:
        views = both_views(patches, generator(), AugmentationConfig())
        crops = window_views(patches, patches, 2, 16, 3, generator(), AugmentationConfig())
        assert {view.device.type for view in (*views, *crops)} == {"cuda"}
        with pytest.raises(DataDependentOutputException):
            views[0].sum().item()
