"""Names of micrographs: strange ones, and coordinates whose names match only in part."""

import json
import shutil
import sys

import pytest

import preprocess_coco_full_dataset
from picking.errors import InputWarning, UserError
from picking.formats.coordinates import read_picks
from picking.stores.patches import PatchStore
from tests.fixtures import patch_stores
from tests.fixtures.data_sets import boxes, write_coco
from tests.fixtures.pickers import call, refused

STRANGE = ["a\tb\n", "caf\udce9", "$_$ 'q' \"r\"", "x" * 245, "\u7c92"]
IN_STAR = ["data_001", "_001", "loop_1", "scan#1", "a b", "$a$", "\u7c92", "x" * 245]


@pytest.fixture
def renamed(disks, tmp_path):
    """Copy micrographs of disks to a folder under other names; return centres by name."""

    def copy(stems):
        (tmp_path / "raw").mkdir()
        centres = {}
        for i, stem in enumerate(stems):
            source = sorted(disks.centres)[i % 3]
            shutil.copy(disks.folder / source, tmp_path / "raw" / f"{stem}.jpg")
            centres[f"{stem}.jpg"] = disks.centres[source]
        listed = {name: boxes(c) for name, c in centres.items()}
        write_coco(tmp_path / "truth.json", listed, disks.sizes["a.jpg"])
        return centres

    return copy


def flags(checkpoint, tmp_path, *more):
    return (
        "--checkpoint", checkpoint, "--micrographs", tmp_path / "raw/*.jpg", "--device", "cpu",
        "--diameter", "20px", "--output", tmp_path / "out", *more,
    )  # fmt: skip


def test_names_that_star_files_hold_come_back_from_all_that_picking_writes(
    renamed, checkpoint, tmp_path, disks
):
    centres = renamed(IN_STAR)
    sizes = dict.fromkeys(centres, disks.sizes["a.jpg"])
    kinds = ("star", "box", "cbox", "csv", "coco")
    call(*flags(checkpoint, tmp_path, "--overlay", "--heatmap", "--formats", *kinds))
    for kind in kinds:
        found = read_picks(sorted((tmp_path / "out" / kind).iterdir()), sizes)
        assert {p.name for p in found} == set(centres), kind
    call(*flags(checkpoint, tmp_path, "--resume", "--one-file", "--formats", "star"))
    found = read_picks([tmp_path / "out/picks.star"], sizes, only_known=True)
    assert {p.name for p in found} == set(centres)
    printed = call(
        "--micrographs", tmp_path / "raw/*.jpg", "--evaluate", tmp_path / "truth.json", "--picks",
        tmp_path / "out/picks.star", "--output", tmp_path / "scored", "--overlay",
    )  # fmt: skip
    assert f"{len(IN_STAR)} micrographs" in printed
    assert len(list((tmp_path / "scored/overlays").iterdir())) == len(IN_STAR)


def test_strange_names_are_picked_evaluated_and_drawn_in_formats_that_hold_them(
    renamed, checkpoint, tmp_path, disks
):
    centres = renamed(STRANGE)
    more = ("--formats", "box", "coco", "csv", "--overlay", "--heatmap")
    printed = call(*flags(checkpoint, tmp_path, *more, "--evaluate", tmp_path / "truth.json"))
    assert f"{len(STRANGE)} micrographs, inside a margin" in printed
    sizes = dict.fromkeys(centres, disks.sizes["a.jpg"])
    for kind in ("box", "coco", "csv"):
        found = read_picks(sorted((tmp_path / "out" / kind).iterdir()), sizes)
        assert {p.name for p in found} == set(centres), kind
    for kind in ("overlays", "heatmaps", "scored"):
        assert len(list((tmp_path / "out" / kind).iterdir())) == len(STRANGE)


@pytest.mark.parametrize("stem", [*STRANGE[:3], "x" * 250, "a\\b"])
def test_names_that_would_not_come_back_are_refused_before_a_network_is_loaded(
    renamed, checkpoint, tmp_path, monkeypatch, stem
):
    renamed(["a", stem])
    monkeypatch.delitem(sys.modules, "picking.detection.picker", raising=False)
    sentence = refused(*flags(checkpoint, tmp_path))
    assert "the micrograph's name" in sentence and "rename the file" in sentence
    assert "picking.detection.picker" not in sys.modules and not (tmp_path / "out").exists()


@pytest.mark.parametrize("tasks", [["patches"], ["segmentation"]])
def test_a_store_is_made_of_strange_names_with_its_pictures(own_data, tmp_path, tasks):
    for split, stems in (("train", STRANGE[:3]), ("val", STRANGE[3:])):
        path = own_data / "annotations" / f"instances_{split}.json"
        content = json.loads(path.read_text())
        for image, stem in zip(content["images"], stems, strict=True):
            (own_data / split / image["file_name"]).rename(own_data / split / f"{stem}.jpg")
            image["file_name"] = f"{stem}.jpg"
        path.write_text(json.dumps(content))
    result = patch_stores.segment(own_data, tmp_path, tasks=tasks, montage=True)
    assert (result.status, result.err) == (0, "")
    if tasks == ["patches"]:
        names = [PatchStore(tmp_path / "patches", split).names for split in ("train", "val")]
        assert sorted(names[0] + names[1]) == sorted(f"{stem}.jpg" for stem in STRANGE)
    assert len(list(tmp_path.glob("*/montage_*.png"))) == 2


# Coordinates whose names match in part


@pytest.fixture
def score(disks, tmp_path):
    """Evaluate the picks of a STAR file with rows (name, y, x); return the metrics."""

    def run(rows, *flags, micrographs="*.jpg"):
        head = "data_\nloop_\n_rlnMicrographName\n_rlnCoordinateX\n_rlnCoordinateY\n"
        rows = [f"{name} {x} {320 - y}\n" for name, y, x in rows]
        (tmp_path / "picks.star").write_text(head + "".join(rows))
        given = ("--micrographs", disks.folder / micrographs) if micrographs else ()
        output = tmp_path / f"scored{len(list(tmp_path.iterdir()))}"
        call(
            *given, "--evaluate", disks.folder / "truth.json", "--picks", tmp_path / "picks.star",
            "--output", output, "--diameter", "20px", *flags,
        )  # fmt: skip
        return json.loads((output / "evaluation.json").read_text())

    return run


def rows_of(disks, **renamed):
    """The true particles as rows of picks, of each micrograph under the name given."""
    return [(name, *c) for stem, name in renamed.items() for c in disks.centres[f"{stem}.jpg"]]


def test_a_micrograph_that_the_picks_do_not_name_counts_where_it_is_given(score, disks):
    rows = rows_of(disks, a="a.mrc", b="b.mrc")
    with pytest.warns(InputWarning, match=r"1 of 3 micrographs are not named.*c\.jpg"):
        assert score(rows)["recall"] == pytest.approx(2 / 3)
    assert score(rows, micrographs=None)["recall"] == 1


@pytest.mark.parametrize("micrographs", ["*.jpg", None])
def test_a_file_without_a_pick_has_a_recall_of_0(score, micrographs):
    with pytest.warns(InputWarning, match="3 of 3 micrographs are not named"):
        report = score([], micrographs=micrographs)
    assert (report["recall"], report["n_micrographs"]) == (0, 3)


def test_picks_and_truth_of_more_micrographs_than_are_given_are_said_and_fine(score, disks):
    with pytest.warns(InputWarning) as said:
        report = score(rows_of(disks, a="a.mrc", b="b.mrc", c="c.mrc"), micrographs="a.jpg")
    assert (report["recall"], report["precision"], report["n_micrographs"]) == (1, 1, 1)
    first, second = (str(one.message) for one in said)
    assert "24 of 36 true particles are of 2 micrographs" in first and "b.jpg, c.jpg" in first
    assert "24 of 36 picks are of 2 micrographs" in second and "b.mrc, c.mrc" in second


@pytest.mark.parametrize("micrographs", ["*.jpg", None])
def test_picks_whose_names_do_not_fit_are_refused_unless_a_part_will_do(score, disks, micrographs):
    rows = rows_of(disks, a="a.mrc", b="B_DW.mrc", c="c_DW.mrc")
    with pytest.raises(UserError, match=r"24 of 36 picks .*B_DW\.mrc, c_DW\.mrc.*b\.jpg, c\.jpg"):
        score(rows, micrographs=micrographs)
    with pytest.warns(InputWarning, match="24 of 36 picks are of 2"):
        report = score(rows, "--allow-partial", micrographs=micrographs)
    assert report["recall"] == pytest.approx(1 if micrographs is None else 1 / 3)


@pytest.mark.parametrize("flag", ["--labels", "--micrographs", "--val-micrographs"])
def test_training_refuses_what_it_cannot_use_unless_a_part_will_do(disks, tmp_path, flag):
    raw = tmp_path / "raw"
    shutil.copytree(disks.folder, raw)
    given = {
        "--micrographs": [raw / "a.jpg", raw / "b.jpg"],
        "--val-micrographs": [raw / "c.jpg"],
        "--labels": [raw / "truth.json"],
    }
    if flag == "--labels":  # a third of the labels is of a micrograph under another name
        (raw / "b.jpg").rename(raw / "b_DW.jpg")
        given["--micrographs"][1] = raw / "b_DW.jpg"
        words = r"12 of 36 labels are of 1 micrographs.*labels are of b\.jpg; .*b_DW\.jpg"
    else:
        (raw / given[flag][0].with_suffix(".log").name).touch()
        given[flag] = [raw / f"{given[flag][0].stem}.*", *given[flag][1:]]
        words = r"1 of \d files .*\.log"
    flags = [part for item in given.items() for part in (item[0], *item[1])]
    flags += ["--diameter", "20px", "--windows-per-micrograph", "5", "--patch-size", "32"]

    def run(*more):
        return call(
            *flags, "--output-dir", tmp_path / "store", "--num-workers", "0", "--dry-run", *more,
            main=preprocess_coco_full_dataset.main,
        )  # fmt: skip

    with pytest.raises(UserError, match=f"{words}.*--allow-partial"):
        run()
    with pytest.warns(InputWarning, match=words):
        assert "Windows of val split" in run("--allow-partial")
