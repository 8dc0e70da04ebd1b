"""Scripts that are killed, that meet in one folder, and that run twice: the short versions.

The long ones are commands: `python -m tests.faults.kill --help`, `python -m tests.faults.again`.
"""

import os

import pytest

import preprocess_coco_full_dataset
from picking import files
from tests.faults.same import files_in
from tests.faults.stages import all_stages, command_of, write_inputs
from tests.fixtures import run_python
from tests.fixtures.stopping import leave
from tests.test_files import hold

# Each script, and the folder that it holds while it writes
HELD = {
    "patches, 0 workers": "store",
    "segmentation, 0 workers": "images",
    "PU training, 0 workers": "run",
    "active learning, 0 workers": "uncertainty",
    "picking": "picks",
    "threshold": "",
    "analysis": "analysis",
}


def test_what_is_killed_again_and_again_ends_as_if_never_killed():
    stages = (
        "patches, 2 workers",
        "PU training, 2 workers",
        "active learning, 0 workers",
        "picking",
    )
    kinds = ("call", "write", "torn")  # the same moments every time
    kill = ("-m", "tests.faults.kill", "--kills", 8)
    done = run_python(*kill, "--stages", *stages, "--kinds", *kinds)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].split()[2] == "8"


def test_twice_the_same_command_gives_the_same_bytes_however_python_hashes():
    stages = ("segmentation", "PU training", "active learning")
    done = run_python("-m", "tests.faults.again", "--stages", *stages)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" 0 differ") == 3


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


@pytest.mark.parametrize("name", HELD)
def test_the_second_says_who_holds_the_folder_and_a_dead_process_blocks_nobody(
    inputs, tmp_path, capsys, monkeypatch, name
):
    monkeypatch.setattr(files, "LOCK_PATIENCE_S", 0)
    for name_of_pictures in ("write_montage", "write_mask_montage"):
        monkeypatch.setattr(preprocess_coco_full_dataset, name_of_pictures, lambda *_: None)
    stage, folder = all_stages(inputs, tmp_path)[name], tmp_path / HELD[name]
    if stage.prepare:
        stage.prepare(tmp_path)
    process = hold(folder)
    before = {path: path.read_bytes() for path in files_in(tmp_path).values()}
    with command_of(stage):
        refused = leave(stage.main, capsys)
        assert refused.status == 2
        holder = f"process {process.pid} on {os.uname().nodename}"
        advice = "wait for it or choose another folder"
        assert refused.err == f"error: {folder} is in use by {holder}: {advice}\n"
        assert before == {path: path.read_bytes() for path in files_in(tmp_path).values()}
        process.kill()
        process.communicate()
        assert leave(stage.main, capsys).status == 0
