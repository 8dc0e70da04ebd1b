"""What shows nothing is refused with the reason; what only looks odd is not."""

from pathlib import Path

import numpy as np
import pytest

from picking.micrographs.problems import UnreadableImage, require_contrast

SIZE_PX = (300, 400)
NOISE = np.random.default_rng(0).normal(1000, 30, SIZE_PX).astype(np.float32)


def eight_bits(low, high):
    """The noise with ``low`` to ``high`` deviations from its mean over the 8 bits, clipped."""
    grey = (NOISE - 1000) / 30
    return np.rint((grey - low) / (high - low) * 255).clip(0, 255).astype(np.uint8)


def changed(value, *where, of=NOISE):
    image = of.copy()
    image[where] = value
    return image


def bordered(fraction):
    """Zeros around, as wide as ``fraction`` of the height and of the width."""
    image = np.zeros_like(NOISE)
    y, x = (int(n * fraction) for n in SIZE_PX)
    image[y:-y, x:-x] = NOISE[y:-y, x:-x]
    return image


LEFT, TOP = (slice(None), slice(0, 200)), (slice(0, 150),)
OF_ONE_VALUE = np.full(SIZE_PX, 1234.5678, np.float32)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (OF_ONE_VALUE, "no contrast"),
        (np.zeros(SIZE_PX, np.uint8), "no contrast"),
        (np.zeros((1, 1), np.float32), "no contrast"),
        (OF_ONE_VALUE * (1 + NOISE / 1e11), "no contrast"),  # but for rounding
        ((NOISE > 1060).astype(np.uint8) + 200, "no contrast"),
        (changed(0, *LEFT), r"nothing on (4[6-9]|50)% of its area"),
        (changed(65535, *TOP), r"nothing on (4[6-9]|50)% of its area"),
        (changed(NOISE[TOP] / 1e6, *TOP), r"nothing on (4[6-9]|50)% of its area"),
        (changed(255, *LEFT, of=eight_bits(-4, 4)), r"nothing on (4[6-9]|50)% of its area"),
        (bordered(0.2), r"nothing on 6\d% of its area"),
        (eight_bits(-9, -2), r"nothing on 100% of its area|saturated, 9\d% .* 255"),
        (eight_bits(-7, -0.3), "saturated, 6[0-9]% of its px have the value 255"),
        (eight_bits(0.3, 7), "saturated, 6[0-9]% of its px have the value 0"),
        (NOISE.clip(None, 995), "saturated, 5[0-9]% of its px have the value 995"),
    ],
)  # fmt: skip
def test_what_shows_nothing_is_refused_with_the_reason(pixels, words):
    with pytest.raises(UnreadableImage, match=rf"a\.mrc .*({words}).*leave it out"):
        require_contrast(Path("a.mrc"), pixels)


@pytest.mark.parametrize(
    "pixels",
    [
        NOISE,
        NOISE / 1e5,
        NOISE - 1000,
        NOISE + 1e6,
        bordered(0.1),
        bordered(0.1) * 60,  # far from the border's zeros, against its own deviation
        changed(0, slice(0, 120)),
        changed(1e6, 3, 4),
        np.round(NOISE / 30),  # some ten grey levels
        eight_bits(-2.576, 2.576),  # half a percent is clipped at each end
        eight_bits(-1, 1),
        eight_bits(-40, 40),
        np.random.default_rng(1).poisson(1.0, SIZE_PX).astype(np.uint16),  # one electron a px
        np.where(NOISE > 1000, 255, 0).astype(np.uint8),  # one bit
        np.arange(25, dtype=np.uint8).reshape(5, 5),
        np.arange(80, dtype=np.uint8).reshape(8, 10),
        np.linspace(0, 1, 120_000, dtype=np.float32).reshape(SIZE_PX),
    ],
)
def test_what_is_only_odd_is_not_refused(pixels):
    require_contrast(Path("a.mrc"), pixels)
