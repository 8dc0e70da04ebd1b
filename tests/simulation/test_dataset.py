"""Data sets: the habits of the real one, exact truth, interrupted and refused ones."""

import contextlib
import io
import json
import math
import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from picking.errors import UserError
from picking.inputs.annotations import read_split
from picking.micrographs.preparation import raw_to_uint8
from picking.micrographs.reading import read_micrograph
from picking.simulation import dataset as simulator
from picking.simulation.dataset import simulate_dataset
from picking.simulation.proteins import PROTEINS

TINY = {
    "n_train": 10, "n_val": 1, "n_test": 2, "size_px": (192, 256), "pixel_size_angstrom": 4.0,
    "seed": 7,
}  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("simulated") / "set"
    assert simulate_dataset(output, mrc=True, **TINY)
    return output


def rows_of(path: Path) -> np.ndarray:
    """Return x, y, diameter of a CSV, float (n, 3)."""
    return np.loadtxt(path, delimiter=",", skiprows=1, usecols=(0, 1, 2), ndmin=2).reshape(-1, 3)


def coco(dataset: Path, split: str) -> dict:
    return json.loads((dataset / "annotations" / f"instances_{split}.json").read_text())


def file_bytes(folder: Path) -> dict[str, bytes]:
    """Return every file's content; an MRC's label holds the time of writing, so only its data."""
    content = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            data = path.read_bytes()
            content[str(path.relative_to(folder))] = data[1024:] if path.suffix == ".mrc" else data
    return content


def test_the_annotations_have_the_habits_of_the_real_ones(dataset):
    names = set()
    for split, n in (("train", 10), ("val", 1), ("test", 2)):
        content = coco(dataset, split)
        assert isinstance(content["info"], list)
        assert [image["id"] for image in content["images"]] == list(range(n))
        for image in content["images"]:
            assert image["file_name"].endswith(".jpg")
            with Image.open(dataset / split / image["file_name"]) as jpeg:
                assert jpeg.mode == "L"
                assert jpeg.size == (image["width"], image["height"]) == (256, 192)
        assert {a["iscrowd"] for a in content["annotations"]} == {1}
        assert all(a["area"] == a["bbox"][2] ** 2 for a in content["annotations"])
        assert all(a["bbox"][2] == a["bbox"][3] for a in content["annotations"])
        names |= {image["file_name"] for image in content["images"]}
    assert len(names) == 13
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO(str(dataset / "annotations" / "instances_train.json"))
    n = len(coco(dataset, "train")["annotations"])
    assert n > 10
    assert len(loaded.getAnnIds(iscrowd=None)) == n
    assert loaded.getAnnIds(iscrowd=False) == []  # the trap that the real files set


def test_boxes_csvs_and_truth_agree_and_the_margin_is_not_listed(dataset):
    record = json.loads((dataset / "simulation.json").read_text())
    margin_px = record["annotation_margin_px"]
    assert margin_px == math.ceil(0.6 * 220 / 4)
    n_listed = n_margin = 0
    for split in ("train", "val", "test"):
        content = coco(dataset, split)
        for image in content["images"]:
            stem = Path(image["file_name"]).stem
            boxes = [a["bbox"] for a in content["annotations"] if a["image_id"] == image["id"]]
            if boxes == [[0, 0, 0, 0]]:
                continue
            truth = rows_of(dataset / "truth" / f"{stem}.csv")
            listed = rows_of(dataset / "particle_coordinates" / f"{stem}.csv")
            expected = [[x - d // 2, y - d // 2, d, d] for x, y, d in listed]
            assert boxes == expected
            inner = (truth[:, :2] >= margin_px) & (
                truth[:, :2] <= np.array([256, 192]) - 1 - margin_px
            )
            kept = truth[inner.all(axis=1)]
            assert len(kept) == len(listed)
            assert np.abs(kept - listed).max(initial=0) <= 1
            assert ((truth[:, :2] >= 0) & (truth[:, :2] <= [255, 191])).all()
            n_listed += len(listed)
            n_margin += len(truth) - len(listed)
    assert n_listed > 20
    assert n_margin > 10


def test_one_training_micrograph_has_lost_its_csv(dataset):
    content = coco(dataset, "train")
    empty = [a for a in content["annotations"] if a["bbox"] == [0, 0, 0, 0]]
    assert len(empty) == 1
    stem = Path(content["images"][empty[0]["image_id"]]["file_name"]).stem
    assert not (dataset / "particle_coordinates" / f"{stem}.csv").exists()
    assert (dataset / "truth" / f"{stem}.csv").exists()
    assert len(list((dataset / "particle_coordinates").iterdir())) == 12


def test_the_projects_own_reader_takes_the_set_with_its_protein_ids(dataset):
    train = read_split(dataset, "train")
    ids = {micrograph.empiar_id for micrograph in train.micrographs}
    assert ids == {"SIM-001", "SIM-002", "SIM-003"}
    for micrograph in train.micrographs:
        assert micrograph.n_zero_area == 0
        diameter = {p.name: p.diameter_angstrom / 4 for p in PROTEINS}[micrograph.empiar_id]
        assert np.abs(micrograph.diameters_px - diameter).max() < 1
        assert micrograph.empiar_id not in micrograph.name


def test_the_mrc_is_the_jpeg_upside_down_with_its_voxel_size(dataset):
    jpeg_path = next((dataset / "train").iterdir())
    mrc_path = dataset / "mrc" / f"{jpeg_path.stem}.mrc"
    with mrcfile.open(mrc_path) as mrc:
        raw = mrc.data.copy()
        assert raw.dtype == np.float32
        assert float(mrc.voxel_size.x) == pytest.approx(4.0)
    jpeg = np.asarray(Image.open(jpeg_path)).astype(float)
    same, turned = raw_to_uint8(np.flipud(raw)), raw_to_uint8(raw)
    assert np.abs(same - jpeg).mean() < 5  # what JPEG loses
    assert np.abs(turned - jpeg).mean() > 20
    assert np.array_equal(read_micrograph(mrc_path), same)


def test_the_number_of_workers_changes_no_byte(dataset, tmp_path):
    assert simulate_dataset(tmp_path / "set", mrc=True, num_workers=2, **TINY)
    assert file_bytes(tmp_path / "set") == file_bytes(dataset)


def test_another_seed_gives_other_micrographs(dataset, tmp_path):
    simulate_dataset(tmp_path / "set", **(TINY | {"seed": 8, "n_train": 1}))
    first = "train/mic_00000.jpg"
    assert (tmp_path / "set" / first).read_bytes() != (dataset / first).read_bytes()


@pytest.mark.parametrize("unknown", [(), ("protein_ratio", "proteins", "junk")])  # older records
def test_a_finished_set_is_left_alone_and_another_seed_is_refused(dataset, tmp_path, unknown):
    shutil.copytree(dataset, tmp_path / "set")
    record = json.loads((dataset / "simulation.json").read_text())
    record["arguments"] = {k: v for k, v in record["arguments"].items() if k not in unknown}
    (tmp_path / "set" / "simulation.json").write_text(json.dumps(record))
    before = file_bytes(tmp_path / "set")
    assert not simulate_dataset(tmp_path / "set", mrc=True, **TINY)
    with pytest.raises(UserError, match="seed 7, not 8"):
        simulate_dataset(tmp_path / "set", mrc=True, **(TINY | {"seed": 8}))
    assert file_bytes(tmp_path / "set") == before


def test_proteins_that_are_named_are_those_of_the_set_and_the_rest_stays_as_it_was(
    dataset, tmp_path
):
    named = TINY | {"proteins": ["SIM-001", "SIM-002", "SIM-003"]}
    simulate_dataset(tmp_path / "same", mrc=True, **named)
    same, before = file_bytes(tmp_path / "same"), file_bytes(dataset)
    assert same.pop("simulation.json") != before.pop("simulation.json")
    assert same == before
    simulate_dataset(tmp_path / "one", **(TINY | {"n_train": 1, "proteins": ["SIM-005"]}))
    mapping = (tmp_path / "one" / "empiar_ids.csv").read_text()
    assert mapping.count("SIM-") == mapping.count("SIM-005") == 4


def test_an_interrupted_set_goes_on_and_ends_with_the_same_bytes(dataset, tmp_path, monkeypatch):
    output, real, calls = tmp_path / "set", simulator.simulate_planned, []

    def interrupted(plan):
        calls.append(plan)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(plan)

    with monkeypatch.context() as patched:
        patched.setattr(simulator, "simulate_planned", interrupted)
        with pytest.raises(KeyboardInterrupt):
            simulate_dataset(output, mrc=True, **TINY)
    assert not (output / "simulation.json").exists()
    with pytest.raises(UserError, match="other arguments"):
        simulate_dataset(output, **TINY)
    calls.clear()
    monkeypatch.setattr(simulator, "simulate_planned", lambda p: calls.append(p) or real(p))
    assert simulate_dataset(output, mrc=True, **TINY)
    assert len(calls) == 13 - 2
    assert file_bytes(output) == file_bytes(dataset)


def test_a_folder_with_anything_else_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="other files"):
        simulate_dataset(tmp_path, **TINY)
    with pytest.raises(UserError, match="is a file"):
        simulate_dataset(tmp_path / "thesis.txt", **TINY)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_without_a_margin_boxes_hang_over_the_border_and_test_may_lack_its_json(tmp_path):
    simulate_dataset(
        tmp_path / "set", n_train=2, n_val=0, n_test=1, size_px=(256,), pixel_size_angstrom=4.0,
        n_proteins=1, density=2, annotation_margin=0, omit_test_json=True,
    )  # fmt: skip
    boxes = np.array([a["bbox"] for a in coco(tmp_path / "set", "train")["annotations"]])
    assert boxes[:, :2].min() < 0
    assert (boxes[:, :2] + boxes[:, 2:]).max() > 256
    assert [p.name for p in (tmp_path / "set" / "annotations").iterdir()] == [
        "instances_train.json"
    ]
    assert len(read_split(tmp_path / "set", "test").micrographs) == 1  # by its CSV
    assert not (tmp_path / "set" / "val").exists()
    assert not (tmp_path / "set" / "mrc").exists()


@pytest.mark.parametrize(
    ("wrong", "flag"),
    [
        ({"n_train": -1}, "micrographs"),
        ({"n_train": 0, "n_val": 0, "n_test": 0}, "micrographs"),
        ({"n_proteins": 99}, "--proteins"), ({"proteins": ["SIM-001", "SIM-099"]}, "--proteins"),
        ({"proteins": ["SIM-001"] * 2}, "--proteins"), ({"protein_ratio": 0.5}, "--protein-ratio"),
        ({"pixel_size_angstrom": 0.0}, "--pixel-size"), ({"density": float("nan")}, "finite"),
        ({"snr": (0.1, 0.05)}, "--snr"), ({"snr": (0.0, 0.05)}, "--snr"),
        ({"n_unannotated": 11}, "--unannotated"), ({"seed": -1}, "--seed"),
        ({"size_px": (8, 8)}, "--size"), ({"size_px": (256, 256, 3)}, "--size"),
        ({"annotation_margin": 2.0}, "--annotation-margin"), ({"num_workers": -1}, "--num-workers"),
    ],
)  # fmt: skip
def test_arguments_out_of_range_are_named_and_nothing_is_written(wrong, flag, tmp_path):
    with pytest.raises(UserError, match=flag):
        simulate_dataset(tmp_path / "set", **(TINY | wrong))
    assert not (tmp_path / "set").exists()
