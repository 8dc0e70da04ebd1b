"""From raw counts to 8 bits, and to another scale: alike in training and in picking."""

import numpy as np
from PIL import Image

# Raw counts -> 8 bits, one path for MRC, 16-bit and float images, in training and in picking.
LOWPASS_SIGMA_PX = 2.0
CONTRAST_PERCENTILES = (0.5, 99.5)

# Pillow's bicubic widens with the scale. Of the sharp filters it agrees best with a JPEG that is
# decoded at reduced scale.
SCALING_FILTER = Image.Resampling.BICUBIC
# Scaling down, px are averaged by whole numbers first, to no less than this times the size wanted:
# a third of the time, and 0.2 grey levels off on average.
REDUCING_GAP = 1.5


def raw_to_uint8(raw: np.ndarray) -> np.ndarray:
    """Prepare raw counts: Gaussian low-pass, then contrast between two percentiles.

    raw: float (h, w), any unit. Returns uint8 (h, w). A constant image becomes 128 throughout.
    """
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(raw.astype(np.float32), LOWPASS_SIGMA_PX, mode="reflect", truncate=3)
    # A regular sample of pixels gives the percentiles as well as all of them, in a tenth the time.
    low, high = np.percentile(smooth[::3, ::3], CONTRAST_PERCENTILES)
    if high <= low:
        return np.full(raw.shape, 128, np.uint8)
    smooth -= low
    smooth *= 255 / (high - low)
    return np.clip(np.rint(smooth), 0, 255).astype(np.uint8)


def scale_micrograph(image: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """Scale uint8 (h, w) to ``size_px``, (height, width), smoothed so that nothing aliases.

    Pixel j of the result has its centre at (j + 0.5) / scale px of ``image``, where scale is the
    ratio of the sizes and pixel i of ``image`` spans [i, i + 1].
    """
    if image.shape == size_px:
        return image
    whole = Image.fromarray(image)
    return np.asarray(whole.resize(size_px[::-1], SCALING_FILTER, reducing_gap=REDUCING_GAP))
