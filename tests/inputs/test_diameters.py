"""Lengths with a unit, the pixel size of headers, and whether a diameter fits the micrographs."""

import mrcfile
import numpy as np
import pytest

from picking.errors import InputWarning, UserError
from picking.inputs.diameters import (
    asked_diameters,
    find_pixel_sizes,
    learned_diameters,
    read_length,
    require_boxes_fit,
    require_diameter_fits,
)
from picking.micrographs.pixel_size import header_pixel_size
from tests.fixtures.plans import record


def write(folder, **pixel_sizes):
    """Write an MRC for each name with the pixel size in its header; return their paths by name."""
    paths = {}
    for name, angstrom in pixel_sizes.items():
        paths[f"{name}.mrc"] = folder / f"{name}.mrc"
        with mrcfile.new(paths[f"{name}.mrc"]) as mrc:
            mrc.set_data(np.zeros((32, 48), np.float32))
            mrc.voxel_size = angstrom
    return paths


@pytest.mark.parametrize(
    ("texts", "length"),
    [
        (["108px", "108PX", "108 px", " 108.0px ", "1.08e2px", "108 pixels"], (108, "px")),
        (["150A", "150a", "150 A", "150\u00c5", "150\u212b", "150A\u030a", "150 \u00e5", "15nm",
          "150 angstrom", "150Angstroms", "1.5E2A", "150 \u00c5ngstr\u00f6m"], (150, "\u00c5")),
    ],
)  # fmt: skip
def test_a_length_is_read_however_its_unit_is_written(texts, length):
    assert [read_length(text) for text in texts] == [length] * len(texts)


@pytest.mark.parametrize(
    "text",
    ["108", "px", "", "1,5e2A", "108,5px", "0px", "-5px", "nanpx", "infA", "1e999px", "1_0px",
     "150um", "0x10px", "108px150A", "10 8px"],
)  # fmt: skip
def test_what_is_no_length_with_a_unit_is_refused_in_words(text):
    with pytest.raises(UserError, match=r"--diameter is .*with its unit, such as 108px or 150A"):
        read_length(text)


def asked(diameter, given, paths, listed=None):
    """What a script makes of --diameter and --pixel-size: px on most, and on the others by name."""
    return asked_diameters(diameter, find_pixel_sizes(given, paths, listed or {}), paths)


def learned(px, angstrom, paths, given=None, listed=None):
    """What picking makes of the diameter in a checkpoint."""
    return learned_diameters(px, angstrom, find_pixel_sizes(given, paths, listed or {}), paths)


@pytest.mark.parametrize("pixel_size", [0.0, -1.77, float("inf"), float("nan")])
def test_a_pixel_size_that_is_none_is_refused(tmp_path, pixel_size):
    for diameter in ("108px", "150A", None):
        with pytest.raises(UserError, match="--pixel-size is"):
            asked(diameter, pixel_size, {})


def test_the_pixel_size_of_the_headers_is_used_and_said(tmp_path, capsys):
    paths = write(tmp_path, a=1.77, b=1.77)
    assert asked("177A", None, paths) == (pytest.approx(100, rel=1e-12), {})
    assert "Pixel size: 1.77 Å (the headers of 2 MRC files)" in capsys.readouterr().out
    assert asked("177A", 1.77, paths) == (pytest.approx(100), {})
    assert "1.77 Å (--pixel-size)" in capsys.readouterr().out
    assert asked("108px", None, paths) == (108, {}) and asked(None, None, paths) == (None, {})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("angstrom", [0, 1.0, (1.77, 2.5, 1.77), -3, np.nan, 1e-10, 1e9])
def test_a_header_that_does_not_know_the_pixel_size_is_refused_with_the_reason(tmp_path, angstrom):
    paths = write(tmp_path, a=angstrom)
    assert header_pixel_size(paths["a.mrc"]) is None
    with pytest.raises(UserError, match=r"give --pixel-size too.*exactly 1 stands for unknown"):
        asked("177A", None, paths)
    assert asked("177A", 1.77, paths) == (pytest.approx(100), {})


def test_files_without_a_header_for_it_have_no_pixel_size(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "b.mrc").write_bytes(b"nothing")
    for name in ("a.jpg", "b.mrc", "not_there.mrc"):
        assert header_pixel_size(tmp_path / name) is None


@pytest.mark.parametrize("diameter", ["177A", "100px", None])
def test_a_pixel_size_that_is_not_the_headers_is_warned_of_with_both(tmp_path, diameter):
    paths = write(tmp_path, a=1.77, b=1.77)
    words = r"--pixel-size is 5\.31 Å.*1\.77 Å \(the headers of 2 MRC"
    with pytest.warns(InputWarning, match=words) as caught:
        asked(diameter, 5.31, paths)
    assert len(caught) == 1


def test_a_pixel_size_within_five_percent_is_no_news(tmp_path, recwarn):
    assert asked("177A", 1.80, write(tmp_path, a=1.77)) == (pytest.approx(177 / 1.8), {})
    assert not recwarn


def test_each_micrograph_has_the_diameter_that_its_own_header_makes_of_it(tmp_path, capsys):
    paths = write(tmp_path, a=0.885, b=1.77, c=1.77, d=1.75)
    px, own_px = asked("177A", None, paths)  # of most
    assert px == pytest.approx(100)
    assert own_px == {"a.mrc": pytest.approx(200), "d.mrc": pytest.approx(177 / 1.75)}
    assert capsys.readouterr().out == "Pixel size: 0.885 to 1.77 Å (the headers of 4 MRC files)\n"
    px, own_px = asked("177A", None, paths, listed={"a.mrc": 0.885, "d.mrc": 1.77})
    assert (px, own_px) == (pytest.approx(100), {"a.mrc": pytest.approx(200)})
    assert "(the list of micrographs)" in capsys.readouterr().out


def test_one_diameter_in_px_or_one_pixel_size_for_px_that_differ_is_warned_of(tmp_path):
    paths = write(tmp_path, a=1.77, b=0.885, c=1.77)
    with pytest.warns(InputWarning, match=r"0\.885 to 1\.77 Å .*give --diameter in Å"):
        assert asked("100px", None, paths) == (100, {})
    with pytest.warns(InputWarning, match=r"--pixel-size is 1\.77 .*0\.885 to 1\.77 Å"):
        assert asked("177A", 1.77, paths) == (pytest.approx(100), {})


def test_micrographs_of_which_some_do_not_say_their_pixel_size_are_refused_by_name(tmp_path):
    paths = {"x.jpg": tmp_path / "x.jpg", **write(tmp_path, a=1.77, b=0, c=0.885)}
    words = r"2 of 4 micrographs \(x\.jpg, b\.mrc\); .* 0\.885 to 1\.77 Å .*--pixel-size"
    with pytest.raises(UserError, match=words):
        asked("177A", None, paths)
    with pytest.raises(UserError, match=words):
        learned(100, 1.5, paths)
    assert asked("177A", None, paths, {"x.jpg": 1.77, "b.mrc": 3.54})[1] == {
        "b.mrc": pytest.approx(50), "c.mrc": pytest.approx(200)
    }  # fmt: skip


def test_what_a_network_learned_is_as_wide_as_the_pixel_size_makes_it_here(tmp_path, capsys):
    paths = write(tmp_path, a=1.5, b=1.5, c=3)
    assert learned(36, 3, paths) == (pytest.approx(72), {"c.mrc": pytest.approx(36)})
    assert "1.5 to 3 Å (the headers of 3 MRC files); the network learned" in capsys.readouterr().out
    del paths["c.mrc"]
    assert learned(36, 3, paths, given=6) == (pytest.approx(18), {})
    capsys.readouterr()
    assert learned(36, 1.5, paths) == (36, {})
    assert learned(36, 1.5, {"x.jpg": tmp_path / "x.jpg"}) == (36, {})  # nobody knows of these
    assert learned(36, None, paths, given=6) == (36, {})  # nor of those learned from
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="--diameter is missing"):
        learned(None, None, paths)


def test_px_that_differ_are_warned_of_where_the_network_does_not_know_what_it_learned_at(tmp_path):
    with pytest.warns(InputWarning, match=r"1\.5 to 3 Å .*give --diameter in Å"):
        assert learned(36, None, write(tmp_path, a=1.5, b=3)) == (36, {})


@pytest.mark.parametrize(
    ("diameter_px", "words"),
    [
        (5.9, r"is 5\.9 px on a\.mrc, and below 6 px nothing"),
        (4, r"is 4 px on a\.mrc"),
        (107, r"is 107 px, but b\.mrc is 384 x 320 px, and should be 3 diameters wide"),
        (300, r"is 300 px, but a\.mrc is 448 x 640 px, and should be 3 diameters"),
        (1e9, r"but a\.mrc is 448 x 640"),
    ],
)
def test_a_diameter_that_does_not_suit_the_micrographs_is_refused(diameter_px, words):
    sizes = {"a.mrc": (640, 448), "b.mrc": (320, 384)}
    with pytest.raises(UserError, match=f"{words}.*: check --diameter, and --pixel-size"):
        require_diameter_fits(diameter_px, sizes)
    require_diameter_fits(6, sizes)
    require_diameter_fits(320 / 3, sizes)
    with pytest.raises(UserError, match=r"is 3 px on b\.mrc"):
        require_diameter_fits(6, sizes, {"b.mrc": 3})


def test_boxes_that_do_not_suit_their_micrograph_are_refused_by_their_source():
    boxes = [record("a.jpg", [(9, 9)] * 3, diameter_px=px) for px in (6, 200, 341)]
    require_boxes_fit(boxes, [(1024, 1024)] * 3, "some.json")
    boxes.append(record("b.jpg", [(9, 9)] * 3, diameter_px=342))
    with pytest.raises(UserError, match=r"342 px, but b\.jpg .*: check the boxes .* in some\.json"):
        require_boxes_fit(boxes, [(1024, 1024)] * 4, "some.json")
    unknown = record("c.jpg", [(9, 9)], diameter_px=np.nan)
    require_boxes_fit([unknown], [(10, 10)], "some.json")
