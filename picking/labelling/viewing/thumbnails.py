"""A small picture of a micrograph, and numbers that tell how it differs from others."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from picking.labelling.viewing.pyramid import as_jpeg, contrast, to_8_bits
from picking.micrographs.reading import image_size, read_scaled

SIDE_PX = 160  # the longer one
BANDS = 8  # of spatial frequency, from the whole width to two px
QUANTILES = (0.02, 0.1, 0.25, 0.75, 0.9, 0.98)


class Thumbnail(NamedTuple):
    """A JPEG, and features, float32 (n,), that are alike where micrographs look alike."""

    jpeg: bytes
    features: np.ndarray


def make_thumbnail(path: Path) -> Thumbnail:
    """Return the thumbnail of a micrograph; raises `UnreadableImage`."""
    height, width = image_size(path)
    shrink = SIDE_PX / max(height, width)
    size_px = max(1, round(height * shrink)), max(1, round(width * shrink))
    small = read_scaled(path, size_px).astype(np.float32)
    return Thumbnail(as_jpeg(to_8_bits(small, *contrast(small))), features(small))


def features(small: np.ndarray) -> np.ndarray:
    """Return numbers for a small image, float32 (h, w) of at least 2 x 2 px, in any unit.

    Its power in bands of spatial frequency tells particles and crystals from smooth ice, the
    quantiles of its grey film and holes from ice; neither depends on where on the image they are.
    The first is the contrast, in logarithms.
    """
    grey = small - np.median(small)
    deviation = float(grey.std())
    if deviation == 0:
        return np.zeros(1 + BANDS + len(QUANTILES), np.float32)
    grey = grey / deviation
    power = np.abs(np.fft.rfft2(grey - grey.mean())) ** 2
    fy, fx = np.fft.fftfreq(grey.shape[0])[:, None], np.fft.rfftfreq(grey.shape[1])
    frequency = np.hypot(fy, fx)
    edges = np.geomspace(1 / max(grey.shape), 0.5, BANDS + 1)
    band = np.digitize(frequency, edges[1:-1])
    total = np.bincount(band.ravel(), power.ravel(), BANDS)
    shares = total / max(total.sum(), 1e-30)
    parts = [np.log(deviation)], np.log(shares + 1e-6), np.quantile(grey, QUANTILES)
    return np.concatenate(parts).astype(np.float32)
