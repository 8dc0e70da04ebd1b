"""Every script on tiny data, each started as often as one likes in a forked process of its own."""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

# Here what scripts import where they need it, so that few moments fall into imports
import matplotlib.backends.backend_agg  # noqa: F401
import starfile  # noqa: F401
import torch

import analyze_active_learning_results
import pick_particles
import preprocess_coco_full_dataset
import train_active_learning_fixed
import train_pu_fixed_full
from picking.errors import run_script
from picking.training import networks
from tests.fixtures import active_runs, patch_stores, pu_runs
from tests.fixtures.data_sets import boxes, write_coco, write_csv, write_data_set
from tests.fixtures.pickers import Dark, write_checkpoint
from tests.scripts.test_analyze import write_comparison

SPLITS = {"train": 4, "val": 2, "test": 1}


class Stage(NamedTuple):
    """A script and its command line, which is for ``--resume`` too where there is one.

    prepare: makes, in the folder that all outputs lie in, what the script changes.
    """

    main: Callable[[], None]
    arguments: list[Any]
    resume: bool
    n_workers: int = 0
    prepare: Callable[[Path], Any] | None = None


def write_inputs(folder: Path) -> None:
    """Write all that the stages read."""
    centres = write_data_set(folder / "data", SPLITS)
    patch_stores.done(folder / "data", folder / "store")
    train = {name: listed for name, listed in centres.items() if name.startswith("train")}
    for name, listed in train.items():
        write_csv(folder / "labels" / f"{name}.csv", listed[:4])
    write_coco(folder / "truth.json", {f"{n}.jpg": boxes(c) for n, c in train.items()})
    active_runs.write_store(folder / "images")
    write_checkpoint(folder / "best_model.pt")
    write_comparison(folder / "runs")
    pu_runs.as_windows(folder / "store", folder / "windows")
    for name, config in (("pu", pu_runs.CONFIG), ("active", active_runs.CONFIG)):
        (folder / f"{name}.yaml").write_text(config)


def all_stages(inputs: Path, out: Path) -> dict[str, Stage]:
    """Return the stages by name; they read ``inputs`` and write into the folder ``out``."""
    data = ("--data-root", inputs / "data", "--output-dir", out / "store", "--patch-size", 32)
    micrographs = ("--micrographs", inputs / "data" / "train" / "*.jpg")
    diameter = ("--diameter", "20px")
    cut = {
        "patches": (*data, "--hard-negatives", 0.4, "--top-up"),
        "segmentation": (
            *data[:2], "--tasks", "segmentation", "--seg-output-dir", out / "images",
            "--seg-size", 64, "--seg-tiles", 2, "--seg-ignore-margin",
        ),
        "both": (
            *data, "--tasks", "patches", "segmentation", "--seg-output-dir", out / "images",
            "--seg-size", 64,
        ),
        "windows": (
            *micrographs, "--labels", inputs / "labels" / "*.csv", "--unlabeled", "windows",
            *diameter, "--patch-size", 64, "--windows-per-micrograph", 30, *data[2:4],
        ),
    }  # fmt: skip
    of_run = ("--exp-name", "run", "--experiments-dir", out, "--device", "cpu")
    train = ("--config", inputs / "pu.yaml", *of_run)
    unet = [part for override in pu_runs.UNET for part in ("--set", override)]
    active = (
        "--config", inputs / "active.yaml", "--output-dir", out, "--device", "cpu",
        "--train-data-dir", inputs / "images" / "train",
        "--val-data-dir", inputs / "images" / "val",
    )  # fmt: skip
    picked = ("--checkpoint", inputs / "best_model.pt", *micrographs, *diameter, "--device", "cpu")
    own = out / "best_model.pt"
    stages = {}
    for name, arguments in cut.items():
        for n in (0, 2):
            stages[f"{name}, {n} workers"] = Stage(
                preprocess_coco_full_dataset.main, [*arguments, "--num-workers", n], False, n
            )
    for n in (0, 2):
        stages[f"PU training, {n} workers"] = Stage(
            train_pu_fixed_full.main,
            [*train, "--data-dir", inputs / "store", "--num-workers", n],
            True,
            n,
        )
    stages["PU training on windows"] = Stage(
        train_pu_fixed_full.main,
        [*train, "--data-dir", inputs / "windows" / "store", *unet, "--set", "training.epochs=2"],
        True,
    )
    for n in (0, 2):
        stages[f"active learning, {n} workers"] = Stage(
            train_active_learning_fixed.main,
            [*active, "--strategy", "uncertainty", "--num-workers", n],
            True,
            n,
        )
    stages["analysis"] = Stage(
        analyze_active_learning_results.main,
        ["--experiments-dir", inputs / "runs", "--output-dir", out / "analysis"],
        False,
    )
    each = ("--formats", "star", "box", "coco", "--overlay", "--heatmap")
    stages["picking"] = Stage(
        pick_particles.main, [*picked, "--output", out / "picks", *each], True
    )
    stages["picking, 2 workers"] = Stage(
        pick_particles.main,
        [*picked, "--output", out / "picks", *each, "--num-workers", 2],
        True,
        2,
    )
    stages["picking, one file"] = Stage(
        pick_particles.main,
        [*picked, "--output", out / "picks", "--one-file", "--evaluate", inputs / "truth.json"],
        True,
    )
    stages["threshold"] = Stage(
        pick_particles.main,
        ["--checkpoint", own, *picked[2:], "--choose-threshold", inputs / "truth.json"],
        False,
        prepare=lambda folder: write_checkpoint(folder / own.name),
    )
    return stages


@contextlib.contextmanager
def command_of(stage: Stage, resume: bool = False) -> Iterator[None]:
    """Have this process stand for one that was started by the stage's command, networks tiny."""
    argv = [*map(str, ["script", *stage.arguments, *(["--resume"] if resume else [])])]
    with (
        mock.patch.object(sys, "argv", argv),
        mock.patch.object(networks, "PUClassifier", pu_runs.Small),
        mock.patch.dict(networks.UNETS, {"unet": Dark}),
    ):
        torch.set_num_threads(1)
        yield


def start(stage: Stage, folder: Path, resume: bool = False, arm: Callable | None = None) -> int:
    """Start the script in a process of its own, with a process group of its own; return its id.

    What it prints is added to ``folder``/console. arm: called in that process before the script.
    """
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
        console = os.open(folder / "console", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(console, 1)
        os.dup2(console, 2)
        with command_of(stage, resume):
            if arm:
                arm()
            run_script(stage.main)
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(pid: int) -> int:
    """Return how a process ended: its exit status, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
