"""The training script in processes of its own: one that is killed, two that train as one."""

import signal

import pytest
import torch
from torch import nn

from picking.runs.checkpoints import load_checkpoint
from tests.fixtures import run_python
from tests.fixtures.pu_runs import arguments, assert_same_run, metrics_of, results_of, train

# The script with a small network, for processes of their own
SCRIPT = """
import os, signal
import train_pu_fixed_full as script
from tests.scripts import test_train_processes
from tests.fixtures import pu_runs
from picking.training import networks
from picking.pu_learning.state import State

networks.PUClassifier = {network}
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


ENDS = """
import torch.distributed

script.main()
assert not torch.distributed.is_initialized()
"""


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


def test_a_killed_run_goes_on_and_ends_as_if_never_killed(store, tmp_path, finished_run):
    code = f"{SCRIPT.format(network='pu_runs.Small')}{DIES}script.main()"
    killed = run_python("-c", code, *arguments(store, tmp_path))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    folder = train(store, tmp_path, "--resume")
    assert "Resumed after 1 epochs, step 8" in (folder / "training.log").read_text()
    assert_same_run(folder, finished_run)
    assert not list(folder.rglob("*.tmp"))


def test_two_processes_train_as_one_and_only_the_first_writes(store, tmp_path):
    overrides = [
        *(f"augmentation.{name}=0" for name in ("shift_px", "contrast", "brightness", "noise")),
        *(f"augmentation.{name}=0" for name in ("blur_px", "cutout")),
        "training.epochs=2",
        "training.eval_batch_size=8",  # so that each process scores a share
        "optimizer.grad_clip=0.005",  # of some steps only: shows a gradient of the wrong length
    ]
    (tmp_path / "script.py").write_text(
        f"{SCRIPT.format(network='test_train_processes.Pointwise')}{ENDS}"
    )
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    argv = arguments(store, tmp_path, overrides=overrides)
    done = run_python(*torchrun, tmp_path / "script.py", *argv)
    assert done.returncode == 0, done.stderr
    two = tmp_path / "run"
    for text in (done.stdout, (two / "training.log").read_text()):
        assert text.count("Epoch 1/2") == text.count("Success criteria") == 1
    assert "cpu, 2 process(es)" in done.stdout
    assert len(list(two.glob("events*"))) == 2  # the run's and the final metrics'

    one = train(store, tmp_path, overrides=overrides, name="one", network=Pointwise)
    for alone, shared in zip(metrics_of(one), metrics_of(two), strict=True):
        for name in ("pu_loss", "consistency_loss", "mask_rate", "logit_std"):
            assert shared[name] == pytest.approx(alone[name], rel=1e-4), name
        assert shared["val"]["auc"] == pytest.approx(alone["val"]["auc"], abs=0.01)
    last = [load_checkpoint(run / "checkpoints" / "last.pt")["network"] for run in (one, two)]
    for name in last[0]:
        if name != "seen":
            torch.testing.assert_close(last[1][name], last[0][name], rtol=1e-3, atol=1e-4)
    best = results_of(two)["best_epoch"]
    assert results_of(two)["val"]["auc"] == metrics_of(two)[best - 1]["val"]["auc"]
