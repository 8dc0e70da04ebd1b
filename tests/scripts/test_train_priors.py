"""The training script: where the priors come from."""

from tests.fixtures.pu_runs import results_of, train


def test_use_data_prior_means_actual_unless_the_config_says_pool(store, tmp_path):
    once = ["training.max_steps=1", "loss.prior=0.47"]
    folder = train(store, tmp_path, "--use-data-prior", overrides=once, name="actual")
    results = results_of(folder)
    assert (results["prior"], results["prior_source"]) == (0.35, "data")
    assert (
        "Prior (π_T): 0.3500 from data (loss.prior: actual)"
        in (folder / "training.log").read_text()
    )
    once.append("loss.prior=pool")
    folder = train(store, tmp_path, "--use-data-prior", overrides=once, name="pool")
    assert results_of(folder)["prior"] == 0.5


def test_one_prior_for_both_warns_in_the_log(store, tmp_path, finished_run):
    overrides = ["training.max_steps=1", "loss.one_prior=true", "loss.prior=0.47"]
    folder = train(store, tmp_path, overrides=overrides)
    assert "WARNING: loss.one_prior uses one prior" in (folder / "training.log").read_text()
    assert results_of(folder)["unlabeled_prior"] == 0.47
    assert "loss.one_prior uses one prior" not in (finished_run / "training.log").read_text()
