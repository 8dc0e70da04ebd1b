"""Files of picks: STAR, BOX, CBOX, CSV, COCO, cryoSPARC's .cs and .csg, Topaz's, EMAN's."""

import numpy as np
import pytest
from hypothesis import strategies as st

from picking.formats.coco import coco_text
from picking.formats.coordinates import FRAMES, read_picks, write_picks
from picking.formats.cryoppp_csv import csv_text
from picking.formats.cryosparc.exposures import read_exposures
from picking.formats.cryosparc.writing import cs_bytes, csg_text, particles_table
from picking.formats.picks import Picks
from picking.formats.star import box_text, cbox_text, star_text
from tests.fixtures.cryosparc import locations, write_cs, write_csg, write_exposures

from .mutators import damaged_array, damaged_bytes, damaged_json, damaged_text
from .oracle import ENDS, REFUSAL, outcome, run_cases, short

SIZE_PX = (320, 384)


def picks_of(name):
    rng = np.random.default_rng(len(name))
    centres = rng.uniform(20, 300, (6, 2))
    return Picks(name, centres, rng.random(6), np.full(6, 20.0), SIZE_PX)


PICKS = [picks_of("a.jpg"), picks_of("bb.jpg")]
RELION_3 = """# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
1 opticsGroup1

data_particles

loop_
_rlnMicrographName #1
_rlnCoordinateX #2
_rlnCoordinateY #3
_rlnAutopickFigureOfMerit #4
MotionCorr/a.mrc 10.5 20.25 0.5
MotionCorr/a.mrc 30.5 40.25 -999
"MotionCorr/bb.mrc" 50.5 60.25 1.5
"""
TOPAZ = "image_name\tx_coord\ty_coord\tscore\na\t50\t30\t4.7\nbb\t10\t90\t-1.2\na\t5\t6\t0\n"
EMAN = b'{"boxes": [[50, 30, "manual"], [10.5, 90, "auto_local"]], "boxes_rct": [], "quality": 5}'
OLD_CBOX = "10 20 30 30 0.9 5 6\n40 50 30 30 0.8 5 6\n"


def read(path, frame=None):
    """Read picks as the scripts do, of micrographs that are known, and look at what came."""
    sizes = {"a.jpg": SIZE_PX, "bb.jpg": SIZE_PX}
    found = read_picks([path], sizes, frame, only_known=True)
    for picks in found:
        n = len(picks.centres_px)
        assert picks.name in sizes and picks.centres_px.shape == (n, 2)
        assert picks.scores.shape == picks.diameters_px.shape == (n,)
        assert (np.abs(picks.centres_px) < 2e9).all()
        assert not (np.abs(picks.diameters_px) >= 2e9).any()
    write_picks(path.parent / "again", found, ["star"])


def of_text(draw, folder, name, *texts):
    path = folder / name
    path.write_bytes(draw(damaged_text(draw(st.sampled_from(texts)))))
    return outcome(lambda: read(path), [path.name, "a.jpg", "bb.jpg"])


def star(draw, folder):
    return of_text(draw, folder, "a.star", RELION_3, star_text(PICKS, ["a.mrc", "bb.mrc"]))


def box(draw, folder):
    return of_text(draw, folder, "a.box", box_text(PICKS[0]))


def cbox(draw, folder):
    return of_text(draw, folder, "a.cbox", cbox_text(PICKS[0]), OLD_CBOX)


def csv(draw, folder):
    one, many = csv_text(PICKS[:1], None), csv_text(PICKS, ["a.jpg", "bb.jpg"])
    return of_text(draw, folder, "a.csv", one, many)


def coco(draw, folder):
    path = folder / "a.json"
    path.write_bytes(draw(damaged_json(coco_text(PICKS).encode())))
    return outcome(lambda: read(path), [path.name, "a.jpg", "bb.jpg"])


def topaz(draw, folder):
    return of_text(draw, folder, "a.txt", TOPAZ)


def eman(draw, folder):
    path = folder / "a_info.json"
    path.write_bytes(draw(damaged_json(EMAN)))
    return outcome(lambda: read(path), [path.name, "a.jpg", "bb.jpg"])


def cs(draw, folder):
    """A .cs that is spoilt as a file, or whose columns are of other types and shapes."""
    path = folder / "a.cs"
    columns = locations([(0.25, 0.5), (0.5, 0.75)], path="J2/a.mrc", shape=SIZE_PX)
    columns |= {"alignments2D/shift": np.ones((2, 2)), "alignments2D/psize_A": np.ones(2)}
    if draw(st.booleans()):
        for name in draw(st.lists(st.sampled_from(sorted(columns)), min_size=1, max_size=3)):
            array = draw(damaged_array(columns[name])) if name in columns else np.zeros(0)
            if array.shape[:1] == (2,):
                columns[name] = array
            elif name != "uid":
                columns.pop(name, None)
        write_cs(path, **columns)
    else:
        path.write_bytes(draw(damaged_bytes(cs_bytes(particles_table(PICKS)), hot=400)))
    return outcome(lambda: read(path), [path.name, "a.jpg", "bb.jpg"])


def csg(draw, folder):
    """A group whose .csg is spoilt, or one of its two files."""
    columns = locations([(0.25, 0.5), (0.5, 0.75)], path="J2/a.mrc", shape=SIZE_PX)
    write_cs(folder / "p.cs", **columns)
    write_cs(folder / "m.cs", uid=columns["uid"], **{"alignments3D/shift": np.zeros((2, 2))})
    path = write_csg(folder / "a.csg", location="p.cs", alignments3D="m.cs")
    spoilt = draw(st.sampled_from([path, path, path, folder / "m.cs"]))
    if spoilt is path:
        spoilt.write_bytes(draw(damaged_text(path.read_text())))
    else:
        spoilt.write_bytes(draw(damaged_bytes(spoilt.read_bytes())))
    return outcome(lambda: read(path), [".cs", "a.jpg"])


def exposures(draw, folder):
    path = write_exposures(folder / "e.cs", ("J2/a.mrc", "J2/bb.mrc"))
    path.write_bytes(draw(damaged_bytes(path.read_bytes(), hot=300)))
    return outcome(lambda: read_exposures(path), [path.name])


def not_text(draw, folder):
    """Bytes that nobody wrote as picks, with an ending that says so."""
    suffix = draw(st.sampled_from(sorted(FRAMES)))
    path = folder / f"a{suffix}"
    path.write_bytes(draw(st.binary(max_size=200)))
    return outcome(lambda: read(path), [path.name])


CASES = {
    star: 80, box: 40, cbox: 60, csv: 40, coco: 80, topaz: 40, eman: 40, cs: 80, csg: 40,
    exposures: 40, not_text: 40,
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_damaged_picks_are_read_or_refused_in_one_sentence(case):
    assert set() < run_cases(case, short(CASES[case])) <= ENDS


def test_the_undamaged_originals_are_read(tmp_path):
    for name, text in (
        ("a.star", RELION_3), ("a.box", box_text(PICKS[0])), ("a.cbox", cbox_text(PICKS[0])),
        ("a.csv", csv_text(PICKS[:1], None)), ("a.json", coco_text(PICKS)), ("a.txt", TOPAZ),
        ("a_info.json", EMAN.decode()),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
        assert outcome(lambda name=name: read(tmp_path / name)) != REFUSAL
    table = particles_table(PICKS)
    (tmp_path / "particles.cs").write_bytes(cs_bytes(table))
    (tmp_path / "a.csg").write_text(csg_text(table, "particles.cs"))
    for name in ("particles.cs", "a.csg"):
        assert outcome(lambda name=name: read(tmp_path / name)) != REFUSAL
