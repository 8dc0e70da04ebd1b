"""Raw counts to 8 bits."""

import numpy as np

from picking.micrographs.preparation import raw_to_uint8
from tests.micrographs.test_reading import COUNTS


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
