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
from PIL import Image

from picking.errors import UserError

PILLOW_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
SUFFIXES = (*PILLOW_SUFFIXES, ".mrc")

# Raw counts -> 8 bits, one path for MRC, 16-bit and float images, in training and in picking.
LOWPASS_SIGMA_PX = 2.0
CONTRAST_PERCENTILES = (0.5, 99.5)

# Pillow's bicubic widens with the scale. Of the sharp filters it agrees best with a JPEG that is
# decoded at reduced scale.
SCALING_FILTER = Image.Resampling.BICUBIC
# Scaling down, px are averaged by whole numbers first, to no less than this times the size wanted:
# a third of the time, and 0.2 grey levels off on average.
REDUCING_GAP = 1.5

# What mrcfile and Pillow raise on damaged files; a Pillow bomb error is a bare Exception.
DAMAGED = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError,
    ZeroDivisionError, struct.error, zlib.error,
)  # fmt: skip
# Pixels of a micrograph, at most: Pillow refuses larger images, which could fill any memory.
MOST_PX = 178_956_970
# What Pillow may take a file for. It knows others, and hands EPS to a program.
PILLOW_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "JPEG2000", "PPM", "WEBP")


class UnreadableImage(UserError):
    """An image file that is missing, truncated or not a single micrograph."""


def image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) in px from the file's header; raises `UnreadableImage`."""
    with _opened(path) as image:
        return _section(image, path).shape if _is_mrc(path) else (image.height, image.width)


def read_micrograph(path: Path) -> np.ndarray:
    """Return the micrograph as uint8 (h, w), row 0 at the top of the JPEG's frame.

    8-bit images come as they are (CryoTransformer's JPEGs are denoised already); images with more
    depth, MRCs among them, go through `raw_to_uint8`. Raises `UnreadableImage`.
    """
    with _opened(path) as image:
        if _is_mrc(path):
            raw = np.flipud(_section(image, path)).astype(np.float32)  # MRC frame -> JPEG frame
        elif image.mode[0] in "IF":  # 16- or 32-bit grey
            raw = np.asarray(image, dtype=np.float32)
        else:
            grey = _decode_grey_jpeg(path) if (image.format, image.mode) == ("JPEG", "L") else None
            return np.asarray(image.convert("L")) if grey is None else grey
        if not np.isfinite(raw).all():
            raise UnreadableImage(f"{path} holds values that are not finite: write it again")
        return raw_to_uint8(raw)


def _decode_grey_jpeg(path: Path) -> np.ndarray | None:
    """Return the pixels, uint8 (h, w), as Pillow has them; None where only Pillow reads the file.

    simplejpeg uses libjpeg-turbo as Pillow does, and takes 0.4 of the time.
    """
    try:
        import simplejpeg

        return simplejpeg.decode_jpeg(path.read_bytes(), "GRAY")[..., 0]
    except (ImportError, ValueError):
        return None


def read_scaled(path: Path, size_px: tuple[int, int]) -> np.ndarray:
    """Return the micrograph at a working size, as uint8 (h, w) of ``size_px``.

    It spans the whole micrograph, so the two axes may be scaled differently. What comes is
    `scale_micrograph` of `read_micrograph`, but a JPEG is decoded at 1/2, 1/4 or 1/8 of its size
    where that still is as large as ``size_px``: in half the time, in less memory, and 0.2 to 0.6
    grey levels off on average. Raises `UnreadableImage`.
    """
    if not _is_mrc(path):
        with _opened(path) as image:
            reduced = image.draft("L", size_px[::-1])  # None for all but JPEGs
            if reduced is not None:
                # The box is the micrograph in reduced px, to which the last px may add a margin.
                grey = image.convert("L").resize(size_px[::-1], SCALING_FILTER, box=reduced[1])
                return np.asarray(grey)
    return scale_micrograph(read_micrograph(path), size_px)


def scale_micrograph(image: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """Scale uint8 (h, w) to ``size_px``, (height, width), smoothed so that nothing aliases.

    Pixel j of the result has its centre at (j + 0.5) / scale px of ``image``, where scale is the
    ratio of the sizes and pixel i of ``image`` spans [i, i + 1].
    """
    if image.shape == size_px:
        return image
    whole = Image.fromarray(image)
    return np.asarray(whole.resize(size_px[::-1], SCALING_FILTER, reducing_gap=REDUCING_GAP))


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


def write_mrc(path: Path, raw: np.ndarray, pixel_size_angstrom: float) -> None:
    """Write raw counts, float (h, w) in the JPEG's frame, as a float32 MRC in the MRC's frame."""
    import mrcfile

    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(np.ascontiguousarray(np.flipud(raw), dtype=np.float32))
        mrc.voxel_size = pixel_size_angstrom
        mrc.header.label[0] = "raw counts"  # the default holds the time: two runs would differ


def _is_mrc(path: Path) -> bool:
    return path.suffix.lower() == ".mrc"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a micrograph, an object of mrcfile or Pillow; what they raise names the file."""
    try:
        with _open_mrc(path) if _is_mrc(path) else _open_pillow(path) as image:
            yield image
    except FileNotFoundError as error:
        raise UnreadableImage(f"{path} is not there: check the path") from error
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error
    except DAMAGED as error:
        raise UnreadableImage(
            f"{path} cannot be read ({error}): copy it again from its source"
        ) from error


def _open_mrc(path: Path) -> Any:
    """Open an MRC, unless its extended header is longer than the file.

    mrcfile takes memory for that, up to 2 GB, before it looks.
    """
    import mrcfile

    with path.open("rb") as file:
        header = file.read(1024)
    byte_order = ">" if header[212:213] == b"\x11" else "<"
    (n_extended,) = struct.unpack_from(f"{byte_order}i", header, 92)
    if n_extended > path.stat().st_size:
        raise ValueError(f"its header is said to have {n_extended:,} more bytes, as no file does")
    return mrcfile.mmap(path, mode="r")


def _section(mrc: Any, path: Path) -> np.ndarray:
    """Return the one section of an MRC as (h, w); a stack or movie is not a micrograph."""
    data = mrc.data
    if data is not None and data.ndim == 3 and data.shape[0] == 1:
        data = data[0]
    if data is None or data.ndim != 2 or 0 in data.shape or np.iscomplexobj(data):
        shape = None if data is None else data.shape
        raise UnreadableImage(
            f"{path} holds data of shape {shape}, not one micrograph: average the movie first"
        )
    if data.size > MOST_PX:
        raise _too_large(path)
    return data


def _open_pillow(path: Path) -> Any:
    # Pillow warns of large images, which micrographs are, and of damage, which is an error here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(path, formats=PILLOW_FORMATS)
        frames = getattr(image, "n_frames", 1)
    if frames > 1:
        image.close()
        raise UnreadableImage(f"{path} holds {frames} frames: average the movie first")
    return image


def _too_large(path: Path) -> UnreadableImage:
    return UnreadableImage(f"{path} has more than {MOST_PX:,} px: bin it or cut it into parts")
