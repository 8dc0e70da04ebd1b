"""What somebody clicked on micrographs -> train and val."""

import numpy as np
import pytest

from picking.errors import UserError
from picking.formats.picks import Picks
from picking.inputs.paths import find_micrographs
from picking.preprocessing.few_picks import Beside, read_splits, splits_of_picks
from tests.fixtures.data_sets import some_centres
from tests.preprocessing.test_windows import DIAMETER_PX, SIZE_PX, image_files, settings


def picks(name, centres_px):
    centres = np.array(centres_px, dtype=float).reshape(-1, 2)
    unknown = np.full(len(centres), np.nan)
    return Picks(name, centres, unknown, unknown, SIZE_PX)


def splits_read(paths, val_paths, labels):
    paths, val_paths, labels = (list(map(str, one or [])) for one in (paths, val_paths, labels))
    found = [find_micrographs(patterns) for patterns in (paths, val_paths)]
    return read_splits(*found, labels, None, DIAMETER_PX, 42, False)


def names_of(split):
    return [one.name for one in split.micrographs]


def test_a_fifth_of_the_picked_micrographs_is_held_out_and_the_unpicked_are_nobodys(
    tmp_path, capsys
):
    paths = image_files(tmp_path, [f"{i:02}.png" for i in range(12)])
    for n_picked, n_val in ((2, 1), (4, 1), (10, 2)):
        picked = [picks(path.name, [(100, 50 + i)]) for i, path in enumerate(paths[:n_picked])]
        splits = splits_of_picks(paths, picked, DIAMETER_PX, None, "x", 42)
        train, val = names_of(splits["train"]), names_of(splits["val"])
        assert len(val) == n_val and set(val) <= {one.name for one in picked}
        assert sorted(train + val) == [path.name for path in paths[:n_picked]]
        assert f"Learning from {n_picked} of 12 micrographs" in capsys.readouterr().out
        for one in splits["train"].micrographs:
            (wanted,) = [each for each in picked if each.name == one.name]
            assert one.centres_px.tolist() == wanted.centres_px.tolist()


def test_the_micrographs_named_for_validation_are_held_out(tmp_path):
    paths = image_files(tmp_path, ["a.png", "b.png", "c.png", "d.png"])
    picked = [picks("a.png", [(9, 9)]), picks("c.png", [(7, 8)])]
    splits = splits_of_picks(paths, picked, DIAMETER_PX, ["c.png", "d.png"], "x", 42)
    assert (names_of(splits["train"]), names_of(splits["val"])) == (["a.png"], ["c.png"])
    for val, lacking in ((["b.png", "d.png"], "val"), (["a.png", "c.png"], "train")):
        with pytest.raises(UserError, match=f"no pick on the 2 micrographs of split '{lacking}'"):
            splits_of_picks(paths, picked, DIAMETER_PX, val, "x", 42)


@pytest.mark.parametrize("centres", [[], [(9, 9)]])
def test_picks_on_fewer_than_two_micrographs_are_refused(tmp_path, centres):
    paths = image_files(tmp_path, ["a.png", "b.png"])
    picked = [picks("a.png", centres), picks("b.png", [])]
    with pytest.raises(UserError, match=f"picks lie on {len(centres)} .*, but two are needed"):
        splits_of_picks(paths, picked, DIAMETER_PX, None, "x", 42)


def test_neither_the_order_of_micrographs_nor_that_of_files_of_picks_matters(tmp_path):
    paths = image_files(tmp_path, [f"{n}.png" for n in "abcdef"])
    rng = np.random.default_rng(0)
    for path in paths[:5]:
        lines = [f"{x},{y},40" for y, x in some_centres(rng, 3, SIZE_PX)]
        text = "\n".join(["X-Coordinate,Y-Coordinate,Diameter", *lines])
        path.with_suffix(".csv").write_text(text)
    labels = [path.with_suffix(".csv") for path in paths[:5]]

    one = splits_read(paths, None, labels)
    other = splits_read(paths[::-1], None, labels[2:] + labels[:2])
    for name, n in (("train", 4), ("val", 1)):
        assert names_of(one[name]) == names_of(other[name]) and len(names_of(one[name])) == n
        assert one[name].annotations_hash == other[name].annotations_hash
        assert one[name].images_hash == other[name].images_hash
        members = (splits[name].micrographs for splits in (one, other))
        plans = [settings().plan_split(name, each, [SIZE_PX] * n) for each in members]
        for a, b in zip(*plans, strict=True):
            np.testing.assert_array_equal(a.labelled_px, b.labelled_px)
            np.testing.assert_array_equal(a.windows_px, b.windows_px)


@pytest.fixture
def named_twice(tmp_path):
    """Micrographs in two folders, a of both, with the files of picks on them."""
    for name, files in (("train", ["a.png", "b.png"]), ("val", ["a.png", "c.png", "b.tif"])):
        image_files(tmp_path / name, files)
    for stem in "abc":
        (tmp_path / f"{stem}.csv").write_text("X-Coordinate,Y-Coordinate,Diameter\n100,100,40\n")
    return tmp_path, [tmp_path / "train/a.png", tmp_path / "train/b.png"]


@pytest.mark.parametrize("name", ["a.png", "b.tif"])
def test_two_micrographs_of_one_name_are_not_taken_for_one(named_twice, name):
    folder, paths = named_twice
    with pytest.raises(UserError, match=rf"train/{name[0]}\.png and .*val/{name} have one name"):
        splits_read(paths, [folder / "val" / name], [folder / "a.csv", folder / "b.csv"])


def test_a_micrograph_of_both_patterns_is_validations_alone(named_twice):
    folder, paths = named_twice
    val_paths, labels = [folder / "val/c.png", paths[1]], [folder / f"{n}.csv" for n in "abc"]
    splits = splits_read(paths, val_paths, labels)
    assert (names_of(splits["train"]), names_of(splits["val"])) == (["a.png"], ["b.png", "c.png"])


# What is known beside picks


def hashes(splits):
    return [splits[name].annotations_hash for name in ("train", "val")]


def test_what_is_known_beside_picks_goes_into_both_splits_and_their_hash(tmp_path):
    paths = image_files(tmp_path, ["a.png", "b.png", "c.png", "d.png"])
    picked = [picks("a.png", [(9, 9)]), picks("c.png", [(7, 8)])]
    given = (paths, picked, DIAMETER_PX, ["c.png", "d.png"], "x", 42)
    plain = hashes(splits_of_picks(*given))
    (tmp_path / "d.junk").write_bytes(b"1")
    nones = [picks("b.png", [(3, 4)]), picks("c.png", [(200, 300)]), picks("a.png", [])]
    masks = {name: tmp_path / "d.junk" for name in ("a.png", "c.png")}
    splits = splits_of_picks(*given, {}, nones, masks, {"d.png", "b.png"})
    members = [one for split in splits.values() for one in split.micrographs]
    # d of val has no pick, but a complete micrograph tells something all the same
    assert [one.name for one in members] == ["a.png", "b.png", "c.png", "d.png"]
    assert [one.negatives_px.tolist() for one in members] == [[], [[3, 4]], [[200, 300]], []]
    assert [one.complete for one in members] == [False, True, False, True]
    assert [one.junk is not None for one in members] == [True, False, True, False]
    for changed in (
        ({}, nones, {}, ()), ({}, (), masks, ()), ({}, (), {}, {"a.png", "c.png"})
    ):  # fmt: skip
        for one, other in zip(hashes(splits_of_picks(*given, *changed)), plain, strict=True):
            assert one != other
    before = hashes(splits_of_picks(*given, {}, (), masks, ()))
    (tmp_path / "d.junk").write_bytes(b"2")
    assert hashes(splits_of_picks(*given, {}, (), masks, ())) != before
    assert hashes(splits_of_picks(*given, {}, (), {}, ())) == plain


def test_micrographs_that_are_left_out_are_not_there_whatever_is_said_of_them(tmp_path, capsys):
    paths = image_files(tmp_path, ["a.png", "b.png", "c.png"])
    for one in paths:
        one.with_suffix(".csv").write_text("X-Coordinate,Y-Coordinate,Diameter\n100,100,40\n")
    given = (find_micrographs([f"{tmp_path}/*.png"]), {}, [f"{tmp_path}/*.csv"], None, DIAMETER_PX)
    beside = Beside(complete=["b", "a"], left_out=["b.mrc", "z.mrc"])
    splits = read_splits(*given, 42, False, beside=beside)
    assert sorted(names_of(splits["train"]) + names_of(splits["val"])) == ["a.png", "c.png"]
    assert "Left out, as they are marked: 1 of 3 micrographs" in capsys.readouterr().out
    with pytest.raises(UserError, match="all micrographs are marked to be left out"):
        read_splits(*given, 42, False, beside=Beside(left_out=["a", "b", "c"]))
