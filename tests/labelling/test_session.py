"""session.yaml, and the folder of other micrographs."""

import numpy as np
import pytest
from PIL import Image

from picking.errors import UserError
from picking.inputs.paths import find_micrographs
from picking.labelling.folder.session import (
    Session,
    asked_session,
    read_session,
    require_same_micrographs,
    write_session,
)


def test_a_session_is_read_back_and_what_is_given_anew_replaces_it(tmp_path):
    session = Session(("raw/*.mrc",), "150A", 1.77)
    write_session(tmp_path / "labels", session)
    folder = tmp_path / "labels"
    assert read_session(folder) == session == asked_session(folder, None, None, None)
    assert asked_session(folder, None, "160A", None) == Session(("raw/*.mrc",), "160A", 1.77)


@pytest.mark.parametrize(
    "given, said",
    [((None, "150A"), "--micrographs is missing"), ((["a.mrc"], None), "--diameter is missing")],
)
def test_a_new_folder_needs_micrographs_and_diameter(tmp_path, given, said):
    with pytest.raises(UserError, match=said):
        asked_session(tmp_path / "labels", *given, None)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"no folder of labels \(it holds thesis.tex\)"):
        asked_session(tmp_path, ["a.mrc"], "150A", None)


@pytest.mark.parametrize(
    "text",
    ["", "[", "micrographs: raw\n", "micrographs: [a]\ndiameter: 5\npixel_size: null\n",
     "micrographs: [a]\ndiameter: 5px\npixel_size: x\n"],
)  # fmt: skip
def test_a_damaged_session_is_said(tmp_path, text):
    (tmp_path / "session.yaml").write_text(text)
    with pytest.raises(UserError, match=r"session\.yaml"):
        read_session(tmp_path)


def test_a_folder_of_other_micrographs_is_refused_and_more_of_the_same_are_welcome(tmp_path):
    for place in ("one/a.png", "one/b.png", "two/a.png", "two/c.png"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / place)
    one, two = (find_micrographs([str(tmp_path / name / "*.png")]) for name in ("one", "two"))
    sizes = dict.fromkeys("abc", (20, 30)) | {f"{name}.png": (20, 30) for name in "abc"}

    def check(labelled, former, given, sizes=sizes):
        return require_same_micrographs(tmp_path, labelled, sizes, former, given)

    labelled = {"b.png": (20, 30)}
    assert check(labelled, {"b.png": one["b.png"]}, one) == []
    with pytest.raises(UserError, match=r"labels of b.png, and none of these is among"):
        check(labelled, one, two)
    with pytest.raises(UserError, match=r"another file of this name"):
        check({"a.png": (20, 30)}, one, two)
    assert check({"a.png": (20, 30)}, {}, two) == []  # the files were moved
    with pytest.raises(UserError, match=r"labels of a a.png of 40 x 20 px"):
        check({"a.png": (20, 40)}, {}, two)
    assert check({"a.png": (20, 30), "b.png": (20, 30)}, {}, two) == ["b.png"]
