"""Data at their extremes, end to end: constant, empty, tiny and crowded; runs made to collapse."""

import math
import re

import numpy as np
import pytest
from PIL import Image

from picking.evaluation import matching
from picking.formats.picks import Micrograph, Picks
from picking.preprocessing.patch_plan import PatchSettings
from tests.fixtures import active_runs, pu_runs
from tests.fixtures.data_sets import write_data_set
from tests.fixtures.patch_stores import changed_annotations, done, metadata_of, preprocess
from tests.fixtures.pu_runs import metrics_of, results_of, train


def warnings_of(run):
    """Epoch -> what the log warns of after it."""
    blocks = (run / "training.log").read_text().split("\nEpoch ")[1:]
    return [re.findall("WARNING: (.*)", block) for block in blocks]


def all_numbers(content):
    """Every number in what JSON holds."""
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list):
        return [number for part in content for number in all_numbers(part)]
    return [content] if isinstance(content, float) else []


# Runs that are made to collapse, and one that is not


@pytest.fixture(scope="module")
def clear_store(data_set, tmp_path_factory):
    """A store of patches that are easily told apart."""
    folder = tmp_path_factory.mktemp("clear") / "store"
    done(data_set.root, folder)
    return folder


def test_a_healthy_run_is_warned_of_nothing(clear_store, tmp_path):
    overrides = (
        "training.epochs=12", "loss.consistency_threshold=0.7", "loss.rampup_epochs=2",
        "optimizer.lr=0.005",
    )  # fmt: skip
    run = train(clear_store, tmp_path, overrides=overrides)
    assert metrics_of(run)[-1]["val"]["auc"] == 1
    assert warnings_of(run) == [[]] * 12


def test_a_run_made_to_call_everything_positive_says_so_after_every_epoch(store, tmp_path):
    overrides = ("loss.prior=0.95", "training.epochs=6", "loss.rampup_epochs=1")
    run = train(store, tmp_path, overrides=overrides)
    for warnings in warnings_of(run):
        assert any("100.0% of validation are called positive: the model" in w for w in warnings)
        assert any("no better than calling everything positive" in w for w in warnings)
    criteria = {item["criterion"]: item["met"] for item in results_of(run)["success_criteria"]}
    (of_collapse,) = (met for name, met in criteria.items() if name.startswith("no collapse"))
    assert of_collapse is False


@pytest.mark.parametrize(
    ("threshold", "words"), [(0.999, "is under 20%: few pseudo"), (0.5, "is over 95%: wrong")]
)
def test_a_mask_rate_out_of_bounds_is_warned_of_once_its_weight_has_risen(
    store, tmp_path, threshold, words
):
    overrides = (f"loss.consistency_threshold={threshold}", "loss.rampup_epochs=1")
    run = train(store, tmp_path, overrides=overrides)
    warned = [any(words in warning for warning in warnings) for warnings in warnings_of(run)]
    assert warned == [False, True, True]


@pytest.mark.parametrize(
    ("alpha", "words"),
    [
        (0, "WARNING: nothing in the validation images"),
        (1, "% of the validation pixels are called particle: train longer, or lower"),
    ],
)
def test_a_segmentation_that_calls_all_pixels_alike_is_warned_of(tmp_path, alpha, words):
    images = active_runs.write_store(tmp_path / "images")
    overrides = (f"loss.alpha={alpha}", "loss.dice_weight=0", "training.evaluate_every_epochs=12")
    flags = ("--iterations", 1, "--epochs", 12, "--initial-fraction", 0.4, "--learning-rate", 0.2)
    run = active_runs.learn(images, tmp_path, *flags, overrides=overrides)
    assert (run / "training.log").read_text().count(words) == 1


def test_a_segmentation_that_learns_is_warned_of_nothing(tmp_path):
    images = active_runs.write_store(tmp_path / "images")
    flags = ("--iterations", 1, "--epochs", 12, "--initial-fraction", 0.4)
    run = active_runs.learn(images, tmp_path, *flags)
    assert "WARNING" not in (run / "training.log").read_text()


# Nothing to tell apart


def test_patches_that_are_all_alike_give_chance_figures_and_no_number_that_is_not_one(
    store, tmp_path
):
    changed = pu_runs.copy_of_store(store, tmp_path, "train", "val", "test")
    for path in changed.glob("*/patches.npy"):
        np.save(path, np.full_like(np.load(path), 128))
    run = train(changed, tmp_path)
    assert results_of(run)["test"]["auc"] == results_of(run)["val"]["auc"] == 0.5
    assert all(map(math.isfinite, all_numbers([metrics_of(run), results_of(run)])))
    assert all(any("predicts one class" in w for w in ws) for ws in warnings_of(run))


@pytest.mark.parametrize("where", ["images", "masks"])
def test_images_that_are_all_grey_and_masks_that_are_all_empty_are_learned_from(tmp_path, where):
    images = active_runs.write_store(tmp_path / "images")
    for n, path in enumerate(images.glob(f"*/{where}.npy")):
        if where == "images":
            np.save(path, np.full_like(np.load(path), 100 + n))
        elif path.parent.name != "val":  # validation without a particle is refused
            np.save(path, np.zeros_like(np.load(path)))
    run = active_runs.learn(images, tmp_path, "--iterations", 2)
    figures = active_runs.metrics_of(run, 1)
    assert all(map(math.isfinite, all_numbers(figures)))
    assert (figures["test"]["ap"] is None) == (where == "masks")


@pytest.mark.parametrize("tasks", [("patches",), ("segmentation",), ("patches", "segmentation")])
def test_a_micrograph_that_shows_nothing_is_named_and_left_out_when_asked(tmp_path, tasks):
    write_data_set(tmp_path / "data", {"train": 3})
    grey = Image.new("L", (384, 320), 77)
    grey.save(tmp_path / "data/train/train_01.jpg")
    stores = {"patches": tmp_path / "store", "segmentation": tmp_path / "images"}
    flags = ("--tasks", *tasks, "--seg-output-dir", stores["segmentation"])
    result = preprocess(tmp_path / "data", stores["patches"], *flags)
    assert result.status == 2 and result.err.count("\n") == 1
    assert "1 of 3 micrographs cannot be read" in result.err
    assert "train_01.jpg has no contrast" in result.err and "--skip-unreadable" in result.err
    done(tmp_path / "data", stores["patches"], *flags, "--skip-unreadable")
    for task in tasks:
        train = metadata_of(stores[task])["splits"]["train"]
        assert train["skipped_unreadable"] == ["train_01.jpg"]
        assert train.get("n_micrographs", train["n_images"]) == 2
    for path in (tmp_path / "data/train").glob("*.jpg"):
        grey.save(path)
    result = preprocess(tmp_path / "data", tmp_path / "none", "--skip-unreadable")
    assert result.status == 2 and "yields no patch" in result.err


# Few and many


def test_a_single_particle_is_enough_to_train_on(tmp_path):
    write_data_set(tmp_path / "data", {"train": 2, "val": 1})
    with changed_annotations(tmp_path / "data", "train") as listed:
        listed["annotations"] = listed["annotations"][3:4]
    done(tmp_path / "data", tmp_path / "store")
    train_split = metadata_of(tmp_path / "store")["splits"]["train"]
    assert train_split["n_patches"] == 2
    run = train(tmp_path / "store", tmp_path)
    assert all(map(math.isfinite, all_numbers([metrics_of(run), results_of(run)])))


def test_the_smallest_batch_of_patches_is_one_labelled_and_as_many_unlabeled_as_the_ratio_asks(
    store, tmp_path
):
    sizes = ("training.batch_size=5", "training.eval_batch_size=1", "training.epochs=1")
    run = train(store, tmp_path, overrides=sizes)
    assert math.isfinite(metrics_of(run)[0]["train_loss"])


def test_a_batch_of_one_image_is_trained_on_where_batch_norm_has_more_than_one_value(tmp_path):
    images = active_runs.write_store(tmp_path / "images")
    flags = ("--batch-size", 1, "--iterations", 1, "--set", "training.eval_batch_size=1")
    run = active_runs.learn(images, tmp_path / "a", *flags)
    assert active_runs.metrics_of(run, 0)["optimizer_steps"] == 4
    message = active_runs.refused(images, tmp_path / "b", *flags, "--set", "model.depth=4")
    assert "training.batch_size 1 leaves batch norm a single value" in message
    assert not (tmp_path / "b" / "uncertainty").exists()


@pytest.mark.parametrize(
    "strategy",
    [
        "random_stratified",
        "foreground_random",
        "uncertainty",
        "clasp_pe",
        "coreset",
        "hybrid",
        "typiclust",
        "typical_first",
        "badge",
    ],
)
def test_a_pool_of_two_images_is_learned_one_by_one(tmp_path, monkeypatch, strategy):
    monkeypatch.setitem(active_runs.N_IMAGES, "train", 2)
    images = active_runs.write_store(tmp_path / "images")
    shares = ("--initial-fraction", 0.5, "--query-fraction", 0.5, "--iterations", 2)
    flags = ("--strategy", strategy, *shares, "--epochs", 1)
    run = active_runs.learn(images, tmp_path, *flags, run=strategy)
    assert sorted(active_runs.labelled_of(run, 1)["indices"]) == [0, 1]


def test_five_thousand_particles_on_a_micrograph_are_planned_and_matched_one_by_one():
    rng, size_px = np.random.default_rng(0), (4096, 5760)
    rows, columns = np.meshgrid(np.arange(30, 4060, 56), np.arange(30, 5720, 80), indexing="ij")
    centres = np.stack([rows.ravel(), columns.ravel()], axis=1)[:5000] + rng.uniform(
        -8, 8, (5000, 2)
    )
    diameters = np.full(5000, 30.0)
    record = Micrograph("a.jpg", centres, diameters * np.nan, diameters, None, path=None)
    settings = PatchSettings(32, 0.3, 1.0, 42, "disjoint", 0, False, 0.0)
    (planned,) = settings.plan_split("train", [record], [size_px], 0)
    assert (len(planned.labelled_px), len(planned.hidden_px)) == (3500, 1500)
    assert len(planned.negatives_px) == 5000
    picks = Picks(
        "a.jpg", centres + rng.normal(0, 2, (5000, 2)), rng.random(5000), diameters, size_px
    )
    truth = Picks("a.jpg", centres, np.ones(5000), diameters, size_px)
    report = matching.pick_metrics([matching.match_picks(picks, truth)], None, n_bootstrap=0)
    assert report["precision"] == report["recall"] == 1
