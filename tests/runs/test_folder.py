"""Devices, run folders and checkpoints."""

import json
import os
import pickle
import re
import sys

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from picking.errors import UserError
from picking.runs import folder

CONFIG = {"training": {"seed": 3, "epochs": 5}, "optimizer": {"lr": 0.001}}
CPU = torch.device("cpu")


# Devices


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
        folder.select_device(name)


def test_no_device_falls_back_to_the_cpu_but_auto(monkeypatch):
    pretend_gpus(monkeypatch, 0)
    for name in ("cuda", "cuda:0"):
        with pytest.raises(UserError, match=f"--device {name} is not there; there are: cpu, auto"):
            folder.select_device(name)
    assert folder.select_device("auto") == CPU
    pretend_gpus(monkeypatch, 2)
    assert folder.select_device("auto") == torch.device("cuda:0")
    assert folder.select_device("cuda:1") == torch.device("cuda:1")


def test_each_process_of_torchrun_takes_a_gpu_of_its_own(monkeypatch):
    pretend_gpus(monkeypatch, 2, LOCAL_RANK=1, LOCAL_WORLD_SIZE=2)
    assert folder.select_device("cuda") == folder.select_device("auto") == torch.device("cuda:1")
    assert folder.select_device("cpu") == CPU
    with pytest.raises(UserError, match="cuda:0 is one GPU for 2 processes: give cuda"):
        folder.select_device("cuda:0")
    pretend_gpus(monkeypatch, 2, LOCAL_RANK=2, LOCAL_WORLD_SIZE=3)
    with pytest.raises(UserError, match="cuda:2 is not there"):
        folder.select_device("cuda")


# Run folders


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


def test_the_log_is_on_disk_line_by_line_and_goes_on_where_it_ended(tmp_path, capsys):
    path = tmp_path / "training.log"
    folder.open_log(path)("one π")
    assert path.read_text() == "one π\n"
    folder.open_log(path)("two")
    assert path.read_text() == "one π\ntwo\n" == capsys.readouterr().out
    folder.open_log(None)("three")
    assert capsys.readouterr().out == ""


def test_of_the_metrics_only_whole_epochs_are_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert folder.read_metrics(path, 0) == []
    epochs = [{"epoch": 1, "auc": None}, {"epoch": 2, "auc": 0.5}]
    for figures in epochs:
        folder.add_metrics(path, figures)
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


# Checkpoints


class Malicious:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path):
    state = {"kind": "pu_run", "w": torch.arange(3.0), "n": 2, "none": None}
    folder.save_checkpoint(tmp_path / "a.pt", state)
    loaded = folder.load_checkpoint(tmp_path / "a.pt")
    assert torch.equal(loaded.pop("w"), state.pop("w"))
    assert loaded == state


def test_a_checkpoint_that_holds_code_is_refused_and_the_code_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"kind": "pu_run", "x": Malicious()}, tmp_path / "new.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(UserError, match=r"new\.pt holds more than data and is refused"):
        folder.load_checkpoint(tmp_path / "new.pt")
    with pytest.raises(UserError, match=r"old\.pt cannot be read"):
        folder.load_checkpoint(tmp_path / "old.pt")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_truncated_checkpoint_is_a_clear_error(tmp_path, share):
    path = tmp_path / "a.pt"
    folder.save_checkpoint(path, {"kind": "pu_run", "w": torch.randn(1000)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"a\.pt cannot be read"):
        folder.load_checkpoint(path)


def test_files_that_are_no_checkpoints_of_ours_are_clear_errors(tmp_path):
    with pytest.raises(UserError, match=r"none\.pt is not there"):
        folder.load_checkpoint(tmp_path / "none.pt")
    torch.save({"model": torch.zeros(1)}, tmp_path / "other.pt")
    torch.save(torch.zeros(1), tmp_path / "tensor.pt")
    for name in ("other.pt", "tensor.pt"):
        with pytest.raises(UserError, match=rf"{name} is not one of this project"):
            folder.load_checkpoint(tmp_path / name)
    (tmp_path / "text.pt").write_text("epoch 3, loss 0.2\n" * 20)
    np.savez(tmp_path / "arrays.npz", w=np.zeros(3))
    for name in ("text.pt", "arrays.npz", ""):
        with pytest.raises(UserError, match="cannot be read"):
            folder.load_checkpoint(tmp_path / name)


def test_weights_of_another_architecture_are_refused(tmp_path):
    network = nn.Linear(3, 1)
    for weights in (nn.Linear(4, 1).state_dict(), nn.Conv2d(1, 1, 3).state_dict(), [1], {}):
        with pytest.raises(UserError, match=r"a\.pt is of another architecture"):
            folder.load_weights(network, weights, tmp_path / "a.pt")
    folder.load_weights(network, nn.Linear(3, 1).state_dict(), tmp_path / "a.pt")


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
