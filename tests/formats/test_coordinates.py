import csv
import dataclasses
import json

import numpy as np
import pytest

from picking.errors import InputWarning, UserError
from picking.formats.coordinates import FORMATS, NEVER_EMPTY, match_names, read_picks, write_picks
from picking.formats.names import LABELS, PICKS, TRUTH
from picking.formats.picks import Picks, select
from tests.fixtures.data_sets import coco, write_coco

SIZES = {"a.1.jpg": (100, 200), "b.jpg": (240, 160), "c.jpg": (50, 60)}
PRECISION_PX = {"star": 1e-6, "cbox": 2e-6, "box": 2e-3, "csv": 6e-4, "coco": 2e-4, "cs": 2e-5}


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


# Round trips


@pytest.mark.parametrize("one_file", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_what_was_written_is_read_back_in_every_format(tmp_path, rng, name, one_file):
    picks = [some_picks(rng, micrograph) for micrograph in SIZES]
    picks[1].scores[2:] = np.nan  # unknown ones stay so
    paths = write_picks(tmp_path / "1", picks, [name], one_file)
    assert len(paths) == (1 if name == "cs" or (one_file and name not in ("box", "cbox")) else 3)
    if name == "cs":  # has no diameters
        picks = [dataclasses.replace(p, diameters_px=p.diameters_px * np.nan) for p in picks]
    assert_same(read_picks(paths, SIZES), picks, PRECISION_PX[name])
    again = write_picks(tmp_path / "2", picks, [name], one_file)
    assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in again]


@pytest.mark.parametrize("name", FORMATS)
def test_the_other_frame_mirrors_a_file_up_down(tmp_path, rng, name):
    picks = some_picks(rng, "b.jpg")
    paths = write_picks(tmp_path, [picks], [name])
    native, other = ("jpeg", "mrc") if name in ("csv", "coco") else ("mrc", "jpeg")
    assert_same(read_picks(paths, SIZES, native), read_picks(paths, SIZES))
    (mirrored,) = read_picks(paths, SIZES, other)
    up_down = picks.centres_px * (-1, 1) + (240, 0)
    np.testing.assert_allclose(mirrored.centres_px, up_down, atol=PRECISION_PX[name])


@pytest.mark.parametrize("name", FORMATS)
def test_a_micrograph_without_picks_has_a_file_only_where_no_program_falls_over_it(
    tmp_path, rng, name
):
    picks = [some_picks(rng, "b.jpg"), some_picks(rng, "c.jpg", n=0)]
    found = read_picks(write_picks(tmp_path, picks, [name]), SIZES)
    assert [len(p.centres_px) for p in found] == ([7, 0] if name in ("csv", "coco") else [7])


@pytest.mark.parametrize("name", NEVER_EMPTY)
def test_the_file_of_a_micrograph_that_lost_its_picks_goes(tmp_path, rng, name):
    (path,) = write_picks(tmp_path, [some_picks(rng, "b.jpg")], [name])
    assert path.exists()
    assert write_picks(tmp_path, [some_picks(rng, "b.jpg", n=0)], [name]) == []
    assert not path.exists()


@pytest.mark.parametrize("name", ["star", "csv", "cs"])
def test_in_a_file_of_many_a_micrograph_without_picks_does_not_appear(tmp_path, rng, name):
    picks = [some_picks(rng, "b.jpg"), some_picks(rng, "c.jpg", n=0)]
    paths = write_picks(tmp_path, picks, [name], one_file=True)
    assert [p.name for p in read_picks(paths, SIZES)] == ["b.jpg"]
    paths = write_picks(tmp_path / "none", [picks[1]], [name], one_file=True)
    assert read_picks(paths, SIZES) == [] and bool(paths) == (name != "star")


def test_the_csv_is_cryoppps_with_a_score_and_a_micrograph_where_it_has_many(tmp_path):
    (path,) = write_picks(tmp_path, [one_pick()], ["csv"])
    assert path.read_text().split() == [
        "X-Coordinate,Y-Coordinate,Diameter,Score",
        "50.000,30.000,20.000,0.500000",
    ]
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


def test_the_released_json_is_read_as_truth_without_sizes_and_without_its_zero_boxes(tmp_path):
    boxes = {"a.jpg": [[40, 20, 20, 20]], "b.jpg": [[0, 0, 0, 0]], "c.jpg": []}
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
    ("J1/motioncorrected/000014212342342987234_b_rigid_aligned.mrc", "b.jpg"),
    ("b_automatch", "b.jpg"),
    ("b_topazpicks", "b.jpg"),
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
    pairs, *left_over = match_names(picks, [one_pick(name) for name in SIZES])
    assert [(p.name, t.name) for p, t in pairs] == [("a.1.mrc", "a.1.jpg"), ("c.mrc", "c.jpg")]
    assert left_over == [["b.jpg"], ["x.mrc"]]


@pytest.mark.parametrize(("all_picked", "paired"), [(False, ["a.1.jpg"]), (True, list(SIZES))])
def test_a_micrograph_that_no_pick_names_has_none_only_where_all_were_looked_at(all_picked, paired):
    pairs, unnamed, _ = match_names(
        [one_pick("a.1.jpg")], [one_pick(name) for name in SIZES], all_picked
    )
    assert [t.name for _, t in pairs] == paired and unnamed == ["b.jpg", "c.jpg"]
    assert [len(p.scores) for p, _ in pairs] == [1, 0, 0][: len(paired)]


@pytest.mark.parametrize("picks", [[], ["b.jpg"]])
def test_without_any_pick_all_particles_of_the_truth_are_missed(picks):
    nothing = [select(one_pick(name), np.zeros(1, dtype=bool)) for name in picks]
    pairs, _, _ = match_names(nothing, [one_pick(name) for name in SIZES])
    assert [(len(p.scores), t.name) for p, t in pairs] == [(0, name) for name in SIZES]


def test_a_name_that_could_mean_two_micrographs_is_refused():
    truth = [one_pick("10017/x.jpg"), one_pick("10018/x.jpg")]
    assert len(match_names([one_pick("10018/x.jpg")], truth)[0]) == 1
    with pytest.raises(UserError, match=r"'x' could be any of 10017/x\.jpg, 10018/x\.jpg"):
        match_names([one_pick("x")], truth)


def test_two_picks_of_one_micrograph_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"'1_b\.mrc' and 'b\.mrc' are both picks of 'b\.jpg'"):
        match_names([one_pick("b.mrc"), one_pick("1_b.mrc")], [one_pick("b.jpg")])
    paths = write_picks(tmp_path, [one_pick("b.jpg")], ["star", "box"])
    with pytest.raises(UserError, match=r"b\.box has picks of b\.jpg .*b\.star: give one"):
        read_picks(paths, SIZES)
    text = "Micrograph,X-Coordinate,Y-Coordinate,Diameter\none/b.mrc,1,2,9\ntwo/b.mrc,3,4,9\n"
    with pytest.raises(UserError, match=r"as 'two/b\.mrc'"):
        read_picks([write(tmp_path / "p.csv", text)], SIZES)


# Sizes


def test_without_a_height_y_cannot_be_turned_and_the_error_names_what_is_known(tmp_path):
    path = write(tmp_path / "other.box", "40 60 20 20\n")
    with pytest.raises(UserError, match=r"height of 'other' is needed.*a\.1\.jpg, b\.jpg.*frame"):
        read_picks([path], SIZES)
    assert read_picks([path], SIZES, frame="jpeg")[0].centres_px.tolist() == [[70, 50]]


@pytest.fixture
def boxes(tmp_path):
    """Write BOX files, by stem how many picks each; return the paths."""

    def written(**counts):
        return [write(tmp_path / f"{n}.box", "40 20 8 8\n" * k) for n, k in counts.items()]

    return written


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("n", "refused"), [(10, False), (11, True)])
def test_labels_of_other_micrographs_are_refused_above_a_tenth(boxes, n, refused):
    paths = boxes(x=n - 1, y=1, b=100 - n)
    named = rf"{n} of 100 labels are of 2 micrographs.*x, y; given are a\.1\.jpg, b\.jpg, c\.jpg"
    labels = dict(only_known=True, what=LABELS)
    if refused:
        with pytest.raises(UserError, match=rf"{named}.*--allow-partial"):
            read_picks(paths, SIZES, **labels)
    with pytest.warns(InputWarning, match=named):
        (picks,) = read_picks(paths, SIZES, **labels, allow_partial=refused)
    assert picks.name == "b.jpg"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("what", [PICKS, TRUTH])
def test_coordinates_of_more_micrographs_than_wanted_are_fine_where_names_fit(boxes, what):
    paths = boxes(x=50, y=40, b=10)
    wanted = {name: SIZES[name] for name in ("b.jpg",)}
    with pytest.warns(InputWarning, match=f"90 of 100 {what} are of 2 micrographs"):
        (picks,) = read_picks(paths, wanted, only_known=True, what=what)
    assert picks.name == "b.jpg"
    with pytest.raises(UserError, match=r"x, y; .*, without .* a\.1\.jpg, c\.jpg.*allow"):
        read_picks(paths, SIZES, only_known=True, what=what)
    with pytest.warns(InputWarning, match="90 of 100"):
        read_picks(paths, SIZES, only_known=True, what=what, allow_partial=True)


@pytest.mark.filterwarnings("error")
def test_a_micrograph_that_is_named_without_a_pick_has_its_counterpart(boxes, tmp_path):
    both = {"b.jpg": SIZES["b.jpg"], "c.jpg": SIZES["c.jpg"]}
    assert len(read_picks(boxes(b=9, c=0), both, None, True)) == 2
    listed = {"b.jpg": [[40, 20, 8, 8]], "c.jpg": [[0, 0, 0, 0]], "x.jpg": [[1, 1, 8, 8]] * 9}
    write_coco(tmp_path / "truth.json", listed, (240, 160))
    sizes = dict.fromkeys(("b.jpg", "c.jpg"), (240, 160))  # nobody annotated c, but it is named
    with pytest.warns(InputWarning, match="9 of 10 true particles are of 1 micrographs"):
        (truth,) = read_picks([tmp_path / "truth.json"], sizes, None, True, what=TRUTH)
    assert truth.name == "b.jpg"


@pytest.mark.parametrize("what", [LABELS, PICKS, TRUTH])
def test_coordinates_none_of_which_are_of_a_known_micrograph_are_refused(boxes, what):
    with pytest.raises(UserError, match=r"no micrograph is in both.*x, y; .* a\.1\.jpg"):
        read_picks(boxes(x=1, y=1), SIZES, None, True, what=what, allow_partial=True)
    assert read_picks(boxes(picks=0), SIZES, None, True, what=what) == []


def test_picks_of_ignored_micrographs_are_left_out_without_a_word(boxes, recwarn):
    (picks,) = read_picks(boxes(x=9, b=1), SIZES, None, True, what=LABELS, ignored=["x.jpg"])
    assert picks.name == "b.jpg" and not recwarn


def test_coordinates_at_another_scale_than_the_micrographs_are_refused(tmp_path):
    rows = "X-Coordinate,Y-Coordinate,Diameter\n500,300,9\n30,20,9\n800,90,9\n"
    with pytest.raises(UserError, match=r"c\.jpg: 2 of 3 centres lie outside"):
        read_picks([write(tmp_path / "c.csv", rows)], SIZES)
    write_coco(tmp_path / "p.json", {"b.jpg": [[1, 2, 3, 4]]}, (120, 80))
    with pytest.raises(UserError, match=r"b\.jpg: annotated as 80 x 120 px"):
        read_picks([tmp_path / "p.json"], SIZES)


def test_files_of_no_known_kind_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"a\.dat is no file of picks: those end in \.star, \.box"):
        read_picks([write(tmp_path / "a.dat", "")], SIZES)
    with pytest.raises(UserError, match=r"gone\.star is not there"):
        read_picks([tmp_path / "gone.star"], SIZES)


def test_picks_that_a_format_cannot_hold_are_refused(tmp_path, rng):
    picks = some_picks(rng, "b.jpg")
    with pytest.raises(UserError, match=r"x/b\.mrc and b\.jpg would be one file"):
        write_picks(tmp_path, [picks, one_pick("x/b.mrc")], ["csv"])
    for name in ("star", "box", "cbox", "coco", "cs"):
        with pytest.raises(UserError, match=r"other\.jpg: its (size|height) is unknown"):
            write_picks(tmp_path, [one_pick("other.jpg")], [name])
    for name in ("box", "cbox", "csv", "coco"):
        with pytest.raises(UserError, match=r"b\.jpg: picks without a diameter"):
            write_picks(tmp_path, [one_pick("b.jpg", diameter=np.nan)], [name])
    assert not any(tmp_path.iterdir())


def test_names_in_files_of_picks_lead_to_no_file(tmp_path):
    text = "data_\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n"
    (tmp_path / "picks.star").write_text(f"{text}../../a.mrc 5 5\n/etc/passwd 5 5\n")
    with pytest.warns(InputWarning, match="1 of 2 picks are of 1 micrographs.*/etc/passwd"):
        found = read_picks([tmp_path / "picks.star"], {"a.jpg": (100, 100)}, only_known=True)
    assert [picks.name for picks in found] == ["a.jpg"]


# What is left out is said once


ZERO = {
    "box": ("b.box", "40 20 8 8\n", "40 20 0 8\n"),
    "cbox": ("b.cbox", "40 20 8 8 0.5\n", "40 20 8 0 0.5\n"),
    "csv": ("b.csv", "X-Coordinate,Y-Coordinate,Diameter\n44,24,8\n", "44,24,0\n"),
}


@pytest.mark.parametrize(("name", "first", "zero"), ZERO.values())
def test_boxes_without_area_are_said_and_refused_above_a_tenth(tmp_path, name, first, zero):
    row = first.splitlines(keepends=True)[-1]
    path = write(tmp_path / name, first + 9 * row + zero)
    with pytest.warns(InputWarning, match=rf"{name}: 1 of 11 boxes .*on b") as said:
        (picks,) = read_picks([path], SIZES)
    assert len(picks.scores) == 10 and len(said) == 1
    write(path, first + zero)
    with pytest.raises(UserError, match=rf"{name}: 1 of 2 boxes .*--allow-partial"):
        read_picks([path], SIZES)
    with pytest.warns(InputWarning, match="1 of 2 boxes"):
        (picks,) = read_picks([path], SIZES, allow_partial=True)
    assert len(picks.scores) == 1


def test_boxes_without_area_are_counted_over_all_files(tmp_path):
    paths = [write(tmp_path / f"{stem}.box", "40 20 8 8\n" * 9) for stem in ("a.1", "b", "c")]
    paths[1].write_text("40 20 8 8\n" * 9 + "1 1 0 0\n1 2 0 0\n")
    with pytest.warns(InputWarning, match=r"2 of 29 boxes .*on b\)") as said:
        read_picks(paths, SIZES)
    assert len(said) == 1


def test_centres_outside_are_counted_over_all_files(tmp_path):
    paths = [write(tmp_path / f"{stem}.box", "20 20 8 8\n" * 9) for stem in ("a.1", "b", "c")]
    for path in paths[:2]:
        path.write_text(path.read_text() + "900 20 8 8\n")
    with pytest.warns(InputWarning, match=r"2 of 29 centres .*on a\.1\.jpg, b\.jpg") as said:
        found = read_picks(paths, SIZES)
    assert len(said) == 1 and [len(p.scores) for p in found] == [10, 10, 9]


def test_boxes_of_unknown_images_are_said_for_picks_and_truth(tmp_path):
    content = coco({"b.jpg": [[1, 2, 3, 4]] * 20}, (240, 160))
    content["annotations"][0]["image_id"] = 7
    path = write(tmp_path / "p.json", json.dumps(content))
    with pytest.warns(InputWarning, match=r"p\.json: 1 of 20 annotations .*\(e\.g\. 7\)"):
        assert len(read_picks([path], SIZES)[0].scores) == 19


def test_all_coco_files_give_boxes_of_one_category(tmp_path):
    paths = []
    for stem, name in (("b", "particle"), ("c", "Ice")):
        content = coco({f"{stem}.jpg": [[1, 2, 3, 4]]}, SIZES[f"{stem}.jpg"])
        content["categories"][0]["name"] = name
        paths.append(write(tmp_path / f"{stem}.json", json.dumps(content)))
    with pytest.raises(UserError, match=r"'particle' in .*b\.json; 'Ice' in .*c\.json.*--category"):
        read_picks(paths, SIZES)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_json_as_windows_writes_it_is_read(tmp_path, encoding):
    text = json.dumps(coco({"b.jpg": [[1, 2, 3, 4]]}, (240, 160)))
    (tmp_path / "p.json").write_text(text, encoding=encoding)
    assert len(read_picks([tmp_path / "p.json"], SIZES)[0].scores) == 1
