"""TIFF: every kind of grey is read as it is meant, bright as bright, or refused."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from picking.micrographs.preparation import raw_to_uint8
from picking.micrographs.problems import UnreadableImage
from picking.micrographs.reading import image_size, read_micrograph

RNG = np.random.default_rng(0)
GREY = RNG.normal(110, 5, (48, 64)).round()
GREY[:16, :16] = 40  # a dark upper left corner, so that any turn or sign shows

# What Pillow does not know
UNKNOWN = {("u2", True, ">"), ("u4", True, ">"), ("u4", True, "<"), ("u4", False, ">")}


def tiff(
    path, array, order="<", white_is_zero=False, tile_px=None, bits=None, deflated=False, **tags
):
    """Write a TIFF by hand; array: as stored; tags: t262=... -> further ones."""
    height, width = array.shape
    kind = {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
    stored = array.astype(array.dtype.newbyteorder(order))
    if bits == 1:
        blocks = [np.packbits(array.astype(np.uint8), axis=1).tobytes()]
    elif bits == 12:
        first, second = array.reshape(-1, 2).T.astype(int)
        three = first >> 4, (first & 15) << 4 | second >> 8, second & 255
        blocks = [np.stack(three, 1).astype(np.uint8).tobytes()]
    elif tile_px:
        blocks = [
            stored[y : y + tile_px, x : x + tile_px].tobytes()
            for y in range(0, height, tile_px) for x in range(0, width, tile_px)
        ]  # fmt: skip
    else:
        blocks = [stored[: height // 2].tobytes(), stored[height // 2 :].tobytes()]
    if deflated:
        blocks = [zlib.compress(block) for block in blocks]
    places, offsets = 8, []
    for block in blocks:
        offsets.append(places)
        places += len(block)
    entries = {
        256: [width], 257: [height], 258: [bits or 8 * array.itemsize], 259: [8 if deflated else 1],
        262: [0 if white_is_zero else 1], 277: [1], 339: [kind],
    }  # fmt: skip
    if tile_px:
        entries |= {322: [tile_px], 323: [tile_px], 324: offsets, 325: [len(b) for b in blocks]}
    else:
        entries |= {278: [-(-height // len(blocks))], 273: offsets, 279: [len(b) for b in blocks]}
    entries |= {int(name[1:]): value for name, value in tags.items()}
    directory, extra, beyond = b"", b"", places + 2 + 12 * len(entries) + 4
    for tag, values in sorted(entries.items()):
        text = isinstance(values, bytes)
        content = values if text else struct.pack(f"{order}{len(values)}I", *values)
        kind_of, count = (2, len(values)) if text else (4, len(values))
        if len(content) > 4:
            content, extra = struct.pack(order + "I", beyond + len(extra)), extra + content
        directory += struct.pack(order + "HHI", tag, kind_of, count) + content.ljust(4, b"\0")
    start = b"II*\0" if order == "<" else b"MM\0*"
    path.write_bytes(
        start + struct.pack(order + "I", places) + b"".join(blocks)
        + struct.pack(order + "H", len(entries)) + directory + bytes(4) + extra
    )  # fmt: skip
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("tile_px", [None, 16])
@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("kind", ["u2", "u4", "f4"])
def test_deep_grey_is_read_as_it_is_meant(tmp_path, kind, white_is_zero, tile_px, order):
    array = (20 * GREY).astype(kind)
    if white_is_zero:
        array = (3000 - array).astype(kind)
    path = tiff(tmp_path / "a.tif", array, order, white_is_zero, tile_px)
    if (kind, white_is_zero, order) in UNKNOWN:
        with pytest.raises(UnreadableImage, match="32-bit grey"):
            read_micrograph(path)
    else:
        image = read_micrograph(path)
        assert abs(image.astype(int) - raw_to_uint8(20 * GREY)).max() <= 1
        assert image_size(path) == GREY.shape


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["i2", "i4"])
def test_signed_numbers_are_read_as_such(tmp_path, kind, order):
    path = tiff(tmp_path / "a.tif", (20 * (GREY - 90)).astype(kind), order)
    assert abs(read_micrograph(path).astype(int) - raw_to_uint8(20 * GREY)).max() <= 1


def test_numbers_above_two_to_the_31st_do_not_turn_negative(tmp_path):
    large = 2.0**31 + 1e7 * (GREY - 100)
    image = read_micrograph(tiff(tmp_path / "a.tif", large.astype("u4")))
    assert abs(image.astype(int) - raw_to_uint8(large)).max() <= 1


def test_8_bits_come_as_they_are_and_inverted_where_white_is_zero(tmp_path):
    for name, white_is_zero in (("a.tif", False), ("b.tif", True)):
        stored = 255 - GREY if white_is_zero else GREY
        path = tiff(tmp_path / name, stored.astype(np.uint8), white_is_zero=white_is_zero)
        np.testing.assert_array_equal(read_micrograph(path), GREY)


def test_signed_8_bits_keep_their_order(tmp_path):
    path = tiff(tmp_path / "a.tif", (GREY - 100).astype(np.int8))
    np.testing.assert_array_equal(read_micrograph(path), GREY + 28)


@pytest.mark.parametrize("white_is_zero", [False, True])
def test_one_bit_is_black_and_white(tmp_path, white_is_zero):
    bright = GREY > 100
    stored = (bright ^ white_is_zero).astype(np.uint8)
    path = tiff(tmp_path / "a.tif", stored, white_is_zero=white_is_zero, bits=1)
    np.testing.assert_array_equal(read_micrograph(path), 255 * bright)


def test_12_bits_are_read(tmp_path):
    path = tiff(tmp_path / "a.tif", (20 * GREY).astype("u2"), bits=12)
    image = read_micrograph(path)
    assert abs(image.astype(int) - raw_to_uint8(20 * GREY)).max() <= 1


@pytest.mark.parametrize("way", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("kind", ["u1", "u2", "i4", "f4"])
def test_compressed_ones_are_the_same(tmp_path, way, kind):
    grey = (GREY if kind == "u1" else 20 * GREY).astype(kind)
    Image.fromarray(grey).save(tmp_path / "a.tif", compression=way)
    right = grey if kind == "u1" else raw_to_uint8(grey)
    np.testing.assert_array_equal(read_micrograph(tmp_path / "a.tif"), right)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u2", "i2", "i4", "f4"])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_deflated_ones_of_either_byte_order_are_the_same(tmp_path, kind, order, white_is_zero):
    array = (20 * GREY).astype(kind)
    if white_is_zero:
        array = (3000 - array).astype(kind)
    path = tiff(tmp_path / "a.tif", array, order, white_is_zero, deflated=True)
    if (kind, white_is_zero, order) in UNKNOWN or (kind[0] == "i" and white_is_zero):
        with pytest.raises(UnreadableImage, match="32-bit grey"):
            read_micrograph(path)
    else:
        difference = read_micrograph(path).astype(int) - raw_to_uint8(20 * GREY)
        assert abs(difference).max() <= 1


@pytest.mark.parametrize(
    ("orientation", "seen"),
    [(1, GREY), (2, GREY[:, ::-1]), (3, GREY[::-1, ::-1]), (4, GREY[::-1])],
)
def test_the_first_row_is_the_top_one_as_the_file_says_it(tmp_path, orientation, seen):
    path = tiff(tmp_path / "a.tif", GREY.astype(np.uint8), t274=[orientation])
    np.testing.assert_array_equal(read_micrograph(path), seen)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_one_that_is_to_be_turned_is_refused(tmp_path, orientation):
    path = tiff(tmp_path / "a.tif", (20 * GREY).astype("u2"), t274=[orientation])
    for function in (image_size, read_micrograph):
        with pytest.raises(UnreadableImage, match=r"a\.tif .*turned by 90 degrees"):
            function(path)


def test_deep_colours_are_refused_also_in_planes(tmp_path):
    for name, tags in (("a.tif", {}), ("b.tif", {"t284": [2], "t273": [8] * 3, "t279": [64] * 3})):
        path = tiff(
            tmp_path / name, GREY.astype("u2"), t262=[2], t277=[3], t258=[16] * 3, t339=[1] * 3,
            **tags,
        )  # fmt: skip
        with pytest.raises(UnreadableImage, match="16-bit grey"):
            image_size(path)


@pytest.mark.parametrize("kind", ["f8", "f2", "i8", "u8"])
def test_rare_numbers_are_refused_with_what_to_do(tmp_path, kind):
    for function in (image_size, read_micrograph):
        with pytest.raises(UnreadableImage, match=r"a\.tif .*32-bit grey"):
            function(tiff(tmp_path / "a.tif", GREY.astype(kind)))


def test_a_stack_that_imagej_lists_once_is_refused(tmp_path):
    text = b"ImageJ=1.53t\nimages=7\nslices=7\n\0"
    path = tiff(tmp_path / "a.tif", GREY.astype("u2"), t270=text)
    with pytest.raises(UnreadableImage, match="7 frames"):
        image_size(path)
    path = tiff(tmp_path / "b.tif", GREY.astype("u2"), t270=b"ImageJ=1.53t\nunit=nm\n\0")
    assert image_size(path) == GREY.shape
