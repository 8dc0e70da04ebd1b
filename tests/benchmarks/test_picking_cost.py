"""The benchmark of what picking costs: what it runs, and what it makes of the numbers."""

import sys

import numpy as np
import pytest
from PIL import Image

from benchmarks import picking_cost
from picking.errors import UserError

ONE = np.arange(16, dtype=np.uint8).reshape(4, 4)
TAKES_64_MIB = """
import time
x = bytearray(2**26)
while time.process_time() < 0.3: pass
"""


def test_cpu_and_memory_are_those_of_the_processes_that_ran():
    nothing, something = ([[sys.executable, "-c", code]] for code in ("", TAKES_64_MIB))
    little, much, both = (
        picking_cost.cost(each) for each in (nothing, something, nothing + something)
    )
    assert 60 < much.peak_mib - little.peak_mib < 80
    assert both.peak_mib - much.peak_mib == pytest.approx(0, abs=5)
    assert much.cpu_seconds > 0.25 and both.cpu_seconds > 0.25
    with pytest.raises(UserError, match="it was this"):
        picking_cost.cost([[sys.executable, "-c", "raise SystemExit('it was this')"]])


def test_links_are_as_many_micrographs_as_asked_for(tmp_path):
    for grey in (7, 9):
        Image.fromarray(ONE + np.uint8(grey)).save(tmp_path / f"{grey}.png")
    files = picking_cost.as_mrcs(sorted(tmp_path.glob("*.png")), tmp_path)
    links = picking_cost.linked(files, tmp_path / "links", 5)
    assert len({link.name for link in links}) == 5
    assert [link.resolve().name for link in links[:3]] == ["7.mrc", "9.mrc", "7.mrc"]
    rows = np.fromfile(links[1], np.float32, offset=1024).reshape(4, 4)
    assert (rows[::-1] == ONE + 9).all()
