"""What benchmarks.rejections tells to be no particle."""

from types import SimpleNamespace

import numpy as np
from scipy.spatial import cKDTree

from benchmarks import rejections
from picking.formats.coordinates import read_picks
from tests.benchmarks.test_clicks import SIZE_PX, candidates_of, micrographs


def test_the_false_picks_of_the_highest_score_are_rejected_and_no_particle_is(
    tmp_path, monkeypatch
):
    listed = micrographs()
    candidates = candidates_of(listed)
    monkeypatch.setattr(rejections, "pick", lambda *_: candidates)
    real = SimpleNamespace(train=listed, margin_px=0)
    written = rejections.reject(real, tmp_path, 9)
    told = read_picks([written], {one.name: SIZE_PX for one in listed})
    assert sum(len(one.centres_px) for one in told) == 9
    scores = np.concatenate([one.scores for one in told])
    assert scores.min() >= np.sort([s for c in candidates.values() for s in c.scores[-100:]])[-9]
    for one in told:
        truth = next(each for each in listed if each.name == one.name)
        assert cKDTree(truth.centres_px).query(one.centres_px)[0].min() > 15
