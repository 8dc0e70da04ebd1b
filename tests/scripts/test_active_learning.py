"""The active-learning script: what it writes, how iterations follow one another."""

import json
import math

import numpy as np
import pytest
import torch

from picking.active_learning import iterations
from picking.active_learning import train as training
from picking.active_learning.strategies import STRATEGIES
from picking.config import ActiveConfig, config_from_dict
from picking.runs.checkpoints import load_checkpoint
from picking.stores.segmentation import SegmentationBatch, SegmentationStore
from picking.training.networks import new_network
from tests.fixtures.active_runs import (
    arguments,
    assert_same_run,
    call,
    epochs_of,
    labelled_of,
    learn,
    metrics_of,
)

CPU = torch.device("cpu")


def test_the_run_folder_is_the_users_guides(active_run):
    expected = {
        "config.json",
        "config.yaml",
        "run.json",
        "training.log",
        "metrics.jsonl",
        "last.pt",
    }
    expected |= {
        f"iteration_{k}/{name}"
        for k in range(3)
        for name in ("metrics.json", "best_model.pt", "labeled_indices.json")
    }
    there = {
        path.relative_to(active_run).as_posix() for path in active_run.rglob("*") if path.is_file()
    }
    assert expected <= there
    others = {name for name in there - expected if "tfevents" not in name}
    assert others == {".lock"}


def test_metrics_say_what_was_reached_with_how_much(active_run, seg_store):
    needed = {
        "f1_score", "precision", "recall", "iou", "auc", "ap", "threshold", "num_labeled",
        "data_fraction", "num_micrographs_labeled", "num_particles_labeled", "optimizer_steps",
        "train_seconds", "query_seconds", "test",
    }  # fmt: skip
    particles = SegmentationStore(seg_store / "train").n_particles
    steps = 0
    for k, n_labelled in enumerate((2, 4, 6)):
        metrics = metrics_of(active_run, k)
        assert needed <= metrics.keys()
        assert metrics["num_labeled"] == n_labelled
        assert metrics["data_fraction"] == n_labelled / 10
        labelled = labelled_of(active_run, k)["indices"]
        assert metrics["num_particles_labeled"] == particles[labelled].sum()
        assert metrics["num_micrographs_labeled"] == n_labelled  # each image is a whole one
        steps += 2 * math.ceil(n_labelled / 2)
        assert metrics["optimizer_steps"] == steps
        assert (metrics["query_seconds"] is None) == (k == 2)
        assert metrics["threshold"] == 0.5
        assert metrics["test"].keys() >= {"f1_score", "precision", "recall", "iou", "auc", "ap"}


def test_metrics_are_the_best_models_on_validation(active_run, seg_store):
    epochs = epochs_of(active_run)
    for k in range(3):
        val = [e["val"] for e in epochs if e["iteration"] == k]
        reached = [(v["f1_score"], v["ap"]) for v in val]  # AP decides between equal F1, as of 0
        metrics = metrics_of(active_run, k)
        assert (metrics["f1_score"], metrics["ap"]) == max(reached)
        assert metrics["best_epoch"] == 1 + reached.index(max(reached))
        store = SegmentationStore(seg_store / "val")
        best = load_checkpoint(active_run / f"iteration_{k}" / "best_model.pt")
        config = config_from_dict(best["config"], "", ActiveConfig)
        network = new_network(config, "init", 0)
        network.load_state_dict(best["network"])
        again = training.evaluate_pixels(network, store, config.training, CPU)
        assert again == {key: metrics[key] for key in again}


def test_images_are_never_queried_twice_and_sets_only_grow(active_run):
    before = []
    for k in range(3):
        content = labelled_of(active_run, k)
        assert content["indices"] == before + content["new_indices"]
        assert len(set(content["indices"])) == len(content["indices"])
        assert content["names"] == [f"train{i}.jpg" for i in content["indices"]]
        assert content["new_names"] == [f"train{i}.jpg" for i in content["new_indices"]]
        assert list(content["scores"]) == content["new_names"]
        assert all((value is None) == (k == 0) for value in content["scores"].values())
        before = content["indices"]


def test_the_query_takes_the_highest_scores_of_the_last_model(active_run, seg_store):
    store = SegmentationStore(seg_store / "train")
    for k in range(2):
        best = load_checkpoint(active_run / f"iteration_{k}" / "best_model.pt")
        config = config_from_dict(best["config"], "", ActiveConfig)
        network = new_network(config, "init", 0).eval()
        network.load_state_dict(best["network"])
        with torch.no_grad():
            x = training.to_float(torch.as_tensor(np.array(store.images)))
            p = torch.sigmoid(network(x)).squeeze(1).double().numpy()
        uncertainty = np.minimum(p, 1 - p).mean(axis=(1, 2))
        content = labelled_of(active_run, k + 1)
        rest = np.setdiff1d(np.arange(10), labelled_of(active_run, k)["indices"])
        highest = rest[np.argsort(-uncertainty[rest])][:2]
        assert set(content["new_indices"]) == set(highest)
        for i, name in zip(content["new_indices"], content["new_names"], strict=True):
            assert content["scores"][name] == pytest.approx(uncertainty[i], abs=1e-6)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_every_strategy_runs_and_starts_from_the_same_images(
    seg_store, tmp_path, active_run, strategy
):
    overrides = ["active_learning.iterations=2", "training.epochs=1"]
    run = learn(seg_store, tmp_path, "--strategy", strategy, overrides=overrides, run=strategy)
    assert labelled_of(run, 0)["indices"] == labelled_of(active_run, 0)["indices"]
    assert len(set(labelled_of(run, 1)["indices"])) == 4
    assert metrics_of(run, 1)["num_labeled"] == 4


def test_another_seed_starts_from_other_images(seg_store, tmp_path, active_run):
    overrides = ["active_learning.iterations=1", "training.epochs=1"]
    run = learn(seg_store, tmp_path, "--seed", 8, overrides=overrides, run="uncertainty_seed8")
    assert labelled_of(run, 0)["indices"] != labelled_of(active_run, 0)["indices"]


def test_a_run_can_begin_with_the_images_that_another_had_labelled(seg_store, tmp_path, active_run):
    given = active_run / "iteration_1" / "labeled_indices.json"
    overrides = [
        f"active_learning.initial_labelled={given}",
        "active_learning.iterations=2",
        "training.epochs=1",
    ]
    run = learn(seg_store, tmp_path, overrides=overrides)
    assert labelled_of(run, 0)["names"] == labelled_of(active_run, 1)["names"]
    assert [metrics_of(run, k)["num_labeled"] for k in (0, 1)] == [4, 6]
    assert labelled_of(run, 1)["names"][:4] == labelled_of(run, 0)["names"]


def test_the_learning_rate_is_a_cosine_to_a_hundredth_in_every_iteration(active_run):
    epochs = epochs_of(active_run)
    config = ActiveConfig()
    assert training.learning_rate(config, 0, 100) == pytest.approx(0.001)
    assert training.learning_rate(config, 50, 100) == pytest.approx(0.000505)
    assert training.learning_rate(config, 100, 100) == pytest.approx(0.00001)
    assert epochs[2]["lr"] > epochs[1]["lr"]


@pytest.mark.parametrize(
    ("flags", "overrides", "n_epochs"),
    [
        ((), (), 3),  # active_learning.full_epochs
        ((), ("training.epochs=2",), 2),
        (("--model", "unet", "--epochs", 1), (), 1),
    ],
)
def test_full_trains_once_on_everything(seg_store, tmp_path, flags, overrides, n_epochs):
    flags, run = ("--strategy", "full", *flags), "full_unet_seed42" if flags else "full"
    run = learn(seg_store, tmp_path, *flags, overrides=overrides, run=run)
    metrics = metrics_of(run, 0)
    assert (metrics["num_labeled"], metrics["data_fraction"]) == (10, 1.0)
    assert not (run / "iteration_1").exists()
    assert len(epochs_of(run)) == n_epochs


@pytest.mark.parametrize(
    ("flags", "overrides", "key"),
    [
        (("--iterations", 4), (), "active_learning.iterations"),
        (("--query-fraction", 0.3), (), "active_learning.query_fraction"),
        ((), ("active_learning.initial_fraction=0.5",), "active_learning.initial_fraction"),
        (("--epochs", 2), ("active_learning.full_epochs=3",), "active_learning.full_epochs"),
    ],
)
def test_full_says_what_it_does_not_use(seg_store, tmp_path, flags, overrides, key):
    flags = ("--strategy", "full", *flags)
    run = learn(seg_store, tmp_path, *flags, overrides=overrides, run="full")
    (line,) = [line for line in (run / "training.log").read_text().splitlines() if key in line]
    assert "WARNING" in line
    assert not (run / "iteration_1").exists()


def test_both_networks_of_the_fair_comparison_see_the_same_batches(
    seg_store, tmp_path, monkeypatch
):
    seen = {}
    for model in ("attention_unet", "unet"):
        batches = seen.setdefault(model, [])
        real = training.warp

        def spy(*arguments, real=real, batches=batches):
            x, masks = real(*arguments)
            batches.append((x, masks))
            return x, masks

        with monkeypatch.context() as patch:
            patch.setattr(training, "warp", spy)
            flags = ("--strategy", "full", "--model", model, "--epochs", 1)
            run = "full" if model == "attention_unet" else "full_unet_seed42"
            learn(seg_store, tmp_path, *flags, run=run)
    assert len(seen["unet"]) == 5
    for one, other in zip(seen["unet"], seen["attention_unet"], strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_batches_not_marked_for_training_are_never_augmented():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 16, 16), np.uint8)
    masks = rng.integers(0, 2, (2, 16, 16), np.uint8)
    generator = torch.Generator().manual_seed(0)
    plain_batch = SegmentationBatch(images, masks, False)
    x, y = training.to_input(plain_batch, ActiveConfig(), generator, CPU)
    assert torch.equal(y, torch.as_tensor(masks))
    assert torch.equal(x, training.to_float(torch.as_tensor(images)))
    x, y = training.to_input(SegmentationBatch(images, masks, True), ActiveConfig(), generator, CPU)
    assert not torch.equal(y, torch.as_tensor(masks))


@pytest.mark.parametrize("n_workers", [0, 1])
def test_two_runs_of_one_seed_are_the_same(seg_store, tmp_path, active_run, n_workers):
    assert_same_run(learn(seg_store, tmp_path, "--num-workers", n_workers), active_run)


def test_deterministic_kernels_are_used_when_asked_for(seg_store, tmp_path, own_kernels):
    assert not torch.are_deterministic_algorithms_enabled()
    overrides = ["active_learning.iterations=1", "training.deterministic=true"]
    learn(seg_store, tmp_path, overrides=overrides)
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "uncertainty"),
        ({"training": {"seed": 43}}, "uncertainty_seed43"),
        ({"model": {"name": "unet"}}, "uncertainty_unet_seed42"),
        ({"active_learning": {"start": "scratch"}}, "uncertainty_scratch_seed42"),
        ({"active_learning": {"strategy": "full", "start": "scratch"}}, "full"),
    ],
)
def test_a_run_is_named_after_its_strategy_and_what_differs(changes, name):
    assert iterations.run_name(config_from_dict(changes, "", ActiveConfig)) == name


def test_without_test_images_there_are_no_test_metrics(seg_store, tmp_path):
    overrides = ["active_learning.iterations=1", "training.epochs=1", "data.test_dir=null"]
    assert metrics_of(learn(seg_store, tmp_path, overrides=overrides), 0)["test"] is None


def test_flags_go_before_set_and_set_before_the_file(seg_store, tmp_path):
    overrides = [
        "training.epochs=1", "training.batch_size=3", "active_learning.iterations=1",
    ]  # fmt: skip
    run = learn(seg_store, tmp_path, "--batch-size", 5, "--target-f1", 0.6, overrides=overrides)
    config = json.loads((run / "config.json").read_text())
    assert (config["training"]["batch_size"], config["training"]["epochs"]) == (5, 1)
    assert config["active_learning"]["target_f1"] == 0.6
    assert config["optimizer"]["lr"] == 0.02


def test_the_log_is_good_to_tail(active_run):
    log = (active_run / "training.log").read_text()
    for words in (
        "Initialized new model",
        "Pool: 10 images of 16 px",
        "Labelled images: 2, 4, 6",
        "Iteration 1 (2 of 3): 4 of 10 images (40.0%), 2 of them new",
        "Epoch 2/2  loss",
        "*** best ***",
        "Queried 2 of 8 images by uncertainty",
        "Others would have chosen of these: random",
        "Iteration 2 complete: val F1",
    ):
        assert words in log, words


def test_tensorboard_shows_curves_queries_and_overlaps(active_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(active_run)).Reload()
    tags = events.Tags()
    assert [scalar.step for scalar in events.Scalars("Val/F1")] == [1, 2, 3, 4, 5, 6]
    f1 = [metrics_of(active_run, k)["f1_score"] for k in range(3)]
    shares = events.Scalars("Labelled share (percent)/val F1")
    assert [scalar.step for scalar in shares] == [20, 40, 60]
    assert [scalar.value for scalar in shares] == pytest.approx(f1)
    assert {"Query overlap/random", "Query overlap/diversity"} <= set(tags["scalars"])
    assert "Query/Scores of the pool" in tags["histograms"]
    image = events.Images("Query/Image, prediction, uncertainty, truth")[0]
    assert (image.width, image.height) == (4 * 16, 2 * 16)


def test_a_finished_run_is_not_done_again(seg_store, tmp_path, active_run):
    before = {path: path.stat().st_mtime_ns for path in active_run.rglob("*") if path.is_file()}
    printed = call(*arguments(seg_store, active_run.parent, "--resume"))
    assert "This run is finished: nothing to do" in printed
    after = {path: path.stat().st_mtime_ns for path in active_run.rglob("*") if path.is_file()}
    changed = {path.name for path in before if before[path] != after[path]}
    assert changed <= {".lock", "config.json"}
