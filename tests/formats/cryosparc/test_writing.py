"""What is written for cryoSPARC, read back by its own package where that is installed."""

import numpy as np
import pytest
import yaml

from picking.errors import UserError
from picking.formats.coordinates import read_picks, write_picks
from picking.formats.cryosparc.exposures import Exposure
from picking.formats.cryosparc.writing import particles_table
from picking.formats.picks import Picks, flip_y

NAME = "008578565574161745010_raw_patch_aligned_doseweighted.mrc"


def picks_at(name, centres_px, size_px=(200, 400)):
    centres = np.array(centres_px, float).reshape(-1, 2)
    n = len(centres)
    return Picks(name, centres, np.linspace(0.9, 0.5, n), np.full(n, 20.0), size_px)


@pytest.fixture
def written(tmp_path):
    picks = [picks_at(NAME, [(50, 100), (150, 300)]), picks_at("plain.jpg", [(20, 40)])]
    (path,) = write_picks(tmp_path, picks, ["cs"])
    return path


def test_cryosparc_tools_reads_the_particles_with_all_that_a_picker_writes(written):
    dataset = pytest.importorskip("cryosparc.dataset", reason="cryosparc-tools is not installed")
    particles = dataset.Dataset.load(str(written))
    assert len(particles) == 3 and set(particles.prefixes()) == {"location", "pick_stats"}
    np.testing.assert_allclose(particles["location/center_x_frac"], [0.25, 0.75, 0.1])
    np.testing.assert_allclose(particles["location/center_y_frac"], [0.75, 0.25, 0.9])
    assert particles["location/micrograph_shape"].tolist() == [[200, 400]] * 3
    assert list(particles["location/micrograph_path"]) == [NAME, NAME, "plain.mrc"]
    np.testing.assert_allclose(particles["pick_stats/ncc_score"], [0.9, 0.5, 0.9])
    np.testing.assert_allclose(particles["pick_stats/power"], [0.9, 0.5, 0.9])
    assert len(set(particles["uid"].tolist())) == 3
    # cryoSPARC joins particles and micrographs by this
    assert particles["location/micrograph_uid"].tolist()[:2] == [8578565574161745010] * 2


def test_what_cryosparc_tools_saves_is_read_and_its_stream_format_refused(written, tmp_path):
    dataset = pytest.importorskip("cryosparc.dataset", reason="cryosparc-tools is not installed")
    particles = dataset.Dataset.load(str(written))
    particles.save(str(tmp_path / "numpy.cs"))
    ours, theirs = (read_picks([path], {}) for path in (written, tmp_path / "numpy.cs"))
    for one, other in zip(ours, theirs, strict=True):
        assert one.name == other.name and one.size_px == other.size_px
        np.testing.assert_array_equal(one.centres_px, other.centres_px)
        np.testing.assert_array_equal(one.scores, other.scores)
    particles.save(str(tmp_path / "stream.cs"), format=dataset.CSDAT_FORMAT)
    with pytest.raises(UserError, match="stream format"):
        read_picks([tmp_path / "stream.cs"], {})


def test_the_group_names_every_slot_relative_to_itself(written):
    group = yaml.safe_load(written.with_suffix(".csg").read_text())
    assert group["group"]["type"] == "particle"
    assert group["results"] == {
        slot: {"metafile": ">particles.cs", "num_items": 3, "type": f"particle.{slot}"}
        for slot in ("location", "pick_stats")
    }
    assert {"created", "version"} <= group.keys()


def test_the_same_picks_have_the_same_uids_and_those_of_other_micrographs_others():
    one = picks_at("a.mrc", [(1, 2), (3, 4)])
    uids = particles_table([one])["uid"].tolist()
    assert uids == particles_table([picks_at("b.mrc", [(9, 9)]), one])["uid"].tolist()[1:]
    assert uids == particles_table([one])["uid"].tolist() and len(set(uids)) == 2


def test_exposures_give_path_uid_and_pixel_size():
    exposure = Exposure(12345, "J2/motioncorrected/a.mrc", (200, 400), 1.25)
    (row,) = particles_table([flip_y(picks_at("a.mrc", [(50, 100)]))], {"a.mrc": exposure})
    assert row["location/micrograph_uid"] == 12345
    assert row["location/micrograph_path"] == b"J2/motioncorrected/a.mrc"
    assert row["location/micrograph_psize_A"] == 1.25
    assert row["location/center_y_frac"] == 0.75
    assert "location/micrograph_psize_A" not in particles_table([picks_at("b.mrc", [])]).dtype.names
