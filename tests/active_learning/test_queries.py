"""A query of a run: what a strategy is told, what is written and logged."""

import re

import pytest

from picking.active_learning.strategies import STRATEGIES, Strategy, random
from tests.fixtures import active_runs


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
