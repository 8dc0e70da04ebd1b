"""What reading a COCO file as large as CryoTransformer's costs, each way in a process of its own.

    OMP_NUM_THREADS=1 python -m benchmarks.coco_reading

json: Python's own parser, without which there is nothing. pycocotools: its COCO class alone, which
checks nothing. ours: `read_coco`, which indexes by pycocotools and checks every image and box.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import new_parser, print_header, print_row
from picking.formats.coco import read_coco

WAYS = ("json", "pycocotools", "ours")


def main() -> None:
    """Write the file, read it in each way, print CPU seconds and peak memory."""
    parser = new_parser(__doc__)
    parser.add_argument("--images", type=int, default=5172)
    parser.add_argument("--boxes", type=int, default=1_200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--step", nargs=2, metavar=("WAY", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        way, path = args.step[0], Path(args.step[1])
        write(path, args.images, args.boxes) if way == "write" else read(way, path)
        return
    print_header("way", "CPU s", "peak MiB")
    size = ["--images", str(args.images), "--boxes", str(args.boxes)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances_train.json"
        for way in ("write", *WAYS * args.rounds):
            command = [sys.executable, "-m", "benchmarks.coco_reading", "--step", way, str(path)]
            subprocess.run([*command, *size], check=True)


def write(path: Path, n_images: int, n_boxes: int) -> None:
    """Write boxes with iscrowd 1; every seventeenth image has only a box [0, 0, 0, 0]."""
    rng = np.random.default_rng(0)
    owners = np.sort(rng.integers(n_images, size=n_boxes))
    corners = rng.uniform(0, 4000, (n_boxes, 2)).round(2).tolist()
    boxes = [
        [*at, 108, 108] if i % 17 else [0, 0, 0, 0] for i, at in zip(owners, corners, strict=True)
    ]
    images = [
        {"id": i, "file_name": f"{i:05}.jpg", "width": 4096, "height": 4096}
        for i in range(n_images)
    ]
    annotations = [
        {"id": n, "image_id": int(i), "category_id": 1, "bbox": box, "area": box[2] * box[3],
         "iscrowd": 1, "segmentation": []}
        for n, (i, box) in enumerate(zip(owners, boxes, strict=True))
    ]  # fmt: skip
    path.write_text(json.dumps({"info": [], "images": images, "annotations": annotations}))


def read(way: str, path: Path) -> None:
    """Read the file in one way; print a row of the table."""
    if way == "json":
        json.loads(path.read_text())
    elif way == "ours":
        read_coco(path)
    else:
        from pycocotools.coco import COCO

        sys.stdout, console = sys.stderr, sys.stdout
        COCO(str(path))
        sys.stdout = console
    used = resource.getrusage(resource.RUSAGE_SELF)
    print_row(way, f"{used.ru_utime + used.ru_stime:.1f}", f"{used.ru_maxrss / 1024:.0f}")


if __name__ == "__main__":
    main()
