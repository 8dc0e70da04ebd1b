import csv
import json

import numpy as np
import pytest

from picking.errors import UserError
from picking.formats.annotations import read_coordinates_csv
from picking.formats.coordinates import (
    FORMATS,
    Picks,
    match_names,
    read_picks,
    select,
    turn,
    write_picks,
)
from tests.fixtures.data_sets import write_coco, write_csv

SIZES = {"a.1.jpg": (100, 200), "b.jpg": (240, 160), "c.jpg": (50, 60)}
PRECISION_PX = {"star": 1e-6, "cbox": 2e-6, "box": 2e-3, "csv": 6e-4, "coco": 2e-4}
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


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def some_picks(rng, name, n=7):
    height, width = SIZES[name]
    centres = rng.uniform(0, (height, width), (n, 2))
    return Picks(name, centres, rng.uniform(0, 1, n), rng.uniform(8, 30, n), (height, width))


def one_pick(name="a.1.jpg", y=30.0, x=50.0, score=0.5, diameter=20.0):
    return Picks(name, np.array([[y, x]]), np.array([score]), np.array([diameter]), SIZES.get(name))


def assert_same(found, wanted, atol=1e-6):
    assert [p.name for p in found] == [p.name for p in wanted]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.centres_px, other.centres_px, rtol=0, atol=atol)
        np.testing.assert_allclose(one.diameters_px, other.diameters_px, rtol=0, atol=atol)
        np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=1e-6)
        assert one.size_px == other.size_px


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def star(*rows, labels=("CoordinateX", "CoordinateY"), block="", before=""):
    names = [f"_rln{label} #{i}" for i, label in enumerate(labels, start=1)]
    return "\n".join([before, f"data_{block}", "", "loop_", *names, *rows, ""])


# Round trips


@pytest.mark.parametrize("one_file", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_what_was_written_is_read_back_in_every_format(tmp_path, rng, name, one_file):
    picks = [some_picks(rng, micrograph) for micrograph in SIZES]
    paths = write_picks(tmp_path, picks, [name], one_file)
    assert len(paths) == (1 if one_file and name not in ("box", "cbox") else 3)
    assert_same(read_picks(paths, SIZES), picks, PRECISION_PX[name])


@pytest.mark.parametrize("name", FORMATS)
def test_the_other_frame_mirrors_a_file_up_down(tmp_path, rng, name):
    picks = some_picks(rng, "b.jpg")
    paths = write_picks(tmp_path, [picks], [name])
    native, other = ("jpeg", "mrc") if name in ("csv", "coco") else ("mrc", "jpeg")
    assert_same(read_picks(paths, SIZES, native), [picks], PRECISION_PX[name])
    (mirrored,) = read_picks(paths, SIZES, other)
    up_down = picks.centres_px * (-1, 1) + (240, 0)
    np.testing.assert_allclose(mirrored.centres_px, up_down, atol=PRECISION_PX[name])
    assert_same([turn(turn(mirrored))], [mirrored])


@pytest.mark.parametrize("name", FORMATS)
def test_picks_without_a_score_stay_without(tmp_path, rng, name):
    picks = some_picks(rng, "b.jpg")
    picks.scores[2:] = np.nan
    assert_same(
        read_picks(write_picks(tmp_path, [picks], [name]), SIZES), [picks], PRECISION_PX[name]
    )


@pytest.mark.parametrize("name", FORMATS)
def test_a_micrograph_without_picks_is_kept_in_a_file_of_its_own(tmp_path, rng, name):
    picks = [some_picks(rng, "b.jpg"), some_picks(rng, "c.jpg", n=0)]
    found = read_picks(write_picks(tmp_path, picks, [name]), SIZES)
    assert [len(p.centres_px) for p in found] == [7, 0]


@pytest.mark.parametrize("name", ["star", "csv"])
def test_in_a_file_of_many_a_micrograph_without_picks_does_not_appear(tmp_path, rng, name):
    picks = [some_picks(rng, "b.jpg"), some_picks(rng, "c.jpg", n=0)]
    paths = write_picks(tmp_path, picks, [name], one_file=True)
    assert [p.name for p in read_picks(paths, SIZES)] == ["b.jpg"]
    paths = write_picks(tmp_path / "none", [picks[1]], [name], one_file=True)
    assert read_picks(paths, SIZES) == []


def test_the_same_picks_give_the_same_bytes(tmp_path, rng):
    picks = [some_picks(rng, micrograph) for micrograph in SIZES]
    first = write_picks(tmp_path / "1", picks, list(FORMATS))
    second = write_picks(tmp_path / "2", picks, list(FORMATS))
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


# What other programs read. The micrograph is 100 px high; the pick is at (30, 50), 20 px across.


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
    (row,) = [line for line in lines if line[0] == "a.1.mrc"]
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


def test_the_csv_is_cryoppps_with_a_score_and_a_micrograph_where_it_has_many(tmp_path):
    (path,) = write_picks(tmp_path, [one_pick()], ["csv"])
    assert read_coordinates_csv(path).tolist() == [[50, 30, 20]]
    assert path.read_text().startswith("X-Coordinate,Y-Coordinate,Diameter,Score\n")
    (path,) = write_picks(tmp_path, [one_pick(), one_pick("b.jpg")], ["csv"], one_file=True)
    with path.open() as file:
        assert [row["Micrograph"] for row in csv.DictReader(file)] == ["a.1.jpg", "b.jpg"]


def test_pycocotools_finds_boxes_and_scores_in_the_jpegs_frame(tmp_path, capsys):
    from pycocotools.coco import COCO

    (path,) = write_picks(tmp_path, [one_pick(), one_pick("b.jpg")], ["coco"], one_file=True)
    content = COCO(str(path))
    images = content.loadImgs(content.getImgIds())
    assert [image["file_name"] for image in images] == ["a.1.jpg", "b.jpg"]
    (annotation,) = content.loadAnns(content.getAnnIds(images[0]["id"], iscrowd=False))
    assert annotation["bbox"] == [40, 20, 20, 20] and annotation["score"] == 0.5
    assert "JPEG's frame" in json.loads(path.read_text())["info"]["frame"]


def test_of_a_star_without_all_diameters_none_is_written(tmp_path, rng):
    picks = some_picks(rng, "b.jpg")
    picks.diameters_px[3] = np.nan
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
    assert_same(read_picks([write(tmp_path / "a.1.box", text)], SIZES), [one_pick()])


def test_a_csv_may_have_further_columns_and_no_score(tmp_path):
    write_csv(tmp_path / "b.csv", [(30, 50), (7.5, 3)])
    (picks,) = read_picks([tmp_path / "b.csv"], SIZES)
    assert picks.centres_px.tolist() == [[30, 50], [7.5, 3]] and np.isnan(picks.scores).all()


def test_the_released_json_is_read_as_truth_without_sizes_and_without_its_zero_boxes(tmp_path):
    boxes = {"a.jpg": [[40, 20, 20, 20], [0, 0, 0, 0]], "b.jpg": [[0, 0, 0, 0]], "c.jpg": []}
    write_coco(tmp_path / "truth.json", boxes, (100, 200))
    truth = read_picks([tmp_path / "truth.json"], {})
    assert [(t.name, len(t.centres_px)) for t in truth] == [("a.jpg", 1), ("c.jpg", 0)]
    assert truth[0].centres_px.tolist() == [[30, 50]] and truth[0].size_px == (100, 200)
    (turned, _) = read_picks([tmp_path / "truth.json"], {}, frame="mrc")
    assert turned.centres_px.tolist() == [[70, 50]]


# Names

MEANT = [
    ("b.jpg", "b.jpg"),
    ("deep/down/b.mrc", "b.jpg"),
    ("windows\\b.tif", "b.jpg"),
    ("b", "b.jpg"),
    ("a.1", "a.1.jpg"),
    ("J3/imported/000014212342342987234_b.mrc", "b.jpg"),
    ("000014212342342987234_b_patch_aligned_doseweighted.mrc", "b.jpg"),
    ("b_manualpick", "b.jpg"),
    ("J1/7_tail_pick.mrc", "7_tail.jpg"),
    ("tail", "7_tail.jpg"),
    ("8_tail", None),
    ("a", None),
    ("bb", None),
]


@pytest.mark.parametrize(("name", "meant"), MEANT)
def test_a_name_means_the_micrograph_whatever_programs_put_around_it(name, meant):
    truth = [one_pick(other) for other in (*SIZES, "7_tail.jpg")]
    if meant is None:
        with pytest.raises(UserError, match="no micrograph is in both"):
            match_names([one_pick(name)], truth)
    else:
        ((pair,), _, _) = match_names([one_pick(name)], truth)
        assert (pair[0].name, pair[1].name) == (name, meant)


def test_picks_are_paired_in_the_truths_order_and_what_is_left_over_is_told():
    picks = [one_pick(name) for name in ("x.mrc", "c.mrc", "a.1.mrc")]
    matched = match_names(picks, [one_pick(name) for name in SIZES])
    assert [(p.name, t.name) for p, t in matched.pairs] == [
        ("a.1.mrc", "a.1.jpg"),
        ("c.mrc", "c.jpg"),
    ]
    assert (matched.without_picks, matched.without_truth) == (["b.jpg"], ["x.mrc"])


def test_names_without_overlap_show_the_first_of_both_lists():
    picks = [one_pick(f"p{i}.mrc") for i in range(9)]
    with pytest.raises(UserError) as error:
        match_names(picks, [one_pick("t.jpg")])
    assert "of p0.mrc, p1.mrc, p2.mrc and 6 more; truth: t.jpg:" in str(error.value)


def test_a_name_that_could_mean_two_micrographs_is_refused():
    truth = [one_pick("10017/x.jpg"), one_pick("10018/x.jpg")]
    assert len(match_names([one_pick("10018/x.jpg")], truth).pairs) == 1
    with pytest.raises(UserError, match=r"'x' could be any of 10017/x\.jpg, 10018/x\.jpg"):
        match_names([one_pick("x")], truth)


def test_two_picks_of_one_micrograph_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"'1_b\.mrc' and 'b\.mrc' are both picks of 'b\.jpg'"):
        match_names([one_pick("b.mrc"), one_pick("1_b.mrc")], [one_pick("b.jpg")])
    paths = write_picks(tmp_path, [one_pick("b.jpg")], ["star", "box"])
    with pytest.raises(UserError, match=r"b\.box has picks of b\.jpg .*b\.star: give one"):
        read_picks(paths, SIZES)
    rows = ("1 2 one/b.mrc", "3 4 two/b.mrc")
    labels = ("CoordinateX", "CoordinateY", "MicrographName")
    with pytest.raises(UserError, match=r"as 'two/b\.mrc'"):
        read_picks([write(tmp_path / "p.star", star(*rows, labels=labels))], SIZES)


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


# Sizes


def test_without_a_height_y_cannot_be_turned_and_the_error_names_what_is_known(tmp_path):
    path = write(tmp_path / "other.box", "40 60 20 20\n")
    with pytest.raises(UserError, match=r"height of 'other' is needed.*a\.1\.jpg, b\.jpg.*frame"):
        read_picks([path], SIZES)
    assert read_picks([path], SIZES, frame="jpeg")[0].centres_px.tolist() == [[70, 50]]


def test_micrographs_that_are_not_known_can_be_left_out_but_not_all(tmp_path):
    paths = [write(tmp_path / f"{stem}.box", "40 20 8 8\n") for stem in ("x", "b", "y")]
    (picks,) = read_picks(paths, SIZES, only_known=True)
    assert picks.name == "b.jpg"
    with pytest.raises(UserError, match=r"picks are of x, y; micrographs: a\.1\.jpg, b\.jpg"):
        read_picks([paths[0], paths[2]], SIZES, only_known=True)


def test_coordinates_at_another_scale_are_refused_with_the_numbers(tmp_path):
    one_outside = "X-Coordinate,Y-Coordinate,Diameter\n500,300,9\n30,20,9\n7,8,9\n"
    assert len(read_picks([write(tmp_path / "c.csv", one_outside)], SIZES)[0].scores) == 3
    path = write(tmp_path / "c.csv", one_outside + "800,90,9\n")
    with pytest.raises(UserError, match=r"c\.jpg: 2 of 4 centres lie outside.*60 x 50 px.*scale"):
        read_picks([path], SIZES)


def test_a_json_for_an_image_of_another_size_is_refused(tmp_path):
    write_coco(tmp_path / "p.json", {"b.jpg": [[1, 2, 3, 4]]}, (120, 80))
    with pytest.raises(UserError, match=r"annotated as 80 x 120 px, but the image has 160 x 240"):
        read_picks([tmp_path / "p.json"], SIZES)


# Errors

IMAGES = '"images": [{"id": 1, "file_name": "b.jpg", "width": 160, "height": 240}]'
MALFORMED = {
    "b.star": [
        ("", "no table with _rlnCoordinateX"),
        ("x y z", "no table with _rlnCoordinateX"),
        (star("1 2", labels=("MicrographName", "CoordinateX")), "no table with _rlnCoordinateX"),
        (star("1 2", "3"), "_rlnCoordinateY has no finite number in row 2 of 2"),
        (star("1 2", "3 nan"), "_rlnCoordinateY has no finite number in row 2 of 2"),
        (star("1 x"), "_rlnCoordinateY holds no numbers"),
        (star("1 2", "3 4 5"), "cannot be read as STAR"),
        (star("a b", labels=("MicrographName", "MicrographCoordinates")), "list of coordinate"),
        (b"\xff\xfe\x00\x81", "is no text file"),
    ],
    "b.box": [
        ("1 2 3\n", "line 1: x, y, width and height"),
        ("1 2 3 4\n\n5 6 7 x\n", "line 3: .*not '5 6 7 x'"),
        ("1 2 3 nan\n", "line 1: x, y, width and height"),
        ("1 2 3 4 good\n", "line 1: x, y, width and height"),
        (b"\xff\xfe\x00\x81", "is no text file"),
    ],
    "b.cbox": [
        (CRYOLO.replace("_Width", "_Breadth"), "no table with _CoordinateX, _CoordinateY, _Width"),
        (CRYOLO.replace("40.5", "<NA>"), "_CoordinateX has no finite number in row 1 of 2"),
        ("garbage\n", "line 1: x, y, width and height"),
    ],
    "b.csv": [
        ("", "no column x-coordinate, y-coordinate, diameter"),
        ("X-Coordinate,Diameter\n1,2\n", "no column y-coordinate"),
        ("X-Coordinate,Y-Coordinate,Diameter\n1,2,x\n", "line 2: three finite numbers"),
        ("X-Coordinate,Y-Coordinate,Diameter,Score\n1,2,3,high\n", "column Score: .*'high'"),
    ],
    "b.json": [
        ("{", "not valid JSON"),
        ("[]", "is not in the COCO format .*'images' and 'annotations' are lists"),
        ("{}", "'images' is missing"),
        ('{"images": 7, "annotations": []}', "is not in the COCO format"),
        ("{" + IMAGES + ', "annotations": [{"bbox": [1, 2, 3, 4]}]}', "'image_id' is missing"),
        ("{" + IMAGES + ', "annotations": [{"image_id": 1, "bbox": [1, 2, 3]}]}', "four numbers"),
        (
            "{" + IMAGES + ', "annotations": [{"image_id": 1, "bbox": [1, 2, 3, NaN]}]}',
            "b.jpg has a bbox that is not finite",
        ),
        (
            "{" + IMAGES + ', "annotations": [{"image_id": 5, "bbox": [1, 2, 3, 4]}]}',
            "1 of 1 annotations name an image_id that is not under 'images'",
        ),
        ("{" + IMAGES.replace("]", ', {"id": 1, "file_name": "c", "width": 1, "height": 1}]')
         + ', "annotations": []}', "two images have one id"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [(name, content, words) for name, cases in MALFORMED.items() for content, words in cases],
)
def test_a_malformed_file_is_named_with_what_is_wrong(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=rf"{name}.*{words}"):
        read_picks([path], SIZES)


def test_files_and_frames_of_no_known_kind_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"a\.txt is no file of picks: those end in \.star, \.box"):
        read_picks([write(tmp_path / "a.txt", "")], SIZES)
    with pytest.raises(UserError, match=r"gone\.star is not there"):
        read_picks([tmp_path / "gone.star"], SIZES)
    with pytest.raises(UserError, match="frame 'up' is unknown: it is mrc or jpeg"):
        read_picks([], SIZES, frame="up")


def test_picks_that_a_format_cannot_hold_are_refused(tmp_path, rng):
    picks = some_picks(rng, "b.jpg")
    with pytest.raises(UserError, match="format 'mod' is unknown: there are star, box"):
        write_picks(tmp_path, [picks], ["mod"])
    with pytest.raises(UserError, match=r"x/b\.mrc and b\.jpg would be one file"):
        write_picks(tmp_path, [picks, one_pick("x/b.mrc")], ["csv"])
    for name in ("star", "box", "cbox", "coco"):
        with pytest.raises(UserError, match=r"other\.jpg: its (size|height) is unknown"):
            write_picks(tmp_path, [one_pick("other.jpg")], [name])
    for name in ("box", "cbox", "csv", "coco"):
        with pytest.raises(UserError, match=r"b\.jpg: picks without a diameter"):
            write_picks(tmp_path, [one_pick("b.jpg", diameter=np.nan)], [name])
    assert not any(tmp_path.iterdir())


def test_a_selection_keeps_what_belongs_together(rng):
    picks = some_picks(rng, "b.jpg")
    few = select(picks, picks.scores > 0.5)
    assert 0 < len(few.scores) < 7
    for i, score in enumerate(few.scores):
        at = picks.scores.tolist().index(score)
        assert few.centres_px[i].tolist() == picks.centres_px[at].tolist()
        assert few.diameters_px[i] == picks.diameters_px[at]


def test_the_real_peers_boxes_turn_as_the_data_sets_readme_says(empiar10017):
    (path, *_) = sorted((empiar10017 / "peer_picks" / "crYOLO").glob("*.box"))
    (picks,) = read_picks([path], {f"{path.stem}.jpg": (4096, 4096)})
    x, y, width, height, score = np.loadtxt(path)[0]
    assert picks.centres_px[0].tolist() == [4096 - (y + height / 2), x + width / 2]
    assert picks.scores[0] == score and len(picks.scores) == 719


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.box", "1e300 5 20 20\n", "line 1: x, y, width and height"),
        ("a.box", "5 5 20 20 inf\n", "line 1: x, y, width and height"),
        (
            "a.csv",
            "X-Coordinate,Y-Coordinate,Diameter,Score\n5,5,20,inf\n",
            "a number is too large",
        ),
        (
            "a.star",
            "data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnAutopickFigureOfMerit\n"
            "_rlnAutopickFigureOfMerit\n5 5 1 2\n",
            "_rlnAutopickFigureOfMerit stands twice",
        ),
        ("a.star", "data_\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n1e300 5\n", "no finite number"),
        ("a.star", "data_\nloop_\n_a\n1\n2 3 4\n", r"cannot be read as STAR .*saw 3\): write"),
    ],
)
def test_picks_that_no_micrograph_can_have_are_refused(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words) as error:
        read_picks([tmp_path / name], {"a.jpg": (100, 100)})
    assert "\n" not in str(error.value)


def test_names_in_files_of_picks_lead_to_no_file(tmp_path):
    text = "data_\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n"
    (tmp_path / "picks.star").write_text(f"{text}../../a.mrc 5 5\n/etc/passwd 5 5\n")
    found = read_picks([tmp_path / "picks.star"], {"a.jpg": (100, 100)}, only_known=True)
    assert [picks.name for picks in found] == ["a.jpg"]
