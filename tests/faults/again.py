"""The same commands twice, in processes that hash otherwise and with other numbers of workers.

    python -m tests.faults.again                                   # some minutes
    python -m tests.faults.again --stages "both" "PU training"

Prints the files of each stage's outputs and how many of them differ; exit status 1 where one does.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.faults.same import differences, files_in
from tests.faults.stages import all_stages, start, wait, write_inputs

WORKERS = (", 0 workers", ", 2 workers")


def variants(names: list[str], wanted: list[str]) -> list[tuple[str, str]]:
    """Return the two stages to compare of each one: with and without workers, where it has some."""
    found = [(n, n.replace(*WORKERS)) for n in names if not n.endswith(WORKERS[1])]
    return [pair for pair in found if not wanted or pair[0].removesuffix(WORKERS[0]) in wanted]


def run_each(inputs: Path, out: Path, k: int, wanted: list[str]) -> None:
    """Run the ``k``-th variant of each stage, into a numbered folder each."""
    for i, pair in enumerate(variants(list(all_stages(inputs, out)), wanted)):
        folder = out / str(i)
        folder.mkdir(parents=True)
        stage = all_stages(inputs, folder)[pair[k]]
        if stage.prepare:
            stage.prepare(folder)
        if status := wait(start(stage, folder)):
            sys.exit(f"{pair[k]}: exit {status}: {(folder / 'console').read_text()}")


def compare_all(root: Path, wanted: list[str]) -> bool:
    """Run all stages in two processes, print what differs, return whether nothing does."""
    inputs = root / "inputs"
    inputs.mkdir()
    write_inputs(inputs)
    run_each(inputs, root / "0", 0, wanted)
    seed = 1 + (os.environ.get("PYTHONHASHSEED") == "1")
    environment = {**os.environ, "PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": "1"}
    again = [sys.executable, "-m", "tests.faults.again"]
    command = [*again, "--run", inputs, root / "1", "1", "--stages", *wanted]
    subprocess.run(command, env=environment, check=True)
    same = True
    for i, pair in enumerate(variants(list(all_stages(inputs, root)), wanted)):
        folders = [root / str(k) / str(i) for k in range(2)]
        differing = differences(*folders)
        same = same and not differing
        print(
            f"{pair[0]:<28} {len(files_in(folders[0])):>4} files, {len(differing)} differ",
            *differing,
        )
    return same


def main() -> None:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stages", nargs="*", default=[], help="default: all there are")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        run_each(Path(args.run[0]), Path(args.run[1]), int(args.run[2]), args.stages)
        return
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(0 if compare_all(Path(folder), args.stages) else 1)


if __name__ == "__main__":
    main()
