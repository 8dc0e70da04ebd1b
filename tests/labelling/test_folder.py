"""The folder of labels: kept through kills and full disks, and what scripts read of it."""

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from picking.errors import InputWarning, UserError
from picking.formats.coordinates import read_picks
from picking.labelling.folder.actions import Stroke
from picking.labelling.folder.derived import drawn
from picking.labelling.folder.labels import LabelsFolder, held
from tests.fixtures import ROOT

SIZES = {"a.mrc": (200, 300), "b.png": (220, 310), "<img src=x onerror=alert(1)>.mrc": (200, 300)}
DIAMETERS = dict.fromkeys(SIZES, 30.0)


def opened(folder, **more):
    folder.mkdir(exist_ok=True)
    labels = LabelsFolder(folder, SIZES, DIAMETERS, **more)
    labels.begin()
    return labels


def act(labels, do, own, name="a.mrc", **more):
    return labels.act({"id": own, "do": do, "micrograph": name, **more})


def table(folder):
    with (folder / "micrographs.csv").open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def star(folder, file="picks.star"):
    return {p.name: p for p in read_picks([folder / file], SIZES)}


def test_labels_are_there_again_after_the_folder_is_opened_anew(tmp_path):
    labels = opened(tmp_path)
    act(labels, "add", "p", y=10, x=20)
    act(labels, "add_negative", "n", y=30, x=40)
    again = opened(tmp_path).history
    assert again.of("a.mrc") == labels.history.of("a.mrc")
    assert again.can_undo == "n"


def test_star_files_hold_what_was_clicked_in_the_frame_of_the_mrc(tmp_path):
    labels = opened(tmp_path)
    act(labels, "add", "p", y=10, x=20)
    act(labels, "add", "q", "b.png", y=11, x=21)
    act(labels, "add_negative", "n", y=30, x=40)
    labels.write_changed()
    picks = star(tmp_path)
    assert picks["a.mrc"].centres_px.tolist() == [[10, 20]]
    assert picks["b.png"].centres_px.tolist() == [[11, 21]]
    assert picks["a.mrc"].diameters_px.tolist() == [30]
    assert star(tmp_path, "not_particles.star")["a.mrc"].centres_px.tolist() == [[30, 40]]
    rows = (tmp_path / "picks.star").read_text()
    assert "190.0" in rows and "209.0" in rows  # y of the MRC: the height less y from the top


def test_a_star_file_without_a_place_is_removed(tmp_path):
    labels = opened(tmp_path)
    act(labels, "add", "p", y=10, x=20)
    labels.write_changed()
    assert (tmp_path / "picks.star").exists()
    labels.act({"id": "u", "do": "undo", "of": "p"})
    labels.write_changed()
    assert not (tmp_path / "picks.star").exists()


def test_the_table_says_of_every_micrograph_its_state_and_counts(tmp_path):
    labels = opened(tmp_path)
    act(labels, "accept", "p", centres=[[1, 2], [3, 4]])
    act(labels, "add_negative", "n", y=30, x=40)
    act(labels, "complete", "c")
    act(labels, "leave_out", "l", "b.png")
    labels.write_changed()
    assert [*table(tmp_path).values()] == [
        {"name": "a.mrc", "state": "complete", "picks": "2", "not_particles": "1"},
        {"name": "b.png", "state": "left out", "picks": "0", "not_particles": "0"},
        {"name": [*SIZES][2], "state": "untouched", "picks": "0", "not_particles": "0"},
    ]


def test_picks_of_a_micrograph_that_is_left_out_are_kept_but_not_written(tmp_path):
    labels = opened(tmp_path)
    act(labels, "add", "p", y=10, x=20)
    act(labels, "add", "q", "b.png", y=10, x=20)
    act(labels, "leave_out", "l")
    labels.write_changed()
    assert [*star(tmp_path)] == ["b.png"]
    act(labels, "take_back", "t")
    labels.write_changed()
    assert {*star(tmp_path)} == {"a.mrc", "b.png"}


def test_a_name_with_html_comes_back_from_the_star_file(tmp_path):
    labels, name = opened(tmp_path), [*SIZES][2]
    act(labels, "add", "p", name, y=10, x=20)
    labels.write_changed()
    assert [*star(tmp_path)] == [name]


def test_junk_is_a_mask_of_circles_along_the_path(tmp_path):
    labels = opened(tmp_path)
    act(labels, "junk", "j", path=[[50, 50], [50, 150]], radius=20, erase=False)
    act(labels, "junk", "k", path=[[50, 100]], radius=10, erase=True)
    labels.write_changed()
    mask = np.asarray(Image.open(tmp_path / "junk" / "a.png")) > 127
    assert mask.shape == (200, 300)
    y, x = np.mgrid[:200, :300] + 0.5
    on_path = np.hypot(y - 50, x - x.clip(50, 150)) <= 20
    expected = on_path & (np.hypot(y - 50, x - 100) > 10)
    assert (mask != expected).sum() < 0.03 * expected.sum()  # half a px along the shore
    labels.act({"id": "u", "do": "undo", "of": "k"})
    labels.act({"id": "v", "do": "undo", "of": "j"})
    labels.write_changed()
    assert not (tmp_path / "junk" / "a.png").exists()


def test_a_brush_that_leaves_the_micrograph_marks_its_edge():
    mask = np.asarray(drawn([Stroke(((-5.0, 10.0), (10.0, -5.0)), 8, False)], (40, 60)))
    assert mask[0, 10] == mask[10, 0] == 255 and mask[30, 30] == 0


def test_a_torn_last_line_is_cut_off_and_said(tmp_path):
    act(opened(tmp_path), "add", "p", y=10, x=20)
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"id": "q", "do": "add", "microgr')
    with pytest.warns(InputWarning, match="ended in half a line"):
        labels = opened(tmp_path)
    act(labels, "add", "r", y=11, x=21)
    assert opened(tmp_path).history.of("a.mrc").places_px(True) == [(10, 20), (11, 21)]


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    labels = opened(tmp_path)
    act(labels, "add", "p", y=10, x=20)
    lines = (tmp_path / "events.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "events.jsonl").write_text("".join([lines[0], "gar\0bage\n", *lines[1:]]))
    with pytest.raises(UserError, match="line 2 is damaged"):
        opened(tmp_path)


def test_of_a_full_disk_nothing_is_counted_and_later_actions_follow_whole_lines(
    tmp_path, monkeypatch
):
    labels = opened(tmp_path)
    act(labels, "add", "p", y=10, x=20)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            act(labels, "add", "q", y=11, x=21)
    assert labels.history.of("a.mrc").places_px(True) == [(10, 20)]
    act(labels, "add", "q", y=11, x=21)  # the same action is sent again once there is room
    assert opened(tmp_path).history.of("a.mrc").places_px(True) == [(10, 20), (11, 21)]


def test_half_a_line_that_still_fitted_on_the_disk_is_taken_back(tmp_path):
    labels = opened(tmp_path)
    act(labels, "add", "p", y=10, x=20)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            act(labels, "accept", "q", centres=[[1, 2]] * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "events.jsonl").read_text().count("\n") == 2
    act(labels, "add", "r", y=11, x=21)
    assert opened(tmp_path).history.of("a.mrc").places_px(True) == [(10, 20), (11, 21)]


def test_files_that_could_not_be_written_are_written_the_next_time(tmp_path, monkeypatch):
    labels = opened(tmp_path)
    act(labels, "add", "p", y=10, x=20)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OSError, match="full"):
            labels.write_changed()
    labels.write_changed()
    assert star(tmp_path)["a.mrc"].centres_px.tolist() == [[10, 20]]


def test_a_click_writes_no_file_of_another_micrograph(tmp_path):
    labels = opened(tmp_path)
    act(labels, "junk", "j", "b.png", path=[[50, 50]], radius=20, erase=False)
    labels.write_changed()
    before = (tmp_path / "junk" / "b.png").stat().st_mtime_ns
    act(labels, "junk", "k", path=[[50, 50]], radius=20, erase=False)
    labels.write_changed()
    assert (tmp_path / "junk" / "a.png").exists()
    assert (tmp_path / "junk" / "b.png").stat().st_mtime_ns == before
    tables = (tmp_path / "picks.star", tmp_path / "micrographs.csv")
    times = [path.stat().st_mtime_ns for path in tables if path.exists()]
    labels.write_changed()  # nothing changed since
    assert times == [path.stat().st_mtime_ns for path in tables if path.exists()]


def test_what_was_killed_before_it_wrote_its_files_writes_them_when_opened(tmp_path):
    code = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.labelling.test_folder import act, opened
labels = opened(Path({str(tmp_path)!r}))
act(labels, "add", "p", y=10, x=20)
act(labels, "junk", "j", path=[[50, 50]], radius=20, erase=False)
os.kill(os.getpid(), 9)
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "picks.star").exists()
    opened(tmp_path)
    assert star(tmp_path)["a.mrc"].centres_px.tolist() == [[10, 20]]
    assert (tmp_path / "junk" / "a.png").exists()


def test_a_second_process_is_read_only_knows_who_has_it_and_sees_what_comes(tmp_path, monkeypatch):
    monkeypatch.setattr("picking.files.LOCK_PATIENCE_S", 0.1)
    code = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.labelling.test_folder import act, held, opened
folder = Path({str(tmp_path)!r})
with held(folder):
    labels = opened(folder)
    print("held", flush=True)
    for line in sys.stdin:
        act(labels, "add", line.strip(), y=10, x=20)
        print("done", flush=True)
"""
    pipe = subprocess.PIPE
    first = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, cwd=ROOT)
    try:
        assert first.stdout.readline() == b"held\n"
        with held(tmp_path) as used_by:
            assert f"process {first.pid} on " in used_by
            second = opened(tmp_path, used_by=used_by)
            with pytest.raises(UserError, match=f"in use by process {first.pid}"):
                act(second, "add", "mine", y=1, x=2)
            first.stdin.write(b"theirs\n")
            first.stdin.flush()
            assert first.stdout.readline() == b"done\n"
            done = second.follow()[-1]
            assert (done.event["id"], done.name) == ("theirs", "a.mrc")
            assert second.history.of("a.mrc").places_px(True) == [(10, 20)]
    finally:
        first.stdin.close()
        first.wait(10)
    with held(tmp_path) as used_by:
        assert used_by is None


def test_a_reader_waits_for_the_rest_of_a_line(tmp_path):
    labels = opened(tmp_path)
    act(labels, "add", "p", y=10, x=20)
    reader = opened(tmp_path, used_by="another")
    line = json.dumps({"id": "q", "do": "complete", "micrograph": "a.mrc", "time": ""}) + "\n"
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write(line[:20])
        file.flush()
        assert reader.follow() == []
        file.write(line[20:])
    assert [done.event["id"] for done in reader.follow()] == ["q"]
    assert reader.history.of("a.mrc").state == "complete"


def test_thousands_of_clicks_are_replayed_and_undone_in_no_time(tmp_path):
    labels = opened(tmp_path)
    events = [{"id": f"i{n}", "do": "add", "micrograph": "a.mrc", "y": n % 199, "x": n % 299,
               "time": "2026-01-01T00:00:00"} for n in range(5000)]  # fmt: skip
    size = {"do": "size", "micrograph": "a.mrc", "height": 200, "width": 300}
    with (tmp_path / "events.jsonl").open("w") as file:
        file.writelines(json.dumps(event) + "\n" for event in [size, *events])
    labels = opened(tmp_path)
    start = time.perf_counter()
    for n in range(20):
        labels.act({"id": f"u{n}", "do": "undo", "of": f"i{4999 - n}"})
    assert (time.perf_counter() - start) / 20 < 0.1
    assert len(labels.history.of("a.mrc").marks) == 4980
