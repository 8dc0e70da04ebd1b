"""What preprocessing costs in shards, beside one ordinary run of the same micrographs.

    python -m picking.simulation --output data/simulated_large --micrographs-train 34 \
        --micrographs-val 4 --micrographs-test 2 --unannotated 0 --size 4096 --pixel-size 1.0 \
        --density 2.5 --num-workers 2
    python -m benchmarks.shards --data-root data/simulated_large --shards 4

Turn by turn: the plan alone (--dry-run) of the smallest split and of all, whose difference is what
planning costs a micrograph; one ordinary run; shards one after another, and the last command. All
without worker processes, and CPU seconds count, since other work on the machine changes them
least. Then what follows for many micrographs on machines with some cores each, were all but reading
the annotations shared evenly among the cores: with a disk that is no limit, and with one on which
each machine reads and writes so many MB/s, however many there are.
"""

import argparse
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from picking.errors import UserError, run_script
from picking.files import read_json
from picking.formats.annotations import find_splits, read_split
from picking.stores.writer import checksum_at

ROOT = Path(__file__).resolve().parent.parent
STEPS = ("plan of the smallest split", "plan", "ordinary run", "all shards", "last command")
Seconds = tuple[float, float]  # of CPU and of wall time


def main() -> None:
    args = parse_args()
    start = time.process_time()
    sizes = {
        name: len(read_split(args.data_root, name).micrographs)
        for name in find_splits(args.data_root, None)
    }
    annotations = (time.process_time() - start) / sum(sizes.values())
    smallest, n_all = min(sizes, key=lambda name: sizes[name]), sum(sizes.values())
    print(f"{n_all} micrographs, {args.shards} shards, load before {os.getloadavg()[0]:.1f}\n")

    # 1. Every step in turn, several times
    done = [turn(args.data_root, smallest, args.shards) for _ in range(args.repeats)]
    turns, n_row_bytes = [seconds for seconds, _ in done], done[0][1]
    cpu = {step: statistics.median(one[step][0] for one in turns) for step in turns[0]}
    print(f"{'step':28}{'CPU s':>8}{'wall s':>8}{'CPU / ordinary':>16}")
    for step in STEPS:
        wall = statistics.median(one[step][1] for one in turns)
        ratio = statistics.median(one[step][0] / one["ordinary run"][0] for one in turns)
        print(f"{step:28}{cpu[step]:8.2f}{wall:8.2f}{ratio:16.2f}")
    ratio = statistics.median(
        (one["all shards"][0] + one["last command"][0]) / one["ordinary run"][0] for one in turns
    )
    print(f"{'shards and last command':28}{'':16}{ratio:16.2f}")

    # 2. What a micrograph costs
    planned = (cpu["plan"] - cpu["plan of the smallest split"]) / (n_all - sizes[smallest])
    costs = {
        "annotations": annotations,
        "plan": planned - annotations,
        "cut": (cpu["all shards"] - args.shards * cpu["plan"]) / n_all,
        "check": cpu["checksums"] / n_all,
    }
    shown = ", ".join(f"{name} {1000 * seconds:.1f}" for name, seconds in costs.items())
    n_image_bytes = sum(path.stat().st_size for path in args.data_root.glob("*/*.jpg"))
    image_mb, rows_mb = n_image_bytes / n_all / 1e6, n_row_bytes / n_all / 1e6
    print(f"\nA micrograph: CPU ms: {shown}; MB: image {image_mb:.1f}, rows {rows_mb:.1f}")

    # 3. What follows for many
    print(f"\n{args.n_micrographs:,} micrographs, {args.cores} cores a machine, minutes:")
    print(f"{'MB/s':>6}{'machines':>10}{'each plans':>12}{'and cuts':>10}{'last':>8}{'all':>8}")
    minutes = args.n_micrographs / 60
    for rate in (math.inf, *args.rates):
        plan = minutes * (costs["annotations"] + costs["plan"] / args.cores)
        cut = minutes * max(costs["cut"] / args.cores, (image_mb + rows_mb) / rate)
        check = minutes * max(costs["check"] / args.cores, rows_mb / rate)
        for n in (1, 2, 4, 8, 16, 32):
            last = plan + check if n > 1 else 0
            parts = (plan, cut / n, last, plan + cut / n + last)
            print(f"{rate:6g}{n:10}{parts[0]:12.1f}{parts[1]:10.1f}{parts[2]:8.1f}{parts[3]:8.1f}")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3, help="turns")
    parser.add_argument("--n-micrographs", type=int, default=50_000)
    parser.add_argument("--cores", type=int, default=16)
    parser.add_argument("--rates", type=float, nargs="+", default=[1000, 200], help="in MB/s")
    args = parser.parse_args()
    if min(args.shards, args.repeats, *args.rates) < 1:
        raise UserError("--shards, --repeats and --rates: choose 1 or more")
    return args


def turn(data_root: Path, smallest: str, n_shards: int) -> tuple[dict[str, Seconds], int]:
    """Return what every step takes and a store's bytes; raises when the two stores differ."""
    with tempfile.TemporaryDirectory() as folder:
        one, several = Path(folder) / "one", Path(folder) / "several"
        seconds = {
            "plan of the smallest split": run(data_root, one, "--dry-run", "--splits", smallest),
            "plan": run(data_root, one, "--dry-run"),
            "ordinary run": run(data_root, one),
        }
        shards = [
            run(data_root, several, "--shard", f"{i}/{n_shards}") for i in range(1, n_shards + 1)
        ]
        seconds["all shards"] = (sum(cpu for cpu, _ in shards), sum(wall for _, wall in shards))
        seconds["last command"] = run(data_root, several)
        seconds["checksums"] = check(several)
        n_row_bytes = sum(path.stat().st_size for path in several.glob("*/patches.npy"))
        compare = ["diff", "-r", "--exclude=.lock", str(one), str(several)]
        if subprocess.run(compare, stdout=sys.stderr).returncode:
            raise UserError("the stores of one process and of shards differ: see above")
    return seconds, n_row_bytes


def run(data_root: Path, output: Path, *options: str) -> Seconds:
    """Run the script in a process of its own."""
    command = [sys.executable, "preprocess_coco_full_dataset.py", "--num-workers", "0"]
    command += ["--data-root", str(data_root.resolve()), "--output-dir", str(output), *options]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def check(store: Path) -> Seconds:
    """Read all rows and make their checksums, as the last command does, by micrographs."""
    cpu, start = time.process_time(), time.perf_counter()
    for name, counts in read_json(store / "metadata.json")["splits"].items():
        path = store / name / "patches.npy"
        n_bytes = path.stat().st_size // counts["n_images"]
        for i in range(counts["n_images"]):
            checksum_at([(path, i * n_bytes, n_bytes)])
    return time.process_time() - cpu, time.perf_counter() - start


if __name__ == "__main__":
    run_script(main)
