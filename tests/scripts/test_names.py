"""Micrographs under strange names, from the command line to what the scripts write."""

import json
import shutil
import sys

import pytest

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
