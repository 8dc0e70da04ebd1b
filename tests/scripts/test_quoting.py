"""Nothing that a name or an option holds is ever run, by the launchers or the scripts."""

import ast

import pytest

from tests.fixtures import ROOT
from tests.fixtures.launching import copy_project, options
from tests.scripts.test_active_learning_launcher import SCRIPT

# A shell would take these apart, expand or run them if they were not quoted
NAMES = [
    "a 'b' \"c\" $(touch ran) `touch ran` ${HOME} ~ *;touch ran&#!\\",
    "a\nb;touch ran\n'c",
    "*",
    "--$(touch ran)",
]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """One copy for all, since nothing changes it."""
    return copy_project(tmp_path_factory.mktemp("repository"))


@pytest.fixture(params=NAMES)
def name(request, tmp_path):
    """A name, of a folder too that holds a config of that name; nothing may have been run."""
    (tmp_path / request.param).mkdir()
    (tmp_path / request.param / f"{request.param}.yaml").touch()
    yield request.param
    assert not list(tmp_path.rglob("ran*"))


def shown(text):
    """The text as the stand-in for Python writes it down."""
    return str(text).replace("\n", "\\n")


def test_names_reach_the_training_as_they_are(launch, repository, tmp_path, name):
    before = sorted(repository.rglob("*"))
    done = launch(
        "run_full_training.sh", "--data-root", f"./{name}", "--config", f"./{name}.yaml",
        "--exp-name", name, "--device", name, "--", "--set", name, cwd=tmp_path / name,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    cut, train = launch.calls()
    assert options(cut)["--data-root"] == shown(tmp_path / name / name)
    assert options(cut)["--output-dir"] == options(train)["--data-dir"] == shown(f"data/{name}_pu")
    given = options(train)
    assert given["--config"] == shown(tmp_path / name / f"{name}.yaml")
    assert given["--exp-name"] == given["--device"] == train[-1] == shown(name)
    assert sorted(repository.rglob("*")) == before


def test_names_reach_the_comparison_as_they_are(launch, repository, tmp_path, name):
    out = tmp_path / name / name
    before = sorted(repository.rglob("*"))
    done = launch(
        SCRIPT, "--data-root", tmp_path / name, "--config", tmp_path / name / f"{name}.yaml",
        "--output-dir", out, "--strategies", "random", "--gpus", "none", "--", "--set", name,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    cut, train, compare = launch.calls()
    assert options(cut)["--data-root"] == shown(tmp_path / name)
    assert options(train)["--config"] == shown(tmp_path / name / f"{name}.yaml")
    assert options(train)["--output-dir"] == options(compare)["--experiments-dir"] == shown(out)
    assert shown(name) in train
    assert sorted(repository.rglob("*")) == before


@pytest.mark.parametrize("option", ["--strategies", "--seeds", "--gpus", "--seg-size"])
def test_lists_hold_names_and_numbers_and_nothing_that_a_shell_could_heed(launch, option):
    for text in ("$(touch ran)", "random;touch ran", "*", "a'b", "a\nb", "`touch ran`", "../a"):
        done = launch(SCRIPT, option, text)
        assert done.returncode == 2 and done.stderr.startswith(f"error: {option} is '")
        assert launch.calls() == []


# Where RELION's job starts itself with another Python and, as lists of words, the other scripts; so
# do rounds of the labelling page
ALLOWED = {
    ("picking/labelling/rounds/runner.py", "subprocess.Popen"),
    ("picking/labelling/web/learning.py", "subprocess.Popen"),
    ("relion_external.py", "os.execvpe"),
    ("picking/relion_job/control.py", "subprocess.Popen"),
}


def test_no_script_starts_a_shell_runs_text_or_makes_a_temporary_file_of_a_known_name():
    """So nothing from a file can: commands are lists, of which few are not fixed."""
    called = set()
    for path in [*ROOT.glob("*.py"), *ROOT.glob("picking/**/*.py"), *ROOT.glob("models/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called.add((path.relative_to(ROOT).as_posix(), ast.unparse(node.func)))
                assert "shell" not in {keyword.arg for keyword in node.keywords}, path
    assert called >= ALLOWED
    names = {name for _, name in called - ALLOWED}
    never = {
        "os.system", "os.popen", "eval", "exec", "tempfile.mktemp", "pickle.load", "pickle.loads",
        "subprocess.Popen", "subprocess.getoutput", "subprocess.getstatusoutput",
    }  # fmt: skip
    assert not never & names
    assert not [name for name in names if name.startswith(("os.exec", "os.spawn"))]
    assert "subprocess.run" in names  # what is looked for is found
