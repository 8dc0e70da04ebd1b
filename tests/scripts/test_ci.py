"""Continuous integration installs RELION and a browser where it can; it says where that fails."""

import os
import shutil
import subprocess

import pytest

from tests.fixtures import ROOT
from tests.fixtures.launching import executable


@pytest.mark.parametrize(
    ("there", "user", "status", "calls"),
    [
        ((), 0, 0, ["apt-get update", "apt-get install relion chromium", "tests"]),
        ((), 0, 7, ["apt-get update"]),
        ((), 1000, 0, ["tests"]),
        (("chromium",), 0, 0, ["apt-get update", "apt-get install relion", "tests"]),
        (("relion_preprocess", "chromium"), 0, 0, ["tests"]),
    ],
)
def test_what_is_missing_is_installed_by_root(there, user, status, calls, tmp_path):
    commands, log = tmp_path / "bin", tmp_path / "calls"
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    executable(tmp_path / "run_tests.sh", f"#!/bin/bash\necho tests >> {log}\n")
    executable(commands / "id", f"#!/bin/bash\necho {user}\n")
    executable(
        commands / "apt-get",
        f'#!/bin/bash\necho "apt-get ${{@: 2:1}} ${{@: 4}}" >> {log}\nexit {status}\n',
    )
    for name in there:
        executable(commands / name, "#!/bin/bash\n")
    for name in ("bash", "dirname"):
        (commands / name).symlink_to(shutil.which(name))
    done = subprocess.run(
        [tmp_path / ".ci" / "run"], env=os.environ | {"PATH": str(commands)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert [line.strip() for line in log.read_text().splitlines()] == calls
    assert done.returncode == (1 if status else 0)
    assert ("apt-get install relion chromium" in done.stderr) == bool(status)
