"""Files of picks: STAR of RELION and cryoSPARC, BOX, CBOX, CSV and COCO."""

import numpy as np
import pytest
from hypothesis import strategies as st

from picking.formats.coco import coco_text
from picking.formats.coordinates import read_picks, write_picks
from picking.formats.cryoppp_csv import csv_text
from picking.formats.picks import Picks
from picking.formats.star import box_text, cbox_text, star_text

from .mutators import damaged_json, damaged_text
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


def not_text(draw, folder):
    """Bytes that nobody wrote as picks, with an ending that says so."""
    suffix = draw(st.sampled_from((".star", ".box", ".cbox", ".csv", ".json")))
    path = folder / f"a{suffix}"
    path.write_bytes(draw(st.binary(max_size=200)))
    return outcome(lambda: read(path), [path.name])


CASES = {star: 80, box: 40, cbox: 60, csv: 40, coco: 80, not_text: 40}


@pytest.mark.parametrize("case", CASES)
def test_damaged_picks_are_read_or_refused_in_one_sentence(case):
    assert set() < run_cases(case, short(CASES[case])) <= ENDS


def test_the_undamaged_originals_are_read(tmp_path):
    for name, text in (
        ("a.star", RELION_3), ("a.box", box_text(PICKS[0])), ("a.cbox", cbox_text(PICKS[0])),
        ("a.csv", csv_text(PICKS[:1], None)), ("a.json", coco_text(PICKS)),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
        assert outcome(lambda name=name: read(tmp_path / name)) != REFUSAL
