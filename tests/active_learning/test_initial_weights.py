"""Weights of another run that iteration 0 starts from: what lands, and what is refused."""

import dataclasses

import pytest
import torch

from models import UNETS, PUClassifier
from picking.active_learning import initial_weights
from picking.active_learning import train as training
from picking.config import ActiveConfig, PUConfig, plain
from picking.runs.checkpoints import load_checkpoint, save_checkpoint
from tests.fixtures.active_runs import (
    arguments,
    call,
    learn,
    learn_until_save,
    refused,
    write_store,
)

ONE = ["active_learning.iterations=2", "training.epochs=1"]


@pytest.fixture(scope="module")
def seg_store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("seg_store"))


def network_of(name, width=4, depth=2):
    torch.manual_seed(7)
    return UNETS[name](width=width, depth=depth)


def pu_checkpoint(path, width=4, depth=2, **changes):
    """Write best_model.pt of PU learning with a U-Net; return the file and the weights."""
    weights = network_of("unet", width, depth).state_dict()
    model = dataclasses.replace(PUConfig().model, backbone="unet", width=width, depth=depth)
    config = plain(dataclasses.replace(PUConfig(), model=model))
    content = {"kind": "pu_classifier", "config": config, "network": weights}
    save_checkpoint(path, {**content, **changes})
    return path, weights


def segmentation_checkpoint(path, name="attention_unet", width=4):
    weights = network_of(name, width).state_dict()
    model = dataclasses.replace(ActiveConfig().model, name=name, width=width, depth=2)
    config = plain(dataclasses.replace(ActiveConfig(), model=model))
    content = {"kind": "segmentation", "config": config, "network": weights}
    save_checkpoint(path, content)
    return path, weights


def starts_of(monkeypatch, *learnt, **more):
    """Run; return its folder and the weights that each iteration began with."""
    begun, begin = [], training.begin_iteration

    def spy(*given):
        state = begin(*given)
        begun.append({key: value.clone() for key, value in state.network.state_dict().items()})
        return state

    monkeypatch.setattr(training, "begin_iteration", spy)
    return learn(*learnt, **more), begun


def test_a_pu_unets_weights_land_and_only_the_gates_are_new(seg_store, tmp_path, monkeypatch):
    path, weights = pu_checkpoint(tmp_path / "pu.pt")
    overrides = [*ONE, f"active_learning.initial_weights={path}"]
    run, begun = starts_of(monkeypatch, seg_store, tmp_path, overrides=overrides)
    new = initial_weights.new_network(
        dataclasses.replace(
            ActiveConfig(), model=dataclasses.replace(ActiveConfig().model, width=4, depth=2)
        ),
        "init", 0,
    ).state_dict()  # fmt: skip
    gates = {key for key in new if key.startswith("gates.")}
    assert gates and begun[0].keys() == weights.keys() | gates
    for key, value in begun[0].items():
        assert torch.equal(value, new[key] if key in gates else weights[key]), key
    assert not torch.equal(begun[0]["head.weight"], new["head.weight"])
    log = (run / "training.log").read_text()
    assert log.count(f"Starting from {path}\n") == 1 and "Initialized new model" not in log
    assert "Warm-starting from previous iteration" in log  # iteration 1 goes on from its own


@pytest.mark.parametrize("name", ["attention_unet", "unet"])
def test_a_segmentation_runs_weights_land_whole(seg_store, tmp_path, monkeypatch, name):
    path, weights = segmentation_checkpoint(tmp_path / "seg.pt", name)
    overrides = ["training.epochs=1", f"active_learning.initial_weights={path}"]
    flags = ("--strategy", "full", "--model", name, "--run-name", "full")
    _, begun = starts_of(monkeypatch, seg_store, tmp_path, *flags, overrides=overrides, run="full")
    assert begun[0].keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in begun[0].items())


def test_a_unet_that_segments_starts_an_attention_unet(seg_store, tmp_path, monkeypatch):
    path, weights = segmentation_checkpoint(tmp_path / "seg.pt", "unet")
    overrides = [*ONE, f"active_learning.initial_weights={path}"]
    _, begun = starts_of(monkeypatch, seg_store, tmp_path, overrides=overrides)
    assert all(torch.equal(begun[0][key], value) for key, value in weights.items())


@pytest.mark.parametrize("flag", ["--no-warmstart", "--shrink-perturb"])
def test_later_iterations_new_weights_stay_new(seg_store, tmp_path, monkeypatch, flag):
    path, weights = pu_checkpoint(tmp_path / "pu.pt")
    overrides = [*ONE, f"active_learning.initial_weights={path}"]
    flags = (flag, "--run-name", "run")
    run, begun = starts_of(monkeypatch, seg_store, tmp_path, *flags, overrides=overrides, run="run")
    best = load_checkpoint(run / "iteration_0" / "best_model.pt")
    model = dataclasses.replace(ActiveConfig().model, width=4, depth=2)
    fresh = initial_weights.new_network(dataclasses.replace(ActiveConfig(), model=model), "init", 1)
    key = "head.weight"
    new = fresh.state_dict()[key]
    expected = new if flag == "--no-warmstart" else 0.4 * best["network"][key] + 0.1 * new
    torch.testing.assert_close(begun[1][key], expected)
    assert torch.equal(begun[0][key], weights[key])


@pytest.mark.parametrize(
    ("make", "flags", "words"),
    [
        (
            lambda path: pu_checkpoint(path, width=8),
            (),
            "has width 8, the config's `model` width 4: set model.width=8, or use",
        ),
        (
            lambda path: pu_checkpoint(path, width=2, depth=3),
            (),
            "has width 2, depth 3, the config's `model` width 4, depth 2: set model.width=2 "
            "model.depth=3, or",
        ),
        (
            segmentation_checkpoint,
            ("--model", "unet"),
            "has name attention_unet, the config's `model` name unet: set model.name=attention",
        ),
        (
            lambda path: save_checkpoint(path, {"kind": "active_run", "network": {}}),
            (),
            "is no trained model: use best_model.pt of a segmentation run, or of PU learning",
        ),
        (lambda path: None, (), "is not there: check the path"),
        (
            lambda path: pu_checkpoint(path, network=network_of("unet", 2).state_dict()),
            (),
            "is of another architecture",
        ),
        (lambda path: pu_checkpoint(path, network=None), (), "is damaged"),
        (lambda path: pu_checkpoint(path, config=[]), (), "holds no configuration"),
        (lambda path: path.write_text("no weights"), (), "cannot be read"),
    ],
)
def test_a_misfit_is_refused_naming_the_file_before_a_folder_is_made(
    seg_store, tmp_path, make, flags, words
):
    path = tmp_path / "other.pt"
    make(path)
    overrides = [f"active_learning.initial_weights={path}"]
    message = refused(seg_store, tmp_path / "e", *flags, overrides=overrides)
    assert str(path) in message and words in message
    assert [found.name for found in (tmp_path / "e").iterdir()] == ["tiny.yaml"]


def test_a_classifier_is_refused(seg_store, tmp_path):
    path = tmp_path / "resnet.pt"
    content = {"kind": "pu_classifier", "config": plain(PUConfig())}
    save_checkpoint(path, {**content, "network": PUClassifier().state_dict()})
    overrides = [f"active_learning.initial_weights={path}"]
    message = refused(seg_store, tmp_path, overrides=overrides)
    assert f"{path} is a resnet18, not a U-Net: use best_model.pt" in message


def test_some_gates_without_the_others_are_refused(seg_store, tmp_path):
    path, _ = segmentation_checkpoint(tmp_path / "seg.pt")
    content = load_checkpoint(path)
    del content["network"]["gates.0.w_g.0.weight"]
    save_checkpoint(path, content)
    overrides = [f"active_learning.initial_weights={path}"]
    assert "another architecture" in refused(seg_store, tmp_path, overrides=overrides)


def test_resume_needs_the_file_in_iteration_0_only_and_the_same_path(seg_store, tmp_path):
    path, _ = pu_checkpoint(tmp_path / "pu.pt")
    overrides = [*ONE, f"active_learning.initial_weights={path}"]
    learn_until_save(2, seg_store, tmp_path, overrides=overrides)
    message = refused(seg_store, tmp_path, "--resume", overrides=ONE)
    assert "different now: active_learning.initial_weights" in message
    path.unlink()
    call(*arguments(seg_store, tmp_path, "--resume", overrides=overrides))
    assert (tmp_path / "uncertainty" / "iteration_1" / "metrics.json").exists()
