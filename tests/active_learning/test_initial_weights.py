"""Weights of another run that iteration 0 starts from: what lands, and what is refused."""

import dataclasses

import pytest
import torch

from models import UNETS
from picking.active_learning import run as running
from picking.config import ActiveConfig, PUConfig, plain
from picking.micrographs.preparation import PREPARATION, TRAIN_AGAIN
from picking.runs.checkpoints import load_checkpoint, save_checkpoint
from picking.training.networks import new_network
from tests.fixtures.active_runs import (
    arguments,
    call,
    learn,
    learn_until_save,
    refused,
)

PREPARED = {"preparation": PREPARATION}
ONE = ["active_learning.iterations=2", "training.epochs=1"]


def small(name="attention_unet", width=4, depth=2):
    model = dataclasses.replace(ActiveConfig().model, name=name, width=width, depth=depth)
    return dataclasses.replace(ActiveConfig(), model=model)


def network_of(name, width=4, depth=2):
    torch.manual_seed(7)
    return UNETS[name](width=width, depth=depth)


def pu_checkpoint(path, width=4, depth=2, **changes):
    """Write best_model.pt of PU learning with a U-Net; return the file and the weights."""
    weights = network_of("unet", width, depth).state_dict()
    model = dataclasses.replace(PUConfig().model, backbone="unet", width=width, depth=depth)
    config = plain(dataclasses.replace(PUConfig(), model=model))
    content = {"kind": "pu_classifier", "config": config, "network": weights, "input": PREPARED}
    save_checkpoint(path, {**content, **changes})
    return path, weights


def segmentation_checkpoint(path, name="attention_unet", **changes):
    weights = network_of(name).state_dict()
    config = plain(small(name))
    content = {"kind": "segmentation", "config": config, "network": weights, "input": PREPARED}
    save_checkpoint(path, {**content, **changes})
    return path, weights


def without_a_gate(path):
    weights = network_of("attention_unet").state_dict()
    del weights["gates.0.w_g.0.weight"]
    segmentation_checkpoint(path, network=weights)


def starts_of(monkeypatch, *learnt, **more):
    """Run; return its folder and the weights that each iteration began with."""
    begun, begin = [], running.begin_iteration

    def spy(*given):
        state = begin(*given)
        begun.append({key: value.clone() for key, value in state.network.state_dict().items()})
        return state

    monkeypatch.setattr(running, "begin_iteration", spy)
    return learn(*learnt, **more), begun


def test_a_pu_unets_weights_land_and_only_the_gates_are_new(seg_store, tmp_path, monkeypatch):
    path, weights = pu_checkpoint(tmp_path / "pu.pt")
    overrides = [*ONE, f"active_learning.initial_weights={path}"]
    run, begun = starts_of(monkeypatch, seg_store, tmp_path, overrides=overrides)
    new = new_network(small(), "init", 0).state_dict()
    gates = {key for key in new if key.startswith("gates.")}
    assert gates and begun[0].keys() == weights.keys() | gates
    for key, value in begun[0].items():
        assert torch.equal(value, new[key] if key in gates else weights[key]), key
    assert not torch.equal(begun[0]["head.weight"], new["head.weight"])
    log = (run / "training.log").read_text()
    assert log.count(f"Starting from {path}\n") == 1 and "Initialized new model" not in log


@pytest.mark.parametrize(
    ("saved", "model"),
    [("attention_unet", "attention_unet"), ("unet", "unet"), ("unet", "attention_unet")],
)
def test_a_segmentation_runs_weights_land(seg_store, tmp_path, monkeypatch, saved, model):
    path, weights = segmentation_checkpoint(tmp_path / "seg.pt", saved)
    overrides = ["training.epochs=1", f"active_learning.initial_weights={path}"]
    flags = ("--strategy", "full", "--model", model, "--run-name", "full")
    _, begun = starts_of(monkeypatch, seg_store, tmp_path, *flags, overrides=overrides, run="full")
    assert all(torch.equal(begun[0][key], value) for key, value in weights.items())
    assert begun[0].keys() - weights.keys() == {
        key for key in begun[0] if saved != model and key.startswith("gates.")
    }


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ((), "Warm-starting from previous iteration: "),
        (("--no-warmstart",), "Initialized new model"),
        (("--shrink-perturb",), "(shrunk to 0.4, plus 0.1 of a new model)"),
    ],
)
def test_an_iteration_goes_on_from_the_last_ones_best_weights_unless_told_otherwise(
    seg_store, tmp_path, monkeypatch, flags, line
):
    path, weights = pu_checkpoint(tmp_path / "pu.pt")
    overrides = [*ONE, f"active_learning.initial_weights={path}"]
    flags = (*flags, "--run-name", "run")
    run, begun = starts_of(monkeypatch, seg_store, tmp_path, *flags, overrides=overrides, run="run")
    assert torch.equal(begun[0]["head.weight"], weights["head.weight"])
    assert line in (run / "training.log").read_text()
    best = load_checkpoint(run / "iteration_0" / "best_model.pt")["network"]
    fresh = new_network(small(), "init", 1)
    parameters, fresh = dict(fresh.named_parameters()), fresh.state_dict()
    for key, value in begun[1].items():
        expected = fresh[key] if "--no-warmstart" in flags else best[key]
        if "--shrink-perturb" in flags and key in parameters:  # not batch norm's statistics
            expected = 0.4 * best[key] + 0.1 * fresh[key]
        torch.testing.assert_close(value, expected)
    # The optimiser starts anew: AdamW has counted the steps of iteration 1 only
    optimizer = load_checkpoint(run / "last.pt")["optimizer"]
    assert {int(part["step"]) for part in optimizer["state"].values()} == {2}


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
        (lambda path: pu_checkpoint(path, input=None), (), f"in another way: {TRAIN_AGAIN}"),
        (
            lambda path: segmentation_checkpoint(path, input={"preparation": "grey as it is"}),
            (),
            f"in another way: {TRAIN_AGAIN}",
        ),
        (lambda path: pu_checkpoint(path, config=[]), (), "holds no configuration"),
        (lambda path: path.write_text("no weights"), (), "cannot be read"),
        (
            lambda path: pu_checkpoint(path, config=plain(PUConfig())),
            (),
            "is a resnet18, not a U-Net: use best_model.pt",
        ),
        (without_a_gate, (), "is of another architecture"),
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
    assert [path.name for path in (tmp_path / "e").iterdir()] == ["tiny.yaml"]


def test_weights_without_a_name_are_refused(seg_store, tmp_path):
    message = refused(seg_store, tmp_path, overrides=["active_learning.initial_weights=''"])
    assert message.startswith("active_learning.initial_weights is empty: ")


def test_resume_needs_the_file_in_iteration_0_only_and_the_same_path(seg_store, tmp_path):
    path, _ = pu_checkpoint(tmp_path / "pu.pt")
    overrides = [*ONE, f"active_learning.initial_weights={path}"]
    learn_until_save(2, seg_store, tmp_path, overrides=overrides)
    message = refused(seg_store, tmp_path, "--resume", overrides=ONE)
    assert "different now: active_learning.initial_weights" in message
    path.unlink()
    call(*arguments(seg_store, tmp_path, "--resume", overrides=overrides))
    assert (tmp_path / "uncertainty" / "iteration_1" / "metrics.json").exists()
