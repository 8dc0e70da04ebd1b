"""The training script: where the priors come from."""

import re

import pytest

from tests.fixtures.pu_runs import results_of, train


@pytest.mark.parametrize(
    ("given", "prior", "replaced"),
    [("0.47", 0.5, True), ("pool", 0.5, False), ("actual", 0.35, False)],
)
def test_use_data_prior_takes_the_pools_in_place_of_a_number_and_names_both(
    store, tmp_path, given, prior, replaced
):
    overrides = ["training.max_steps=1", f"loss.prior={given}"]
    folder = train(store, tmp_path, "--use-data-prior", overrides=overrides)
    results = results_of(folder)
    assert (results["prior"], results["prior_source"]) == (prior, "data")
    log = (folder / "training.log").read_text()
    assert f"Prior (π_T): {prior:.4f} from data" in log
    assert bool(re.search("--use-data-prior: .*0.5000.*0.4700.*loss.prior", log)) == replaced


def test_one_prior_for_both_warns_in_the_log(store, tmp_path, finished_run):
    overrides = ["training.max_steps=1", "loss.one_prior=true", "loss.prior=0.47"]
    folder = train(store, tmp_path, overrides=overrides)
    assert "WARNING: loss.one_prior uses one prior" in (folder / "training.log").read_text()
    assert results_of(folder)["unlabeled_prior"] == 0.47
    assert "loss.one_prior uses one prior" not in (finished_run / "training.log").read_text()
