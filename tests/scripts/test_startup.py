"""Scripts answer at once: what takes seconds to import waits until the command line is read."""

import os
import subprocess
import sys

import pytest

from tests.fixtures import ROOT, run_python

SLOW = {"torch", "torchvision", "matplotlib", "pandas", "scipy", "sklearn", "tensorboard"}
RUN = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("imported:", *sys.modules)
"""


def imported_by(*command):
    """Exit status, and the packages that were imported until a command had ended."""
    started = {**os.environ, "PICKING_RELION_EXTERNAL_STARTED": "yes"}  # it need not start again
    result = subprocess.run(
        [sys.executable, "-c", RUN, *command], cwd=ROOT, env=started, capture_output=True, text=True
    )
    return result.returncode, set(result.stdout.rpartition("imported:")[2].split())


@pytest.mark.parametrize("script", sorted(path.name for path in ROOT.glob("*.py")))
@pytest.mark.parametrize(("flag", "status"), [("--help", 0), ("--no-such-flag", 2)])
def test_help_and_unknown_flags_are_answered_before_anything_slow_is_imported(script, flag, status):
    ended, packages = imported_by(script, flag)
    assert ended == status
    assert "argparse" in packages
    assert not packages & SLOW


def test_preprocessing_never_waits_for_torch(tmp_path):
    """Nor do its workers, which are many."""
    ended, packages = imported_by(
        "preprocess_coco_full_dataset.py", "--data-root", str(tmp_path), "--dry-run"
    )
    assert ended == 2  # no split there
    assert "picking.stores.patches" in packages
    assert "torch" not in packages


def test_picking_with_a_u_net_never_waits_for_torchvision_or_sklearn():
    """Which import half of torch and scipy besides: 3 s and 150 MB, 1 s and 60 MB."""
    ran = (
        "import sys, picking.detection.run; from models import UNet; UNet(width=1, depth=1); "
        "from picking.metrics.calibration import part; part([k / 500 for k in range(500)])"
    )
    done = run_python("-c", f"{ran}; print(*sys.modules)")
    assert "torch" in done.stdout.split(), done.stderr
    assert not {"torchvision", "torch._dynamo", "sklearn"} & {*done.stdout.split()}
