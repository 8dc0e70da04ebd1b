"""The simulator: its physics against theory, its files against the real data set's habits."""

import contextlib
import csv
import io
import json
import math
import shutil
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from PIL import Image
from scipy import constants, stats
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.spatial import cKDTree

from picking.errors import UserError
from picking.formats.annotations import read_split
from picking.formats.micrographs import raw_to_uint8, read_micrograph
from picking.simulation import __main__ as simulate
from picking.simulation import dataset as simulator
from picking.simulation.ctf import Optics, ctf_2d, ctf_zeros, radial_power
from picking.simulation.dataset import simulate_dataset
from picking.simulation.micrograph import (
    carbon_film,
    ice_crystals,
    place_particles,
    project,
    simulate_micrograph,
    splat,
)
from picking.simulation.proteins import (
    PROTEINS,
    protein_gaussians,
    random_angles,
    rotation_matrices,
    symmetry_operators,
)

TINY = {
    "n_train": 10,
    "n_val": 1,
    "n_test": 2,
    "size_px": (192, 256),
    "pixel_size_angstrom": 4.0,
    "seed": 7,
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("simulated") / "set"
    assert simulate_dataset(output, mrc=True, **TINY)
    return output


def rows_of(path: Path) -> np.ndarray:
    """Return x, y, diameter of a CSV, float (n, 3)."""
    with path.open(newline="") as file:
        rows = [
            [float(row[key]) for key in ("X-Coordinate", "Y-Coordinate", "Diameter")]
            for row in csv.DictReader(file)
        ]
    return np.array(rows).reshape(-1, 3)


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


# --- the microscope -------------------------------------------------------------------------


def textbook_zeros(defocus_angstrom: float, n: int) -> np.ndarray:
    """Find the CTF's zeros by sign changes of the textbook formula in SI units, in 1/Å."""
    volts, cs, amplitude = 300e3, 2.7e-3, 0.1
    momentum2 = 2 * constants.m_e * constants.e * volts
    momentum2 *= 1 + constants.e * volts / (2 * constants.m_e * constants.c**2)
    wavelength = constants.h / math.sqrt(momentum2)
    s = np.linspace(1e6, 2.5e9, 500_000)
    chi = (
        2
        * np.pi
        * (cs * wavelength**3 * s**4 / 4 - defocus_angstrom * 1e-10 * wavelength * s**2 / 2)
    )
    contrast = math.sqrt(1 - amplitude**2) * np.sin(chi) - amplitude * np.cos(chi)
    return s[:-1][np.diff(np.sign(contrast)) != 0][:n] * 1e-10


def spectrum_misfit(raw: np.ndarray, pixel_size_angstrom: float, defocus_angstrom: float) -> float:
    """Return the largest relative distance of the first three minima from the zeros of theory.

    Each minimum is looked for up to halfway to the next zero, on both sides.
    """
    zeros = textbook_zeros(defocus_angstrom, 4)
    frequency, power = radial_power(raw, pixel_size_angstrom)
    smooth = gaussian_filter1d(power, 2.0)
    misfits = []
    for zero, reach in zip(zeros[:3], np.diff(zeros) / 2, strict=True):
        window = np.flatnonzero(np.abs(frequency - zero) < reach)
        misfits.append(abs(frequency[window[smooth[window].argmin()]] / zero - 1))
    return max(misfits)


@pytest.mark.parametrize("defocus_angstrom", [12000.0, 20000.0])
def test_the_power_spectrum_has_its_zeros_where_theory_says(defocus_angstrom):
    optics = Optics(defocus_angstrom=defocus_angstrom)
    raw = simulate_micrograph(PROTEINS[1], optics, (640, 512), np.random.default_rng(1)).raw
    assert spectrum_misfit(raw, 2.0, defocus_angstrom) < 0.03
    for wrong in (0.9, 1.1):
        assert spectrum_misfit(raw, 2.0, wrong * defocus_angstrom) > 0.03


def test_the_zeros_that_the_figure_marks_are_those_of_the_textbook():
    for defocus_angstrom in (9000.0, 25000.0):
        found = ctf_zeros(Optics(defocus_angstrom=defocus_angstrom), 5)
        np.testing.assert_allclose(found, textbook_zeros(defocus_angstrom, 5), rtol=1e-4)


def test_the_ctf_changes_sign_where_the_textbook_says_up_to_high_frequency():
    ctf = Optics(pixel_size_angstrom=1.0, defocus_angstrom=15000.0).ctf((1, 16384))[0]
    changes = np.flatnonzero(np.diff(np.sign(ctf)))[:16]
    zeros = textbook_zeros(15000.0, 16)
    assert zeros[-1] > 0.2  # where spherical aberration counts
    assert np.abs((changes + 0.5) / 16384 - zeros).max() < 1 / 16384


def test_the_ctf_makes_dense_matter_dark_and_treats_both_axes_alike():
    ctf = ctf_2d((60, 80), 2.0, 15000.0, 2.7, 300.0, 0.1, 80.0)
    assert ctf.shape == (60, 41)
    assert ctf[0, 0] == pytest.approx(-0.1)
    # 6 steps of 1/(60 px) along y and 8 of 1/(80 px) along x are one frequency.
    assert ctf[6, 0] == pytest.approx(ctf[0, 8], rel=1e-5)
    assert ctf[-6, 0] == pytest.approx(ctf[6, 0])
    without = ctf_2d((60, 80), 2.0, 15000.0, 2.7, 300.0, 0.1, 0.0)
    assert ctf[0, 40] / without[0, 40] == pytest.approx(math.exp(-80 * 0.25**2 / 4), rel=1e-4)
    assert np.abs(without).max() <= 1 + 1e-6


# --- proteins -------------------------------------------------------------------------------


@pytest.mark.parametrize(("symmetry", "order"), [("C1", 1), ("C4", 4), ("D7", 14), ("I", 60)])
def test_symmetry_operators_are_a_group_of_rotations_of_the_right_order(symmetry, order):
    operators = symmetry_operators(symmetry)
    assert len(operators) == order
    np.testing.assert_allclose(np.linalg.det(operators), 1)
    np.testing.assert_allclose(
        operators @ operators.transpose(0, 2, 1), [np.eye(3)] * order, atol=1e-9
    )
    flat = cKDTree(operators.reshape(order, 9))
    assert len(flat.query_pairs(1e-3)) == 0  # all different
    products = np.einsum("aij,bjk->abik", operators, operators).reshape(-1, 9)
    assert flat.query(products)[0].max() < 1e-9  # closed


@pytest.mark.parametrize("protein", PROTEINS, ids=lambda protein: protein.name)
def test_a_density_has_its_symmetry_its_size_and_its_centre_at_the_origin(protein):
    points = protein_gaussians(protein)
    tree = cKDTree(points)
    for operator in symmetry_operators(protein.symmetry):
        assert tree.query(points @ operator.T)[0].max() < 1e-6
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=0.02 * protein.diameter_angstrom)
    reach = np.linalg.norm(points, axis=1).max()
    assert 0.9 * protein.diameter_angstrom / 2 < reach <= protein.diameter_angstrom / 2


def test_an_icosahedral_density_does_not_have_a_cyclic_symmetry_it_lacks():
    points = protein_gaussians(PROTEINS[2])
    turned = points @ symmetry_operators("C7")[1].T
    assert cKDTree(points).query(turned)[0].max() > 1


def test_orientations_are_uniform():
    matrices = rotation_matrices(random_angles(20_000, np.random.default_rng(0)))
    np.testing.assert_allclose(
        matrices @ matrices.transpose(0, 2, 1), [np.eye(3)] * 20_000, atol=1e-9
    )
    # The angle of a uniformly random rotation has the distribution (a - sin a) / pi.
    angles = np.arccos(np.clip((np.trace(matrices, axis1=1, axis2=2) - 1) / 2, -1, 1))
    assert stats.kstest(angles, lambda a: (a - np.sin(a)) / np.pi).pvalue > 1e-3
    # Every matrix element is uniform in [-1, 1].
    for element in matrices.reshape(-1, 9).T:
        assert stats.kstest(element, stats.uniform(-1, 2).cdf).pvalue > 1e-4


def test_angles_are_relions_in_the_frame_with_y_up():
    on_x, centre = np.array([[10.0, 0.0, 0.0]]), np.array([[20.0, 30.0]])
    image = project((64, 64), on_x, centre, np.array([[0.0, 0.0, 90.0]]), np.random.default_rng(0))
    # psi = 90 takes x to -y; y up is minus y down, so the point comes out 10 px below.
    assert np.unravel_index(image.argmax(), image.shape) == (30, 30)


def test_splatting_keeps_mass_and_centre():
    image = splat((20, 30), np.array([[7.3, 11.8]]), np.array([2.0]))
    assert image.sum() == pytest.approx(2)
    y, x = np.indices(image.shape)
    assert (image * y).sum() / 2 == pytest.approx(7.3, abs=1e-5)
    assert (image * x).sum() / 2 == pytest.approx(11.8, abs=1e-5)
    assert splat((20, 30), np.array([[-5.0, 3.0], [3.0, 31.0]]), np.ones(2)).sum() == 0


# --- micrographs ----------------------------------------------------------------------------


def disks(shape: tuple[int, int], centres_px: np.ndarray, radius_px: float) -> np.ndarray:
    y, x = np.indices(shape)
    return np.any([np.hypot(y - a, x - b) <= radius_px for a, b in centres_px], axis=0)


@pytest.mark.parametrize("snr", [0.03, 0.1])
def test_the_signal_to_noise_ratio_is_the_one_asked_for(snr):
    measured = []
    for protein in PROTEINS[:3]:
        image = simulate_micrograph(
            protein, Optics(), (512, 512), np.random.default_rng(3), snr=snr, density=0.8
        )
        relative = image.raw / image.raw.mean() - 1
        on = disks(image.raw.shape, image.centres_px, image.diameter_px / 2)
        around = disks(image.raw.shape, image.centres_px, image.diameter_px)
        # What is called signal is in the raw counts, once.
        slope = np.polyfit(image.signal[on], relative[on], 1)[0]
        assert slope == pytest.approx(1, abs=0.25)
        measured.append(image.signal[on].var() / relative[~around].var() / protein.contrast)
    assert np.mean(measured) == pytest.approx(snr, rel=0.25)


def test_particles_are_darker_than_what_surrounds_them_and_lie_where_the_truth_says():
    image = simulate_micrograph(
        PROTEINS[0], Optics(), (400, 512), np.random.default_rng(5), snr=0.1, density=1.5
    )
    radius_px = image.diameter_px / 2
    assert len(image.centres_px) >= 5

    def darkness(shift_px: tuple[float, float]) -> float:
        on = disks(image.raw.shape, image.centres_px + shift_px, radius_px / 2)
        return image.raw[on].mean() / image.raw.mean() - 1

    there = darkness((0, 0))
    assert there < -0.01
    for shift in ((0, 40), (40, 0), (0, -40), (-40, 0)):
        assert there < darkness(shift) - 0.01


def test_particles_touch_but_never_lie_on_top_of_each_other():
    centres = place_particles(60, 30.0, np.ones((400, 500)), np.random.default_rng(0))
    nearest = cKDTree(centres).query(centres, k=2)[0][:, 1]
    assert len(centres) == 60
    assert nearest.min() >= 0.9 * 30
    assert (nearest < 1.2 * 30).mean() > 0.25


def test_particles_keep_off_ice_and_mostly_off_carbon():
    appeal = np.ones((400, 400))
    appeal[:, :200] = 0
    centres = place_particles(40, 20.0, appeal, np.random.default_rng(0))
    assert len(centres) > 10
    assert centres[:, 1].min() >= 199
    # A crowded area takes what it can hold and says so by its number.
    assert len(place_particles(500, 50.0, np.ones((200, 200)), np.random.default_rng(0))) < 30


def test_the_carbon_edge_crosses_the_image_and_ice_is_where_it_is_dark():
    for seed in range(20):
        film = carbon_film((300, 400), 3000, np.random.default_rng(seed))
        assert 0.02 < (film > 0.5).mean() < 0.5
    assert ice_crystals((300, 400), 0, 2.0, np.random.default_rng(0)).max() == 0

    flaws = {"carbon": True, "n_crystals": 5}
    dose = Optics().dose_per_angstrom2 * 4
    plain, flawed = (
        gaussian_filter(
            simulate_micrograph(
                PROTEINS[0], Optics(), (300, 300), np.random.default_rng(2), density=0, **kind
            ).raw,
            5,
        )
        for kind in ({}, flaws)
    )
    assert plain.mean() == pytest.approx(dose, rel=0.03)
    assert plain.min() > 0.94 * dose
    assert flawed.min() < 0.94 * dose


# --- the data set ---------------------------------------------------------------------------


def test_the_annotations_have_the_habits_of_the_real_ones(dataset):
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
    names = [
        image["file_name"] for s in ("train", "val", "test") for image in coco(dataset, s)["images"]
    ]
    assert len(set(names)) == 13


def test_pycocotools_loads_the_annotations(dataset):
    from pycocotools.coco import COCO

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
    assert {micrograph.empiar_id for micrograph in train.micrographs} == {
        "SIM-001",
        "SIM-002",
        "SIM-003",
    }
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


def test_another_seed_gives_other_micrographs_of_the_same_proteins(dataset, tmp_path):
    simulate_dataset(tmp_path / "set", **(TINY | {"seed": 8, "n_train": 1}))
    first = "train/mic_00000.jpg"
    assert (tmp_path / "set" / first).read_bytes() != (dataset / first).read_bytes()
    records = [
        json.loads((folder / "simulation.json").read_text())
        for folder in (dataset, tmp_path / "set")
    ]
    assert records[0]["proteins"] == records[1]["proteins"]


def test_proteins_come_in_the_proportion_asked_for_and_in_every_split():
    arguments = {
        "n_train": 150, "n_val": 15, "n_test": 15, "size_px": [192, 192], "n_proteins": 4,
        "protein_ratio": 2.0, "pixel_size_angstrom": 4.0, "snr": [0.1, 0.2], "density": 1.0,
        "n_unannotated": 0, "seed": 3,
    }  # fmt: skip
    plans = simulator.plan_dataset(arguments)
    for split, counts in {"train": [80, 40, 20, 10], "val": [8, 4, 2, 1]}.items():
        names = [plan.protein.name for plan in plans if plan.split == split]
        assert [names.count(protein.name) for protein in simulator.PROTEINS[:4]] == counts
        assert names != sorted(names)
    plans = simulator.plan_dataset(arguments | {"protein_ratio": 1.0})
    names = [plan.protein.name for plan in plans if plan.split == "train"]
    assert {names.count(protein.name) for protein in simulator.PROTEINS[:4]} == {37, 38}


def test_a_set_recorded_before_there_were_proportions_is_still_known(dataset, tmp_path):
    old = tmp_path / "set"
    shutil.copytree(dataset, old)
    record = json.loads((old / "simulation.json").read_text())
    del record["arguments"]["protein_ratio"]
    (old / "simulation.json").write_text(json.dumps(record))
    assert not simulate_dataset(old, mrc=True, **TINY)


def test_a_finished_set_is_left_alone_and_other_arguments_are_refused(dataset):
    before = file_bytes(dataset)
    assert not simulate_dataset(dataset, mrc=True, **TINY)
    with pytest.raises(UserError, match="seed 7, not 8"):
        simulate_dataset(dataset, mrc=True, **(TINY | {"seed": 8}))
    assert file_bytes(dataset) == before


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
    with monkeypatch.context() as patched:
        patched.setattr(
            simulator, "simulate_planned", lambda plan: calls.append(plan) or real(plan)
        )
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
        tmp_path / "set",
        n_train=2,
        n_val=0,
        n_test=1,
        size_px=(256,),
        pixel_size_angstrom=4.0,
        n_proteins=1,
        density=2,
        annotation_margin=0,
        omit_test_json=True,
    )
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
    ("wrong", "message"),
    [
        ({"n_train": -1}, "numbers of micrographs"),
        ({"n_train": 0, "n_val": 0, "n_test": 0}, "numbers of micrographs"),
        ({"n_proteins": 99}, "--proteins 99"),
        ({"protein_ratio": 0.5}, "--protein-ratio 0.5"),
        ({"pixel_size_angstrom": 0.0}, "--pixel-size"),
        ({"snr": (0.1, 0.05)}, "--snr"),
        ({"snr": (0.0, 0.05)}, "--snr"),
        ({"density": float("nan")}, "finite"),
        ({"n_unannotated": 11}, "--unannotated"),
        ({"seed": -1}, "--seed"),
        ({"size_px": (8, 8)}, "--size"),
        ({"size_px": (256, 256, 3)}, "--size"),
        ({"annotation_margin": 2.0}, "--annotation-margin"),
    ],
)
def test_arguments_out_of_range_are_named_and_nothing_is_written(wrong, message, tmp_path):
    with pytest.raises(UserError, match=message):
        simulate_dataset(tmp_path / "set", **(TINY | wrong))
    assert not (tmp_path / "set").exists()


def test_the_command_line_writes_a_set_and_its_figure_and_then_says_it_is_done(
    dataset, tmp_path, monkeypatch, capsys
):
    output, figure = tmp_path / "set", tmp_path / "figure.png"
    shutil.copytree(dataset, output)
    asked = "--micrographs-train 10 --micrographs-val 1 --micrographs-test 2 --size 192 256"
    asked += f" --pixel-size 4 --seed 7 --mrc --output {output} --figure {figure}"
    monkeypatch.setattr(sys, "argv", ["simulator", *asked.split()])
    simulate.main()
    assert "already done" in capsys.readouterr().out
    assert figure.stat().st_size < 500_000
    with Image.open(figure) as image:
        assert image.size[0] >= 1000
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--density", "0.5"])
    with pytest.raises(UserError, match=r"density 1.0, not 0.5"):
        simulate.main()
