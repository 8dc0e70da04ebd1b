"""Rounds: what is planned, run and stopped, what is proposed and what is exported."""

import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import label_particles
from picking.detection.output import save_picks
from picking.errors import Stopped, UserError
from picking.formats.coordinates import read_picks
from picking.formats.picks import Picks
from picking.inputs.junk_masks import find_junk_masks
from picking.inputs.labels_folder import read_labels_folder
from picking.labelling.folder.labels import LabelsFolder
from picking.labelling.folder.session import Session, write_session
from picking.labelling.rounds import progress as progress_module
from picking.labelling.rounds import proposals as proposals_module
from picking.labelling.rounds import runner
from picking.labelling.rounds.export import export, final_picks
from picking.labelling.rounds.plan import last_round, round_folder, write_plan
from picking.labelling.rounds.progress import progress
from picking.labelling.rounds.proposals import Proposals
from tests.fixtures.labelling import write_micrographs

NAMES = [f"{n:03d}.mrc" for n in range(100)]
SIZES = dict.fromkeys(NAMES, (200, 300))
DIAMETERS = dict.fromkeys(NAMES, 20.0)
PATHS = {name: Path("raw") / name for name in NAMES}
LONG_AGO = "2026-01-01T00:00:00+00:00"
SESSION = Session(("raw/*.mrc",), "80A", None)


@pytest.fixture
def labels(tmp_path):
    labels = LabelsFolder(tmp_path, SIZES, DIAMETERS)
    labels.begin()
    return labels


def act(labels, do, name=NAMES[0], **more):
    labels.act({"id": f"i{labels.history.n}", "do": do, "micrograph": name, **more})


def mark(labels, name, n):
    act(labels, "accept", name, centres=[[10 + k, 20 + 9 * k] for k in range(n)])


def planned(labels, expected=None, config=None, is_list=False):
    return write_plan(labels, SESSION, PATHS, is_list, expected, config)


def commands(labels, k):
    steps = json.loads((round_folder(labels.folder, k) / "plan.json").read_text())["steps"]
    return [step["command"] for step in steps]


def values(command, flag):
    start = command.index(flag) + 1
    end = next((i for i in range(start, len(command)) if command[i].startswith("--")), None)
    return command[start:end]


# Planning


def test_too_few_particles_are_a_sentence_and_no_round(labels):
    mark(labels, NAMES[0], 30)
    with pytest.raises(UserError, match="30 particles on 1 micrographs are too few to learn from"):
        planned(labels)
    assert last_round(labels.folder) is None


def test_a_mistake_in_the_configuration_is_a_sentence_and_no_round(labels, tmp_path):
    for name in NAMES[:2]:
        mark(labels, name, 10)
    (tmp_path / "mine.yaml").write_text("training: {max_stepz: 3}")
    for name, words in (("mine.yaml", "max_stepz"), ("none.yaml", "is not there")):
        with pytest.raises(UserError, match=words):
            planned(labels, config=tmp_path / name)
    assert last_round(labels.folder) is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--train", "--expected-particles", "nan"], "give a number above 0"),
        (["--train", "--expected-particles", "-5"], "give a number above 0"),
        (["--train", "--export", "star"], "give one of them"),
        (["--go-on", "1", "--train"], "give one of them"),
        (["--expected-particles", "5", "--export", "star"], "goes with --train"),
    ],
)
def test_flags_that_do_not_go_together_are_a_sentence(flags, words, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["label_particles.py", "--output", str(tmp_path), *flags])
    with pytest.raises(UserError, match=words):
        label_particles.main()
    assert not any(tmp_path.iterdir())


def test_a_new_folder_is_no_place_to_export_into_and_stays_new(tmp_path, monkeypatch):
    """What was left there would make it one of other things, which the page refuses."""
    write_micrographs(tmp_path / "raw", NAMES[:2], (200, 300))
    called = ["--micrographs", f"{tmp_path}/raw/*.mrc", "--diameter", "20px", "--export", "star"]
    monkeypatch.setattr(sys, "argv", ["", "--output", f"{tmp_path}/labels", *called])
    with pytest.raises(UserError, match="is no folder of labels yet"):
        label_particles.main()
    assert not (tmp_path / "labels").exists()


def test_a_round_learns_from_a_copy_of_the_labels(labels):
    mark(labels, NAMES[0], 8)
    mark(labels, NAMES[1], 7)
    act(labels, "add_negative", NAMES[1], y=100, x=100)
    act(labels, "junk", NAMES[1], path=[[50, 50]], radius=9, erase=False)
    k = planned(labels)
    copied = round_folder(labels.folder, k) / "labels"
    mark(labels, NAMES[2], 5)  # what is clicked from now on is for the next round
    assert {p.name: len(p.centres_px) for p in read_picks([copied / "picks.star"], SIZES)} == {
        NAMES[0]: 8, NAMES[1]: 7
    }  # fmt: skip
    assert (copied / "not_particles.star").exists() and (copied / "junk" / "001.png").exists()
    assert values(commands(labels, k)[0], "--labels") == [str(copied)]
    assert planned(labels) == k + 1


def test_what_is_left_out_is_neither_learned_from_nor_picked(labels):
    for name in NAMES[:3]:
        mark(labels, name, 8)
    act(labels, "leave_out", NAMES[2])
    preprocess, train, pick = commands(labels, planned(labels))
    learned, picked = values(preprocess, "--micrographs"), values(pick, "--micrographs")
    assert learned == [str(PATHS[name]) for name in NAMES[:2]]
    assert len({*picked}) == len(picked) == 99 and str(PATHS[NAMES[2]]) not in picked
    assert picked[:2] == learned  # those are proposed on first
    assert values(train, "--data-dir") == values(preprocess, "--output-dir")
    assert values(pick, "--diameter") == values(preprocess, "--diameter") == ["80A"]
    assert "--expected-particles" not in preprocess


def test_what_is_known_of_micrographs_without_picks_is_learned_too(labels):
    for name in NAMES[:2]:
        mark(labels, name, 8)
    act(labels, "add_negative", NAMES[97], y=100, x=100)
    act(labels, "junk", NAMES[98], path=[[50, 50]], radius=9, erase=False)
    act(labels, "complete", NAMES[99])
    learned = values(commands(labels, planned(labels))[0], "--micrographs")
    assert learned == [str(PATHS[name]) for name in (*NAMES[:2], *NAMES[97:])]


def test_a_round_that_learns_nothing_picks_all_with_the_network_that_comes_along(labels):
    act(labels, "leave_out", NAMES[2])
    act(labels, "add_negative", NAMES[97], y=100, x=100)
    k = write_plan(labels, SESSION, PATHS, False, None, None, learns=False)
    (pick,) = commands(labels, k)
    assert values(pick, "--checkpoint") == ["general"] and values(pick, "--diameter") == ["80A"]
    picked = values(pick, "--micrographs")
    assert picked[0] == str(PATHS[NAMES[97]])
    assert {*picked} == {str(path) for name, path in PATHS.items() if name != NAMES[2]}
    assert progress(round_folder(labels.folder, k))["n_picks"] == 0


def test_how_many_particles_to_expect_is_asked_for_or_left_to_preprocessing(labels):
    # Which goes by complete micrographs, but not by two that are emptier than the others
    for name, n in zip(NAMES, (8, 14, 30), strict=False):
        mark(labels, name, n)
    for name in NAMES[:2]:
        act(labels, "complete", name)
    first, second = planned(labels), planned(labels, expected=30)
    assert "--expected-particles" not in commands(labels, first)[0]
    assert values(commands(labels, second)[0], "--expected-particles") == ["30"]
    copied = round_folder(labels.folder, first) / "labels"
    assert read_labels_folder(copied).complete == (NAMES[0], NAMES[1])


def test_a_list_of_micrographs_is_passed_on_as_it_is(labels):
    mark(labels, NAMES[0], 8)
    mark(labels, NAMES[1], 8)
    act(labels, "add_negative", NAMES[99], y=100, x=100)
    k = planned(labels, is_list=True)
    for command in commands(labels, k)[::2]:
        assert values(command, "--micrographs") == ["raw/*.mrc"]
    assert not read_labels_folder(round_folder(labels.folder, k) / "labels").left_out


@pytest.mark.parametrize("is_list", [False, True])
def test_nothing_is_proposed_in_painted_junk_and_labels_of_unused_micrographs_are_in_no_ones_way(
    labels, is_list
):
    used, left_out, gone = NAMES[2], NAMES[3], NAMES[4:6]
    for name in (*NAMES[:2], *gone):
        mark(labels, name, 8)
        act(labels, "complete", name)
    for name in (used, left_out, *gone):
        act(labels, "junk", name, path=[[50, 50]], radius=9, erase=False)
    act(labels, "add_negative", gone[0], y=100, x=100)
    act(labels, "leave_out", left_out)
    # Two have become unreadable, or are listed no more
    sizes, paths = ({name: of[name] for name in NAMES if name not in gone} for of in (SIZES, PATHS))
    labels = LabelsFolder(labels.folder, sizes, DIAMETERS)
    labels.begin()
    copied = round_folder(labels.folder, write_plan(labels, SESSION, paths, is_list, None, None))
    copied /= "labels"
    pick = commands(labels, 1)[2]
    assert values(pick, "--junk") == [str(copied / "junk")]
    picked = paths if is_list else {path.name for path in map(Path, values(pick, "--micrographs"))}
    masks = find_junk_masks(copied / "junk", {name: SIZES[name] for name in picked})
    assert masks == {used: copied / "junk" / "002.png"}
    # What the step before it learns from
    found = read_labels_folder(copied)
    assert found.complete == (NAMES[0], NAMES[1]) and left_out in found.left_out
    assert [p.name for p in read_picks([found.picks], sizes)] == [*NAMES[:2]]
    assert found.not_particles is None
    # All of it is still there
    assert len(list((labels.folder / "junk").iterdir())) == 4


def test_a_round_without_painted_junk_asks_for_no_masks(labels):
    mark(labels, NAMES[0], 8)
    mark(labels, NAMES[1], 8)
    act(labels, "junk", NAMES[1], path=[[50, 50]], radius=9, erase=False)
    act(labels, "junk", NAMES[1], path=[[50, 50]], radius=12, erase=True)
    assert "--junk" not in commands(labels, planned(labels))[2]


# Running


def round_of(tmp_path, *codes):
    """A round whose steps are pieces of Python."""
    folder = tmp_path / "rounds" / "1"
    folder.mkdir(parents=True)
    steps = [{"title": f"Step {n}", "command": [sys.executable, "-c", code]}
             for n, code in enumerate(codes, 1)]  # fmt: skip
    plan = {"steps": steps, "n_picks": 7, "n_micrographs": 4}
    (folder / "plan.json").write_text(json.dumps(plan))
    return folder


def test_steps_are_run_in_order_and_their_output_is_the_log(tmp_path):
    folder = round_of(tmp_path, "print('one')", "print('two')")
    runner.run_round(folder)
    said = progress(folder)
    assert (said["state"], said["said"], said["n_picks"]) == ("done", None, 7)
    assert [line for line in said["log"] if "$" not in line] == ["one", "two"]


def test_no_round_is_begun_by_command_while_another_is_under_way(tmp_path):
    write_micrographs(tmp_path / "raw", NAMES[:2], (200, 300))
    write_session(tmp_path, Session((f"{tmp_path}/raw/*.mrc",), "20px", None))
    round_of(tmp_path, "print('one')")  # planned this moment
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError, match="1 is under way"):
        patch.setattr(sys, "argv", ["label_particles.py", "--output", str(tmp_path), "--train"])
        label_particles.main()
    assert last_round(tmp_path) == 1


def test_a_step_that_fails_ends_the_round_with_its_sentence(tmp_path):
    failing = "import sys; print('error: no room: buy a disk', file=sys.stderr); sys.exit(2)"
    folder = round_of(tmp_path, failing, "print('two')")
    with pytest.raises(UserError, match="Step 1: no room: buy a disk"):
        runner.run_round(folder)
    said = progress(folder)
    assert (said["state"], said["said"]) == ("failed", "Step 1: no room: buy a disk")
    assert "two" not in said["log"]


def test_a_step_that_left_some_micrographs_out_is_done(tmp_path):
    folder = round_of(tmp_path, "raise SystemExit(3)", "print('two')")
    runner.run_round(folder)
    assert progress(folder)["state"] == "done"


def test_stop_ends_the_step_as_ctrl_c_does_and_the_round_can_go_on(tmp_path):
    waiting = (
        "import time, pathlib; done = pathlib.Path('done')\n"
        "try:\n    time.sleep(0 if done.exists() else 60)\n"
        "except KeyboardInterrupt:\n    done.touch(); raise SystemExit(130)"
    )
    folder = round_of(tmp_path, f"import os; os.chdir({str(tmp_path)!r})\n{waiting}", "print(2)")
    stopping = threading.Timer(1.5, (folder / runner.STOP).touch)
    stopping.start()
    start = time.monotonic()
    with pytest.raises(Stopped):
        runner.run_round(folder)
    assert time.monotonic() - start < 20
    assert progress(folder)["state"] == "stopped" and (tmp_path / "done").exists()
    runner.run_round(folder)
    assert progress(folder)["state"] == "done"


def test_a_round_whose_process_vanished_is_said(tmp_path, monkeypatch):
    folder = round_of(tmp_path, "print('one')")
    status = {"state": "running", "title": "Training", "step": 2, "n_steps": 3,
              "step_began": LONG_AGO, "alive": LONG_AGO}  # fmt: skip
    (folder / "status.json").write_text(json.dumps(status))
    (folder / "log.txt").write_text("Killed\n")
    said = progress(folder)
    assert (said["state"], said["said"]) == ("failed", "it ended without a word: Killed")
    (folder / "status.json").unlink()  # it did not even begin
    assert progress(folder)["state"] == "running"
    monkeypatch.setattr(progress_module, "STARTING_S", -1)
    assert progress(folder)["state"] == "failed"


def test_progress_and_time_left_come_from_what_the_scripts_write(tmp_path):
    folder = round_of(tmp_path, "")
    now = runner._now()
    status = {"state": "running", "title": "Training", "step": 2, "n_steps": 3,
              "step_began": now, "alive": now}  # fmt: skip
    (folder / "status.json").write_text(json.dumps(status))
    assert progress(folder)["fraction"] is None
    (folder / "training").mkdir()
    (folder / "training" / "training.log").write_text("Epoch 1/8\n  x\nEpoch 2/8\n")
    assert progress(folder)["fraction"] == 0.25
    (folder / "status.json").write_text(json.dumps({**status, "title": "Picking all"}))
    (folder / "picks" / "scored").mkdir(parents=True)
    (folder / "picks" / "scored" / "a.npz").touch()
    assert progress(folder)["fraction"] == 0.25
    status["step_began"] = LONG_AGO
    (folder / "status.json").write_text(json.dumps({**status, "title": "Picking all"}))
    said = progress(folder)
    assert said["left_s"] == pytest.approx(
        3 * progress_module._age_s(status["step_began"]), rel=1e-3
    )


# Proposals


def candidates(name, *rows):
    y, x, scores = np.array(rows, float).reshape(-1, 3).T
    centres = np.stack([y, x], axis=1)
    return Picks(name, centres, scores, np.full(len(y), 20.0), SIZES[name])


def proposals_of(tmp_path, *picks):
    for one in picks:
        save_picks(tmp_path / "picks", one, ("1", "2", "3"))
    proposals = Proposals(tmp_path, SIZES)
    proposals.update()
    return proposals


ROWS = [(10, 20, 0.9), (50, 60, 0.4), (90, 100, 0.01), (100, 200, 0.6)]


def test_proposals_come_best_first_without_those_that_score_nothing(tmp_path):
    proposals = proposals_of(tmp_path, candidates(NAMES[0], *ROWS))
    assert proposals.as_json(NAMES[0]) == [[10, 20, 0.9], [100, 200, 0.6], [50, 60, 0.4]]
    assert proposals.as_json(NAMES[1]) == []
    assert proposals.numbers(0.6) == {NAMES[0]: 2}
    histogram = proposals.histogram()
    assert sum(histogram) == 4 and histogram[45] == histogram[30] == histogram[20] == 1


def test_what_is_left_to_decide_on_follows_each_mark_and_the_threshold(tmp_path, labels):
    proposals = proposals_of(tmp_path / "r", *(candidates(name, *ROWS) for name in NAMES[:3]))

    def left(threshold=0.4):
        counts = proposals.left(labels.history, DIAMETERS.__getitem__, threshold)
        return [counts[name] for name in NAMES[:3]]

    assert left() == [3, 3, 3] and left(0.7) == [1, 1, 1]
    act(labels, "accept", centres=[[12, 21]])  # of the highest; as what the network adds to
    assert left() == [2, 3, 3] and left(0.7) == [0, 1, 1]
    act(labels, "add_negative", y=50, x=69)
    assert left() == [1, 3, 3]
    act(labels, "undo", of=None)
    act(labels, "junk", NAMES[1], path=[[100, 150], [100, 190]], radius=20, erase=False)
    assert left() == [2, 2, 3]
    save_picks(tmp_path / "r" / "picks", candidates(NAMES[1], *ROWS, (5, 5, 1)), ("1", "2", "3"))
    assert proposals.update() and left() == [2, 3, 3]
    act(labels, "complete", NAMES[0])
    act(labels, "leave_out", NAMES[2])
    assert left() == [0, 3, 0]
    assert proposals.numbers(0.4) == {NAMES[0]: 3, NAMES[1]: 4, NAMES[2]: 3}


def test_proposals_are_read_as_they_come_and_again_when_they_change(tmp_path):
    proposals = proposals_of(tmp_path)
    assert len(proposals) == 0 and not proposals.update()
    save_picks(tmp_path / "picks", candidates(NAMES[0], *ROWS), ("1", "2", "3"))
    assert proposals.update() and len(proposals.as_json(NAMES[0])) == 3
    assert not proposals.update()
    save_picks(tmp_path / "picks", candidates(NAMES[0], ROWS[0]), ("1", "2", "3"))
    assert proposals.update() and len(proposals.as_json(NAMES[0])) == 1


def test_files_are_not_looked_at_where_none_came(tmp_path, monkeypatch):
    proposals = proposals_of(tmp_path, candidates(NAMES[0], *ROWS))
    os.utime(tmp_path / "picks" / "scored", (1e9, 1e9))
    assert not proposals.update()
    with monkeypatch.context() as patch:
        patch.setattr(proposals_module, "scored", None)  # which is asked for each file
        assert not proposals.update()
    save_picks(tmp_path / "picks", candidates(NAMES[1], *ROWS), ("1", "2", "3"))
    assert proposals.update() and len(proposals) == 2


def test_the_network_is_most_uncertain_where_scores_are_near_a_half(tmp_path):
    proposals = proposals_of(
        tmp_path,
        candidates(NAMES[0], (1, 1, 0.5), (9, 9, 0.4)),
        candidates(NAMES[1], (1, 1, 0.97), (9, 9, 0.03)),
        candidates(NAMES[2], (1, 1, 0.001)),
    )
    assert proposals.uncertainty() == pytest.approx({NAMES[0]: 0.45, NAMES[1]: 0.03, NAMES[2]: 0.0})


def test_the_threshold_is_kept_with_the_round(tmp_path):
    proposals = proposals_of(tmp_path, candidates(NAMES[0], *ROWS))
    assert proposals.threshold() == 0.5
    (tmp_path / "picks" / "manifest.json").write_text('{"threshold": 0.2}')
    assert proposals.threshold() == 0.2
    proposals.keep_threshold(0.7)
    assert Proposals(tmp_path, SIZES).threshold() == 0.7
    for bad in (None, "0.5", -1, 2, True, float("nan")):
        with pytest.raises(UserError, match="a number from 0 to 1"):
            proposals.keep_threshold(bad)


def test_precision_and_recall_are_told_of_three_complete_micrographs_or_more(tmp_path, labels):
    proposals = proposals_of(
        tmp_path / "round",
        *(candidates(name, (10, 20, 0.9), (50, 60, 0.8), (100, 200, 0.6)) for name in NAMES[:4]),
    )

    def quality(threshold=0.5):
        return proposals.quality(labels.history, DIAMETERS.__getitem__, threshold)

    for name in NAMES[:2]:
        act(labels, "accept", name, centres=[[12, 21], [52, 66], [150, 150]])
        act(labels, "complete", name)
    assert quality() == {"n_complete": 2}
    act(labels, "accept", NAMES[2], centres=[[12, 21], [52, 66], [150, 150]])
    act(labels, "complete", NAMES[2])
    assert quality()["precision"] == pytest.approx(2 / 3)
    assert quality()["recall"] == pytest.approx(2 / 3)
    assert quality(0.7)["precision"] == 1
    low, high = quality()["intervals"]["precision"]
    assert low <= 2 / 3 <= high


# Export


def test_what_is_exported_is_what_was_marked_and_what_the_network_adds(labels):
    act(labels, "accept", centres=[[10, 20]])
    act(labels, "add_negative", y=100, x=205)
    act(labels, "junk", path=[[150, 250]], radius=20, erase=False)
    found = candidates(
        NAMES[0], (12, 22, 0.9), (50, 60, 0.8), (101, 200, 0.7), (150, 255, 0.9), (70, 90, 0.1)
    )

    def final(candidates=found):
        return final_picks(NAMES[0], labels.history.of(NAMES[0]), candidates, 0.5, (200, 300), 20)

    assert final().centres_px.tolist() == [[10, 20], [50, 60]]
    assert final().scores.tolist() == [1, 0.8]
    assert final(None).centres_px.tolist() == [[10, 20]]
    act(labels, "complete")
    assert final().centres_px.tolist() == [[10, 20]]
    act(labels, "leave_out")
    assert final().centres_px.tolist() == []


def test_proposals_of_the_last_round_that_has_any_are_exported(tmp_path, capsys):
    """Not those of one that failed before it picked, or that has only begun."""
    raw, folder = tmp_path / "raw", tmp_path / "labels"
    write_micrographs(raw, NAMES[:2], (200, 300))
    session = ("--micrographs", f"{raw}/*.mrc", "--diameter", "20px", "--output", folder)
    call = ("--export", "star")

    def export_by_command():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["label_particles.py", *map(str, (*session, *call))])
            label_particles.main()
        return capsys.readouterr().out

    folder.mkdir()
    write_session(folder, Session((f"{raw}/*.mrc",), "20px", None))
    assert "0 picks are in" in (said := export_by_command()) and "no round has proposals" in said
    proposals_of(round_folder(folder, 1), candidates(NAMES[1], *ROWS))
    round_folder(folder, 2).mkdir()
    said = export_by_command()
    assert "2 picks are in" in said
    assert "proposals of round 1 from 0.500 up, which 1 of 2 micrographs have" in said


def test_exported_files_are_read_back(tmp_path, labels):
    mark(labels, NAMES[0], 3)
    proposals = proposals_of(tmp_path / "round", candidates(NAMES[1], *ROWS))
    args = (labels.history, SIZES, DIAMETERS, proposals, ["star", "box", "csv"], None)
    assert export(tmp_path / "export", *args) == 5
    for kind in ("star", "box"):
        files = sorted((tmp_path / "export" / kind).iterdir())
        read = {p.name: sorted(p.centres_px.tolist()) for p in read_picks(files, SIZES)}
        assert read[NAMES[1]] == [[10, 20], [100, 200]], kind
        assert len(read[NAMES[0]]) == 3


def test_an_export_leaves_nothing_of_micrographs_that_have_no_picks_now(tmp_path, labels):
    """They are gone, or cannot be read any more: a program that takes all files would have them."""
    proposals = proposals_of(tmp_path / "round", *(candidates(name, *ROWS) for name in NAMES[:3]))
    folder, formats = tmp_path / "export", ["star", "csv"]

    def exported(names):
        sizes = {name: SIZES[name] for name in names}
        export(folder, labels.history, sizes, DIAMETERS, proposals, formats, None)
        return [sorted(p.stem for p in (folder / name).iterdir()) for name in formats]

    assert exported(NAMES[:3]) == [["000", "001", "002"]] * 2
    assert exported(NAMES[1:2]) == [["001"]] * 2


def test_a_round_says_its_commands_without_thousands_of_names(tmp_path):
    folder = round_of(tmp_path, "print('one')")
    plan = json.loads((folder / "plan.json").read_text())
    plan["steps"][0]["command"] += ["--micrographs", *NAMES, "--diameter", "80A"]
    (folder / "plan.json").write_text(json.dumps(plan))
    runner.run_round(folder)
    log = (folder / "log.txt").read_text()
    assert "... (100 in all)" in log and "099.mrc" not in log
