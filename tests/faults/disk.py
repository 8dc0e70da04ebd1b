"""Every stage on a disk that is too small, with less room and more, and then with enough.

    python -m tests.faults.disk                     # 40 amounts of room for each stage, minutes
    python -m tests.faults.disk --amounts 3 --faults size --stages "active learning, 0 workers"

Two faults: "room" is a tmpfs in a mount namespace of its own, which needs root or user namespaces;
"size" is a limit on the size of a file (ulimit -f), which needs nothing. For each amount a stage is
started, must end well or in one sentence and exit status 2, leave every checkpoint and picture
whole, and with room enough go on by the same command and end as an undisturbed one. "readonly"
starts each stage in a folder that may only be read. Prints a line for each stage; exit status 1
where something is wrong, 3 where the fault cannot be made here.
"""

import argparse
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.faults.same import curves, differences, files_in, not_whole
from tests.faults.stages import all_stages, start, wait, write_inputs

FAULTS = ("room", "size", "readonly")
STAGES = (
    "both, 0 workers", "PU training, 0 workers", "active learning, 0 workers", "picking",
    "analysis",
)  # fmt: skip
DISK_BYTES = 64 << 20
PAGE_BYTES = 4096


class Disk:
    """A folder ``out`` on the disk that is made too small; inputs and consoles lie elsewhere."""

    def __init__(self, root: Path) -> None:
        self.inputs, self.small, self.out = root / "inputs", root / "small", root / "small" / "out"
        self.whole = root / "whole"
        for folder in (self.inputs, self.small):
            folder.mkdir()
        write_inputs(self.inputs)

    def call(self, name: str, largest_file: int | None = None) -> int:
        """Run a stage in the folder; return its exit status, 0 or 2 with one sentence."""

        def arm() -> None:
            if largest_file is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))

        stage = all_stages(self.inputs, self.out)[name]
        with tempfile.TemporaryDirectory() as folder:
            status = wait(start(stage, Path(folder), stage.resume, arm))
            said = (Path(folder) / "console").read_text()
        assert status in (0, 2) and "Traceback" not in said, f"exit status {status}:\n{said}"
        if status == 2:
            errors = [line for line in said.splitlines() if line.startswith("error: ")]
            words = ("is full", "GB are needed", "no permission", "too large")
            one = len(errors) == 1 and errors[0] == said.splitlines()[-1]
            assert one and any(word in errors[0] for word in words), said
        return status

    def require_same(self) -> None:
        """Raise unless the folder holds what an undisturbed run leaves, TensorBoard included."""
        assert not (differing := differences(self.out, self.whole)), f"differ: {differing}"
        assert not (torn := not_whole(self.out, finished=True)), f"not whole: {torn}"
        assert curves(self.out) == curves(self.whole), f"events: {curves(self.out)}"


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


def try_amount(disk: Disk, name: str, fault: str, amount: int) -> int:
    """Run a stage with an amount of room, then with enough; return how it ended at first."""
    disk.out.mkdir()
    if fault == "room":
        with room_for(disk.small, amount):
            status = disk.call(name)
    else:
        status = disk.call(name, largest_file=amount)
    assert not (torn := not_whole(disk.out, finished=status == 0)), f"not whole: {torn}"
    assert disk.call(name) == 0
    disk.require_same()
    return status


def try_read_only(disk: Disk, name: str, begun: bool) -> int:
    """Run a stage in a folder that may only be read, new or done; return how it ended."""
    shutil.copytree(disk.whole, disk.out) if begun else disk.out.mkdir()
    before = {name: path.read_bytes() for name, path in files_in(disk.out).items()}
    subprocess.run(["mount", "-o", "remount,ro", disk.small], check=True)
    try:
        status = disk.call(name)
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk.small], check=True)
    assert begun or status == 2
    assert {name: path.read_bytes() for name, path in files_in(disk.out).items()} == before
    return status


def try_all(disk: Disk, name: str, fault: str, n_amounts: int) -> int:
    """Try a fault on a stage; print and return how many times it went wrong."""
    all_bytes, largest = bytes_in(disk.whole)
    top, n_stopped, wrong = all_bytes if fault == "room" else largest, 0, []
    amounts = [(i + 1) * top // (n_amounts + 1) for i in range(n_amounts)]
    cases = {f"{amount:,} bytes": (try_amount, fault, amount) for amount in amounts}
    if fault == "readonly":
        cases = {"new": (try_read_only, False), "begun": (try_read_only, True)}
    for case, (function, *arguments) in cases.items():
        try:
            n_stopped += function(disk, name, *arguments) == 2
        except Exception as error:
            wrong.append(f"{case}: {type(error).__name__}: {error}")
        shutil.rmtree(disk.out)
    up_to = "2 folders" if fault == "readonly" else f"{n_amounts} amounts up to {top:,} bytes"
    print(f"{name} {fault}: {up_to}, {n_stopped} stopped, {len(wrong)} wrong", flush=True)
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
    parser.add_argument("--stages", nargs="+", default=STAGES, help="as of tests.faults.kill")
    args = parser.parse_args()
    needs_disk = {"room", "readonly"} & {*args.faults}
    if needs_disk and not os.environ.get("DISK_IN_NAMESPACE"):
        enter_own_namespace()
    n_wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        disk = Disk(Path(folder))
        if needs_disk:
            options = f"size={DISK_BYTES}"
            command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk.small]
            subprocess.run(command, check=True)
        for name in args.stages:
            disk.out.mkdir()
            assert disk.call(name) == 0
            shutil.rmtree(disk.whole, ignore_errors=True)
            shutil.move(disk.out, disk.whole)
            n_wrong += sum(try_all(disk, name, fault, args.amounts) for fault in args.faults)
        if needs_disk:
            subprocess.run(["umount", disk.small], check=True)
    print(f"{n_wrong} wrong")
    sys.exit(1 if n_wrong else 0)


if __name__ == "__main__":
    main()
