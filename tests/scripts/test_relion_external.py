"""The External job without RELION: starting, stages, ends. In tests/interop it is inside RELION."""

import ast
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import relion_external as script
from picking.detection import output
from picking.errors import InputWarning, Stopped, UserError
from picking.files import locked, read_json, write_json
from picking.formats.picks import Picks
from picking.micrographs.mrc import write_mrc
from picking.relion_job import control
from tests.fixtures import ROOT
from tests.fixtures.launching import executable
from tests.fixtures.stopping import leave

NAMES = ("a.mrc", "b.mrc")
SIZE_PX = (64, 80)
EXTERNAL = ROOT / "relion_external.py"
SUCCESS, FAILURE, ABORTED = control.SUCCESS, control.FAILURE, control.ABORTED


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job's folder in a project of two micrographs, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Micrographs").mkdir()
    rows = []
    for i, name in enumerate(NAMES):
        image = np.random.default_rng(i).normal(0, 1, SIZE_PX)
        write_mrc(tmp_path / "Micrographs" / name, image, 2.0)
        rows.append(f"Micrographs/{name} 1\n")
    (tmp_path / "mics.star").write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnMicrographPixelSize\n1 2.0\n\n"
        f"data_micrographs\n\nloop_\n_rlnMicrographName\n_rlnOpticsGroup\n{''.join(rows)}"
    )
    folder = tmp_path / "External/job005"
    folder.mkdir(parents=True)
    return folder.relative_to(tmp_path)


@pytest.fixture
def scripts(monkeypatch):
    """Stands for our scripts: notes calls, leaves what they leave; ``status`` by script's name."""
    stand_in = SimpleNamespace(calls=[], status={}, kept=[0.9, 0.6, 0.3])

    def run(command, job, n_threads):
        name, flags = os.path.basename(command[1]), command[2:]  # noqa: PTH119
        stand_in.calls.append((name, flags))
        if name in stand_in.status:
            status = stand_in.status[name]
            if isinstance(status, BaseException):
                raise status
            if status not in (0, 3):
                return status
        if name.startswith("preprocess"):
            (job / "windows").mkdir()
            write_json(job / "windows/metadata.json", {})
        elif name.startswith("train"):
            (job / "training").mkdir()
            write_json(job / "training/results.json", {})
        else:
            leave_picks(job / "picks", stand_in.kept, flags[flags.index("--threshold") + 1])
        return stand_in.status.get(name, 0)

    monkeypatch.setattr(control, "run", run)
    return stand_in


def leave_picks(folder, scores, threshold):
    (folder / "coordinates").mkdir(parents=True, exist_ok=True)
    for path in ("coordinates/coords_suffix_autopick.star", "autopick.star"):
        (folder / path).touch()
    called = []
    for name in NAMES:
        at, n = np.full((len(scores), 2), 30.0), len(scores)
        called.append(Picks(name, at, np.array(scores), np.full(n, 20.0), SIZE_PX))
        output.save_picks(folder, called[-1], ("0", "0", ""))
    output.write_summary(folder / "summary.csv", called, {})
    write_json(
        folder / "manifest.json", {"threshold": 0.5 if threshold == "auto" else float(threshold)}
    )


def start(job, *flags):
    """Run the script here as RELION calls it."""
    argv = [
        "--o",
        f"{job}/",
        "--in_mics",
        "mics.star",
        *flags,
        "--relion_version",
        "3.1",
        "--j",
        "2",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["relion_external.py", *map(str, argv)])
        script.main()


def exits(job):
    return {path.name for path in job.glob("RELION_JOB_EXIT_*")}


TRAINED = ("--checkpoint", "net.pt", "--diameter", "30A")
FEW = ("--in_coords", "picks.star", "--diameter", "30A", "--expected_particles", "2")


# Stages


def test_a_checkpoint_picks_and_nothing_is_learned(job, scripts):
    start(job, *TRAINED, "--device", "cpu", "--threshold", "0.4", "--invert", "yes")
    ((name, flags),) = scripts.calls
    assert name == "pick_particles.py"
    given = " ".join(flags)
    for part in (
        "--checkpoint net.pt", "--micrographs mics.star", f"--output {job}/picks", "--resume",
        "--threshold 0.4", "--diameter 30A", "--device cpu", "--invert",
    ):  # fmt: skip
        assert part in given
    assert exits(job) == {SUCCESS}
    assert (job / "logfile.pdf").read_bytes().startswith(b"%PDF")
    nodes = (job / "RELION_OUTPUT_NODES.star").read_text()
    assert f"{job}/picks/coordinates/coords_suffix_autopick.star 2\n" in nodes


def test_picks_are_learned_from_in_the_jobs_folder(job, scripts):
    start(job, *FEW, "--in_parts", "particles.star", "--junk", "labels/junk")
    names = [name for name, _ in scripts.calls]
    assert names == [
        "preprocess_coco_full_dataset.py", "train_pu_fixed_full.py", "pick_particles.py"
    ]  # fmt: skip
    (_, made), (_, trained), (_, picked) = scripts.calls
    made, trained, picked = map(" ".join, (made, trained, picked))
    assert "--labels picks.star particles.star" in made
    assert f"--output-dir {job}/windows" in made and f"--data-dir {job}/windows" in trained
    assert "--expected-particles 2.0" in made
    assert f"--checkpoint {job}/training/checkpoints/best_model.pt" in picked
    assert "--junk labels/junk" in made and "--junk labels/junk" in picked


def test_the_expected_number_decides_unless_a_threshold_is_given(job, scripts):
    start(job, *TRAINED, "--expected_particles", "2")
    start(job, *TRAINED, "--expected_particles", "2", "--threshold", "0.4")
    given = [" ".join(flags) for _, flags in scripts.calls]
    assert "--threshold auto" in given[0] and "--expected-particles 2.0" in given[0]
    assert "--threshold 0.4" in given[1] and "--expected-particles" not in given[1]


@pytest.mark.parametrize(
    "stopped", ["preprocess_coco_full_dataset.py", "train_pu_fixed_full.py", "pick_particles.py"]
)
def test_a_continued_job_does_not_do_a_finished_stage_again(stopped, job, scripts):
    scripts.status[stopped] = Stopped("asked to")
    with pytest.raises(Stopped):
        start(job, *FEW)
    assert exits(job) == {ABORTED}
    before = [name for name, _ in scripts.calls]
    scripts.calls.clear()
    scripts.status.clear()
    start(job, *FEW)
    assert exits(job) == {SUCCESS}
    again = [name for name, _ in scripts.calls]
    assert before[-1] == again[0] == stopped


def test_a_job_is_not_continued_with_what_it_did_not_begin_with(job, scripts):
    start(job, *FEW)
    scripts.calls.clear()
    with pytest.raises(UserError, match="diameter"):
        start(job, *FEW, "--diameter", "40A")
    assert scripts.calls == [] and exits(job) == {FAILURE}


def test_a_job_that_ended_before_it_had_anything_goes_on_with_the_mistake_mended(job, scripts):
    scripts.status["pick_particles.py"] = 2  # a diameter without its unit
    with pytest.raises(UserError, match="ended with status 2"):
        start(job, *TRAINED, "--diameter", "40")
    scripts.status.clear()
    start(job, *TRAINED, "--diameter", "40A")
    assert exits(job) == {SUCCESS}
    with pytest.raises(UserError, match="continue it with --diameter 40A"):
        start(job, *TRAINED, "--diameter", "50A")


def test_a_job_that_was_begun_with_a_former_default_says_what_to_type(job, scripts):
    start(job, *FEW)
    former = str(ROOT / "configs" / "pu_few_labels.yaml")
    write_json(job / "settings.json", {**read_json(job / "settings.json"), "config": former})
    with pytest.raises(UserError, match=f"another config: continue it with --config {former}, or"):
        start(job, *FEW)
    start(job, *FEW, "--config", former)
    assert exits(job) == {SUCCESS}


@pytest.mark.parametrize(
    ("began", "now", "typed"),
    [
        ((*FEW, "--pixel_size", "2"), FEW, "with --pixel_size 2.0"),
        (FEW, (*FEW, "--junk", "masks", "--keep_junk"), "without --keep_junk and without --junk"),
        ((*FEW, "--keep_junk"), FEW, "with --keep_junk yes"),
        (FEW, (*FEW, "--in_parts", "p.star"), "with picks.star as Input coordinates or"),
        (TRAINED, FEW, "with --checkpoint net.pt and without Input coordinates or Input particles"),
    ],
)
def test_what_a_job_was_begun_with_is_named_as_it_is_typed(began, now, typed, job, scripts):
    start(job, *began)
    with pytest.raises(UserError, match=f": continue it {typed}"):
        start(job, *now)
    start(job, *began)


# Ends


@pytest.mark.parametrize("status", [1, 2, -9])
def test_a_stage_that_fails_fails_the_job(status, job, scripts):
    scripts.status["pick_particles.py"] = status
    with pytest.raises(UserError, match=f"pick_particles.py ended with status {status}"):
        start(job, *TRAINED)
    assert exits(job) == {FAILURE}
    assert not (job / "RELION_OUTPUT_NODES.star").exists()


def test_micrographs_that_are_left_out_do_not_fail_the_job(job, scripts, monkeypatch):
    """Also where one of an earlier run was damaged since, whose candidates are still there."""
    scripts.status["pick_particles.py"] = 3
    leave, shown = leave_picks, {}

    def leave_one_out(folder, scores, threshold):
        leave(folder, scores, threshold)
        (folder.parents[2] / "Micrographs/b.mrc").write_bytes(b"damaged")
        one = output.load_picks(folder, "a.mrc", SIZE_PX)
        output.write_summary(folder / "summary.csv", [one], {"b.mrc": "it is cut short"})

    def show(path, candidates, threshold, micrographs):
        shown.update({each.name: len(each.scores) for each in candidates})
        write_logfile(path, candidates, threshold, micrographs)

    write_logfile = script.write_logfile
    monkeypatch.setattr(script, "write_logfile", show)
    monkeypatch.setitem(globals(), "leave_picks", leave_one_out)
    with pytest.warns(InputWarning, match="left out"):
        start(job, *TRAINED)
    assert exits(job) == {SUCCESS} and shown == {"a.mrc": 3}
    with pytest.warns(InputWarning, match="left out"):
        start(job, *TRAINED, "--box", "62")  # boxes of which cross an edge
    assert shown == {"a.mrc": 0}


def test_a_defect_fails_the_job_too(job, scripts):
    scripts.status["pick_particles.py"] = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        start(job, *TRAINED)
    assert exits(job) == {FAILURE}


@pytest.mark.parametrize("flags", [(), ("--in_mics", "mics.star", "--treshold", "0.3")])
def test_mistakes_in_relions_window_fail_the_job(flags, job, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["relion_external.py", "--o", f"{job}/", *flags, "--j", "1"])
    assert leave(script.main, capsys).status == 2
    assert exits(job) == {FAILURE}


def test_an_abort_that_was_asked_for_before_the_job_began_is_heeded(job, scripts):
    (job / control.ABORT_NOW).touch()
    with pytest.raises(Stopped):
        start(job, *TRAINED)
    assert scripts.calls == [] and exits(job) == {ABORTED}
    assert not (job / control.ABORT_NOW).exists()


def test_an_unknown_relion_is_an_error_before_anything_is_done(job, scripts, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(
        sys, "argv", ["relion_external.py", "--o", f"{job}/", "--in_mics", "mics.star", *TRAINED]
    )
    with pytest.raises(UserError, match="--relion_version"):
        script.main()
    assert scripts.calls == [] and exits(job) == {FAILURE}


def test_a_folder_in_use_is_refused_and_its_job_is_left_alone(job, scripts, monkeypatch):
    monkeypatch.setattr("picking.files.LOCK_PATIENCE_S", 0.1)
    (job / SUCCESS).touch()
    with locked(job), pytest.raises(UserError, match="in use"):
        start(job, *TRAINED)
    assert scripts.calls == [] and exits(job) == {SUCCESS}


# Starting in any environment


def run_it(*argv, cwd, python=None, **variables):
    environment = {**os.environ, **variables}
    environment.pop("PYTHON", None)
    if python is not None:
        environment["PYTHON"] = str(python)
    return subprocess.run(
        [sys.executable, EXTERNAL, *argv], cwd=cwd, env=environment, capture_output=True, text=True
    )


def test_old_pythons_can_read_the_script():
    ast.parse(EXTERNAL.read_text(), feature_version=(3, 6))
    assert os.access(EXTERNAL, os.X_OK)


def test_it_starts_again_with_the_python_asked_for_without_others_packages(tmp_path):
    fake = executable(
        tmp_path / "py", '#!/bin/sh\necho "$@ in $PWD with ${PYTHONPATH:-none}${PYTHONHOME:-}"\n'
    )
    done = run_it("--o", "External/job005/", cwd=tmp_path, python=fake, PYTHONPATH="/opt/other")
    assert done.returncode == 0
    assert done.stdout == f"-u {EXTERNAL} --o External/job005/ in {tmp_path} with none\n"


@pytest.mark.parametrize("python", ["/nowhere/python", "lacks_everything"])
def test_a_python_that_will_not_do_fails_the_job_at_once(python, job, tmp_path):
    if python == "lacks_everything":
        bare = f'#!/bin/sh\nshift\nexec {sys.executable} -S -I "$@"\n'
        python = executable(tmp_path / "bare", bare)
    done = run_it("--o", f"{job}/", cwd=tmp_path, python=python)
    assert done.returncode == 2 and "PYTHON" in done.stderr
    assert exits(job) == {FAILURE}


def test_relions_own_file_names_are_not_touched(job, scripts):
    for name in ("run.out", "run.err", "note.txt", "job.star"):
        (job / name).write_text(name)
    start(job, *TRAINED)
    assert all((job / name).read_text() == name for name in ("run.out", "run.err", "note.txt"))


# The scheme


SCHEME = ROOT / "docs/relion/Schemes/pick"


def cells_of(tables, block):
    (table,) = (one for one in tables if one.block == block and one.is_loop)
    return table.cells(table.labels)


def test_the_scheme_holds_together():
    from picking.formats.star_tables import read_tables

    tables = read_tables(SCHEME / "scheme.star")
    kinds = ("floats", "bools", "strings")
    variables = {n for k in kinds for n in next(iter(cells_of(tables, f"scheme_{k}").values()))}
    operators = cells_of(tables, "scheme_operators")
    jobs = cells_of(tables, "scheme_jobs")["rlnSchemeJobName"]
    nodes = {*operators["rlnSchemeOperatorName"], *jobs}
    edges = cells_of(tables, "scheme_edges")
    for column in ("InputNodeName", "OutputNodeName", "OutputNodeNameIfTrue"):
        assert {*edges[f"rlnSchemeEdge{column}"]} - {"undefined"} <= nodes
    assert {*edges["rlnSchemeEdgeBooleanVariable"]} - {"undefined"} <= variables
    for name in ("Output", "Input1", "Input2"):
        assert {*operators[f"rlnSchemeOperator{name}"]} - {"undefined"} <= variables
    for job in jobs:
        options = cells_of(read_tables(SCHEME / job / "job.star"), "joboptions_values")
        options = dict(zip(*options.values(), strict=True))
        used = {value[2:] for value in options.values() if value.startswith("$$")}
        assert used <= variables
        if job == "pick":
            from picking.relion_job.arguments import parse_args

            labels = {options[f"param{i}_label"]: options[f"param{i}_value"] for i in (1, 2)}
            argv = [part for item in labels.items() for part in (f"--{item[0]}", item[1])]
            parse_args(["--o", "External/job005/", "--in_mics", "mics.star", *argv], None)
    assert options["coords_suffix"] == "Schemes/pick/pick/autopick.star"
