"""The training script: what a run learns and leaves, the same again, and its evaluation."""

import os
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from models import PUClassifier
from picking.config import PUConfig, read_config
from picking.errors import UserError
from picking.pu_learning import train as training
from picking.pu_learning.state import update_average
from picking.pu_learning.tensorboard import TRAIN_TAGS, VAL_TAGS
from picking.runs.checkpoints import load_checkpoint
from picking.stores.patches import PatchStore
from tests.fixtures.pu_runs import (
    assert_same_run,
    call,
    config_with,
    copy_of_store,
    evaluate,
    leave_one_class,
    metrics_of,
    results_of,
    strict_json,
    train,
)

N_STEPS = 15  # 39 unlabeled patches at 8 a batch make 5 steps an epoch


def test_a_run_leaves_the_whole_folder(finished_run):
    names = {
        str(path.relative_to(finished_run)) for path in finished_run.rglob("*") if path.is_file()
    }
    events = {name for name in names if name.startswith("events.out.tfevents")}
    assert events
    assert names - events == {
        ".lock", "config.yaml", "run.json", "training.log", "metrics.jsonl", "results.json",
        "checkpoints/last.pt", "checkpoints/best_model.pt",
    }  # fmt: skip


def test_the_config_of_a_run_is_resolved_and_can_be_used_again(finished_run, store):
    config = read_config(finished_run / "config.yaml", [], PUConfig)
    assert config.data.dir == str(store)
    assert (config.training.epochs, config.optimizer.lr) == (3, 0.01)
    assert config.model == PUConfig().model


def test_the_log_has_an_epochs_block_and_the_losses_add_up(finished_run):
    log = (finished_run / "training.log").read_text()
    number = r"(-?\d+\.\d{4})"
    blocks = re.findall(
        rf"""Epoch (\d)/3
  Train Loss: {number}
    - PU Loss: {number}
    - Consistency Loss: {number}
  Consistency Mask Rate: \d+\.\d%
    - of pseudo-positives .*

  Val AUC: {number}
  Val Precision: .*
  Val Recall: .*
(  \*\*\* New best model! AUC: {number} \*\*\*\n)?""",
        log,
    )
    assert [block[0] for block in blocks] == ["1", "2", "3"]
    for _, total, pu, consistency, auc, is_best, best_auc in blocks:
        # rounding to four digits, twice
        assert float(pu) + float(consistency) == pytest.approx(float(total), abs=1.01e-4)
        assert not is_best or best_auc == auc
    assert blocks[0][5]  # the first epoch is the best so far
    assert "Prior (π_T): 0.5000 from data (loss.prior: pool)" in log
    assert "Prior of the unlabeled (π_U): 0.2308 from data" in log
    assert re.search(r"Test AUC +\d\.\d{4} +target 0.85 to 0.90", log)
    assert re.search(r"(met|NOT met) +\d\.\d{4} +test recall > 0.70", log)
    assert "\r" not in log


def test_the_metrics_have_every_metric_of_every_epoch(finished_run):
    history = metrics_of(finished_run)
    assert [metrics["epoch"] for metrics in history] == [1, 2, 3]
    assert [metrics["step"] for metrics in history] == [5, 10, 15]
    for metrics in history:
        assert metrics.keys() >= TRAIN_TAGS.keys()
        assert metrics["val"].keys() >= VAL_TAGS.keys()
        assert metrics["train_loss"] == pytest.approx(
            metrics["pu_loss"] + metrics["consistency_loss"], rel=1e-12
        )
    rates = [metrics["lr"] for metrics in history]
    assert rates[0] < 0.01 and rates == sorted(rates, reverse=True) and rates[-1] > 0


def test_tensorboard_reads_scalars_curve_histograms_images_and_hyperparameters(finished_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished_run)).Reload()
    history = metrics_of(finished_run)
    tags = events.Tags()
    for source, names in ((history, TRAIN_TAGS), ([h["val"] for h in history], VAL_TAGS)):
        for name, tag in names.items():
            logged = [(scalar.step, scalar.value) for scalar in events.Scalars(tag)]
            expected = [(i + 1, f[name]) for i, f in enumerate(source) if f[name] is not None]
            assert logged == [(step, pytest.approx(value, rel=1e-6)) for step, value in expected]
    assert "Val/PR curve" in tags["tensors"]
    scores = {name: events.Histograms(f"Val scores/{name}")[0].histogram_value for name in
              ("labelled", "hidden", "negative")}  # fmt: skip
    assert [scores[name].num for name in scores] == [14, 6, 20]
    for name in ("lowest positives", "highest negatives"):
        assert events.Images(f"Val worst/{name}")[0].width >= 32
    assert {"final/val auc", "final/test auc"} <= set(tags["scalars"])
    hyperparameters = events.SummaryMetadata("_hparams_/session_start_info")
    assert b"optimizer.lr" in hyperparameters.plugin_data.content


def test_the_results_have_every_key_that_is_promised(finished_run):
    results = results_of(finished_run)
    five = {"precision", "recall", "f1", "specificity", "balanced_accuracy"}
    for split in ("test", "val"):
        report = results[split]
        assert report.keys() >= {"auc", "ap", "ece", "ap_base_rate", *five}
        assert report["at_val_threshold"].keys() >= five
        assert report["intervals"].keys() >= {"auc", "ap", *five}
        low, high = report["intervals"]["auc"]
        assert 0 <= low <= report["auc"] <= high <= 1
        assert report["at_val_threshold"]["threshold"] == results["threshold"]
    assert (results["prior"], results["prior_source"]) == (0.5, "data")
    assert results["unlabeled_prior"] == pytest.approx(9 / 39)
    assert results["unlabeled_prior_source"] == "data"
    assert (results["epochs_run"], results["steps_run"]) == (3, N_STEPS)
    assert len(results["success_criteria"]) == 6
    assert set(results["targets"]) == {"auc", "ap", "precision", "recall", "f1"}
    assert results["targets"]["auc"] == {
        "low": 0.85, "high": 0.90, "reached": results["test"]["auc"],
    }  # fmt: skip
    assert results["train_seconds"] > 0
    assert {"python", "torch"} <= results["versions"].keys()


def test_the_results_are_of_the_best_epoch_and_its_threshold(finished_run):
    results, history = results_of(finished_run), metrics_of(finished_run)
    best = max(history, key=lambda metrics: metrics["val"]["auc"])
    assert results["best_epoch"] == best["epoch"]
    assert results["threshold"] == best["val"]["at_val_threshold"]["threshold"]
    for name in ("auc", "ap", "f1", "ece"):
        assert results["val"][name] == best["val"][name]


def test_checkpoints_are_data_only(finished_run):
    best = torch.load(finished_run / "checkpoints" / "best_model.pt", weights_only=True)
    last = torch.load(finished_run / "checkpoints" / "last.pt", weights_only=True)
    assert best["kind"] == "pu_classifier"
    assert best["config"] == yaml.safe_load((finished_run / "config.yaml").read_text())
    assert last["progress"]["step"] == N_STEPS


def test_a_run_learns_to_tell_faint_disks_from_noise(store, tmp_path):
    overrides = ["training.epochs=20", "optimizer.lr=0.003", "training.checkpoint_every_steps=99"]
    history = metrics_of(train(store, tmp_path, overrides=overrides))
    auc = [metrics["val"]["auc"] for metrics in history]
    assert max(auc) > 0.85
    assert history[-1]["pu_loss"] < history[0]["pu_loss"]
    assert history[-1]["logit_std"] > 0.05  # under it the log would warn of a collapse


def test_a_real_backbone_trains_and_a_store_without_test_is_enough(store, tmp_path):
    smaller = copy_of_store(store, tmp_path, "train", "val")
    overrides = ["training.max_steps=6", "training.checkpoint_every_steps=100"]
    folder = train(smaller, tmp_path, network=PUClassifier, overrides=overrides)
    results = results_of(folder)
    assert results["test"] is None
    assert results["parameters"] == 11_170_753
    assert (results["steps_run"], results["epochs_run"]) == (6, 2)
    assert [item["met"] for item in results["success_criteria"][1:]] == [None] * 5


@pytest.mark.parametrize("n_workers", [0, 2])
def test_the_same_seed_gives_the_same_run_with_any_number_of_workers(
    store, tmp_path, finished_run, n_workers
):
    again = train(store, tmp_path, "--num-workers", n_workers)
    assert_same_run(again, finished_run)


def test_deterministic_kernels_are_used_when_asked_for(store, tmp_path, finished_run, own_kernels):
    assert not torch.are_deterministic_algorithms_enabled()
    run = train(store, tmp_path, overrides=["training.deterministic=true"])
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert metrics_of(run) == metrics_of(finished_run)  # on the CPU they always are


def test_another_seed_gives_another_run(store, tmp_path, finished_run):
    other = train(store, tmp_path, overrides=["training.seed=43"])
    assert metrics_of(other)[0]["pu_loss"] != metrics_of(finished_run)[0]["pu_loss"]


def test_the_rate_of_a_step_is_the_configs(tmp_path):
    config = config_with(tmp_path)
    assert training.learning_rate(config, 50, 100) == pytest.approx(0.005)
    constant = config_with(tmp_path, "optimizer.scheduler=constant")
    assert training.learning_rate(constant, 99, 100) == 0.01


def test_the_average_moves_by_its_decay_and_copies_the_buffers():
    torch.manual_seed(0)
    average, network = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    nn.init.constant_(network.weight, 2)
    network.running_mean.fill_(5)
    for step, decay in ((0, 0.1), (8, 0.5), (10_000, 0.9)):
        nn.init.constant_(average.weight, 1)
        update_average(SimpleNamespace(average=average, network=network), 0.9, step)
        assert average.weight.tolist() == pytest.approx([2 - decay] * 3)
        assert average.running_mean.tolist() == [5] * 3


def test_with_an_average_it_is_what_is_evaluated_and_saved(store, tmp_path):
    overrides = ["training.ema_decay=0.9", "training.max_steps=5"]
    checkpoints = train(store, tmp_path, overrides=overrides) / "checkpoints"
    best = load_checkpoint(checkpoints / "best_model.pt")["network"]
    last = load_checkpoint(checkpoints / "last.pt")
    assert all(torch.equal(best[name], last["average"][name]) for name in best)
    assert not torch.equal(best["0.weight"], last["network"]["0.weight"])


def test_a_teacher_alone_is_neither_evaluated_nor_saved(store, tmp_path):
    overrides = ["training.ema_teacher=true", "training.max_steps=5"]
    checkpoints = train(store, tmp_path, overrides=overrides) / "checkpoints"
    best = load_checkpoint(checkpoints / "best_model.pt")["network"]
    last = load_checkpoint(checkpoints / "last.pt")
    assert all(torch.equal(best[name], last["network"][name]) for name in best)


def test_the_weight_of_the_consistency_rises_over_the_ramp(store, tmp_path, finished_run):
    overrides = ["loss.rampup_epochs=4", "training.max_steps=1", "optimizer.scheduler=constant"]
    ramped = metrics_of(train(store, tmp_path, overrides=overrides))[0]
    overrides[0] = "loss.rampup_epochs=0"
    whole = metrics_of(train(store, tmp_path, overrides=overrides, name="whole"))[0]
    assert ramped["consistency_loss"] == pytest.approx(whole["consistency_loss"] / 4)
    assert ramped["pu_loss"] == whole["pu_loss"]
    assert whole["consistency_loss"] > 0


def test_early_stopping_waits_for_its_patience(store, tmp_path, monkeypatch):
    n_val = len(PatchStore(store, "val"))
    monkeypatch.setattr(training, "score", lambda *args: np.linspace(0, 1, n_val))
    overrides = ["training.epochs=9", "training.early_stopping_patience=2"]
    folder = train(store, tmp_path, overrides=overrides)
    assert len(metrics_of(folder)) == 3  # the first is the best, two more are not
    assert "Early stopping: no better validation AUC in 2" in (folder / "training.log").read_text()
    assert results_of(folder)["best_epoch"] == 1


def test_max_steps_ends_the_run_amid_an_epoch(store, tmp_path):
    folder = train(store, tmp_path, overrides=["training.max_steps=7"])
    results = results_of(folder)
    assert (results["steps_run"], results["steps_planned"], results["epochs_run"]) == (7, 7, 2)
    assert [metrics["step"] for metrics in metrics_of(folder)] == [5, 7]
    assert "Epoch 2/2" in (folder / "training.log").read_text()


@pytest.mark.parametrize("split", ["test", "val"])
def test_evaluating_the_checkpoint_gives_the_figures_of_the_run(
    finished_run, store, tmp_path, split
):
    output = tmp_path / "new folder" / "metrics.json"
    best = finished_run / "checkpoints" / "best_model.pt"
    printed = evaluate(best, store, output, "--split", split)
    metrics, results = strict_json(output.read_text()), results_of(finished_run)
    assert metrics[split] == results[split]
    for name in ("prior", "unlabeled_prior", "prior_source", "threshold"):
        assert metrics[name] == results[name]
    assert f"Wrote {output}" in printed


def test_an_evaluation_lies_beside_the_checkpoint_unless_told_otherwise(
    finished_run, store, tmp_path, monkeypatch
):
    (tmp_path / "results.json").write_text("another run's")
    monkeypatch.chdir(tmp_path)
    best = tmp_path / "run" / "best_model.pt"
    best.parent.mkdir()
    best.write_bytes((finished_run / "checkpoints" / "best_model.pt").read_bytes())
    call("--evaluate", best, "--data-dir", store, "--device", "cpu", "--split", "val")
    assert "val" in strict_json((best.parent / "evaluation_val.json").read_text())
    assert (tmp_path / "results.json").read_text() == "another run's"


def test_an_evaluation_does_not_overwrite_the_results_of_a_run(finished_run, store):
    best, results = finished_run / "checkpoints" / "best_model.pt", finished_run / "results.json"
    before = results.read_bytes()
    with pytest.raises(UserError, match="--output"):
        evaluate(best, store, results)
    assert results.read_bytes() == before


def test_a_split_of_one_class_is_evaluated_without_an_auc(finished_run, store, tmp_path):
    changed = copy_of_store(store, tmp_path, "test")
    leave_one_class(changed, "test")
    output = tmp_path / "out.json"
    evaluate(finished_run / "checkpoints" / "best_model.pt", changed, output)
    report = strict_json(output.read_text())["test"]
    assert report["auc"] is None and report["specificity"] is None
    assert report["recall"] is not None
