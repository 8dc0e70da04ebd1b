"""Coordinates of Topaz and EMAN2, in the words of what those programs write."""

import json

import numpy as np
import pytest

from picking.errors import UserError
from picking.formats.coordinates import frame_of, read_picks
from tests.fixtures.data_sets import write_coco

SIZES = {"a.1.mrc": (100, 200), "002.mrc": (100, 200)}
# topaz extract: print(f'{name}\t{x}\t{y}\t{score}') below this header, names without suffix
TOPAZ = "image_name\tx_coord\ty_coord\tscore\na.1\t50\t30\t4.7\n002\t10\t90\t-1.25\na.1\t5\t6\t0\n"


def written(path, text):
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


def test_topaz_counts_from_the_first_row_of_the_mrc_and_names_many_micrographs(tmp_path):
    path = written(tmp_path / "extracted_particles.txt", TOPAZ)
    found = {p.name: p for p in read_picks([path], SIZES)}
    assert found["a.1.mrc"].centres_px.tolist() == [[70, 50], [94, 5]]
    assert found["a.1.mrc"].scores.tolist() == [4.7, 0]
    assert found["002.mrc"].centres_px.tolist() == [[10, 10]]
    assert np.isnan(found["002.mrc"].diameters_px).all()
    turned = {p.name: p for p in read_picks([path], SIZES, frame="jpeg")}  # picked on PNG or TIFF
    assert turned["002.mrc"].centres_px.tolist() == [[90, 10]]


def test_topazs_labels_have_no_score_and_columns_in_any_order(tmp_path):
    text = "source\ty_coord\tx_coord\timage_name\r\none\t30\t50\ta.1\r\n"
    (picks,) = read_picks([written(tmp_path / "labels.txt", text)], SIZES)
    assert picks.centres_px.tolist() == [[70, 50]] and np.isnan(picks.scores).all()


def test_a_micrograph_on_which_topaz_found_nothing_has_a_file_of_its_own(tmp_path):
    (picks,) = read_picks([written(tmp_path / "a.1.txt", TOPAZ.splitlines()[0] + "\n")], SIZES)
    assert (picks.name, len(picks.centres_px)) == ("a.1.mrc", 0)


@pytest.mark.parametrize("name", ["picks.csv", "picks.tsv", "picks.txt"])
@pytest.mark.parametrize("separator", [",", "\t"])
def test_a_table_of_topaz_is_known_by_its_header_whatever_it_is_called(tmp_path, name, separator):
    path = written(tmp_path / name, TOPAZ.replace("\t", separator))
    found = {p.name: p for p in read_picks([path], SIZES)}
    assert found["a.1.mrc"].centres_px.tolist() == [[70, 50], [94, 5]]  # counted from the bottom
    assert found["a.1.mrc"].scores.tolist() == [4.7, 0]
    assert found["002.mrc"].centres_px.tolist() == [[10, 10]]


def test_a_csv_with_tabs_is_one_in_the_jpegs_frame(tmp_path):
    text = "X-Coordinate\tY-Coordinate\tDiameter\n50\t30\t20\n"
    (picks,) = read_picks([written(tmp_path / "a.1.tsv", text)], SIZES)
    assert (picks.name, picks.centres_px.tolist()) == ("a.1.mrc", [[30, 50]])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no table of Topaz's"),
        ("10 20\n30 40\n", "no table of Topaz's"),
        ("image_name\tx_coord\ty_coord\tz_coord\na.1\t1\t2\t3\n", "of tomograms"),
        (TOPAZ + "a.1\t50\n", "line 5: a name, x, y"),
        (TOPAZ + "a.1\tnan\t5\t1\n", "line 5: a name, x, y"),
        (TOPAZ + "a.1\t1\t5\tgood\n", "line 5: a name, x, y"),
        (TOPAZ + "\t1\t5\t1\n", "line 5: a name, x, y"),
    ],
)
def test_other_tables_are_refused_with_the_line(tmp_path, text, said):
    with pytest.raises(UserError, match=rf"p\.txt.*{said}"):
        read_picks([written(tmp_path / "p.txt", text)], SIZES)


# EMAN2: info/<micrograph>_info.json, boxes are [x of the centre, y of the centre, type]
EMAN = {
    "boxes": [[50, 30, "manual"], [10.5, 90, "auto_local"]],
    "ctf_frame": [512, {"__class__": "EMAN2Ctf", "defocus": 1.5}, [256, 256], []],
    "quality": 5,
}


def test_emans_boxes_are_centres_in_the_mrcs_frame(tmp_path):
    path = written(tmp_path / "a.1_info.json", EMAN)
    (picks,) = read_picks([path], SIZES)
    assert picks.name == "a.1.mrc" and np.isnan(picks.scores).all()
    assert picks.centres_px.tolist() == [[70, 50], [10, 10.5]]
    (turned,) = read_picks([path], SIZES, frame="jpeg")
    assert turned.centres_px.tolist() == [[30, 50], [90, 10.5]]


def test_boxes_of_tilt_pairs_are_read_too(tmp_path):
    content = {"boxes_rct": [[50, 30, "untilted"]], "boxes": []}
    (picks,) = read_picks([written(tmp_path / "a.1_info.json", content)], SIZES)
    assert picks.centres_px.tolist() == [[70, 50]]


def test_an_info_file_without_boxes_says_nothing_and_one_with_an_empty_list_no_particle(tmp_path):
    without = written(tmp_path / "a.1_info.json", {"quality": 5})
    empty = written(tmp_path / "002_info.json", {"boxes": []})
    (picks,) = read_picks([without, empty], SIZES)
    assert (picks.name, len(picks.centres_px)) == ("002.mrc", 0)


def test_json_of_coco_and_of_eman_are_told_apart_by_what_is_in_them(tmp_path):
    write_coco(tmp_path / "a_info.json", {"a.1.mrc": [[40, 20, 20, 20]]}, (100, 200))
    eman = written(tmp_path / "a.1.json", EMAN)
    assert frame_of(tmp_path / "a_info.json") == "jpeg" and frame_of(eman) == "mrc"
    assert read_picks([tmp_path / "a_info.json"], SIZES)[0].centres_px.tolist() == [[30, 50]]
    assert read_picks([eman], SIZES)[0].name == "a.1.mrc"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"boxes": [[1, 2, "manual"], [1, "2"]]}, r"boxes\[1\] must be"),
        ({"boxes": [7]}, r"boxes\[0\] must be"),
        ({"boxes": {"a": 1}}, "must be a list"),
        ({"boxes_3d": [[1, 2, 3, "tomobox", 1.0, 0]]}, "of a tomogram"),
    ],
)
def test_damaged_boxes_are_named(tmp_path, content, said):
    with pytest.raises(UserError, match=rf"a\.1_info\.json.*{said}"):
        read_picks([written(tmp_path / "a.1_info.json", content)], SIZES)
