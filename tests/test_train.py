"""The training script: what a run leaves, the same again, resumed, evaluated, on two processes."""

import contextlib
import dataclasses
import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import write_data_set
from torch import nn

import preprocess_coco_full_dataset as preprocess
import train_pu_fixed_full as script
from picking import files, runs
from picking.board import TRAIN_TAGS, VAL_TAGS
from picking.config import PUConfig, read_config
from picking.errors import UserError, run_script
from picking.files import locked
from picking.patches import PatchStore
from picking.state import State

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
CONFIG = """
data: {input_size_px: 32}
loss: {consistency_threshold: 0.55}
optimizer: {lr: 0.01}
training: {batch_size: 10, epochs: 3, bootstrap_samples: 40, checkpoint_every_steps: 2}
"""
N_STEPS = 15  # 39 unlabeled patches at 8 a batch make 5 steps an epoch
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


class Small(nn.Sequential):
    """A network as small as the patches, with batch norm and dropout; takes no time."""

    def __init__(self, backbone, dropout):
        super().__init__(
            nn.Conv2d(1, 8, 5, stride=2), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 5, stride=2), nn.BatchNorm2d(8), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(8, 1),
            nn.Flatten(0),
        )  # fmt: skip


class Pointwise(nn.Module):
    """Blind to flips and turns; in training each patch stands for itself.

    So it matters to nothing how a batch is shared among processes, but for a buffer, which each
    process has from its own patches, and which evaluation adds to every logit.
    """

    def __init__(self, backbone, dropout):
        super().__init__()
        self.of_pixels = nn.Sequential(nn.Conv2d(1, 8, 1), nn.Tanh(), nn.AdaptiveAvgPool2d(1))
        self.of_patch = nn.Linear(8, 1)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, patches):
        z = self.of_patch(self.of_pixels(patches).flatten(1)).squeeze(1)
        if not self.training:
            return z + 10 * self.seen
        self.seen.copy_(z[0].detach())
        return z


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small batches are slower on more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A patch store of 32 px patches, hard to tell apart: 21 labelled, 39 unlabeled in train."""
    root = tmp_path_factory.mktemp("training")
    write_data_set(root / "data", {"train": 3, "val": 2, "test": 2})
    argv = ["--data-root", root / "data", "--output-dir", root / "store"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preprocess, "write_montage", lambda *args: None)
        call(preprocess.main, *argv, "--patch-size", 32, "--num-workers", 0)
    rng = np.random.default_rng(0)
    for path in (root / "store").glob("*/patches.npy"):
        patches = np.load(path)
        fainter = 110 + 0.12 * (patches.astype(float) - 130) + rng.normal(0, 40, patches.shape)
        np.save(path, fainter.clip(0, 255).astype(np.uint8))
    return root / "store"


def call(main, *argv, network=Small):
    """Run a script's main in this process; return what it printed."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", ["script", *map(str, argv)])
        patch.setattr(script, "PUClassifier", network)
        main()
    return printed.getvalue()


def arguments(store, experiments, *flags, name="run", overrides=()):
    """The command line of a tiny run."""
    config = experiments / "tiny.yaml"
    experiments.mkdir(parents=True, exist_ok=True)
    config.write_text(CONFIG)
    sets = [part for override in overrides for part in ("--set", override)]
    return [
        "--config", config, "--exp-name", name, "--experiments-dir", experiments,
        "--data-dir", store, "--device", "cpu", "--num-workers", 0, *flags, *sets,
    ]  # fmt: skip


def train(store, experiments, *flags, network=Small, **more):
    """Train a tiny run; return its folder."""
    call(script.main, *arguments(store, experiments, *flags, **more), network=network)
    return experiments / more.get("name", "run")


def refused(store, experiments, *flags, **more):
    """Return the message that a run is refused with."""
    with pytest.raises(UserError) as error:
        train(store, experiments, *flags, **more)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def finished(store, tmp_path_factory):
    """One uninterrupted run, to look at and to compare with: its folder."""
    return train(store, tmp_path_factory.mktemp("finished"))


def no_constants(name):
    raise AssertionError(f"{name} is not JSON")


def strict_json(text):
    return json.loads(text, parse_constant=no_constants)


def results_of(folder):
    return strict_json((folder / "results.json").read_text())


def metrics_of(folder):
    return [strict_json(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def tensors(content, prefix=""):
    """Flatten a checkpoint into name -> value."""
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, (list, tuple)):
        items = enumerate(content)
    else:
        return {prefix: content}
    return {k: v for key, value in items for k, v in tensors(value, f"{prefix}.{key}").items()}


def assert_same_checkpoint(one, other):
    one, other = (tensors(runs.load_checkpoint(path)) for path in (one, other))
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other[name]), name
        elif not name.endswith("train_seconds"):
            assert value == other[name], name


def assert_same_run(one, other):
    """The same weights, optimiser, metrics and results to the last bit, but for time and place."""
    for name in ("last.pt", "best_model.pt"):
        assert_same_checkpoint(one / "checkpoints" / name, other / "checkpoints" / name)
    assert metrics_of(one) == metrics_of(other)
    others = {"train_seconds", "finished", "command", "git_commit"}
    one, other = results_of(one), results_of(other)
    assert {k: v for k, v in one.items() if k not in others} == {
        k: v for k, v in other.items() if k not in others
    }


# What a run leaves


def test_a_run_leaves_the_whole_folder(finished):
    names = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    events = {name for name in names if name.startswith("events.out.tfevents")}
    assert events
    assert names - events == {
        ".lock", "config.yaml", "run.json", "training.log", "metrics.jsonl", "results.json",
        "checkpoints/last.pt", "checkpoints/best_model.pt",
    }  # fmt: skip


def test_the_config_of_a_run_is_resolved_and_can_be_used_again(finished, store):
    config = read_config(finished / "config.yaml", [], PUConfig)
    assert config.data.dir == str(store)
    assert (config.training.epochs, config.optimizer.lr) == (3, 0.01)
    assert config.model == PUConfig().model


def test_the_log_has_an_epochs_block_and_the_losses_add_up(finished):
    log = (finished / "training.log").read_text()
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
    assert "Prior (π_T): 0.4700 from config" in log
    assert "Prior of the unlabeled (π_U): 0.2308 from data" in log
    assert re.search(r"Test AUC +\d\.\d{4} +target 0.85 to 0.90", log)
    assert re.search(r"(met|NOT met) +\d\.\d{4} +test recall > 0.70", log)
    assert "\r" not in log


def test_the_metrics_have_every_figure_of_every_epoch(finished):
    history = metrics_of(finished)
    assert [figures["epoch"] for figures in history] == [1, 2, 3]
    assert [figures["step"] for figures in history] == [5, 10, 15]
    for figures in history:
        assert figures.keys() >= TRAIN_TAGS.keys()
        assert figures["val"].keys() >= VAL_TAGS.keys()
        assert figures["train_loss"] == pytest.approx(
            figures["pu_loss"] + figures["consistency_loss"], rel=1e-12
        )
    rates = [figures["lr"] for figures in history]
    assert rates[0] < 0.01 and rates == sorted(rates, reverse=True) and rates[-1] > 0


def test_tensorboard_reads_scalars_curve_histograms_images_and_hyperparameters(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished)).Reload()
    history = metrics_of(finished)
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


def test_the_results_have_every_key_that_is_promised(finished):
    results = results_of(finished)
    five = {"precision", "recall", "f1", "specificity", "balanced_accuracy"}
    for split in ("test", "val"):
        report = results[split]
        assert report.keys() >= {"auc", "ap", "ece", "ap_base_rate", *five}
        assert report["at_val_threshold"].keys() >= five
        assert report["intervals"].keys() >= {"auc", "ap", *five}
        low, high = report["intervals"]["auc"]
        assert 0 <= low <= report["auc"] <= high <= 1
        assert report["at_val_threshold"]["threshold"] == results["threshold"]
    assert (results["prior"], results["prior_source"]) == (0.47, "config")
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


def test_the_results_are_of_the_best_epoch_and_its_threshold(finished):
    results, history = results_of(finished), metrics_of(finished)
    best = max(history, key=lambda figures: figures["val"]["auc"])
    assert results["best_epoch"] == best["epoch"]
    assert results["threshold"] == best["val"]["at_val_threshold"]["threshold"]
    for name in ("auc", "ap", "f1", "ece"):
        assert results["val"][name] == best["val"][name]


def test_checkpoints_are_data_only(finished):
    best = torch.load(finished / "checkpoints" / "best_model.pt", weights_only=True)
    last = torch.load(finished / "checkpoints" / "last.pt", weights_only=True)
    assert best["kind"] == "pu_classifier"
    assert best["config"] == yaml.safe_load((finished / "config.yaml").read_text())
    assert last["progress"]["step"] == N_STEPS


def test_a_run_learns_to_tell_faint_disks_from_noise(store, tmp_path):
    overrides = ["training.epochs=20", "optimizer.lr=0.003", "training.checkpoint_every_steps=99"]
    history = metrics_of(train(store, tmp_path, overrides=overrides))
    auc = [figures["val"]["auc"] for figures in history]
    assert max(auc) > 0.85
    assert history[-1]["pu_loss"] < history[0]["pu_loss"]
    assert history[-1]["logit_std"] > history[0]["logit_std"]


def test_a_real_backbone_trains_and_a_store_without_test_is_enough(store, tmp_path):
    smaller = copy_of_store(store, tmp_path, "train", "val")
    overrides = ["training.max_steps=6", "training.checkpoint_every_steps=100"]
    folder = train(smaller, tmp_path, network=script.PUClassifier, overrides=overrides)
    results = results_of(folder)
    assert results["test"] is None
    assert results["parameters"] == 11_170_753
    assert (results["steps_run"], results["epochs_run"]) == (6, 2)
    assert [item["met"] for item in results["success_criteria"][1:]] == [None] * 5


def copy_of_store(store, tmp_path, *splits):
    """Copy a patch store with these splits only, to change it."""
    for split in splits:
        shutil.copytree(store / split, tmp_path / "store" / split)
    metadata = json.loads((store / "metadata.json").read_text())
    metadata["splits"] = {split: metadata["splits"][split] for split in splits}
    (tmp_path / "store" / "metadata.json").write_text(json.dumps(metadata))
    return tmp_path / "store"


# The same again


@pytest.mark.parametrize("n_workers", [0, 2])
def test_the_same_seed_gives_the_same_run_with_any_number_of_workers(
    store, tmp_path, finished, n_workers
):
    again = train(store, tmp_path, "--num-workers", n_workers)
    assert_same_run(again, finished)


def test_another_seed_gives_another_run(store, tmp_path, finished):
    other = train(store, tmp_path, overrides=["training.seed=43"])
    assert metrics_of(other)[0]["pu_loss"] != metrics_of(finished)[0]["pu_loss"]


# Stopped and resumed


class Stopped(Exception):
    """Stands for whatever ends a process."""


def stop_at_save(patch, number, written):
    """Raise at the numberth saving of last.pt, before or after it is on disk."""
    save, calls = State.save, []

    def save_or_stop(state, path):
        calls.append(path)
        if len(calls) < number or written:
            save(state, path)
        if len(calls) == number:
            raise Stopped

    patch.setattr(State, "save", save_or_stop)


@pytest.fixture(scope="module")
def finished_with_everything(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("everything")
    return train(store, folder, overrides=EVERYTHING)


# last.pt is saved after steps 2, 4, 5 (end of epoch 1), 6, 8, 10, 10 (end of epoch 2), 12, 14, 15
@pytest.mark.parametrize(
    ("number", "written", "goes_on_after"),
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
    store, tmp_path, finished, finished_with_everything, number, written, goes_on_after, overrides
):
    with pytest.MonkeyPatch.context() as patch:
        stop_at_save(patch, number, written)
        with pytest.raises(Stopped):
            train(store, tmp_path, overrides=overrides)
    assert not (tmp_path / "run" / "results.json").exists()
    folder = train(store, tmp_path, "--resume", overrides=overrides)
    assert_same_run(folder, finished_with_everything if overrides else finished)
    resumed = re.findall("Resumed after (.*)", (folder / "training.log").read_text())
    assert resumed == ([goes_on_after] if goes_on_after else [])


def test_a_run_stopped_again_and_again_ends_the_same(store, tmp_path, finished):
    for _ in range(8):
        with pytest.MonkeyPatch.context() as patch:
            stop_at_save(patch, 2, True)
            with contextlib.suppress(Stopped):
                train(store, tmp_path, "--resume")
    assert_same_run(train(store, tmp_path, "--resume"), finished)


# The script with a small network, for processes of their own
SCRIPT = """
import os, signal
import torch
import test_train, train_pu_fixed_full as script
from picking.state import State

torch.set_num_threads(1)
script.PUClassifier = test_train.{network}
"""
DIES = """
save = State.save

def save_then_die(state, path):
    save(state, path)
    if state.progress.step == 8:
        (path.parent / f".last.pt.{os.getpid()}.tmp").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

State.save = save_then_die
"""


def run_python(*argv):
    """Run Python in a process of its own that finds the project and these tests."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, *map(str, argv)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def test_a_killed_run_goes_on_and_ends_as_if_never_killed(store, tmp_path, finished):
    code = f"{SCRIPT.format(network='Small')}{DIES}script.main()"
    killed = run_python("-c", code, *arguments(store, tmp_path))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    folder = train(store, tmp_path, "--resume")
    assert "Resumed after 1 epochs, step 8" in (folder / "training.log").read_text()
    assert_same_run(folder, finished)
    assert not list(folder.rglob("*.tmp"))


def test_tensorboard_shows_a_repeated_epoch_once(store, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.MonkeyPatch.context() as patch:
        stop_at_save(patch, 7, False)
        with pytest.raises(Stopped):
            train(store, tmp_path)
    events = EventAccumulator(str(train(store, tmp_path, "--resume"))).Reload()
    assert [scalar.step for scalar in events.Scalars("Val/AUC")] == [1, 2, 3]


def test_a_finished_run_is_not_done_again(store, tmp_path):
    folder = train(store, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}

    def no_network(backbone, dropout):
        raise AssertionError("a finished run needs no network")

    argv = arguments(store, tmp_path, "--resume")
    printed = call(script.main, *argv, network=no_network)
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
    with pytest.MonkeyPatch.context() as patch:
        stop_at_save(patch, 2, True)
        with pytest.raises(Stopped):
            train(store, tmp_path)
    overrides = ["training.seed=1", "loss.prior=0.4"]
    message = refused(store, tmp_path, "--resume", overrides=overrides)
    assert "different now: loss.prior, training.seed" in message
    assert "different now: loss.prior" in refused(store, tmp_path, "--resume", "--use-data-prior")
    metadata = json.loads((store / "metadata.json").read_text())
    other = {**metadata, "content_hash": "0" * 64}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("picking.patches.read_metadata", lambda folder: other)
        assert "begun on another patch store" in refused(store, tmp_path, "--resume")


def test_a_run_in_use_is_refused_and_says_by_whom(store, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOCK_PATIENCE_S", 0)
    with locked(tmp_path / "run"):
        assert f"run is in use by process {os.getpid()}" in refused(store, tmp_path)
    train(store, tmp_path, overrides=["training.max_steps=1"])


# Numbers that are not finite


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_number_that_is_not_finite_stops_the_run_and_keeps_what_was_good(
    store, tmp_path, finished, monkeypatch, capsys, where
):
    bad_step, n_calls, consistency = 7, [], script.fixmatch_consistency

    def with_a_bad_step(z_weak, z_strong, *args, **kwargs):
        loss, mask = consistency(z_weak, z_strong, *args, **kwargs)
        n_calls.append(1)
        if len(n_calls) == bad_step:
            zero = (z_strong - z_strong.detach()).sum()
            loss = loss + (math.nan if where == "loss" else torch.sqrt(zero**2))
        return loss, mask

    monkeypatch.setattr(signal, "signal", lambda *args: None)  # run_script's, on SIGTERM
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "fixmatch_consistency", with_a_bad_step)
        with pytest.raises(SystemExit) as left:
            call(lambda: run_script(script.main), *arguments(store, tmp_path))
    assert left.value.code == 2
    message = capsys.readouterr().err
    assert "not finite at step 7 (epoch 2, batch 2): lower optimizer.lr" in message
    assert message.count("\n") == 1
    last = runs.load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    assert last["progress"]["step"] == 6
    # without the bad step the run goes on from there and ends as if nothing had been
    assert_same_run(train(store, tmp_path, "--resume"), finished)


def test_scores_that_are_not_finite_stop_the_run(store, tmp_path):
    class Broken(Small):
        def forward(self, patches):
            z = super().forward(patches)
            return z if self.training else z + math.nan

    with pytest.raises(UserError, match="scores are not finite"):
        train(store, tmp_path, network=Broken)


# Priors


def config_with(tmp_path, *overrides):
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    return read_config(tmp_path / "tiny.yaml", list(overrides), PUConfig)


def priors_of(store, tmp_path, *overrides):
    """Return π_T, its source, π_U, its source."""
    config, train_store = config_with(tmp_path, *overrides), PatchStore(store, "train")
    return dataclasses.astuple(script.resolve_priors(config, train_store, CPU))


def test_the_priors_come_from_where_the_config_says(store, tmp_path):
    in_data = pytest.approx(9 / 39)
    assert priors_of(store, tmp_path) == (0.47, "config", in_data, "data")
    assert priors_of(store, tmp_path, "loss.prior=actual")[:2] == (0.35, "data")
    assert priors_of(store, tmp_path, "loss.prior=pool")[:2] == (0.5, "data")
    assert priors_of(store, tmp_path, "loss.unlabeled_prior=0.3")[2:] == (0.3, "config")
    one = priors_of(store, tmp_path, "loss.one_prior=true", "loss.unlabeled_prior=0.3")
    assert one == (0.47, "config", 0.47, "config")


def test_priors_that_leave_no_negatives_are_refused(store, tmp_path):
    with pytest.raises(UserError, match=r"the priors are 1\.0 .* must lie between 0 and 1"):
        priors_of(store, tmp_path, "loss.prior=1")


class Separable:
    """A store whose positives are bright in the middle: ``n`` patches of four micrographs."""

    def __init__(self, n_labeled, n_hidden, n_negative):
        n = n_labeled + n_hidden + n_negative
        rng = np.random.default_rng(1)
        self.patches = rng.normal(120, 10, (n, 32, 32))
        self.patches[: n_labeled + n_hidden, 10:22, 10:22] += 60
        self.patches = self.patches.astype(np.uint8)
        self.labeled = np.arange(n) < n_labeled
        self.names = ["a", "b", "c", "d"]
        self.micrograph = rng.permutation(n) % 4

    def __len__(self):
        return len(self.patches)

    def __getitem__(self, rows):
        return self.patches[rows]


def test_the_estimate_finds_the_share_of_positives_among_the_unlabeled(tmp_path, monkeypatch):
    monkeypatch.setattr(script, "PUClassifier", Small)
    overrides = ["loss.unlabeled_prior=estimate", "loss.estimate_steps=40"]
    config = config_with(tmp_path, *overrides, "training.batch_size=40")
    for n_hidden, n_negative in ((100, 300), (240, 160)):
        data = Separable(400, n_hidden, n_negative)
        found = script.resolve_priors(config, data, CPU)
        assert found.unlabeled_prior_source == "estimate"
        # the held-out half has 200 unlabeled patches: a deviation of 0.03
        assert found.unlabeled_prior == pytest.approx(n_hidden / (n_hidden + n_negative), abs=0.09)
        assert script.resolve_priors(config, data, CPU) == found


def test_an_estimate_from_one_micrograph_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(script, "PUClassifier", Small)
    data = Separable(20, 10, 30)
    data.names, data.micrograph = ["a"], np.zeros(60, int)
    config = config_with(tmp_path, "loss.unlabeled_prior=estimate")
    with pytest.raises(UserError, match="in both halves of the 1 training micrographs"):
        script.resolve_priors(config, data, CPU)


def test_use_data_prior_means_actual_unless_the_config_says_pool(store, tmp_path):
    once = ["training.max_steps=1"]
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


def test_one_prior_for_both_warns_in_the_log(store, tmp_path, finished):
    overrides = ["training.max_steps=1", "loss.one_prior=true"]
    folder = train(store, tmp_path, overrides=overrides)
    assert "WARNING: loss.one_prior uses one prior" in (folder / "training.log").read_text()
    assert results_of(folder)["unlabeled_prior"] == 0.47
    assert "loss.one_prior uses one prior" not in (finished / "training.log").read_text()


# Parts of the method


def test_the_learning_rate_falls_along_half_a_cosine(tmp_path):
    config = config_with(tmp_path)
    rates = [script.learning_rate(config, step, 100) for step in (0, 25, 50, 75, 100)]
    half = math.sqrt(0.5)
    assert rates == pytest.approx([0.01, 0.005 * (1 + half), 0.005, 0.005 * (1 - half), 0])
    constant = config_with(tmp_path, "optimizer.scheduler=constant")
    assert script.learning_rate(constant, 99, 100) == 0.01


def test_the_average_moves_by_its_decay_and_copies_the_buffers():
    torch.manual_seed(0)
    average, network = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    nn.init.constant_(network.weight, 2)
    network.running_mean.fill_(5)
    for step, decay in ((0, 0.1), (8, 0.5), (10_000, 0.9)):
        nn.init.constant_(average.weight, 1)
        script.update_average(average, network, 0.9, step)
        assert average.weight.tolist() == pytest.approx([2 - decay] * 3)
        assert average.running_mean.tolist() == [5] * 3


def test_with_an_average_it_is_what_is_evaluated_and_saved(store, tmp_path):
    overrides = ["training.ema_decay=0.9", "training.max_steps=5"]
    checkpoints = train(store, tmp_path, overrides=overrides) / "checkpoints"
    best = runs.load_checkpoint(checkpoints / "best_model.pt")["network"]
    last = runs.load_checkpoint(checkpoints / "last.pt")
    assert all(torch.equal(best[name], last["average"][name]) for name in best)
    assert not torch.equal(best["0.weight"], last["network"]["0.weight"])


def test_a_teacher_alone_is_neither_evaluated_nor_saved(store, tmp_path):
    overrides = ["training.ema_teacher=true", "training.max_steps=5"]
    checkpoints = train(store, tmp_path, overrides=overrides) / "checkpoints"
    best = runs.load_checkpoint(checkpoints / "best_model.pt")["network"]
    last = runs.load_checkpoint(checkpoints / "last.pt")
    assert all(torch.equal(best[name], last["network"][name]) for name in best)


def test_the_weight_of_the_consistency_rises_over_the_ramp(store, tmp_path, finished):
    overrides = ["loss.rampup_epochs=4", "training.max_steps=1", "optimizer.scheduler=constant"]
    ramped = metrics_of(train(store, tmp_path, overrides=overrides))[0]
    overrides[0] = "loss.rampup_epochs=0"
    whole = metrics_of(train(store, tmp_path, overrides=overrides, name="whole"))[0]
    assert ramped["consistency_loss"] == pytest.approx(whole["consistency_loss"] / 4)
    assert ramped["pu_loss"] == whole["pu_loss"]
    assert whole["consistency_loss"] > 0


def test_early_stopping_waits_for_its_patience(store, tmp_path, monkeypatch):
    n_val = len(PatchStore(store, "val"))
    monkeypatch.setattr(script, "score", lambda *args: np.linspace(0, 1, n_val))
    overrides = ["training.epochs=9", "training.early_stopping_patience=2"]
    folder = train(store, tmp_path, overrides=overrides)
    assert len(metrics_of(folder)) == 3  # the first is the best, two more are not
    assert "Early stopping: no better validation AUC in 2" in (folder / "training.log").read_text()
    assert results_of(folder)["best_epoch"] == 1


def test_max_steps_ends_the_run_amid_an_epoch(store, tmp_path):
    folder = train(store, tmp_path, overrides=["training.max_steps=7"])
    results = results_of(folder)
    assert (results["steps_run"], results["steps_planned"], results["epochs_run"]) == (7, 7, 2)
    assert [figures["step"] for figures in metrics_of(folder)] == [5, 7]
    assert "Epoch 2/2" in (folder / "training.log").read_text()


# Evaluation


def evaluate(checkpoint, store, output, *flags, network=Small):
    flags = ["--evaluate", checkpoint, "--data-dir", store, "--output", output, *flags]
    return call(script.main, *flags, "--device", "cpu", network=network)


@pytest.mark.parametrize("split", ["test", "val"])
def test_evaluating_the_checkpoint_gives_the_figures_of_the_run(finished, store, tmp_path, split):
    output = tmp_path / "new folder" / "figures.json"
    best = finished / "checkpoints" / "best_model.pt"
    printed = evaluate(best, store, output, "--split", split)
    figures, results = strict_json(output.read_text()), results_of(finished)
    assert figures[split] == results[split]
    for name in ("prior", "unlabeled_prior", "prior_source", "threshold"):
        assert figures[name] == results[name]
    assert f"Wrote {output}" in printed


def test_what_cannot_be_evaluated_is_a_clear_error(finished, store, tmp_path):
    best, output = finished / "checkpoints" / "best_model.pt", tmp_path / "out.json"
    with pytest.raises(UserError, match=r"is no model to evaluate: give best_model\.pt"):
        evaluate(finished / "checkpoints" / "last.pt", store, output)
    with pytest.raises(UserError, match="is of another architecture"):
        evaluate(best, store, output, network=script.PUClassifier)
    with pytest.raises(UserError, match=r"none\.pt is not there"):
        evaluate(tmp_path / "none.pt", store, output)
    with pytest.raises(UserError, match="is not a finished patch store"):
        evaluate(best, tmp_path, output)
    with pytest.raises(UserError, match="has no split 'test'; there are: val"):
        evaluate(best, copy_of_store(store, tmp_path, "val"), output)
    with pytest.raises(UserError, match="--evaluate needs --data-dir"):
        call(script.main, "--evaluate", best, "--device", "cpu")
    assert not output.exists()


def test_a_split_of_one_class_is_evaluated_without_an_auc(finished, store, tmp_path):
    changed = copy_of_store(store, tmp_path, "test")
    index = dict(np.load(changed / "test" / "index.npz"))
    index["label"][:] = 1
    np.savez(changed / "test" / "index.npz", **index)
    output = tmp_path / "out.json"
    evaluate(finished / "checkpoints" / "best_model.pt", changed, output)
    report = strict_json(output.read_text())["test"]
    assert report["auc"] is None and report["specificity"] is None
    assert report["recall"] is not None


# What is refused before anything is written


def test_a_store_without_validation_is_refused(store, tmp_path):
    only_train = copy_of_store(store, tmp_path, "train")
    assert "has no split 'val'; there are: train" in refused(only_train, tmp_path)


def test_a_validation_split_of_one_class_is_refused(store, tmp_path):
    changed = copy_of_store(store, tmp_path, "train", "val")
    index = dict(np.load(changed / "val" / "index.npz"))
    index["label"][:] = 1
    np.savez(changed / "val" / "index.npz", **index)
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


# Several processes


def test_two_processes_train_as_one_and_only_the_first_writes(store, tmp_path):
    overrides = [
        *(f"augmentation.{name}=0" for name in ("shift_px", "contrast", "brightness", "noise")),
        *(f"augmentation.{name}=0" for name in ("blur_px", "cutout")),
        "training.epochs=2",
        "training.eval_batch_size=8",  # so that each process scores a share
        "optimizer.grad_clip=0.005",  # of some steps only: shows a gradient of the wrong length
    ]
    (tmp_path / "script.py").write_text(f"{SCRIPT.format(network='Pointwise')}script.main()")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    argv = arguments(store, tmp_path, overrides=overrides)
    done = run_python(*torchrun, tmp_path / "script.py", *argv)
    assert done.returncode == 0, done.stderr
    two = tmp_path / "run"
    for text in (done.stdout, (two / "training.log").read_text()):
        assert text.count("Epoch 1/2") == text.count("Success criteria") == 1
    assert "cpu, 2 process(es)" in done.stdout
    assert len(list(two.glob("events*"))) == 2  # the run's and the final figures'

    one = train(store, tmp_path, overrides=overrides, name="one", network=Pointwise)
    for alone, shared in zip(metrics_of(one), metrics_of(two), strict=True):
        for name in ("pu_loss", "consistency_loss", "mask_rate", "logit_std"):
            assert shared[name] == pytest.approx(alone[name], rel=1e-4), name
        assert shared["val"]["auc"] == pytest.approx(alone["val"]["auc"], abs=0.01)
    last = [runs.load_checkpoint(run / "checkpoints" / "last.pt")["network"] for run in (one, two)]
    for name in last[0]:
        if name != "seen":
            torch.testing.assert_close(last[1][name], last[0][name], rtol=1e-3, atol=1e-4)
    best = results_of(two)["best_epoch"]
    assert results_of(two)["val"]["auc"] == metrics_of(two)[best - 1]["val"]["auc"]
