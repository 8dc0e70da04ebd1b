"""What every case starts from: micrographs of dark disks, where they are, and what runs on them.

Beside them lie ``truth.star``, ``picks.star`` (some particles of each), and ``tiny.pt``, the
checkpoint of a network that knows dark disks.
"""

import contextlib
import functools
import io
import json
import re
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pick_particles
import preprocess_coco_full_dataset
from picking.errors import run_script
from picking.micrographs.mrc import write_mrc
from picking.preprocessing.windows.plan import REACH_PX
from picking.training import networks
from tests.fixtures.data_sets import some_centres, write_coco
from tests.fixtures.pickers import classifier_content, write_checkpoint
from tests.fixtures.runs import one_thread

HEIGHT, WIDTH = SIZE_PX = (448, 640)
DIAMETER_PX, PIXEL_SIZE = 24, 2.0
N_PARTICLES, N_PICKED = 45, 20
STEMS = ("mic_000", "mic_001", "mic_002", "mic_003")
DATA_SPLITS = {"train": STEMS[:3], "val": STEMS[3:]}
SCRIPTS = {"preprocess": preprocess_coco_full_dataset, "pick": pick_particles}


class Knows(nn.Module):
    """A U-Net that knows: in the middle of a dark disk of 20 px is a particle."""

    def __init__(self, width, depth):
        super().__init__()
        self.depth, self.reach_px = depth, 8
        self.width = nn.Parameter(torch.tensor(6.0))

    def forward(self, x):
        x = nn.functional.pad(x, [8] * 4, mode="reflect")
        for side in ((17, 1), (1, 17)):
            x = nn.functional.avg_pool2d(x, side, 1)
        return -self.width * (x + 1.4)


@functools.cache
def centres(stem):
    """Where the disks are, whole px (n, 2), (y, x) from the top left; the picked ones first."""
    rng = np.random.default_rng(STEMS.index(stem))
    return some_centres(rng, N_PARTICLES, SIZE_PX, 15, 36)


@functools.cache
def counts(stem):
    """The micrograph, float32 (h, w) from the top: noise about 100 with disks that are darker."""
    raw = np.random.default_rng(9 + STEMS.index(stem)).normal(100, 10, SIZE_PX).astype(np.float32)
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    for cy, cx in centres(stem):
        raw[(y - cy) ** 2 + (x - cx) ** 2 < (DIAMETER_PX / 2) ** 2] -= 20
    return raw


def places(stem, n=N_PICKED):
    """The first particles of a micrograph as (x, y) in the MRC's frame, as RELION writes them."""
    return [(float(x), float(HEIGHT - y)) for y, x in centres(stem)[:n]]


def rows(*stems, n=N_PICKED):
    """(name, x, y) of the first particles of these micrographs, of all where none is named."""
    return [(f"{stem}.mrc", x, y) for stem in stems or STEMS for x, y in places(stem, n)]


def star(of, block="", columns=("MicrographName", "CoordinateX", "CoordinateY")):
    """A table of a STAR file."""
    head = [f"data_{block}", "", "loop_", *(f"_rln{c} #{i}" for i, c in enumerate(columns, 1))]
    return "\n".join([*head, *(" ".join(map(str, row)) for row in of)]) + "\n\n"


def boxes(stem, n=N_PICKED, side=DIAMETER_PX):
    """(x, y, w, h) of EMAN's boxes."""
    return [(x - side / 2, y - side / 2, side, side) for x, y in places(stem, n)]


def lines(table, separator=" "):
    return "".join(separator.join(map(str, row)) + "\n" for row in table)


def csv(stem, n=N_PICKED, separator=",", diameter=DIAMETER_PX):
    """CryoPPP's CSV of a micrograph, in the JPEG's frame."""
    head = ("X-Coordinate", "Y-Coordinate", "Diameter")
    return lines([head, *((x, y, diameter) for y, x in centres(stem)[:n])], separator)


def coco(*stems, n=N_PICKED, categories=None, of=None, suffix=".mrc"):
    """A COCO JSON; ``of`` gives the category of the i-th box of each micrograph."""
    stems = stems or STEMS
    content = {
        "categories": categories or [{"id": 1, "name": "particle"}],
        "images": [
            {"id": i, "file_name": f"{s}{suffix}", "height": HEIGHT, "width": WIDTH}
            for i, s in enumerate(stems)
        ],
        "annotations": [],
    }
    for i, stem in enumerate(stems):
        for k, (y, x) in enumerate(centres(stem)[:n]):
            box = [x - DIAMETER_PX / 2, y - DIAMETER_PX / 2, DIAMETER_PX, DIAMETER_PX]
            category = of(k) if of else 1
            one = {"id": len(content["annotations"]), "image_id": i, "category_id": category}
            content["annotations"].append({**one, "bbox": box})
    return content


@functools.cache
def made():
    """Make the base once a process; return its folder, which is for reading only."""
    import atexit
    import shutil
    import tempfile

    root = Path(tempfile.mkdtemp(prefix="files_base"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    (root / "raw").mkdir()
    for stem in STEMS:
        write_mrc(root / "raw" / f"{stem}.mrc", counts(stem), PIXEL_SIZE)
    (root / "truth.star").write_text(star(rows(n=N_PARTICLES)))
    (root / "picks.star").write_text(star(rows()))
    with mock.patch.object(networks, "UNet", Knows):
        wants = {"patch_size_px": 64, "scale": 20 / DIAMETER_PX, "diameter_px": float(DIAMETER_PX)}
        content = classifier_content("unet", **wants, reach_px=REACH_PX)
        content["config"]["data"]["input_size_px"] = 192
        network = Knows(1, 1).state_dict()
        write_checkpoint(root / "tiny.pt", **content, network=network, threshold=0.5)
    return root


def lay_out(folder):
    """Put the base into a case's folder, as links."""
    for path in made().iterdir():
        (folder / path.name).symlink_to(path)


def own_raw(folder):
    """Give the case micrographs of its own, to change; return their folder."""
    (folder / "raw").unlink()
    (folder / "raw").mkdir()
    for path in (made() / "raw").iterdir():
        (folder / "raw" / path.name).hardlink_to(path)
    return folder / "raw"


def data_set(folder, n=N_PARTICLES):
    """Write the base as a data set of JPEGs with a COCO JSON for each split."""
    for split, stems in DATA_SPLITS.items():
        (folder / "data" / split).mkdir(parents=True)
        for stem in stems:
            grey = Image.fromarray((counts(stem)).clip(0, 255).astype(np.uint8))
            grey.save(folder / "data" / split / f"{stem}.jpg", quality=95)
        of_split = {
            f"{s}.jpg": [(x - 12, y - 12, 24, 24) for y, x in centres(s)[:n]] for s in stems
        }
        write_coco(folder / "data/annotations" / f"instances_{split}.json", of_split, SIZE_PX)
    return folder / "data"


def run(command, *arguments):
    """Run a script here as from the command line; return its status and what it printed.

    ``n_labels`` and ``report`` are what it said of labels and of quality, where it did. All paths
    are relative to the folder that is the current one.
    """
    script = SCRIPTS[command]
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    err = io.StringIO()
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    with contextlib.ExitStack() as stack:
        for number, handler in handlers.items():
            stack.callback(signal.signal, number, handler)
        stack.enter_context(mock.patch.object(sys, "argv", [command, *map(str, arguments)]))
        stack.enter_context(mock.patch.object(networks, "UNet", Knows))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        stack.enter_context(one_thread())
        if command == "preprocess":
            stack.enter_context(mock.patch.object(script, "write_montage"))
        left = stack.enter_context(pytest.raises(SystemExit))
        run_script(script.main)
    out.flush()
    printed = out.buffer.getvalue().decode()
    report = None
    evaluation = Path("out/evaluation.json")
    if evaluation.is_file():
        report = json.loads(evaluation.read_text())
    return SimpleNamespace(
        status=left.value.code, out=printed, err=err.getvalue(), n_labels=n_labels(printed),
        report=report,
    )  # fmt: skip


def n_labels(printed):
    """How many labels a plan has, by what preprocessing prints of it."""
    counted = re.findall(r"(?:Picks|Positive patches): ([\d,]+)", printed)
    return sum(int(n.replace(",", "")) for n in counted)
