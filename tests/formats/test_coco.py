import json

import pytest

from picking.errors import InputWarning, UserError
from picking.formats.coco import read_coco
from picking.formats.picks import tell_of_zero_area
from tests.fixtures.data_sets import SIZE_PX, boxes, coco

CENTRES = [(40.0, 50.0), (100.0, 200.0), (250.5, 300.25)]


def read(tmp_path, content, *args):
    path = tmp_path / "a.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_coco(path, *args)


def test_iscrowd_and_area_are_not_looked_at_and_boxes_without_area_are_counted(tmp_path):
    listed = [*boxes(CENTRES), [0, 0, 0, 0], [30, 30, 0, 12]]
    content = coco({"a.jpg": listed, "b.jpg": [], "c.jpg": [[0, 0, 0, 0]]})
    for box in content["annotations"]:
        box.update(iscrowd=1, area=0)
        del box["id"], box["category_id"]
    found = read(tmp_path, content)
    first, second = found.records  # nobody annotated the third
    assert first.centres_px.tolist() == [list(centre) for centre in CENTRES]
    assert (first.n_zero_area, len(second.centres_px), found.n_orphaned) == (2, 0, 0)


@pytest.mark.parametrize("ids", [[0, 1], [1, 0], [-7, 90071992547], [0.5, 2], ["0001", "b"]])
def test_image_ids_may_be_any_numbers_or_texts(tmp_path, ids):
    content = coco({"a.jpg": boxes(CENTRES), "b.jpg": boxes(CENTRES[:1])})
    for image in content["images"]:
        image["id"] = ids[image["id"]]
    for box in content["annotations"]:
        box["image_id"] = ids[box["image_id"]]
    records = read(tmp_path, content).records
    assert [(r.name, len(r.centres_px)) for r in records] == [("a.jpg", 3), ("b.jpg", 1)]


@pytest.mark.parametrize("image_id", [5, None, [1], "0"])
def test_boxes_of_unknown_images_are_counted_and_refused_above_a_tenth(tmp_path, image_id):
    content = coco({"a.jpg": boxes([CENTRES[0]] * 20)})
    for n, box in enumerate(content["annotations"][:3]):
        if n == 2:
            with pytest.warns(InputWarning, match=r"a\.json: 2 of 20 annotations name an image_id"):
                found = read(tmp_path, content)
            assert (len(found.records[0].centres_px), found.n_orphaned) == (18, 2)
        box["image_id"] = image_id
    with pytest.raises(UserError, match="3 of 20 annotations name an image_id"):
        read(tmp_path, content)


def change_image(**values):
    return lambda content: content["images"][0].update(values)


def change_box(**values):
    return lambda content: content["annotations"][1].update(values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("images"), "'images' must be a list"),
        (lambda c: c.update(annotations={"0": []}), "'annotations' must be a list"),
        (lambda c: c["annotations"].append(7), "'annotations' must be a list"),
        (change_image(file_name=None), r"images\[0\] has no 'file_name'"),
        (change_image(file_name="."), r"images\[0\] has no 'file_name'"),
        (change_image(id=None), r"images\[0\] .*'id'"),
        (change_image(id=[1]), r"images\[0\] .*'id'"),
        (lambda c: c["images"].append({**c["images"][0], "file_name": "b"}), r"images\[1\] .*'id'"),
        (lambda c: c["images"].append({**c["images"][0], "id": 9}), r"'a\.jpg' stands twice"),
        (change_image(width=0), "'width' must be"),
        (change_image(height="320"), "'height' must be"),
        (change_image(height=0.5), "'height' must be"),
        (change_image(height=float("inf")), "'height' must be"),
        (change_image(height=10**400), "'height' must be"),
        *((change_box(bbox=box), r"annotations\[1\]: 'bbox'") for box in (
            [1, 2, 3], "1 2 3 4", [1, 2, None, 4], [1, 2, True, 4], [1, float("nan"), 3, 4],
            [1, 10**400, 3, 4], ["1", "2", "3", "4"],
        )),
        (change_box(bbox=None, segmentation=[[1, 2, 3, 4]]), r"annotations\[1\] has no 'bbox'"),
        *((change_box(score=score), r"annotations\[1\]: 'score'") for score in (
            "high", float("inf"), [0.5], True,
        )),
    ],
)  # fmt: skip
def test_malformed_json_is_named_with_the_place(tmp_path, change, words):
    content = coco({"a.jpg": boxes(CENTRES)})
    change(content)
    with pytest.raises(UserError, match=rf"a\.json.*{words}"):
        read(tmp_path, content)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"images": [}', "\ufeff{}", "[" * 100_000])
def test_a_file_that_is_no_coco_json_is_refused(tmp_path, text):
    with pytest.raises(UserError, match=r"a\.json"):
        read(tmp_path, text)


# Categories


def of_categories(**n_boxes):
    """COCO of one image: so many boxes of each category; ids from 1 in this order."""
    names = list(n_boxes)
    centres = [(20.0 * n, 30.0) for n in range(sum(n_boxes.values()))]
    content = coco({"a.jpg": boxes(centres)})
    content["categories"] = [{"id": n, "name": name} for n, name in enumerate(names, start=1)]
    ids = [n for n, name in enumerate(names, start=1) for _ in range(n_boxes[name])]
    for box, key in zip(content["annotations"], ids, strict=True):
        box["category_id"] = key
    return content


def taken(tmp_path, content, *args):
    """How many boxes are read, and the category."""
    found = read(tmp_path, content, *args)
    return sum(len(record.centres_px) for record in found.records), found.category


@pytest.mark.filterwarnings("error")
def test_one_category_in_use_is_taken_whatever_it_is_called(tmp_path):
    assert taken(tmp_path, of_categories(ice=3, particle=0)) == (3, "ice")
    content = of_categories(protein=3)
    content["categories"] = "none"
    assert taken(tmp_path, content) == (3, None)
    content = of_categories(protein=3, nobody=1)  # the box that says that nobody looked
    content["annotations"][3]["bbox"] = [0, 0, 0, 0]
    with pytest.raises(UserError, match="1 of 4 boxes"):
        tell_of_zero_area(read(tmp_path, content).records, "a.json", False)
    assert taken(tmp_path, content) == (3, "protein")


@pytest.mark.parametrize("name", ["particle", "Particles", " PARTICLE "])
def test_of_several_the_particles_are_taken_and_the_others_said_in_one_line(tmp_path, name):
    content = of_categories(**{"ice contamination": 15, "carbon": 1, name: 20})
    content["annotations"][0]["bbox"] = None  # an outline alone, which nobody asks for
    with pytest.warns(InputWarning) as said:
        assert taken(tmp_path, content) == (20, name)
    (line,) = said
    assert "15 boxes of 'ice contamination', 1 boxes of 'carbon'" in str(line.message)


def test_several_of_which_none_is_called_particle_are_refused_until_one_is_named(tmp_path):
    content = of_categories(top=3, side=5, ice=0)
    with pytest.raises(UserError, match=r"a\.json: .*'top' \(3\), 'side' \(5\): .*--category"):
        read(tmp_path, content)
    with pytest.warns(InputWarning, match="5 boxes of 'side' are left out"):
        assert taken(tmp_path, content, "Top") == (3, "top")
    with pytest.raises(UserError, match=r"--category edge .*none|'top' .*--category edge"):
        read(tmp_path, content, "edge")
    with pytest.raises(UserError, match=r"'particle' .*'particles'.*--category"):
        read(tmp_path, of_categories(particle=3, particles=2))


def test_a_category_that_is_not_defined_is_one_more(tmp_path):
    content = of_categories(particle=3, ice=2)
    del content["categories"][1]
    with pytest.warns(InputWarning, match="2 boxes of 'id 2'"):
        assert taken(tmp_path, content) == (3, "particle")
    with pytest.warns(InputWarning, match="3 boxes of 'particle'"):
        assert taken(tmp_path, content, "id 2") == (2, "id 2")
    del content["annotations"][0]["category_id"]
    with pytest.warns(InputWarning, match="1 boxes of 'none'"):
        assert taken(tmp_path, content) == (2, "particle")


# Boxes


def test_pairs_of_corners_are_refused_as_such(tmp_path):
    corners = [[x, y, x + 20, y + 20] for y, x in [*CENTRES, (5, 6), (300, 20), (20, 300)]]
    with pytest.raises(UserError, match=r"a\.json: .* boxes leave their image.*\[x1, y1, x2, y2\]"):
        read(tmp_path, coco({"a.jpg": corners}))


def test_boxes_that_are_larger_than_their_image_are_refused(tmp_path):
    large = [[1, 2, SIZE_PX[1] + 1, 30], *boxes(CENTRES)]
    with pytest.raises(UserError, match=r"1 of 4 boxes are larger .*\[1\.0, 2\.0, 385\.0, 30\.0\]"):
        read(tmp_path, coco({"a.jpg": large}))


@pytest.mark.filterwarnings("error")
def test_boxes_near_the_first_corner_are_no_pairs_of_corners(tmp_path):
    near = [[2, 3, 20, 20], [1, 1, 20, 20], [-4, 5, 20, 20], [0, 0, 20, 20], [9, 9, 20, 20]]
    assert taken(tmp_path, coco({"a.jpg": near}))[0] == 5
