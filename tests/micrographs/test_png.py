"""PNG of every depth, with what else such files may hold."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from picking.micrographs.preparation import raw_to_uint8
from picking.micrographs.problems import UnreadableImage
from picking.micrographs.reading import read_micrograph
from tests.micrographs.test_tiff import GREY


def png(path, array, colour=0, chunks=()):
    """Write a PNG by hand; array: (h, w) or (h, w, bands) as stored, of 8 or 16 bits."""
    height, width = array.shape[:2]
    rows = array.reshape(height, -1)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", width, height, 8 * array.itemsize, colour, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), *chunks, (b"IDAT", packed), (b"IEND", b""))
    ))  # fmt: skip
    return path


GAMMA, CLEAR = (b"gAMA", struct.pack(">I", 45455)), (b"tRNS", struct.pack(">H", 40))


@pytest.mark.parametrize("chunks", [(), (GAMMA,), (CLEAR,), (GAMMA, CLEAR)])
def test_gamma_and_transparency_change_no_pixel(tmp_path, chunks):
    path = png(tmp_path / "a.png", GREY.astype(np.uint8), chunks=chunks)
    np.testing.assert_array_equal(read_micrograph(path), GREY)
    path = png(tmp_path / "b.png", (20 * GREY).astype(">u2"), chunks=chunks)
    np.testing.assert_array_equal(read_micrograph(path), raw_to_uint8(20 * GREY))


def test_grey_with_alpha_is_its_grey(tmp_path):
    bands = np.stack([GREY, np.full_like(GREY, 9)], -1).astype(np.uint8)
    np.testing.assert_array_equal(read_micrograph(png(tmp_path / "a.png", bands, colour=4)), GREY)


def test_one_bit_is_black_and_white(tmp_path):
    Image.fromarray(GREY > 100).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_micrograph(tmp_path / "a.png"), 255 * (GREY > 100))


def test_colours_of_16_bits_would_lose_half_and_are_refused(tmp_path):
    path = png(tmp_path / "a.png", np.stack([GREY.astype(">u2")] * 3, -1), colour=2)
    with pytest.raises(UnreadableImage, match="16-bit grey"):
        read_micrograph(path)
