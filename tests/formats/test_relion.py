"""RELION's lists of coordinate files, and particles that a refinement moved."""

import pytest

from picking.errors import InputWarning, UserError
from picking.formats.coordinates import read_picks
from picking.formats.relion.writing import after_job, coordinate_file, require_listable

SIZES = {"a.mrc": (1000, 1000), "b.mrc": (1000, 1000)}
LABELS = "_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n"


def optics(**values):
    """data_optics with one group of these values."""
    head = "".join(f"_{label}\n" for label in ("rlnOpticsGroup", *values))
    return f"data_optics\n\nloop_\n{head}1 {' '.join(map(str, values.values()))}\n\n"


def particles(labels, row, before="", group=""):
    """Particles at x 100, y 200 on a, with these columns besides."""
    head = LABELS + "".join(f"_{label}\n" for label in labels) + ("_rlnOpticsGroup\n" * bool(group))
    return f"{before}data_particles\n\nloop_\n{head}MotionCorr/job002/a.mrc 100 200 {row} {group}\n"


def centre(tmp_path, text, **named):
    """(x, y) in the file's frame of its only particle."""
    (tmp_path / "run_data.star").write_text(text)
    (found,) = read_picks([tmp_path / "run_data.star"], SIZES, **named)
    y, x = found.centres_px[0]
    return pytest.approx((x, 1000 - y), abs=1e-9)


ANGST = ("rlnOriginXAngst", "rlnOriginYAngst")
PX = ("rlnOriginX", "rlnOriginY")
OLD = ("rlnDetectorPixelSize", "rlnMagnification")


def test_an_origin_in_angstrom_is_subtracted_in_px_of_the_micrograph(tmp_path, capsys):
    """The images were scaled down to 4 Å per px, which makes no difference."""
    text = particles(ANGST, "20 -10", optics(rlnImagePixelSize=4), 1)
    assert centre(tmp_path, text, pixel_size_of=lambda name: 2.0) == (90, 205)
    assert "1 of 1 particles were moved" in capsys.readouterr().out


def test_the_files_own_optics_tell_the_micrographs_pixel_size_where_nobody_else_does(tmp_path):
    said = optics(rlnImagePixelSize=4, rlnMicrographPixelSize=2)
    assert centre(tmp_path, particles(ANGST, "20 -10", said, 1)) == (90, 205)


def test_each_optics_group_has_its_own_pixel_size(tmp_path):
    groups = "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnMicrographPixelSize\n1 2\n2 4\n\n"
    head = f"data_particles\n\nloop_\n{LABELS}_rlnOriginXAngst\n_rlnOriginYAngst\n_rlnOpticsGroup\n"
    (tmp_path / "d.star").write_text(f"{groups}{head}a 100 200 20 0 1\nb 100 200 20 0 2\n")
    found = {p.name: p.centres_px[0, 1] for p in read_picks([tmp_path / "d.star"], SIZES)}
    assert found == {"a.mrc": 90, "b.mrc": 95}


def test_without_the_micrographs_pixel_size_that_of_the_images_is_taken_and_said(tmp_path):
    text = particles(ANGST, "20 -10", optics(rlnImagePixelSize=4), 1)
    with pytest.warns(InputWarning, match=r"run_data\.star: 1 of 1 .*give --pixel-size"):
        assert centre(tmp_path, text) == (95, 202.5)


@pytest.mark.parametrize(("px", "times"), [(4, "2"), (1, "0.5")])
def test_coordinates_of_micrographs_of_another_pixel_size_are_warned_of(tmp_path, px, times):
    text = particles((), "", optics(rlnImagePixelSize=8, rlnMicrographPixelSize=px), 1)
    with pytest.warns(InputWarning, match=rf"1 of 1 .* {px} Å .* 2 Å: .* multiplied by {times}$"):
        assert centre(tmp_path, text, pixel_size_of=lambda name: 2.0) == (100, 200)


@pytest.mark.parametrize("px", [2.0, 2.08, None])
def test_a_pixel_size_that_is_calibrated_anew_or_unknown_is_not_warned_of(tmp_path, px):
    text = particles((), "", optics(rlnImagePixelSize=8, rlnMicrographPixelSize=2), 1)
    assert centre(tmp_path, text, pixel_size_of=lambda name: px) == (100, 200)


def test_an_origin_in_angstrom_without_any_pixel_size_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"run_data\.star: 1 of 1 .*give --pixel-size"):
        centre(tmp_path, particles(ANGST, "20 -10"))


def test_before_relion_3_1_origins_are_in_px_of_the_scaled_image(tmp_path):
    """14 µm at a magnification of 35000 are 4 Å, where micrographs have 2 Å."""
    text = particles((*PX, *OLD), "5 -2.5 14 35000")
    assert centre(tmp_path, text, pixel_size_of=lambda name: 2.0) == (90, 205)


def test_origins_in_px_are_taken_for_those_of_the_micrograph_where_nothing_tells(tmp_path):
    with pytest.warns(InputWarning, match=r"run_data\.star: 1 of 1 .*taken to be alike"):
        assert centre(tmp_path, particles(PX, "5 -2.5")) == (95, 202.5)


@pytest.mark.parametrize("labels", [ANGST, PX])
def test_particles_that_were_not_moved_stay_and_nothing_is_said(tmp_path, labels, capsys):
    assert centre(tmp_path, particles(labels, "0 0.000")) == (100, 200)
    assert not capsys.readouterr().out


def test_a_row_of_an_optics_group_that_is_not_there_is_refused(tmp_path):
    text = particles(ANGST, "20 -10", optics(rlnImagePixelSize=4), 7)
    with pytest.raises(UserError, match=r"run_data\.star.* optics group .*7"):
        centre(tmp_path, text)


@pytest.mark.parametrize("joined", ["in one block", "one file behind another"])
def test_an_optics_group_that_stands_twice_must_be_the_same(tmp_path, joined):
    one, other = (optics(rlnImagePixelSize=4, rlnMicrographPixelSize=px) for px in (2, 1))
    if joined == "in one block":
        both = one.rstrip() + "\n" + other.splitlines()[-2] + "\n\n"
        text = particles(ANGST, "20 -10", both, 1)
    else:
        text = particles(ANGST, "20 -10", one, 1) + "\n" + particles(ANGST, "20 -10", other, 1)
    with pytest.raises(UserError, match=r"run_data\.star: optics group 1 stands twice"):
        centre(tmp_path, text)
    assert centre(tmp_path, particles(ANGST, "20 -10", one + one, 1)) == (90, 205)


# Lists


def write_list(folder, rows):
    table = "".join(f"{name} {file}\n" for name, file in rows)
    head = "loop_\n_rlnMicrographName\n_rlnMicrographCoordinates\n"
    (folder / "autopick.star").write_text(f"data_coordinate_files\n\n{head}{table}")
    return folder / "autopick.star"


def coordinates(path, x):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"data_\n\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n{x} 5\n")


def test_a_list_tells_of_which_micrograph_a_file_is_whatever_its_name(tmp_path):
    coordinates(tmp_path / "Job" / "one.star", 1)
    coordinates(tmp_path / "Job" / "two.star", 2)
    job = tmp_path / "Job"
    path = write_list(job, [("M/b.mrc", "Job/one.star"), ("M/a.mrc", "Job/two.star")])
    assert {p.name: p.centres_px[0, 1] for p in read_picks([path], SIZES)} == {
        "b.mrc": 1, "a.mrc": 2
    }  # fmt: skip


def test_files_of_a_list_that_are_not_there_are_counted(tmp_path):
    coordinates(tmp_path / "one.star", 1)
    rows = [("a.mrc", "one.star"), ("b.mrc", "gone.star")]
    path = write_list(tmp_path, rows)
    with pytest.raises(UserError, match=r"1 of 2 files .*gone\.star.*--allow-partial"):
        read_picks([path], SIZES)
    with pytest.warns(InputWarning, match=r"1 of 2 files .*gone\.star"):
        (found,) = read_picks([path], SIZES, allow_partial=True)
    assert found.name == "a.mrc"
    with pytest.raises(UserError, match=r"2 of 2 files .*e\.star"):
        read_picks([write_list(tmp_path, [("a.mrc", "e.star"), ("b.mrc", "f.star")])], SIZES)


def test_relion_3s_file_stands_for_all_of_its_suffix_below_its_folder(tmp_path):
    coordinates(tmp_path / "Movies" / "a_picked.star", 1)
    coordinates(tmp_path / "Movies" / "deep" / "b_picked.star", 2)
    coordinates(tmp_path / "Movies" / "a_other.star", 3)
    suffix = tmp_path / "coords_suffix_picked.star"
    suffix.write_text("CtfFind/job003/micrographs_ctf.star\n")
    assert {p.name: p.centres_px[0, 1] for p in read_picks([suffix], SIZES)} == {
        "a.mrc": 1, "b.mrc": 2
    }  # fmt: skip
    with pytest.raises(UserError, match=r"coords_suffix_none\.star .*none"):
        (tmp_path / "coords_suffix_none.star").write_text("m.star\n")
        read_picks([tmp_path / "coords_suffix_none.star"], SIZES)


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("MotionCorr/job002/Movies/a.mrc", "Movies/a.mrc"),
        ("MotionCorr/job1234/a.mrc", "a.mrc"),
        ("Micrographs/a.b.mrc", "Micrographs/a.b.mrc"),
        ("/data/raw/a.mrc", "data/raw/a.mrc"),
        ("jobs/job02/a.mrc", "jobs/job02/a.mrc"),
    ],
)
def test_the_job_that_made_a_micrograph_is_left_out_of_its_path(name, after, tmp_path):
    assert str(after_job(name)) == after
    picks = coordinate_file(tmp_path, name).relative_to(tmp_path)
    assert str(picks) == f"coordinates/{after.removesuffix('.mrc')}_autopick.star"


@pytest.mark.parametrize("name", ["../raw/a.mrc", "Jo's/a.mrc", "two  spaces/a.mrc"])
def test_names_that_relion_could_not_follow_are_refused_before_picking(name, tmp_path):
    with pytest.raises(UserError, match="the list of micrographs"):
        require_listable(tmp_path, {"a.mrc": name})
