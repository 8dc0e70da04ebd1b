"""The server without a browser: who may ask, what it answers, how it starts and ends."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from picking.formats.coordinates import read_picks
from tests.fixtures import ROOT
from tests.fixtures.labelling import NASTY, SIZE_PX, Server, write_micrographs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelling")
    write_micrographs(folder / "raw")
    return folder


@pytest.fixture(scope="module")
def server(folder):
    server = Server(folder / "raw", folder / "labels")
    yield server
    server.end()


def add(own, name="a.mrc", **more):
    return {"id": own, "do": "add", "micrograph": name, "y": 100, "x": 120, **more}


# Who may ask


def test_the_first_address_gives_a_cookie_that_no_script_and_no_other_site_gets(server):
    answer = server.ask(f"/?token={server.token}", Cookie=None)
    assert answer.status == 200
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert server.token not in cookie
    assert len(server.token) >= 32


@pytest.mark.parametrize("path", ["/", "/session", "/micrographs/0", "/thumbnails/0", "/next",
                                  "/tiles/0/0/0/0", "/page/main.js", "/pushes", "/?token=",
                                  "/?token=wrong", "/session?token={token}"])  # fmt: skip
def test_without_the_cookie_nothing_is_answered(server, path):
    for cookie in (None, "labelling=1", f"labelling_{server.port}=wrong", '="; \x7f'):
        answer = server.ask(path.format(token=server.token), Cookie=cookie)
        assert answer.status == 403
        assert b"label_particles.py printed" in answer.content
        assert "set-cookie" not in answer.headers


def test_actions_need_the_cookie_too(server):
    assert server.ask("/actions", {"actions": [add("x")]}, Cookie=None).status == 403


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "", "127.0.0.1.evil.example", "localhost@evil.example",
     "10.0.0.5:{port}", "[::2]"],
)  # fmt: skip
def test_another_host_is_not_answered_even_with_token_and_cookie(server, host):
    host = host.format(port=server.port)
    assert server.ask("/session", Host=host).status == 421
    assert server.ask(f"/?token={server.token}", Host=host, Cookie=None).status == 421


@pytest.mark.parametrize("host", ["localhost:{port}", "127.0.0.1:9999", "[::1]:9999", "LOCALHOST"])
def test_a_tunnel_may_have_another_port_and_name_of_this_machine(server, host):
    assert server.ask("/session", Host=host.format(port=server.port)).status == 200


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "https://{host}", "http://127.0.0.1:1",
     "http://{host}.evil.example"],
)  # fmt: skip
def test_requests_that_pages_of_others_send_are_refused(server, origin):
    origin = origin.format(host=server.host)
    assert server.ask("/session", Origin=origin).status == 403
    assert server.ask("/actions", {"actions": [add("evil")]}, Origin=origin).status == 403
    assert server.ask("/session", Origin=f"http://{server.host}").status == 200


def test_a_browser_that_says_the_request_is_of_another_site_is_believed(server):
    assert server.ask("/thumbnails/0", Sec_Fetch_Site="cross-site").status == 403
    assert server.ask("/thumbnails/0", Sec_Fetch_Site="same-origin").status == 200


def test_no_websocket_is_opened(server):
    answer = server.ask("/pushes", Connection="Upgrade", Upgrade="websocket",
                        Sec_WebSocket_Version="13", Sec_WebSocket_Key="AAAAAAAAAAAAAAAAAAAAAA==",
                        Cookie=None)  # fmt: skip
    assert answer.status in (400, 403)


def test_every_answer_forbids_scripts_of_others_and_frames(server):
    for path in ("/", "/session", "/nothing", "/page/main.js"):
        headers = server.ask(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy
        assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("path", ["/page/../../folder/labels.py", "/page/..%2f..%2fstart.py",
                                  "/page/%2e%2e/start.py", "/page//etc/passwd", "/page/.token",
                                  "/page/%2fetc%2fpasswd", "/../../etc/passwd", "/.token",
                                  "/events.jsonl", "/micrographs/../session/x",
                                  "/micrographs/-1", "/micrographs/99", "/micrographs/a.mrc",
                                  "/tiles/0/0/0/-1", "/tiles/0/99/0/0", "/thumbnails/99",
                                  "/tiles/0/0/0/99"])  # fmt: skip
def test_no_path_leads_out_of_what_is_served(server, path):
    answer = server.ask(path)
    assert answer.status == 404
    assert b"root:" not in answer.content


# What is answered


def test_the_session_lists_micrographs_with_states(server):
    session = server.json("/session")
    assert [row["name"] for row in session["micrographs"]] == [NASTY, "a.mrc", "b.mrc", "c.mrc"]
    assert session["used_by"] is None and session["diameter"] == "80A"


def test_html_is_sent_as_json_and_never_as_html(server):
    answer = server.ask("/session")
    assert answer.headers["content-type"] == "application/json"
    assert NASTY.encode() in answer.content


def test_an_action_is_done_pushed_and_counts_once(server):
    pushes = server.listen()
    assert "hello" in next(pushes)
    assert server.act(add("once")) == [{"id": "once", "known": False}]
    message = next(pushes)
    assert (message["event"]["id"], message["micrograph"]) == ("once", 1)
    assert message["row"]["picks"] >= 1 and message["undo"] == "once"
    before = server.json("/session")["micrographs"][1]["picks"]
    assert server.act(add("once")) == [{"id": "once", "known": True}]
    assert server.json("/session")["micrographs"][1]["picks"] == before


def test_undo_without_a_name_takes_the_last_and_the_page_gets_all_labels(server):
    server.act(add("last", "b.mrc"))
    pushes = server.listen()
    next(pushes)
    server.act({"id": "undo1", "do": "undo", "of": None})
    message = next(pushes)
    assert (message["event"]["of"], message["micrograph"]) == ("last", 2)
    assert message["labels"]["marks"] == [] and message["redo"] == "last"


@pytest.mark.parametrize("action", [None, {}, {"id": "i", "do": "rm"}, add("i", "../a.mrc"),
                                    add("i", y=1e9), add("i", y="1"), add({"a": 1})])  # fmt: skip
def test_what_is_no_action_is_refused_and_the_next_one_is_done(server, action):
    own = f"after{os.urandom(4).hex()}"
    refused, done = server.act(action, add(own, "c.mrc"))
    assert "refused" in refused and done["known"] is False


@pytest.mark.parametrize(
    "body, status",
    [(b"{", 400), (b"[]", 400), (b'{"session": "", "actions": []}', 409), (b"[" * 100_000, 400),
     (b" " * 9_000_000, 413)],
)  # fmt: skip
def test_a_body_that_is_none_is_refused(server, body, status):
    assert server.ask("/actions", body).status == status


def test_a_form_of_another_site_is_no_json(server):
    assert server.ask("/actions", {"actions": []}, Content_Type="text/plain").status == 415
    assert server.ask("/actions").status == 405


def test_tiles_have_an_address_that_changes_with_the_file_and_may_be_kept(server):
    shown = server.json("/micrographs/1")
    assert shown["size_px"] == [600, 700] and shown["n_levels"] == 3
    assert shown["diameter_px"] == 40
    answer = server.ask(f"/tiles/1/0/0/0?v={shown['stamp']}")
    assert answer.content[:3] == b"\xff\xd8\xff"
    assert "immutable" in answer.headers["cache-control"]


def test_the_next_micrograph_is_another_and_says_why(server):
    proposal = server.json("/next?after=1")
    assert proposal["micrograph"] != 1 and proposal["why"]
    assert server.json("/next?after=1") == proposal  # it stands until it was looked at
    server.json(f"/micrographs/{proposal['micrograph']}")
    assert server.json("/next?after=1") != proposal


def test_clicks_of_a_window_on_other_labels_are_refused(server):
    answer = server.ask("/actions", {"session": "another", "actions": [add("astray")]})
    assert answer.status == 409 and b"reload this page" in answer.content
    session = server.json("/session")["id"]
    assert server.ask("/actions", {"session": session, "actions": 5}).status == 400
    assert "astray" not in json.dumps(server.json("/micrographs/1"))


# Rounds


@pytest.mark.parametrize(
    "path, body, said",
    [
        ("/train", {}, "are too few to learn from"),
        ("/train", {"expected": -1}, "is above 0"),
        ("/train", {"expected": "x"}, "is above 0"),
        ("/go-on", {}, "there is no round yet"),
        ("/threshold", {"threshold": 0.5}, "there are no proposals yet"),
        ("/export", {"formats": ["exe"]}, "formats are some of star"),
        ("/export", {"formats": ["../x"]}, "formats are some of star"),
        ("/export", {}, "formats are some of star"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(server, path, body, said):
    answer = server.ask(path, body)
    assert answer.status == 422
    assert said in json.loads(answer.content)["problem"]
    assert server.ask(path, body, Cookie=None).status == 403
    assert server.ask(path, body, Origin="http://evil.example").status == 403
    assert server.ask(path).status == 405


def test_the_number_on_each_is_that_of_complete_micrographs_unless_they_are_emptier(server):
    def usual(*own_and_do):
        actions = [{"id": own, "do": do, "micrograph": "b.mrc"} for own, do in own_and_do]
        assert all(answer["known"] is False for answer in server.act(*actions))
        return server.json("/learning")["usual"]

    many = [[10 * n + 5, 100] for n in range(40)]
    server.act({"id": "many", "do": "accept", "micrograph": "b.mrc", "centres": many})
    assert usual(("on", "complete")) == 40
    server.act({"id": "more", "do": "accept", "micrograph": "c.mrc", "centres": many * 20})
    assert usual() is None
    server.act({"id": "undo2", "do": "undo", "of": "more"})
    assert usual() == 40 and usual(("off", "not_complete")) is None


def test_labels_alone_are_exported_too(server, folder):
    server.act(add("exported", "c.mrc", y=310))
    answer = json.loads(server.ask("/export", {"formats": ["star", "csv"]}).content)
    assert answer["n_picks"] >= 1
    assert "c.star" in [path.name for path in (folder / "labels/export/star").iterdir()]


# Starting and ending


def run(*more):
    command = [sys.executable, str(ROOT / "label_particles.py"), *map(str, more)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_without_a_page_or_a_click_all_is_proposed_and_exported(tmp_path):
    centres = write_micrographs(tmp_path / "raw", ["a.mrc", "b.mrc"])
    labels = tmp_path / "labels"
    raw = "--micrographs", f"{tmp_path}/raw/*.mrc", "--diameter", "80A"
    assert run("--output", labels, *raw, "--propose").returncode == 0
    assert run("--output", labels, "--export", "star").returncode == 0
    for name, expected in centres.items():
        star = labels / "export" / "star" / Path(name).with_suffix(".star")
        (picks,) = read_picks([star], {name: SIZE_PX})
        away = np.linalg.norm(picks.centres_px[:, None] - expected, axis=2).min(axis=0)
        assert np.median(away) < 5


def test_a_port_in_use_is_one_sentence_that_names_a_free_one(folder, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("--output", tmp_path / "l", "--micrographs", f"{folder}/raw/*.mrc",
                     "--diameter", "80A", "--port", port)  # fmt: skip
    assert result.returncode == 2
    start = f"error: port {port} is in use: --port "
    assert result.stderr.startswith(start) and result.stderr.endswith(" is free\n")
    free = int(result.stderr.removeprefix(start).split()[0])
    with socket.socket() as now:
        now.bind(("127.0.0.1", free))


@pytest.mark.parametrize(
    "more, said",
    [
        (("--micrographs", "{raw}/*.mrc"), "--diameter is missing"),
        (("--diameter", "80A"), "--micrographs is missing"),
        (("--micrographs", "{raw}/*.mrc", "--diameter", "5A"), "below 6 px nothing can be told"),
        (("--micrographs", "{raw}/*.mrc", "--diameter", "80A", "--host", "no.such.host"),
         "--host no.such.host is no name or address"),
        (("--micrographs", "{raw}/*.mrc", "--diameter", "80A", "--port", "-1"), "--port is -1"),
        (("--propose", "--train"), "--propose, --train, --go-on and --export are done one after"),
        (("--propose", "--config", "a.yaml"), "--config is of training: it goes with --train"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(folder, tmp_path, more, said):
    filled = [part.format(raw=folder / "raw") for part in more]
    result = run("--output", tmp_path / "labels", "--port", 0, *filled)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert said in result.stderr


def test_ctrl_c_ends_it_though_a_page_listens_and_the_files_are_written(folder, tmp_path):
    server = Server(folder / "raw", tmp_path / "labels")
    pushes = server.listen()
    next(pushes)
    server.act(add("p"))
    status, err = server.end()
    assert status == 130 and err.startswith("interrupted: ") and err.count("\n") == 1
    assert (tmp_path / "labels" / "picks.star").exists()


def test_a_ctrl_c_right_after_the_address_was_printed_ends_it_too(folder, tmp_path):
    for _ in range(3):
        status, err = Server(folder / "raw", tmp_path / "labels").end()
        assert (status, err.splitlines()[-1].partition(":")[0]) == (130, "interrupted")


def test_after_a_kill_the_same_folder_port_and_cookie_go_on(folder, tmp_path):
    first = Server(folder / "raw", tmp_path / "labels")
    first.act(add("p"), add("q", "b.mrc"))
    cookie = first.cookie()
    assert first.end(signal.SIGKILL)[0] == -signal.SIGKILL
    second = Server(folder / "raw", tmp_path / "labels", port=first.port)
    try:
        answer = second.ask("/session", Cookie=cookie)
        rows = {row["name"]: row for row in json.loads(answer.content)["micrographs"]}
        assert (rows["a.mrc"]["picks"], rows["b.mrc"]["picks"]) == (1, 1)
        assert second.act(add("p")) == [{"id": "p", "known": True}]
    finally:
        second.end()


def test_nobody_else_can_read_the_token(server, folder):
    assert (folder / "labels" / ".token").stat().st_mode & 0o077 == 0


def test_a_second_server_shows_the_labels_and_does_not_change_them(folder, tmp_path):
    first = Server(folder / "raw", tmp_path / "labels")
    second = Server(folder / "raw", tmp_path / "labels")
    try:
        assert f"process {first.process.pid} on " in second.json("/session")["used_by"]
        pushes = second.listen()
        next(pushes)
        first.act(add("p"))
        assert next(pushes)["event"]["id"] == "p"
        assert second.json("/session")["micrographs"][1]["picks"] == 1
        (answer,) = second.act(add("q"))
        assert f"in use by process {first.process.pid}" in answer["refused"]
        for path in ("/propose", "/train", "/go-on", "/stop", "/threshold", "/export"):
            body = {"threshold": 0.5, "formats": ["star"]}
            assert b"in use by process" in second.ask(path, body).content
    finally:
        _, err = second.end()
        first.end()
    assert "warning: the labels are in use by process" in err


def test_a_micrograph_that_cannot_be_read_and_one_that_vanished_are_said(tmp_path):
    write_micrographs(tmp_path / "raw", ["a.mrc", "b.mrc", "d.mrc"])
    server = Server(tmp_path / "raw", tmp_path / "labels")
    server.act(add("p", "b.mrc"), add("o", "d.mrc"))
    server.end()
    (tmp_path / "raw" / "a.mrc").write_bytes(b"no micrograph")
    (tmp_path / "raw" / "b.mrc").unlink()
    server = Server(tmp_path / "raw", tmp_path / "labels")
    try:
        rows = {row["name"]: row for row in server.json("/session")["micrographs"]}
        assert "cannot be read" in rows["a.mrc"]["problem"]
        assert "not there any more" in rows["b.mrc"]["problem"] and rows["b.mrc"]["picks"] == 1
        (tmp_path / "raw" / "d.mrc").unlink()  # while it runs
        place = [*rows].index("d.mrc")
        answer = server.ask(f"/micrographs/{place}")
        assert answer.status == 422 and b"d.mrc cannot be read" in answer.content
        assert server.act(add("q", "d.mrc"))[0]["known"] is False
    finally:
        server.end()
    assert "b.mrc" in (tmp_path / "labels" / "picks.star").read_text()


def test_the_folder_of_other_micrographs_is_refused(folder, tmp_path):
    server = Server(folder / "raw", tmp_path / "labels")
    server.act(add("p"))
    server.end()
    write_micrographs(tmp_path / "others", ["a.mrc", "x.mrc"])
    more = ("--output", tmp_path / "labels", "--port", 0, "--diameter", "80A")
    result = run(*more, "--micrographs", f"{tmp_path}/others/*.mrc")
    assert result.returncode == 2 and "is another file of this name" in result.stderr
    result = run(*more, "--micrographs", f"{tmp_path}/others/x.mrc")
    assert result.returncode == 2 and "none of these is among" in result.stderr
    assert "p" in (tmp_path / "labels" / "events.jsonl").read_text()
