"""Each file of the corpus comes out as its row says: used, told of, or refused."""

import pytest

from . import base, dropped, images, names, placement, scoring, tables
from .case import judge

CASES = [c for room in (dropped, tables, placement, names, images, scoring) for c in room.CASES]


def test_no_two_cases_have_one_name():
    assert len({case.id for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_what_a_user_brings_is_used_or_told_of_or_refused(case, tmp_path, monkeypatch):
    base.lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    judge(case, tmp_path)
