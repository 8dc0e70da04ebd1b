"""The benchmark of the data path."""

import numpy as np
import pytest

from benchmarks import data_path
from picking.pu_learning import inputs


def test_the_views_that_are_timed_are_made_by_what_training_calls():
    def views(module):
        return {name for name in vars(module) if name.endswith(("_view", "_views"))}

    assert views(data_path) and views(data_path) <= views(inputs)


@pytest.mark.parametrize("way", [data_path.BatchedPairs, data_path.PerSamplePairs])
def test_a_patch_becomes_a_pair_of_views(way):
    patches = np.random.default_rng(0).integers(0, 256, (4, 32, 32), dtype=np.uint8)
    pair = way(patches)[2] if way is data_path.PerSamplePairs else way(patches)[0, np.arange(4)]
    assert [view.shape[-3:] for view in pair] == [(1, 32, 32)] * 2
