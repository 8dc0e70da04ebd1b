"""MRC files: headers as programs write them, bytes with and without sign."""

import struct
import warnings

import mrcfile
import numpy as np
import pytest

from picking.micrographs.mrc import write_mrc
from picking.micrographs.pixel_size import header_pixel_size
from picking.micrographs.preparation import raw_to_uint8
from picking.micrographs.problems import Notes, UnreadableImage
from picking.micrographs.reading import image_size, read_micrograph

RNG = np.random.default_rng(0)
COUNTS = RNG.normal(100, 5, (60, 80)).round().astype(np.float32)
COUNTS[:20, :20] = 60  # a dark upper left corner, so that any turn or sign shows
RIGHT = raw_to_uint8(COUNTS)  # in the JPEG's frame, as COUNTS are
IMOD = 1146047817
LITTLE = b"\x44\x44\x00\x00"


def mrc(path, order="<", mode=2, stamp=LITTLE, mark=b"MAP ", data=None, tail=b"", **words):
    """Write an MRC by hand; words: their places in the header, w0 to w255 -> values.

    data: bytes of the pixels, by default `COUNTS`.
    """
    kind = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}.get(mode, "f4")
    header = bytearray(1024)
    size = [COUNTS.shape[1], COUNTS.shape[0], 1]
    numbers = {**dict(enumerate((*size, mode))), **dict(enumerate(size, 7)), 27: 20140}
    numbers |= {int(name[1:]): value for name, value in words.items()}
    for word, value in numbers.items():
        kind_of = "f" if isinstance(value, float) else "i"
        struct.pack_into(order + kind_of, header, 4 * word, value)
    header[208:216] = mark.ljust(4, b"\0") + stamp
    if data is None:
        data = COUNTS[::-1].astype(order + kind).tobytes()
    path.write_bytes(bytes(header) + data + tail)
    return path


def read(path):
    """The micrograph, its size and what is noted; nothing may be warned of past our own lines."""
    notes = Notes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_micrograph(path, notes)
        assert image_size(path) == image.shape
    return image, notes


def refused(path):
    """The sentence with which size and pixels are refused."""
    sentences = set()
    for function in (image_size, read_micrograph):
        with pytest.raises(UnreadableImage) as error:
            function(path)
        sentences.add(str(error.value))
    (sentence,) = sentences
    assert path.name in sentence
    return sentence


# Headers


@pytest.mark.parametrize(
    ("order", "stamp", "mark"),
    [
        ("<", LITTLE, b"MAP "),
        ("<", b"\x44\x41\x00\x00", b"MAP "),
        ("<", b"\x44\x00\x00\x00", b"MAP "),  # SerialEM
        ("<", b"\x44\x20\x20\x20", b"MAP "),  # IMOD
        ("<", bytes(4), b"MAP "),
        ("<", b"    ", b"MAP "),
        ("<", LITTLE, b""),
        ("<", bytes(4), b""),  # before 2000
        ("<", LITTLE, b"MAP\0"),
        ("<", b"\x11\x11\x00\x00", b"MAP "),  # wrong
        (">", b"\x11\x11\x00\x00", b"MAP "),
        (">", LITTLE, b"MAP "),  # wrong
        (">", bytes(4), b""),
    ],
)
@pytest.mark.parametrize("mode", [0, 1, 2, 6, 12])
def test_stamps_and_marks_do_not_matter_where_size_mode_and_length_agree(
    tmp_path, order, stamp, mark, mode
):
    image, notes = read(mrc(tmp_path / "a.mrc", order, mode, stamp, mark))
    np.testing.assert_array_equal(image, RIGHT)
    assert notes == {}


@pytest.mark.parametrize(
    "words",
    [
        {"w7": 0, "w8": 0, "w9": 0},  # sampling
        {"w7": -1, "w8": 3, "w9": 77},
        {"w2": 0},  # sections
        {"w27": 0}, {"w27": 20141},  # version
        {"w22": 401, "w9": 0}, {"w22": 1}, {"w22": 0},  # space group
        {"w23": 2**31 - 1}, {"w23": -5}, {"w23": 131_072},  # a false length of the extended header
        {"w16": 7, "w17": 7, "w18": 7},  # axes
        {"w19": float("nan"), "w20": float("inf")},
    ],
)  # fmt: skip
def test_other_words_do_not_matter_where_size_mode_and_length_agree(tmp_path, words):
    image, notes = read(mrc(tmp_path / "a.mrc", **words))
    np.testing.assert_array_equal(image, RIGHT)
    assert notes == {}


def test_an_extended_header_is_jumped(tmp_path):
    whole = mrc(tmp_path / "a.mrc", w23=256).read_bytes()
    (tmp_path / "a.mrc").write_bytes(whole[:1024] + b"\x7f" * 256 + whole[1024:])
    np.testing.assert_array_equal(read(tmp_path / "a.mrc")[0], RIGHT)


def test_bytes_behind_the_pixels_are_left_out_and_counted(tmp_path):
    image, notes = read(mrc(tmp_path / "a.mrc", tail=b"\x7f" * 512))
    np.testing.assert_array_equal(image, RIGHT)
    assert notes == {"trailing_bytes": 512}


def test_a_second_image_that_the_header_does_not_speak_of_is_refused(tmp_path):
    sentence = refused(mrc(tmp_path / "a.mrc", tail=COUNTS.tobytes()))
    assert "2 images" in sentence


@pytest.mark.parametrize("n_lacking", [1, 500, COUNTS.nbytes])
def test_of_a_file_that_is_cut_short_both_lengths_are_said(tmp_path, n_lacking):
    path = mrc(tmp_path / "a.mrc")
    whole = path.read_bytes()
    path.write_bytes(whole[:-n_lacking])
    sentence = refused(path)
    assert f"{len(whole) - n_lacking:,}" in sentence and f"{len(whole):,}" in sentence


def test_of_half_a_header_the_length_is_said(tmp_path):
    (tmp_path / "a.mrc").write_bytes(bytes(700))
    assert "700" in refused(tmp_path / "a.mrc")


def test_an_interrupted_copy_whose_rest_is_zeros_is_refused(tmp_path):
    pixels = COUNTS.copy()
    pixels[25:] = 0
    with pytest.raises(UnreadableImage, match="zeros"):
        read_micrograph(mrc(tmp_path / "a.mrc", data=pixels.tobytes()))


def test_without_any_mark_the_length_must_fit(tmp_path):
    path = mrc(tmp_path / "a.mrc", stamp=bytes(4), mark=b"", tail=b"\0" * 9)
    assert f"{path.stat().st_size:,}" in refused(path)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"\x1f\x8b\x08" + bytes(2000), "gunzip"), (b"BZh91AY" + bytes(2000), "bunzip2"),
        (b"II*\x00" + bytes(2000), ".tif"), (b"MM\x00*" + bytes(2000), ".tif"),
        (b"\x89PNG\r\n" + bytes(2000), ".png"), (b"\x89HDF" + bytes(2000), "HDF5"),
        (b"\x1f\x8b\x08", "gunzip"),
    ],
)  # fmt: skip
def test_another_kind_of_file_is_told_by_how_it_begins(tmp_path, content, word):
    (tmp_path / "a.mrc").write_bytes(content)
    assert word in refused(tmp_path / "a.mrc")


@pytest.mark.parametrize(
    ("mode", "word"), [(3, "complex"), (4, "complex"), (101, "4 bits"), (16, "colours"), (99, "99")]
)
def test_modes_that_are_no_grey_values_are_refused_by_name(tmp_path, mode, word):
    assert word in refused(mrc(tmp_path / "a.mrc", mode=mode))


@pytest.mark.parametrize("words", [{"w22": 0}, {"w22": 1}, {"w22": 401}])
def test_stacks_and_volumes_are_refused(tmp_path, words):
    path = mrc(tmp_path / "a.mrc", data=COUNTS.tobytes() * 3, w2=3, **words)
    assert "(3, 60, 80)" in refused(path)


# Bytes with and without sign


def byte_mrc(path, values, **words):
    """An MRC of mode 0, its bytes as given in the JPEG's frame."""
    data = values.clip(-128, 255).astype(int).astype(np.uint8)[::-1].tobytes()
    return mrc(path, mode=0, data=data, **words)


UNSIGNED = COUNTS + 40  # about 140, so as signed bytes most would be negative


def test_unsigned_bytes_are_read_so_where_imod_says_it(tmp_path):
    path = byte_mrc(tmp_path / "a.mrc", UNSIGNED, w38=IMOD, w39=0)
    image, notes = read(path)
    np.testing.assert_array_equal(image, raw_to_uint8(UNSIGNED))
    assert image[5:15, 5:15].mean() < 60 and notes == {}


def test_signed_bytes_are_read_so_where_imod_says_it(tmp_path):
    path = byte_mrc(tmp_path / "a.mrc", UNSIGNED - 140, w38=IMOD, w39=1)
    np.testing.assert_array_equal(read(path)[0], raw_to_uint8(UNSIGNED))


def test_two_values_a_byte_are_refused(tmp_path):
    assert "4 bits" in refused(byte_mrc(tmp_path / "a.mrc", UNSIGNED, w38=IMOD, w39=17))


def test_bytes_are_unsigned_where_the_header_has_a_higher_value_than_signed_ones(tmp_path):
    image, notes = read(byte_mrc(tmp_path / "a.mrc", UNSIGNED, w19=90.0, w20=161.0))
    np.testing.assert_array_equal(image, raw_to_uint8(UNSIGNED))
    assert notes["unsigned"] == (UNSIGNED > 127).sum()


def test_bytes_without_any_word_are_unsigned_where_they_only_make_sense_so(tmp_path):
    image, notes = read(byte_mrc(tmp_path / "a.mrc", UNSIGNED))
    np.testing.assert_array_equal(image, raw_to_uint8(UNSIGNED))
    assert notes["unsigned"] == (UNSIGNED > 127).sum()


@pytest.mark.parametrize("order", "<>")
def test_numbers_of_16_bits_are_unsigned_where_the_header_has_a_higher_value(tmp_path, order):
    values = UNSIGNED * 300
    data = values[::-1].astype(f"{order}u2").tobytes()
    words = {"order": order, "mode": 1, "data": data, "w19": 9.0, "w20": float(values.max())}
    image, notes = read(mrc(tmp_path / "a.mrc", **words))
    np.testing.assert_array_equal(image, raw_to_uint8(values))
    assert notes["unsigned"] == (values > 32767).sum()


@pytest.mark.parametrize("offset", [-100, -60, 0])
def test_bytes_without_any_word_are_signed_as_the_standard_has_it(tmp_path, offset):
    image, notes = read(byte_mrc(tmp_path / "a.mrc", COUNTS + offset))
    np.testing.assert_array_equal(image, RIGHT)
    assert notes == {}


def test_what_write_mrc_writes_is_in_the_mrc_frame_with_its_pixel_size(tmp_path):
    write_mrc(tmp_path / "a.mrc", COUNTS, 1.5)
    with mrcfile.open(tmp_path / "a.mrc") as whole:
        np.testing.assert_array_equal(whole.data[::-1], COUNTS)
        assert whole.voxel_size.x == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("words", "angstrom"),
    [
        ({}, None), ({"w10": 80 * 1.77, "w11": 60 * 1.77}, 1.77),
        ({"w10": 80.0, "w11": 60.0}, None),
        ({"w10": float("nan"), "w11": 60.0}, None), ({"w10": 160.0, "w11": 60.0}, None),
        ({"w10": 80 * 1.77, "w11": 60 * 1.77, "w7": 0, "w8": 0}, None),
        ({"w10": 80 * 1.77, "w11": 60 * 1.77, "w23": 2**31 - 1}, 1.77),  # takes no memory
    ],
)  # fmt: skip
@pytest.mark.parametrize(("order", "stamp"), [("<", LITTLE), ("<", bytes(4)), (">", LITTLE)])
def test_the_pixel_size_is_the_headers_whatever_its_stamp(tmp_path, words, angstrom, order, stamp):
    assert header_pixel_size(mrc(tmp_path / "a.mrc", order, stamp=stamp, **words)) == angstrom
