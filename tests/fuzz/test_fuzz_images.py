"""Micrographs: JPG, PNG, TIFF and MRC, of any depth, size and honesty."""

import io
import struct
import zlib

import mrcfile
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from picking.micrographs import reading

from .mutators import damaged_bytes
from .oracle import ENDS, outcome, run_cases, short

MODES = ("L", "1", "P", "RGB", "RGBA", "CMYK", "LA", "I;16", "I", "F", "YCbCr", "LAB", "PA", "HSV")
FORMATS = {".jpg": "JPEG", ".png": "PNG", ".tif": "TIFF"}
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".mrc")
MRC_TYPES = ("i1", "i2", "u2", "f4", "f2", ">i2", ">f4", "c8")
MAX_PX = 200_000_000


def read(path):
    """Read as preprocessing and picking do: the header, all of it, and at another size."""
    size = reading.image_size(path)
    image = reading.read_micrograph(path)
    assert image.dtype == np.uint8 and image.shape == size and min(size) > 0
    assert reading.read_scaled(path, (24, 16)).shape == (24, 16)


def pixels(draw):
    """Noise of an odd or even size, perhaps of one px or much longer than wide."""
    size = draw(st.sampled_from(((1, 1), (1, 300), (300, 1), (2, 3), (40, 37), (64, 64))))
    return np.random.default_rng(size[0]).normal(100, 20, size)


def of_bytes(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return outcome(lambda: read(path), [path.name])


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def as_mode(noise, mode):
    if mode == "I;16":
        return Image.fromarray(noise.astype(np.uint16))
    if mode in ("I", "F"):
        return Image.fromarray(noise.astype(np.int32 if mode == "I" else np.float32))
    grey = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
    return (grey.convert("RGB") if mode in ("YCbCr", "LAB", "HSV") else grey).convert(mode)


def _written(draw):
    """The bytes of an image of some mode in some format, and a suffix that may not be its own."""
    suffix = draw(st.sampled_from(list(FORMATS)))
    mode, noise = draw(st.sampled_from(MODES)), pixels(draw)
    try:
        content = encoded(as_mode(noise, mode), FORMATS[suffix])
    except (OSError, ValueError, KeyError):  # the format has no such mode: LAB only in TIFF
        content = encoded(as_mode(noise, "RGB"), FORMATS[suffix])
    return content, draw(st.sampled_from((suffix, suffix, *SUFFIXES)))


def modes(draw, folder):
    content, suffix = _written(draw)
    return of_bytes(folder, f"a{suffix}", content)


def damaged(draw, folder):
    content, suffix = _written(draw)
    return of_bytes(folder, f"a{suffix}", draw(damaged_bytes(content, hot=200)))


def compressed_tiff(draw, folder):
    """TIFF as microscopes write it: compressed, perhaps of several pages, then damaged."""
    way = draw(st.sampled_from(("raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg")))
    mode = "L" if way == "jpeg" else draw(st.sampled_from(("L", "I;16", "F")))
    image = as_mode(pixels(draw), mode)
    pages = {"save_all": True, "append_images": [image]} if draw(st.booleans()) else {}
    content = encoded(image, "TIFF", compression=way, **pages)
    if draw(st.booleans()):
        content = draw(damaged_bytes(content, hot=300))
    return of_bytes(folder, "a.tif", content)


def animated(draw, folder):
    kind, suffix = draw(st.sampled_from((("PNG", ".png"), ("GIF", ".png"), ("TIFF", ".tiff"))))
    frames = [as_mode(pixels(draw), "L")] * draw(st.integers(1, 3))
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    return of_bytes(folder, f"a{suffix}", content)


def huge_png(draw, folder):
    """A few bytes that say they are a picture of any size, which deflates to nearly nothing."""
    height, width = (draw(st.sampled_from((0, 1, 30_000, 100_000, 2**31 - 1))) for _ in range(2))
    depth = draw(st.sampled_from((1, 8, 16)))
    rows = min(height, 2**28 // (width * depth // 8 + 2)) if draw(st.booleans()) else 1
    deflate = zlib.compressobj(1)
    row = bytes(min(width * depth // 8 + 1, 2**20))
    packed = b"".join(deflate.compress(row) for _ in range(min(rows, 200))) + deflate.flush()
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)),
              (b"IDAT", packed), (b"IEND", b""))  # fmt: skip
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return of_bytes(folder, "a.png", content)


def _mrc(folder, noise, kind, order="<"):
    path = folder / "whole.mrc"
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(noise.astype(kind))
    return path.read_bytes()


def mrc_header(draw, folder):
    """An MRC whose header lies: sizes, mode, extended header, space group, stamp."""
    content = bytearray(_mrc(folder, pixels(draw), draw(st.sampled_from(MRC_TYPES))))
    for _ in range(draw(st.integers(0, 3))):
        # nx ny nz mode, mx my mz, ispg nsymbt, map machst, and any other word
        word = draw(st.sampled_from((0, 1, 2, 3, 7, 8, 9, 22, 23, 52, 53, 24, 27, 55)))
        value = draw(
            st.sampled_from((-1, 0, 1, 2, 3, 4, 6, 12, 101, 401, 1024, 30_000, 2**31 - 1, -(2**31)))
        )
        content[4 * word : 4 * word + 4] = struct.pack("<i", value)
    return of_bytes(folder, "a.mrc", bytes(content))


def mrc_bytes(draw, folder):
    content = _mrc(folder, pixels(draw), draw(st.sampled_from(MRC_TYPES)))
    return of_bytes(folder, "a.mrc", draw(damaged_bytes(content, hot=1100)))


def mrc_values(draw, folder):
    """Numbers that are none, or too large, and stacks."""
    noise = pixels(draw).astype(np.float32)
    value = draw(st.sampled_from((np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-40, 0)))
    noise.flat[draw(st.integers(0, noise.size - 1))] = value
    if draw(st.booleans()):
        noise[:] = value
    if draw(st.booleans()):
        noise = np.stack([noise] * draw(st.integers(1, 3)))
    return of_bytes(folder, "a.mrc", _mrc(folder, noise, "f4"))


def large_and_hollow(draw, folder):
    """An MRC that really is as large as it says, though nothing but holes; and TIFF likewise."""
    side = draw(st.sampled_from((1000, 20_000, 30_000, 46_000)))
    header = bytearray(_mrc(folder, np.zeros((2, 2)), "i1")[:1024])
    header[:12] = struct.pack("<iii", side, side, 1)
    path = folder / "a.mrc"
    with path.open("wb") as file:
        file.write(header)
        file.truncate(1024 + side * side)
    return outcome(lambda: read(path), [path.name])


def no_image(draw, folder):
    name = f"a{draw(st.sampled_from(SUFFIXES))}"
    kinds = (b"", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", b"\x89PNG")
    return of_bytes(folder, name, draw(st.one_of(st.sampled_from(kinds), st.binary(max_size=99))))


CASES = {
    modes: 60, damaged: 100, compressed_tiff: 60, animated: 20, huge_png: 20, mrc_header: 80,
    mrc_bytes: 50, mrc_values: 30, large_and_hollow: 4, no_image: 30,
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_odd_images_are_read_or_refused_in_one_sentence(case):
    assert set() < run_cases(case, short(CASES[case])) <= ENDS
