"""What may be wrong with a micrograph's file: what makes it unreadable, and what is only said."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from picking.errors import UserError, warn

# Pixels of a micrograph, at most: Pillow refuses larger images, which could fill any memory.
MOST_PX = 178_956_970

# What reading notes of a file: one of these keys -> how many.
Notes = dict[str, int]
IN_JUNK = "in_junk"  # candidates that were left out, said once at the end
BAD_PX, TRAILING_BYTES, UNSIGNED = "bad_px", "trailing_bytes", "unsigned"
SAID = {
    BAD_PX: "{n:,} bad px (not finite, dead or hot) were replaced by their surroundings in {where}",
    TRAILING_BYTES: "{n:,} bytes behind the pixels were left out of {where}",
    UNSIGNED: "{n:,} px below 0 only make sense without a sign, and were read so, in {where}",
}
# A micrograph shows nothing where all px of a block are alike, against the range that px of its
# liveliest quarter of blocks have. On the 26 real micrographs of ../shared/data (train and val, one
# set of denoised JPEGs) that is 0.1% of the blocks at most; a border of zeros, an eighth of the
# micrograph wide on each side, is 44%, and a dead half of the detector nearly half.
BLOCK_PX, ALIKE, MOST_BLANK = 8, 0.01, 0.45
BLOCKS_LOOKED_AT = 64  # along the shorter side; 0.02 s for 4096 x 4096 px
MOST_CLIPPED = 0.5  # fraction of px with the lowest or with the highest value; 0.03% in those sets


class UnreadableImage(UserError):
    """An image file that is missing, truncated or not a single micrograph."""


def too_large(path: Path) -> UnreadableImage:
    """Return what to say of an image that could fill any memory."""
    return UnreadableImage(f"{path} has more than {MOST_PX:,} px: bin it or cut it into parts")


def require_contrast(path: Path, pixels: np.ndarray) -> None:
    """Raise `UnreadableImage` where there is nothing to see on a micrograph, (h, w) of any numbers.

    pixels: as they were written, bad ones replaced. All may be equal but for rounding, or those of
    half the micrograph, or most may be clipped to the lowest or to the highest value.
    """
    height, width = (n // BLOCK_PX for n in pixels.shape)
    step = max(1, min(height, width) // BLOCKS_LOOKED_AT)
    whole = pixels[: height * BLOCK_PX, : width * BLOCK_PX]
    blocks = whole.reshape(height, BLOCK_PX, width, BLOCK_PX)[::step, :, ::step]
    ranges = blocks.max(axis=(1, 3)) - blocks.min(axis=(1, 3))
    sample = blocks if blocks.size else pixels
    low, high = sample.min(), sample.max()
    blank = float((ranges <= ALIKE * np.quantile(ranges, 0.75)).mean()) if ranges.size else 0.0
    clipped, value = max((float((sample == value).mean()), value) for value in (low, high))
    if sample.std(dtype=np.float64) < _rounding(sample):
        problem = "has no contrast, its px are all equal"
    elif blank > MOST_BLANK:
        problem = f"shows nothing on {blank:.0%} of its area, where neighbouring px are all equal"
    elif clipped > MOST_CLIPPED and ((sample > low) & (sample < high)).any():
        problem = f"is saturated, {clipped:.0%} of its px have the value {value:g}"
    else:
        return
    raise UnreadableImage(f"{path} {problem}: write it again, or leave it out")


def _rounding(pixels: np.ndarray) -> float:
    """Return the deviation that rounding alone may give: of whole numbers, else of float32."""
    if (pixels == np.rint(pixels)).all():
        return 0.5
    return 2 * float(np.spacing(np.float32(abs(pixels).max())))


def warn_of_notes(noted: Mapping[str, Notes]) -> None:
    """Say in a line for each kind what was noted of micrographs, by name."""
    for kind, what in SAID.items():
        names = [name for name, notes in noted.items() if notes.get(kind)]
        if names:
            where = f"{len(names):,} micrograph{'s' * (len(names) > 1)} ({examples(names)})"
            warn(what.format(n=sum(noted[name][kind] for name in names), where=where))


def notes_text(notes: Notes) -> str:
    """Return what to add to a micrograph's line: bad px replaced, candidates in junk left out."""
    texts = {BAD_PX: "bad px replaced", IN_JUNK: "candidates in junk left out"}
    said = ", ".join(f"{notes[key]:,} {what}" for key, what in texts.items() if notes.get(key))
    return f" ({said})" if said else ""


def examples(names: Sequence[str]) -> str:
    """Return up to three names, and whether there are more."""
    return f"e.g. {', '.join(names[:3])}" if len(names) > 3 else ", ".join(names)
