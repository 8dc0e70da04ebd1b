"""The folder of the labelling page as scripts read it, and lists of complete micrographs."""

import pytest

from picking.errors import UserError
from picking.inputs.labels_folder import complete_names, is_labels_folder, read_labels_folder

SESSION = "micrographs:\n- raw/*.mrc\n- more/x [1].mrc\ndiameter: 150A\npixel_size: 1.77\n"
TABLE = """name,state,picks,not_particles
a.mrc,complete,12,0
"b, c.mrc",in part,3,2
d.mrc,untouched,0,0
e.mrc,left out,0,0
f.mrc,complete,0,0
"""


def folder_of(tmp_path, session=SESSION, table=TABLE, **files):
    """A folder of labels; ``files``: further ones, by name without the ending."""
    folder = tmp_path / "labels"
    (folder / "junk").mkdir(parents=True)
    (folder / "session.yaml").write_text(session)
    for name in files or ("picks",):
        (folder / f"{name}.star").write_text("data_\n")
    if table is not None:
        (folder / "micrographs.csv").write_text(table)
    return folder


def test_a_folder_of_labels_says_what_the_arguments_would(tmp_path):
    folder = folder_of(tmp_path, picks=1, not_particles=1)
    (folder / "junk/a.png").write_bytes(b"")
    assert is_labels_folder([str(folder)])
    found = read_labels_folder(folder)
    assert found.micrographs == ("raw/*.mrc", "more/x [1].mrc")
    assert (found.diameter, found.pixel_size) == ("150A", 1.77)
    assert found.picks == folder / "picks.star"
    assert found.not_particles == folder / "not_particles.star"
    assert found.junk == folder / "junk"
    assert found.complete == ("a.mrc", "f.mrc") and found.left_out == ("e.mrc",)


def test_what_nobody_clicked_or_painted_is_not_there(tmp_path):
    found = read_labels_folder(folder_of(tmp_path, SESSION.replace("1.77", "null"), None))
    assert (found.pixel_size, found.not_particles, found.junk) == (None, None, None)
    assert found.complete == found.left_out == ()


def test_a_folder_without_a_session_and_several_labels_are_no_folder_of_labels(tmp_path):
    (tmp_path / "picks.star").write_text("")
    assert not is_labels_folder([str(tmp_path)])
    folder = str(folder_of(tmp_path))
    assert not is_labels_folder([folder, folder])


@pytest.mark.parametrize(
    ("session", "words"),
    [
        ("diameter: 150A", r"session\.yaml: 'micrographs' must be a list"),
        ("micrographs: []\ndiameter: 150A", "'micrographs' must be a list"),
        ("micrographs: [1]\ndiameter: 150A", "'micrographs' must be a list"),
        ("micrographs: [a.mrc]\ndiameter: 150", "'diameter' must be a text such as 150A"),
        ("micrographs: [a.mrc]\ndiameter: wide", r"session\.yaml: --diameter is 'wide': give"),
        ("micrographs: [a.mrc]\ndiameter: 9px\npixel_size: b", "'pixel_size' must be a number"),
        ("micrographs: [a.mrc]\ndiameter: 9px\npixel_size: -1", r"yaml: --pixel-size is -1"),
        ("[", r"session\.yaml.* is not valid YAML"),
    ],
)
def test_a_damaged_session_is_named(tmp_path, session, words):
    with pytest.raises(UserError, match=words):
        read_labels_folder(folder_of(tmp_path, session))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("name,picks\na.mrc,3\n", r"micrographs\.csv lacks a column 'name' or 'state'"),
        ("", r"micrographs\.csv lacks a column"),
        ("name,state\na.mrc,done\n", "line 2: 'done' is no state; those are untouched, in part"),
        ("name,state\na.mrc\n", "line 2 has no name or no state"),
        ("name,state\n,complete\n", "line 2 has no name or no state"),
        ("name,state\na.mrc,complete\na.mrc,left out\n", "a.mrc is 'complete' and 'left out'"),
        ('name,state\n"a.mrc,complete\n', r"micrographs\.csv is no CSV"),
    ],
)
def test_a_damaged_table_is_named(tmp_path, table, words):
    with pytest.raises(UserError, match=words):
        read_labels_folder(folder_of(tmp_path, table=table))


def test_a_folder_in_which_nothing_is_picked_yet_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"labels has no picks\.star, so nothing is picked yet"):
        read_labels_folder(folder_of(tmp_path, not_particles=1))


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("a.txt", "# mine\na, b.mrc\n\n  c.mrc  \na, b.mrc\n", ("a, b.mrc", "c.mrc")),
        ("a.txt", "\ufeffa.mrc\r\nb.mrc\r\n", ("a.mrc", "b.mrc")),
        ("a.csv", "a.mrc,yes\nb.mrc,yes\n", ("a.mrc", "b.mrc")),
        ("a.csv", "n,Micrograph\n1,a.mrc\n2,b.mrc\n", ("a.mrc", "b.mrc")),
        ("micrographs.csv", TABLE, ("a.mrc", "f.mrc")),
    ],
)
def test_complete_micrographs_are_listed_in_a_text_or_a_csv(tmp_path, name, text, names):
    (tmp_path / name).write_text(text, newline="")
    assert complete_names(tmp_path / name) == names


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", "\n# none\n", "a.txt names no micrograph: write a name on each line"),
        ("a.csv", "name,state\na.mrc,in part\n", "a.csv names no micrograph"),
        ("a.star", "data_\n", "a.star is a STAR: give a text"),
        ("missing.txt", None, "missing.txt is not there: give a file"),
        (".", None, "is a folder: give a file"),
        ("a.txt", "a\0b", "a.txt is no text file"),
    ],
)
def test_a_list_that_is_none_is_refused(tmp_path, name, text, words):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=words):
        complete_names(tmp_path / name)
