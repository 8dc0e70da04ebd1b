import numpy as np
import pytest

from picking.formats.picks import Picks
from picking.micrographs.mrc import write_mrc
from picking.relion_job.logfile import N_OVERLAYS, _overlays, write_logfile

SIZE_PX = (120, 160)


@pytest.fixture
def micrographs(tmp_path):
    rng = np.random.default_rng(0)
    paths = {f"m{i}.mrc": tmp_path / f"m{i}.mrc" for i in range(8)}
    for path in paths.values():
        write_mrc(path, rng.normal(0, 1, SIZE_PX), 1.5)
    return paths


def candidates_of(name, scores):
    centres = np.tile([(60.0, 80.0)], (len(scores), 1))
    return Picks(name, centres, np.array(scores, float), np.full(len(scores), 20.0), SIZE_PX)


@pytest.mark.parametrize("n", [1, 8])
@pytest.mark.parametrize("scores", [[], [0.1, 0.4, 0.9]])
def test_the_pdf_has_two_pages_however_few_picks_there_are(n, scores, micrographs, tmp_path):
    candidates = [candidates_of(name, scores) for name in list(micrographs)[:n]]
    write_logfile(tmp_path / "logfile.pdf", candidates, 0.4, micrographs)
    content = (tmp_path / "logfile.pdf").read_bytes()
    assert content.startswith(b"%PDF") and content.count(b"/Type /Page ") == 2
    assert b"/CreationDate" not in content


def test_overlays_are_of_micrographs_all_over_the_list_and_count_the_picks(micrographs):
    candidates = [candidates_of(name, [0.1, 0.4, 0.9]) for name in micrographs]
    titles = [axis.get_title() for axis in _overlays(candidates, 0.4, micrographs).axes]
    assert len(titles) == N_OVERLAYS
    assert titles[0] == "m0.mrc: 2 picks" and titles[-1] == "m7.mrc: 2 picks"
