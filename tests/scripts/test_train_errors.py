"""The training script: what is refused, and what stops a run, with a clear error."""

import errno
import math
import multiprocessing
import os
import re
import signal

import pytest
import torch
from tensorboard.compat.tensorflow_stub.io.gfile import LocalFileSystem

import train_pu_fixed_full as script
from models import PUClassifier
from picking.errors import UserError, run_script
from picking.pu_learning import train as training
from picking.runs.checkpoints import load_checkpoint
from picking.stores.patches import PatchStore
from tests.fixtures.pu_runs import (
    UNET,
    Small,
    arguments,
    as_windows,
    assert_same_run,
    call,
    copy_of_store,
    evaluate,
    leave_one_class,
    refused,
    train,
)


def test_a_store_without_validation_is_refused(store, tmp_path):
    only_train = copy_of_store(store, tmp_path, "train")
    assert "has no split 'val'; there are: train" in refused(only_train, tmp_path)


def test_a_validation_split_of_one_class_is_refused(store, tmp_path):
    changed = copy_of_store(store, tmp_path, "train", "val")
    leave_one_class(changed, "val")
    assert "split 'val' of" in refused(changed, tmp_path)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.input_size_px=64", "input_size_px is 64, but the store's patches have 32 px"),
        ("training.batch_size=4", "batch size 4 at ratio [1, 4] gives 0 labelled"),
        ("training.sead=4", "did you mean 'training.seed'?"),
        ("model.backbone=resnet19", "must be resnet18 or resnet34 or resnet50"),
    ],
)
def test_a_config_that_cannot_work_is_refused_before_a_folder_is_made(
    store, tmp_path, override, words
):
    assert words in refused(store, tmp_path, overrides=[override])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a"])
def test_a_run_has_a_name_and_not_a_path(store, tmp_path, name):
    assert "must be the name of a folder" in refused(store, tmp_path / "e", name=name)
    assert [path.name for path in tmp_path.rglob("*")] == ["e", "tiny.yaml"]


def test_a_store_that_is_not_there_names_the_script_that_makes_it(tmp_path):
    assert "make it with preprocess_coco_full_dataset.py" in refused(tmp_path / "no", tmp_path)


def test_negative_workers_are_refused(store, tmp_path):
    assert "--num-workers is -1" in refused(store, tmp_path, "--num-workers", -1)


def test_what_cannot_be_evaluated_is_a_clear_error(finished_run, store, tmp_path):
    best, output = finished_run / "checkpoints" / "best_model.pt", tmp_path / "out.json"
    with pytest.raises(UserError, match=r"is no model to evaluate: give best_model\.pt"):
        evaluate(finished_run / "checkpoints" / "last.pt", store, output)
    with pytest.raises(UserError, match="is of another architecture"):
        evaluate(best, store, output, network=PUClassifier)
    with pytest.raises(UserError, match=r"none\.pt is not there"):
        evaluate(tmp_path / "none.pt", store, output)
    with pytest.raises(UserError, match="is not a finished patch store"):
        evaluate(best, tmp_path, output)
    with pytest.raises(UserError, match="has no split 'test'; there are: val"):
        evaluate(best, copy_of_store(store, tmp_path, "val"), output)
    with pytest.raises(UserError, match="--evaluate needs --data-dir"):
        call("--evaluate", best, "--device", "cpu")
    assert not output.exists()


# Windows about picks and patches of particles are no substitute for each other


@pytest.fixture
def windows(store, tmp_path):
    return as_windows(store, tmp_path)


@pytest.mark.parametrize(
    ("on_windows", "overrides", "words"),
    [
        (False, UNET, "model.backbone is unet, but .* holds patches: choose a ResNet"),
        (True, (), "model.backbone is resnet18, but .* holds windows: choose unet"),
        (True, (*UNET, "data.input_size_px=20"), "of windows of 32 px at most half is seen"),
        (True, (*UNET, "model.depth=5"), "data.input_size_px is 16, .*multiple of 32"),
    ],
)
def test_a_network_that_does_not_suit_the_store_is_refused_before_a_folder_is_made(
    store, windows, tmp_path, on_windows, overrides, words
):
    experiments = tmp_path / "experiments"
    message = refused(windows if on_windows else store, experiments, overrides=overrides)
    assert re.search(words, message)
    assert not (experiments / "run").exists()


def test_a_checkpoint_is_not_evaluated_on_the_other_kind_of_store(
    store, windows, finished_run, tmp_path
):
    run = train(windows, tmp_path / "runs", overrides=(*UNET, "training.max_steps=1"))
    output, best = tmp_path / "out.json", "checkpoints/best_model.pt"
    for checkpoint, other, words in (
        (run / best, store, "is unet, but .* holds patches"),
        (finished_run / best, windows, "is resnet18, but .* holds windows"),
    ):
        with pytest.raises(UserError, match=words) as error:
            evaluate(checkpoint, other, output, "--split", "val")
        assert "\n" not in str(error.value)
    assert not output.exists()


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_number_that_is_not_finite_stops_the_run_and_keeps_what_was_good(
    store, tmp_path, finished_run, monkeypatch, capsys, where
):
    bad_step, n_calls, consistency = 7, [], training.fixmatch_consistency

    def with_a_bad_step(z_weak, z_strong, *args, **kwargs):
        loss, mask = consistency(z_weak, z_strong, *args, **kwargs)
        n_calls.append(1)
        if len(n_calls) == bad_step:
            zero = (z_strong - z_strong.detach()).sum()
            loss = loss + (math.nan if where == "loss" else torch.sqrt(zero**2))
        return loss, mask

    monkeypatch.setattr(signal, "signal", lambda *args: None)  # run_script's, on SIGTERM
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "fixmatch_consistency", with_a_bad_step)
        with pytest.raises(SystemExit) as left:
            call(*arguments(store, tmp_path), main=lambda: run_script(script.main))
    assert left.value.code == 2
    message = capsys.readouterr().err
    assert "not finite at step 7 (epoch 2, batch 2): lower optimizer.lr" in message
    assert message.count("\n") == 1
    last = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    assert last["progress"]["step"] == 6
    # without the bad step the run goes on from there and ends as if nothing had been
    assert_same_run(train(store, tmp_path, "--resume"), finished_run)


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_disk_that_is_full_for_events_stops_the_run_without_a_traceback_beside_it(
    store, tmp_path, finished_run, capsys
):
    write, n_writes = LocalFileSystem.append, []

    def write_or_fail(*args, **kwargs):
        n_writes.append(1)
        if len(n_writes) == 40:  # in the second epoch; a thread of TensorBoard's writes
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalFileSystem, "append", write_or_fail)
        with pytest.raises(OSError, match="No space left"):
            train(store, tmp_path)
    assert capsys.readouterr().err == ""
    assert_same_run(train(store, tmp_path, "--resume"), finished_run)


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGKILL, "was killed, most often for want"), (signal.SIGSTOP, "has read nothing for")],
)
def test_a_reading_worker_that_is_killed_or_hangs_stops_the_run_and_resume_goes_on(
    store, tmp_path, finished_run, monkeypatch, number, words
):
    monkeypatch.setattr("picking.parallel.PATIENCE_S", 1)
    here, read, before = os.getpid(), PatchStore.__getitem__, multiprocessing.active_children()

    def read_or_end(self, rows):
        if os.getpid() != here:
            os.kill(os.getpid(), number)
        return read(self, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PatchStore, "__getitem__", read_or_end)
        message = refused(store, tmp_path, "--num-workers", 1)
    assert message.startswith("a process that reads the data ") and words in message
    assert multiprocessing.active_children() == before
    assert_same_run(train(store, tmp_path, "--resume"), finished_run)


def test_scores_that_are_not_finite_stop_the_run(store, tmp_path):
    class Broken(Small):
        def forward(self, patches):
            z = super().forward(patches)
            return z if self.training else z + math.nan

    with pytest.raises(UserError, match="scores are not finite"):
        train(store, tmp_path, network=Broken)
