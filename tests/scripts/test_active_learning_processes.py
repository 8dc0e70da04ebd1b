"""Active learning in two processes of torchrun: the numbers of one, and only the first writes."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from picking.runs import distributed
from picking.runs.checkpoints import load_checkpoint
from picking.training import networks
from tests.fixtures import ROOT
from tests.fixtures.active_runs import (
    arguments,
    labelled_of,
    learn,
    metrics_of,
    refused,
    write_store,
)

# Every process notes what it writes; the run is stopped amid iteration 1, once, and gone on with
WORKER = """
import contextlib, json, os, sys
from tests.scripts import test_active_learning_processes
import train_active_learning_fixed as script
from picking.active_learning import train
from picking.training import networks
from picking.errors import run_script

networks.UNETS = dict.fromkeys(networks.UNETS, test_active_learning_processes.Plain)
train_one_epoch, epochs, written = train.train_one_epoch, [], []

class Stopped(Exception):
    pass

def train_or_stop(*arguments):
    epochs.append(1)
    if len(epochs) == 4:
        raise Stopped
    return train_one_epoch(*arguments)

def note(event, details):
    wrote = event == "open" and isinstance(details[1], str) and set(details[1]) & set("wxa+")
    if wrote or event in ("os.mkdir", "os.rename", "os.remove"):
        written.append(f"{event} {details[0]}")

sys.addaudithook(note)
train.train_one_epoch = train_or_stop
with contextlib.suppress(Stopped):
    script.main()
sys.argv.append("--resume")
script.main()
with open(f"{sys.argv[sys.argv.index('--output-dir') + 1]}/wrote{os.environ['RANK']}", "w") as file:
    json.dump(written, file)
"""


class Plain(nn.Module):
    """A network without batch norm: each image stands for itself, however a batch is shared.

    But for a buffer, which in training each process fills with its rank, and which evaluation adds.
    """

    def __init__(self, width, depth):
        super().__init__()
        self.bottleneck = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.Tanh())
        self.head = nn.Conv2d(width, 1, 1)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.seen.fill_(float(os.environ.get("RANK", 0)))
        z = self.head(self.bottleneck(x))
        return z if self.training else z + self.seen


def torchrun(*argv):
    """Run Python in two processes that find the project and these tests."""
    path = str(ROOT)
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         *map(str, argv)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "consistency", [[], [f"consistency.{key}" for key in ("weight=1", "threshold=0.5", "ratio=2")]]
)
def test_two_processes_learn_and_query_as_one_and_only_the_first_writes(
    tmp_path, monkeypatch, consistency
):
    store = write_store(tmp_path / "store")
    flags = ("--strategy", "hybrid")
    overrides = [
        *consistency,
        "training.eval_batch_size=2",  # so that each process scores a share
        "optimizer.grad_clip=0.05",  # of some steps only: shows a gradient of the wrong length
    ]
    (tmp_path / "worker.py").write_text(WORKER)
    argv = arguments(store, tmp_path / "two", *flags, overrides=overrides)
    done = torchrun(tmp_path / "worker.py", *argv)
    assert done.returncode == 0, done.stderr
    two = tmp_path / "two" / "hybrid"
    assert "cpu, 2 process(es)" in done.stdout
    for text in (done.stdout, (two / "training.log").read_text()):
        assert text.count("Resumed iteration 1 after epoch 1") == 1
        assert text.count("Epoch 2/2") == text.count(" complete: val F1") == 3
        assert text.count("Queried 2 of") == 2
    wrote = [json.loads((tmp_path / "two" / f"wrote{rank}").read_text()) for rank in range(2)]
    assert any("last.pt" in path or ".tmp" in path for path in wrote[0])
    assert [path for path in wrote[1] if str(two) in path] == []

    monkeypatch.setattr(networks, "UNETS", dict.fromkeys(networks.UNETS, Plain))
    one = learn(store, tmp_path / "one", *flags, overrides=overrides, run="hybrid")
    epochs = [(run / "metrics.jsonl").read_text().splitlines() for run in (one, two)]
    assert len(epochs[0]) == 6
    for alone, shared in zip(*(map(json.loads, lines) for lines in epochs), strict=True):
        for name in ("loss", *(("consistency_loss", "mask_rate") if consistency else ())):
            assert shared[name] == pytest.approx(alone[name], rel=1e-4)
        assert shared["val"] == pytest.approx(alone["val"], abs=0.005)
    for k in range(3):
        assert labelled_of(two, k)["names"] == labelled_of(one, k)["names"]
        scores = [list(labelled_of(run, k)["scores"].values()) for run in (one, two)]
        assert k == 0 or scores[1] == pytest.approx(scores[0], abs=1e-4)
        assert metrics_of(two, k)["test"] == pytest.approx(metrics_of(one, k)["test"], abs=0.005)
    last = [load_checkpoint(run / "last.pt")["network"] for run in (one, two)]
    torch.testing.assert_close(last[1], last[0], rtol=1e-3, atol=1e-4)


def test_a_batch_that_processes_cannot_share_is_refused(tmp_path, monkeypatch):
    store = write_store(tmp_path / "store")
    monkeypatch.setattr(distributed, "place", lambda: (0, 2))
    message = refused(store, tmp_path / "e", "--batch-size", 3)
    assert message.startswith("2 processes cannot share a batch of 3 equally: set training.batch_")
    assert [path.name for path in (tmp_path / "e").iterdir()] == ["tiny.yaml"]
