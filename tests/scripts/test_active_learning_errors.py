"""The active-learning script: what is refused, and what stops a run, with a clear error."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch

from picking.active_learning import train as training
from picking.stores.segmentation import CryoEMSegmentationDataset
from tests.fixtures.active_runs import learn, refused, write_split, write_store


@pytest.fixture(scope="module")
def seg_store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("seg_store"))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--strategy", "uncertanty"], "uncertainty"),
        (["--strategy", "nothing"], "random_stratified"),
        (["--set", "training.epoch=3"], "did you mean 'training.epochs'?"),
        (["--learning-rate", "0"], "'optimizer.lr' is 0"),
        (["--initial-fraction", "0.01"], "10"),
        (["--iterations", "7"], "--iterations"),
        (["--set", "model.depth=5"], "another depth"),
        (["--num-workers", "-1"], "choose 0 or more"),
        (["--run-name", "../x"], "must be the name of a folder"),
        (["--device", "cuda:9"], "there are: "),
        (["--config", "none.yaml"], "none.yaml is not there"),
        (["--test-data-dir", "none"], "none"),
    ],
)
def test_what_cannot_work_is_refused_before_a_folder_is_made(seg_store, tmp_path, flags, words):
    assert words in refused(seg_store, tmp_path / "e", *flags)
    assert [path.name for path in tmp_path.rglob("*")] == ["e", "tiny.yaml"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"names": ["train0.jpg", "other.jpg"]}', "does not hold (e.g. other.jpg): give active_"),
        ('{"names": []}', "is damaged: active_learning.initial_labelled wants"),
        ("[1]", "is damaged: active_learning.initial_labelled wants"),
        ("names", "is not valid JSON"),
    ],
)
def test_a_first_set_that_is_none_is_refused(seg_store, tmp_path, content, words):
    given = tmp_path / "given.json"
    given.write_text(content)
    flags = ["--set", f"active_learning.initial_labelled={given}"]
    assert words in refused(seg_store, tmp_path / "e", *flags)
    assert not (tmp_path / "e" / "uncertainty").exists()


def test_a_store_that_is_not_there_names_the_script_that_makes_it(tmp_path):
    assert "preprocess_coco_full_dataset.py" in refused(tmp_path / "no", tmp_path)


def test_a_validation_store_of_another_size_is_refused(tmp_path):
    store = write_store(tmp_path / "store")
    shutil.rmtree(store / "val")
    write_split(store / "val", 2, size_px=32, seed=5, name="v")
    assert "images of 32 px" in refused(store, tmp_path)


def test_validation_images_inside_the_training_set_are_refused(tmp_path):
    store = write_store(tmp_path / "store")
    shutil.rmtree(store / "val")
    shutil.copytree(store / "train", store / "val")
    assert "validation" in refused(store, tmp_path)
    # under other names, the pixels tell
    index = json.loads((store / "val" / "index.json").read_text())
    for i, entry in enumerate(index["images"]):
        entry["name"] = entry["micrograph"] = f"other{i}.jpg"
    (store / "val" / "index.json").write_text(json.dumps(index))
    assert "validation" in refused(store, tmp_path)


def test_validation_without_a_particle_is_refused(tmp_path):
    store = write_store(tmp_path / "store")
    index = json.loads((store / "val" / "index.json").read_text())
    for entry in index["images"]:
        entry["n_particles"] = 0
    (store / "val" / "index.json").write_text(json.dumps(index))
    assert "holds no particle" in refused(store, tmp_path)


def test_masks_and_images_that_differ_in_number_are_refused(tmp_path):
    store = write_store(tmp_path / "store")
    masks = np.load(store / "train" / "masks.npy")
    np.save(store / "train" / "masks.npy", masks[:-1])
    message = refused(store, tmp_path)
    assert "10" in message
    assert "9" in message


def test_a_loss_that_is_not_finite_stops_and_keeps_what_was_saved(seg_store, tmp_path, monkeypatch):
    real, calls = training.focal_dice, []

    def breaks_in_the_second_epoch(*arguments, **more):
        calls.append(1)
        loss = real(*arguments, **more)
        return loss * float("nan") if len(calls) == 2 else loss

    monkeypatch.setattr(training, "focal_dice", breaks_in_the_second_epoch)
    message = refused(seg_store, tmp_path)
    assert "not finite at step 2 (epoch 2, batch 1)" in message
    last = torch.load(tmp_path / "uncertainty" / "last.pt", weights_only=True)
    assert last["progress"]["epoch"] == 1
    assert all(torch.isfinite(value).all() for value in last["network"].values())
    monkeypatch.undo()
    learn(seg_store, tmp_path, "--resume")  # and goes on from there


def test_a_reading_worker_that_is_killed_stops_the_run_and_resume_goes_on(
    seg_store, tmp_path, monkeypatch
):
    here, read = os.getpid(), CryoEMSegmentationDataset.__getitem__

    def read_or_die(self, positions):
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, positions)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CryoEMSegmentationDataset, "__getitem__", read_or_die)
        message = refused(seg_store, tmp_path, "--num-workers", 1)
    assert message.startswith("a process that reads the data was killed")
    learn(seg_store, tmp_path, "--resume")


def test_a_network_that_calls_nothing_a_particle_is_warned_of(seg_store, tmp_path):
    overrides = [
        "active_learning.iterations=1", "loss.alpha=0", "loss.dice_weight=0",
        "training.evaluate_every_epochs=40",
    ]  # fmt: skip
    run = learn(seg_store, tmp_path, "--epochs", 40, overrides=overrides)
    assert "WARNING: nothing in the validation images" in (run / "training.log").read_text()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("iteration_1/metrics.json", "[]", "no optimizer_steps"),
        (
            "iteration_2/labeled_indices.json",
            '{"names": [["a"]]}',
            "labeled_indices.json is damaged",
        ),
    ],
)
def test_a_damaged_iteration_is_named_on_resume(seg_store, tmp_path, name, content, words):
    run = learn(seg_store, tmp_path)
    (run / "iteration_2" / "metrics.json").unlink()
    (run / "last.pt").unlink()
    (run / name).write_text(content)
    message = refused(seg_store, tmp_path, "--resume")
    assert words in message and not (run / "iteration_2" / "metrics.json").exists()
