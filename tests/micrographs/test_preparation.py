"""What networks see of a micrograph, and 8 bits of raw counts to look at."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from picking.micrographs.mrc import write_mrc
from picking.micrographs.preparation import (
    GREYS_PER_DEVIATION,
    MIDDLE_GREY,
    prepare,
    raw_to_uint8,
    scale_micrograph,
    visible,
)
from picking.micrographs.reading import read_grey
from tests.micrographs.test_reading import COUNTS, write

WIDE = (20.0, 20.0)  # of particles, in px
SIZE_PX = (600, 700)
Y, X = np.mgrid[: SIZE_PX[0], : SIZE_PX[1]]


def ice(size_px=SIZE_PX, seed=0):
    """Smooth noise of mean 140 and deviation 20 with dark disks, float32."""
    rng = np.random.default_rng(seed)
    noise = gaussian_filter(rng.normal(size=size_px), 1.5)
    image = 140 + 20 * noise / noise.std()
    y, x = np.mgrid[: size_px[0], : size_px[1]]
    for centre in rng.uniform(0, size_px, (30, 2)):
        image[np.hypot(y - centre[0], x - centre[1]) < WIDE[0] / 2] -= 40
    return image.astype(np.float32)


ICE = ice()
PREPARED = prepare(ICE, WIDE).astype(int)


def off(image, where=np.s_[:], diameter_px=WIDE):
    """How many levels an image, prepared, is off `ICE`, prepared, at the pixels looked at."""
    return abs(prepare(image.astype(np.float32), diameter_px).astype(int) - PREPARED)[where]


# What networks see


def test_the_median_and_the_deviation_are_the_same_for_every_micrograph():
    for image in (ICE, -5 * ICE, ice(seed=1) ** 2):
        prepared = prepare(image, WIDE).astype(int)
        assert prepare(image, WIDE).dtype == np.uint8 and prepared.shape == image.shape
        assert np.median(prepared) == MIDDLE_GREY
        middle_half = np.percentile(prepared, [25, 75]) - MIDDLE_GREY  # of a Gaussian
        assert middle_half / GREYS_PER_DEVIATION == pytest.approx([-0.674, 0.674], abs=0.08)


@pytest.mark.parametrize(
    ("scale", "offset"),
    [(7.5, -3000), (1e-3, 20), (1, -1e4), (1e-12, -1e-10), (1e-40, 0), (1e30, 0)],
)
def test_neither_contrast_nor_offset_of_the_counts_matters(scale, offset):
    assert off(scale * ICE.astype(float) + offset).max() <= 1  # rounding


def test_inverted_grey_is_prepared_as_the_inverse():
    assert abs(prepare(-ICE, WIDE) - (2.0 * MIDDLE_GREY - PREPARED)).max() <= 1


def test_a_gradient_is_taken_away():
    inner = np.s_[60:-60, 60:-60]
    slope = 0.3 * X + 0.2 * Y  # 16 deviations from corner to corner
    assert off(ICE + slope, inner).max() <= 4 and off(ICE + slope, inner).mean() < 0.5
    # Within some diameters of the edge nobody knows how a background goes on
    assert off(ICE + slope).mean() < 3


def test_a_step_in_dose_changes_nothing_some_diameters_from_its_edge():
    stepped = np.where(X < 350, ICE + 60, ICE)
    away = np.abs(X - 350) > 6 * WIDE[1]
    both = PREPARED[away], prepare(stepped, WIDE)[away]
    assert np.corrcoef(*both)[0, 1] > 0.999
    # The edge takes part in the deviation
    assert np.polyfit(*both, 1)[0] == pytest.approx(1, abs=0.07)
    assert abs(np.median(both[1]) - MIDDLE_GREY) <= 1


def test_white_carbon_on_a_fifth_hardly_changes_the_grey_of_the_rest():
    rest = 6 * WIDE[1] < X - 140
    carbon = np.where(X < 140, 255, ICE)
    assert off(carbon, rest).mean() < 1.5 and off(carbon, rest).max() <= 8
    glaring = np.where(X < 140, 20_000, ICE)
    assert off(glaring, rest).mean() < 8
    # Against mean and standard deviation
    flat = glaring - gaussian_filter(glaring, 2 * WIDE[0])
    plain = MIDDLE_GREY + GREYS_PER_DEVIATION * (flat - flat.mean()) / flat.std()
    assert abs(plain - PREPARED)[rest].mean() > 12


def test_a_part_of_a_micrograph_looks_as_it_does_in_the_whole():
    rows, columns = slice(150, 450), slice(200, 560)
    part, whole = prepare(ICE[rows, columns], WIDE).astype(int), PREPARED[rows, columns]
    inner = np.s_[80:-80, 80:-80]  # beyond which the background knows no more than before
    slope, level = np.polyfit(whole[inner].ravel(), part[inner].ravel(), 1)
    assert abs(part - slope * whole - level)[inner].max() < 1.5  # two roundings
    assert slope == pytest.approx(1, abs=0.1)
    assert np.corrcoef(part.ravel(), whole.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("turned", [np.flipud, np.fliplr, np.rot90, np.transpose])
def test_flips_and_turns_may_come_before_or_after(turned):
    difference = prepare(np.ascontiguousarray(turned(ICE)), WIDE) - turned(PREPARED)
    assert abs(difference).max() <= 1 and (difference != 0).mean() < 0.01


def test_what_is_fine_is_smoothed_and_what_is_wide_is_taken_away():
    """The contrast of waves, by their length in diameters, beside noise that sets the grey."""
    noise = np.random.default_rng(0).normal(0, 3, SIZE_PX)

    def kept(length, diameter_px):
        wave = np.sin(2 * np.pi * X / (length * diameter_px))
        with_it, without = (
            prepare(image, (diameter_px, diameter_px)).astype(float)
            for image in (noise + wave, noise)
        )
        return ((with_it - without) * wave).mean() / (wave**2).mean()

    for diameter_px in (20, 40):
        assert kept(20, diameter_px) < 0.35 * kept(2, diameter_px)
    assert kept(0.06, 40) < 0.2 * kept(2, 40)  # scaled to 20 px it would not be there
    assert kept(0.2, 40) > 0.7 * kept(2, 40)


def test_diameters_differ_along_y_and_x_as_scales_do():
    stretched = scale_micrograph(ICE, (SIZE_PX[0], 2 * SIZE_PX[1]))
    right, *wrong = (
        abs(scale_micrograph(prepare(stretched, wide), SIZE_PX) - PREPARED)[60:-60, 60:-60].mean()
        for wide in ((20, 40), (40, 20), (20, 20))
    )
    assert right < 0.5 and min(wrong) > 1.5 * right


@pytest.mark.parametrize("diameter_px", [10.0, 20.0])
def test_pictures_of_8_and_16_bits_and_floats_agree(tmp_path, diameter_px):
    grey = np.rint(ICE).clip(0, 255).astype(np.uint8)
    first, *others = (
        read_grey(write(tmp_path / name, pixels))
        for name, pixels in (
            ("a.png", grey),
            ("b.png", grey.astype(np.uint16) * 257),
            ("c.tif", grey / np.float32(255)),
            ("d.mrc", grey - np.float32(1000)),
        )
    )
    assert first.dtype == np.uint8
    for size_px in (SIZE_PX, (300, 350)):
        sides_px = [diameter_px * n / whole for n, whole in zip(size_px, SIZE_PX, strict=True)]
        expected = prepare(scale_micrograph(first, size_px), sides_px).astype(int)
        for other in others:
            difference = prepare(scale_micrograph(other, size_px), sides_px) - expected
            assert abs(difference).max() <= 1 and (difference != 0).mean() < 0.01


@pytest.mark.parametrize("value", [0, 7, 0.1, -1e9, 123.456, 3e38])
def test_a_constant_image_becomes_the_middle_grey(value):
    assert (prepare(np.full((230, 140), value, np.float32), WIDE) == MIDDLE_GREY).all()
    assert (prepare(np.full((30, 40), 200, np.uint8), WIDE) == MIDDLE_GREY).all()


@pytest.mark.parametrize("value", [0, 0.1, 100])
def test_what_lies_on_a_ground_of_one_grey_is_still_seen(value):
    image = np.full((300, 300), value, np.float32)
    image[100:120, 100:120] += 5
    prepared = prepare(image, (5, 5))
    assert prepared[100:120, 100:120].min() > MIDDLE_GREY + 2 * GREYS_PER_DEVIATION
    assert abs(prepared[200:, 200:].astype(int) - MIDDLE_GREY).max() <= 1


@pytest.mark.parametrize("size_px", [(1, 1), (1, 50), (5, 3), (2, 400), (64, 64)])
@pytest.mark.parametrize("diameter_px", [(20, 20), (1.5, 3.0), (1e9, 1e9)])
def test_small_images_and_odd_diameters_work(size_px, diameter_px):
    image = np.random.default_rng(0).normal(size=size_px).astype(np.float32)
    prepared = prepare(image, diameter_px)
    assert prepared.shape == size_px
    if size_px == (64, 64):
        assert prepared.std() == pytest.approx(GREYS_PER_DEVIATION, rel=0.1)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the MRC that is written
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_not_finite_in_a_file_leaves_no_trace(tmp_path, bad):
    raw = ICE.copy()
    raw[300, 400] = bad
    write_mrc(tmp_path / "a.mrc", raw, 1.5)
    difference = off(read_grey(tmp_path / "a.mrc"))
    assert difference.mean() < 0.01 and (difference > 1).sum() <= 1


# What people see


def test_what_was_prepared_is_shown_with_more_contrast_around_the_same_middle():
    grey = np.array([[0, 60, 100, 128, 129, 200, 255]], np.uint8)
    assert visible(grey).tolist() == [[0, 0, 72, 128, 130, 255, 255]]
    assert visible(grey).dtype == np.uint8


def test_preparing_raw_counts_ignores_their_scale_and_their_offset():
    raw = COUNTS.astype(np.float64)
    reference = raw_to_uint8(raw).astype(int)
    for scale, offset in ((7.5, -3000), (1e-3, 20)):
        difference = raw_to_uint8(scale * raw + offset) - reference
        assert abs(difference).max() <= 1  # rounding


def test_preparing_raw_counts_filters_pixel_noise_and_uses_the_whole_range():
    noise = np.random.default_rng(1).normal(size=(128, 128))
    image = raw_to_uint8(noise)
    assert image.min() == 0 and image.max() == 255
    spectrum = abs(np.fft.fft2(image - image.mean()))
    assert spectrum[32:-32, 32:-32].mean() < 0.05 * spectrum[:8, :8].mean()


def test_a_constant_image_becomes_mid_grey():
    assert (raw_to_uint8(np.full((30, 40), 7.0)) == 128).all()
