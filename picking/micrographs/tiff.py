"""Pixels of TIFF files as their tags mean them, where Pillow leaves that to the reader."""

import re
from pathlib import Path
from typing import Any

import numpy as np

PHOTOMETRIC, DESCRIPTION, BITS, SAMPLE_FORMAT, ORIENTATION = 262, 270, 258, 339, 274
WHITE_IS_ZERO = 0
SIGNED = 2
# ImageJ describes the first of several images that follow without descriptions of their own
IMAGEJ = re.compile(r"ImageJ=.*?^images=(\d+)", re.DOTALL | re.MULTILINE)
BIG_ENDIAN = ("F;32BF", "I;16BS", "I;32BS")  # as Pillow names them
MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


def n_described(image: Any) -> int:
    """Return how many images a TIFF, opened by Pillow, says that it holds without listing them."""
    found = IMAGEJ.match(str(image.tag_v2.get(DESCRIPTION, "")))
    return int(found[1]) if found else 1


def is_turned(image: Any) -> bool:
    """Return whether rows of a TIFF, opened by Pillow, are columns; it mixes up these two."""
    return image.tag_v2.get(ORIENTATION, 1) > 4


def bits(image: Any) -> int:
    """Return the bits of a sample of a TIFF, opened by Pillow."""
    return max(image.tag_v2.get(BITS, (1,)))


def mend_byte_order(image: Any) -> None:
    """Have Pillow take what libtiff makes of a big-endian TIFF for what it is: in native order.

    It does so itself only for unsigned numbers of 16 bits (Pillow 13).
    """
    tile = image.tile[0]
    codec, *where, how = tile
    if codec == "libtiff" and how[0] in BIG_ENDIAN:
        how = how[0].replace("B", "N"), *how[1:]
        make = getattr(type(tile), "_make", tuple)  # before Pillow 11.1 a tile has no names
        image.tile = [make((codec, *where, how))]


def is_tiff(path: Path) -> bool:
    """Return whether a file begins as a TIFF does."""
    with path.open("rb") as file:
        return file.read(4) in MAGIC


def meant(image: Any, stored: np.ndarray) -> np.ndarray:
    """Return the pixels of a grey TIFF, (h, w), as numbers that grow with brightness.

    image: opened by Pillow; stored: its pixels, as Pillow has them. Of 8-bit TIFFs Pillow inverts
    those in which white is zero, not the deeper ones; and it takes bytes for unsigned and numbers
    of 32 bits for signed.
    """
    tags = image.tag_v2
    signed = tags.get(SAMPLE_FORMAT, (1,))[0] == SIGNED
    if bits(image) == 8 and signed:
        return stored ^ 0x80  # from -128 to 127 -> from 0 to 255
    if stored.dtype == np.int32 and bits(image) == 32 and not signed:
        stored = stored.view(np.uint32)
    if bits(image) > 8 and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        return -stored.astype(np.float32)
    return stored
