"""What runs leave behind: run.json, config.yaml, metrics, labelled sets, picks."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch
import yaml
from hypothesis import strategies as st

from picking import files
from picking.active_learning import iterations
from picking.active_learning.analysis.comparison import summarise
from picking.active_learning.analysis.runs import read_runs
from picking.active_learning.analysis.tables import report
from picking.detection import output
from picking.formats.picks import Picks
from picking.runs import folder as runs
from picking.stores.segmentation import SegmentationStore

from . import originals
from .mutators import damaged_bytes, damaged_json, damaged_text, damaged_tree
from .oracle import ENDS, outcome, run_cases, short

CPU = torch.device("cpu")


def begun_run(draw, folder):
    """run.json and config.yaml of a run that is to go on."""
    config = {"training": {"seed": 1, "lr": 0.5}, "data": {"dir": "x"}}
    runs.open_run(folder / "run", config, "hash", CPU, resume=False)
    if draw(st.booleans()):
        path = folder / "run" / "run.json"
        path.write_bytes(draw(damaged_json(path.read_bytes())))
    else:
        path = folder / "run" / "config.yaml"
        as_tree = damaged_tree(config).map(lambda tree: yaml.safe_dump(tree).encode())
        path.write_bytes(draw(st.one_of(as_tree, damaged_text(path.read_text()))))
    return outcome(lambda: runs.open_run(folder / "run", config, "hash", CPU, True), ["run"])


def metrics_of_epochs(draw, folder):
    path = folder / "metrics.jsonl"
    history = [{"epoch": n, "val": {"auc": 0.5}} for n in range(3)]
    for epoch in history:
        runs.add_metrics(path, epoch)
    text = path.read_text()
    path.write_bytes(draw(st.one_of(damaged_text(text), damaged_bytes(text.encode()))))

    def use():
        assert all(isinstance(line, dict) for line in runs.read_metrics(path, 3))

    return outcome(use, [path.name])


def labelled_set(draw, folder):
    store = SegmentationStore(originals.segmentation_store() / "train")
    rows = np.arange(4)
    iterations.write_labelled(folder, 0, store, rows, rows[2:], np.array([0.5, 0.25]))
    path = folder / "iteration_0" / "labeled_indices.json"
    path.write_bytes(draw(damaged_json(path.read_bytes())))

    def use():
        labelled = iterations.read_labelled(folder, 0, store)
        assert labelled.dtype == np.int64 and len(set(labelled.tolist())) == len(labelled)
        store.images[labelled]

    return outcome(use, [path.name])


def found_picks(draw, folder):
    """scored/*.npz of a folder of picks."""
    micrograph, path = folder / "a.jpg", output.scored(folder, "a.jpg")
    micrograph.touch()
    picks = Picks("a.jpg", np.ones((5, 2)), np.full(5, 0.5), np.full(5, 20.0), (30, 40))
    output.save_picks(folder, picks, output.identity(micrograph))
    path.write_bytes(draw(damaged_bytes(path.read_bytes(), hot=300)))

    def use():
        with contextlib.redirect_stdout(io.StringIO()):
            output.not_done(folder, {"a.jpg": micrograph})
        picks = output.load_picks(folder, "a.jpg", (30, 40))
        assert picks.centres_px.shape == (len(picks.scores), 2)
        assert picks.scores.shape == picks.diameters_px.shape

    return outcome(use, [path.name])


def manifest(draw, folder):
    arguments = {"checkpoint": "hash", "threshold": 0.5, "formats": ["star"], "one_file": False}
    picks = folder / "picks"
    picks.mkdir()
    output.open_output(picks, arguments, resume=False)
    path = picks / "manifest.json"
    path.write_bytes(draw(damaged_json(path.read_bytes())))
    return outcome(lambda: output.open_output(picks, arguments, True), [picks.name])


def analysis(draw, folder):
    """Any file of runs that are to be compared."""
    root = originals.copy(originals.learning_runs(), folder / "runs")
    path = draw(st.sampled_from(sorted(root.rglob("*.json"))))
    path.write_bytes(draw(damaged_json(path.read_bytes())))
    if draw(st.integers(0, 5)) == 0:
        path.parent.rename(
            path.parent.with_name(draw(st.sampled_from(("iteration_²", "iteration_x"))))
        )

    def use():
        summary = summarise(read_runs(root), None, 5.0)
        files.write_json(folder / "summary.json", summary)
        report(summary).encode()
        json.loads((folder / "summary.json").read_text())

    return outcome(use, ["runs", path.name])


CASES = {
    begun_run: 80, metrics_of_epochs: 30, labelled_set: 50, found_picks: 60, manifest: 30,
    analysis: 80,
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_damaged_run_folders_are_read_or_refused_in_one_sentence(case):
    assert set() < run_cases(case, short(CASES[case])) <= ENDS
