"""Run folders of active learning: repetitions, data, what is missing, what is damaged."""

import json

import pytest

from picking.active_learning.analysis.runs import read_runs
from picking.errors import UserError
from tests.fixtures.run_folders import RISING, SLOW, metrics_of, summary_of, write_run


def test_seeds_are_repetitions_and_other_settings_are_not(tmp_path):
    write_run(tmp_path, "random", RISING, 1)
    write_run(tmp_path, "random", RISING, 2)
    write_run(tmp_path, "entropy", RISING, 1)
    write_run(tmp_path, "entropy", RISING, 2)
    write_run(tmp_path, "entropy", RISING, 1, name="a", model__name="unet")
    write_run(tmp_path, "entropy", RISING, 1, name="b", active_learning__start="scratch")
    write_run(tmp_path, "entropy", RISING, 1, name="c", optimizer__lr=0.01)
    strategies = summary_of(tmp_path, 0.7)["validation"]["strategies"]
    assert {label: one["seeds"] for label, one in strategies.items()} == {
        "random": [1, 2],
        "entropy": [1, 2],
        "entropy (lr=0.01)": [1],
        "entropy (scratch)": [1],
        "entropy (unet)": [1],
    }
    assert "random" in strategies["entropy"]["against"]
    assert "random" not in strategies["entropy (unet)"]["against"]  # that would mix two causes


def test_runs_on_other_data_are_named_and_not_compared(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path, "random", SLOW, seed)
    write_run(tmp_path, "entropy", RISING, input_hash="b" * 64)
    write_run(tmp_path, "margin", [0.5] * 3, images=[3, 6, 9], pool=30)
    write_run(tmp_path, "full", [0.9], input_hash="b" * 64)
    summary = summary_of(tmp_path)
    assert list(summary["validation"]["strategies"]) == ["random"]
    assert summary["left_out"].keys() == {"entropy_seed42", "margin_seed42", "full_seed42"}
    assert "other data" in summary["left_out"]["entropy_seed42"]
    assert summary["validation"]["strategies"]["random"]["full_data_f1"] is None


def test_a_copy_of_a_run_does_not_count_as_another_seed(tmp_path):
    write_run(tmp_path, "random", RISING[:3], name="a_copy")
    write_run(tmp_path, "random", RISING)
    summary = summary_of(tmp_path, 0.7)
    assert summary["validation"]["strategies"]["random"]["f1"][-1]["n"] == 1
    assert "same settings and seed as random_seed42" in summary["left_out"]["a_copy"]


def test_coreset_is_compared_as_diversity(tmp_path):
    write_run(tmp_path, "coreset", RISING, 1)
    write_run(tmp_path, "diversity", RISING, 2)
    strategies = summary_of(tmp_path, 0.7)["validation"]["strategies"]
    assert {label: one["seeds"] for label, one in strategies.items()} == {"diversity": [1, 2]}


def test_incomplete_runs_say_what_is_missing_and_count_as_far_as_they_are(tmp_path):
    write_run(tmp_path, "random", RISING)
    write_run(tmp_path, "uncertainty", RISING[:4])
    write_run(tmp_path, "entropy", RISING[:1])
    write_run(tmp_path, "margin", [])
    gap = write_run(tmp_path, "hybrid", RISING)
    metrics_of(gap, 3).unlink()
    summary = summary_of(tmp_path, 0.7)
    assert summary["missing"] == [
        "entropy seed 42: iteration 0 of 10 complete",
        "hybrid seed 42: iterations 0-2 of 10 complete; 4, 5, 6, 7, 8, 9 not used because "
        "iteration 3 is missing",
        "margin seed 42: no iteration of 10 complete",
        "uncertainty seed 42: iterations 0-3 of 10 complete",
    ]
    covered = {label: s["covered"] for label, s in summary["validation"]["strategies"].items()}
    assert covered["hybrid"] == [0.1, 0.3]
    assert covered["uncertainty"] == [0.1, 0.4]
    assert "margin" not in covered


def test_an_iteration_without_an_f1_is_said_and_left_out(tmp_path):
    write_run(tmp_path, "random", [None, *RISING[1:]])
    summary = summary_of(tmp_path, 0.7)
    assert summary["missing"] == ["random seed 42: iterations 0-9 of 10 complete; no F1 in 0"]
    assert summary["validation"]["strategies"]["random"]["covered"] == [0.2, 1.0]


@pytest.mark.parametrize(
    "change",
    [
        {"f1_score": "high"}, {"f1_score": 1.2}, {"f1_score": float("nan")}, {"test": 3},
        {"num_labeled": 10.5}, {"num_labeled": 10}, {"num_labeled": 101}, {"num_pool": 99},
        "f1_score", "num_labeled", "val_images",
    ],
)  # fmt: skip
def test_a_metrics_file_with_a_wrong_value_or_without_a_key_is_named(tmp_path, change):
    write_run(tmp_path, "random", RISING)
    path = metrics_of(write_run(tmp_path, "entropy", RISING[:2]), 1)
    metrics = json.loads(path.read_text())
    if isinstance(change, str):
        del metrics[change]
    else:
        metrics |= change
    path.write_text(json.dumps(metrics))
    words = f"{path} .*'{change}'" if isinstance(change, str) else str(path)
    with pytest.raises(UserError, match=words):
        read_runs(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[1]", "null"])
def test_half_a_metrics_file_is_named(tmp_path, content):
    path = metrics_of(write_run(tmp_path, "random", RISING[:2]), 1)
    path.write_text(content)
    with pytest.raises(UserError, match=str(path)):
        read_runs(tmp_path)


def test_a_folder_whose_number_is_none_is_left_alone(tmp_path):
    run = write_run(tmp_path, "random", [0.5, 0.6])
    (run / "iteration_²").mkdir()
    (run / "iteration_²" / "metrics.json").write_text("{}")
    assert [len(one.iterations) for one in read_runs(tmp_path)] == [2]
