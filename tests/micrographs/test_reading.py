import sys

import mrcfile
import numpy as np
import pytest
from PIL import Image, ImageFile
from scipy.ndimage import gaussian_filter

from picking.micrographs.mrc import write_mrc
from picking.micrographs.preparation import raw_to_uint8, scale_micrograph
from picking.micrographs.problems import Notes, UnreadableImage
from picking.micrographs.reading import (
    SUFFIXES,
    image_size,
    read_grey,
    read_micrograph,
    read_scaled,
)

RNG = np.random.default_rng(0)
COUNTS = RNG.normal(1000, 50, (60, 80)).astype(np.uint16)
COUNTS[:20, :20] = 100  # a dark upper left corner, so that any turn shows


def write(path, raw=COUNTS):
    """The same raw counts in the JPEG's frame, in any format of more than 8 bits."""
    if path.suffix == ".mrc":
        write_mrc(path, raw.astype(np.float32), 1.5)
    else:
        Image.fromarray(raw).save(path)
    return path


def write_8_bit(path):
    Image.fromarray((COUNTS // 8).astype(np.uint8)).save(path)
    return path


def read_at_30_by_40(path):
    return read_scaled(path, (30, 40))


# Frames and depths


def test_an_mrc_is_turned_upside_down_and_a_tiff_is_not(tmp_path):
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(COUNTS.astype(np.float32)[::-1])  # the MRC's frame
    write(tmp_path / "a.tif")
    from_mrc, from_tiff = read_micrograph(tmp_path / "a.mrc"), read_micrograph(tmp_path / "a.tif")
    assert from_mrc[5:15, 5:15].mean() < 60 < from_mrc[-15:-5, 5:15].mean()
    np.testing.assert_array_equal(from_mrc, from_tiff)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *(("a.mrc", kind) for kind in (np.int8, np.int16, np.uint16, np.float32)),
        ("a.png", np.uint16), ("a.tif", np.uint16), ("a.tiff", np.float32), ("a.tif", np.int32),
    ],
)  # fmt: skip
def test_counts_of_any_depth_are_read_as_they_are_and_look_the_same(tmp_path, name, dtype):
    counts, path = (COUNTS // 10).astype(dtype), tmp_path / name
    if name == "a.mrc":
        with mrcfile.new(path) as mrc:
            mrc.set_data(counts[::-1])
    else:
        write(path, counts)
    grey, image = read_grey(path), read_micrograph(path)
    assert (grey.dtype, image.dtype) == (np.float32, np.uint8)
    np.testing.assert_array_equal(grey, COUNTS // 10)
    np.testing.assert_array_equal(image, raw_to_uint8(COUNTS // 10))


def test_an_8_bit_image_comes_as_it_is(tmp_path):
    path = write_8_bit(tmp_path / "a.png")
    for read in (read_grey, read_micrograph):
        assert read(path).dtype == np.uint8
        np.testing.assert_array_equal(read(path), COUNTS // 8)
    Image.open(path).convert("RGB").save(tmp_path / "colour.png")
    np.testing.assert_array_equal(read_micrograph(tmp_path / "colour.png"), COUNTS // 8)
    path = write_8_bit(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_micrograph(path), np.asarray(Image.open(path)))


# Scaling


def smooth_noise(size_px, seed=1):
    """Blobs of a dozen px, as particles in a denoised micrograph."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=size_px), 5)
    return np.clip(128 + 25 * noise / noise.std(), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("size_px", "scaled_px", "decoded_px"),
    [
        ((800, 640), (150, 150), (200, 160)),  # 1/4
        ((800, 640), (100, 80), (100, 80)),  # 1/8
        ((803, 645), (101, 81), (201, 162)),  # 1/8 would have 101 x 81, of which some is margin
        ((803, 645), (300, 320), (402, 323)),  # 1/2
        ((800, 640), (801, 100), (800, 640)),
        ((90, 70), (200, 100), (90, 70)),
    ],
)
def test_a_jpeg_decoded_at_reduced_scale_agrees_with_the_whole_one(
    tmp_path, monkeypatch, size_px, scaled_px, decoded_px
):
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth_noise(size_px)).save(path, quality=95)
    whole = scale_micrograph(read_micrograph(path), scaled_px)
    resize, decoded = Image.Image.resize, []

    def noted(image, *args, **kwargs):
        decoded.append((image.height, image.width))
        return resize(image, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", noted)
    reduced = read_scaled(path, scaled_px)
    assert decoded == [decoded_px]
    assert reduced.shape == scaled_px
    difference = np.abs(reduced - whole)
    assert difference.mean() < 1.1 and difference.max() <= 8


def test_reduced_decoding_of_real_micrographs_is_part_of_a_grey_level_off(empiar10017):
    path = sorted((empiar10017 / "val").glob("*.jpg"))[0]
    image = read_micrograph(path)
    for size_px in ((512, 512), (768, 768)):
        difference = read_scaled(path, size_px) - scale_micrograph(image, size_px)
        assert np.abs(difference).mean() < 0.6 and np.abs(difference).max() <= 5


@pytest.mark.parametrize("size_px", [(800, 640), (803, 645), (61, 83)])
def test_a_point_of_the_micrograph_is_where_the_scales_say(tmp_path, size_px):
    """A ramp tells by its grey level from where a px came: (j + 0.5) / scale."""
    ramp = (np.arange(size_px[1]) + 0.5) * 250 / size_px[1]
    image = np.repeat(ramp[None], size_px[0], axis=0).round().astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "a.jpg", quality=98)
    expected = (np.arange(50) + 0.5) * 250 / 50
    for scaled in (scale_micrograph(image, (40, 50)), read_scaled(tmp_path / "a.jpg", (40, 50))):
        assert np.abs(scaled[5:-5, 5:-5] - expected[5:-5]).max() < 1.6
        assert abs((scaled[5:-5, 5:-5] - expected[5:-5]).mean()) < 0.5


@pytest.mark.parametrize("name", ["a.mrc", "a.tif", "a.png"])
def test_other_formats_are_read_whole_and_scaled(tmp_path, name):
    path = write(tmp_path / name)
    scaled = read_scaled(path, (30, 20))
    np.testing.assert_array_equal(scaled, scale_micrograph(COUNTS.astype(np.float32), (30, 20)))
    assert scaled[:8, :4].mean() < 300 < scaled[-8:, :4].mean()  # the corner, in the JPEG's frame


def test_scaling_down_smooths_and_keeps_the_mean():
    noise = np.random.default_rng(0).normal(128, 30, (400, 400)).clip(0, 255).astype(np.uint8)
    scaled = scale_micrograph(noise, (50, 40))
    assert scaled.mean() == pytest.approx(noise.mean(), abs=0.5)
    assert scaled.std() < 2 * noise.std() / np.sqrt(8 * 10)  # picking px would leave 30
    same = scale_micrograph(noise.astype(np.float32), (50, 40))
    np.testing.assert_array_equal(scaled, same)  # whatever the depth, and nothing is rounded
    assert scaled.dtype == np.float32 and (scaled % 1 > 0).any()
    assert scale_micrograph(noise, (400, 400)) is noise


@pytest.mark.parametrize("size_px", [(40, 50), (133, 211), (200, 201), (401, 603)])
@pytest.mark.parametrize("strip_px", [1, 10_000, 2**20])
def test_a_micrograph_is_scaled_strip_by_strip_as_pillow_scales_it(size_px, strip_px, monkeypatch):
    monkeypatch.setattr("picking.micrographs.preparation.STRIP_PX", strip_px)
    grey = np.random.default_rng(1).normal(100, 30, (401, 603)).astype(np.float32)
    whole = Image.fromarray(grey).resize(size_px[::-1], Image.Resampling.BICUBIC, reducing_gap=1.5)
    np.testing.assert_array_equal(scale_micrograph(grey[::-1][::-1], size_px), np.asarray(whole))


# Sizes from the header


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_size_is_height_and_width_and_comes_without_decoding(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"a{suffix}"
    write_8_bit(path) if suffix.startswith(".jp") else write(path)

    def refuse(*args, **kwargs):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    assert image_size(path) == (60, 80)


# What is no micrograph


@pytest.mark.parametrize(
    ("data", "holds"),
    [(np.zeros((2, 60, 80), np.float32), "data of shape"), (np.zeros((60, 80), "c8"), "complex")],
)
def test_a_stack_and_a_complex_mrc_are_refused(tmp_path, data, holds):
    with mrcfile.new(tmp_path / "movie.mrc") as mrc:
        mrc.set_data(data)
    for function in (image_size, read_micrograph, read_at_30_by_40):
        with pytest.raises(UnreadableImage, match=rf"movie\.mrc .*holds {holds}"):
            function(tmp_path / "movie.mrc")


def test_an_mrc_stack_of_one_section_is_a_micrograph(tmp_path):
    with mrcfile.new(tmp_path / "a.mrc") as mrc:
        mrc.set_data(COUNTS.astype(np.float32)[None, ::-1])
    assert image_size(tmp_path / "a.mrc") == (60, 80)
    np.testing.assert_array_equal(read_micrograph(tmp_path / "a.mrc"), raw_to_uint8(COUNTS))


def test_a_tiff_movie_is_refused(tmp_path):
    frame = Image.fromarray(COUNTS)
    frame.save(tmp_path / "movie.tif", save_all=True, append_images=[frame, frame])
    with pytest.raises(UnreadableImage, match=r"movie\.tif holds 3 frames"):
        image_size(tmp_path / "movie.tif")


@pytest.mark.filterwarnings("ignore:Data array contains NaN")
@pytest.mark.parametrize("name", ["a.mrc", "a.tif"])
def test_a_value_that_is_not_finite_is_replaced_and_too_many_are_refused(tmp_path, name):
    raw, notes = COUNTS.astype(np.float32), Notes()
    raw[3, 4] = np.nan
    replaced = read_grey(write(tmp_path / name, raw), notes)
    assert notes == {"bad_px": 1}
    assert abs(replaced[3, 4] - 100) < 50  # as in the dark corner around
    replaced[3, 4] = COUNTS[3, 4]
    np.testing.assert_array_equal(replaced, COUNTS)
    raw[::4, ::4] = np.inf
    for function in (read_micrograph, read_at_30_by_40):
        with pytest.raises(UnreadableImage, match=r"301 bad px of 4,800"):
            function(write(tmp_path / name, raw))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_image_of_one_value_is_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    flat = np.full((60, 80), 7, np.uint8)
    write(path, flat) if suffix == ".mrc" else Image.fromarray(flat).save(path)
    for function in (read_micrograph, read_at_30_by_40):
        with pytest.raises(UnreadableImage, match=rf"a\{suffix} has no contrast"):
            function(path)


def test_8_bit_images_keep_lone_px_that_would_be_bad_in_raw_counts(tmp_path):
    grey = np.full((60, 80), 100, np.uint8) + (np.arange(80) % 2).astype(np.uint8)
    grey[30, 40], grey[:, 10] = 255, 0
    Image.fromarray(grey).save(tmp_path / "a.png")
    notes = Notes()
    np.testing.assert_array_equal(read_micrograph(tmp_path / "a.png", notes), grey)
    assert notes == {}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_an_empty_and_a_foreign_file_are_named(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    for function in (read_micrograph, read_at_30_by_40):
        with pytest.raises(UnreadableImage, match=rf"a\{suffix} is not there"):
            function(path)
    for content in (b"", b"this is text, not an image " * 100):
        path.write_bytes(content)
        for function in (image_size, read_micrograph, read_at_30_by_40):
            with pytest.raises(UnreadableImage, match=rf"a\{suffix} "):
                function(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_truncated_image_is_named(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_8_bit(path) if suffix.startswith(".jp") else write(path)
    path.write_bytes(path.read_bytes()[:-500])
    for function in (read_micrograph, read_at_30_by_40):
        with pytest.raises(UnreadableImage, match=rf"a\{suffix} .*copy it again from its source"):
            function(path)


def test_an_image_larger_than_any_micrograph_is_refused_by_its_header(tmp_path):
    header = bytearray(write(tmp_path / "a.mrc").read_bytes()[:1024])
    header[:16] = b"".join(n.to_bytes(4, "little") for n in (30_000, 30_000, 1, 0))
    with (tmp_path / "a.mrc").open("wb") as file:
        file.write(header)
        file.truncate(1024 + 30_000**2)
    Image.new("1", (30_000, 30_000)).save(tmp_path / "a.png")
    for name in ("a.mrc", "a.png"):
        with pytest.raises(UnreadableImage, match=r"more than 178,956,970 px: bin it"):
            image_size(tmp_path / name)


def test_a_file_that_would_be_handed_to_another_program_is_not_opened(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(UnreadableImage, match=r"a\.png cannot be read"):
        image_size(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["BMP", "GIF", "PPM", "TIFF", "PNG"])
def test_another_format_than_the_suffix_says_is_read_all_the_same(tmp_path, kind):
    Image.fromarray((COUNTS // 8).astype(np.uint8)).save(tmp_path / "a.jpg", kind)
    np.testing.assert_array_equal(read_micrograph(tmp_path / "a.jpg"), COUNTS // 8)


def test_a_grey_jpeg_has_the_same_pixels_without_simplejpeg(tmp_path, monkeypatch):
    Image.fromarray(smooth_noise((64, 48))).save(tmp_path / "a.jpg")
    fast = read_micrograph(tmp_path / "a.jpg")
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    assert np.array_equal(read_micrograph(tmp_path / "a.jpg"), fast)
