import numpy as np
import pytest

from picking.errors import UserError
from picking.formats.cryosparc.exposures import Exposure, read_exposures
from tests.fixtures.cryosparc import locations, write_cs, write_csg, write_exposures


def test_micrographs_come_as_listed(tmp_path):
    path = write_exposures(tmp_path / "e.cs", ("J2/b.mrc", ">J2/a.mrc"), psize=1.5, shape=(30, 40))
    wanted = [Exposure(77, "J2/b.mrc", (30, 40), 1.5), Exposure(78, "J2/a.mrc", (30, 40), 1.5)]
    assert read_exposures(path) == wanted
    ctf = write_cs(tmp_path / "ctf.cs", uid=np.array([78], "<u8"), **{"ctf/df1_A": np.ones(1)})
    group = write_csg(tmp_path / "e.csg", "exposure", micrograph_blob=path.name, ctf=ctf.name)
    assert read_exposures(group) == wanted


def test_what_lists_no_micrographs_is_refused(tmp_path):
    particles = write_cs(tmp_path / "p.cs", **locations([(0.5, 0.5)]))
    with pytest.raises(UserError, match=r"p\.cs lists no micrographs"):
        read_exposures(particles)
    group = write_csg(tmp_path / "p.csg", location=particles.name)
    with pytest.raises(UserError, match=r"p\.csg has no 'micrograph_blob' .*of exposures"):
        read_exposures(group)


def test_a_micrograph_without_size_is_refused(tmp_path):
    for wrong in ({"psize": 0}, {"shape": (0, 0)}, {"names": ("",)}):
        with pytest.raises(UserError, match=r"e\.cs"):
            read_exposures(write_exposures(tmp_path / "e.cs", **wrong))
