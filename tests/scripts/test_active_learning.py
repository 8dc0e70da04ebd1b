"""The active-learning script: what it writes, how iterations follow one another."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from picking.active_learning import initial_weights, iterations
from picking.active_learning import train as training
from picking.active_learning.strategies import STRATEGIES
from picking.config import ActiveConfig, config_from_dict
from picking.runs.checkpoints import load_checkpoint
from picking.stores.segmentation import SegmentationBatch, SegmentationStore
from tests.fixtures.active_runs import (
    arguments,
    call,
    labelled_of,
    learn,
    metrics_of,
    refused,
    write_store,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def seg_store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("seg_store"))


@pytest.fixture(scope="module")
def finished(seg_store, tmp_path_factory):
    return learn(seg_store, tmp_path_factory.mktemp("finished"))


def weights_of(run, iteration):
    return load_checkpoint(run / f"iteration_{iteration}" / "best_model.pt")["network"]


def test_the_run_folder_is_the_users_guides(finished):
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
        path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()
    }
    assert expected <= there
    others = {name for name in there - expected if "tfevents" not in name}
    assert others == {".lock"}


def test_metrics_say_what_was_reached_with_how_much(finished, seg_store):
    needed = {
        "f1_score", "precision", "recall", "iou", "auc", "ap", "threshold", "num_labeled",
        "data_fraction", "num_particles_labeled", "optimizer_steps", "train_seconds",
        "query_seconds", "test",
    }  # fmt: skip
    particles = SegmentationStore(seg_store / "train").n_particles
    steps = 0
    for k, n_labelled in enumerate((2, 4, 6)):
        figures = metrics_of(finished, k)
        assert needed <= figures.keys()
        assert figures["num_labeled"] == n_labelled
        assert figures["data_fraction"] == n_labelled / 10
        labelled = labelled_of(finished, k)["indices"]
        assert figures["num_particles_labeled"] == particles[labelled].sum()
        steps += 2 * math.ceil(n_labelled / 2)
        assert figures["optimizer_steps"] == steps
        assert (figures["query_seconds"] is None) == (k == 2)
        assert figures["threshold"] == 0.5
        assert figures["test"].keys() >= {"f1_score", "precision", "recall", "iou", "auc", "ap"}


def test_metrics_are_the_best_models_on_validation(finished, seg_store):
    epochs = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    for k in range(3):
        val = [e["val"] for e in epochs if e["iteration"] == k]
        reached = [(v["f1_score"], v["ap"]) for v in val]  # AP decides between equal F1, as of 0
        figures = metrics_of(finished, k)
        assert (figures["f1_score"], figures["ap"]) == max(reached)
        assert figures["best_epoch"] == 1 + reached.index(max(reached))
        store = SegmentationStore(seg_store / "val")
        best = load_checkpoint(finished / f"iteration_{k}" / "best_model.pt")
        config = config_from_dict(best["config"], "", ActiveConfig)
        network = initial_weights.new_network(config, "init", 0)
        network.load_state_dict(best["network"])
        again = training.evaluate(config, network, store, CPU)
        assert again == {key: figures[key] for key in again}


def test_images_are_never_queried_twice_and_sets_only_grow(finished):
    before = []
    for k in range(3):
        content = labelled_of(finished, k)
        assert content["indices"] == before + content["new_indices"]
        assert len(set(content["indices"])) == len(content["indices"])
        assert content["names"] == [f"train{i}.jpg" for i in content["indices"]]
        assert content["new_names"] == [f"train{i}.jpg" for i in content["new_indices"]]
        assert list(content["scores"]) == content["new_names"]
        assert all((value is None) == (k == 0) for value in content["scores"].values())
        before = content["indices"]


def test_the_query_takes_the_highest_scores_of_the_last_model(finished, seg_store):
    store = SegmentationStore(seg_store / "train")
    for k in range(2):
        best = load_checkpoint(finished / f"iteration_{k}" / "best_model.pt")
        config = config_from_dict(best["config"], "", ActiveConfig)
        network = initial_weights.new_network(config, "init", 0).eval()
        network.load_state_dict(best["network"])
        with torch.no_grad():
            x = training.to_float(torch.as_tensor(np.array(store.images)))
            p = torch.sigmoid(network(x)).squeeze(1).double().numpy()
        uncertainty = np.minimum(p, 1 - p).mean(axis=(1, 2))
        content = labelled_of(finished, k + 1)
        rest = np.setdiff1d(np.arange(10), labelled_of(finished, k)["indices"])
        highest = rest[np.argsort(-uncertainty[rest])][:2]
        assert set(content["new_indices"]) == set(highest)
        for i, name in zip(content["new_indices"], content["new_names"], strict=True):
            assert content["scores"][name] == pytest.approx(uncertainty[i], abs=1e-6)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_every_strategy_runs_and_starts_from_the_same_images(
    seg_store, tmp_path, finished, strategy
):
    overrides = ["active_learning.iterations=2", "training.epochs=1"]
    run = learn(seg_store, tmp_path, "--strategy", strategy, overrides=overrides, run=strategy)
    assert labelled_of(run, 0)["indices"] == labelled_of(finished, 0)["indices"]
    assert len(set(labelled_of(run, 1)["indices"])) == 4
    assert metrics_of(run, 1)["num_labeled"] == 4


def test_another_seed_starts_from_other_images(seg_store, tmp_path, finished):
    overrides = ["active_learning.iterations=1", "training.epochs=1"]
    run = learn(seg_store, tmp_path, "--seed", 8, overrides=overrides, run="uncertainty_seed8")
    assert labelled_of(run, 0)["indices"] != labelled_of(finished, 0)["indices"]


def test_a_run_can_begin_with_the_images_that_another_had_labelled(seg_store, tmp_path, finished):
    given = finished / "iteration_1" / "labeled_indices.json"
    overrides = [
        f"active_learning.initial_labelled={given}",
        "active_learning.iterations=2",
        "training.epochs=1",
    ]
    run = learn(seg_store, tmp_path, overrides=overrides)
    assert labelled_of(run, 0)["names"] == labelled_of(finished, 1)["names"]
    assert [metrics_of(run, k)["num_labeled"] for k in (0, 1)] == [4, 6]
    assert labelled_of(run, 1)["names"][:4] == labelled_of(run, 0)["names"]


@pytest.mark.parametrize(
    ("flag", "run", "line"),
    [
        (None, "uncertainty", "Warm-starting from previous iteration"),
        ("--no-warmstart", "uncertainty_scratch_seed42", "Initialized new model"),
        ("--shrink-perturb", "uncertainty_shrink_perturb_seed42", "(shrunk to 0.4, plus 0.1"),
    ],
)
def test_an_iteration_starts_from_the_last_ones_best_weights_unless_told_otherwise(
    seg_store, tmp_path, monkeypatch, flag, run, line
):
    started = []
    begin = training.begin_iteration

    def spy(*arguments):
        state = begin(*arguments)
        started.append({key: value.clone() for key, value in state.network.state_dict().items()})
        return state

    monkeypatch.setattr(training, "begin_iteration", spy)
    overrides = ["active_learning.iterations=2", "training.epochs=1"]
    run = learn(seg_store, tmp_path, *([flag] if flag else []), overrides=overrides, run=run)
    log = (run / "training.log").read_text()
    assert log.count("Initialized new model") == (2 if flag == "--no-warmstart" else 1)
    assert line in log
    if flag != "--no-warmstart":
        assert f"Warm-starting from previous iteration: {run / 'iteration_0/best_model.pt'}" in log
    best = weights_of(run, 0)
    config = config_from_dict(json.loads((run / "config.json").read_text()), "", ActiveConfig)
    fresh = initial_weights.new_network(config, "init", 1).state_dict()
    parameters = dict(initial_weights.new_network(config, "init", 1).named_parameters())
    for key, value in started[1].items():
        if flag is None:
            expected = best[key]
        elif flag == "--no-warmstart":
            expected = fresh[key]
        else:
            expected = 0.4 * best[key] + 0.1 * fresh[key] if key in parameters else best[key]
        torch.testing.assert_close(value, expected)
    # and the optimiser starts anew: AdamW has counted the steps of iteration 1 only
    optimizer = load_checkpoint(run / "last.pt")["optimizer"]
    assert {int(part["step"]) for part in optimizer["state"].values()} == {2}


def test_the_learning_rate_is_a_cosine_to_a_hundredth_in_every_iteration(finished):
    epochs = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    config = ActiveConfig()
    assert training.learning_rate(config, 0, 100) == pytest.approx(0.001)
    assert training.learning_rate(config, 50, 100) == pytest.approx(0.000505)
    assert training.learning_rate(config, 100, 100) == pytest.approx(0.00001)
    assert epochs[2]["lr"] > epochs[1]["lr"]


def test_full_trains_once_on_everything(seg_store, tmp_path):
    run = learn(seg_store, tmp_path, "--strategy", "full", run="full")
    figures = metrics_of(run, 0)
    assert (figures["num_labeled"], figures["data_fraction"]) == (10, 1.0)
    assert not (run / "iteration_1").exists()
    epochs = (run / "metrics.jsonl").read_text().splitlines()
    assert len(epochs) == 3  # active_learning.full_epochs
    run = learn(
        seg_store, tmp_path, "--strategy", "full", "--model", "unet", "--epochs", 1,
        run="full_unet_seed42",
    )  # fmt: skip
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1


def test_full_trains_for_the_epochs_that_the_command_line_sets(seg_store, tmp_path):
    run = learn(
        seg_store, tmp_path, "--strategy", "full", overrides=["training.epochs=2"], run="full"
    )
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("flags", "overrides", "key"),
    [
        (("--iterations", 4), (), "active_learning.iterations"),
        (("--query-fraction", 0.3), (), "active_learning.query_fraction"),
        ((), ("active_learning.initial_fraction=0.5",), "active_learning.initial_fraction"),
        (("--epochs", 2), ("active_learning.full_epochs=3",), "active_learning.full_epochs"),
    ],
)
def test_full_refuses_what_it_cannot_use(seg_store, tmp_path, flags, overrides, key):
    message = refused(seg_store, tmp_path, "--strategy", "full", *flags, overrides=overrides)
    assert key in message
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


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


def test_two_runs_of_one_seed_are_the_same(seg_store, tmp_path, finished):
    from tests.fixtures.active_runs import assert_same_run

    assert_same_run(learn(seg_store, tmp_path), finished)


def test_deterministic_kernels_are_used_when_asked_for(seg_store, tmp_path, own_kernels):
    assert not torch.are_deterministic_algorithms_enabled()
    overrides = ["active_learning.iterations=1", "training.deterministic=true"]
    learn(seg_store, tmp_path, overrides=overrides)
    assert torch.are_deterministic_algorithms_enabled()


def test_reading_workers_change_nothing(seg_store, tmp_path, finished):
    overrides = ["active_learning.iterations=1"]
    run = learn(seg_store, tmp_path, "--num-workers", 1, overrides=overrides)
    for key, value in weights_of(run, 0).items():
        assert torch.equal(value, weights_of(finished, 0)[key]), key


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


def test_a_run_name_goes_before_it(seg_store, tmp_path):
    overrides = ["active_learning.iterations=1", "training.epochs=1"]
    learn(seg_store, tmp_path, "--run-name", "mine", overrides=overrides, run="mine")
    assert (tmp_path / "mine" / "iteration_0" / "metrics.json").exists()


def test_without_test_images_there_are_no_test_figures(seg_store, tmp_path):
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


def test_the_log_is_good_to_tail(finished):
    log = (finished / "training.log").read_text()
    for words in (
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


def test_tensorboard_shows_curves_queries_and_overlaps(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished)).Reload()
    tags = events.Tags()
    assert [scalar.step for scalar in events.Scalars("Val/F1")] == [1, 2, 3, 4, 5, 6]
    f1 = [metrics_of(finished, k)["f1_score"] for k in range(3)]
    shares = events.Scalars("Labelled share (percent)/val F1")
    assert [scalar.step for scalar in shares] == [20, 40, 60]
    assert [scalar.value for scalar in shares] == pytest.approx(f1)
    assert {"Query overlap/random", "Query overlap/diversity"} <= set(tags["scalars"])
    assert "Query/Scores of the pool" in tags["histograms"]
    image = events.Images("Query/Image, prediction, uncertainty, truth")[0]
    assert (image.width, image.height) == (4 * 16, 2 * 16)


class Scale(nn.Module):
    """One parameter and one buffer, to see what shrink and perturb do to each."""

    def __init__(self, value):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value]))
        self.register_buffer("mean", torch.tensor([value]))


def test_shrink_and_perturb_leaves_batch_norms_statistics():
    mixed = initial_weights.shrink_perturb(Scale(2.0).state_dict(), Scale(3.0))
    assert mixed["weight"].item() == pytest.approx(0.4 * 2 + 0.1 * 3)
    assert mixed["mean"].item() == 2


def test_a_finished_run_is_not_done_again(seg_store, tmp_path, finished):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    printed = call(*arguments(seg_store, finished.parent, "--resume"))
    assert "This run is finished: nothing to do" in printed
    after = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    changed = {path.name for path in before if before[path] != after[path]}
    assert changed <= {".lock", "config.json"}
