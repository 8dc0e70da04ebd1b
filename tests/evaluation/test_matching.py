import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.metrics import average_precision_score

from picking.errors import UserError
from picking.evaluation.matching import choose_threshold, match, match_picks, pick_metrics, pr_curve
from picking.formats.coordinates import match_names, read_picks
from picking.formats.picks import Picks


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def picks_at(centres, scores=None, name="a.jpg", size_px=(1000, 1000), diameter=20.0):
    centres = np.array(centres, dtype=float).reshape(-1, 2)
    n = len(centres)
    scores = np.full(n, np.nan) if scores is None else np.array(scores, dtype=float)
    return Picks(name, centres, scores, np.full(n, diameter), size_px)


def crowded(rng, n_picks=60, n_truth=40, name="a.jpg"):
    """Picks and particles so dense that each has several of the others in reach; scores tie."""
    truth = picks_at(rng.uniform(0, 120, (n_truth, 2)), name=name)
    near = truth.centres_px[rng.integers(n_truth, size=n_picks)] + rng.normal(0, 8, (n_picks, 2))
    return picks_at(near, rng.integers(0, 15, n_picks) / 15, name), truth


def largest_matching(picks_px, truth_px, radius_px):
    """The size of the largest one-to-one matching, by the Hungarian method."""
    allowed = cdist(picks_px, truth_px) <= radius_px
    rows, columns = linear_sum_assignment(-allowed.astype(float))
    return int(allowed[rows, columns].sum())


# Matching


@pytest.mark.parametrize("seed", range(6))
def test_at_every_threshold_as_many_are_matched_as_an_optimal_assignment_can(seed):
    picks, truth = crowded(np.random.default_rng(seed))
    found = match(picks.centres_px, picks.scores, truth.centres_px, 10)
    for threshold in np.unique(picks.scores):
        called = picks.scores >= threshold
        wanted = largest_matching(picks.centres_px[called], truth.centres_px, 10)
        assert (found[called] >= 0).sum() == wanted


@pytest.mark.parametrize("seed", range(6))
def test_a_match_is_one_to_one_and_within_the_radius_of_each_particle(seed):
    rng = np.random.default_rng(seed)
    picks, truth = crowded(rng)
    radius = rng.uniform(4, 14, len(truth.centres_px))
    found = match(picks.centres_px, picks.scores, truth.centres_px, radius)
    hit = np.flatnonzero(found >= 0)
    assert len(set(found[hit])) == len(hit) > 20
    distance = np.linalg.norm(picks.centres_px[hit] - truth.centres_px[found[hit]], axis=1)
    assert (distance <= radius[found[hit]]).all()
    reach = cdist(picks.centres_px, truth.centres_px) <= radius
    assert not reach[np.ix_(found < 0, ~np.isin(np.arange(len(radius)), found))].any()


def test_a_pick_makes_room_for_a_worse_one_that_has_no_other_particle():
    picks, truth = np.array([[0.0, 0], [0, 10]]), np.array([[0.0, 4], [0, -8]])
    assert match(picks, np.array([0.9, 0.1]), truth, 9).tolist() == [1, 0]
    assert match(picks[:1], np.array([0.9]), truth, 9).tolist() == [0]


def test_a_long_chain_of_picks_moves_up_by_one():
    n = 3000  # each pick reaches its own particle and the one before, the last only the last
    truth = np.stack([np.zeros(n), 10.0 * np.arange(n)], axis=1)
    picks = truth[1:] - (0, 4.0)
    last = truth[-1:] - (0, -3.0)
    scores = np.arange(n, 0, -1.0)
    found = match(np.concatenate([picks, last]), scores, truth, 6.5)
    assert found.tolist() == [*range(n - 1), n - 1]


def test_of_two_picks_on_one_particle_the_higher_score_counts():
    found = match(np.array([[5.0, 5], [5, 6]]), np.array([0.2, 0.8]), np.array([[5.0, 5]]), 10)
    assert found.tolist() == [-1, 0]


def test_the_radius_is_inclusive_and_by_default_half_of_each_particles_diameter():
    truth = picks_at([[100, 100], [200, 200]])
    truth.diameters_px[1] = 60
    picks = picks_at([[110, 100], [200, 230], [100, 110.01], [200, 169.9]])
    assert match_picks(picks, truth).matched.tolist() == [0, 1, -1, -1]
    assert match_picks(picks, truth, radius_px=5).matched.tolist() == [-1] * 4
    truth.diameters_px[1] = np.nan
    with pytest.raises(UserError, match=r"a\.jpg: the truth states no diameters: give --diameter"):
        match_picks(picks, truth)


@pytest.mark.parametrize(("n_picks", "n_truth"), [(0, 0), (0, 3), (3, 0)])
def test_nothing_matches_nothing(n_picks, n_truth):
    spots = np.zeros((3, 2))
    found = match(spots[:n_picks], np.ones(n_picks), spots[:n_truth], 5)
    assert found.tolist() == [-1] * n_picks


# The margin


def test_what_lies_nearer_to_an_edge_than_the_margin_counts_neither_way():
    spots = [[50, 500], [49.9, 500], [500, 950], [500, 950.1], [500, 500], [960, 40]]
    outcome = match_picks(picks_at(spots), picks_at(spots), margin_px=50)
    assert outcome.picks.centres_px.tolist() == [[50, 500], [500, 950], [500, 500]]
    assert outcome.truth.centres_px.tolist() == outcome.picks.centres_px.tolist()
    metrics = pick_metrics([outcome])
    assert (metrics["n_picks"], metrics["n_truth"], metrics["f1"]) == (3, 3, 1)


def test_a_pick_outside_the_margin_does_not_find_a_particle_inside():
    outcome = match_picks(picks_at([[48, 500]]), picks_at([[52, 500]]), margin_px=50)
    metrics = pick_metrics([outcome])
    assert (metrics["n_picks"], metrics["n_truth"], metrics["n_found"]) == (0, 1, 0)


def test_the_margin_follows_the_height_and_the_width():
    outcome = match_picks(
        picks_at([[95, 150], [85, 195]], size_px=None), picks_at([], size_px=(100, 200)), 10
    )
    assert len(outcome.picks.centres_px) == 0
    assert (
        len(match_picks(picks_at([[85, 185]], size_px=(100, 200)), picks_at([]), 10).matched) == 1
    )
    with pytest.raises(UserError, match="size is unknown, so nothing tells"):
        match_picks(picks_at([[9, 9]], size_px=None), picks_at([], size_px=None), 10)


# Metrics


def test_the_metrics_of_a_count_by_hand():
    truth = picks_at([[100, 100], [200, 200], [300, 300], [400, 400]])
    picks = picks_at([[101, 100], [200, 202], [600, 600], [300, 309]], [0.9, 0.6, 0.5, 0.3])
    outcome = match_picks(picks, truth)
    metrics = pick_metrics([outcome])
    assert (metrics["n_picks"], metrics["n_truth"], metrics["n_found"]) == (4, 4, 3)
    assert (metrics["precision"], metrics["recall"], metrics["f1"]) == (0.75, 0.75, 0.75)
    assert metrics["ap"] == pytest.approx((1 + 1 + 3 / 4) / 4)
    metrics = pick_metrics([outcome], threshold=0.6)
    assert (metrics["precision"], metrics["recall"], metrics["threshold"]) == (1, 0.5, 0.6)
    assert metrics["f1"] == pytest.approx(2 / 3)
    assert metrics["ap"] == pytest.approx((1 + 1 + 3 / 4) / 4)
    assert metrics["best"]["threshold"] == 0.3 and metrics["best"]["f1"] == 0.75


def test_average_precision_is_scikit_learns_times_the_fraction_ever_found(rng):
    outcomes = [match_picks(*crowded(rng, name=f"{i}.jpg")) for i in range(4)]
    hit = np.concatenate([each.matched >= 0 for each in outcomes])
    scores = np.concatenate([each.picks.scores for each in outcomes])
    found = hit.sum() / sum(len(each.truth.centres_px) for each in outcomes)
    assert 0.3 < found < 1 and not hit.all()
    wanted = average_precision_score(hit, scores) * found
    assert pick_metrics(outcomes)["ap"] == pytest.approx(wanted)
    assert pr_curve(outcomes).average_precision == pytest.approx(wanted)


def test_the_curve_holds_the_metrics_at_each_of_its_thresholds(rng):
    outcomes = [match_picks(*crowded(rng, name=f"{i}.jpg")) for i in range(3)]
    curve = pr_curve(outcomes)
    assert (np.diff(curve.thresholds) < 0).all() and len(curve.thresholds) == 15
    for k, threshold in enumerate(curve.thresholds):
        metrics = pick_metrics(outcomes, threshold, n_bootstrap=2)
        assert curve.precision[k] == pytest.approx(metrics["precision"])
        assert curve.recall[k] == pytest.approx(metrics["recall"])
        assert curve.f1[k] == pytest.approx(metrics["f1"])
    best = pick_metrics(outcomes)["best"]
    assert best["f1"] == pytest.approx(curve.f1.max())
    at_best = pick_metrics(outcomes, best["threshold"])
    assert (at_best["f1"], at_best["precision"]) == (best["f1"], best["precision"])


def ranked(*hits):
    """The curve of picks from score 1 downward in steps of 0.1, of 4 particles."""
    spots = 50.0 * np.arange(1, len(hits) + 1)
    centres = np.stack([spots, np.where(hits, 100, 900)], axis=1)
    truth = [[spot, 100] for spot, hit in zip(spots, hits, strict=True) if hit]
    truth += [[900, 20 * k] for k in range(4 - len(truth))]
    scores = 1 - 0.1 * np.arange(len(hits))
    return pr_curve([match_picks(picks_at(centres, scores), picks_at(truth))])


def test_a_wanted_precision_takes_the_most_particles_that_it_allows():
    curve = ranked(1, 0, 1, 1, 0, 0)  # precision 1, 1/2, 2/3, 3/4, 3/5, 1/2
    assert choose_threshold(curve, precision=0.7) == pytest.approx(0.65)
    assert choose_threshold(curve, precision=0.75) == pytest.approx(0.65)
    assert choose_threshold(curve, precision=0.76) == pytest.approx(0.95)
    assert choose_threshold(curve, precision=0.5) == pytest.approx(0.65)
    with pytest.raises(UserError, match=r"no threshold has precision 0\.9: the highest is 0\.750"):
        choose_threshold(ranked(0, 1, 1, 1), precision=0.9)
    with pytest.raises(UserError, match="no threshold can be chosen: there is no pick"):
        choose_threshold(ranked())


def test_a_ratio_without_a_denominator_is_none():
    none, one = picks_at([], []), picks_at([[100, 100]], [0.5])
    metrics = pick_metrics([match_picks(none, none)])
    assert {metrics[name] for name in ("precision", "recall", "f1", "ap", "best")} == {None}
    metrics = pick_metrics([match_picks(none, one)])
    assert [metrics[name] for name in ("precision", "recall", "f1", "ap")] == [None, 0, 0, 0]
    metrics = pick_metrics([match_picks(one, none)])
    assert [metrics[name] for name in ("precision", "recall", "f1", "ap")] == [0, None, 0, None]
    assert pick_metrics([])["f1"] is None


def test_picks_without_scores_have_metrics_but_no_ranking():
    outcome = match_picks(picks_at([[100, 100], [500, 500]]), picks_at([[100, 105]]))
    metrics = pick_metrics([outcome])
    assert (metrics["precision"], metrics["recall"]) == (0.5, 1)
    assert metrics["ap"] is metrics["best"] is None
    with pytest.raises(UserError, match="no scores"):
        pick_metrics([outcome], threshold=0.5)
    with pytest.raises(UserError, match="no scores"):
        pr_curve([outcome])


def test_macro_is_the_mean_over_ids_and_micro_is_of_all_together():
    one = picks_at([[100, 100]], [0.5])
    three = picks_at([[100, 100], [300, 300], [500, 500]], [0.9, 0.8, 0.7])
    outcomes = [
        match_picks(three, picks_at(one.centres_px, name="a.jpg")),
        match_picks(one, picks_at(one.centres_px, name="b.jpg")),
        match_picks(one, picks_at(three.centres_px, name="c.jpg")),
        match_picks(picks_at([], []), picks_at([], name="d.jpg")),
    ]
    ids = {"a.jpg": "10017", "b.jpg": "10017", "c.jpg": None}
    metrics = pick_metrics(outcomes, ids={**ids, "d.jpg": "10081"})
    assert (metrics["precision"], metrics["recall"]) == (3 / 5, 3 / 5)
    assert list(metrics["per_id"]) == ["10017", "10081", "unknown"]
    assert metrics["per_id"]["10017"]["precision"] == 0.5
    assert metrics["per_id"]["10017"]["n_micrographs"] == 2
    assert metrics["macro"]["precision"] == (0.5 + 1) / 2
    assert metrics["macro"]["recall"] == pytest.approx((1 + 1 / 3) / 2)
    assert metrics["per_micrograph"]["c.jpg"]["recall"] == pytest.approx(1 / 3)
    assert "macro" not in pick_metrics(outcomes) and "macro" not in pick_metrics(
        outcomes, ids={"a": None}
    )


def test_intervals_come_from_resampling_micrographs(rng):
    outcomes = [match_picks(*crowded(rng, name=f"{i}.jpg")) for i in range(6)]
    metrics = pick_metrics(outcomes)
    for name in ("precision", "recall", "f1"):
        low, high = metrics["intervals"][name]
        assert low < metrics[name] < high
        each = [one[name] for one in metrics["per_micrograph"].values()]
        assert min(each) <= low and high <= max(each)
    assert pick_metrics(outcomes) == metrics
    assert pick_metrics(outcomes, seed=1)["intervals"] != metrics["intervals"]
    assert set(pick_metrics(outcomes[:1])["intervals"].values()) == {None}
    alike = pick_metrics([outcomes[0]] * 5)
    assert alike["intervals"]["f1"] == pytest.approx([alike["f1"]] * 2)


# The real micrographs


@pytest.mark.parametrize(
    ("peer", "wanted", "best_f1"),
    [("crYOLO", (0.868, 0.958, 0.911), 0.911), ("topaz", (0.816, 0.874, 0.844), 0.847)],
)
def test_the_peers_metrics_are_those_of_an_independent_count(empiar10017, peer, wanted, best_f1):
    truth = read_picks([empiar10017 / "annotations" / "instances_test.json"], {})
    paths = sorted((empiar10017 / "peer_picks" / peer).glob("*.box"))
    picks = read_picks(paths, {t.name: t.size_px for t in truth})
    pairs, without_picks, _ = match_names(picks, truth)
    assert len(pairs) == 4 and not without_picks
    metrics = pick_metrics([match_picks(p, t, margin_px=131) for p, t in pairs])
    found = tuple(round(metrics[name], 3) for name in ("precision", "recall", "f1"))
    assert found == wanted
    assert round(metrics["best"]["f1"], 3) == best_f1
