"""Learning curves: crossings, areas, seeds, targets, savings."""

import numpy as np
import pytest
from scipy import stats

from picking.active_learning.analysis.curves import (
    area,
    areas,
    common_range,
    crossing,
    mean_curve,
    over_seeds,
    paired,
    saving,
    savings,
)
from picking.active_learning.analysis.runs import LearningCurve
from tests.fixtures.run_folders import POOL, RISING, SLOW, level, strategy_of, summary_of, write_run

X = np.array([10.0, 20, 40])


# Crossings


@pytest.mark.parametrize(
    ("f1", "at", "at_most"),
    [
        ([0.2, 0.4, 0.8], 25, False),  # a quarter of the way from 20 to 40
        ([0.25, 0.5, 0.75], 20, False),  # met exactly
        ([0.6, 0.7, 0.8], 10, True),  # the first has it
        ([0.2, 0.6, 0.3], 17.5, False),  # where it first gets there, though it falls again
        ([0.2, 0.45, 0.4], None, False),
    ],
)
def test_a_level_is_reached_on_the_line_between_neighbouring_iterations(f1, at, at_most):
    reached = crossing(X, np.array(f1), 0.5)
    assert reached == {
        "at": pytest.approx(at), "at_most": at_most, "searched_to": 40, "best_f1": max(f1)
    }  # fmt: skip


# Areas


def test_the_area_is_the_mean_height_by_the_trapezium_rule():
    assert area(X, 0.01 * X, 10, 40) == pytest.approx(0.25)
    assert area(X, 0.01 * X, 15, 30) == pytest.approx(0.225)
    assert area(X, np.array([0.3, 0.7, 0.6]), 10, 40) == pytest.approx((0.5 * 10 + 0.65 * 20) / 30)


def test_areas_are_compared_over_what_every_run_covers(tmp_path):
    write_run(tmp_path, "random", RISING)
    write_run(tmp_path, "entropy", RISING[1:6], images=[20, 30, 40, 50, 60])
    write_run(tmp_path, "margin", [0.3])  # one point covers no range
    split = summary_of(tmp_path, 0.7)["validation"]
    assert split["area_range"] == [0.2, 0.6]
    same = [split["strategies"][label]["area"]["mean"] for label in ("random", "entropy")]
    assert same[0] == pytest.approx(same[1])
    assert split["strategies"]["margin"]["area"]["mean"] is None


def test_runs_that_share_no_range_have_no_area():
    f1 = np.array([0.1, 0.2])
    one, other = (LearningCurve(np.array(x), np.array(x), f1) for x in ([1, 2], [3, 4]))
    assert common_range([one.images, one.images]) == (1, 2)
    assert common_range([one.images, other.images]) is None
    assert areas({"a": {1: one}, "b": {1: other}}, "images") == (None, {"a": {}, "b": {}})


def test_labels_cost_ten_clicks_a_micrograph_two_an_image_and_one_a_particle(tmp_path):
    images, micrographs, of_each = [10, 20, 40], [4, 9, 16], 3
    write_run(tmp_path, "random", [0.2, 0.3, 0.4], images=images, micrographs=micrographs,
              particles_per_image=of_each)  # fmt: skip
    write_run(tmp_path, "margin", [0.2, 0.3, 0.4], images=images, micrographs=images,
              particles_per_image=of_each)  # fmt: skip
    split = summary_of(tmp_path, 0.7)["validation"]
    random, margin = (split["strategies"][name] for name in ("random", "margin"))
    assert [row["clicks"] for row in random["f1"]] == [40 + 20 + 30, 90 + 40 + 60, 160 + 80 + 120]
    assert [row["clicks"] for row in margin["f1"]] == [150, 300, 600]
    # From where the second begins to where the first ends
    low, high = split["clicks_range"]
    assert (low, high) == (150, 360)
    x, logs = np.linspace(low, high, 100_001), np.geomspace(low, high, 100_001)
    for strategy, clicks in ((random, [90, 190, 360]), (margin, [150, 300, 600])):
        area = np.interp(x, clicks, [0.2, 0.3, 0.4]).mean()
        by_log = np.interp(np.log(logs), np.log(clicks), [0.2, 0.3, 0.4]).mean()
        assert strategy["area_clicks"]["mean"] == pytest.approx(area, abs=1e-5)
        assert strategy["area_log_clicks"]["mean"] == pytest.approx(by_log, abs=1e-5)
    against = margin["against"]["random"]
    for axis in ("area", "area_clicks", "area_log_clicks"):
        assert against[axis]["mean"] == pytest.approx(margin[axis]["mean"] - random[axis]["mean"])
    assert against["area"]["mean"] == 0 > against["area_clicks"]["mean"]


def test_where_a_run_does_not_say_of_how_many_micrographs_its_images_are_no_cost_is_told(tmp_path):
    write_run(tmp_path, "random", RISING, micrographs=[10 * (k + 1) for k in range(10)])
    write_run(tmp_path, "margin", RISING)
    split = summary_of(tmp_path, 0.7)["validation"]
    assert split["clicks_range"] is None and split["area_range"] == [0.1, 1.0]
    random, margin = (split["strategies"][name] for name in ("random", "margin"))
    assert random["area_clicks"]["mean"] is margin["area_log_clicks"]["mean"] is None
    assert random["f1"][0]["clicks"] == 100 + 20 + 500 and margin["f1"][0]["clicks"] is None


# Seeds


def test_paired_differences_have_the_interval_of_a_paired_t_test():
    one, other = [0.71, 0.73, 0.70, 0.74], [0.69, 0.70, 0.71, 0.70]
    result = paired(dict(enumerate(one)), dict(enumerate(other)))
    interval = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert result["interval"] == pytest.approx([interval.low, interval.high])
    assert result["mean"] == pytest.approx(np.mean(one) - np.mean(other))
    assert result["deviation"] == pytest.approx(np.std(np.subtract(one, other), ddof=1))


def test_only_seeds_that_both_have_are_paired():
    result = paired({1: 0.5, 2: 0.7, 4: 0.9}, {2: 0.6, 3: 0.1, 4: 0.5})
    assert result["by_seed"] == pytest.approx({"2": 0.1, "4": 0.4})
    assert result["n"] == 2


def test_one_seed_has_a_mean_but_no_interval_and_none_has_neither():
    one, none = over_seeds({42: 0.5}), over_seeds({})
    assert (one["mean"], one["deviation"], one["interval"]) == (0.5, None, None)
    assert (none["n"], none["mean"], none["interval"]) == (0, None, None)
    assert over_seeds({1: 0.5, 2: 0.5})["interval"] == [0.5, 0.5]


def test_the_mean_curve_ends_where_the_first_seed_ends():
    long = LearningCurve(np.array([1.0, 2, 3]), np.array([10.0, 20, 30]), np.array([0.2, 0.4, 0.9]))
    short = LearningCurve(np.array([1.0, 2]), np.array([20.0, 40]), np.array([0.4, 0.6]))
    mean = mean_curve({1: long, 2: short})
    assert mean.images.tolist() == [1, 2]
    assert mean.particles.tolist() == [15, 30]
    assert mean.f1.tolist() == pytest.approx([0.3, 0.5])


def test_differences_to_both_random_baselines_are_by_seed_and_fraction(tmp_path):
    for seed in (1, 2, 3):
        write_run(tmp_path, "random", SLOW, seed)
        write_run(tmp_path, "random_stratified", [f1 + 0.01 for f1 in SLOW], seed)
    for seed in (2, 3, 4):
        write_run(tmp_path, "entropy", [f1 + 0.01 * seed for f1 in SLOW[:5]], seed)
    against = strategy_of(tmp_path, "entropy", 0.7)["against"]
    assert against["random"]["area"]["by_seed"] == pytest.approx({"2": 0.02, "3": 0.03})
    rows = against["random_stratified"]["f1"]
    assert [row["share"] for row in rows] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert all(row["by_seed"] == pytest.approx({"2": 0.01, "3": 0.02}) for row in rows)


# Target


def test_the_target_is_the_mean_of_the_full_data_runs_of_the_same_network(tmp_path):
    write_run(tmp_path, "random", RISING)
    write_run(tmp_path, "random", RISING, name="other", model__name="unet")
    for seed, f1 in ((1, 0.70), (2, 0.74)):
        write_run(tmp_path, "full", [f1], seed, training__epochs=100)
    write_run(tmp_path, "full", [0.6], name="weak", training__epochs=1)
    result = strategy_of(tmp_path, "random")
    assert result["target"]["f1"] == pytest.approx(0.72)
    assert "2 seeds, the best of 2 settings" in result["target"]["source"]
    assert level(result, "90%")["f1"] == pytest.approx(0.9 * 0.72)
    assert strategy_of(tmp_path, "random (unet)")["target"]["f1"] is None


def test_a_given_target_replaces_the_baseline_which_keeps_its_levels(tmp_path):
    write_run(tmp_path, "random", RISING)
    write_run(tmp_path, "full", [0.72])
    result = strategy_of(tmp_path, "random", 0.65)
    assert result["target"] == {"f1": 0.65, "source": "given by --target-f1"}
    assert level(result)["images"]["mean_curve"]["at"] == pytest.approx(50)
    assert level(result, "100%")["images"]["mean_curve"]["at"] == pytest.approx(90)


@pytest.mark.parametrize(("pool", "f1"), [(5172, 0.7303), (100, None)])
def test_without_a_baseline_only_the_full_data_set_has_a_target_the_configured_one(
    tmp_path, pool, f1
):
    write_run(tmp_path, "random", [0.5], images=[pool // 10], pool=pool)
    strategy = strategy_of(tmp_path, "random")
    assert strategy["target"]["f1"] == f1
    assert (strategy["levels"] == []) == (f1 is None)


# Savings


def test_savings_are_what_random_of_the_same_seed_needed_more(tmp_path):
    for seed, f1s in ((1, RISING), (2, [f1 + 0.02 for f1 in RISING])):
        write_run(tmp_path, "random", SLOW, seed)
        write_run(tmp_path, "entropy", f1s, seed)
    saved = level(strategy_of(tmp_path, "entropy", 0.65))["saved_against_random"]
    # Random gets to 0.65 with 80 images; entropy with 50 (seed 1) and 40 + 10 * 3 / 5 (seed 2)
    assert [one["images"] for one in saved["by_seed"].values()] == pytest.approx([30, 34])
    assert saved["bound"] == "exactly"
    assert saved["hours"] == pytest.approx(32 * 5 / 60)
    everything = level(strategy_of(tmp_path, "entropy", 0.65))["saved_against_everything"]
    assert everything["images"]["mean"] == pytest.approx(POOL - (50 + 46) / 2)


@pytest.mark.parametrize(
    ("random", "entropy", "bound", "images", "why"),
    [
        (SLOW[:7], RISING, "at least", 20, "random never reached it within 70.0%"),
        (SLOW[:3], RISING, None, None, "random never reached it within 30.0%"),
        (RISING, SLOW[:6], None, None, "not reached within 60.0%"),
    ],
)
def test_where_one_of_the_two_never_gets_there_the_saving_is_a_bound_or_not_known(
    tmp_path, random, entropy, bound, images, why
):
    write_run(tmp_path, "random", random)
    write_run(tmp_path, "entropy", entropy)
    reached = level(strategy_of(tmp_path, "entropy", 0.65))
    saved = reached["saved_against_random"]
    assert (saved["bound"], saved["why"]) == (bound, why)
    if images is None:
        assert saved["images"] is saved["hours"] is None
    else:
        assert saved["images"]["mean"] == pytest.approx(images)
    if entropy is not RISING:
        assert reached["saved_against_everything"]["images"] is None
        assert reached["images"]["mean_curve"]["at"] is reached["images"]["over_seeds"] is None


def test_first_sets_that_have_the_level_already_give_bounds_only():
    first = {"at": 10.0, "at_most": True, "searched_to": 100.0}
    later = {"at": 30.0, "at_most": False, "searched_to": 100.0}
    assert saving(first, later, POOL) == {"images": 20, "bound": "at least", "why": None}
    assert saving(later, first, POOL) == {"images": -20, "bound": "at most", "why": None}
    assert saving(first, first, POOL)["images"] is None


def test_savings_over_seeds_are_bounded_by_bounds_of_one_kind_only():
    more, exact, less = (
        {"images": n, "bound": bound, "why": None}
        for n, bound in ((30, "at least"), (10, "exactly"), (-10, "at most"))
    )
    result = savings({1: more, 2: exact}, minutes_per_image=3)
    assert (result["images"]["mean"], result["bound"], result["hours"]) == (20, "at least", 1)
    assert savings({1: less, 2: exact}, 3)["bound"] == "at most"
    assert savings({1: more, 2: less}, 3)["images"] is None


def test_without_a_saving_of_every_seed_or_a_common_seed_there_is_no_mean(tmp_path):
    for seed, n in ((1, 10), (2, 3)):
        write_run(tmp_path, "random", SLOW, seed)
        write_run(tmp_path, "entropy", RISING[:n], seed)
    saved = level(strategy_of(tmp_path, "entropy", 0.65))["saved_against_random"]
    assert (saved["images"], saved["why"]) == (None, "not reached within 30.0% (1 of 2 seeds)")
    assert saved["by_seed"]["1"]["images"] == pytest.approx(30)
    assert savings({}, 5)["why"] == "no common seed"


def test_particles_are_counted_beside_images(tmp_path):
    write_run(tmp_path, "random", RISING, particles_per_image=20)
    result = level(strategy_of(tmp_path, "random", 0.65))["particles"]["mean_curve"]
    assert result["at"] == pytest.approx(50 * 20)
    assert result["share"] == pytest.approx(50 * 20 / (POOL * 50))


def test_metrics_of_test_are_there_only_where_every_compared_run_has_them(tmp_path):
    tested = [f1 - 0.1 for f1 in RISING]
    write_run(tmp_path, "random", RISING, test_f1s=tested)
    write_run(tmp_path, "full", [0.7], test_f1s=[0.6])
    result = strategy_of(tmp_path, "random", 0.65, split="test")
    assert result["target"]["f1"] == pytest.approx(0.6)  # --target-f1 is of validation
    assert result["best_f1"]["mean"] == pytest.approx(0.63)
    write_run(tmp_path, "entropy", RISING)
    assert summary_of(tmp_path)["test"] is None
