"""Bad pixels of a detector: found, replaced by their surroundings, and nothing else."""

import numpy as np
import pytest

from picking.micrographs.bad_pixels import MOST_BAD, replace_bad_pixels
from picking.simulation.ctf import Optics
from picking.simulation.micrograph import simulate_micrograph
from picking.simulation.proteins import PROTEINS

SIZE_PX = (256, 320)


def counts(mean=1000.0, seed=0):
    return np.random.default_rng(seed).normal(mean, 50, SIZE_PX).astype(np.float32)


def require_replaced(raw, bad):
    """Assert that these px, bool (h, w), and no others are replaced, by what is about them."""
    whole = counts()
    before = raw.copy()
    assert replace_bad_pixels(raw) == bad.sum()
    np.testing.assert_array_equal(raw[~bad], before[~bad])
    assert abs(raw[bad] - whole.mean()).max() < 3 * whole.std()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38, 65535, 0, -1])
@pytest.mark.parametrize("at", [(100, 100), (0, 0), (255, 319), (0, 200)])
def test_a_bad_pixel_becomes_what_is_about_it(value, at):
    raw, bad = counts(), np.zeros(SIZE_PX, bool)
    raw[at], bad[at] = value, True
    with np.errstate(all="raise"):
        require_replaced(raw, bad)


@pytest.mark.parametrize(
    "place",
    [
        np.s_[:, 50], np.s_[:, 50:53], np.s_[77], np.s_[77:79], np.s_[:, 0], np.s_[-1],
        np.s_[10:60, 90],  # a part of a column
        np.s_[30:33, 40:43],
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [0, np.nan, 40_000])
def test_dead_and_hot_columns_rows_and_spots_are_replaced(place, value):
    raw, bad = counts(), np.zeros(SIZE_PX, bool)
    raw[place], bad[place] = value, True
    require_replaced(raw, bad)


def test_a_dead_column_is_found_by_its_one_value_though_it_is_near():
    raw, bad = counts(), np.zeros(SIZE_PX, bool)
    raw[:, 50], bad[:, 50] = 900, True
    require_replaced(raw, bad)


def test_a_row_and_a_column_may_cross():
    raw, bad = counts(), np.zeros(SIZE_PX, bool)
    for place in (np.s_[:, 50:53], np.s_[77]):
        raw[place], bad[place] = 0, True
    require_replaced(raw, bad)


def test_where_all_about_it_is_bad_too_it_becomes_the_median_of_all():
    raw, bad = counts(), np.zeros(SIZE_PX, bool)
    raw[100:130, 100:130], bad[100:130, 100:130] = np.nan, True
    require_replaced(raw, bad)


@pytest.mark.parametrize("radius_px", [3, 5, 12, 40])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("noise", [0, 30])
def test_what_has_an_extent_stays(radius_px, sign, noise):
    """Gold, ice and particles, also far beyond all noise, and in images without any."""
    raw = counts(seed=1) * noise / 50 + 1000
    y, x = np.indices(SIZE_PX)
    for centre in ((60, 70), (150, 200), (200, 40)):
        raw[np.hypot(y - centre[0], x - centre[1]) <= radius_px] += sign * 900
    before = raw.copy()
    assert replace_bad_pixels(raw) == 0
    np.testing.assert_array_equal(raw, before)


def test_columns_between_particles_are_not_dead_in_an_image_without_noise():
    raw = np.full(SIZE_PX, 100, np.float32)
    raw[40:60, 20:50] = raw[100:120, 52:80] = raw[10:200, 81:300] = 50
    before = raw.copy()
    assert replace_bad_pixels(raw) == 0
    np.testing.assert_array_equal(raw, before)


@pytest.mark.parametrize("mean", [0.01, 0.05, 0.15, 0.3, 0.7, 1, 3, 10, 100])
def test_few_electrons_a_pixel_are_no_hot_pixels(mean):
    raw = np.random.default_rng(2).poisson(mean, (1024, 1024)).astype(np.float32)
    before = raw.copy()
    assert replace_bad_pixels(raw) == 0
    np.testing.assert_array_equal(raw, before)


@pytest.mark.parametrize("seed", range(3))
def test_simulated_micrographs_stay_as_they_are(seed):
    raw = simulate_micrograph(PROTEINS[seed], Optics(), (640, 512), np.random.default_rng(seed)).raw
    before = raw.copy()
    assert replace_bad_pixels(raw) == 0
    np.testing.assert_array_equal(raw, before)


def test_a_border_of_zeros_stays():
    raw = counts()
    raw[:, -20:] = 0
    assert replace_bad_pixels(raw) == 0


@pytest.mark.parametrize("size_px", [(1, 1), (1, 300), (300, 1), (2, 3), (31, 33)])
def test_small_images_stay_as_they_are(size_px):
    raw = np.random.default_rng(0).normal(size=size_px).astype(np.float32)
    assert replace_bad_pixels(raw) == 0


def test_of_more_bad_pixels_than_can_be_mended_the_number_is_told():
    raw = counts()
    bad = np.random.default_rng(3).random(SIZE_PX) < 2 * MOST_BAD
    raw[bad] = np.nan
    assert replace_bad_pixels(raw) == bad.sum()
    for value in (np.nan, -np.inf, 3e38):
        assert replace_bad_pixels(np.full(SIZE_PX, value, np.float32)) == raw.size
