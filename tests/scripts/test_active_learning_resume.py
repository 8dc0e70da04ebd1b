"""The active-learning script: runs that are stopped, killed, and gone on with."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import train_active_learning_fixed as script
from picking.active_learning import iterations, queries
from picking.active_learning import run as running
from picking.active_learning import train as training
from picking.errors import UserError
from tests.fixtures.active_runs import (
    arguments,
    assert_same_run,
    learn,
    refused,
    write_split,
    write_store,
)
from tests.fixtures.stopping import WORDS, leave, signal_at


class Stopped(Exception):
    """Stands for whatever ends a process."""


def learn_and_stop(module, name, number, *argv, written=True):
    """Run, but raise at the numberth call of a function that writes, before or after it wrote."""
    real, calls = getattr(module, name), []

    def write_or_stop(*arguments):
        calls.append(arguments)
        if len(calls) < number or written:
            real(*arguments)
        if len(calls) == number:
            raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, write_or_stop)
        with contextlib.suppress(Stopped):
            learn(*argv)
            raise AssertionError("the run was not stopped")


# Two epochs an iteration: last.pt is written 6 times, labeled_indices.json 3, metrics.json 3
@pytest.mark.parametrize(
    ("module", "name", "number", "written"),
    [
        (running, "write_labelled", 1, False),  # nothing is there yet
        (running, "write_labelled", 1, True),
        (iterations, "save_checkpoint", 1, True),  # the first best model, before last.pt
        (training, "save_last", 1, False),  # epoch 1 is in metrics.jsonl but not in last.pt
        (training, "save_last", 3, True),
        (training, "save_last", 4, True),  # trained, not yet queried
        (queries, "write_labelled", 1, True),  # queried, not yet complete
        (running, "write_json", 2, False),  # as above: config.json is the first
        (running, "write_json", 2, True),  # complete, the next one not begun
        (training, "save_last", 6, True),
    ],
)
def test_a_resumed_run_ends_as_if_never_stopped(
    seg_store, tmp_path, active_run, module, name, number, written
):
    learn_and_stop(module, name, number, seg_store, tmp_path, written=written)
    assert_same_run(learn(seg_store, tmp_path, "--resume"), active_run)


def test_a_run_stopped_again_and_again_ends_the_same(seg_store, tmp_path, active_run):
    flags = (seg_store, tmp_path, "--resume")
    for _ in range(6):
        learn_and_stop(training, "save_last", 1, *flags)
    assert_same_run(learn(*flags), active_run)
    log = (tmp_path / "uncertainty" / "training.log").read_text()
    assert re.findall("Resumed iteration (.*)", log) == [
        "0 after epoch 1", "0 after epoch 2", "1 after epoch 1", "1 after epoch 2",
        "2 after epoch 1", "2 after epoch 2",
    ]  # fmt: skip


def test_a_killed_process_is_gone_on_with(seg_store, tmp_path, active_run):
    command = [sys.executable, script.__file__, *map(str, arguments(seg_store, tmp_path))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    last = tmp_path / "uncertainty" / "last.pt"
    while process.poll() is None and not last.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert last.exists()
    assert_same_run(learn(seg_store, tmp_path, "--resume"), active_run)


def test_tensorboard_shows_a_repeated_epoch_once(seg_store, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    learn_and_stop(training, "save_last", 3, seg_store, tmp_path, written=False)
    events = EventAccumulator(str(learn(seg_store, tmp_path, "--resume"))).Reload()
    assert [scalar.step for scalar in events.Scalars("Val/F1")] == [1, 2, 3, 4, 5, 6]


def test_a_folder_with_a_run_is_refused_without_resume_and_kept(seg_store, tmp_path):
    learn_and_stop(training, "save_last", 1, seg_store, tmp_path)
    before = (tmp_path / "uncertainty" / "last.pt").read_bytes()
    message = refused(seg_store, tmp_path)
    assert "uncertainty holds a run already: continue it with --resume" in message
    assert (tmp_path / "uncertainty" / "last.pt").read_bytes() == before


def test_a_changed_config_or_other_data_do_not_resume(seg_store, tmp_path):
    learn_and_stop(training, "save_last", 1, seg_store, tmp_path)
    message = refused(seg_store, tmp_path, "--resume", "--epochs", 4)
    assert "different now: training.epochs" in message
    index = seg_store / "train" / "index.json"
    content = index.read_text()
    try:
        index.write_text(json.dumps({**json.loads(content), "content_hash": "other"}))
        assert "begun on other data" in refused(seg_store, tmp_path, "--resume")
    finally:
        index.write_text(content)


def test_the_same_data_under_another_path_resume(seg_store, tmp_path, active_run):
    learn_and_stop(training, "save_last", 1, seg_store, tmp_path)
    (tmp_path / "link").symlink_to(seg_store)
    run = learn(tmp_path / "link", tmp_path, "--resume")
    assert (run / "metrics.jsonl").read_text() == (active_run / "metrics.jsonl").read_text()


def test_a_labelled_set_of_another_store_is_refused(tmp_path):
    from picking.stores.segmentation import SegmentationStore

    root = write_store(tmp_path / "store")
    run = tmp_path / "run"
    iterations.folder_of(run, 0).mkdir(parents=True)
    store = SegmentationStore(root / "train")
    rows = iterations.np.array([3, 1])
    iterations.write_labelled(run, 0, store, rows, rows, None)
    assert iterations.read_labelled(run, 0, store).tolist() == [3, 1]
    write_split(tmp_path / "other" / "train", 4, name="b")
    (tmp_path / "other" / "metadata.json").write_text("{}")
    other = SegmentationStore(tmp_path / "other" / "train")
    with pytest.raises(UserError, match=r"names images .* does not hold \(e.g. train3.jpg"):
        iterations.read_labelled(run, 0, other)
    path = Path(iterations.folder_of(run, 0) / "labeled_indices.json")
    path.write_text('{"names": []}')
    with pytest.raises(UserError, match="is damaged"):
        iterations.read_labelled(run, 0, store)


@pytest.mark.parametrize(
    ("name", "n", "number", "place"),
    [
        ("focal_dice", 5, signal.SIGTERM, "1 after epoch 1, batch 1"),  # amid the first of two
        ("evaluate_pixels", 4, signal.SIGINT, "1 after epoch 1, batch 2"),  # not yet validated
        ("plain", 1, signal.SIGTERM, "0 after epoch 1"),  # amid writing what an epoch reached
    ],
)
def test_a_signal_saves_what_the_last_whole_step_reached(
    seg_store, tmp_path, active_run, capsys, monkeypatch, name, n, number, place
):
    monkeypatch.setattr(sys, "argv", [*map(str, ["script", *arguments(seg_store, tmp_path)])])
    with pytest.MonkeyPatch.context() as patch:
        signal_at(patch, training, name, n, number)
        left = leave(script.main, capsys)
    word, status = WORDS[number]
    assert left.status == status
    assert left.err.startswith(f"{word}: what was saved is kept; ") and left.err.count("\n") == 1
    assert_same_run(learn(seg_store, tmp_path, "--resume"), active_run)
    log = (tmp_path / "uncertainty" / "training.log").read_text()
    assert re.findall("Resumed iteration (.*)", log) == [place]
