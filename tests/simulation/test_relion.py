"""RELION's lists of a simulated set; `tests/interop/test_reconstruction.py` has RELION use them."""

import json

import mrcfile
import numpy as np
import pytest
import starfile

from picking.simulation.dataset import simulate_dataset

SIZE_PX, PIXEL_SIZE_ANGSTROM = (320, 448), 4.0


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    output = tmp_path_factory.mktemp("simulated") / "set"
    simulate_dataset(
        output, n_train=2, n_val=1, n_test=0, size_px=SIZE_PX, seed=1, snr=(2, 2), mrc=True,
        pixel_size_angstrom=PIXEL_SIZE_ANGSTROM, proteins=["SIM-006", "SIM-001"],
    )  # fmt: skip
    return output


def test_the_micrographs_are_those_of_the_folder_with_their_defocus_and_optics(dataset):
    blocks = starfile.read(dataset / "truth" / "micrographs_ctf.star", always_dict=True)
    record = json.loads((dataset / "simulation.json").read_text())
    table = blocks["micrographs"]
    assert list(table["rlnMicrographName"]) == [f"mrc/mic_0000{i}.mrc" for i in range(3)]
    assert all((dataset / name).is_file() for name in table["rlnMicrographName"])
    defocus = [micrograph["defocus_angstrom"] for micrograph in record["micrographs"]]
    assert list(table["rlnDefocusU"]) == list(table["rlnDefocusV"]) == defocus
    (group,) = blocks["optics"].to_dict("records")
    optics = record["optics"]
    for label, key in (
        ("rlnMicrographPixelSize", "pixel_size_angstrom"),
        ("rlnVoltage", "voltage_kv"),
        ("rlnSphericalAberration", "cs_mm"),
        ("rlnAmplitudeContrast", "amplitude_contrast"),
    ):
        assert group[label] == optics[key]
    assert optics["pixel_size_angstrom"] == PIXEL_SIZE_ANGSTROM


def test_the_particles_are_those_of_the_csvs_in_the_frame_of_the_mrc(dataset):
    particles = starfile.read(dataset / "truth" / "particles.star")["particles"]
    proteins = {"SIM-001": 1, "SIM-006": 6}
    of = dict(line.split(",") for line in (dataset / "empiar_ids.csv").read_text().split()[1:])
    n = 0
    for name, rows in particles.groupby("rlnMicrographName"):
        stem = name.removeprefix("mrc/").removesuffix(".mrc")
        x, y, _, rot, tilt, psi, defocus = np.loadtxt(
            dataset / "truth" / f"{stem}.csv", delimiter=",", skiprows=1
        ).T
        # The CSV counts from the middle of the first pixel, RELION from its corner
        np.testing.assert_allclose(rows["rlnCoordinateX"], x + 0.5, atol=1e-3)
        np.testing.assert_allclose(rows["rlnCoordinateY"], SIZE_PX[0] - 0.5 - y, atol=1e-3)
        for label, values in (("Rot", rot), ("Tilt", tilt), ("Psi", psi)):
            np.testing.assert_allclose(rows[f"rlnAngle{label}"], values, atol=1e-3)
        np.testing.assert_allclose(rows["rlnDefocusU"], defocus, rtol=1e-4)
        assert set(rows["rlnClassNumber"]) == {proteins[of[f"{stem}.jpg"]]}
        assert abs((rows["rlnRandomSubset"] == 1).sum() - len(rows) / 2) < 1
        n += len(rows)
    assert n == len(particles) > 30


def test_a_particle_is_dark_where_the_list_has_it_in_the_mrc(dataset):
    particles = starfile.read(dataset / "truth" / "particles.star")["particles"]
    inside, turned = [], []
    for name, rows in particles.groupby("rlnMicrographName"):
        raw = mrcfile.read(dataset / name)
        x, y = rows["rlnCoordinateX"].astype(int), rows["rlnCoordinateY"].astype(int)
        inside.extend(raw[y, x] - raw.mean())
        turned.extend(raw[SIZE_PX[0] - 1 - y, x] - raw.mean())
    assert np.mean(inside) < 3 * min(0, np.mean(turned)) - 5


def test_a_set_without_any_particle_has_empty_lists(tmp_path):
    simulate_dataset(
        tmp_path / "set", n_train=1, n_val=0, n_test=0, size_px=(256,), density=0, mrc=True,
        pixel_size_angstrom=PIXEL_SIZE_ANGSTROM,
    )  # fmt: skip
    assert len(starfile.read(tmp_path / "set/truth/particles.star")["particles"]) == 0


def test_without_mrc_there_are_none(tmp_path):
    simulate_dataset(
        tmp_path / "set", n_train=1, n_val=0, n_test=0, size_px=(256,),
        pixel_size_angstrom=PIXEL_SIZE_ANGSTROM,
    )  # fmt: skip
    assert not list((tmp_path / "set").rglob("*.star"))
