import numpy as np

from picking.seeds import stream, stream_seed


def test_a_stream_depends_on_the_seed_and_on_every_name():
    seeds = {stream_seed(*key) for key in ((0, "a"), (1, "a"), (0, "b"), (0, "a", 1), (0, "a", 2))}
    assert len(seeds) == 5 and all(0 <= seed < 2**63 for seed in seeds)
    assert stream(3, "a", 1).integers(10**9) == stream(3, "a", 1).integers(10**9)


def test_a_stream_gives_the_same_numbers_on_every_machine():
    assert stream_seed(42, "hide", "train", "a.jpg") == 5743461989334127553
    assert stream(42, "hide").permutation(6).tolist() == [2, 0, 5, 1, 3, 4]


def test_streams_of_neighbouring_seeds_are_not_alike():
    drawn = np.array([stream(seed, "x").random(200) for seed in range(30)])
    correlations = np.corrcoef(drawn)[np.triu_indices(30, 1)]
    assert abs(correlations).max() < 0.35
