"""Masks of junk that somebody painted: whose they are, and what is no mask."""

import numpy as np
import pytest
from PIL import Image

from picking.errors import InputWarning, UserError
from picking.inputs.junk_masks import find_junk_masks, read_junk_mask

SIZES_PX = {"a.mrc": (400, 500), "b.tif": (400, 500), "c d.1.mrc": (300, 200)}


def paint(folder, name, size_px=(40, 50), mode="L", value=255):
    """Write a mask with junk in its upper left quarter; return where it is."""
    folder.mkdir(exist_ok=True)
    mask = np.zeros(size_px, np.uint8)
    mask[: size_px[0] // 2, : size_px[1] // 2] = value
    Image.fromarray(mask).convert(mode).save(folder / name)
    return mask != 0


def test_masks_of_any_scale_are_found_by_the_name_of_their_micrograph(tmp_path):
    paint(tmp_path / "junk", "a.png", (400, 500))
    paint(tmp_path / "junk", "b.PNG", (17, 21))  # rounded
    paint(tmp_path / "junk", "c d.1.png", (450, 300))
    found = find_junk_masks(tmp_path / "junk", SIZES_PX)
    assert {name: path.name for name, path in found.items()} == {
        "a.mrc": "a.png", "b.tif": "b.PNG", "c d.1.mrc": "c d.1.png"
    }  # fmt: skip


@pytest.mark.parametrize(("mode", "value"), [("L", 255), ("L", 1), ("1", 255)])
def test_what_is_not_0_is_junk(tmp_path, mode, value):
    wanted = paint(tmp_path, "a.png", mode=mode, value=value)
    np.testing.assert_array_equal(read_junk_mask(tmp_path / "a.png"), wanted)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "I;16"])
def test_a_picture_with_colours_or_more_bits_is_no_mask(tmp_path, mode):
    paint(tmp_path / "junk", "a.png")
    with Image.open(tmp_path / "junk/a.png") as image:
        grey = np.asarray(image)
    picture = Image.fromarray(grey.astype(np.uint16) if mode == "I;16" else grey)
    (picture if mode == "I;16" else picture.convert(mode)).save(tmp_path / "junk/a.png")
    with pytest.raises(UserError, match=r"a\.png is no mask .*write it as 8-bit grey"):
        find_junk_masks(tmp_path / "junk", SIZES_PX)


def test_a_mask_of_another_shape_is_refused_with_both_sizes(tmp_path):
    for size_px in ((50, 40), (40, 40), (4096, 4096)):
        paint(tmp_path, "a.png", size_px)
        words = rf"a\.png is {size_px[1]} x {size_px[0]} px, but a\.mrc 500 x 400: .*turned by 90"
        with pytest.raises(UserError, match=words):
            find_junk_masks(tmp_path, SIZES_PX)


def test_masks_of_unknown_micrographs_are_named_and_more_than_a_tenth_refused(tmp_path):
    paint(tmp_path, "a.png")
    paint(tmp_path, "z.png")
    words = r"1 of 2 masks in .* are of micrographs that are not given \(masks are z\.png"
    with pytest.raises(UserError, match=words + ".*--allow-partial"):
        find_junk_masks(tmp_path, SIZES_PX)
    with pytest.warns(InputWarning, match=words):
        assert list(find_junk_masks(tmp_path, SIZES_PX, allow_partial=True)) == ["a.mrc"]
    assert list(find_junk_masks(tmp_path, SIZES_PX, ["z.mrc"])) == ["a.mrc"]  # left out


def test_what_lies_beside_the_masks_is_named(tmp_path):
    paint(tmp_path, "a.png")
    (tmp_path / "b.jpg").write_bytes(b"")
    (tmp_path / ".hidden").write_bytes(b"")
    with pytest.warns(InputWarning, match=r"holds 1 files that are no PNG \(e\.g\. b\.jpg\)"):
        find_junk_masks(tmp_path, SIZES_PX)


def test_a_folder_that_is_none_or_holds_no_mask_and_damaged_masks_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"--junk .*missing is no folder"):
        find_junk_masks(tmp_path / "missing", SIZES_PX)
    with pytest.raises(UserError, match=r"--junk .* holds no PNG"):
        find_junk_masks(tmp_path, SIZES_PX)
    paint(tmp_path, "a.png", (400, 500))
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"a\.png cannot be read as a PNG .*write it again"):
        find_junk_masks(tmp_path, SIZES_PX)


def test_two_masks_of_one_micrograph_are_refused(tmp_path):
    paint(tmp_path, "a.png")
    paint(tmp_path, "a.PNG")
    with pytest.raises(UserError, match=r"a\.PNG and .*a\.png are both masks of a\.mrc"):
        find_junk_masks(tmp_path, SIZES_PX)
