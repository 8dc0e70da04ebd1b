"""The launchers: what they call with which arguments, and one whole run of the main job."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from picking.simulation import dataset
from tests.fixtures import ROOT
from tests.fixtures.launching import assert_stops, executable, options

TRAIN, COMPARE = "run_full_training.sh", "run_active_learning_comparison.sh"


# What is called


def test_without_data_it_simulates_cuts_and_trains_the_quick_start(launch):
    done = launch(TRAIN)
    assert done.returncode == 0
    assert "No --data-root: simulated micrographs in data/simulated" in done.stdout
    assert "for real ones give --data-root" in done.stdout
    simulate, cut, train = launch.calls()
    assert simulate[:4] == ["-m", "picking.simulation", "--output", "data/simulated"]
    assert cut[0] == "preprocess_coco_full_dataset.py"
    assert options(cut)["--data-root"] == "data/simulated"
    assert options(cut)["--output-dir"] == "data/simulated_pu"
    assert train[0] == "train_pu_fixed_full.py"
    assert options(train)["--data-dir"] == "data/simulated_pu"
    assert options(train)["--config"] == "configs/pu_quickstart.yaml"
    assert options(train)["--exp-name"] == "pu_quickstart"
    assert {"--use-data-prior", "--resume"} <= set(train)


def test_options_reach_the_stage_that_they_are_for_and_flags_the_training(launch, repository):
    config = repository / "configs" / "pu_real_quick.yaml"
    done = launch(
        TRAIN, "--data-root", "/data/my set", "--config", config,
        "--exp-name", "one run", "--device", "cuda:1", "--num-workers", "3",
        "--max-images-train", "7", "--neg-rule", "disjoint", "--category", "my particle",
        "--", "--set", "training.seed=1", "--set", "loss.prior=0.4",
    )  # fmt: skip
    assert done.returncode == 0
    assert "simulated" not in done.stdout
    cut, train = launch.calls()
    assert options(cut) == {
        "--data-root": "/data/my set",
        "--output-dir": "data/my set_pu_disjoint_7",
        "--neg-rule": "disjoint",
        "--num-workers": "3",
        "--max-images-train": "7",
        "--category": "my particle",
    }
    given = options(train)
    assert (given["--config"], given["--exp-name"]) == (str(config), "one run")
    assert (given["--data-dir"], given["--device"]) == ("data/my set_pu_disjoint_7", "cuda:1")
    assert given["--num-workers"] == "3"
    assert train[-4:] == ["--set", "training.seed=1", "--set", "loss.prior=0.4"]


def test_a_part_of_the_annotation_does_where_that_is_said(launch):
    assert launch(TRAIN, "--data-root", "/data/set", "--allow-partial").returncode == 0
    assert launch.calls()[0][-1] == "--allow-partial"


def test_relative_paths_are_the_callers(launch, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "my.yaml").touch()
    paths = ["--data-root", "set", "--data-dir", "../store", "--config", "my.yaml"]
    assert launch(TRAIN, *paths, cwd=tmp_path / "elsewhere").returncode == 0
    cut, train = launch.calls()
    assert options(cut)["--data-root"] == str(tmp_path / "elsewhere" / "set")
    assert options(cut)["--output-dir"] == options(train)["--data-dir"] == str(tmp_path / "store")
    assert options(train)["--config"] == str(tmp_path / "elsewhere" / "my.yaml")
    assert options(train)["--exp-name"] == "my"


@pytest.mark.parametrize(
    ("stage", "n_calls"),
    [("picking.simulation", 1), ("preprocess_coco_full_dataset.py", 2), ("train_pu", 3)],
)
def test_a_stage_that_fails_ends_the_job_with_its_status(launch, stage, n_calls):
    done = launch(TRAIN, FAIL=stage, STATUS="130")
    assert done.returncode == 130
    assert len(launch.calls()) == n_calls


@pytest.mark.parametrize(
    ("launcher", "arguments", "words"),
    [
        (TRAIN, ["--data-rot", "x"], "'--data-rot': see --help"),
        (TRAIN, ["x"], "'x'"),
        (TRAIN, ["--set", "a.b=1"], "behind --"),
        (TRAIN, ["--data-root"], "--data-root needs a value"),
        (TRAIN, ["--data-root", ""], "--data-root needs a value"),
        (TRAIN, ["--num-workers", "two"], "--num-workers is 'two'"),
        (TRAIN, ["--max-images-train", "-1"], "--max-images-train is '-1'"),
        (TRAIN, ["--neg-rule", "near"], "--neg-rule is 'near': far or disjoint"),
        (TRAIN, ["--config", "no.yaml"], "no.yaml is not there"),
        (COMPARE, ["--strategy", "random"], "'--strategy': see --help"),
        (COMPARE, ["--epochs", "3"], "behind --"),
        (COMPARE, ["--seeds"], "--seeds needs a value"),
        (COMPARE, ["--strategies", ""], "--strategies needs a value"),
        (COMPARE, ["--strategies", "random,entropy"], "--strategies is 'random,entropy'"),
        (COMPARE, ["--seeds", "42,43"], "--seeds is '42,43'"),
        (COMPARE, ["--seeds", " "], "--seeds is ' '"),
        (COMPARE, ["--gpus", "cuda:0"], "--gpus is 'cuda:0'"),
        (COMPARE, ["--num-workers", "two"], "--num-workers is 'two'"),
        (COMPARE, ["--seg-tiles", "4"], "--data-root"),
        (COMPARE, ["--allow-partial"], "--data-root"),
        (COMPARE, ["--data-dir", "nowhere"], "nowhere has no train/"),
        (COMPARE, ["--config", "no.yaml"], "no.yaml is not there"),
    ],
)
def test_a_wrong_option_is_one_line_and_2_before_anything_is_done(
    launch, launcher, arguments, words
):
    done = launch(launcher, *arguments)
    assert (done.returncode, done.stdout, launch.calls()) == (2, "", [])
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert words in done.stderr


@pytest.mark.parametrize("launcher", [TRAIN, COMPARE])
def test_help_names_every_option(launch, launcher):
    done = launch(launcher, "--help")
    assert (done.returncode, launch.calls()) == (0, [])
    cases = re.search(r" --\) shift.*? \*\)", (ROOT / launcher).read_text(), re.DOTALL)[0]
    taken = re.findall(r"--[a-z][a-z-]+", cases)
    assert len(taken) >= 8
    assert all(f"  {option} " in done.stdout for option in taken)


def tools(calls):
    """The tools that run_tests.sh called."""
    return ["importlinter" if call[0] == "-c" else call[1] for call in calls]


def test_the_tests_are_every_check_and_stop_at_the_first_that_fails(launch):
    assert launch("run_tests.sh", "tests/test_x.py", "-k", "a or b").returncode == 0
    calls = launch.calls()
    assert tools(calls) == ["ruff", "ruff", "mypy", "importlinter", "pytest"]
    assert calls[-1] == ["-m", "pytest", "tests/test_x.py", "-k", "a or b"]
    assert launch("run_tests.sh", FAIL="importlinter", STATUS="1").returncode == 1
    assert tools(launch.calls()) == ["ruff", "ruff", "mypy", "importlinter"]


def test_import_linter_finds_an_import_that_runs_upwards(repository):
    (repository / "picking" / "files.py").write_text("import picking.training.loop")
    (repository / "picking" / "training" / "loop.py").write_text("")
    shutil.copy(ROOT / "pyproject.toml", repository)
    code = re.search('"[$]PYTHON" -c "(.*)"', (repository / "run_tests.sh").read_text())[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True)
    assert done.returncode == 1
    assert b"picking.files -> picking.training.loop" in done.stdout


def test_continuous_integration_runs_the_same_tests(launch, tmp_path):
    for name in ("relion_preprocess", "chromium"):  # or it would install them
        executable(tmp_path / "bin" / name, "#!/bin/sh\n")
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    assert launch(".ci/run", cwd=tmp_path, PATH=path).returncode == 0
    assert launch.calls()[-1][:4] == ["-m", "pytest", "--numprocesses", "auto"]


@pytest.mark.parametrize(
    ("launcher", "stage", "n_children", "number", "status"),
    [
        (TRAIN, "picking.simulation", 1, signal.SIGTERM, 143),
        (TRAIN, "preprocess_coco", 1, signal.SIGINT, 130),
        (TRAIN, "train_pu", 1, signal.SIGTERM, 143),
        (TRAIN, "train_pu", 1, signal.SIGINT, 130),
        (COMPARE, "picking.simulation", 1, signal.SIGINT, 130),
        (COMPARE, "train_active", 2, signal.SIGINT, 130),
        (COMPARE, "train_active", 2, signal.SIGTERM, 143),
        (COMPARE, "analyze", 1, signal.SIGTERM, 143),
    ],
)
def test_a_signal_ends_what_runs_and_the_job_says_that_it_can_go_on(
    launch, tmp_path, launcher, stage, n_children, number, status
):
    variables = {"STAY": stage, "GPUS": "0 1"}
    assert_stops(launch, tmp_path, launcher, n_children, number, status, **variables)


# The environment


def test_a_python_of_the_users_is_used_untouched(launch, repository):
    before = sorted(repository.rglob("*"))
    done = launch("run_tests.sh")
    assert "Using the Python at" in done.stdout
    assert sorted(repository.rglob("*")) == before
    assert not any("pip" in call for call in launch.calls())


@pytest.mark.parametrize("launcher", [TRAIN, COMPARE, "run_tests.sh"])
def test_a_python_that_lacks_packages_is_refused_with_all_their_names(launch, tmp_path, launcher):
    bare = executable(tmp_path / "bare", f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    needed = re.findall(r"^[\w.-]+", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert {"torch", "simplejpeg", "scikit-learn"} <= set(needed)
    if launcher == "run_tests.sh":
        dev = re.findall(r"^[\w.-]+", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE)
        assert {"pytest", "ruff", "import-linter"} <= set(dev)
        needed += dev
    done = launch(launcher, PYTHON=str(bare))
    assert done.returncode == 2
    assert f"PYTHON={bare} lacks {', '.join(needed)}: install requirements.txt" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_check_follows_the_requirements(repository):
    def check():
        command = "source ./environment.sh; use_environment requirements.txt requirements-dev.txt"
        return subprocess.run(
            ["bash", "-c", command], cwd=repository, env={**os.environ, "PYTHON": sys.executable},
            capture_output=True, text=True,
        )  # fmt: skip

    assert check().returncode == 0
    with (repository / "requirements.txt").open("a") as file:
        file.write("no-such_package>=1.0  # new\n")
    done = check()
    assert done.returncode == 2
    assert "lacks no-such_package:" in done.stderr


def test_a_python_that_is_not_there_is_refused(launch):
    done = launch(TRAIN, PYTHON="/no/such/python")
    assert done.returncode == 2
    assert done.stderr.startswith("error: PYTHON=/no/such/python does not run: ")


# Stands for the system's Python: makes an environment that holds FAKE_PYTHON.
SYSTEM_PYTHON = """#!/usr/bin/env bash
[[ $1 == -c ]] && exit "${OLD:-0}"
echo "system $*" >> "$CALLS"
[[ -z ${NO_VENV:-} ]] || exit 1
mkdir -p .venv/bin && cp "$FAKE" .venv/bin/python
"""


@pytest.fixture
def fresh(launch, tmp_path):
    """Run a launcher as on a fresh machine; return what happened and all calls."""
    path = executable(tmp_path / "bin" / "python3", SYSTEM_PYTHON).parent
    for version in range(10, 14):
        executable(path / f"python3.{version}", "#!/bin/sh\nexit 1\n")

    def run(launcher="run_tests.sh", **environment):
        path_variable = f"{path}{os.pathsep}{os.environ['PATH']}"
        fake = str(tmp_path / "fake")
        done = launch(launcher, PYTHON="", PATH=path_variable, FAKE=fake, **environment)
        return done, [" ".join(call) for call in launch.calls()]

    return run


PIP = "-m pip install --quiet --disable-pip-version-check "


def installs(calls):
    """The arguments of each call of pip install."""
    return [call.removeprefix(PIP) for call in calls if call.startswith(PIP)]


def test_the_environment_is_made_once_and_filled_again_when_requirements_change(fresh, repository):
    done, calls = fresh(TRAIN)
    assert done.returncode == 0
    assert "system -m venv --clear .venv" in calls
    assert installs(calls) == ["-r requirements.txt"]
    for file in ("requirements-dev.txt", "requirements.txt"):  # the tests need more
        done, calls = fresh()
        assert done.returncode == 0
        assert installs(calls) == [f"-r {file}"]
        assert not any("venv" in call for call in calls)
        assert installs(fresh()[1]) == installs(fresh(TRAIN)[1]) == []
        with (repository / "requirements.txt").open("a") as requirements:
            requirements.write("another\n")


def test_torch_comes_from_the_index_that_is_named(fresh):
    index = "https://example.org/cpu"
    done, calls = fresh(TRAIN, TORCH_INDEX=index)
    assert done.returncode == 0
    bounds = re.findall("^torch.*$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert len(bounds) == 2
    assert installs(calls) == [f"--index-url {index} {' '.join(bounds)}", "-r requirements.txt"]
    assert "6 GB" not in done.stdout
    done, calls = fresh(TRAIN, TORCH_INDEX=index)
    assert installs(calls) == []
    assert "TORCH_INDEX is not used" in done.stdout


def test_six_gigabytes_are_announced_only_where_torch_comes_with_cuda(fresh, repository, tmp_path):
    uname = executable(tmp_path / "bin" / "uname", "#!/bin/sh\necho Linux x86_64\n")
    assert "6 GB" in fresh()[0].stdout
    shutil.rmtree(repository / ".venv")
    executable(uname, "#!/bin/sh\necho Darwin arm64\n")
    assert "6 GB" not in fresh()[0].stdout


@pytest.mark.parametrize("torch_index", ["", "https://example.org/cpu"])
def test_an_install_that_failed_is_told_and_tried_again(fresh, torch_index):
    done, calls = fresh(FAIL="pip install", STATUS="1", TORCH_INDEX=torch_index)
    assert done.returncode == 2
    assert done.stderr.startswith("error: installing ")
    assert len(installs(calls)) == 1
    done, calls = fresh()
    assert done.returncode == 0
    assert installs(calls) == ["-r requirements.txt -r requirements-dev.txt"]


def test_half_an_environment_is_made_anew(fresh, repository):
    executable(repository / ".venv" / "bin" / "python", "#!/bin/sh\nexit 1\n")  # without pip
    done, calls = fresh()
    assert done.returncode == 0
    assert "system -m venv --clear .venv" in calls


def test_without_a_new_python_or_its_venv_module_the_error_says_what_to_install(fresh, repository):
    done, _ = fresh(OLD="1")
    assert done.returncode == 2
    assert "Python 3.10 or newer is needed" in done.stderr
    done, _ = fresh(NO_VENV="1")
    assert done.returncode == 2
    assert "install its venv module" in done.stderr
    assert not (repository / ".venv").exists()


# The whole

# A real Python, but a training that is killed as long as the file "kill" is there
KILLING = f"""#!/usr/bin/env bash
[[ $1 == train_pu_fixed_full.py && -e "$KILL" ]] && kill -9 $$
exec "{sys.executable}" "$@"
"""


def test_from_micrographs_to_results_interrupted_gone_on_with_and_not_done_again(
    launch, repository, tmp_path
):
    dataset.simulate_dataset(
        tmp_path / "my set", n_train=2, n_val=1, n_test=1, size_px=(512,), n_proteins=1
    )
    python, kill = executable(tmp_path / "killing", KILLING), tmp_path / "kill"
    settings = {
        "data.input_size_px": 32, "training.batch_size": 10, "training.max_steps": 3,
        "training.bootstrap_samples": 20,
    }  # fmt: skip
    flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]

    def run():
        return launch(
            TRAIN, "--data-root", tmp_path / "my set", "--device", "cpu",
            "--num-workers", 1, "--exp-name", "tiny", "--neg-rule", "disjoint", "--", *flags,
            PYTHON=str(python), KILL=str(kill), OMP_NUM_THREADS="1",
        )  # fmt: skip

    kill.touch()
    done = run()
    assert done.returncode == 137
    assert "Processing train split" in done.stdout
    store = repository / "data" / "my set_pu_disjoint"
    metadata = (store / "metadata.json").stat().st_mtime_ns

    kill.unlink()
    done = run()
    assert done.returncode == 0, done.stderr
    assert "is complete already: nothing to do" in done.stdout
    results = repository / "experiments" / "tiny" / "results.json"
    content = json.loads(results.read_text())
    assert content["steps_run"] == 3
    assert content["test"]["auc"] is not None
    assert content["prior_source"] == "data"
    for line in (
        "Success criteria (precision and recall at the validation threshold)",
        "Results: experiments/tiny/results.json",
        "TensorBoard: tensorboard --logdir experiments",
    ):
        assert line in done.stdout.splitlines()

    finished = results.stat().st_mtime_ns
    done = run()
    assert done.returncode == 0
    assert "This run is finished: nothing to do" in done.stdout
    assert "Results: experiments/tiny/results.json" in done.stdout.splitlines()
    assert results.stat().st_mtime_ns == finished
    assert (store / "metadata.json").stat().st_mtime_ns == metadata
    assert not (repository / ".venv").exists()
