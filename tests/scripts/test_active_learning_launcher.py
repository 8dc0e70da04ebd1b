"""The launcher of the comparison: the runs, their queue over the devices, a whole one."""

import json
import os
import sys

import pytest

from picking.simulation import dataset
from tests.fixtures.launching import executable, options

SCRIPT = "run_active_learning_comparison.sh"
STAGES = [
    "picking.simulation",
    "preprocess_coco_full_dataset.py",
    "train_active_learning_fixed.py",
    "analyze_active_learning_results.py",
]


@pytest.fixture
def store(tmp_path):
    """A folder that passes for a segmentation store."""
    (tmp_path / "store" / "train").mkdir(parents=True)
    return tmp_path / "store"


def stages(calls):
    return [STAGES.index(call[1] if call[0] == "-m" else call[0]) for call in calls]


def trainings(calls):
    return [call for call in calls if call[0].startswith("train_active")]


def runs(calls):
    """Strategy, seed and device of each training."""
    given = [options([call[0], *call[call.index("--strategy") :]]) for call in trainings(calls)]
    return [(run["--strategy"], run["--seed"], run["--device"]) for run in given]


# What is called


@pytest.mark.parametrize(
    ("processors", "words"), [(1, "one run after another on the CPU"), (2, "2 runs at a time")]
)
def test_without_data_it_simulates_trains_the_quick_start_and_its_baseline_and_compares(
    launch, tmp_path, processors, words
):
    folder = executable(tmp_path / "bin" / "nproc", f"#!/bin/sh\necho {processors}\n").parent
    done = launch(SCRIPT, PATH=f"{folder}:{os.environ['PATH']}")
    assert done.returncode == 0
    assert words in done.stdout
    assert "for real ones give --data-dir or --data-root" in done.stdout
    assert stages(launch.calls()) == [0, 1, 2, 2, 2, 3]
    simulate, cut, *_, compare = launch.calls()
    assert options(simulate[1:])["--output"] == options(cut[2:])["--data-root"]
    assert cut[1:3] == ["--tasks", "segmentation"]
    assert options(cut)["--seg-output-dir"] == "data/simulated_active_seg"
    assert int(options(cut)["--seg-size"]) == 128
    strategies = ("random", "full", "uncertainty")
    assert sorted(runs(launch.calls())) == sorted((name, "42", "cpu") for name in strategies)
    for call in trainings(launch.calls()):
        assert options(call)["--config"] == "configs/active_learning_quickstart.yaml"
        assert options(call)["--train-data-dir"] == "data/simulated_active_seg/train"
        assert options(call)["--val-data-dir"] == "data/simulated_active_seg/val"
        assert options(call)["--output-dir"] == "experiments/active_learning_quickstart"
        assert "--resume" in call
    assert options(compare)["--experiments-dir"] == "experiments/active_learning_quickstart"


def test_the_store_of_the_full_data_set_is_the_default_where_it_is_there(launch, repository):
    folder = repository / "data" / "cryotransformer_preprocessed"
    folder.mkdir(parents=True)
    (folder / "metadata.json").touch()
    done = launch(SCRIPT)
    assert done.returncode == 0
    assert "simulated" not in done.stdout
    assert stages(launch.calls()) == [2, 2, 3]
    assert runs(launch.calls()) == [("random", "42", "cpu"), ("uncertainty", "42", "cpu")]
    given = options(launch.calls()[0])
    assert given["--config"] == "configs/active_learning.yaml"
    assert given["--train-data-dir"] == "data/cryotransformer_preprocessed/train"
    assert given["--output-dir"] == "experiments/active_learning_fixed"
    compare = launch.calls()[-1]
    assert options(compare)["--experiments-dir"] == "experiments/active_learning_fixed"


def test_every_strategy_is_run_with_every_seed_on_the_store_that_is_given(launch, store):
    names, seeds = ["random", "power_entropy", "bald"], ["42", "7"]
    done = launch(
        SCRIPT, "--data-dir", store, "--strategies", " ".join(names), "--seeds", "42  7",
        "--num-workers", 3, "--", "--epochs", 2, "--set", "model.width=4",
    )  # fmt: skip
    assert done.returncode == 0
    assert stages(launch.calls()) == [2] * 6 + [3]
    assert runs(launch.calls()) == [(name, seed, "cpu") for seed in seeds for name in names]
    for call in trainings(launch.calls()):
        assert call[-10:-6] == ["--epochs", "2", "--set", "model.width=4"]
        assert options(call)["--num-workers"] == "3"


def test_a_data_set_is_made_into_a_store_that_is_named_for_how_it_is_made(launch):
    args = ["--data-root", "/data/my set", "--seg-size", 256, "--seg-tiles", 4, "--category", "a b"]
    assert launch(SCRIPT, *args, "--num-workers", 3).returncode == 0
    assert stages(launch.calls()) == [1, 2, 2, 3]
    assert options(launch.calls()[0]) == {
        "--tasks": "segmentation",
        "--data-root": "/data/my set",
        "--seg-output-dir": "data/my set_seg_256_tiles4",
        "--num-workers": "3",
        "--seg-size": "256",
        "--seg-tiles": "4",
        "--category": "a b",
    }
    given = options(launch.calls()[1])
    assert given["--train-data-dir"] == "data/my set_seg_256_tiles4/train"


def test_relative_paths_are_the_callers_and_may_hold_spaces_quotes_and_newlines(launch, tmp_path):
    here = tmp_path / "some'where \"else\n$HOME"
    (here / "my set").mkdir(parents=True)
    (here / "my 'c*'.yaml").touch()
    paths = ["--data-root", "my set", "--data-dir", "../st\nore", "--config", "my 'c*'.yaml"]
    done = launch(SCRIPT, *paths, "--output-dir", "o 'u' t", "--gpus", "cpu cpu", cwd=here)
    assert done.returncode == 0
    cut, train, _, compare = launch.calls()
    folder = str(here).replace("\n", "\\n")
    assert options(cut)["--data-root"] == f"{folder}/my set"
    assert options(cut)["--seg-output-dir"] == f"{tmp_path}/st\\nore"
    given = options(train)
    assert given["--train-data-dir"] == f"{tmp_path}/st\\nore/train"
    assert given["--config"] == f"{folder}/my 'c*'.yaml"
    assert given["--output-dir"] == options(compare)["--experiments-dir"] == f"{folder}/o 'u' t"
    assert (here / "o 'u' t" / "console_random_seed42.log").is_file()


def test_a_strategy_that_is_not_known_is_refused_before_others_are_trained(launch, repository):
    done = launch(SCRIPT, "--strategies", "random uncertaint", PYTHON=sys.executable)
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown strategy 'uncertaint'")
    assert not (repository / "data").exists()


# The queue

# Notes when a training begins and ends; the first ones wait for one another (10 s at most), so
# that those which may run at the same time are seen to
NOTING = """#!/usr/bin/env bash
if [[ $1 == train* ]]; then
    [[ $* =~ --strategy\\ (.*)\\ --seed\\ (.*)\\ --device\\ (.*) ]]
    run="${BASH_REMATCH[1]} ${BASH_REMATCH[2]} ${BASH_REMATCH[3]}"
    echo "begin $run ${OMP_NUM_THREADS:-}" >> "$EVENTS"
    for _ in {1..500}; do
        (($(grep -c begin "$EVENTS") < ${MEET:-1})) || break
        sleep 0.02
    done
    sleep "${LASTS:-0}"
    echo "printed by $run"
    echo "end $run" >> "$EVENTS"
fi
exec "$FAKE" "$@"
"""


@pytest.fixture
def noted(launch, store, tmp_path):
    """Run the launcher on a store; return what happened and its events as (what, run, device)."""
    python, events = executable(tmp_path / "noting", NOTING), tmp_path / "events"

    def run(*arguments, **variables):
        events.unlink(missing_ok=True)
        done = launch(
            SCRIPT, "--data-dir", store, "--output-dir", tmp_path / "out", *arguments,
            PYTHON=str(python), FAKE=str(tmp_path / "fake"), EVENTS=str(events), **variables,
        )  # fmt: skip
        lines = [line.split() for line in events.read_text().splitlines()]
        return done, [(line[0], f"{line[1]} {line[2]}", line[3]) for line in lines]

    run.events = events
    return run


def at_once(events):
    """How many runs were under way at most, and which device had two at a time."""
    running, most, shared = [], 0, set()
    for what, run, device in events:
        if what == "end":
            running.remove((run, device))
            continue
        if device in {other for _, other in running}:
            shared.add(device)
        running.append((run, device))
        most = max(most, len(running))
    assert running == []
    return most, shared


def test_random_and_uncertainty_run_in_parallel_on_the_two_gpus_that_there_are(noted, tmp_path):
    done, events = noted(GPUS="0 1", MEET="2")
    assert done.returncode == 0
    assert {(run, device) for _, run, device in events} == {
        ("random 42", "cuda:0"),
        ("uncertainty 42", "cuda:1"),
    }
    assert at_once(events) == (2, set())
    assert f"2 runs at a time: tail -f {tmp_path}/out/*/training.log" in done.stdout
    for name, device in (("random", "cuda:0"), ("uncertainty", "cuda:1")):
        console = tmp_path / "out" / f"console_{name}_seed42.log"
        assert console.read_text() == f"printed by {name} 42 {device}\n"
    assert "printed by" not in done.stdout


def test_five_runs_queue_over_two_gpus_never_two_on_one(noted, launch):
    done, events = noted(
        "--gpus", "3 1", "--strategies", "random uncertainty entropy margin bald", GPUS="0 1 2 3",
        MEET="2", LASTS="0.5",
    )  # fmt: skip
    assert done.returncode == 0
    assert at_once(events) == (2, set())
    assert len(events) == 10
    assert {device for _, _, device in events} == {"cuda:1", "cuda:3"}
    assert stages(launch.calls()) == [2] * 5 + [3]  # the comparison when all have ended


def test_on_one_gpu_one_run_follows_another_and_prints_on_the_terminal(noted):
    done, events = noted(GPUS="0", LASTS="0.5")
    assert done.returncode == 0
    assert "One GPU: one run after another on cuda:0" in done.stdout
    assert at_once(events)[0] == 1
    assert [run for what, run, _ in events if what == "begin"] == ["random 42", "uncertainty 42"]
    assert "printed by random 42 cuda:0" in done.stdout


@pytest.mark.parametrize("gpus", ["none", ""])
def test_gpus_that_are_not_to_be_used_are_not(noted, gpus):
    done, events = noted("--gpus", gpus, GPUS="0 1")
    assert done.returncode == 0
    assert "No GPU: one run after another on the CPU" in done.stdout
    assert {device for _, _, device in events} == {"cpu"}
    assert at_once(events)[0] == 1


def test_two_workers_on_the_cpu_run_in_parallel_and_share_the_processors(noted, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    done, events = noted("--gpus", "cpu cpu", "--seeds", "1 2", MEET="2")
    assert done.returncode == 0
    assert at_once(events) == (2, {"cpu"})
    begun = [line for line in noted.events.read_text().splitlines() if line.startswith("begin")]
    n_processors = len(os.sched_getaffinity(0))
    assert {int(line.split()[4]) for line in begun} == {max(1, n_processors // 2)}


@pytest.mark.parametrize(
    ("failing", "status", "named"),
    [
        ("--strategy uncertainty --seed 42", 5, ["uncertainty seed 42 (exit 5), see "]),
        ("--strategy", 1, ["random seed 42 (exit 5)", "uncertainty seed 43 (exit 5)"]),
    ],
)
def test_runs_that_fail_are_named_with_their_status_when_all_are_finished(
    noted, launch, failing, status, named
):
    done, events = noted("--seeds", "42 43", "--gpus", "0 1", FAIL=failing, STATUS="5")
    assert done.returncode == status
    assert len(events) == 8
    assert stages(launch.calls()) == [2] * 4 + [3]
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert "/out/console_uncertainty_seed42.log" in last
    assert all(name in last for name in named)


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_another_stage_that_fails_ends_the_job_with_its_status(launch, stage):
    done = launch(SCRIPT, FAIL=STAGES[stage], STATUS="4")
    assert done.returncode == 4
    assert stages(launch.calls())[-1] == stage


# The whole

# A real Python, but uncertainty's training is killed as long as the file "kill" is there
KILLING = f"""#!/usr/bin/env bash
[[ "$*" == train*uncertainty* && -e "$KILL" ]] && kill -9 $$
exec "{sys.executable}" "$@"
"""


def test_two_workers_on_the_cpu_from_micrographs_to_a_comparison_interrupted_and_gone_on_with(
    launch, repository, tmp_path
):
    dataset.simulate_dataset(
        tmp_path / "my set", n_train=8, n_val=2, n_test=1, size_px=(256,), n_proteins=1,
        density=2.0, annotation_margin=0.2,
    )  # fmt: skip
    python, kill = executable(tmp_path / "killing", KILLING), tmp_path / "kill"
    settings = ["model.width=4", "model.depth=2", "active_learning.compare_queries=false"]
    flags = [part for setting in settings for part in ("--set", setting)]

    def run():
        return launch(
            SCRIPT, "--data-root", tmp_path / "my set", "--seg-size", 32, "--gpus", "cpu cpu",
            "--num-workers", 0, "--", "--iterations", 2, "--epochs", 1, "--initial-fraction", 0.25,
            "--query-fraction", 0.25, *flags,
            PYTHON=str(python), KILL=str(kill), OMP_NUM_THREADS="1",
        )  # fmt: skip

    kill.touch()
    done = run()
    assert done.returncode == 137
    assert "error: these runs failed: uncertainty seed 42 (exit 137), see " in done.stderr
    output = repository / "experiments" / "active_learning_fixed"
    first = json.loads((output / "comparison_summary.json").read_text())
    finished = (output / "random" / "iteration_1" / "metrics.json").stat().st_mtime_ns

    kill.unlink()
    done = run()
    assert done.returncode == 0, done.stderr
    assert "is complete already: nothing to do" in done.stdout
    console = (output / "console_random_seed42.log").read_text()
    assert "This run is finished: nothing to do" in console
    assert (output / "random" / "iteration_1" / "metrics.json").stat().st_mtime_ns == finished
    for name in ("random", "uncertainty"):
        metrics = json.loads((output / name / "iteration_1" / "metrics.json").read_text())
        assert metrics["num_labeled"] == 4
    assert (output / "active_learning_comparison.png").is_file()
    assert json.loads((output / "comparison_summary.json").read_text()) != first
