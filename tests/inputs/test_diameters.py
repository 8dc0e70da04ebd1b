"""Lengths with a unit, the pixel size of headers, and whether a diameter fits the micrographs."""

import mrcfile
import numpy as np
import pytest

from picking.errors import InputWarning, UserError
from picking.inputs.diameters import asked_diameter, read_length, require_diameter_fits
from picking.micrographs.pixel_size import header_pixel_size


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


@pytest.mark.parametrize("pixel_size", [0.0, -1.77, float("inf"), float("nan")])
def test_a_pixel_size_that_is_none_is_refused(tmp_path, pixel_size):
    for diameter in ("108px", "150A", None):
        with pytest.raises(UserError, match="--pixel-size is"):
            asked_diameter(diameter, pixel_size, {})


def test_the_pixel_size_of_the_headers_is_used_and_said(tmp_path, capsys):
    paths = write(tmp_path, a=1.77, b=1.77)
    assert asked_diameter("177A", None, paths) == pytest.approx(100, rel=1e-12)
    assert "1.77 Å (the headers of 2 MRC files)" in capsys.readouterr().out
    assert asked_diameter("177A", 1.77, paths) == pytest.approx(100)
    assert "1.77 Å (--pixel-size)" in capsys.readouterr().out
    assert asked_diameter("108px", None, paths) == 108 and asked_diameter(None, None, paths) is None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("angstrom", [0, 1.0, (1.77, 2.5, 1.77), -3, np.nan, 1e-10, 1e9])
def test_a_header_that_does_not_know_the_pixel_size_is_refused_with_the_reason(tmp_path, angstrom):
    paths = write(tmp_path, a=angstrom)
    assert header_pixel_size(paths["a.mrc"]) is None
    with pytest.raises(UserError, match=r"give --pixel-size too.*exactly 1 stands for unknown"):
        asked_diameter("177A", None, paths)
    assert asked_diameter("177A", 1.77, paths) == pytest.approx(100)


def test_files_without_a_header_for_it_have_no_pixel_size(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "b.mrc").write_bytes(b"nothing")
    for name in ("a.jpg", "b.mrc", "not_there.mrc"):
        assert header_pixel_size(tmp_path / name) is None


@pytest.mark.parametrize("diameter", ["177A", "100px", None])
def test_a_pixel_size_that_is_not_the_headers_is_warned_of_with_both(tmp_path, diameter):
    paths = write(tmp_path, a=1.77, b=1.77)
    with pytest.warns(InputWarning, match=r"--pixel-size is 5\.31 Å.*1\.77 Å \(2 MRC") as caught:
        asked_diameter(diameter, 5.31, paths)
    assert len(caught) == 1


def test_a_pixel_size_within_five_percent_is_no_news(tmp_path, recwarn):
    assert asked_diameter("177A", 1.80, write(tmp_path, a=1.77)) == pytest.approx(177 / 1.8)
    assert not recwarn


def test_micrographs_of_different_pixel_sizes_are_told(tmp_path):
    paths = write(tmp_path, a=1.77, b=0.885, c=1.77)
    with pytest.raises(UserError, match=r"0\.885 Å in b\.mrc, 1\.77 Å in a\.mrc"):
        asked_diameter("177A", None, paths)
    for diameter, pixel_size in (("100px", None), ("177A", 1.77)):
        with pytest.warns(InputWarning, match=r"0\.885 Å in b\.mrc, 1\.77 Å in a\.mrc"):
            assert asked_diameter(diameter, pixel_size, paths) == pytest.approx(100)


@pytest.mark.parametrize("diameter_px", [3.9, 321, 1e9])
def test_a_diameter_that_no_particle_on_the_micrographs_can_have_is_refused(diameter_px):
    sizes = {"a.mrc": (640, 448), "b.mrc": (320, 384)}
    with pytest.raises(UserError, match="check --diameter") as error:
        require_diameter_fits(diameter_px, sizes)
    assert ("b.mrc" in str(error.value) or "a.mrc" in str(error.value)) == (diameter_px > 4)
    require_diameter_fits(4, sizes)
    require_diameter_fits(320, sizes)
