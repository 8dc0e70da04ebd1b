import json

import numpy as np
import pytest

from picking.errors import InputWarning, UserError
from picking.formats.cryoppp_csv import read_csv_of_one
from picking.formats.picks import inside
from picking.inputs.annotations import (
    find_splits,
    read_split,
    say_common,
    say_csvs_without_image,
)
from tests.fixtures.data_sets import (
    DIAMETER_PX,
    SIZE_PX,
    boxes,
    some_centres,
    write_coco,
    write_csv,
)

CENTRES = np.array([[40.0, 50.0], [100.0, 200.0], [250.5, 300.25]])


def data_root(tmp_path, images, on_disk=None, size_px=SIZE_PX):
    """A train split: ``images`` (file name -> boxes) in the JSON, ``on_disk`` as empty files."""
    for name in images if on_disk is None else on_disk:
        path = tmp_path / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    write_coco(tmp_path / "annotations" / "instances_train.json", images, size_px)
    return tmp_path


def csv_root(tmp_path, on_disk, **rows):
    """A train split without a JSON: ``on_disk`` as empty files, and a CSV of each of ``rows``."""
    root = data_root(tmp_path, {}, on_disk)
    (root / "annotations" / "instances_train.json").unlink()
    for stem, centres in rows.items():
        write_csv(root / "particle_coordinates" / f"{stem}.csv", centres)
    return root


def refused(root, words):
    with pytest.raises(UserError, match=words):
        read_split(root, "train")


def change_json(root, change):
    path = root / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# The habits of the released data set


def test_the_released_json_with_iscrowd_on_every_box_loses_no_particle(data_set):
    content = json.loads((data_set.root / "annotations" / "instances_train.json").read_text())
    assert {box["iscrowd"] for box in content["annotations"]} == {1}
    assert isinstance(content["info"], list) and content["images"][0]["id"] == 0
    split = read_split(data_set.root, "train")
    assert [m.name for m in split.micrographs] == ["train_00.jpg", "train_01.jpg", "train_02.jpg"]
    for micrograph in split.micrographs:
        np.testing.assert_allclose(
            micrograph.centres_px, data_set.centres_px[micrograph.path.stem], atol=1e-9
        )
        assert set(micrograph.diameters_px) == {DIAMETER_PX}
        assert micrograph.size_px == SIZE_PX


def test_json_and_csvs_of_the_same_micrographs_say_the_same(data_set, tmp_path):
    (tmp_path / "train").symlink_to(data_set.root / "train")
    (tmp_path / "particle_coordinates").symlink_to(data_set.root / "particle_coordinates")
    from_csv, from_json = read_split(tmp_path, "train"), read_split(data_set.root, "train")
    assert "CSV" in from_csv.source and "json" in from_json.source
    for a, b in zip(from_csv.micrographs, from_json.micrographs, strict=True):
        assert a.name == b.name
        np.testing.assert_allclose(a.centres_px, b.centres_px, atol=1e-9)
        np.testing.assert_allclose(a.diameters_px, b.diameters_px)


def test_boxes_hanging_over_the_border_keep_their_centre(tmp_path):
    hanging = [[-6, -9, 20, 30], [SIZE_PX[1] - 5, SIZE_PX[0] - 8, 8, 14]]
    (micrograph,) = read_split(data_root(tmp_path, {"a.jpg": hanging}), "train").micrographs
    assert micrograph.centres_px.tolist() == [[6, 4], [SIZE_PX[0] - 1, SIZE_PX[1] - 1]]
    assert micrograph.diameters_px.tolist() == [25, 11]
    assert inside(micrograph, SIZE_PX).all()


def test_a_zero_box_means_that_nobody_annotated_the_micrograph(tmp_path):
    root = data_root(tmp_path, {"a.jpg": boxes(CENTRES), "b.jpg": [[0, 0, 0, 0]]})
    split = read_split(root, "train")
    assert [m.name for m in split.micrographs] == ["a.jpg"]
    assert split.n_images_unannotated == 1


def test_boxes_without_area_are_dropped_and_counted(tmp_path):
    listed = [*boxes(CENTRES), [0, 0, 0, 0], [30, 30, 0, 12]]
    root = data_root(tmp_path, {"a.jpg": listed, "b.jpg": [[0, 0, 0, 0]]})
    refused(root, r"instances_train\.json: 2 of 5 boxes .*a\.jpg.*--allow-partial")
    with pytest.warns(InputWarning, match=r"2 of 5 boxes"):
        (micrograph,) = read_split(root, "train", allow_partial=True).micrographs
    assert len(micrograph.centres_px) == 3 and micrograph.n_zero_area == 2


@pytest.mark.parametrize("suffix", [".mrc", ".png", ".tif", ".TIFF", ".jpeg"])
def test_a_jpg_name_stands_for_whatever_the_source_was(tmp_path, suffix):
    root = data_root(tmp_path, {"a.1.jpg": boxes(CENTRES)}, on_disk=[f"a.1{suffix}"])
    (micrograph,) = read_split(root, "train").micrographs
    assert micrograph.path.name == f"a.1{suffix}" and micrograph.name == "a.1.jpg"


def test_of_one_micrograph_in_two_formats_the_jpg_is_taken_and_counted_once(tmp_path):
    split = read_split(csv_root(tmp_path, ["a.mrc", "a.jpg"], a=CENTRES), "train")
    assert [m.path.name for m in split.micrographs] == ["a.jpg"]
    assert split.n_images_unannotated == 0


def test_hidden_files_and_folders_called_like_images_are_no_micrographs(tmp_path):
    on_disk = ["a.jpg", "._b.jpg", ".cache/c.jpg", "d.jpg/readme.txt"]
    root = data_root(tmp_path, {"a.jpg": boxes(CENTRES)}, on_disk)
    assert read_split(root, "train").n_images_unannotated == 0


# CSVs


def test_a_csv_without_rows_means_that_nobody_annotated_the_micrograph(tmp_path):
    split = read_split(csv_root(tmp_path, ["a.jpg", "b.jpg"], a=CENTRES, b=[]), "train")
    assert [m.name for m in split.micrographs] == ["a.jpg"] and split.n_images_unannotated == 1


def test_one_csv_for_two_micrographs_is_refused(tmp_path):
    root = csv_root(tmp_path, ["10017/a.jpg", "10028/a.jpg"], a=CENTRES)
    refused(root, r"a\.csv is for both .*10017/a\.jpg and .*10028/a\.jpg")


# Protein ids


def test_empiar_ids_come_from_the_mapping_file_else_from_the_folder(tmp_path):
    names = ["10017/a.jpg", "10028/b.jpg", "others/c.jpg"]
    root = data_root(tmp_path, {name: boxes(CENTRES) for name in names})
    assert [m.empiar_id for m in read_split(root, "train").micrographs] == ["10017", "10028", None]
    (root / "empiar_ids.csv").write_text("file_name,empiar_id\nb.mrc,10081\nc.jpg,10093\nx.jpg\n")
    ids = [m.empiar_id for m in read_split(root, "train").micrographs]
    assert ids == ["10017", "10081", "10093"]


@pytest.mark.parametrize("content", [b"name,id\na.jpg,1\n", b"", b"file_name,empiar_id\n\xff,1\n"])
def test_a_malformed_mapping_file_is_refused(tmp_path, content):
    root = data_root(tmp_path, {"a.jpg": boxes(CENTRES)})
    (root / "empiar_ids.csv").write_bytes(content)
    refused(root, r"empiar_ids\.csv")


# Which file belongs to which name


def test_images_in_folders_are_found_by_path_even_where_file_names_repeat(tmp_path):
    images = {"10017/a.jpg": boxes(CENTRES), "10028/a.jpg": boxes(CENTRES[:2])}
    root = data_root(tmp_path, images, on_disk=["10017/a.mrc", "10028/a.mrc"])
    by_name = {m.name: m for m in read_split(root, "train").micrographs}
    assert by_name["10017/a.jpg"].path == root / "train" / "10017" / "a.mrc"
    assert by_name["10028/a.jpg"].path == root / "train" / "10028" / "a.mrc"


def test_images_in_folders_are_found_by_file_name_alone(tmp_path):
    root = data_root(tmp_path, {"a.jpg": boxes(CENTRES)}, on_disk=["10017/a.mrc"])
    assert read_split(root, "train").micrographs[0].empiar_id == "10017"


def test_two_names_for_one_image_are_refused(tmp_path):
    images = {"a.jpg": boxes(CENTRES), "a.png": boxes(CENTRES)}
    refused(
        data_root(tmp_path, images, on_disk=["a.mrc"]), r"'a\.jpg' and 'a\.png' are both .*a\.mrc"
    )


@pytest.mark.parametrize(
    "name",
    ["../val/a.jpg", "b/../../a.jpg", "/etc/a.jpg", "..\\val\\a.jpg", "a" * 300 + ".jpg",
     "a\x00b.jpg", "\ud800.jpg"],
)  # fmt: skip
def test_a_file_name_that_leaves_the_folder_or_is_none_is_refused(tmp_path, name):
    root = data_root(tmp_path, {"b.jpg": boxes(CENTRES), "a.jpg": boxes(CENTRES)})
    change_json(root, lambda content: content["images"][1].update(file_name=name))
    refused(root, r"instances_train\.json: file_name")


@pytest.mark.parametrize("link", ["a.jpg", "elsewhere"])
def test_a_link_out_of_the_folder_is_refused(tmp_path, link):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.jpg").touch()
    name = "a.jpg" if link == "a.jpg" else "elsewhere/a.jpg"
    root = data_root(tmp_path / "root", {name: boxes(CENTRES)}, on_disk=["b.jpg"])
    (root / "train" / link).symlink_to(outside / "a.jpg" if link == "a.jpg" else outside)
    refused(root, "is a link out of")


# What is counted, and refused above a fraction


def test_annotated_images_that_are_not_there_are_counted_and_refused_above_a_tenth(tmp_path):
    images = {f"{i:02}.jpg": boxes(CENTRES) for i in range(20)}
    root = data_root(tmp_path, images, on_disk=list(images)[2:])
    with pytest.warns(InputWarning, match=r"18 of 20 .*missing: 00\.jpg, 01\.jpg"):
        assert read_split(root, "train").n_images_missing == 2
    (root / "train" / "02.jpg").unlink()
    refused(root, r"17 of 20 .*00\.jpg, 01\.jpg, 02\.jpg.*--allow-partial")
    with pytest.warns(InputWarning, match="17 of 20"):
        assert read_split(root, "train", allow_partial=True).n_images_missing == 3


def test_no_common_image_shows_both_lists_of_names(tmp_path):
    root = data_root(tmp_path, {"a.jpg": boxes(CENTRES)}, on_disk=["b.mrc"])
    refused(root, r"0 of 1 .*missing: a\.jpg; there are: b\.mrc")


def test_images_without_annotation_are_counted_and_refused_above_a_half(tmp_path):
    on_disk = ["a.jpg", "b.jpg"]
    root = data_root(tmp_path, {"a.jpg": boxes(CENTRES)}, on_disk)
    assert read_split(root, "train").n_images_unannotated == 1
    (root / "train" / "c.jpg").touch()
    refused(root, r"2 of 3 images in .* have no annotation .*b, c.*--allow-partial")
    assert read_split(root, "train", allow_partial=True).n_images_unannotated == 2


@pytest.mark.parametrize("n_others", [1, 2])
def test_csvs_of_no_image_are_said_and_refused_above_a_tenth(tmp_path, n_others):
    stems = [f"{i:02}" for i in range(10)]
    root = csv_root(tmp_path, [f"{s}.jpg" for s in stems[1:]], **dict.fromkeys(stems, CENTRES))
    (root / "val").mkdir()
    (root / "val/00.tif").touch()  # of another split, which is not asked for
    for stem in ("x", "y")[:n_others]:
        write_csv(root / "particle_coordinates" / f"{stem}.csv", CENTRES)
    words = rf"{n_others} of {10 + n_others} CSVs .*x\.csv"
    if n_others == 2:
        with pytest.raises(UserError, match=f"{words}.*--allow-partial"):
            say_csvs_without_image(root, ["train"], False)
    with pytest.warns(InputWarning, match=words):
        say_csvs_without_image(root, ["train"], n_others == 2)


@pytest.mark.filterwarnings("error")
def in_two_splits(root, train, val):
    """Micrographs without pixels and a CSV of 10 particles for each name; the splits as read."""
    for split, names in (("train", train), ("val", val)):
        (root / split).mkdir()
        for name in names:
            (root / split / f"{name}.jpg").touch()
    for n, name in enumerate({*train, *val}):
        places = some_centres(np.random.default_rng(n), 10)
        write_csv(root / "particle_coordinates" / f"{name}.csv", places)
    return [read_split(root, split) for split in ("train", "val")]


def test_one_csv_for_micrographs_of_two_splits_is_warned_of(tmp_path):
    """Of one name, though perhaps of two proteins; a copy of a micrograph is the same."""
    splits = in_two_splits(tmp_path, ("a", "001"), ("001", "b"))
    with pytest.warns(InputWarning, match=r"^1 micrographs .*001\.jpg in train and val"):
        say_common(splits)


@pytest.mark.filterwarnings("error")
def test_splits_with_micrographs_of_their_own_are_not_spoken_of(tmp_path):
    say_common(in_two_splits(tmp_path, ("a", "b"), ("c", "d")))


def test_csvs_beside_a_json_are_not_used_and_not_spoken_of(tmp_path):
    root = data_root(tmp_path, {"a.jpg": boxes(CENTRES)})
    write_csv(root / "particle_coordinates" / "x.csv", CENTRES)
    say_csvs_without_image(root, ["train"], False)


def test_boxes_of_images_that_are_not_listed_are_counted(tmp_path):
    root = data_root(tmp_path, {"a.jpg": boxes([(10.0 * n, 9.0) for n in range(20)])})
    change_json(root, lambda content: content["annotations"][0].update(image_id=5))
    with pytest.warns(InputWarning, match="1 of 20 annotations name an image_id"):
        split = read_split(root, "train")
    assert split.n_annotations_orphaned == 1 and len(split.micrographs[0].centres_px) == 19


@pytest.mark.parametrize("listed", [[[0, 0, 0, 0]], []])
def test_a_split_with_images_but_no_particle_is_refused(tmp_path, listed):
    refused(data_root(tmp_path, {"a.jpg": listed}), "no particle is listed")


def test_a_split_without_annotation_says_what_was_looked_for(tmp_path):
    root = csv_root(tmp_path, ["a.jpg", "b.jpg"])
    refused(root, r"'train' .*instances_train\.json .*2 images in .*particle_coordinates")


def test_a_folder_without_images_is_refused(tmp_path):
    root = data_root(tmp_path, {"a.jpg": boxes(CENTRES)}, on_disk=["readme.txt"])
    refused(root, r"train holds no image \(.*\.jpg.*\.mrc\)")


# Splits and hashes


def test_the_splits_that_are_there_are_read_in_their_usual_order(tmp_path):
    for name in ("test", "train", "else"):
        (tmp_path / name).mkdir()
    assert find_splits(tmp_path) == ["train", "test"]
    assert find_splits(tmp_path, ["test", "train", "test"]) == ["train", "test"]
    with pytest.raises(UserError, match=r"split 'val' has no folder in .*: train, test"):
        find_splits(tmp_path, ["val"])


def test_the_hashes_follow_annotations_and_images_and_nothing_else(tmp_path):
    root = data_root(tmp_path, {"b.jpg": boxes(CENTRES), "a.jpg": boxes(CENTRES[:2])})
    first = read_split(root, "train")
    assert [m.name for m in first.micrographs] == ["a.jpg", "b.jpg"]
    (root / "train" / "a.jpg").write_bytes(b"another image")
    second = read_split(root, "train")
    assert second.annotations_hash == first.annotations_hash
    assert second.images_hash != first.images_hash
    change_json(root, lambda content: content["annotations"][1].update(bbox=[1, 2, 3, 4]))
    third = read_split(root, "train")
    assert third.annotations_hash != first.annotations_hash
    assert third.images_hash == second.images_hash


# The real micrographs


def test_the_real_data_set_is_read_whole_and_its_csvs_agree(empiar10017):
    for split, n in (("train", 3696), ("val", 1299), ("test", 2665)):
        found = read_split(empiar10017, split)
        assert sum(len(m.centres_px) for m in found.micrographs) == n
        assert all(set(m.diameters_px) == {108} for m in found.micrographs)
        assert found.n_images_unannotated == found.n_images_missing == 0
        for m in found.micrographs:
            path = empiar10017 / "particle_coordinates" / f"{m.path.stem}.csv"
            by_csv = np.rint(read_csv_of_one(path).centres_px)
            assert sorted(np.rint(m.centres_px).tolist()) == sorted(by_csv.tolist())


# Categories and duplicates


def with_ice(root, n_ice):
    """Call the last boxes of the split's JSON ice."""

    def change(content):
        content["categories"] = [{"id": 1, "name": "particle"}, {"id": 2, "name": "ice"}]
        for box in content["annotations"][-n_ice:]:
            box["category_id"] = 2

    change_json(root, change)


def test_another_category_is_another_annotation_to_a_store(tmp_path):
    root = data_root(tmp_path, {"a.jpg": boxes(CENTRES)})
    with_ice(root, 2)
    with pytest.warns(InputWarning, match=r"instances_train\.json: 2 boxes of 'ice'"):
        particles = read_split(root, "train")
    with pytest.warns(InputWarning, match="1 boxes of 'particle'"):
        ice = read_split(root, "train", "ice")
    assert [len(split.micrographs[0].centres_px) for split in (particles, ice)] == [1, 2]
    assert (particles.category, particles.n_annotations_of_others) == ("particle", 2)
    assert particles.annotations_hash != ice.annotations_hash


def test_csvs_know_no_categories(tmp_path):
    with pytest.raises(UserError, match="--category ice: the CSVs"):
        read_split(csv_root(tmp_path, ["a.jpg"], a=CENTRES), "train", "ice")


@pytest.mark.parametrize("kind", [data_root, csv_root])
def test_a_particle_that_is_listed_twice_counts_once(tmp_path, kind):
    twice = [*CENTRES, *CENTRES[:2] + 0.5]
    root = (
        data_root(tmp_path, {"a.jpg": boxes(twice)})
        if kind is data_root
        else csv_root(tmp_path, ["a.jpg"], a=twice)
    )
    with pytest.warns(InputWarning, match=r"2 of 5 particles are listed twice.*on a"):
        split = read_split(root, "train")
    np.testing.assert_allclose(split.micrographs[0].centres_px, CENTRES)


def test_rows_without_a_diameter_are_counted_over_the_split(tmp_path):
    root = csv_root(tmp_path, ["a.jpg", "b.jpg"], a=CENTRES, b=CENTRES)
    path = root / "particle_coordinates" / "b.csv"
    path.write_text(path.read_text() + "5,6,0,0,0\n")
    refused(root, r"2 CSV files .*: 1 of 7 boxes .*on b")
    with pytest.warns(InputWarning, match="1 of 7 boxes"):
        assert len(read_split(root, "train", allow_partial=True).micrographs) == 2


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("split", ["train", "val"])
def test_of_the_real_data_set_nothing_is_left_out_or_merged(empiar10017, split):
    assert read_split(empiar10017, split).category == "particle"
