"""The analysis script: its files, its tables, and what it refuses."""

import json
import re
import sys

import pytest
from PIL import Image

import analyze_active_learning_results as script
from picking.active_learning.analysis.comparison import summarise
from picking.active_learning.analysis.plots import STYLES
from picking.active_learning.analysis.runs import read_runs
from picking.active_learning.analysis.tables import report
from picking.active_learning.strategies import STRATEGIES
from picking.errors import UserError, run_script
from tests.fixtures.run_folders import RISING, SLOW, metrics_of, write_run

PICTURES = ("active_learning_comparison.png", "data_efficiency.png")
FILES = {*PICTURES, "comparison_summary.json", ".lock"}


@pytest.fixture
def analyze(monkeypatch, capsys):
    """Run the script in this process; return what it printed."""

    def run(*argv):
        monkeypatch.setattr(sys, "argv", ["script", *map(str, argv)])
        script.main()
        return capsys.readouterr().out

    return run


def write_comparison(root):
    """Write three strategies of two seeds, one of them not complete, and a baseline."""
    for seed, offset in ((42, 0), (43, 0.01)):
        for strategy, f1s in (("random", SLOW), ("uncertainty", RISING), ("entropy", RISING[:6])):
            f1s = [f1 + offset for f1 in f1s]
            tested = [f1 - 0.05 for f1 in f1s]
            f1s, micrographs = f1s[: 4 if seed == 43 else None], range(5, 15)
            write_run(root, strategy, f1s, seed, test_f1s=tested, micrographs=micrographs)
        write_run(root, "full", [0.59 + offset], seed, test_f1s=[0.55])


def strict(path):
    """Read JSON as a strict reader does, which knows no NaN."""
    return json.loads(path.read_text(), parse_constant=pytest.fail)


def test_without_arguments_the_runs_of_the_default_folder_are_compared(
    tmp_path, monkeypatch, analyze
):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "experiments" / "active_learning_fixed"
    write_comparison(root)
    printed = analyze()
    assert {path.name for path in root.iterdir() if path.is_file()} == FILES
    for words in ("F1 0.5950, the full-data baseline", "random seed 43: iterations 0-3 of 10"):
        assert words in printed
    assert "TEST" in printed
    assert max(map(len, printed.splitlines())) <= 100


def test_the_summary_is_strict_json_and_says_what_the_terminal_says(tmp_path, analyze):
    write_comparison(tmp_path)
    printed = analyze("--experiments-dir", tmp_path, "--minutes-per-image", 6)
    summary = strict(tmp_path / "comparison_summary.json")
    assert summary["minutes_per_image"] == 6
    assert len(summary["runs"]) == 8
    judged = {label: one["verdict"] for label, one in summary["verdicts"].items()}
    assert judged == {
        "random": "does not hold", "entropy": "holds", "uncertainty": "holds"
    }  # fmt: skip
    for label, one in judged.items():
        assert re.search(rf"^{label} +{one} +0.5950 ", printed, re.MULTILINE)
    # From the first set, of 5 micrographs and 10 images, to what the shortest run has
    low, high = 10 * 5 + 2 * 10 + 500, 10 * 8 + 2 * 40 + 2000
    assert summary["validation"]["clicks_range"] == [low, high]
    table = printed.partition(f"{low} to {high:,} clicks")[2].partition("\n\n")[0]
    entropy = summary["validation"]["strategies"]["entropy"]
    for axis in ("area_clicks", "area_log_clicks"):
        assert f"{entropy[axis]['mean']:.4f} ±" in table
    minus_random = entropy["against"]["random"]["area_log_clicks"]
    assert f"{minus_random['mean']:+.4f} [{minus_random['interval'][0]:+.4f}, " in table


@pytest.mark.parametrize("flags", [(), ("--target-f1", 0.45)])
def test_both_pictures_are_drawn_whether_or_not_there_is_a_target(tmp_path, analyze, flags):
    write_run(tmp_path, "random", [0.4])
    write_run(tmp_path, "uncertainty", RISING)
    write_run(tmp_path, "uncertainty", RISING[3:], name="mine", images=[40, 50, 60, 70, 80, 90, 99],
              model__name="unet")  # fmt: skip
    write_run(tmp_path, "a_new_strategy", RISING[:2])
    analyze("--experiments-dir", tmp_path, *flags)
    for name in PICTURES:
        with Image.open(tmp_path / name) as image:
            assert min(image.size) >= 600
            assert len(image.convert("RGB").getcolors(1 << 20)) > 20
    strict(tmp_path / "comparison_summary.json")


def test_styles_are_of_strategies_and_each_has_a_colour_of_its_own():
    assert STYLES.keys() <= STRATEGIES.keys()
    assert len({colour for colour, _ in STYLES.values()}) == len(STYLES)


def test_a_strategy_without_a_style_is_drawn_in_the_default_one(tmp_path, analyze, monkeypatch):
    write_comparison(tmp_path)
    with_style = analyze("--experiments-dir", tmp_path), (tmp_path / PICTURES[0]).read_bytes()
    monkeypatch.delitem(STYLES, "uncertainty")
    without = analyze("--experiments-dir", tmp_path), (tmp_path / PICTURES[0]).read_bytes()
    assert without[0] == with_style[0] and without[1] != with_style[1]
    for name in PICTURES:
        Image.open(tmp_path / name).verify()


def test_files_go_to_the_output_folder_and_leave_the_runs_alone(tmp_path, analyze):
    write_comparison(tmp_path / "runs")
    before = sorted((tmp_path / "runs").rglob("*"))
    analyze("--experiments-dir", tmp_path / "runs", "--output-dir", tmp_path / "new" / "figures")
    assert {path.name for path in (tmp_path / "new" / "figures").iterdir()} == FILES
    assert sorted((tmp_path / "runs").rglob("*")) == before


def test_long_labels_do_not_break_the_tables(tmp_path):
    for strategy in ("random", "foreground_uncertainty"):
        for seed in (42, 43):
            write_run(tmp_path, strategy, RISING, seed)
        write_run(tmp_path, strategy, RISING, name=f"{strategy}_other", model__name="unet",
                  model__width=8, active_learning__start="shrink_perturb")  # fmt: skip
    lines = report(summarise(read_runs(tmp_path), 0.9, 5)).splitlines()
    assert max(map(len, lines)) <= 100
    assert any("…" in line for line in lines)


def test_a_folder_without_runs_names_the_command_that_makes_one(tmp_path, analyze):
    for folder in (tmp_path, tmp_path / "no"):
        with pytest.raises(UserError, match=r"holds no run: .*run_active_learning_comparison\.sh"):
            analyze("--experiments-dir", folder)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("strategy", "f1s", "words"),
    [("random", [], "random seed 42: no iteration of 10"), ("full", [0.7], "only .* full")],
)
def test_where_there_is_nothing_to_compare_it_says_why(tmp_path, analyze, strategy, f1s, words):
    write_run(tmp_path, strategy, f1s)
    with pytest.raises(UserError, match=words):
        analyze("--experiments-dir", tmp_path)


@pytest.mark.parametrize(
    "flags",
    [("--target-f1", 73), ("--target-f1", "nan"), ("--minutes-per-image", 0),
     ("--minutes-per-image", "inf")],
)  # fmt: skip
def test_numbers_that_make_no_sense_are_refused(tmp_path, analyze, flags):
    write_run(tmp_path, "random", RISING)
    with pytest.raises(UserError, match=f"{flags[0]} is {flags[1]}"):
        analyze("--experiments-dir", tmp_path, *flags)


def test_an_output_folder_in_the_place_of_a_file_is_refused(tmp_path, analyze):
    write_run(tmp_path, "random", RISING)
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "inner"):
        with pytest.raises(UserError, match="a file is in its place"):
            analyze("--experiments-dir", tmp_path, "--output-dir", output)


def test_a_damaged_run_leaves_with_status_2_and_writes_nothing(tmp_path, monkeypatch, capsys):
    path = metrics_of(write_run(tmp_path, "random", RISING), 2)
    path.write_text("{")
    monkeypatch.setattr(sys, "argv", ["script", "--experiments-dir", str(tmp_path)])
    with pytest.raises(SystemExit) as left:
        run_script(script.main)
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path} is not valid JSON")
    assert "Traceback" not in error
    assert not any(path.is_file() for path in tmp_path.iterdir())
