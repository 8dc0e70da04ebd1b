"""The page in a real browser: what a person does, and what is on the disk after it."""

import json
import resource
import signal

import numpy as np
import pytest
from PIL import Image

from picking.formats.coordinates import read_picks
from tests.fixtures.browser import Window, started, until
from tests.fixtures.labelling import NASTY, SIZE_PX, Server, write_micrographs

NAMES = [*(f"{letter}.mrc" for letter in "abcdefghij"), NASTY]
PX = 1.5  # about as wide as a px of the screen on these micrographs


@pytest.fixture(scope="module")
def browser():
    with started() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    write_micrographs(folder / "raw", NAMES)
    server = Server(folder / "raw", folder / "labels")
    server.folder = folder
    yield server
    server.end()


@pytest.fixture
def window(browser, server):
    window = Window(browser, server)
    yield window
    window.close()


def near(places, expected):
    """Whether marks lie within a px of the screen of where they should, in any order."""
    flags = sorted(mark[2:] for mark in places) == sorted(mark[2:] for mark in expected)
    found = all(any(np.hypot(a[0] - b[0], a[1] - b[1]) < PX for b in expected) for a in places)
    return flags and found and len(places) == len(expected)


def on_disk(server, name, file="picks.star"):
    """Return (y, x) of what a STAR file has of a micrograph."""
    path = server.folder / "labels" / file
    if not path.exists():
        return []
    known = dict.fromkeys(NAMES, SIZE_PX)
    picks = {p.name: p.centres_px for p in read_picks([path], known)}
    return picks.get(name, np.empty((0, 2))).tolist()


def test_the_page_opens_with_the_token_which_leaves_the_address(browser, server, window):
    assert window.page.url == f"http://{server.host}/"
    assert sorted(window.names()) == sorted(NAMES)
    assert window.text("#saved") == "saved"


def test_without_the_token_there_is_a_sentence_and_no_page(browser, server):
    page = browser.new_page()
    answer = page.goto(f"http://{server.host}/")
    assert answer.status == 403
    assert "the whole address that label_particles.py printed" in page.inner_text("body")
    page.close()


def test_clicks_add_and_remove_and_are_in_the_star_file(server, window):
    window.open("a.mrc")
    window.click(200, 300)
    window.click(400, 500)
    assert near(window.marks(), [[200, 300, True], [400, 500, True]])  # before any answer
    window.saved()
    until(lambda: len(on_disk(server, "a.mrc")) == 2, "picks.star")
    assert near(on_disk(server, "a.mrc"), [[200, 300], [400, 500]])
    window.click(201, 299)
    assert near(window.marks(), [[400, 500, True]])
    window.saved()
    until(lambda: len(on_disk(server, "a.mrc")) == 1, "picks.star")
    assert window.text("#counts") == "1 particle"
    assert window.note("a.mrc") == "1"


def test_undo_and_redo_without_limit_by_keys_and_by_buttons(server, window):
    window.open("b.mrc")
    places = [[100 + 40 * n, 150 + 45 * n, True] for n in range(8)]
    for y, x, _ in places:
        window.click(y, x)
    window.saved()
    for _ in range(5):
        window.press("z")
    until(lambda: near(window.marks(), places[:3]), "undo")
    window.page.click("#undo")
    until(lambda: near(window.marks(), places[:2]), "undo")
    for _ in range(4):
        window.press("Shift+Z")
    until(lambda: near(window.marks(), places[:6]), "redo")
    window.saved()
    until(lambda: len(on_disk(server, "b.mrc")) == 6, "picks.star")


def test_undo_right_after_a_click_takes_that_click(window):
    window.open("b.mrc")
    before = window.marks()
    window.click(550, 60)
    window.press("z")  # before or after the server has the click
    until(lambda: window.marks() == before, "undo")
    window.saved()
    assert window.marks() == before


def test_undo_goes_to_the_micrograph_that_it_changes(window):
    window.open("h.mrc")
    window.click(300, 300)
    window.open("i.mrc")
    window.press("z")
    until(lambda: window.text("#name") == "h.mrc", "h.mrc")
    until(lambda: window.text("#counts") == "0 particles", "undo")
    assert window.text("#banner") == "Undone on h.mrc"


def test_a_mark_is_dragged_and_the_ground_is_panned(server, window):
    window.open("c.mrc")
    window.click(200, 300)
    window.drag((200, 300), (260, 380))
    assert near(window.marks(), [[260, 380, True]])
    before = window.at(0, 0)
    window.drag((450, 200), (480, 260))
    moved = np.subtract(window.at(0, 0), before)
    scale = (window.at(0, 100)[0] - window.at(0, 0)[0]) / 100
    assert np.allclose(moved, (60 * scale, 30 * scale), atol=1)
    assert near(window.marks(), [[260, 380, True]])
    window.saved()
    until(lambda: near(on_disk(server, "c.mrc"), [[260, 380]]), "picks.star")


def test_shift_click_says_that_there_is_no_particle(server, window):
    window.open("d.mrc")
    window.click(200, 300, "Shift")
    window.click(400, 300)
    window.click(400, 300, "Shift")  # what was taken for a particle is none
    assert near(window.marks(), [[200, 300, False], [400, 300, False]])
    window.saved()
    until(lambda: len(on_disk(server, "d.mrc", "not_particles.star")) == 2, "not_particles.star")
    assert near(on_disk(server, "d.mrc", "not_particles.star"), [[200, 300], [400, 300]])
    assert on_disk(server, "d.mrc") == []


def test_the_wheel_zooms_at_the_pointer_and_clicks_go_where_they_are_seen(window):
    window.open("e.mrc")
    point = np.round(window.at(220, 333))  # the mouse is on whole px of the screen
    corner, scale = np.array(window.at(0, 0)), window.at(0, 1)[0] - window.at(0, 0)[0]
    x, y = (point - corner) / scale
    window.page.mouse.move(*point)
    for _ in range(6):
        window.page.mouse.wheel(0, -200)
    until(lambda: window.at(0, 100)[0] - window.at(0, 0)[0] > 400, "the zoom")
    assert np.allclose(window.at(y, x), point, atol=0.5)
    window.click(231, 350)
    ((y, x, _),) = window.marks()
    assert abs(y - 231) < 0.3 and abs(x - 350) < 0.3
    window.press("0")
    window.click(231, 350)
    assert window.marks() == []


def test_the_brush_marks_junk_and_the_eraser_takes_it_away(server, window):
    window.open("f.mrc")
    window.press("b")
    window.drag((300, 200), (300, 400))
    window.press("e")
    window.drag((300, 300))
    window.saved()
    path = server.folder / "labels" / "junk" / "f.png"
    until(path.exists, "the mask")
    until(lambda: not np.asarray(Image.open(path))[300, 300], "the eraser")
    mask = np.asarray(Image.open(path)) > 127
    assert mask.shape == SIZE_PX
    assert mask[300, 200] and mask[300, 400] and mask[310, 230] and not mask[100, 100]
    assert window.marks() == []
    window.press("p")
    window.click(100, 100)
    assert near(window.marks(), [[100, 100, True]])


def test_what_is_complete_or_left_out_shows_in_the_strip_and_can_be_taken_back(server, window):
    window.open("g.mrc")
    window.press("c")
    until(lambda: "✓" in window.note("g.mrc"), "complete")
    window.press("x")
    until(lambda: window.note("g.mrc") == "⊘ left out", "left out")
    assert window.text("#state") == "left out"
    window.press("x")
    window.page.click("#complete")
    until(lambda: window.note("g.mrc") == "untouched", "untouched")
    window.page.select_option("#filter", "complete")
    assert window.page.locator(".micrograph:visible").count() == 1  # the one that is open


def test_a_reload_shows_the_same_micrograph_with_the_same_marks(server, window):
    window.open("j.mrc")
    window.click(200, 300)
    window.click(300, 400, "Shift")
    marks = window.marks()
    window.saved()  # else the browser asks whether to leave
    window.page.reload()
    window.page.wait_for_selector("body[data-opened]")
    until(lambda: window.text("#name") == "j.mrc", "j.mrc")
    until(lambda: near(window.marks(), marks), "the marks")


def test_a_name_with_html_is_text_and_nothing_of_it_runs(server, window):
    window.open(NASTY)
    assert window.text("#name") == NASTY
    assert NASTY.removesuffix(".mrc") in window.text(".micrograph[aria-selected=true]")
    assert window.page.locator("img[onerror]").count() == 0
    window.click(200, 300)
    window.saved()
    until(lambda: len(on_disk(server, NASTY)) == 1, "picks.star")
    other = next(name for name in NAMES if name != NASTY)
    window.open(other)
    window.press("z")
    until(lambda: window.text("#banner") == f"Undone on {NASTY}", "the banner")


def test_two_windows_show_the_same_within_a_second(browser, server, window):
    other = Window(browser, server)
    for one in (window, other):
        one.open("i.mrc")
    window.click(200, 300)
    until(lambda: near(other.marks(), [[200, 300, True]]), "the other window", 1)
    other.click(400, 300)
    other.click(200, 300)
    until(lambda: near(window.marks(), [[400, 300, True]]), "this window", 1)
    other.close()


def test_next_goes_to_what_is_proposed_and_its_reason_was_told(window):
    until(lambda: ": " in window.text("#next-why"), "a proposal")
    name = window.text("#next-why").rpartition(": ")[0]
    window.press("n")
    until(lambda: window.text("#name") == name, name)


def test_the_keys_are_shown_and_invert_changes_what_is_seen(window):
    window.open("a.mrc")
    window.press("?")
    assert window.page.locator("#help").is_visible()
    assert "no particle" in window.text("#help") and "invert" in window.text("#help")
    window.press("Escape")
    before = window.page.locator("#image").screenshot()
    window.press("i")
    until(lambda: window.page.locator("#image").screenshot() != before, "invert")


def test_of_a_long_strip_those_thumbnails_are_fetched_at_which_it_stops(browser, tmp_path):
    raw, n = tmp_path / "raw", 150
    write_micrographs(raw, ["000.mrc"])
    for number in range(1, n):
        (raw / f"{number:03d}.mrc").hardlink_to(raw / "000.mrc")
    server = Server(raw, tmp_path / "labels")
    try:
        window = Window(browser, server)
        thumbnails = "Array.from(document.querySelectorAll('.micrograph img'))"
        fetched = f"{thumbnails}.map(i => i.hasAttribute('src') && i.naturalWidth > 0)"
        assert len(window.page.evaluate(fetched)) == n
        window.page.evaluate("document.getElementById('strip').scrollLeft = 0")
        until(lambda: window.page.evaluate(fetched)[0], "the first")
        for _ in range(30):
            window.page.evaluate("document.getElementById('strip').scrollLeft += 550")
        until(lambda: all(window.page.evaluate(fetched)[-10:]), "the last")
        assert sum(window.page.evaluate(fetched)) < n / 2
        window.close()
    finally:
        server.end()


def test_clicks_while_the_server_is_gone_are_kept_and_counted_once(browser, tmp_path):
    write_micrographs(tmp_path / "raw", ["a.mrc", "b.mrc"])
    server = Server(tmp_path / "raw", tmp_path / "labels")
    server.folder = tmp_path
    window = Window(browser, server)
    window.open("a.mrc")
    window.click(100, 100)
    server.end(signal.SIGKILL)
    places = [[100, 100, True]]
    for n in range(5):
        window.click(200, 100 + 80 * n)
        places.append([200, 100 + 80 * n, True])
    until(lambda: "does not answer" in window.text("#banner"), "the banner")
    assert window.text("#saved").endswith("not saved yet")
    window.press("z")
    places.pop()
    assert near(window.marks(), places)
    server = Server(tmp_path / "raw", tmp_path / "labels", port=server.port)
    server.folder = tmp_path
    try:
        window.saved()
        until(lambda: not window.page.locator("#banner").is_visible(), "the line")
        assert near(window.marks(), places)
        until(lambda: near(on_disk(server, "a.mrc"), [p[:2] for p in places]), "picks.star")
        window.click(300, 300)
        window.saved()
        window.close()
    finally:
        server.end()


def test_what_was_clicked_for_one_folder_never_goes_into_another(browser, tmp_path):
    write_micrographs(tmp_path / "raw", ["a.mrc"])
    first = Server(tmp_path / "raw", tmp_path / "labels")
    window = Window(browser, first)
    window.click(100, 100)
    window.saved()
    first.end(signal.SIGKILL)
    window.click(200, 200)
    second = Server(tmp_path / "raw", tmp_path / "others", port=first.port)
    try:
        other = Window(browser, second, window.context)  # which gives the browser its cookie
        until(lambda: "another folder of labels" in window.text("#banner"), "the banner")
        assert window.text("#saved") == "1 not saved yet" and other.marks() == []
        second.end()
        third = Server(tmp_path / "raw", tmp_path / "labels", port=first.port)
        again = Window(browser, third, window.context)
        until(lambda: window.text("#saved") == "saved", "the first folder")
        until(lambda: len(again.marks()) == 2, "both marks")
        window.close()
        third.end()
    finally:
        second.end()


def test_of_a_full_disk_the_page_tells_and_sends_again_once_there_is_room(browser, tmp_path):
    write_micrographs(tmp_path / "raw", ["a.mrc"])
    server = Server(tmp_path / "raw", tmp_path / "labels")
    window = Window(browser, server)
    try:
        window.click(100, 100)
        window.saved()
        pid, limit = server.process.pid, resource.RLIMIT_FSIZE
        before = resource.prlimit(pid, limit, (2000, resource.RLIM_INFINITY))
        centres = [[200 + n, 300] for n in range(200)]
        window.page.evaluate("centres => labelling.act('accept', {centres})", centres)
        until(lambda: "events.jsonl is too large" in window.text("#banner"), "the banner")
        assert window.text("#saved") == "1 not saved yet"
        assert len(window.marks()) == 201
        window.click(400, 100)
        resource.prlimit(pid, limit, before)
        window.saved()
        until(lambda: not window.page.locator("#banner").is_visible(), "the end of it")
        events = [json.loads(line) for line in (tmp_path / "labels/events.jsonl").open()]
        assert [event["do"] for event in events] == ["size", "add", "accept", "add"]
        window.close()
    finally:
        server.end()


TINY = """
data: {batch_ratio: [3, 8], input_size_px: 64}
model: {backbone: unet, width: 4, depth: 2}
loss: {prior: pool, unlabeled_prior: data, adaptive_threshold: true}
optimizer: {lr: 0.003}
training: {batch_size: 22, epochs: 1000, max_steps: 40, early_stopping_patience: 1000}
"""


def test_from_clicks_to_a_trained_network_its_proposals_and_an_exported_star_file(
    browser, tmp_path
):
    centres = write_micrographs(tmp_path / "raw", ["a.mrc", "b.mrc", "c.mrc"])
    (tmp_path / "tiny.yaml").write_text(TINY)
    more = "--config", str(tmp_path / "tiny.yaml")
    server = Server(tmp_path / "raw", tmp_path / "labels", *more)
    window = Window(browser, server)
    try:
        for name in ("a.mrc", "b.mrc"):
            window.open(name)
            for y, x in centres[name][:12].tolist():
                window.click(y, x)
        window.saved()
        window.page.fill("#expected", "20")
        window.page.click("#train")
        until(lambda: "Round 1: " in window.text("#round-text"), "the round")
        window.page.close()  # nobody need look on, and the server may end meanwhile
        server.end(signal.SIGKILL)
        server = Server(tmp_path / "raw", tmp_path / "labels", *more, port=server.port)
        window = Window(browser, server, window.context, f"http://{server.host}/")
        until(lambda: "Round 1 is done" in window.text("#round-text"), "the end", 300)
        window.open("c.mrc")
        proposals = until(lambda: window.page.evaluate("labelling.proposals()"), "proposals")
        scores = sorted((score for _, _, score in proposals), reverse=True)
        middle = scores[min(len(scores) // 2, 10)]
        window.page.locator("#threshold").fill(f"{round(middle / 0.005) * 0.005:.3f}")
        shown = window.page.evaluate("labelling.proposals()")
        assert 0 < len(shown) < len(proposals)
        kept = tmp_path / "labels" / "rounds" / "1" / "threshold.json"
        until(kept.exists, "the threshold")
        until(lambda: "prop." in window.note("c.mrc"), "counts in the strip")
        window.click(*shown[0][:2])
        window.click(*shown[1][:2], "Shift")
        assert window.page.locator("#n-proposals").inner_text() == str(len(shown) - 2)
        until(lambda: window.note("c.mrc") == f"1 · 1 ✕ · +{len(shown) - 2}", "what is left")
        expected = [[*shown[0][:2], True], [*shown[1][:2], False]]
        assert near(window.marks(), expected)
        window.press("a")
        assert window.page.evaluate("labelling.proposals()") == []
        n = sum(mark[2] for mark in window.marks())
        assert n == len(shown) - 1
        until(lambda: window.note("c.mrc") == f"{n} · 1 ✕ · +0", "nothing left")
        window.saved()
        assert "not known, with 0 complete" in window.text("#quality")
        window.press("c")
        window.saved()
        window.page.click("#export")
        until(lambda: "picks are in" in window.text("#export-text"), "the export")
        assert "which 3 of 3 micrographs have" in window.text("#export-text")
        ends = "[...document.querySelectorAll('aside, #export-text')].map(one => "
        whole, text = window.page.evaluate(ends + "one.getBoundingClientRect().bottom)")
        assert text <= whole + 1  # in a window so low it is scrolled into sight
        star = tmp_path / "labels" / "export" / "star" / "c.star"
        (picks,) = read_picks([star], {"c.mrc": SIZE_PX})
        assert len(picks.centres_px) == n
        window.close()
    finally:
        server.end()


def test_proposals_come_before_any_label_and_are_corrected_box_by_box(browser, tmp_path):
    centres = write_micrographs(tmp_path / "raw", ["a.mrc", "b.mrc"])
    server = Server(tmp_path / "raw", tmp_path / "labels")
    window = Window(browser, server)
    try:
        assert "Or begin with proposals" in window.text("#round-text")
        window.page.click("#propose")
        done = "Round 1 is done (by the general network)."
        until(lambda: window.text("#round-text") == done, "the proposals", 120)
        assert not window.page.locator("#propose").is_visible()
        window.open("a.mrc")
        shown = until(lambda: window.page.evaluate("labelling.proposals()"), "proposals")
        found = np.array(shown)[:, :2]
        away = np.linalg.norm(found[:, None] - centres["a.mrc"], axis=2)
        assert away.min(axis=0).max() < 10 and len(found) >= len(centres["a.mrc"])
        # One is rejected, all others in a box are accepted at once
        inside = [[y, x] for y, x, _ in shown if 40 < y < 320 and 40 < x < 640]
        window.click(*inside[0], "Shift")
        window.page.keyboard.down("Control")
        window.drag((40, 40), (320, 640))
        window.page.keyboard.up("Control")
        window.page.click("#box-accept")
        expected = [[y, x, [y, x] != inside[0]] for y, x in inside]
        assert near(window.marks(), expected) and len(expected) > 5
        window.close()
    finally:
        server.end()


def test_a_second_server_on_the_folder_is_looked_at_and_says_who_has_it(browser, tmp_path):
    write_micrographs(tmp_path / "raw", ["a.mrc"])
    first = Server(tmp_path / "raw", tmp_path / "labels")
    second = Server(tmp_path / "raw", tmp_path / "labels")
    try:
        writer, reader = Window(browser, first), Window(browser, second)
        assert f"in use by process {first.process.pid}" in reader.text("#banner")
        writer.click(200, 300)
        until(lambda: near(reader.marks(), [[200, 300, True]]), "the reader", 2)
        reader.click(400, 300)
        assert near(reader.marks(), [[200, 300, True]])
        writer.close()
        reader.close()
    finally:
        second.end()
        first.end()
