"""Devices: those that are there, and one of its own for each process."""

import pytest
import torch

from picking.errors import UserError
from picking.runs.devices import select_device

CPU = torch.device("cpu")


def pretend_gpus(monkeypatch, n, **environment):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
    monkeypatch.setattr(torch.cuda, "set_device", lambda name: None)
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize("name", ["cuda:2", "cuda:x", "gpu", "CUDA:0", "mps", ""])
def test_a_device_that_is_not_there_is_an_error_that_lists_what_is(monkeypatch, name):
    pretend_gpus(monkeypatch, 2)
    with pytest.raises(UserError, match=f"--device {name} .*: cuda:0, cuda:1, cpu, auto"):
        select_device(name)


def test_no_device_falls_back_to_the_cpu_but_auto(monkeypatch):
    pretend_gpus(monkeypatch, 0)
    for name in ("cuda", "cuda:0"):
        with pytest.raises(UserError, match=f"--device {name} is not there; there are: cpu, auto"):
            select_device(name)
    assert select_device("auto") == CPU
    pretend_gpus(monkeypatch, 2)
    assert select_device("auto") == torch.device("cuda:0")
    assert select_device("cuda:1") == torch.device("cuda:1")


def test_each_process_of_torchrun_takes_a_gpu_of_its_own(monkeypatch):
    pretend_gpus(monkeypatch, 2, LOCAL_RANK=1, LOCAL_WORLD_SIZE=2)
    assert select_device("cuda") == select_device("auto") == torch.device("cuda:1")
    assert select_device("cpu") == CPU
    with pytest.raises(UserError, match="cuda:0 is one GPU for 2 processes: give cuda"):
        select_device("cuda:0")
    pretend_gpus(monkeypatch, 2, LOCAL_RANK=2, LOCAL_WORLD_SIZE=3)
    with pytest.raises(UserError, match="cuda:2 is not there"):
        select_device("cuda")
