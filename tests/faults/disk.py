"""Every stage on a disk that is too small, with less room and more, and then with enough.

    python -m tests.faults.disk                     # 40 amounts of room for each stage, minutes
    python -m tests.faults.disk --amounts 3 --faults size --stages active

Two faults: "room" is a tmpfs in a mount namespace of its own, which needs root or user namespaces;
"size" is a limit on the size of a file (ulimit -f), which needs nothing. For each amount a stage is
started, must end well or in one sentence and exit status 2, leave every checkpoint and picture
whole, and with room enough go on by the same command and end as an undisturbed one. "readonly"
starts each stage in a folder that may only be read. Prints a line for each stage; exit status 1
where something is wrong, 3 where the fault cannot be made here.
"""

import argparse
import contextlib
import gc
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

import analyze_active_learning_results
import pick_particles
import preprocess_coco_full_dataset
import train_active_learning_fixed
import train_pu_fixed_full
from picking.errors import run_script
from picking.runs.checkpoints import load_checkpoint
from tests.fixtures import active_runs, pu_runs, run_folders
from tests.fixtures.data_sets import DIAMETER_PX, write_data_set

FAULTS = ("room", "size", "readonly")
DISK_BYTES = 64 << 20
PAGE_BYTES = 4096


class Stage(NamedTuple):
    """A script: its command line for an output folder, and whether two outputs are the same."""

    main: Callable[[], None]
    argv: Callable[[Path], list]
    go_on: tuple[str, ...]  # what the same command needs more to go on
    assert_same: Callable[[Path, Path], None]


def files_of(folder: Path) -> dict[str, bytes]:
    """Return path -> bytes of all files, without locks."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def assert_same_files(one: Path, other: Path) -> None:
    """The same files with the same bytes."""
    a, b = files_of(one), files_of(other)
    differing = [name for name in a.keys() | b.keys() if a.get(name) != b.get(name)]
    assert not differing, f"differ: {sorted(differing)}"


def assert_same_but_for_no_remains(assert_same: Callable, name: str) -> Callable:
    """Compare runs called ``name``, of which nothing half written may remain."""

    def compare(one: Path, other: Path) -> None:
        assert_same(one / name, other / name)
        assert not list(one.rglob("*.tmp"))
        wanted = pu_runs.metrics_of(other / name)
        shown = steps_shown(one / name)
        assert shown == sorted(set(shown)) and len(shown) == len(wanted), f"events: {shown}"

    return compare


def steps_shown(run: Path) -> list[int]:
    """Return the epochs of which TensorBoard shows the loss."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return [scalar.step for scalar in EventAccumulator(str(run)).Reload().Scalars("Loss/Train")]


def make_inputs(root: Path, names: list[str]) -> dict[str, Stage]:
    """Write what these stages, or all, read into ``root``, which has room; return the stages."""
    write_data_set(root / "data", {"train": 3, "val": 2, "test": 1})
    seg_store = active_runs.write_store(root / "seg_store")
    for strategy in ("random", "uncertainty"):
        f1s = run_folders.RISING
        run_folders.write_run(root / "comparison", strategy, f1s, test_f1s=f1s)
    (root / "conf").mkdir()

    def cut(out: Path) -> list:
        return [
            "--data-root", root / "data", "--tasks", "patches", "segmentation", "--output-dir",
            out / "patches", "--seg-output-dir", out / "seg", "--patch-size", 32, "--seg-size", 64,
            "--num-workers", 0,
        ]  # fmt: skip

    def pu(out: Path) -> list:
        argv = pu_runs.arguments(root / "store" / "patches", root / "conf")
        return [*argv, "--experiments-dir", out, "--set", "training.epochs=4"]

    def active(out: Path) -> list:
        argv = active_runs.arguments(seg_store, root / "conf", "--iterations", 2)
        return [*argv, "--output-dir", out]

    def pick(out: Path) -> list:
        return [
            "--checkpoint", root / "trained" / "uncertainty" / "iteration_1" / "best_model.pt",
            "--micrographs", root / "data" / "train" / "*.jpg", "--diameter", f"{DIAMETER_PX}px",
            "--output", out / "picks", "--formats", "star", "box", "csv", "coco", "--overlay",
            "--heatmap", "--device", "cpu", "--threshold", 0.05,
        ]  # fmt: skip

    def analyse(out: Path) -> list:
        return ["--experiments-dir", root / "comparison", "--output-dir", out / "analysis"]

    resume = ("--resume",)
    pu_same = assert_same_but_for_no_remains(pu_runs.assert_same_run, "run")
    active_same = assert_same_but_for_no_remains(
        lambda one, other: active_runs.assert_same_run(one, other, iterations=2), "uncertainty"
    )
    stages = {
        "preprocess": Stage(preprocess_coco_full_dataset.main, cut, (), assert_same_files),
        "pu": Stage(train_pu_fixed_full.main, pu, resume, pu_same),
        "active": Stage(train_active_learning_fixed.main, active, resume, active_same),
        "pick": Stage(pick_particles.main, pick, resume, assert_same_files),
        "analyse": Stage(analyze_active_learning_results.main, analyse, (), assert_same_files),
    }
    names = names or list(stages)
    for of, name, out in (("pu", "preprocess", "store"), ("pick", "active", "trained")):
        if of in names:
            status, said = call(stages[name], root / out)
            assert status == 0, said
    return {name: stages[name] for name in names}


def call(stage: Stage, out: Path, *more: str, largest_file: int | None = None) -> tuple[int, str]:
    """Run a stage in a process of its own; return its exit status and what it says on stderr."""
    with tempfile.TemporaryFile() as said:
        pid = os.fork()
        if pid == 0:
            _leave_by(stage, [*stage.argv(out), *more], said.fileno(), largest_file)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said.seek(0)
        return status, said.read().decode()


def _leave_by(stage: Stage, argv: list, stderr: int, largest_file: int | None) -> None:
    """Run a stage and end this process with its status."""
    status = 1
    try:
        os.dup2(stderr, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
        sys.argv = ["script", *map(str, argv)]
        with pu_runs.tiny_network():
            run_script(stage.main)
    except SystemExit as left:
        status = left.code
    except BaseException:
        traceback.print_exc()
    gc.collect()  # files that are still open complain now
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def whole(out: Path) -> None:
    """Raise when a file that readers open is not whole."""
    for path in out.rglob("*"):
        if path.name.startswith("."):
            continue
        if path.suffix == ".pt":
            load_checkpoint(path)
        elif path.suffix == ".json":
            pu_runs.strict_json(path.read_text())
        elif path.suffix == ".png":
            Image.open(path).load()


def require_sentence(said: str) -> None:
    """Raise unless what a process says is one sentence about the disk."""
    lines = [line for line in said.splitlines() if line.strip()]
    one = len(lines) == 1 and lines[0].startswith("error: ") and ":" in lines[0][7:]
    words = ("is full", "GB are needed", "no permission", "too large")
    assert one and any(word in said for word in words), f"not one sentence about the disk:\n{said}"


def bytes_in(folder: Path) -> tuple[int, int]:
    """Return the bytes of all files, in whole pages, and of the largest one."""
    sizes = [path.stat().st_size for path in folder.rglob("*")]
    return sum(-(-size // PAGE_BYTES) for size in sizes) * PAGE_BYTES, max(sizes)


@contextlib.contextmanager
def room_for(disk: Path, n_bytes: int):
    """Leave only so much room on a disk."""
    ballast = disk / "ballast"
    free = os.statvfs(disk).f_bavail * PAGE_BYTES
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - n_bytes))
    yield
    ballast.unlink()


def try_amounts(name: str, stage: Stage, fault: str, n_amounts: int, reference: Path) -> int:
    """Run a stage with one amount of room after another; print and return how many went wrong."""
    all_bytes, largest = bytes_in(reference)
    top = all_bytes if fault == "room" else largest
    amounts = [(i + 1) * top // (n_amounts + 1) for i in range(n_amounts)]
    disk, n_stopped, wrong = reference.parents[1] / "small", 0, []
    for amount in amounts:
        out = disk / "out"
        out.mkdir()
        try:
            if fault == "room":
                with room_for(disk, amount):
                    status, said = call(stage, out)
            else:
                status, said = call(stage, out, largest_file=amount)
            assert status in (0, 2), f"exit status {status}:\n{said}"
            n_stopped += status == 2
            if status == 2:
                require_sentence(said)
                whole(out)
            begun = any(path.name != ".lock" for path in out.glob("*/*"))
            status, said = call(stage, out, *(stage.go_on if begun else ()))
            assert status == 0, f"going on: exit status {status}:\n{said}"
            stage.assert_same(out, reference)
        except Exception as error:
            wrong.append(f"{amount:,} bytes: {type(error).__name__}: {error}")
        shutil.rmtree(out)
    print(
        f"{name} {fault}: {n_amounts} amounts up to {top:,} bytes, {n_stopped} stopped, "
        f"{len(wrong)} wrong", flush=True
    )  # fmt: skip
    for text in wrong:
        print("  " + text.replace("\n", "\n    "), flush=True)
    return len(wrong)


def try_read_only(name: str, stage: Stage, reference: Path) -> int:
    """Run a stage in a folder that may only be read, new and done; return how many went wrong."""
    disk, wrong = reference.parents[1] / "small", []
    for begun in (False, True):
        out = disk / "out"
        shutil.copytree(reference, out) if begun else out.mkdir()
        before = files_of(out)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        try:
            status, said = call(stage, out, *(stage.go_on if begun else ()))
            if status != 0 or not begun:
                assert status == 2, f"exit status {status}:\n{said}"
                require_sentence(said)
            assert files_of(out) == before
        except Exception as error:
            wrong.append(f"{'begun' if begun else 'new'}: {type(error).__name__}: {error}")
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        shutil.rmtree(out)
    print(f"{name} readonly: 2 folders, {len(wrong)} wrong", flush=True)
    for text in wrong:
        print("  " + text.replace("\n", "\n    "), flush=True)
    return len(wrong)


def enter_own_namespace() -> None:
    """Go on in a mount namespace of this process's own, or leave with 3 where there is none."""
    for how in (["--mount"], ["--user", "--map-root-user", "--mount"]):
        command = ["unshare", *how]
        if shutil.which("unshare") and not subprocess.run([*command, "true"]).returncode:
            os.environ["DISK_IN_NAMESPACE"] = "1"
            os.execvp(
                command[0], [*command, sys.executable, "-m", "tests.faults.disk", *sys.argv[1:]]
            )
    print("no mount namespaces here: neither root nor user namespaces")
    sys.exit(3)


def main() -> None:
    """Try every fault on every stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--amounts", type=int, default=40)
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=FAULTS)
    parser.add_argument("--stages", nargs="+", default=[], help="default: all")
    args = parser.parse_args()
    needs_disk = {"room", "readonly"} & {*args.faults}
    if needs_disk and not os.environ.get("DISK_IN_NAMESPACE"):
        enter_own_namespace()
    n_wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        stages = make_inputs(root, args.stages)
        small = root / "small"
        small.mkdir()
        if needs_disk:
            options = f"size={DISK_BYTES}"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", small], check=True)
        for name in stages:
            reference = root / "reference" / name
            status, said = call(stages[name], reference)
            assert status == 0, said
            for fault in args.faults:
                if fault == "readonly":
                    n_wrong += try_read_only(name, stages[name], reference)
                else:
                    n_wrong += try_amounts(name, stages[name], fault, args.amounts, reference)
        if needs_disk:
            subprocess.run(["umount", small], check=True)
    print(f"{n_wrong} wrong")
    sys.exit(1 if n_wrong else 0)


if __name__ == "__main__":
    main()
