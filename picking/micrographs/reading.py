"""Micrographs as arrays: JPG, PNG, TIFF and MRC, always in the JPEG's frame.

CryoPPP and CryoTransformer list coordinates on JPEGs whose row 0 is the last row of the MRC. So an
MRC is turned upside down here, once, at the border; everything inside the project has its origin
at the top left with y down, and only the export of coordinates turns back.
"""

import contextlib
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from picking.micrographs import tiff
from picking.micrographs.bad_pixels import MOST_BAD, replace_bad_pixels
from picking.micrographs.mrc import has_mrc_word, mrc_size, read_mrc
from picking.micrographs.preparation import SCALING_FILTER, raw_to_uint8, scale_micrograph
from picking.micrographs.problems import (
    BAD_PX,
    Notes,
    UnreadableImage,
    require_contrast,
    too_large,
)

PILLOW_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
SUFFIXES = (*PILLOW_SUFFIXES, ".mrc")

# What mrcfile and Pillow raise on damaged files; a Pillow bomb error is a bare Exception.
DAMAGED = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError,
    ZeroDivisionError, struct.error, zlib.error,
)  # fmt: skip
# What Pillow may take a file for. It knows others, and hands EPS to a program.
PILLOW_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "JPEG2000", "PPM", "WEBP")


def image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) in px from the file's header; raises `UnreadableImage`."""
    with _naming(path):
        if _is_mrc(path):
            return mrc_size(path)
        with _open_pillow(path) as image:
            return image.height, image.width


def read_micrograph(path: Path, notes: Notes | None = None) -> np.ndarray:
    """Return the micrograph to look at, as uint8 (h, w), row 0 at the top of the JPEG's frame.

    8-bit images come as they are, others by `raw_to_uint8`. notes: gets what must be said of the
    file. Raises `UnreadableImage`.
    """
    grey = read_grey(path, notes)
    return grey if grey.dtype == np.uint8 else raw_to_uint8(grey)


def read_grey(path: Path, notes: Notes | None = None) -> np.ndarray:
    """Return the micrograph's grey, (h, w), row 0 at the top of the JPEG's frame.

    8-bit images come as they are, uint8; those with more depth, MRCs among them, as float32 counts,
    their isolated bad pixels replaced. notes: gets what must be said of the file. Raises
    `UnreadableImage`.
    """
    notes = {} if notes is None else notes
    with _naming(path):
        pixels = np.flipud(read_mrc(path, notes)) if _is_mrc(path) else _read_pillow(path)
        if pixels.dtype == np.uint8 and not _is_mrc(path):
            require_contrast(path, pixels)
            return pixels
        raw = np.require(pixels, np.float32, "W")  # a copy, where these are no floats of our own
        n_bad = replace_bad_pixels(raw)
    if n_bad > MOST_BAD * raw.size:
        raise UnreadableImage(
            f"{path} has {n_bad:,} bad px of {raw.size:,} (not finite, dead or hot): write it again"
        )
    if n_bad:
        notes[BAD_PX] = n_bad
    require_contrast(path, raw)
    return raw


def _read_pillow(path: Path) -> np.ndarray:
    """Return pixels that grow with brightness, (h, w): uint8 as they are, else raw counts."""
    with _open_pillow(path) as image:
        if image.format == "TIFF" and image.mode in ("L", "I", "F", "I;16", "I;16B"):
            return tiff.meant(image, np.asarray(image))
        if image.mode[0] in "IF":  # 16- or 32-bit grey
            return np.asarray(image)
        grey = _decode_grey_jpeg(path) if (image.format, image.mode) == ("JPEG", "L") else None
        return np.asarray(image.convert("L")) if grey is None else grey


def _decode_grey_jpeg(path: Path) -> np.ndarray | None:
    """Return the pixels, uint8 (h, w), as Pillow has them; None where only Pillow reads the file.

    simplejpeg uses libjpeg-turbo as Pillow does, and takes 0.4 of the time.
    """
    try:
        import simplejpeg

        return simplejpeg.decode_jpeg(path.read_bytes(), "GRAY")[..., 0]
    except (ImportError, ValueError):
        return None


def read_scaled(path: Path, size_px: tuple[int, int], notes: Notes | None = None) -> np.ndarray:
    """Return the micrograph's grey at a working size, (h, w) of ``size_px``.

    It spans the whole micrograph, so the two axes may be scaled differently. What comes is
    `scale_micrograph` of `read_grey`, but a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where
    that still is as large as ``size_px``: in half the time, in less memory, and 0.2 to 0.6 grey
    levels off on average. notes: gets what must be said of the file. Raises `UnreadableImage`.
    """
    if not _is_mrc(path):
        with _naming(path), _open_pillow(path) as image:
            reduced = image.draft("L", size_px[::-1])  # None for all but JPEGs
            if reduced is not None:
                # The box is the micrograph in reduced px, to which the last px may add a margin.
                grey = image.convert("L")
                require_contrast(path, np.asarray(grey))
                grey = grey.convert("F").resize(size_px[::-1], SCALING_FILTER, box=reduced[1])
                return np.asarray(grey)
    return scale_micrograph(read_grey(path, notes), size_px)


def _is_mrc(path: Path) -> bool:
    return path.suffix.lower() == ".mrc"


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Have what is raised on a damaged file be an `UnreadableImage` that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise UnreadableImage(f"{path} is not there: check the path") from error
    except Image.DecompressionBombError as error:
        raise too_large(path) from error
    except DAMAGED as error:
        why, again = str(error), "copy it again from its source"
        if isinstance(error, UnidentifiedImageError):
            why = "it is no image, or of no kind known here"
            again += ", or write it as 16-bit or 32-bit grey" if tiff.is_tiff(path) else ""
            if has_mrc_word(path):
                why, again = "it is an MRC", "name it .mrc"
        raise UnreadableImage(f"{path} cannot be read ({why}): {again}") from error


def _open_pillow(path: Path) -> Any:
    # Pillow warns of large images, which micrographs are, and of damage, which is an error here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(path, formats=PILLOW_FORMATS)
        frames = getattr(image, "n_frames", 1)
    deep = ";16" in str(image.tile)
    if image.format == "TIFF":
        frames, deep = max(frames, tiff.n_described(image)), tiff.bits(image) > 8
        tiff.mend_byte_order(image)
    problem = ""
    if frames > 1:
        problem = f"holds {frames} frames: average the movie first"
    elif deep and image.mode[0] not in "IF":  # of which Pillow reads half
        problem = "has colours of 16 bits: write it again as 16-bit grey"
    elif image.format == "TIFF" and tiff.is_turned(image):
        problem = "says that it is to be turned by 90 degrees: write it again as it is to be seen"
    if problem:
        image.close()
        raise UnreadableImage(f"{path} {problem}")
    return image
