"""Names of micrographs: what is written is read back by us, by starfile and by RELION."""

import re
import shutil
import subprocess

import numpy as np
import pytest
import starfile

from picking.errors import UserError
from picking.formats.coordinates import read_picks, write_picks
from picking.formats.names import finder, require_writable
from picking.formats.picks import Picks

# By their end, .mrc left out
READ_BY_ALL = [
    "a", "data_001", "_001", "loop_1", "stop_", "save_a", "global_x", "data_", "001", "1e5", "nan",
    "None", "NA", "null", "inf", "scan#1", "#1", "a b", " a", "a ", "a #b", "data_b c", "a;b", ";a",
    "$a$", "a,b", "a@b", "000001@x", "!x", "%s", "-x", "*", "?", "[a]", "{a}", "~a", "a&b", "a|b",
    'a"b', 'q"', "\u00e9", "o\u0308", "\u7c92", "\u3000a", "a\u00a0b", "a.b",
    "b.mrc", "a.tif", "a.mrcs", "_rlnCoordinateX", "x_autopick", "7_tail", "x" * 240,
]  # fmt: skip
NEVER_IN_STAR = [
    "John's", "'q", "q'", '"q', 'a "b', 'a"#', "a  b", "a\tb", "a\nb", "a\rb", "a\x0bb", "a\x0cb",
    "a\x01b", "a\x85b", "a\u2028b", "caf\udce9",
]  # fmt: skip
NOWHERE = ["x" * 248, "\u7c92" * 83, "a\\b"]
OPTICS = """
# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographOriginalPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
_rlnMicrographPixelSize #7
opticsGroup1 1 1.0 300.0 2.7 0.1 1.0

# version 30001

data_micrographs
"""


def some_picks(name, n=2):
    centres = np.arange(2.0 * n).reshape(n, 2) + 10.5
    return Picks(name, centres, np.full(n, 0.5), np.full(n, 8.0), (100, 200))


def sizes_of(picks):
    return {p.name: p.size_px for p in picks}


def read_by_starfile(path):
    (table,) = starfile.read(path, always_dict=True, parse_as_string=["rlnMicrographName"]).values()
    return list(zip(table["rlnMicrographName"], table["rlnCoordinateX"], strict=True))


def read_by_relion(path, folder):
    """Return names and x of the rows that RELION writes after it has read them."""
    text = path.read_bytes().partition(b"data_\n")[2]
    (folder / "in.star").write_bytes(OPTICS.encode() + text)
    command = ["--i", "in.star", "--o", "out.star", "--select", "rlnCoordinateX", "--minval", "0"]
    subprocess.run(["relion_star_handler", *command], cwd=folder, check=True, capture_output=True)
    rows = (folder / "out.star").read_text().partition("data_micrographs")[2].split("\n")
    labels = [row.split()[0] for row in rows if row.startswith("_")]
    at = labels.index("_rlnMicrographName")
    assert at == 2 and len(labels) == 7
    row = re.compile(r"\s*(\S+)\s+\S+\s+(.*\S)(?:\s+\S+){4}\s*", re.ASCII)
    found = [row.fullmatch(line).groups() for line in rows[-2 - 2 * len(READ_BY_ALL) : -2]]
    return [(name[1:-1] if name[0] == name[-1] == '"' else name, float(x)) for x, name in found]


@pytest.fixture
def star_of_all(tmp_path):
    """A STAR file of many micrographs, and their picks."""
    picks = [some_picks(f"{name}.mrc") for name in READ_BY_ALL]
    (path,) = write_picks(tmp_path, picks, ["star"], one_file=True)
    return path, picks


def test_a_star_of_many_micrographs_comes_back_from_starfile_and_from_us(star_of_all):
    path, picks = star_of_all
    assert read_by_starfile(path) == [(p.name, x) for p in picks for x in p.centres_px[:, 1]]
    found = {p.name: p.centres_px.tolist() for p in read_picks([path], sizes_of(picks))}
    assert found == {p.name: p.centres_px.tolist() for p in picks}


@pytest.mark.skipif(not shutil.which("relion_star_handler"), reason="RELION is not installed")
def test_a_star_of_many_micrographs_comes_back_from_relion(star_of_all, tmp_path):
    path, picks = star_of_all
    wanted = [(p.name, x) for p in picks for x in p.centres_px[:, 1]]
    assert read_by_relion(path, tmp_path) == wanted


@pytest.mark.parametrize("one_file", [False, True])
@pytest.mark.parametrize("kind", ["star", "box", "cbox", "csv", "coco"])
@pytest.mark.parametrize("ending", ["mrc", "jpg"])
def test_names_come_back_from_files_of_every_kind(tmp_path, kind, one_file, ending):
    names = READ_BY_ALL if kind == "star" else [*READ_BY_ALL, *NEVER_IN_STAR]
    if kind == "csv" and one_file:
        names = [name for name in names if name == name.strip() and name.isprintable()]
    picks = [some_picks(f"{name}.{ending}") for name in names]
    paths = write_picks(tmp_path, picks, [kind], one_file)
    found = read_picks(paths, sizes_of(picks))
    assert sorted(p.name for p in found) == sorted(p.name for p in picks)
    assert all(len(p.scores) == 2 for p in found)


@pytest.mark.parametrize("name", [*NEVER_IN_STAR, *NOWHERE])
def test_names_that_would_come_back_changed_are_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(UserError, match=r"the micrograph's name .*rename the file"):
        write_picks(tmp_path, [some_picks("a.mrc"), some_picks(f"{name}.mrc")], ["box", "star"])
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", NOWHERE)
@pytest.mark.parametrize("kind", ["star", "box", "cbox", "csv", "coco"])
def test_names_that_make_no_file_of_their_own_are_refused_in_every_format(name, kind):
    with pytest.raises(UserError, match="rename the file"):
        require_writable([f"{name}.mrc"], [kind], False)


@pytest.mark.parametrize("name", [" a.mrc", "a.mrc ", "\u00a0a.mrc", "caf\udce9.mrc"])
def test_a_csv_of_many_holds_no_name_that_its_readers_change(name):
    require_writable([name], ["csv"], False)
    with pytest.raises(UserError, match="CSV"):
        require_writable([name], ["csv"], True)


def test_a_letter_may_be_composed_in_two_ways_and_is_the_same():
    assert finder(["caf\u00e9.mrc"])("cafe\u0301.star".removesuffix(".star")) == "caf\u00e9.mrc"
    assert finder(["cafe\u0301.mrc"])("x/caf\u00e9.mrc") == "cafe\u0301.mrc"


def test_a_stack_of_particles_names_its_micrograph():
    assert finder(["b.mrc"])("000012@Extract/job007/Movies/b.mrcs") == "b.mrc"
    assert finder(["b.mrc"])("000012@b.mrcs") == "b.mrc"
