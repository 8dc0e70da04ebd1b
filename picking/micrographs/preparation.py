"""From grey levels to what networks see: one way for all files, in training and in picking.

A micrograph is scaled, its background flattened over some diameters of the particle, raw counts
smoothed a little, and grey standardised by the micrograph's own median and deviation. So neither
the detector's counts nor the thickness of the ice matters, and a part of a micrograph looks as it
does in the whole. `read_grey` replaced bad pixels before.
"""

import math
from typing import Any

import numpy as np
from PIL import Image

from picking.errors import UserError

# Where the working scale is free, a particle is so wide
PARTICLE_PX = 20

# Pillow's bicubic widens with the scale. Of the sharp filters it agrees best with a JPEG that is
# decoded at reduced scale.
SCALING_FILTER = Image.Resampling.BICUBIC
# Scaling down, px are averaged by whole numbers first, to no less than this times the size wanted:
# a third of the time, and 0.2 grey levels off on average.
REDUCING_GAP = 1.5
STRIP_PX = 2**20

# The background is what a Gaussian of this sigma leaves, in diameters of the particle; it is found
# on an image where a particle is so wide
BACKGROUND_SIGMA, BACKGROUND_PARTICLE_PX = 2.0, 4.0
# Of raw counts, sigma of the low-pass in diameters, and in px where it is worth while: scaling
# down is one too
LOWPASS_SIGMA, NARROWEST_PX = 0.02, 0.5
# As stored: the median, and grey levels in a standard deviation; 6.4 of those to either side fit
MIDDLE_GREY, GREYS_PER_DEVIATION = 128, 20
# A Gaussian's standard deviation, in median absolute deviations
DEVIATION_OF_MAD = 1.4826
SAMPLED_PX = 10**6
LEAST_DEVIATION = 1e-6  # of the largest grey: what is less is rounding

Diameters = tuple[float, float] | np.ndarray

# What stores and checkpoints say of it
PREPARATION = (
    f"background of {BACKGROUND_SIGMA:g} diameters taken off, median {MIDDLE_GREY}, "
    f"{GREYS_PER_DEVIATION} grey levels a deviation"
)
# Remedies for others
MAKE_AGAIN = "delete it and make it again with preprocess_coco_full_dataset.py"
TRAIN_AGAIN = "make its store again and train it again, or use another"

# For looking at what was prepared, and at raw counts
SHOWN_CONTRAST = 2
SHOWN_SIGMA_PX = 2.0
SHOWN_PERCENTILES = (0.5, 99.5)


def require_preparation(said: Any, what: str, remedy: str) -> None:
    """Raise `UserError` unless micrographs were prepared as they are today.

    said: what a store or a checkpoint says of it, which is called ``what``. remedy: `MAKE_AGAIN` or
    `TRAIN_AGAIN`.
    """
    if said != PREPARATION:
        raise UserError(
            f"{what} is of another version, which prepared micrographs in another way: {remedy}"
        )


def scale_micrograph(grey: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """Scale (h, w) to ``size_px``, (height, width), smoothed so that nothing aliases.

    grey: uint8 or float32, returned as it is where it has that size, else as float32. Pixel j of
    the result has its centre at (j + 0.5) / scale px of ``grey``, where scale is the ratio of the
    sizes and pixel i of ``grey`` spans [i, i + 1].
    """
    if grey.shape == size_px:
        return grey
    factors = [max(1, int(n / m / REDUCING_GAP)) for n, m in zip(grey.shape, size_px, strict=True)]
    reduced = Image.fromarray(_reduced(grey, *factors))
    box = (0, 0, grey.shape[1] / factors[1], grey.shape[0] / factors[0])
    return np.asarray(reduced.resize(size_px[::-1], SCALING_FILTER, box=box))


def _reduced(grey: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return the means of (h, w) over so many rows and columns, float32.

    Strip by strip, since Pillow takes a copy of what it is given, and as floats that is large.
    """
    n_rows = max(1, STRIP_PX // (grey.shape[1] * rows)) * rows
    strips = []
    for top in range(0, len(grey), n_rows):
        strip = Image.fromarray(np.ascontiguousarray(grey[top : top + n_rows], np.float32))
        strips.append(np.asarray(strip.reduce((columns, rows))))
    return np.concatenate(strips)


def prepare(grey: np.ndarray, diameter_px: Diameters) -> np.ndarray:
    """Flatten the background, low-pass, standardise: what networks learn from and pick on.

    grey: (h, w) at working scale, any unit. diameter_px: of the particles there, along y and x.
    Returns uint8 (h, w): `MIDDLE_GREY` is the median, `GREYS_PER_DEVIATION` levels are a standard
    deviation as the median absolute deviation tells it. A constant image is `MIDDLE_GREY`
    throughout.
    """
    from scipy.ndimage import gaussian_filter

    diameter_px = np.minimum(diameter_px, grey.shape)  # a mistaken one would take for ever
    flat = _background(grey, diameter_px)
    np.subtract(grey, flat, out=flat)
    sigma_px = LOWPASS_SIGMA * diameter_px
    # JPEGs of data sets are denoised already, and a quarter of the time would go into it
    if grey.dtype != np.uint8 and sigma_px.min() >= NARROWEST_PX:
        flat = gaussian_filter(flat, sigma_px, mode="reflect", truncate=3)
    # A regular sample of pixels tells as well as all of them
    step = max(1, math.isqrt(flat.size // SAMPLED_PX))
    sample = flat[::step, ::step]
    median = np.median(sample)
    least = LEAST_DEVIATION * max(float(grey.max()), -float(grey.min()))
    deviation = DEVIATION_OF_MAD * np.median(abs(sample - median))
    if deviation <= least:  # more than half of the image is of one grey
        deviation = sample.std()
    if deviation <= least:
        return np.full(grey.shape, MIDDLE_GREY, np.uint8)
    flat -= median
    flat /= deviation
    flat *= GREYS_PER_DEVIATION
    flat += MIDDLE_GREY + 0.5  # then cutting off rounds
    return flat.clip(0, 255, out=flat).astype(np.uint8)


def _background(grey: np.ndarray, diameter_px: np.ndarray) -> np.ndarray:
    """Return the mean within some diameters of every pixel of (h, w), float32 (h, w)."""
    from scipy.ndimage import gaussian_filter

    # What is so smooth is found as well on a coarse image
    coarse_px = [
        min(n, round(n * BACKGROUND_PARTICLE_PX / d))
        for n, d in zip(grey.shape, diameter_px, strict=True)
    ]
    whole = Image.fromarray(grey.astype(np.float32, copy=False))
    coarse = np.asarray(whole.resize(coarse_px[::-1], Image.Resampling.BOX))
    sigma = BACKGROUND_SIGMA * np.minimum(diameter_px, BACKGROUND_PARTICLE_PX)
    smooth = Image.fromarray(gaussian_filter(coarse, sigma, mode="reflect"))
    return np.array(smooth.resize(grey.shape[::-1], Image.Resampling.BILINEAR))


def visible(prepared: np.ndarray) -> np.ndarray:
    """Return what `prepare` made, of any shape, with as much contrast as the eye likes: uint8."""
    stretched = SHOWN_CONTRAST * (prepared.astype(np.float32) - MIDDLE_GREY) + MIDDLE_GREY
    return stretched.clip(0, 255).astype(np.uint8)


def raw_to_uint8(raw: np.ndarray) -> np.ndarray:
    """Make 8 bits of raw counts, to look at: Gaussian low-pass, then contrast of two percentiles.

    raw: float (h, w), any unit. Returns uint8 (h, w). A constant image becomes `MIDDLE_GREY`.
    """
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(raw.astype(np.float32), SHOWN_SIGMA_PX, mode="reflect", truncate=3)
    # A regular sample of pixels gives the percentiles as well as all of them, in a tenth the time.
    low, high = np.percentile(smooth[::3, ::3], SHOWN_PERCENTILES)
    if high <= low:
        return np.full(raw.shape, MIDDLE_GREY, np.uint8)
    smooth -= low
    smooth *= 255 / (high - low)
    return np.clip(np.rint(smooth), 0, 255).astype(np.uint8)
