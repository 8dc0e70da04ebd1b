"""Micrographs and files of coordinates on the command line: globs, folders, links, by-products."""

import os
import re
import shlex
from pathlib import Path

import pytest

from picking.errors import InputWarning, UserError
from picking.inputs.paths import find_coordinates, find_micrographs

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def touch(here):
    """Make empty files, and the folders they lie in."""

    def make(*names):
        for name in names:
            (here / name).parent.mkdir(parents=True, exist_ok=True)
            (here / name).touch()

    return make


def found(*patterns, **named):
    return [str(path) for path in find_micrographs(patterns, **named).values()]


def refused(*patterns, by=find_micrographs):
    with pytest.raises(UserError) as error:
        by(patterns)
    return str(error.value)


# Named outright


@pytest.mark.parametrize("name", ["x.mrcs", "x.eer", "x.xml", "x"])
def test_a_file_named_outright_that_is_no_micrograph_is_refused_by_name(touch, name):
    touch("a.mrc", name)
    assert f"{name} is no micrograph" in refused("a.mrc", name)
    assert f"{name} is no file of coordinates" in refused(name, by=find_coordinates)


@pytest.mark.parametrize("name", ["x.mrc", "x.star"])
def test_a_link_to_nothing_named_outright_is_refused_with_where_it_leads(here, touch, name):
    (here / name).symlink_to("scratch/gone")
    touch("a.mrc", "a.star")
    by = find_micrographs if name == "x.mrc" else find_coordinates
    beside = "a.mrc" if name == "x.mrc" else "a.star"
    assert f"{name} is a link to scratch/gone, which is not" in refused(beside, name, by=by)


def test_what_is_not_there_is_named_with_the_endings_that_are(touch):
    touch("raw/a.MRC", "raw/b.tif")
    for pattern in ("raw/a.mrc", "raw/*.mrc", "raw/{a,b}.mrc"):
        assert f"{pattern}'; files in raw end in .MRC, .tif" in refused(pattern)


def test_an_empty_name_is_refused():
    assert "that '' matches" in refused("")


@pytest.mark.parametrize("name", ["x" * 300 + ".mrc", "x" * 300 + "/*.mrc", "a/" * 3000 + "*.mrc"])
def test_a_name_longer_than_any_file_may_have_is_a_sentence(name):
    assert "no file matches" in refused(name)


def test_a_device_is_no_file(here):
    os.mkfifo(here / "a.mrc")
    assert "a.mrc is a device or the like" in refused("a.mrc")


def test_hidden_files_are_used_only_when_they_are_named(touch):
    touch("raw/a.mrc", "raw/._a.mrc", "raw/.b.mrc")
    assert found("raw/*.mrc") == ["raw/a.mrc"]
    assert found("raw/.b.mrc") == ["raw/.b.mrc"]


# What a pattern matches besides


@pytest.mark.parametrize(("n_others", "is_refused"), [(1, False), (2, True)])
def test_what_else_a_pattern_matches_is_counted_and_refused_above_a_tenth(
    touch, n_others, is_refused
):
    others = ["raw/m.mrc.log", "raw/n.eer"][:n_others]
    touch(*(f"raw/{i}.mrc" for i in range(10)), *others)
    words = rf"{n_others} of {10 + n_others} files .*raw/\* match can be no micrograph.*m\.mrc\.log"
    if is_refused:
        assert re.search(words + ".*--allow-partial", refused("raw/*"))
    with pytest.warns(InputWarning, match=words):
        assert len(found("raw/*", allow_partial=is_refused)) == 10


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_links_to_nothing_and_folders_that_a_pattern_matches_are_said(here, touch, kind):
    touch(*(f"raw/{i}.mrc" for i in range(10)))
    if kind == "link":
        (here / "raw/x.mrc").symlink_to("gone")
    else:
        (here / "raw/x.mrc").mkdir()
    with pytest.warns(InputWarning, match=rf"1 of 11 files .*raw/x\.mrc, a {kind}"):
        assert len(found("raw/*.mrc")) == 10


def test_a_pattern_without_any_micrograph_is_refused_even_when_parts_may_be_left_out(touch):
    touch("raw/a.mrc", "raw/x.log", "raw/y.log")
    with pytest.raises(UserError, match=r"none of the 2 files that 'raw/\*\.log' matches is a "):
        find_micrographs(["raw/*.mrc", "raw/*.log"], allow_partial=True)


def test_files_of_coordinates_have_the_same_care(touch):
    touch("picks/a.star", "picks/b.BOX", "picks/run.out")
    assert re.search(
        r"1 of 3 files .* can be no file of coordinates \(e\.g\. picks/run\.out\)",
        refused("picks/*", by=find_coordinates),
    )
    with pytest.warns(InputWarning, match=r"run\.out"):
        paths = find_coordinates(["picks/*"], allow_partial=True)
    assert [path.name for path in paths] == ["a.star", "b.BOX"]


def test_good_patterns_say_nothing(touch):
    touch("raw/a.mrc", "raw/b.MRC", "raw/c.Tif", "raw/deep/d.mrc", "raw/x.log")
    assert found("raw/[ab].*", "raw/?.Tif") == ["raw/a.mrc", "raw/b.MRC", "raw/c.Tif"]
    assert found("raw/**/*.mrc") == ["raw/a.mrc", "raw/deep/d.mrc"]
    assert found("raw/a.mrc", "./raw/a.mrc", "raw/a*.mrc") == ["raw/a.mrc"]


# Folders


def test_a_folder_is_refused_with_the_patterns_to_give_instead(touch):
    touch("my data[1]/a.mrc", "my data[1]/b.mrc", "my data[1]/c.TIF", "my data[1]/x.star")
    sentence = refused("my data[1]")
    cures = shlex.split(sentence.partition("give ")[2])
    assert cures == ["my data[1]/*.TIF", "or", "my data[1]/*.mrc"]
    assert len(found(*cures[::2])) == 3
    (cure,) = shlex.split(refused("my data[1]", by=find_coordinates).partition("give ")[2])
    assert [str(path) for path in find_coordinates([cure])] == ["my data[1]/x.star"]


def test_a_folder_of_folders_and_one_without_micrographs_are_said(here, touch):
    touch("raw/one/a.mrc", "raw/x.log", "empty/x.log")
    (cure,) = shlex.split(refused("raw/").partition("give ")[2])
    assert found(cure) == ["raw/one/a.mrc"]
    assert "empty is a folder without a micrograph" in refused("empty")


@pytest.mark.parametrize("folder", ["data[1]", "a*b", "x?", "[!a]", "[", "data[1]/[2]"])
def test_brackets_and_stars_in_names_of_folders_are_taken_as_they_stand(touch, folder):
    touch(f"{folder}/a.mrc", f"{folder}/b.mrc", "data1/z.mrc", "axb/z.mrc", "xy/z.mrc")
    assert found(f"{folder}/*.mrc") == [f"{folder}/a.mrc", f"{folder}/b.mrc"]
    assert found(f"{folder}/[a].mrc") == [f"{folder}/a.mrc"]


def test_brackets_in_names_of_files_are_taken_as_they_stand_where_nothing_else_fits(touch):
    touch("img[1]_a.mrc", "img[1]_b.mrc")
    assert found("img[1]_*.mrc") == ["img[1]_a.mrc", "img[1]_b.mrc"]
    assert found("img[1]_a.mrc") == ["img[1]_a.mrc"]
    touch("img1_a.mrc")
    assert found("img[1]_*.mrc") == ["img1_a.mrc"]


# What programs put beside micrographs

BY_PRODUCTS = [
    "a_PS.mrc", "a_EVN.mrc", "a_ODD.mrc", "a_noDW.mrc", "a_DWS.mrc", "a_Stk.mrc", "a_CTF.mrc",
    "a_ctffind4.mrc", "a_ctf_diag_2D.mrc", "a_powpair.jpg", "a_background.mrc", "a_thumb@1x.png",
    "a_EVN_PS.mrc",
]  # fmt: skip


def test_power_spectra_and_the_like_are_left_out_of_a_pattern_and_said(touch):
    touch(*(f"raw/{name}" for name in ("a.mrc", "grid_PS.mrc", "even.mrc", *BY_PRODUCTS)))
    with pytest.warns(InputWarning, match=rf"{len(BY_PRODUCTS)} of {len(BY_PRODUCTS) + 3} .*a_CTF"):
        assert found("raw/*") == ["raw/a.mrc", "raw/even.mrc", "raw/grid_PS.mrc"]


def test_they_are_left_out_too_where_the_shell_names_each(touch):
    doseweighted = "b_patch_aligned_doseweighted.mrc"
    touch("a.mrc", "a_PS.mrc", doseweighted, "b_background.mrc")
    with pytest.warns(InputWarning, match="2 of 4 files are named after a micrograph"):
        assert found(*sorted(map(str, Path().iterdir()))) == ["a.mrc", doseweighted]


@pytest.mark.parametrize("pattern", ["a_EVN.mrc", "*_EVN.mrc"])
def test_given_alone_they_are_taken_with_a_warning(touch, pattern):
    touch("a.mrc", "a_EVN.mrc")
    with pytest.warns(InputWarning, match=r"1 of 1 micrographs .*a_EVN\.mrc.*check"):
        assert found(pattern) == ["a_EVN.mrc"]


def test_micrographs_that_would_share_their_files_of_picks_are_refused(touch):
    touch("a.mrc", "a.tif", "one/b.mrc", "two/b.mrc", "caf\u00e9.mrc", "cafe\u0301.mrc")
    for pattern, name in (("a.*", "a.mrc"), ("*/b.mrc", "one/b.mrc"), ("caf*", "caf\u00e9.mrc")):
        sentence = refused(pattern)
        assert name in sentence and "would have the same files of picks" in sentence


def test_a_quoted_tilde_is_the_home_as_in_a_shell(touch, here, monkeypatch):
    touch("raw/a.mrc")
    monkeypatch.setenv("HOME", str(here))
    assert found("~/raw/*.mrc") == [str(here / "raw/a.mrc")]
    touch("~/raw/b.mrc")
    assert found("~/raw/b.mrc") == ["~/raw/b.mrc"]
