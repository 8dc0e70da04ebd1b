"""Run folders: begun, gone on with or refused; metrics of whole epochs."""

import json
import re
import sys

import pytest
import torch
import yaml

from picking.errors import UserError
from picking.runs import folder

CONFIG = {"training": {"seed": 3, "epochs": 5}, "optimizer": {"lr": 0.001}}
CPU = torch.device("cpu")


def test_a_new_run_says_what_it_runs_with(tmp_path):
    folder.open_run(tmp_path / "a", CONFIG, "hash", CPU, resume=False)
    assert yaml.safe_load((tmp_path / "a" / "config.yaml").read_text()) == CONFIG
    run = json.loads((tmp_path / "a" / "run.json").read_text())
    assert run["input_hash"] == "hash"
    assert (run["device"], run["seed"]) == ("cpu", 3)
    assert run["command"] == sys.argv
    assert run["versions"]["torch"] == torch.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", run["started"])


def test_a_folder_with_a_run_is_refused_without_resume_and_left_alone(tmp_path):
    folder.open_run(tmp_path, CONFIG, "hash", CPU, resume=False)
    before = (tmp_path / "run.json").read_text()
    with pytest.raises(UserError, match=r"holds a run already: continue it with --resume"):
        folder.open_run(tmp_path, CONFIG, "hash", CPU, resume=False)
    folder.open_run(tmp_path, CONFIG, "hash", CPU, resume=True)
    assert (tmp_path / "run.json").read_text() == before


def test_resume_begins_a_run_where_there_is_none(tmp_path):
    folder.open_run(tmp_path / "new", CONFIG, "hash", CPU, resume=True)
    assert (tmp_path / "new" / "config.yaml").exists()


def test_a_run_killed_before_its_config_was_written_begins_anew(tmp_path):
    folder.open_run(tmp_path, CONFIG, "hash", CPU, resume=False)
    (tmp_path / "config.yaml").rename(tmp_path / ".config.yaml.1.tmp")
    folder.open_run(tmp_path, CONFIG, "other", CPU, resume=False)
    assert json.loads((tmp_path / "run.json").read_text())["input_hash"] == "other"
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_changed_config_does_not_resume_and_the_keys_are_named(tmp_path):
    folder.open_run(tmp_path, CONFIG, "hash", CPU, resume=False)
    changed = {"training": {"seed": 4, "epochs": 5}, "optimizer": {"lr": 0.01}}
    with pytest.raises(UserError, match=r"different now: optimizer\.lr, training\.seed"):
        folder.open_run(tmp_path, changed, "hash", CPU, resume=True)


def test_other_data_do_not_resume(tmp_path):
    folder.open_run(tmp_path, CONFIG, "a" * 64, CPU, resume=False)
    with pytest.raises(UserError, match=r"other data .*hash a{12}, now b{12}\)"):
        folder.open_run(tmp_path, CONFIG, "b" * 64, CPU, resume=True)


def test_what_a_killed_process_wrote_half_is_removed_on_resume(tmp_path):
    folder.open_run(tmp_path, CONFIG, "hash", CPU, resume=False)
    (tmp_path / "checkpoints").mkdir()
    half, whole = tmp_path / "checkpoints" / ".last.pt.1.tmp", tmp_path / "checkpoints" / "last.pt"
    half.touch()
    whole.touch()
    folder.open_run(tmp_path, CONFIG, "hash", CPU, resume=True)
    assert not half.exists()
    assert whole.exists()


def test_of_the_metrics_only_whole_epochs_are_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert folder.read_metrics(path, 0) == []
    epochs = [{"epoch": 1, "auc": None}, {"epoch": 2, "auc": 0.5}]
    for metrics in epochs:
        folder.add_metrics(path, metrics)
    with path.open("a") as file:
        file.write('{"epoch": 3, "au')  # torn by a full disk
    assert folder.read_metrics(path, 2) == epochs
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.add_metrics(path, {"auc": float("nan")})
    assert len(folder.read_metrics(path, 2)) == 2


def test_metrics_of_epochs_that_no_checkpoint_counts_are_cut_before_the_next_is_added(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert folder.keep_metrics(path, 0) == []
    for epoch in (1, 2):
        folder.add_metrics(path, {"epoch": epoch})
    with path.open("a") as file:
        file.write('{"epoch": 3, "au')
    assert folder.keep_metrics(path, 1) == [{"epoch": 1}]
    folder.add_metrics(path, {"epoch": 2, "again": True})
    assert folder.read_metrics(path, 2) == [{"epoch": 1}, {"epoch": 2, "again": True}]


def test_metrics_grow_by_a_line_and_what_stands_there_is_not_written_again(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    folder.add_metrics(path, {"epoch": 1})
    before = path.stat().st_ino
    monkeypatch.setattr(folder, "write_atomically", None)
    folder.add_metrics(path, {"epoch": 2})
    assert path.stat().st_ino == before and path.read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("run.json", "null", r"run\.json is damaged \(no input_hash\)"),
        ("run.json", '{"input_hash": 3}', r"run\.json is damaged \(no input_hash\)"),
        ("config.yaml", "a: [1", r"config\.yaml.* is not valid YAML"),
        ("config.yaml", "- 1", r"config\.yaml must hold sections"),
        ("config.yaml", "1: {a: 2}\nnull: 3", "different now: 1, None, training"),
        ("config.yaml", b"\xff", r"config\.yaml is not valid YAML"),
    ],
)
def test_a_damaged_run_folder_is_a_clear_error(tmp_path, name, content, words):
    config = {"training": {"seed": 1}}
    folder.open_run(tmp_path / "run", config, "hash", torch.device("cpu"), resume=False)
    write = (tmp_path / "run" / name).write_bytes
    write(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=words):
        folder.open_run(tmp_path / "run", config, "hash", torch.device("cpu"), resume=True)


def test_metrics_that_lack_epochs_or_are_damaged_are_a_clear_error(tmp_path):
    path = tmp_path / "metrics.jsonl"
    folder.add_metrics(path, {"epoch": 1})
    with pytest.raises(UserError, match="has only 1 of the 2 epochs"):
        folder.read_metrics(path, 2)
    path.write_bytes(b"\xff\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1 is damaged"):
        folder.read_metrics(path, 1)
