"""What several processes share out and put together, and how they end together."""

import os
import runpy
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist

from picking import errors
from picking.errors import UserError, run_script
from picking.runs import distributed
from tests.fixtures import ROOT


def run_two(*argv):
    """Run Python in two processes that find each other; return their statuses and stderrs.

    The store by which they do is this process's, as with torchrun it is the launcher's.
    """
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    group = {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    started = [
        subprocess.Popen(
            [sys.executable, *map(str, argv)],
            env={**os.environ, **group, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate()[1] for process in started]
    return [process.returncode for process in started], said


# Gradients

GRADIENTS = """
import sys
import torch
from torch import nn
from picking.runs import distributed
from picking.training.losses import (
    SEGMENTATION_PRESETS, fixmatch_consistency, focal_dice, nnpu_risk, pixel_consistency, pnu_risk
)

torch.set_num_threads(1)
_, rank, world_size = distributed.start("cpu")
torch.manual_seed(0)
found = {}

def part(x):
    return x.chunk(world_size)[rank]

network = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1)).double()
x_p, x_u, x_s = torch.randn(4, 5).double(), torch.randn(10, 5).double(), torch.randn(10, 5).double()
model = distributed.with_shared_gradients(network)
for name, prior_u in (("ordinary", 0.1), ("clipped", 0.95)):
    parts = [part(x) for x in (x_p, x_u, x_s)]
    z = model(torch.cat(parts)).squeeze(1).split([len(part) for part in parts])
    z_p, z_u, z_s = (distributed.from_all(part) for part in z)
    objective, risk = nnpu_risk(z_p, z_u, 0.47, prior_u)
    consistency, mask = fixmatch_consistency(z_u, z_s, 0.5)
    network.zero_grad()
    ((objective + consistency) * world_size).backward()
    found[name] = [p.grad.clone() for p in network.parameters()], risk, mask.sum()

parts = [part(x) for x in (x_p, x_u, x_s)]
z = model(torch.cat(parts)).squeeze(1).split([len(part) for part in parts])
z_p, z_u, z_n = (distributed.from_all(part) for part in z)
objective, risk = pnu_risk(z_p, z_u, z_n, 0.47, 0.1, 0.6)
network.zero_grad()
(objective * world_size).backward()
found["negatives"] = [p.grad.clone() for p in network.parameters()], risk, torch.tensor(1)

# Particles and ignored pixels are shared out unequally, so that no mean of means would do
network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Conv2d(3, 1, 3, padding=2)).double()
images = torch.randn(4, 1, 9, 9).double()
masks = (images[:, 0] > torch.tensor([0.0, 0.5, 1.0, 1.5]).view(4, 1, 1)).to(torch.uint8)
masks[0, :7] = 255
model = distributed.with_shared_gradients(network)
for preset, terms in SEGMENTATION_PRESETS.items():
    loss = focal_dice(model(part(images)), part(masks), **terms, whole=distributed.sum_of_all)
    network.zero_grad()
    (loss * world_size).backward()
    found[preset] = [p.grad.clone() for p in network.parameters()], loss.detach(), torch.tensor(1)

# So are pixels inside and pseudo-labels that are sure enough
with torch.no_grad():
    z_weak = model(part(images))
z_strong, inside = model(part(images) + 0.1), part(masks) != 255
consistency, mask_rate = pixel_consistency(
    z_weak, z_strong, inside, 0.53, whole=distributed.sum_of_all
)
network.zero_grad()
(consistency * world_size).backward()
found["pixels"] = [p.grad.clone() for p in network.parameters()], consistency.detach(), mask_rate

# Without SyncBatchNorm buffers differ between processes
norm = nn.BatchNorm1d(1)
norm.running_mean.fill_(rank + 1.0)
distributed.take_buffers_of_first(norm)
found["buffer"] = norm.running_mean
torch.save(found, sys.argv[1] + str(rank))
"""


def test_two_processes_have_exactly_the_losses_and_gradients_of_one(tmp_path, monkeypatch):
    script = tmp_path / "gradients.py"
    script.write_text(GRADIENTS)
    statuses, said = run_two(script, tmp_path / "two")
    assert statuses == [0, 0], said
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "one")])
    runpy.run_path(str(script))

    alone = torch.load(tmp_path / "one0")
    for rank in range(2):
        shared = torch.load(tmp_path / f"two{rank}")
        assert shared["buffer"].item() == 1
        for name in ("ordinary", "clipped", "negatives", "default", "reference", "pixels"):
            gradients, loss, n_masked = alone[name]
            assert max(g.abs().max() for g in gradients) > 0.01
            torch.testing.assert_close(shared[name][0], gradients, rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(shared[name][1], loss, rtol=1e-12, atol=1e-14)
            assert shared[name][2] == n_masked > 0
            assert name != "pixels" or n_masked < 1


# How they end

ENDS = """
from picking.errors import UserError, run_script
from picking.runs import distributed

def main():
    _, rank, _ = distributed.start("cpu")
    if rank == 1:
        raise UserError("the store is damaged")
    distributed.wait_for_all()

run_script(main)
"""


def test_an_error_that_one_process_meets_ends_both_and_is_told_of_once(tmp_path):
    (tmp_path / "script.py").write_text(ENDS)
    statuses, said = run_two(tmp_path / "script.py")
    assert statuses == [2, 2]
    assert said == ["", "error: the store is damaged\n"]


@pytest.mark.parametrize("error", [UserError("of all"), RuntimeError("another has left")])
def test_what_another_process_has_told_of_is_not_told_again(monkeypatch, capsys, error):
    def main():
        raise error

    monkeypatch.setattr(errors, "_first_to_say", lambda: False)
    with pytest.raises(SystemExit) as left:
        run_script(main)
    assert left.value.code == 2
    assert capsys.readouterr().err == ""


# What is shared out


def pretend(monkeypatch, rank, world_size):
    monkeypatch.setattr(distributed, "place", lambda: (rank, world_size))


def test_a_batch_is_shared_out_equally_or_refused(monkeypatch):
    assert distributed.share_of_batch(7) == 7
    pretend(monkeypatch, 1, 4)
    assert distributed.share_of_batch(8) == 2
    with pytest.raises(UserError, match=r"4 processes cannot share a batch of 6 .* multiple of 4"):
        distributed.share_of_batch(6)


@pytest.mark.parametrize("n", [1, 4, 11, 12, 13])
def test_whole_batches_are_dealt_out_in_turn(monkeypatch, n):
    assert distributed.share_of_places(n, 4).tolist() == list(range(n))
    dealt = []
    for rank in range(3):
        pretend(monkeypatch, rank, 3)
        dealt.append(distributed.share_of_places(n, 4))
    batches = [batch for part in dealt for batch in np.split(part, range(4, len(part), 4))]
    batches = sorted(batch.tolist() for batch in batches if len(batch))
    assert batches == [list(range(n))[start : start + 4] for start in range(0, n, 4)]


def test_processes_that_were_started_differently_are_told_apart(monkeypatch):
    distributed.require_same({"seed": 1}, "configuration")
    monkeypatch.setattr(distributed, "from_each", lambda value: [value, value, {"seed": 2}])
    with pytest.raises(UserError, match="differ in their configuration: start the same command"):
        distributed.require_same({"seed": 1}, "configuration")


def test_arrays_are_put_together_from_all_places_though_a_process_has_none(monkeypatch):
    whole = {"score": np.arange(5.0, dtype=np.float32), "features": np.ones((5, 2), np.float32)}
    parts = [np.array([0, 1, 4]), np.array([2, 3]), np.array([], np.int64)]
    given = [(places, {name: a[places] for name, a in whole.items()}) for places in parts[:2]]
    monkeypatch.setattr(distributed, "dist", SimpleNamespace(is_initialized=lambda: True))
    monkeypatch.setattr(distributed, "from_each", lambda own: [*given, (parts[2], {})])
    found = distributed.put_together({}, parts[2], 5)
    for name, array in whole.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array)
