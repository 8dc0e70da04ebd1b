import dataclasses
import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist, pdist

from picking.detection.scores.disks import disk_means
from picking.detection.scores.peaks import _apart, classifier_picks, peaks, segmentation_picks
from picking.detection.scores.score_map import ScoreMap

DIAMETER_PX = 100.0
SPACINGS = [(5.0, 5.0), (4.0, 7.0)]


def masked(centres_px, spacing_px=(5.0, 5.0), size_px=(1000, 1200), diameter_px=DIAMETER_PX):
    """A U-Net's map that is sure of disks at the centres, joined where they overlap."""
    shape = [round(n / s) for n, s in zip(size_px, spacing_px, strict=True)]
    spacing = np.array(size_px) / shape
    y, x = ((np.arange(n) + 0.5) * s for n, s in zip(shape, spacing, strict=True))
    outside = np.full(shape, np.inf)
    for centre in centres_px:
        distance = np.hypot(y[:, None] - centre[0], x - centre[1])
        outside = np.minimum(outside, distance - diameter_px / 2)
    logits = np.clip(-outside, -6, 6).astype(np.float32)
    return ScoreMap(logits, spacing / 2, spacing, size_px)


def bumps(centres_px, spacing_px=16.0, size_px=(1000, 1200), width_px=30.0):
    """A classifier's map with a bell of logits at each centre; its first cell is at the corner."""
    shape = [int(np.ceil(n / spacing_px)) for n in size_px]
    y, x = (np.arange(n) * spacing_px for n in shape)
    logits = np.full(shape, -6.0)
    for centre in centres_px:
        square = (y[:, None] - centre[0]) ** 2 + (x - centre[1]) ** 2
        logits = np.maximum(logits, 10 * np.exp(-square / 2 / width_px**2) - 6)
    return ScoreMap(logits.astype(np.float32), np.zeros(2), np.full(2, spacing_px), size_px)


def worst_distance(picks, centres_px):
    """How far the picks are from the centres at most; there must be as many of both."""
    assert len(picks.centres_px) == len(centres_px)
    distance = cdist(centres_px, picks.centres_px)
    assert sorted(distance.argmin(axis=1)) == list(range(len(centres_px)))
    return distance.min(axis=1).max()


def apart(rng, n, least_px, size_px=(1000, 1200), margin_px=60):
    centres = np.empty((0, 2))
    while len(centres) < n:
        one = rng.uniform(margin_px, np.array(size_px) - margin_px)
        if not len(centres) or cdist([one], centres).min() >= least_px:
            centres = np.vstack([centres, one])
    return centres


# U-Net


@pytest.mark.parametrize("spacing_px", SPACINGS)
def test_single_disks_are_found_to_a_fraction_of_a_cell(spacing_px):
    centres = apart(np.random.default_rng(0), 20, 1.7 * DIAMETER_PX)
    picks = segmentation_picks(masked(centres, spacing_px), "a.jpg", DIAMETER_PX)
    assert worst_distance(picks, centres) < 0.2 * max(spacing_px)
    assert picks.scores.min() > 0.98
    assert (picks.name, picks.size_px) == ("a.jpg", (1000, 1200))


@pytest.mark.parametrize("fraction", [1.0, 0.8, 0.7])
@pytest.mark.parametrize("spacing_px", SPACINGS)
def test_disks_that_touch_or_overlap_are_told_apart(spacing_px, fraction):
    step = fraction * DIAMETER_PX
    pair = [(200, 200), (200, 200 + step)]
    chain = [(500 + k * step * 0.6, 300 + k * step * 0.8) for k in range(4)]
    centres = np.array(pair + chain)
    picks = segmentation_picks(masked(centres, spacing_px), "a", DIAMETER_PX)
    assert worst_distance(picks, centres) < 0.1 * DIAMETER_PX


@pytest.mark.parametrize("centre", [(30, 600), (970, 600), (500, 20), (500, 1190), (15, 15)])
def test_disks_cut_by_the_border_are_found_inside_the_micrograph(centre):
    picks = segmentation_picks(masked([centre]), "a", DIAMETER_PX)
    assert worst_distance(picks, [centre]) < 0.2 * DIAMETER_PX
    assert (picks.centres_px >= 0).all() and (picks.centres_px < (1000, 1200)).all()
    assert picks.scores[0] > 0.95


@pytest.mark.parametrize("diameter_px", [80, 90, 100, 110, 125])
def test_the_diameter_is_that_of_the_disk_also_among_neighbours(diameter_px):
    centres = [(200, 200), (600, 600), (600, 600 + 0.8 * diameter_px)]
    scores = masked(centres, diameter_px=diameter_px)
    picks = segmentation_picks(scores, "a", DIAMETER_PX)
    assert worst_distance(picks, centres) < 0.1 * DIAMETER_PX
    np.testing.assert_allclose(picks.diameters_px, diameter_px, rtol=0.06)


@pytest.mark.parametrize("diameter_px", [85, 100, 115])
@pytest.mark.parametrize("spacing_px", SPACINGS)
def test_of_smaller_disks_the_picks_have_the_diameter_of_the_particle(spacing_px, diameter_px):
    # singles, a pair that touches and one whose particles overlap by a quarter
    step = np.array([(0, 1.0), (0.45, 0.6)]) * diameter_px
    centres = np.array([(200, 200), (200, 500), (600, 300), (600, 900)], dtype=float)
    centres = np.vstack([centres, centres[2] + step[0], centres[3] + step[1]])
    scores = masked(centres, spacing_px, diameter_px=0.6 * diameter_px)
    picks = segmentation_picks(scores, "a", DIAMETER_PX, disk=0.6)
    assert worst_distance(picks, centres) < 0.2 * max(spacing_px)
    np.testing.assert_allclose(picks.diameters_px, diameter_px, rtol=0.08)
    assert picks.scores.min() > 0.95


def test_the_disk_decides_what_lies_about_a_centre_that_the_score_is_of():
    # Sure of a disk of 0.6 diameters alone: a score over 0.6 of a whole one takes in its rim
    scores = masked([(500, 500)], diameter_px=0.5 * DIAMETER_PX)
    small, whole = (segmentation_picks(scores, "a", DIAMETER_PX, disk=d) for d in (0.5, 1.0))
    assert small.scores[0] > 0.98 > whole.scores[0]
    assert small.diameters_px[0] == pytest.approx(2 * whole.diameters_px[0], rel=0.02)


def test_where_not_even_the_centre_is_particle_the_diameter_is_the_one_given():
    scores = masked([(500, 500)])
    faint = ScoreMap(scores.logits - 7, scores.origin_px, scores.spacing_px, scores.size_px)
    picks = segmentation_picks(faint, "a", DIAMETER_PX)
    assert picks.diameters_px.tolist() == [DIAMETER_PX]
    assert 0.1 < picks.scores[0] < 0.4


def test_the_score_is_the_mean_probability_about_the_centre():
    centres = [(300, 300), (700, 800)]
    scores = masked(centres)
    upper = np.indices(scores.logits.shape)[0] < 100
    logits = np.where(scores.logits > 0, np.where(upper, 2.0, 0.5), -6).astype(np.float32)
    picks = segmentation_picks(
        ScoreMap(logits, scores.origin_px, scores.spacing_px, scores.size_px), "a", DIAMETER_PX
    )
    np.testing.assert_allclose(picks.scores, 1 / (1 + np.exp([-2, -0.5])), rtol=1e-3)
    np.testing.assert_allclose(picks.centres_px, centres, atol=1)


def test_an_empty_map_has_no_picks():
    for picks in (
        segmentation_picks(masked([]), "a", DIAMETER_PX),
        classifier_picks(bumps([]), "a", DIAMETER_PX),
    ):
        assert picks.centres_px.shape == (0, 2)
        assert picks.scores.shape == picks.diameters_px.shape == (0,)


# Both


@pytest.mark.parametrize("find", [segmentation_picks, classifier_picks])
def test_no_two_picks_are_closer_than_half_a_diameter(find):
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (150, 170)).astype(np.float32)
    scores = ScoreMap(logits, np.full(2, 4.0), np.full(2, 8.0), (1200, 1360))
    picks = find(scores, "a", DIAMETER_PX)
    assert len(picks.scores) > 100
    assert pdist(picks.centres_px).min() > DIAMETER_PX / 2
    assert (np.diff(picks.scores) <= 0).all()
    assert ((picks.scores >= 0) & (picks.scores <= 1)).all()
    assert ((picks.centres_px >= 0) & (picks.centres_px < (1200, 1360))).all()


def test_of_a_plateau_one_pick_is_left():
    values = np.zeros((60, 60))
    values[20:26, 20:26] = 1.0
    assert len(peaks(values, np.ones(2), 20.0, values > 0.5)) == 1


def test_a_mean_over_a_disk_counts_only_what_is_inside_the_map():
    for mean in disk_means(np.ones((200, 240)), np.full(2, 5.0), [(0, 45.0), (50.0, 65.0)]):
        np.testing.assert_allclose(mean, 1, rtol=1e-6)


@pytest.mark.parametrize("spacing_px", SPACINGS)
def test_a_disk_has_its_area_whatever_the_spacing(spacing_px):
    scores = masked([], spacing_px)
    values = np.zeros(scores.logits.shape)
    values[tuple(n // 2 for n in values.shape)] = 1.0
    highest = disk_means(values, scores.spacing_px, [(0, 40.0)])[0].max()
    assert highest == pytest.approx(scores.spacing_px.prod() / (np.pi * 40**2), rel=0.03)


# The same by the shortest way


def means_by_weighing_each_cell(values, spacing_px, radii_px):
    y, x = np.indices(values.shape).reshape(2, -1) * spacing_px[:, None]
    radius = np.hypot(y[:, None] - y, x[:, None] - x)
    means, cell_px = [], np.sqrt(spacing_px.prod())
    for inner, outer in radii_px:
        weights = np.clip((outer - radius) / cell_px + 0.5, 0, 1)
        weights -= np.clip((inner - radius) / cell_px + 0.5, 0, 1) if inner else 0
        means.append((weights @ values.ravel() / weights.sum(axis=1)).reshape(values.shape))
    return means


def apart_one_by_one(points, distance):
    kept = np.zeros(len(points), dtype=bool)
    for i, point in enumerate(points):
        kept[i] = (np.hypot(*(points[kept] - point).T) > distance).all()
    return kept


def own_cells_of_all(picks, scores, radius_px):
    cells = np.indices(scores.logits.shape).reshape(2, -1).T
    distance = cdist(scores.positions_px(cells), picks.centres_px)
    own = np.flatnonzero(distance.min(axis=1) < radius_px)
    return own, distance[own].argmin(axis=1), distance[own].min(axis=1)


@pytest.mark.parametrize("at_once", [1, 2**18])
@pytest.mark.parametrize("shift", [0.0, 5.0])  # many picks; faint ones among them
@pytest.mark.parametrize(("shape", "spacing_px"), [((70, 60), (6.0, 7.0)), ((9, 150), (5.0, 5.0))])
def test_picks_are_those_of_the_plain_way(shape, spacing_px, shift, at_once, monkeypatch):
    noise = gaussian_filter(np.random.default_rng(7).normal(0, 1, shape), 1.5) * 12 - shift
    size_px = tuple(round(n * s) for n, s in zip(shape, spacing_px, strict=True))
    spacing = np.array(spacing_px)
    scores = ScoreMap(noise.astype(np.float32), spacing / 2, spacing, size_px)
    monkeypatch.setattr("picking.detection.scores.disks.CELLS_AT_ONCE", at_once)
    picks = segmentation_picks(scores, "a", 40.0)
    for name, plain in (
        ("peaks.disk_means", means_by_weighing_each_cell),
        ("peaks._apart", apart_one_by_one),
        ("disks._own_cells", own_cells_of_all),
    ):
        monkeypatch.setattr(f"picking.detection.scores.{name}", plain)
    expected = segmentation_picks(scores, "a", 40.0)
    assert len(expected.scores) > 20
    for field in ("centres_px", "scores", "diameters_px"):
        np.testing.assert_allclose(
            getattr(picks, field), getattr(expected, field), rtol=1e-9, atol=1e-9
        )


def test_what_a_dropped_point_is_near_to_stays():
    points = np.array([(0, k) for k in range(0, 50, 3)] + [(9, 1), (2, 1)], dtype=float)
    kept = _apart(points, 4)
    assert kept.tolist() == apart_one_by_one(points, 4).tolist()
    assert kept.tolist()[:4] == [True, False, True, False]


# Faint peaks


@pytest.mark.parametrize(("find", "of"), [(segmentation_picks, masked), (classifier_picks, bumps)])
@pytest.mark.parametrize("logit", [5.0, 8.0])
def test_a_network_that_scores_particles_at_a_hundredth_and_less_still_finds_them(find, of, logit):
    centres = apart(np.random.default_rng(4), 20, 1.5 * DIAMETER_PX)
    scores = of(centres)
    faint = dataclasses.replace(scores, logits=scores.logits - logit)  # down from +6
    picks = find(faint, "a", DIAMETER_PX)
    assert worst_distance(picks, centres) < 0.1 * DIAMETER_PX
    assert picks.scores.max() < 1.1 / (1 + np.exp(logit - 6))


@pytest.mark.parametrize("find", [segmentation_picks, classifier_picks])
def test_faint_peaks_change_nothing_of_the_others_and_are_as_many_as_have_room(find, monkeypatch):
    noise = np.random.default_rng(5).normal(0, 1, (200, 220))
    logits = (gaussian_filter(noise, 2) * 20 - 6).astype(np.float32)
    scores = ScoreMap(logits, np.full(2, 4.0), np.full(2, 8.0), (1600, 1760))
    found = {}
    for densest in (2 / 3**0.5, 0.75, 0.0):
        monkeypatch.setattr("picking.detection.scores.peaks.DENSEST", densest)
        found[densest] = find(scores, "a", DIAMETER_PX)
    all_of_them, fewer, sure = found.values()
    n_called = int((sure.scores >= 0.05).sum())
    n_fewer = math.ceil(0.75 * 16 * 17.6)
    assert 50 < n_called < len(fewer.scores) < len(all_of_them.scores)
    assert len(fewer.scores) == n_fewer
    for picks in (all_of_them, fewer):
        assert (np.diff(picks.scores) <= 0).all()
        assert pdist(picks.centres_px).min() > DIAMETER_PX / 2
        for field in ("centres_px", "scores", "diameters_px"):
            wanted = getattr(sure, field)[:n_called]
            assert getattr(picks, field)[:n_called].tobytes() == wanted.tobytes()


# Classifier


@pytest.mark.parametrize("spacing_px", [8.0, 16.0])
def test_peaks_of_a_classifier_are_found_to_a_fraction_of_a_cell(spacing_px):
    centres = apart(np.random.default_rng(2), 20, 1.2 * DIAMETER_PX)
    picks = classifier_picks(bumps(centres, spacing_px), "a", DIAMETER_PX)
    assert worst_distance(picks, centres) < 0.15 * spacing_px
    assert picks.diameters_px.tolist() == [DIAMETER_PX] * 20
    assert picks.scores.min() > 0.8  # smoothing takes the tips off


def test_a_classifier_may_be_sure_of_many_places_and_still_tells_where_it_is_surest():
    centres = apart(np.random.default_rng(3), 10, 1.5 * DIAMETER_PX)
    scores = bumps(centres)
    sure = ScoreMap(scores.logits * 8 + 60, scores.origin_px, scores.spacing_px, scores.size_px)
    assert np.unique(sure.probability()[scores.logits > 0]).tolist() == [1.0]
    picks = classifier_picks(sure, "a", DIAMETER_PX)
    assert cdist(centres, picks.centres_px).min(axis=1).max() < 3
