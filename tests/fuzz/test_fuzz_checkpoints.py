"""best_model.pt and last.pt of both pipelines: cut, spoilt, with other content, with code."""

import io
import os
import pickle
import zipfile

import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from picking.active_learning import iterations
from picking.active_learning.iterations import KEY
from picking.config import ActiveConfig, PUConfig, config_from_dict
from picking.detection import picker
from picking.detection.thresholds import kept_threshold
from picking.pu_learning.state import State
from picking.pu_learning.train import STEP_METRICS
from picking.runs.checkpoints import load_checkpoint
from picking.training import loop
from picking.training.initial_weights import read_initial_weights
from picking.training.networks import build_network, new_network

from . import originals
from .mutators import ODD_VALUES, damaged_array, damaged_bytes, damaged_tree
from .oracle import ENDS, outcome, run_cases, short

CPU = torch.device("cpu")
ODD = (
    *ODD_VALUES, torch.zeros(3), torch.full((2, 2), float("nan")), torch.zeros(()),
    torch.zeros(1).expand(2**40), torch.zeros(2, dtype=torch.complex64), torch.zeros(0),
    torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.long), torch.ones(1), (4,)),
)  # fmt: skip


class Code:
    """Runs a command when it is unpickled by anything that trusts it."""

    def __reduce__(self):
        return os.mkdir, ("pwned",)


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@st.composite
def damaged_checkpoint(draw, path):
    """The bytes of a checkpoint that was spoilt as a file, as content, or by code in it."""
    fault = draw(st.sampled_from(("bytes", "tree", "tree", "tree", "weights", "code", "archive")))
    if fault == "bytes":
        return draw(damaged_bytes(path.read_bytes(), hot=3000))
    content = torch.load(path, weights_only=True)
    if fault == "tree":
        return saved(draw(damaged_tree(content, ODD)))
    if fault == "weights":
        key = draw(st.sampled_from(sorted(content["network"])))
        array = draw(damaged_array(content["network"][key].numpy()))
        if array.dtype.kind not in "USM":
            array = array.astype(array.dtype.newbyteorder("="))
            content["network"][key] = torch.from_numpy(array.copy())
        return saved(content)
    if fault == "code":
        content[draw(st.sampled_from(sorted(content)))] = Code()
        return draw(st.sampled_from((saved(content), pickle.dumps(content), pickle.dumps(Code()))))
    return _repacked(draw, path)


def _repacked(draw, path):
    """The archive with a member lost, emptied, deflated from nothing, or named otherwise."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w") as new:
        spoilt = draw(st.sampled_from(old.namelist()))
        fault = draw(st.sampled_from(("lose", "empty", "bomb", "rename", "damage")))
        for name in old.namelist():
            content, way = old.read(name), zipfile.ZIP_STORED
            if name == spoilt:
                if fault == "lose":
                    continue
                if fault == "empty":
                    content = b""
                elif fault == "bomb":
                    content, way = bytes(300_000_000), zipfile.ZIP_DEFLATED
                elif fault == "rename":
                    name = "../../" + name
                else:
                    content = draw(damaged_bytes(content))
            new.writestr(name, content, way, compresslevel=1)
    return buffer.getvalue()


def of_bytes(draw, folder, original, name, read):
    path = folder / name
    path.write_bytes(draw(damaged_checkpoint(original)))
    result = outcome(lambda: read(path), [name])
    assert not os.path.isdir("pwned")  # noqa: PTH112
    return result


def load_picker(path):
    result = picker.load_picker(path, CPU)
    threshold, _ = kept_threshold(result)
    assert isinstance(result.network, nn.Module) and 0 <= threshold <= 1


def best_of_active_learning(draw, folder):
    return of_bytes(draw, folder, originals.best_model(), "best_model.pt", load_picker)


def best_of_pu_learning(draw, folder):
    return of_bytes(draw, folder, originals.best_pu_model(), "best_model.pt", load_picker)


def last_of_active_learning(draw, folder):
    run = originals.active_runs() / "uncertainty"
    best = torch.load(originals.best_model(), weights_only=True)
    config = config_from_dict(best["config"], "config", ActiveConfig)

    def read(path):
        network = new_network(config, "init", 0)
        optimizer = torch.optim.AdamW(network.parameters(), 0.01, fused=True)
        totals = torch.zeros(len(iterations.STEP_METRICS), dtype=torch.float64)
        state = loop.State(network=network, optimizer=optimizer, totals=totals)
        iterations.load_last(path.parent, 2, state, CPU)

    return of_bytes(draw, folder, run / "last.pt", "last.pt", read)


def last_of_pu_learning(draw, folder):
    original = originals.pu_runs(True) / "run" / "checkpoints" / "last.pt"
    best = torch.load(originals.best_pu_model(), weights_only=True)
    config = config_from_dict(best["config"], "config", PUConfig)

    def read(path):
        network = build_network(config)
        optimizer = torch.optim.AdamW(network.parameters(), 0.01, fused=True)
        state = State(
            network=network,
            average=None,
            optimizer=optimizer,
            totals=torch.zeros(len(STEP_METRICS), dtype=torch.float64),
            adaptive=torch.zeros(3),
        )
        state.load(path, CPU)

    return of_bytes(draw, folder, original, "last.pt", read)


def _step(network, optimizer):
    """What a resumed run does first with what it loaded."""
    network(torch.zeros(2, 1, 16, 16)).sum().backward()
    optimizer.step()


def initial_weights(draw, folder):
    """Weights that active learning shall start from, of either pipeline."""
    original = draw(st.sampled_from((originals.best_model, originals.best_pu_model)))()
    saved_config = torch.load(original, weights_only=True)["config"]["model"]
    keys = {"width": saved_config["width"], "depth": saved_config["depth"]}
    config = config_from_dict({"model": keys}, "config", ActiveConfig)

    def read(path):
        network = new_network(config, "init", 0)
        network.load_state_dict(read_initial_weights(str(path), network, config.model, KEY))
        _step(network, torch.optim.AdamW(network.parameters(), 0.01, fused=True))

    return of_bytes(draw, folder, original, "best_model.pt", read)


def nobody_s(draw, folder):
    """Files that were never checkpoints."""
    path = folder / "x.pt"
    kinds = st.one_of(
        st.binary(max_size=99), st.sampled_from((b"PK\x05\x06" + bytes(18), b"\x80\x02."))
    )
    path.write_bytes(draw(kinds))
    return outcome(lambda: load_checkpoint(path), [path.name])


CASES = {
    best_of_active_learning: 60, best_of_pu_learning: 60, last_of_active_learning: 60,
    last_of_pu_learning: 60, initial_weights: 60, nobody_s: 20,
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_damaged_checkpoints_are_loaded_or_refused_in_one_sentence(case):
    assert set() < run_cases(case, short(CASES[case])) <= ENDS
