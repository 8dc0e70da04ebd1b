import os

import numpy as np
import pytest

from picking.detection.output import (
    identity,
    load_picks,
    not_done,
    open_output,
    save_picks,
    scored,
    write_summary,
)
from picking.errors import UserError
from picking.formats.picks import Picks


def some_picks(name="a.jpg", n=3):
    rng = np.random.default_rng(n)
    return Picks(name, rng.uniform(0, 300, (n, 2)), rng.random(n), np.full(n, 20.0), (400, 500))


@pytest.fixture
def done(tmp_path):
    """A folder in which a.jpg is picked, and the file of that micrograph."""
    micrograph = tmp_path / "a.jpg"
    micrograph.write_bytes(b"one micrograph")
    save_picks(tmp_path, some_picks(), identity(micrograph))
    return tmp_path, micrograph


def test_picks_come_back_from_their_file(done):
    folder, _ = done
    again, wanted = load_picks(folder, "a.jpg", (400, 500)), some_picks()
    assert (again.name, again.size_px) == (wanted.name, wanted.size_px)
    for field in ("centres_px", "scores", "diameters_px"):
        np.testing.assert_array_equal(getattr(again, field), getattr(wanted, field))


def test_a_micrograph_is_done_while_its_file_has_the_same_content(done, capsys):
    folder, micrograph = done
    assert not_done(folder, {"a.jpg": micrograph}) == []
    os.utime(micrograph, (1, 1))
    assert not_done(folder, {"a.jpg": micrograph}) == []
    assert "Picking again" not in capsys.readouterr().out
    for content in (b"two micrographs", b"six micrograph"):
        micrograph.write_bytes(content)
        assert not_done(folder, {"a.jpg": micrograph}) == ["a.jpg"]
        assert "Picking again" in capsys.readouterr().out


def test_picks_of_an_older_version_that_do_not_say_which_file_they_are_of_are_made_again(done):
    folder, micrograph = done
    arrays = dict(np.load(scored(folder, "a.jpg")))
    del arrays["of_file"]
    np.savez(scored(folder, "a.jpg"), **arrays)
    assert not_done(folder, {"a.jpg": micrograph, "b.jpg": folder / "b"}) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("n_bytes", [0, 300, -1])
def test_saved_picks_that_are_torn_say_what_to_delete(done, n_bytes):
    folder, micrograph = done
    path = scored(folder, "a.jpg")
    path.write_bytes(path.read_bytes()[:n_bytes])
    for use in (
        lambda: load_picks(folder, "a.jpg", (9, 9)),
        lambda: not_done(folder, {"a.jpg": micrograph}),
    ):
        with pytest.raises(UserError, match=r"a\.jpg\.npz is damaged .*delete it"):
            use()


@pytest.mark.parametrize("content", ["[3]", "{"])
def test_a_damaged_manifest_is_named(tmp_path, content):
    open_output(tmp_path, {"threshold": 0.5}, resume=False)
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json"):
        open_output(tmp_path, {"threshold": 0.5}, resume=True)


def test_the_summary_has_a_line_for_each_micrograph_also_for_one_without_picks(tmp_path):
    some, none = some_picks("a,b.jpg"), some_picks("c.jpg", n=0)
    left_out = {"d.mrc": "d.mrc is cut short"}
    write_summary(tmp_path / "summary.csv", [some, none], left_out, {"a,b.jpg": 7})
    header, first, second, third = (tmp_path / "summary.csv").read_text().splitlines()
    assert header == "micrograph,picks,median_score,median_diameter_px,left_out,in_junk"
    assert first == f'"a,b.jpg",3,{np.median(some.scores):.4g},20,,7'
    assert second == "c.jpg,0,,,,0"
    assert third == "d.mrc,,,,d.mrc is cut short,"
