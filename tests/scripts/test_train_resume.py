"""The training script: runs that are stopped, gone on with, finished already, or in use."""

import contextlib
import json
import math
import re
import signal
import sys

import pytest

import train_pu_fixed_full as script
from picking.pu_learning import train as training
from picking.pu_learning.state import State
from picking.runs.checkpoints import load_checkpoint
from tests.fixtures.pu_runs import (
    UNET,
    arguments,
    as_windows,
    assert_same_run,
    call,
    metrics_of,
    refused,
    tiny_network,
    train,
)
from tests.fixtures.stopping import WORDS, leave, signal_at

# Everything that carries a state of its own from step to step
EVERYTHING = (
    "training.ema_decay=0.9",
    "training.ema_teacher=true",
    "loss.distribution_alignment=true",
    "loss.adaptive_threshold=true",
    "loss.rampup_epochs=2",
    "loss.unlabeled_prior=estimate",
    "loss.estimate_steps=2",
)


class Stopped(Exception):
    """Stands for whatever ends a process."""


def train_and_stop(number, *argv, written=True, **more):
    """Train, but raise at the numberth saving of last.pt, before or after it is on disk."""
    save, calls = State.save, []

    def save_or_stop(state, path):
        calls.append(path)
        if len(calls) < number or written:
            save(state, path)
        if len(calls) == number:
            raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(State, "save", save_or_stop)
        train(*argv, **more)


@pytest.fixture(scope="module")
def finished_with_everything(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("everything")
    return train(store, folder, overrides=EVERYTHING)


# last.pt is saved after steps 2, 4, 5 (end of epoch 1), 6, 8, 10, 10 (end of epoch 2), 12, 14, 15
@pytest.mark.parametrize(
    ("number", "written", "after"),
    [
        (1, False, None),  # nothing is saved yet
        (2, True, "0 epochs, step 4"),
        (3, False, "0 epochs, step 4"),  # epoch 1 is in metrics.jsonl but not in last.pt
        (5, True, "1 epochs, step 8"),
        (6, True, "1 epochs, step 10"),  # the last step of an epoch, before its validation
        (7, True, "2 epochs, step 10"),
        (10, True, "3 epochs, step 15"),  # trained, not yet tested
    ],
)
@pytest.mark.parametrize("overrides", [(), EVERYTHING], ids=["plain", "everything"])
def test_a_resumed_run_ends_as_if_never_stopped(
    store, tmp_path, finished_run, finished_with_everything, number, written, after, overrides
):
    with pytest.raises(Stopped):
        train_and_stop(number, store, tmp_path, written=written, overrides=overrides)
    assert not (tmp_path / "run" / "results.json").exists()
    folder = train(store, tmp_path, "--resume", overrides=overrides)
    assert_same_run(folder, finished_with_everything if overrides else finished_run)
    resumed = re.findall("Resumed after (.*)", (folder / "training.log").read_text())
    assert resumed == ([after] if after else [])


@pytest.mark.parametrize("number", [2, 6])  # in the first epoch, and before its validation
def test_a_resumed_run_on_windows_ends_as_if_never_stopped(store, tmp_path, number):
    windows, overrides = as_windows(store, tmp_path), (*UNET, *EVERYTHING)
    whole = train(windows, tmp_path / "whole", overrides=overrides)
    with pytest.raises(Stopped):
        train_and_stop(number, windows, tmp_path, overrides=overrides)
    resumed = train(windows, tmp_path, "--resume", overrides=overrides)
    assert "Resumed after" in (resumed / "training.log").read_text()
    assert_same_run(resumed, whole)


def test_a_run_stopped_again_and_again_ends_the_same(store, tmp_path, finished_run):
    for _ in range(8):
        with contextlib.suppress(Stopped):
            train_and_stop(2, store, tmp_path, "--resume")
    assert_same_run(train(store, tmp_path, "--resume"), finished_run)


def test_tensorboard_shows_a_repeated_epoch_once(store, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(Stopped):
        train_and_stop(7, store, tmp_path, written=False)
    events = EventAccumulator(str(train(store, tmp_path, "--resume"))).Reload()
    assert [scalar.step for scalar in events.Scalars("Val/AUC")] == [1, 2, 3]


def test_a_finished_run_is_not_done_again(store, tmp_path):
    folder = train(store, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}

    def no_network(backbone, dropout):
        raise AssertionError("a finished run needs no network")

    argv = arguments(store, tmp_path, "--resume")
    printed = call(*argv, network=no_network)
    assert "This run is finished: nothing to do" in printed
    assert "validation AUC > 0.80" in printed
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}
    assert before == after


def test_a_folder_with_a_run_is_refused_without_resume_and_kept(store, tmp_path):
    folder = train(store, tmp_path)
    before = (folder / "checkpoints" / "last.pt").read_bytes()
    assert "run holds a run already: continue it with --resume" in refused(store, tmp_path)
    assert (folder / "checkpoints" / "last.pt").read_bytes() == before


def test_a_changed_config_or_other_data_do_not_resume(store, tmp_path):
    with pytest.raises(Stopped):
        train_and_stop(2, store, tmp_path)
    overrides = ["training.seed=1", "loss.prior=0.4"]
    message = refused(store, tmp_path, "--resume", overrides=overrides)
    assert "different now: loss.prior, training.seed" in message
    metadata = json.loads((store / "metadata.json").read_text())
    other = {**metadata, "content_hash": "0" * 64}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("picking.stores.patches.read_metadata", lambda folder: other)
        assert "begun on other data" in refused(store, tmp_path, "--resume")


def test_the_same_data_under_another_path_resume(store, tmp_path, finished_run):
    with pytest.raises(Stopped):
        train_and_stop(2, store, tmp_path)
    (tmp_path / "link").symlink_to(store)
    folder = train(tmp_path / "link", tmp_path, "--resume")
    assert metrics_of(folder) == metrics_of(finished_run)


# Signals: an epoch has 5 steps; last.pt is saved anyway after the 2nd and the 4th


def stop(capsys, store, folder, name, n, number):
    """Train, and send a signal at the ``n``-th call of a function of the script."""
    argv = [*map(str, ["script", *arguments(store, folder)])]
    with tiny_network(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", argv)
        signal_at(patch, training, name, n, number)
        return leave(script.main, capsys)


@pytest.mark.parametrize(
    ("name", "n", "number", "after"),
    [
        ("pnu_risk", 3, signal.SIGTERM, "0 epochs, step 3"),  # amid a step, which is then taken
        ("pnu_risk", 8, signal.SIGINT, "1 epochs, step 8"),
        ("score", 2, signal.SIGTERM, "1 epochs, step 10"),  # trained, not yet validated
        ("score", 3, signal.SIGINT, "2 epochs, step 15"),  # no step is left
    ],
)
def test_a_signal_saves_what_the_last_whole_step_reached(
    store, tmp_path, finished_run, capsys, name, n, number, after
):
    left = stop(capsys, store, tmp_path, name, n, number)
    word, status = WORDS[number]
    assert left.status == status
    assert left.err.startswith(f"{word}: what was saved is kept; ") and left.err.count("\n") == 1
    folder = train(store, tmp_path, "--resume")
    assert re.findall("Resumed after (.*)", (folder / "training.log").read_text()) == [after]
    assert_same_run(folder, finished_run)


def test_a_signal_amid_the_figures_of_an_epoch_waits_until_they_are_kept(
    store, tmp_path, finished_run, capsys
):
    for name in ("plain", "learning_rate"):  # of the best checkpoint; of the line of metrics
        argv = (capsys, store, tmp_path / name, name, 1 if name == "plain" else 6, signal.SIGTERM)
        assert stop(*argv).status == 143
        last = load_checkpoint(tmp_path / name / "run" / "checkpoints" / "last.pt")
        assert (last["progress"]["epoch"], last["progress"]["batch"]) == (1, 0)
        assert_same_run(train(store, tmp_path / name, "--resume"), finished_run)


def test_what_is_not_finite_is_not_saved_on_a_signal(store, tmp_path, capsys, monkeypatch):
    risk, n_calls = training.pnu_risk, []

    def infinite(*args):
        n_calls.append(1)
        return tuple(part * (math.inf if len(n_calls) == 3 else 1) for part in risk(*args))

    monkeypatch.setattr(training, "pnu_risk", infinite)
    assert stop(capsys, store, tmp_path, "negative_risk", 3, signal.SIGTERM).status == 143
    last = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    assert last["progress"]["step"] == 2
