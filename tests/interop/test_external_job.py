"""The External job started by RELION's pipeline: its arguments, ends and output nodes."""

import dataclasses
import os
import subprocess
import sys
import time

import pytest
import starfile
import torch

from models.unet import UNet
from picking.config import ActiveConfig, SegmentationModelConfig, plain
from picking.formats.coordinates import write_picks
from picking.formats.star_tables import read_tables
from picking.relion_job import control
from tests.fixtures import ROOT, pickers
from tests.fixtures.relion_project import DIAMETER_ANGSTROM, extract, needs_relion

pytestmark = needs_relion
SUCCEEDED, FAILED, ABORTED = "2", "3", "4"  # of a process in RELION 3.1's pipeline
COORDINATES, LOGFILE = "2", "13"  # of a node
N_EXPECTED, JOB = 50, "External/job001/"
EXTERNAL = ROOT / "relion_external.py"
SHORT = """
data: {dir: data, batch_ratio: [3, 8], input_size_px: 32}
model: {backbone: unet, width: 2, depth: 1}
loss: {prior: pool, unlabeled_prior: data}
training: {batch_size: 11, epochs: 100000, max_steps: MAX_STEPS, bootstrap_samples: 20}
"""


@pytest.fixture
def project(relion_project, tmp_path_factory):
    """A project with no job yet, on the micrographs of another; in no folder called relion_."""
    root = tmp_path_factory.mktemp("project")
    for name in ("MotionCorr", "CtfFind"):
        (root / name).symlink_to(relion_project.root / name)
    head = "\n# version 30001\n\ndata_pipeline_general\n\n_rlnPipeLineJobCounter 1\n"
    (root / "default_pipeline.star").write_text(head)
    return dataclasses.replace(
        relion_project, root=root, micrographs_ctf=root / "CtfFind/job003/micrographs_ctf.star"
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The checkpoint of a U-Net that has learned nothing: it picks anywhere."""
    torch.manual_seed(0)
    config = plain(ActiveConfig(model=SegmentationModelConfig("unet", 2, 1)))
    return pickers.write_checkpoint(
        tmp_path_factory.mktemp("network") / "best_model.pt", config=config,
        network=UNet(width=2, depth=1).state_dict(),
        input={**pickers.TILES, "side_px": 160, "tiles": 1},
    )  # fmt: skip


def options(program=EXTERNAL, coordinates="", **labels):
    """What RELION's window of External holds, by the names in its files."""
    given = {"diameter": f"{DIAMETER_ANGSTROM}A", "expected-particles": N_EXPECTED, "device": "cpu"}
    filled = {
        "fn_exe": program, "in_mic": "CtfFind/job003/micrographs_ctf.star",
        "in_coords": coordinates or '""', "nr_threads": 1,
    }  # fmt: skip
    for i, (label, value) in enumerate((given | labels).items(), 1):
        filled |= {f"param{i}_label": label, f"param{i}_value": value}
    return filled


def pipeliner(project, *flags):
    return subprocess.Popen(
        ["relion_pipeliner", *flags], cwd=project.root, text=True,
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": "/nowhere"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def begin(project, filled):
    """Have RELION schedule a job and start it; return the process that waits for its end."""
    rows = "".join(f"{name} {value}\n" for name, value in filled.items())
    (project.root / "external.star").write_text(
        "\ndata_job\n\n_rlnJobType 99\n_rlnJobIsContinue 0\n\ndata_joboptions_values\n\n"
        f"loop_\n_rlnJobOptionVariable #1\n_rlnJobOptionValue #2\n{rows}\n"
    )
    added = pipeliner(project, "--addJobFromStar", "external.star")
    printed, _ = added.communicate()
    assert added.returncode == 0, printed
    return pipeliner(project, "--RunJobs", JOB, "--sec_wait_after", "1")


def run(project, filled):
    """Have RELION run a job to its end; return what the job printed."""
    begin(project, filled).communicate()
    return said(project)


def said(project):
    return "".join((project.root / JOB / name).read_text() for name in ("run.out", "run.err"))


def pipeline(project):
    """The job's status and its output nodes, name -> type, as RELION has them in the end."""
    tables = {table.block: table for table in read_tables(project.root / "default_pipeline.star")}

    def column(block, *labels):
        return zip(*tables[block].cells(labels).values(), strict=True)

    processes = column("pipeline_processes", "rlnPipeLineProcessName", "rlnPipeLineProcessStatus")
    nodes = dict(column("pipeline_nodes", "rlnPipeLineNodeName", "rlnPipeLineNodeType"))
    of_job = {name: kind for name, kind in nodes.items() if name.startswith(JOB)}
    return dict(processes)[JOB], of_job


def require_succeeded(project, printed):
    """Assert that RELION has the nodes, and that its Extract finds every pick by them."""
    status, nodes = pipeline(project)
    assert status == SUCCEEDED, printed
    assert sorted(nodes.values()) == sorted((COORDINATES, LOGFILE)), printed
    assert all((project.root / name).is_file() for name in nodes)
    (listed,) = (project.root / name for name, kind in nodes.items() if kind == COORDINATES)
    where = ("--coord_dir", f"{listed.parent}/", "--coord_suffix", "_autopick.star")
    assert listed.name == "coords_suffix_autopick.star"
    cut = extract(project, project.root / "Extract", *where)
    n = N_EXPECTED * len(project.micrographs)
    assert len(cut.boxes) == len(starfile.read(cut.star)["particles"]) == n


def test_relion_starts_it_and_has_its_nodes_with_pipeline_control(project, checkpoint):
    printed = run(project, options(checkpoint=checkpoint))
    assert "--pipeline_control" in (project.root / JOB / "note.txt").read_text()
    require_succeeded(project, printed)


def test_relion_starts_it_without_pipeline_control(project, checkpoint, tmp_path_factory):
    # RELION appends it to every command with relion_ in it
    link = tmp_path_factory.mktemp("programs") / "picker"
    link.symlink_to(EXTERNAL)
    printed = run(project, options(program=link, checkpoint=checkpoint))
    assert "--pipeline_control" not in (project.root / JOB / "note.txt").read_text()
    require_succeeded(project, printed)


def manual_picks(project):
    """Some of the truth as RELION's manual picking leaves it, a list of files; its name."""
    folder = project.root / "ManualPick/job002/Movies"
    folder.mkdir(parents=True)
    rows = []
    for true in project.truth[:4]:
        (written,) = write_picks(folder, [true], ["star"])
        picked = written.rename(folder / f"{written.stem}_manualpick.star")
        rows.append(f"MotionCorr/job002/Movies/{true.name} {picked.relative_to(project.root)}\n")
    head = "data_coordinate_files\n\nloop_\n_rlnMicrographName #1\n_rlnMicrographCoordinates #2\n"
    listed = folder.parent / "manualpick.star"
    listed.write_text(head + "".join(rows))
    return listed.relative_to(project.root)


def test_it_learns_from_manual_picks_and_a_continued_job_learns_nothing_again(project):
    (project.root / "short.yaml").write_text(SHORT.replace("MAX_STEPS", "3"))
    filled = options(coordinates=manual_picks(project), config="short.yaml")
    require_succeeded(project, run(project, filled))
    job = project.root / JOB
    made = [job / "windows/metadata.json", job / "training/results.json"]
    before = [path.stat().st_mtime_ns for path in made]
    command = (job / "note.txt").read_text().split("command(s): \n")[1].splitlines()[0]
    done = subprocess.run(
        command.split(), cwd=project.root, env={**os.environ, "PYTHON": sys.executable},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "6 of 6 micrographs are done already" in done.stdout
    assert [path.stat().st_mtime_ns for path in made] == before


def test_relion_aborts_it_amid_training(project):
    (project.root / "long.yaml").write_text(SHORT.replace("MAX_STEPS", "100000"))
    waiting = begin(project, options(coordinates=manual_picks(project), config="long.yaml"))
    job = project.root / JOB
    while not (job / "training/config.yaml").exists() and waiting.poll() is None:
        time.sleep(0.2)
    (job / control.ABORT_NOW).touch()
    waiting.communicate()
    assert pipeline(project) == (ABORTED, {}), said(project)
    assert not (job / control.ABORT_NOW).exists()
    assert "Traceback" not in said(project)


def test_relion_sees_that_it_failed_and_why(project):
    printed = run(project, options(checkpoint="none.pt"))
    assert pipeline(project) == (FAILED, {})
    assert "error: " in printed and "none.pt" in printed and "Traceback" not in printed
