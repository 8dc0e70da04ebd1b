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


def with_images_of_32_px(store):
    shutil.rmtree(store / "val")
    write_split(store / "val", 2, size_px=32, seed=5, name="v")


def with_training_images_in_validation(store):
    shutil.rmtree(store / "val")
    shutil.copytree(store / "train", store / "val")


def under_other_names(store):  # the pixels tell
    with_training_images_in_validation(store)
    change_images_of_validation(
        store, lambda i: {"name": f"other{i}.jpg", "micrograph": f"other{i}.jpg"}
    )


def change_images_of_validation(store, changes):
    path = store / "val" / "index.json"
    index = json.loads(path.read_text())
    for i, entry in enumerate(index["images"]):
        entry.update(changes(i))
    path.write_text(json.dumps(index))


def with_a_mask_too_few(store):
    np.save(store / "train" / "masks.npy", np.load(store / "train" / "masks.npy")[:-1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (shutil.rmtree, "preprocess_coco_full_dataset.py"),
        (with_images_of_32_px, "images of 32 px"),
        (with_training_images_in_validation, "validation"),
        (under_other_names, "validation"),
        (
            lambda store: change_images_of_validation(store, lambda i: {"n_particles": 0}),
            "holds no particle",
        ),
        (with_a_mask_too_few, "masks"),
    ],
)
def test_a_store_that_cannot_be_learned_from_is_refused(tmp_path, change, words):
    store = write_store(tmp_path / "store")
    change(store)
    assert words in refused(store, tmp_path)


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
        "training.evaluate_every_epochs=40", "loss.gamma=0", "optimizer.weight_decay=1",
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
