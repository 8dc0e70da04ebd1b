import numpy as np
import pytest

from picking.errors import UserError
from picking.formats.coordinates import read_picks, write_picks
from picking.formats.picks import Picks
from picking.formats.star import read_star

SIZES = {"a.1.jpg": (100, 200), "b.jpg": (240, 160), "c.jpg": (50, 60)}
CRYOLO = """
data_global

_cbox_format_version 1.0

data_cryolo

loop_
_CoordinateX #1
_CoordinateY #2
_CoordinateZ #3
_Width #4
_Height #5
_Depth #6
_EstWidth #7
_EstHeight #8
_Confidence #9
_NumBoxes #10
_Angle #11
40.5 60.0 <NA> 20.0 20.0 1.0 16.0 18.0 0.75 4.0 <NA>
-4.0 10.0 <NA> 20.0 20.0 1.0 <NA> <NA> 0.5 <NA> <NA>

data_cryolo_include

loop_
_slice_index #1

"""


def one_pick():
    """A pick 20 px across at (30, 50) of a micrograph that is 100 px high."""
    size_px = SIZES["a.1.jpg"]
    return Picks("a.1.jpg", np.array([[30.0, 50.0]]), np.array([0.5]), np.array([20.0]), size_px)


def write(path, text):
    path.write_text(text)
    return path


def star(*rows, labels=("CoordinateX", "CoordinateY"), block="", before=""):
    names = [f"_rln{label} #{i}" for i, label in enumerate(labels, start=1)]
    return "\n".join([before, f"data_{block}", "", "loop_", *names, *rows, ""])


# What other programs read


def values(path, at=-1):
    """The numbers of a row of a text file, by whitespace, as a program in C would read them."""
    line = [line for line in path.read_text().splitlines() if line.strip()][at]
    return [float(cell) for cell in line.split() if cell[0] in "-0123456789"]


def test_relion_finds_the_mrc_with_y_from_its_first_row_and_the_figure_of_merit(tmp_path):
    (path,) = write_picks(tmp_path, [one_pick()], ["star"])
    lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    assert lines[0][0] == "#" and "MRC's frame" in path.read_text().splitlines()[0]
    assert lines[1:3] == [["data_"], ["loop_"]]
    labels = {line[0]: int(line[1].lstrip("#")) - 1 for line in lines if line[0].startswith("_")}
    (row,) = [line for line in lines if "a.1.mrc" in line]
    row = {label: row[column] for label, column in labels.items()}
    assert row.pop("_rlnMicrographName") == "a.1.mrc"
    assert {label: float(value) for label, value in row.items()} == {
        "_rlnCoordinateX": 50,
        "_rlnCoordinateY": 70,
        "_rlnAutopickFigureOfMerit": 0.5,
        "_rlnClassNumber": 0,
        "_rlnAnglePsi": 0,
        "_pickDiameterPx": 20,
    }


def test_eman_finds_the_corner_nearest_the_first_row_of_the_mrc(tmp_path):
    (path,) = write_picks(tmp_path, [one_pick()], ["box"])
    assert values(path) == [40, 60, 20, 20, 0.5]


def test_cryolo_finds_its_blocks_its_columns_and_the_corner(tmp_path):
    (path,) = write_picks(tmp_path, [one_pick()], ["cbox"])
    lines = path.read_text().split("\n")
    wanted = [line for line in CRYOLO.split("\n") if line.startswith(("data_", "_Coord", "_Est"))]
    assert [line for line in lines if line in wanted] == wanted
    (row,) = [line.split() for line in lines if line.startswith("40.0")]
    empty = row.count("<NA>")
    assert (empty, [float(cell) for cell in row if cell != "<NA>"]) == (
        3,
        [40, 60, 20, 20, 1, 20, 20, 0.5],
    )


def test_of_a_star_without_all_diameters_none_is_written(tmp_path):
    centres, diameters = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([20.0, np.nan])
    picks = Picks("b.jpg", centres, np.array([0.5, 0.4]), diameters, SIZES["b.jpg"])
    (path,) = write_picks(tmp_path, [picks], ["star"])
    assert "Diameter" not in path.read_text()
    assert np.isnan(read_picks([path], SIZES)[0].diameters_px).all()


# What other programs write


def test_a_star_of_relion_3_1_is_read_past_its_optics_with_all_its_columns(tmp_path):
    optics = (
        "# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnVoltage #2\n1 300\n\n"
    )
    labels = ("AnglePsi", "CoordinateX", "MicrographName", "CoordinateY", "AutopickFigureOfMerit")
    rows = ("-999.0 50.5 MotionCorr/job002/x/b.mrc 70.25 1.5", "3 1 MotionCorr/job002/x/b.mrc 2 -4")
    text = star(*rows, labels=labels, block="particles", before=optics)
    (picks,) = read_picks([write(tmp_path / "particles.star", text)], SIZES)
    assert picks.name == "b.jpg" and picks.size_px == (240, 160)
    assert picks.centres_px.tolist() == [[169.75, 50.5], [238, 1]]
    assert picks.scores.tolist() == [1.5, -4]
    assert np.isnan(picks.diameters_px).all()


def test_a_star_of_relion_3_0_without_names_is_of_the_micrograph_it_is_named_after(tmp_path):
    path = write(tmp_path / "b_autopick.star", star("10 20 ", "30 40 "))
    (picks,) = read_picks([path], SIZES)
    assert picks.name == "b.jpg" and picks.centres_px.tolist() == [[220, 10], [200, 30]]
    assert np.isnan(picks.scores).all()


def test_what_relion_and_eman_write_for_picks_by_hand_is_no_score(tmp_path):
    labels = ("CoordinateX", "CoordinateY", "AutopickFigureOfMerit")
    by_relion = write(tmp_path / "b.star", star("10 20 -999", "3 4 0.5", labels=labels))
    (picks,) = read_picks([by_relion], SIZES)
    np.testing.assert_array_equal(picks.scores, [np.nan, 0.5])
    by_eman = write(tmp_path / "b.box", "10 20 8 8 -3\n30 40 8 8 -3\n")
    assert np.isnan(read_picks([by_eman], SIZES)[0].scores).all()


def test_a_cbox_of_cryolo_is_read_with_its_own_estimate_of_the_size(tmp_path):
    (picks,) = read_picks([write(tmp_path / "a.1.cbox", CRYOLO)], SIZES)
    assert picks.centres_px.tolist() == [[30, 50.5], [80, 6]]
    assert picks.diameters_px.tolist() == [17, 20] and picks.scores.tolist() == [0.75, 0.5]


def test_a_cbox_of_an_older_cryolo_has_the_columns_of_a_box_file(tmp_path):
    path = write(tmp_path / "a.1.cbox", "40\t60\t20\t20\t0.75\t16\t18\n")
    (picks,) = read_picks([path], SIZES)
    assert picks.centres_px.tolist() == [[30, 50]] and picks.scores.tolist() == [0.75]


@pytest.mark.parametrize("text", ["40 60 20 20 0.5\n", "# x y\n\n40.0,60,20,20,.5,9,9\n"])
def test_boxes_may_be_separated_by_anything_and_have_further_columns(tmp_path, text):
    (picks,) = read_picks([write(tmp_path / "a.1.box", text)], SIZES)
    assert picks.centres_px.tolist() == [[30, 50]]
    assert picks.scores.tolist() == [0.5] and picks.diameters_px.tolist() == [20]


def test_rows_of_many_micrographs_keep_their_order_in_each(tmp_path):
    rows = [f"{x} 9 {name}" for x, name in enumerate(["c", "b", "c", "c", "b"])]
    labels = ("CoordinateX", "CoordinateY", "MicrographName")
    found = read_picks([write(tmp_path / "p.star", star(*rows, labels=labels))], SIZES)
    xs = {p.name: p.centres_px[:, 1].tolist() for p in found}
    assert xs == {"b.jpg": [1, 4], "c.jpg": [0, 2, 3]}


def test_micrographs_named_by_numbers_keep_their_zeros(tmp_path):
    text = star("1 2 0007", labels=("CoordinateX", "CoordinateY", "MicrographName"))
    assert (
        read_picks([write(tmp_path / "p.star", text)], {"0007.jpg": (9, 9)})[0].name == "0007.jpg"
    )


def test_the_real_peers_boxes_turn_as_the_data_sets_readme_says(empiar10017):
    (path, *_) = sorted((empiar10017 / "peer_picks" / "crYOLO").glob("*.box"))
    (picks,) = read_picks([path], {f"{path.stem}.jpg": (4096, 4096)})
    x, y, width, height, score = np.loadtxt(path)[0]
    assert picks.centres_px[0].tolist() == [4096 - (y + height / 2), x + width / 2]
    assert picks.scores[0] == score and len(picks.scores) == 719


# Errors

NAMES = ("CoordinateX", "CoordinateY", "AutopickFigureOfMerit", "AutopickFigureOfMerit")
MALFORMED = {
    "b.star": [
        ("", "no table with _rlnCoordinateX"),
        ("x y z", "line 1: 'x y z' belongs to no table"),
        (star("1 2", labels=("MicrographName", "CoordinateX")), "data_: .*_rlnCoordinateY is not"),
        (star("1 2", "3"), "line 8: '3' is no row of 2 columns"),
        (star("1 2", "3 nan"), "_rlnCoordinateY .* row 2 of 2"),
        (star("1e300 5"), "_rlnCoordinateX .* row 1 of 1"),
        (star("1 x"), "_rlnCoordinateY holds no numbers"),
        (star("1 2", "3 4 5"), "line 8: '3 4 5' is no row of 2 columns"),
        (star("5 5 1 2", labels=NAMES), "_rlnAutopickFigureOfMerit stands twice"),
        (star("a b", labels=("MicrographName", "MicrographCoordinates")), "not there"),
        (b"\xff\xfd\x00\x81", "is no text file"),
    ],
    "b.box": [
        ("1 2 3\n", "line 1"),
        ("1 2 3 4\n\n5 6 7 x\n", "line 3: .*'5 6 7 x'"),
        ("1 2 3 nan\n", "line 1"),
        ("1 2 3 4 good\n", "line 1"),
        ("1e300 5 20 20\n", "line 1"),
        ("5 5 20 20 inf\n", "line 1"),
        (b"\xff\xfd\x00\x81", "is no text file"),
    ],
    "b.cbox": [
        (CRYOLO.replace("_Width", "_Breadth"), "data_cryolo: .*_Width is not"),
        (CRYOLO.replace("40.5", "<NA>"), "_CoordinateX .* row 1 of 2"),
        ("garbage\n", "line 1"),
    ],
}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [(name, content, words) for name, cases in MALFORMED.items() for content, words in cases],
)
def test_a_malformed_file_is_named_with_what_is_wrong(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=rf"{name}.*{words}") as error:
        read_picks([path], SIZES)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    {
        "EMAN's helices": ("b.box", "10 20 8 8 -1\n90 20 8 8 -2\n", "starts and ends of helices"),
        "EMAN's helices with points between": (
            "b.box", "1 2 8 8 -1\n5 2 8 8 0\n9 2 8 8 -2\n", "starts and ends of helices"),
        "decimal commas": ("b.box", "10,5 20,5 8,0 8,0\n", "line 1: .*decimal points"),
        "two micrographs in a CBOX": ("b.cbox", CRYOLO + CRYOLO, "2 blocks with boxes"),
        "tomograms of crYOLO": (
            "b.cbox", CRYOLO.replace("60.0 <NA>", "60.0 7.0"), "boxes of tomograms"),
        "filaments of crYOLO": (
            "b.cbox", CRYOLO.replace("_Angle", "_filamentid").replace("4.0 <NA>", "4.0 1"),
            "boxes of filaments"),
    }.values(),
)  # fmt: skip
def test_what_is_no_particle_on_one_micrograph_is_refused(tmp_path, name, text, words):
    with pytest.raises(UserError, match=rf"b\.c?box.*{words}"):
        read_picks([write(tmp_path / name, text)], SIZES)


@pytest.mark.parametrize("text", ["10, 20, 8, 8, -1\n", "10 20 8 8 -2\n1 2 8 8 -0.5\n"])
def test_scores_that_look_like_ends_of_helices_are_scores(tmp_path, text):
    (picks,) = read_picks([write(tmp_path / "b.box", text)], SIZES)
    assert picks.scores[0] in (-1, -2)


def test_rows_named_like_a_missing_value_are_of_micrographs_of_these_names(tmp_path):
    names = ["None", "NA", "N/A", "nan", "NaN", "null", "<NA>", "-nan", "1", "1.0", "True", "inf"]
    head = "data_\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n"
    rows = [f"{name} 5 {i}" for i, name in enumerate(names)]
    (tmp_path / "a.star").write_text(head + "\n".join(rows) + '\n"" 5 99\n')
    found = {p.name: p.centres_px.tolist() for p in read_star(tmp_path / "a.star")}
    assert found == {name: [[i, 5]] for i, name in enumerate(names)} | {"": [[99, 5]]}
