"""The benchmark of training steps, on a tiny scale: that it runs and what its figures say."""

import json
import sys

import pytest

from benchmarks import training_step


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmark") / "report.json"
    argv = ["training_step", "--device", "cpu", "--scale", "tiny", "--steps", "1", "--turns", "2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*argv, "--ways", "fp32", "default", "--json", str(path)])
        training_step.main()
    return json.loads(path.read_text())


def test_every_network_is_measured_in_every_way_against_the_bare_one(report):
    rows = report["rows"]
    assert [(row["network"], row["way"]) for row in rows] == [
        (network, way)
        for network in ("resnet18", "attention_unet", "unet")
        for way in ("fp32", "default")
    ]
    for row in rows:
        assert row["lowest"] <= row["ratio"] <= row["highest"]
        assert row["script/s"] > 0 and row["bare/s"] > 0 and row["CPU ratio"] > 0
        assert 0 < row["waits"] < 1
        assert "x tf32" not in row and "peak GiB" not in row
    assert all(row["x fp32"] == row["ratio"] for row in rows if row["way"] == "fp32")


def test_operations_are_counted_by_hand_as_by_the_benchmark():
    network, n = training_step.nn.Conv2d(1, 4, 3, padding=1, bias=False), 2 * 8 * 8
    forward = 2 * n * 4 * 9
    flops, n_bytes = training_step.cost(network, (2, 1, 8, 8), training_step.torch.float32)
    assert flops == 2 * forward  # and the gradient of the weights; none of the input is asked for
    assert n_bytes >= 4 * (n + n * 4 + 36) * 2  # input, output and weights, forward and backward
