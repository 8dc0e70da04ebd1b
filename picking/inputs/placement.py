"""Refuse coordinates that fit the micrographs better upside down than as read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from picking.errors import UserError
from picking.formats.coordinates import frame_of
from picking.formats.picks import Picks
from picking.inputs.diameters import diameter_in_px
from picking.inputs.paths import Paths
from picking.micrographs.problems import UnreadableImage
from picking.micrographs.reading import read_micrograph

FRAMES_CHECKED = 10  # micrographs that are looked at to tell a wrong frame
# A frame is called wrong where so many of the picks say so, and by a sign test.
FRAME_FRACTION = 0.6
FRAME_SIGMAS = 3.0


def compare_frames(picks: Picks, response: np.ndarray) -> tuple[int, int]:
    """Return how many picks lie on a stronger response as read, and how many mirrored up-down.

    ``response`` is (h, w) over the whole micrograph, at any scale: a network's scores or the
    `contrast` of the image. Whether particles are high or low in it need not be known.
    """
    if picks.size_px is None:
        raise UserError(f"{picks.name}: its size is unknown: give the micrograph")
    height, width = response.shape
    y, x = (picks.centres_px * np.array(response.shape) / np.array(picks.size_px)).T
    if not len(y):
        return 0, 0
    rows = [np.clip(at.astype(int), 0, height - 1) for at in (y, height - y)]
    here, there = response[np.array(rows), np.clip(x.astype(int), 0, width - 1)] - response.mean()
    # Particles stand out by the sign of whichever of the two stands out more.
    sign = np.sign(max(here.mean(), there.mean(), key=abs))
    ahead = sign * (here - there)
    return int((ahead > 0).sum()), int((ahead < 0).sum())


def is_wrong(n_as_read: int, n_mirrored: int) -> bool:
    """Return whether the mirrored picks fit clearly better, so that the frame is the wrong one."""
    n = n_as_read + n_mirrored
    return n_mirrored - n_as_read > FRAME_SIGMAS * n**0.5 and n_mirrored > FRAME_FRACTION * n


def contrast(image: np.ndarray, diameter_px: float) -> np.ndarray:
    """Return how much brighter the image is at a particle's scale than around, float32 (h', w').

    image: uint8 (h, w); the result is smaller by a whole factor. It is a difference of Gaussians,
    the narrow one as wide as suits a disk of ``diameter_px`` best (Lindeberg: radius / sqrt 2).
    """
    from scipy.ndimage import gaussian_filter

    factor = max(1, int(diameter_px / 8))
    small = np.asarray(Image.fromarray(image).reduce(factor), dtype=np.float32)
    sigma = diameter_px / factor / 8**0.5
    return gaussian_filter(small, sigma) - gaussian_filter(small, 1.6 * sigma)


def check_frame(
    picks: Sequence[Picks],
    paths: Paths,
    files: Sequence[Path],
    frame: str | None,
    flag: str,
    diameter_px: float | None,
) -> None:
    """Raise `UserError` when most coordinates fit the micrographs better upside down.

    files: that the picks were read from, in ``frame`` or, where that is None, in what their format
    has. diameter_px: of the particles; None: what the picks state. The message names ``flag``.
    """
    frame = frame or frame_of(files[0])
    n_as_read = n_mirrored = 0
    for one in [one for one in picks if one.name in paths][:FRAMES_CHECKED]:
        width_px = diameter_px
        if width_px is None:
            stated = one.diameters_px[np.isfinite(one.diameters_px)]
            width_px = diameter_in_px(None, None, float(np.median(stated)) if len(stated) else None)
        try:
            image = read_micrograph(paths[one.name])
        except UnreadableImage:  # whoever needs it will say so
            continue
        counts = compare_frames(one, contrast(image, width_px))
        n_as_read, n_mirrored = n_as_read + counts[0], n_mirrored + counts[1]
    if is_wrong(n_as_read, n_mirrored):
        more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
        raise UserError(
            f"{files[0]}{more}: {n_mirrored:,} of {n_as_read + n_mirrored:,} coordinates fit the "
            "micrographs better when turned upside down, so they are not in the frame "
            f"'{frame}': give {flag} {'jpeg' if frame == 'mrc' else 'mrc'}"
        )
