"""The example of an External job, against cryosparc-tools where it is installed; no instance."""

import contextlib
from unittest import mock

import numpy as np
import pytest

from docs import cryosparc_external_job as example
from picking.errors import UserError
from picking.formats.coordinates import write_picks
from picking.formats.cryosparc.exposures import Exposure
from picking.formats.picks import Picks

NAMES = ("000000000000000000077_a.mrc", "000000000000000000078_b.mrc")


@pytest.fixture
def listed(tmp_path):
    """Two micrographs of a project, as cryoSPARC lists them."""
    (tmp_path / "project/J2").mkdir(parents=True)
    for name in NAMES:
        (tmp_path / "project/J2" / name).write_bytes(b"")
    return [Exposure(77 + i, f"J2/{name}", (200, 400), 1.5) for i, name in enumerate(NAMES)]


def write_picked(folder):
    """What pick_particles.py leaves: picks on the first micrograph, none on the second."""
    centres, size_px = np.array([(50.0, 100.0), (150, 300)]), (200, 400)
    some = Picks(NAMES[0], centres, np.array([0.75, 0.5]), np.full(2, 20.0), size_px)
    none = Picks(NAMES[1], np.empty((0, 2)), np.empty(0), np.empty(0), size_px)
    write_picks(folder, [some, none], ["cs"])


def test_only_the_listed_micrographs_are_linked_and_missing_ones_are_named(listed, tmp_path):
    (tmp_path / "project/J2/rejected.mrc").write_bytes(b"")
    for _ in range(2):  # again when it goes on
        by_name = example.link_micrographs(listed, tmp_path / "project", tmp_path / "work")
    assert by_name == dict(zip(NAMES, listed, strict=True))
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == list(NAMES)
    with pytest.raises(UserError, match=r"two micrographs are called"):
        example.link_micrographs([*listed, listed[0]], tmp_path / "project", tmp_path / "other")
    with pytest.raises(UserError, match=r"elsewhere/J2/.*_a\.mrc is not there"):
        example.link_micrographs(listed, tmp_path / "elsewhere", tmp_path / "third")


def test_picks_become_rows_with_what_cryosparc_knows_of_the_micrographs(listed, tmp_path):
    write_picked(tmp_path)
    table = example.locations(tmp_path, dict(zip(NAMES, listed, strict=True)))
    assert table["location/micrograph_uid"].tolist() == [77, 77]
    assert table["location/micrograph_path"].tolist() == [f"J2/{NAMES[0]}".encode()] * 2
    assert table["location/micrograph_psize_A"].tolist() == [1.5, 1.5]
    np.testing.assert_allclose(table["location/center_y_frac"], [0.75, 0.25])
    np.testing.assert_allclose(table["location/center_x_frac"], [0.25, 0.75])
    assert table["pick_stats/ncc_score"].tolist() == [0.75, 0.5]


def test_the_job_is_called_as_cryosparc_tools_has_it(listed, tmp_path, monkeypatch):
    job_module = pytest.importorskip(
        "cryosparc.controllers.job", reason="cryosparc-tools is not installed"
    )
    from cryosparc.controllers.project import ProjectController
    from cryosparc.dataset import Dataset

    micrographs = Dataset.allocate(
        2,
        [("micrograph_blob/path", "O"), ("micrograph_blob/shape", "<u4", (2,)),
         ("micrograph_blob/psize_A", "<f4")],
    )  # fmt: skip
    micrographs["uid"] = [one.uid for one in listed]
    micrographs["micrograph_blob/path"] = [one.path for one in listed]
    micrographs["micrograph_blob/shape"] = [one.size_px for one in listed]
    micrographs["micrograph_blob/psize_A"] = [one.pixel_size_angstrom for one in listed]
    fields = [
        ("location/micrograph_uid", "<u8"), ("location/exp_group_id", "<u4"),
        ("location/micrograph_path", "O"), ("location/micrograph_shape", "<u4", (2,)),
        ("location/center_x_frac", "<f4"), ("location/center_y_frac", "<f4"),
        ("location/min_dist_A", "<f4"), ("pick_stats/ncc_score", "<f4"),
    ]  # fmt: skip
    # Calls that the real classes would not take are errors
    job = mock.create_autospec(job_module.ExternalJobController, instance=True)
    project = mock.create_autospec(ProjectController, instance=True)
    project.dir = tmp_path / "project"
    project.create_external_job.return_value = job
    job.run.return_value = contextlib.nullcontext()
    job.load_input.return_value = micrographs
    job.alloc_output.side_effect = lambda _, uids: Dataset({"uid": uids}).add_fields(fields)
    monkeypatch.setattr(example, "pick", lambda work, _: write_picked(work / "picks"))
    example.run_job(project, "W1", ("J2", "exposures"), tmp_path / "work", ["--diameter", "9px"])
    job.connect.assert_called_once_with("micrographs", "J2", "exposures")
    ((name, saved), _) = job.save_output.call_args
    assert name == "picks" and len(saved) == 2
    assert list(saved["location/micrograph_path"]) == [f"J2/{NAMES[0]}"] * 2
    np.testing.assert_allclose(saved["location/center_y_frac"], [0.75, 0.25])
    np.testing.assert_allclose(saved["pick_stats/ncc_score"], [0.75, 0.5])
    assert saved["location/micrograph_uid"].tolist() == [77, 77]


def test_a_picker_that_fails_fails_the_job(tmp_path, capfd):
    with pytest.raises(UserError, match="picking ended with status 2"):
        example.pick(tmp_path, ["--checkpoint", "gone.pt", "--diameter", "9px"])
