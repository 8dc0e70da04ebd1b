"""A query of a run: what it writes and logs."""

import re

import pytest

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
