"""Checkpoints: data only, whole or refused in one sentence, and restored as they were saved."""

import copy
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from models import UNet
from picking.errors import UserError
from picking.runs.checkpoints import (
    load_checkpoint,
    load_moments,
    load_weights,
    moments_of,
    reading,
    require_size,
    restored,
    save_checkpoint,
)

CPU = torch.device("cpu")


class Malicious:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def refused(function, *arguments):
    with pytest.raises(UserError, match=r"\.pt") as error:
        function(*arguments)
    return str(error.value)


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path):
    state = {"kind": "pu_run", "w": torch.arange(3.0), "n": 2, "none": None}
    save_checkpoint(tmp_path / "a.pt", state)
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert torch.equal(loaded.pop("w"), state.pop("w"))
    assert loaded == state


def test_a_checkpoint_that_holds_code_is_refused_and_the_code_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"kind": "pu_run", "x": Malicious()}, tmp_path / "new.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps(Malicious()))
    assert "holds more than data" in refused(load_checkpoint, tmp_path / "new.pt")
    assert "cannot be read" in refused(load_checkpoint, tmp_path / "old.pt")
    assert not (tmp_path / "pwned").exists()


def test_a_checkpoint_that_lost_bytes_or_has_a_wrong_one_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    save_checkpoint(path, {"kind": "pu_run", "w": torch.randn(1000)})
    whole = path.read_bytes()
    damaged = [whole[: int(fraction * len(whole))] for fraction in (0, 0.01, 0.5, 0.99)]
    amid = len(whole) // 2  # of the weights: torch itself would load them
    damaged.append(whole[:amid] + bytes([whole[amid] ^ 1]) + whole[amid + 1 :])
    for content in damaged:
        path.write_bytes(content)
        assert "a.pt cannot be read" in refused(load_checkpoint, path)


def test_a_checkpoint_that_inflates_to_more_than_itself_is_not_read(tmp_path):
    save_checkpoint(tmp_path / "a.pt", {"kind": "pu_run", "w": torch.zeros(10**6)})
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as whole,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in whole.namelist():
            bomb.writestr(name, whole.read(name))
    assert "bomb.pt cannot be read" in refused(load_checkpoint, tmp_path / "bomb.pt")


def test_files_that_are_no_checkpoints_of_ours_are_clear_errors(tmp_path):
    assert "is not there" in refused(load_checkpoint, tmp_path / "none.pt")
    for content in ({"model": torch.zeros(1)}, torch.zeros(1), {"kind": ["pu_run"]}):
        torch.save(content, tmp_path / "other.pt")
        assert "is not one of this project" in refused(load_checkpoint, tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("epoch 3, loss 0.2\n" * 20)
    np.savez(tmp_path / "arrays.npz", w=np.zeros(3))
    assert "is a folder: name the best_model.pt in it" in refused(load_checkpoint, tmp_path)
    for name in ("text.pt", "arrays.npz"):
        with pytest.raises(UserError, match="cannot be read"):
            load_checkpoint(tmp_path / name)


def test_weights_of_another_architecture_are_refused(tmp_path):
    network, path = nn.Linear(3, 1), tmp_path / "a.pt"
    more = {**network.state_dict(), "more": torch.zeros(1)}
    for weights in (nn.Linear(4, 1).state_dict(), nn.Conv2d(1, 1, 3).state_dict(), {}, more):
        assert "another architecture" in refused(load_weights, network, weights, path)
    assert "is damaged" in refused(load_weights, network, [1], path)
    load_weights(network, nn.Linear(3, 1).state_dict(), path)


def test_a_network_is_restored_with_its_weights_and_a_false_size_takes_no_memory(tmp_path):
    def build(width):
        return UNet(width=width, depth=7)

    small, path = UNet(width=1, depth=7), tmp_path / "a.pt"
    weights = small.state_dict()
    again = restored(lambda: build(1), weights, path, CPU)
    for key, value in again.state_dict().items():
        assert torch.equal(value, weights[key])
    # 232 GB: nothing must be made of it
    assert "another architecture" in refused(restored, lambda: build(512), weights, path, CPU)


def test_a_network_larger_than_any_memory_is_refused_and_random_numbers_stay():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    require_size(lambda: UNet(width=2, depth=2))
    assert torch.equal(torch.rand(3), expected)
    with pytest.raises(UserError, match="weights, more than 1,000,000,000: lower "):
        require_size(lambda: UNet(width=512, depth=7))


def test_an_optimiser_goes_on_as_if_never_saved(tmp_path):
    def step(network, optimizer, x):
        optimizer.zero_grad()
        network(torch.full((2, 3), x)).sum().backward()
        optimizer.step()

    one = nn.Linear(3, 1)
    first = torch.optim.AdamW(one.parameters(), 0.1, fused=True)
    step(one, first, 1.0)
    other = copy.deepcopy(one)
    second = torch.optim.AdamW(other.parameters(), 0.1, fused=True)
    load_moments(second, copy.deepcopy(moments_of(first)), tmp_path / "a.pt")
    step(one, first, 0.5)
    step(other, second, 0.5)
    assert torch.equal(one.weight, other.weight)


@pytest.mark.parametrize("key", ["missing", "none", "text"])
def test_what_a_checkpoint_does_not_hold_is_a_clear_error(tmp_path, key):
    def read():
        with reading(tmp_path / "a.pt"):
            return {"none": None, "text": "x"}[key] + 1

    assert "is damaged" in refused(read)
