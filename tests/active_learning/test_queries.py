"""How many images are labelled when; what a strategy is told, what is written and logged."""

import dataclasses
import re

import numpy as np
import pytest

from picking.active_learning.queries import initial_set, overlaps, query_rng, schedule
from picking.active_learning.strategies import STRATEGIES, Strategy, random
from picking.errors import UserError
from tests.active_learning.test_strategies import made_pool, pool_of, select
from tests.fixtures import active_runs

ON_DEMAND = {"bald", "badge", "typical_first"}  # strategies that look at what is made on demand


def test_a_schedule_rounds_to_whole_images_and_the_last_iteration_takes_what_is_left():
    expected = [517, 1034, 1552, 2069, 2586, 3103, 3620, 4138, 4655, 5172]
    assert schedule(5172, 0.1, 0.1, 10) == expected
    assert schedule(50, 0.2, 0.3, 4) == [10, 25, 40, 50]
    assert schedule(50, 1.0, 0.3, 1) == [50]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, 0.1, 0.1, 10), "4 images.* 0 .*--initial-fraction"),
        ((0, 0.1, 0.1, 10), "0 images.*--initial-fraction"),
        ((10, 1.2, 0.1, 1), "10 images.* 12 .*--initial-fraction"),
        ((50, 0.1, 0.1, 12), r"iteration 10 .* 50 images.*--iterations\) to 10"),
        ((20, 1.0, 0.1, 2), "iteration 1 .*--iterations"),
        ((20, 0.1, 0.02, 3), "iteration 1 .*raise .*--query-fraction"),
    ],
)
def test_a_schedule_that_cannot_be_kept_says_which_iteration_and_what_to_change(arguments, message):
    with pytest.raises(UserError, match=message):
        schedule(*arguments)


def test_the_initial_set_depends_on_the_seed_alone():
    one = initial_set(200, 20, 42)
    assert one.tolist() == initial_set(200, 20, 42).tolist() == sorted(set(one.tolist()))
    assert len(one) == 20 and one.dtype == np.int64 and one.min() >= 0 and one.max() < 200
    assert one.tolist() != initial_set(200, 20, 43).tolist()
    assert set(one.tolist()) < set(initial_set(200, 30, 42).tolist())


@pytest.mark.parametrize("name", ["coreset", "diversity"])
def test_a_strategy_with_two_names_is_not_compared_with_itself(tmp_path, name):
    store = active_runs.write_store(tmp_path / "images")
    flags = ("--strategy", name, "--iterations", 2, "--epochs", 1)
    run = active_runs.learn(store, tmp_path, *flags, run=name)  # the folder has the name given
    log = (run / "training.log").read_text()
    assert "images by diversity in" in log
    others = re.search("Others would have chosen of these: (.*)", log)[1]
    assert "random " in others
    assert "diversity" not in others and "coreset" not in others


@pytest.mark.parametrize(
    ("iterations", "expected"), [(1, []), (2, [0]), (3, [0, 1]), (5, [0, 1 / 3, 2 / 3, 1])]
)
def test_a_strategy_is_told_how_far_the_run_s_queries_are(
    tmp_path, monkeypatch, iterations, expected
):
    told = []

    def noted(pool, n, rng):
        told.append(pool.progress)
        return random(pool, n, rng)

    monkeypatch.setitem(STRATEGIES, "random", Strategy(noted))
    store = active_runs.write_store(tmp_path / "images")
    flags = ("--strategy", "random", "--iterations", iterations, "--epochs", 1)
    overrides = ("active_learning.compare_queries=false",)
    active_runs.learn(store, tmp_path, *flags, run="random", overrides=overrides)
    assert told == pytest.approx(expected)


def test_overlaps_are_fractions_of_the_query_that_another_run_would_have_made_too():
    pool = pool_of(40)
    chosen, _ = STRATEGIES["margin"].select(pool, 10, query_rng(7, "margin", 2))
    fractions = overlaps(pool, chosen, ["margin", "random", "bald"], seed=7, iteration=2)
    assert fractions["margin"] == 1
    other, _ = STRATEGIES["random"].select(pool, 10, query_rng(7, "random", 2))
    assert fractions["random"] == len(set(other.tolist()) & set(chosen.tolist())) / 10 < 1
    assert "bald" in fractions


def test_overlaps_leave_out_strategies_whose_extras_were_not_computed():
    whole = pool_of(40)
    bare = dataclasses.replace(whole.candidates, bald=None, badge=None, general=None)
    without = made_pool(bare, whole.labelled, np.ones(5), [None] * 40)
    chosen, _ = select("entropy", whole, 9)
    assert set(overlaps(without, chosen, STRATEGIES, 0, 0)) == set(STRATEGIES) - ON_DEMAND
    assert set(overlaps(whole, chosen, STRATEGIES, 0, 0)) == set(STRATEGIES)
