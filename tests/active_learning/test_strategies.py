import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from models import UNet
from picking.active_learning import feature_space, strategies
from picking.active_learning.pool_scores import PoolScores, score_pool
from picking.active_learning.strategies import STRATEGIES, Pool, strategy
from picking.errors import UserError
from picking.training.augment import to_float

BY_SCORE = [
    "uncertainty", "entropy", "margin", "foreground_uncertainty", "foreground_entropy",
    "foreground_margin", "bald",
]  # fmt: skip
SCORES = [*BY_SCORE, "particle_entropy", "foreground", "positive"]


def scores(n, seed=0, **given):
    """Scores of n images, drawn at random where they are not given."""
    rng = np.random.default_rng(seed)
    values = {name: rng.random(n).astype(np.float32) for name in SCORES}
    values["features"] = rng.standard_normal((n, 6)).astype(np.float32)
    values["badge"] = rng.standard_normal((n, 4)).astype(np.float32)
    values["general"] = rng.standard_normal((n, 5)).astype(np.float32)
    given = {name: np.asarray(value, np.float32) for name, value in given.items()}
    return PoolScores(rows=np.arange(n), **(values | given))


def pool_of(n, labelled=None, particles=None, strata=None, progress=0.0, **given):
    labelled = scores(5, seed=1) if labelled is None else labelled
    particles = np.full(len(labelled), 10) if particles is None else np.array(particles)
    pool = made_pool(scores(n, **given), labelled, particles, strata or [None] * n)
    return dataclasses.replace(pool, progress=progress)


def made_pool(candidates, labelled, particles, strata):
    """A pool whose images are scored already."""
    rows = np.arange(len(candidates))
    scored = {True: candidates, False: labelled}
    return Pool(rows, np.arange(len(labelled)), lambda r: scored[r is rows], particles, strata)


def select(name, pool, n, seed=0):
    return strategy(name).select(pool, n, np.random.default_rng(seed))


def on_sphere(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def blobs(centres, sizes, spread=0.01, seed=0):
    """Points around given directions, one blob after the other, float32."""
    rng = np.random.default_rng(seed)
    points = np.repeat(np.eye(6)[list(centres)], sizes, axis=0)
    return (points + spread * rng.standard_normal(points.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def trained_pool():
    """A pool of disks on noise of many strengths, scored by a network that learned a little."""
    rng = np.random.default_rng(0)
    n, side_px = 90, 32
    y, x = np.mgrid[:side_px, :side_px]
    masks = np.zeros((n, side_px, side_px), dtype=bool)
    n_particles = rng.integers(0, 7, n)
    for mask, count in zip(masks, n_particles, strict=True):
        for cy, cx in rng.integers(3, side_px - 3, (count, 2)):
            mask |= (y - cy) ** 2 + (x - cx) ** 2 < 12
    noise = rng.normal(0, rng.uniform(5, 60, (n, 1, 1)), masks.shape)
    images = np.clip(140 - 60 * masks + noise, 0, 255).astype(np.uint8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet(width=4, depth=2)
    labelled, candidates = np.arange(20), np.arange(20, n)
    inputs = to_float(torch.from_numpy(images[labelled]))
    targets = torch.from_numpy(masks[labelled]).float().unsqueeze(1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(25):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(network(inputs), targets).backward()
        optimizer.step()
    device, extras = torch.device("cpu"), frozenset({"bald", "badge"})
    scored = [
        dataclasses.replace(
            score_pool(network, images, rows, device, batch_size=32, extras=needed),
            general=rng.standard_normal((len(rows), 5)).astype(np.float32),
        )
        for rows, needed in ((candidates, extras), (labelled, frozenset()))
    ]
    return made_pool(
        *scored,
        n_particles[labelled],
        [str(row % 3) for row in candidates],
    )


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("n", [1, 7, 23, 40])
@pytest.mark.parametrize("ids", [True, False])
def test_every_strategy_chooses_distinct_candidates_and_scores_all_as_its_generator_says(
    name, n, ids
):
    pool = pool_of(23, strata=[f"{i % 4}" if i % 5 else None for i in range(23)] if ids else None)
    chosen, values = select(name, pool, n)
    assert chosen.dtype == np.int64 and len(chosen) == min(n, 23) == len(set(chosen.tolist()))
    assert set(chosen.tolist()) <= set(range(23))
    assert values.shape == (23,) and values.dtype == np.float64 and np.isfinite(values).all()
    again, values_again = select(name, pool, n)  # the generator decides
    assert again.tolist() == chosen.tolist() and values_again.tolist() == values.tolist()


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_copes_with_copies_and_with_scores_of_zero(name):
    n = 12
    zeros = {key: np.zeros(n) for key in SCORES}
    copies = {"features": np.ones((n, 6)), "badge": np.zeros((n, 4)), "general": np.ones((n, 5))}
    chosen, values = select(name, pool_of(n, **zeros, **copies), 10)
    assert len(set(chosen.tolist())) == 10 and np.isfinite(values).all()


def test_strategies_choose_differently_on_a_trained_network(trained_pool):
    assert trained_pool.candidates.foreground.std() > 0.01  # it did learn something
    chosen = {name: frozenset(select(name, trained_pool, 20)[0].tolist()) for name in STRATEGIES}
    for one, other in itertools.combinations(chosen, 2):
        assert chosen[one] != chosen[other], f"{one} and {other} choose the same images"


@pytest.mark.parametrize("name", BY_SCORE)
def test_a_score_strategy_chooses_the_highest_first(name):
    pool = pool_of(40)
    chosen, values = select(name, pool, 11)
    assert chosen.tolist() == np.argsort(-getattr(pool.candidates, name))[:11].tolist()
    assert (values == getattr(pool.candidates, name)).all()


def test_equal_scores_are_chosen_evenly_and_after_the_higher():
    pool = pool_of(10, margin=[0, 0, 0, 0, 0, 0, 0, 1, 1, 2])
    queries = [select("margin", pool, 5, seed)[0] for seed in range(300)]
    assert all(query[0] == 9 and {7, 8} == set(query[1:3]) for query in queries)
    counts = np.bincount(np.concatenate([query[3:] for query in queries]), minlength=10)
    assert counts[:7].sum() == 600 and counts[:7].min() > 50 and counts[:7].max() < 122


def test_random_chooses_all_images_equally_often():
    pool = pool_of(10)
    counts = np.bincount(np.concatenate([select("random", pool, 3, s)[0] for s in range(500)]))
    assert (np.abs(counts - 150) < 4 * np.sqrt(500 * 0.3 * 0.7)).all()


def test_power_entropy_draws_in_proportion_to_the_entropy():
    pool = pool_of(4, entropy=[0.1, 0.2, 0.7, 0])
    counts = np.bincount([select("power_entropy", pool, 1, s)[0][0] for s in range(2000)])
    np.testing.assert_allclose(counts / 2000, [0.1, 0.2, 0.7], atol=0.04)


def naive_k_centre(features, labelled, n):
    """Farthest point first, all distances of one point at a time, in float64."""
    x, centres = on_sphere(features.astype(float)), list(on_sphere(labelled.astype(float)))
    chosen = []
    while len(chosen) < n:
        distance = [min(np.linalg.norm(point - centre) for centre in centres) for point in x]
        chosen.append(int(np.argmax(distance)))
        centres.append(x[chosen[-1]])
    return chosen


@pytest.mark.parametrize("n_labelled", [1, 17])
@pytest.mark.parametrize("block_rows", [4096, 7])
def test_diversity_takes_the_farthest_image_as_a_naive_search_does_and_scores_the_distance(
    monkeypatch, n_labelled, block_rows
):
    monkeypatch.setattr(feature_space, "BLOCK_ROWS", block_rows)
    pool = pool_of(80, scores(n_labelled, seed=1))
    features, labelled = pool.candidates.features, pool.labelled.features
    chosen, values = select("diversity", pool, 25)
    assert chosen.tolist() == naive_k_centre(features, labelled, 25)
    apart = on_sphere(features)[:, None] - on_sphere(labelled)[None]
    np.testing.assert_allclose(values, np.linalg.norm(apart, axis=2).min(axis=1), rtol=1e-4)
    longer = pool_of(80, scores(n_labelled, features=labelled / 3), features=9 * features)
    assert select("diversity", longer, 25)[0].tolist() == chosen.tolist()  # directions alone count


def test_diversity_takes_the_first_of_equally_far_images_and_copies_last():
    def chosen(features, labelled, n):
        pool = pool_of(len(features), scores(len(labelled), features=labelled), features=features)
        return select("diversity", pool, n)[0].tolist()

    assert chosen(np.eye(4)[[0, 1, 1, 2, 3, 0]], np.eye(4)[:1], 9) == [1, 3, 4, 0, 2, 5]
    for seed in range(5):
        rng = np.random.default_rng(seed)
        which = rng.integers(0, 95, 286)
        features = np.pad(rng.standard_normal((95, 64))[which], ((0, 0), (0, 1)))
        first = np.unique(which, return_index=True)[1]
        of_each = chosen(features, np.eye(65)[-1:], len(first))  # as far from all
        assert sorted(of_each) == sorted(first)


def test_coreset_is_another_name_of_diversity():
    assert strategy("coreset") is strategy("diversity")
    assert "coreset" not in STRATEGIES


@pytest.mark.parametrize(("n", "n_uncertain"), [(10, 7), (9, 6), (1, 0), (517, 20)])
def test_hybrid_takes_int_of_seven_tenths_by_uncertainty_and_spreads_the_rest(n, n_uncertain):
    pool = pool_of(29)
    chosen, _ = select("hybrid", pool, n)
    uncertain = np.argsort(-pool.candidates.uncertainty)[:n_uncertain]
    assert chosen[:n_uncertain].tolist() == uncertain.tolist()
    known = np.concatenate([pool.labelled.features, pool.candidates.features[uncertain]])
    others = np.delete(np.arange(29), uncertain)
    spread = naive_k_centre(pool.candidates.features[others], known, len(chosen) - n_uncertain)
    assert chosen[n_uncertain:].tolist() == others[spread].tolist()


# One particle covers 0.02 of a labelled image: 20 particles in 0.4 of an image
OF_ONE = {"labelled": [0.1, 0.3], "particles": [5, 15]}


def seeing_pool(n_seeing, n_blind, **more):
    """A pool whose first images are called positive where one particle would be, or more."""
    positive = [0.021] * n_seeing + [0.019] * (n_blind - 1) + [0]
    labelled = scores(2, positive=OF_ONE["labelled"])
    return pool_of(n_seeing + n_blind, labelled, OF_ONE["particles"], positive=positive, **more)


def test_foreground_random_takes_a_third_where_a_particle_is_seen_and_the_rest_of_all():
    pool = seeing_pool(10, 30)
    queries = [select("foreground_random", pool, 12, seed) for seed in range(600)]
    assert all((values == [1] * 10 + [0] * 30).all() for _, values in queries)
    assert all((chosen[:4] < 10).all() for chosen, _ in queries)
    counts = np.bincount(np.concatenate([chosen for chosen, _ in queries]), minlength=40) / 600
    # Of ten, four, and of the six left and the other thirty, eight of 36
    rest = 8 / 36
    np.testing.assert_allclose(counts[:10], 0.4 + 0.6 * rest, atol=4.5 * 0.5 / np.sqrt(600))
    np.testing.assert_allclose(counts[10:], rest, atol=4.5 * 0.42 / np.sqrt(600))


@pytest.mark.parametrize(("n", "n_first"), [(1, 0), (2, 1), (9, 3), (10, 3), (11, 4)])
def test_foreground_random_rounds_a_third_and_takes_what_is_seen_where_that_is_less(n, n_first):
    for n_seeing in (20, 1, 0):
        pool = seeing_pool(n_seeing, 400)
        seen = [(select("foreground_random", pool, n, s)[0] < n_seeing).sum() for s in range(60)]
        assert min(seen) == min(n_first, n_seeing)
        assert np.mean(seen) <= n_first + 0.9  # of the rest few are among them


def test_foreground_random_takes_any_positive_pixel_where_none_is_called_among_the_labelled():
    positive = np.zeros(30)
    positive[:3] = 1e-6
    for labelled, particles in (([0, 0], [5, 15]), ([0.1, 0.3], [0, 0])):
        pool = pool_of(30, scores(2, positive=labelled), particles, positive=positive)
        chosen, values = select("foreground_random", pool, 9)
        assert values.tolist() == [1] * 3 + [0] * 27 and set(chosen[:3]) == {0, 1, 2}


def test_clasp_pe_takes_two_thirds_by_the_entropy_of_particles_and_the_rest_by_all_entropy():
    n, rng = 30, np.random.default_rng(3)
    # So far apart that noise of 1 / 40 does not change the order
    of_particles, entropy = (2.0 ** -rng.permutation(n) for _ in range(2))
    pool = pool_of(n, progress=1.0, particle_entropy=of_particles, entropy=entropy)
    for n_query, n_stratified in ((1, 0), (2, 1), (9, 5), (10, 6), (20, 13)):
        chosen, values = select("clasp_pe", pool, n_query)
        first = np.argsort(-of_particles)[:n_stratified]
        left = [i for i in np.argsort(-entropy) if i not in first]
        assert chosen.tolist() == [*first, *left[: n_query - n_stratified]]
        np.testing.assert_allclose(values, of_particles, rtol=1e-6)


@pytest.mark.parametrize(("progress", "beta"), [(0.0, 1), (0.5, np.sqrt(40)), (1.0, 40)])
def test_clasp_pe_draws_by_a_power_of_the_score_that_grows_over_the_queries(progress, beta):
    of_particles, entropy = np.array([0.05, 0.06, 0.065]), np.array([0.3, 0.29, 0.25])
    pool = pool_of(3, progress=progress, particle_entropy=of_particles, entropy=entropy)
    by_class = np.bincount([select("clasp_pe", pool, 2, s)[0][0] for s in range(3000)], minlength=3)
    by_all = np.bincount([select("clasp_pe", pool, 1, s)[0][0] for s in range(3000)], minlength=3)
    for counts, score in ((by_class, of_particles), (by_all, entropy)):
        expected = score**beta / (score**beta).sum()
        np.testing.assert_allclose(counts / 3000, expected, atol=4.5 * 0.5 / np.sqrt(3000))


def test_random_stratified_takes_equally_many_of_each_id_as_far_as_they_last():
    strata = ["10017"] * 40 + ["10081"] * 10 + [None] * 2 + ["10345"] * 30
    strata = np.random.default_rng(0).permutation(np.array(strata, dtype=object)).tolist()
    pool = pool_of(82, strata=strata)
    for n, expected in ((8, (2, 2, 2, 2)), (20, (6, 6, 2, 6)), (42, (15, 10, 2, 15))):
        for seed in range(5):
            chosen = [strata[i] for i in select("random_stratified", pool, n, seed)[0]]
            counts = tuple(chosen.count(id_) for id_ in ("10017", "10081", None, "10345"))
            assert counts == expected
    queries = {tuple(select("random_stratified", pool, 8, seed)[0]) for seed in range(20)}
    assert len(queries) == 20
    extra = [strata[select("random_stratified", pool, 1, seed)[0][0]] for seed in range(40)]
    assert len(set(extra)) == 4  # a place over goes to any stratum


def test_random_stratified_without_ids_takes_from_every_cluster_of_features(monkeypatch):
    monkeypatch.setattr(strategies, "MAX_STRATA", 3)
    pool = pool_of(93, features=blobs([0, 1, 2], [80, 8, 5]))
    for seed in range(5):
        chosen = select("random_stratified", pool, 12, seed)[0]
        assert np.histogram(chosen, [0, 80, 88, 93])[0].tolist() == [4, 4, 4]


def test_cost_aware_divides_uncertainty_by_the_clicks_that_the_labelled_images_teach():
    labelled = scores(2, positive=[0.1, 0.3])  # 20 particles in 0.4 of an image: 50 an image
    uncertainty, positive = [0.2, 0.2, 0.3, 0.1], [0, 0.2, 0.2, 0.5]
    pool = pool_of(4, labelled, [5, 15], uncertainty=uncertainty, positive=positive)
    chosen, values = select("cost_aware", pool, 4)
    np.testing.assert_allclose(values, [0.2, 0.2 / 11, 0.3 / 11, 0.1 / 26], rtol=1e-6)
    assert chosen.tolist() == [0, 2, 1, 3]


@pytest.mark.parametrize(("positive", "particles"), [([0, 0], [5, 15]), ([0.1, 0.3], [0, 0])])
def test_cost_aware_is_uncertainty_where_no_cost_can_be_told(positive, particles):
    pool = pool_of(20, scores(2, positive=positive), particles)
    chosen, values = select("cost_aware", pool, 6)
    assert chosen.tolist() == select("uncertainty", pool, 6)[0].tolist()
    assert np.isfinite(values).all()


def test_badge_begins_with_the_longest_gradient_and_spreads_over_the_others():
    points = np.concatenate([blobs([0, 1, 2], [50, 5, 5], 1e-4)[:, :4], np.zeros((40, 4))])
    points[17] *= 1.01
    pool = pool_of(100, badge=points)
    for seed in range(10):
        chosen, values = select("badge", pool, 4, seed)
        assert chosen[0] == 17
        assert np.histogram(chosen, [0, 50, 55, 60, 100])[0].tolist() == [1, 1, 1, 1]
    np.testing.assert_allclose(values, np.linalg.norm(points, axis=1), rtol=1e-5)


def test_badge_draws_further_points_by_their_squared_distance():
    pool = pool_of(3, badge=[[4, 0], [3, 0], [2, 0]])  # squared distances to the first: 1 and 4
    second = np.array([select("badge", pool, 2, seed)[0][1] for seed in range(1000)])
    assert abs((second == 2).mean() - 0.8) < 0.05


def test_typiclust_takes_the_most_typical_of_the_largest_clusters_without_a_label():
    features = blobs([0, 1, 2, 3], [30, 20, 25, 10])
    features[40], features[70] = np.eye(6)[1], np.eye(6)[2]  # the very middles of two blobs
    labelled = scores(2, features=blobs([0, 3], [1, 1], seed=5))
    pool = pool_of(85, labelled, features=features)
    # Two labelled and two wanted: four clusters, the blobs.
    for seed in range(5):
        chosen, values = select("typiclust", pool, 2, seed)
        assert chosen.tolist() == [70, 40]
        assert values[40] == values[30:50].max()


def test_typical_first_is_typiclust_by_features_of_the_general_network():
    general = blobs([0, 1, 2, 3], [30, 20, 25, 10])
    labelled_at = blobs([0, 3], [1, 1], seed=5)
    pool = pool_of(85, scores(2, general=labelled_at), general=general)
    same = pool_of(85, scores(2, features=labelled_at), features=general)
    for seed in range(5):
        (chosen, values), (expected, typicality) = (
            select(name, one, 9, seed)
            for name, one in (("typical_first", pool), ("typiclust", same))
        )
        assert chosen.tolist() == expected.tolist() and (values == typicality).all()
        # Two of four clusters have no label: the larger comes first
        first, second = select("typical_first", pool, 2, seed)[0]
        assert 50 <= first < 75 and 30 <= second < 50


def test_typiclust_goes_round_the_clusters_when_all_hold_something_and_outliers_come_last(
    monkeypatch,
):
    monkeypatch.setattr(strategies, "MAX_CLUSTERS", 4)
    features = blobs([0, 1, 2, 3], [20, 12, 8, 2])  # the last is too small to be typical
    pool = pool_of(42, scores(2, features=blobs([0, 0], [1, 1])), features=features)
    blob = np.repeat([0, 1, 2, 3], [20, 12, 8, 2])
    assert blob[select("typiclust", pool, 7)[0]].tolist() == [1, 2, 1, 2, 0, 1, 2]
    assert set(blob[select("typiclust", pool, 42)[0][-2:]]) == {3}


def test_typicality_is_one_over_the_mean_distance_to_the_nearest_neighbours(monkeypatch):
    monkeypatch.setattr(strategies, "MAX_CLUSTERS", 1)
    monkeypatch.setattr(feature_space, "NEIGHBOURS", 3)
    monkeypatch.setattr(feature_space, "BLOCK_ROWS", 10)
    pool = pool_of(23)
    x = on_sphere(np.concatenate([pool.labelled.features, pool.candidates.features]))
    apart = np.sort(np.linalg.norm(x[:, None] - x[None], axis=2), axis=1)[:, 1:4]
    values = select("typiclust", pool, 4)[1]
    np.testing.assert_allclose(values, 1 / apart.mean(axis=1)[5:], rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "expected"), [("random", []), ("uncertainty", [9]), ("hybrid", [4, 9])]
)
def test_images_are_scored_once_and_only_when_a_strategy_looks_at_them(name, expected):
    scored = []

    def score(rows):
        scored.append(len(rows))
        return scores(len(rows))

    select(name, Pool(np.arange(9), np.arange(4), score, np.ones(4), [None] * 9), 3)
    assert sorted(scored) == expected


def test_an_unknown_strategy_names_the_nearest_and_the_known_ones():
    with pytest.raises(UserError, match=r"'entropi': did you mean 'entropy'\?") as error:
        strategy("entropi")
    assert all(name in str(error.value) for name in [*STRATEGIES, "full"])
