"""What preprocessing costs beside plain JPEG decoding of the same files, in one run.

    python -m benchmarks.preprocessing --data-root ../shared/data/empiar-10017
    python -m benchmarks.preprocessing --data-root ... --memory 12 120 1080   # peak of a process

The micrographs are copied under new names until there are enough of them. The script is started for
few and for many: the difference is what a micrograph costs, the rest (the start of Python,
pictures) comes once. The ways take turns and a ratio is the median over the turns. Processor
time is counted too: it bears other work on the machine better than wall time does.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from benchmarks.common import new_parser, print_header, print_row
from picking.errors import run_script
from picking.parallel import ordered_map

SPLIT = "train"
ALL_IMAGES = 5172  # of CryoTransformer's training set
TASKS = {
    "both stores": ["patches", "segmentation"],
    "patches": ["patches"],
    "segmentation": ["segmentation"],
}


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--few", type=int, default=12, help="micrographs")
    parser.add_argument("--many", type=int, default=60)
    parser.add_argument("--num-workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3, help="turns")
    parser.add_argument("--memory", type=int, nargs="+", help="peak memory for so many instead")
    args = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}, Pillow {Image.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        if args.memory:
            print_memory(args, Path(folder))
        else:
            print_costs(args, Path(folder))


def copy_micrographs(root: Path, n: int, folder: Path) -> list[Path]:
    """Make a data set of ``n`` micrographs out of a split of ``root``; return their paths."""
    name = f"annotations/instances_{SPLIT}.json"
    listed = json.loads((root / name).read_text())
    images, boxes = [], []
    (folder / SPLIT).mkdir(parents=True)
    for i in range(n):
        image = listed["images"][i % len(listed["images"])]
        copied = f"{i:05}_{image['file_name']}"
        shutil.copy(root / SPLIT / image["file_name"], folder / SPLIT / copied)
        images.append({**image, "id": i, "file_name": copied})
        of_it = (box for box in listed["annotations"] if box["image_id"] == image["id"])
        boxes += [{**box, "image_id": i, "id": len(boxes) + k} for k, box in enumerate(of_it)]
    (folder / "annotations").mkdir()
    (folder / name).write_text(json.dumps({**listed, "images": images, "annotations": boxes}))
    return sorted((folder / SPLIT).iterdir())


def decode_pillow(path: Path) -> tuple[int, ...]:
    with Image.open(path) as image:
        return np.asarray(image.convert("L")).shape


def decode_fastest(path: Path) -> tuple[int, ...]:
    return simplejpeg.decode_jpeg(path.read_bytes(), "GRAY").shape


def decode_reduced(path: Path) -> tuple[int, ...]:
    with Image.open(path) as image:
        image.draft("L", (768, 768))
        return np.asarray(image).shape


def decode(function: Callable, n_workers: int) -> Callable[[Path, list[Path]], None]:
    def run(root: Path, paths: list[Path]) -> None:
        for _ in ordered_map(function, paths, n_workers, "Decoding"):
            pass

    return run


def preprocess(tasks: list[str], n_workers: int, *more: str) -> Callable[[Path, list[Path]], None]:
    def run(root: Path, paths: list[Path]) -> None:
        with tempfile.TemporaryDirectory(dir=root) as output:
            command = ["preprocess_coco_full_dataset.py", "--data-root", root, "--tasks", *tasks]
            command += ["--output-dir", f"{output}/patches", "--seg-output-dir", f"{output}/images"]
            command += ["--num-workers", n_workers, "--splits", SPLIT, *more]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            subprocess.run([sys.executable, *map(str, command)], check=True, **quiet)

    return run


def seconds(run: Callable, root: Path, paths: list[Path]) -> tuple[float, float]:
    """Return wall and processor seconds, those of children that have ended included."""
    started, before = time.perf_counter(), sum(os.times()[:4])
    run(root, paths)
    return time.perf_counter() - started, sum(os.times()[:4]) - before


def print_costs(args: argparse.Namespace, folder: Path) -> None:
    sets = {n: folder / str(n) for n in (args.few, args.many)}
    paths = {n: copy_micrographs(args.data_root, n, root) for n, root in sets.items()}
    n_more = args.many - args.few
    for n_workers in args.num_workers:
        ways = {
            "decoding, fastest": decode(decode_fastest, n_workers),
            "decoding, Pillow": decode(decode_pillow, n_workers),
            "decoding at reduced scale, Pillow": decode(decode_reduced, n_workers),
            **{name: preprocess(tasks, n_workers) for name, tasks in TASKS.items()},
        }
        each: dict[str, list[np.ndarray]] = {name: [] for name in ways}
        once: dict[str, list[np.ndarray]] = {name: [] for name in ways}
        for _ in range(args.repeats):
            for name, run in ways.items():
                few, many = (np.array(seconds(run, sets[n], paths[n])) for n in sets)
                each[name].append((many - few) / n_more)
                once[name].append(few - args.few * each[name][-1])
        print(f"\n{n_workers} process(es): of a micrograph, and once")
        whole = f"{ALL_IMAGES:,} micrographs, min"
        print_header("way", "ms", "ratio", "CPU ms", "ratio", "once, s", whole)
        for name, values in each.items():
            wall, cpu = np.median(values, axis=0)
            ratios = np.median(np.array(values) / np.array(each["decoding, fastest"]), axis=0)
            start = max(0.0, float(np.median(once[name], axis=0)[0]))
            minutes = (start + ALL_IMAGES * wall) / 60
            costs = [f"{1e3 * wall:.0f}", f"{ratios[0]:.2f}"]
            costs += [f"{1e3 * cpu:.0f}", f"{ratios[1]:.2f}"]
            print_row(name, *costs, f"{start:.1f}", f"{minutes:.1f}")


def print_memory(args: argparse.Namespace, folder: Path) -> None:
    """Print the peak of the largest process; patches of 32 px, so that the disk bears many."""
    print()
    print_header("micrographs", "peak memory of the largest process, MiB")
    for n in args.memory:
        copy_micrographs(args.data_root, n, folder / str(n))
        run = preprocess(TASKS["both stores"], 2, "--patch-size", "32")
        child = os.fork()
        if child == 0:  # a process of its own, since the peak is of all children so far
            run(folder / str(n), [])
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            print_row(f"{n:,}", f"{peak:,.0f}")
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            raise SystemExit(1)


if __name__ == "__main__":
    run_script(main)
