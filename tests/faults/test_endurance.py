"""A long run in short: `python -m tests.faults.endurance` measures thousands of epochs."""

import pytest

from tests.faults import endurance

N_EPOCHS = 60


@pytest.mark.parametrize("script", ["pu", "active"])
def test_a_late_epoch_writes_no_more_than_an_early_one_and_tensorboard_shows_all(script, tmp_path):
    folder, samples = endurance.train(script, N_EPOCHS, tmp_path)
    costs = endurance.per_epoch(samples)
    n_logged = (folder / "metrics.jsonl").read_text().count("\n")
    assert n_logged == endurance.n_shown(folder) == N_EPOCHS
    for only_a_long_run_tells in ("seconds", "memory", "log"):
        del costs[only_a_long_run_tells]
    assert endurance.what_grew(costs) == []
