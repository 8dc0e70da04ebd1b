"""K3 and sizes: coordinates that fit nowhere, pixel sizes, diameters, contrast."""

import json

import numpy as np

from picking.micrographs.mrc import write_mrc

from . import base
from .base import HEIGHT, STEMS, WIDTH, boxes, coco, lines, rows, star
from .case import DATA, EITHER, LABELS, PICKING, PICKS, Case, of_coordinates


def moved(change, n=base.N_PICKED):
    """Picks whose (x, y) are changed, in px of the MRC's frame."""
    return {"a.star": star([(name, *change(x, y)) for name, x, y in rows(n=n)])}


def json_of(change):
    content = coco()
    for one in content["annotations"]:
        one["bbox"] = change(*one["bbox"])
    return {"a.json": json.dumps(content)}


RANDOM = np.random.default_rng(5).uniform(0, 1, (180, 2)).round(4)
at_random = [(n, x * WIDTH, y * HEIGHT) for (n, _, _), (x, y) in zip(rows(), RANDOM, strict=False)]
jitter = np.random.default_rng(1).uniform(-3, 3, (80, 2)).round(2)
near = [(n, x + dx, y + dy) for (n, x, y), (dx, dy) in zip(rows(), jitter, strict=True)]
# A warning, or an error where it is plain; what came of them as picks does not matter
DOUBT = {"status": (0, 2), "precision": None, "recall": None}


def headers(*pixel_sizes):
    """Micrographs whose headers say these pixel sizes, one after the other."""

    def write(folder):
        raw = base.own_raw(folder)
        for stem, size in zip(STEMS, pixel_sizes * 4, strict=False):
            (raw / f"{stem}.mrc").unlink()
            write_mrc(raw / f"{stem}.mrc", base.counts(stem), size)

    return write


def white(folder):
    """Micrographs in which particles are bright."""
    raw = base.own_raw(folder)
    for stem in STEMS:
        (raw / f"{stem}.mrc").unlink()
        write_mrc(raw / f"{stem}.mrc", 200 - base.counts(stem), base.PIXEL_SIZE)


def data_moved(change):
    def write(folder):
        path = base.data_set(folder) / "annotations/instances_train.json"
        content = json.loads(path.read_text())
        for one in content["annotations"]:
            one["bbox"] = change(*one["bbox"])
        path.write_text(json.dumps(content))

    return write


# Å as one sign, as the unit's own sign (K), as a letter with a ring, and with a blank
USUAL = ("24px", "48A", "48\u00c5", "48\u212b", "48A\u030a", "48 A", "48 \u00c5", "24 px",
         "24.0px", "4.8e1A")  # fmt: skip
FRACTIONS = r"fraction|0 to 1|between 0 and 1|at most 1"
PIXELS = f"{LABELS} picks.star --diameter"
ONE = f"{PICKING} raw/mic_000.mrc"
CASES = [
    # K3: coordinates
    *of_coordinates("K3 fractions in STAR", moved(lambda x, y: (x / WIDTH, y / HEIGHT)), status=2,
                    says=(r"a\.star", FRACTIONS)),
    *of_coordinates("K3 fractions in JSON", json_of(lambda x, y, w, h: [x / WIDTH, y / HEIGHT,
                    w / WIDTH, h / HEIGHT]), status=2, says=(r"a\.json|mic_00", FRACTIONS)),
    *of_coordinates("K3 fractions in CSV", {f"{s}.csv": "X-Coordinate,Y-Coordinate,Diameter\n"
                    + lines([(x / WIDTH, y / HEIGHT, 24) for y, x in base.centres(s)[:20]], ",")
                    for s in STEMS}, "*.csv", status=2, says=(r"\.csv|mic_00", FRACTIONS)),
    *of_coordinates("K3 fractions in BOX", {f"{s}.box": lines([(x / WIDTH, y / HEIGHT, .03, .05)
                    for x, y, _, _ in boxes(s)]) for s in STEMS}, "*.box", status=2,
                    says=(r"\.box|mic_00", FRACTIONS)),
    Case("K3 fractions without the micrographs", f"{PICKS} a.star --frame jpeg --truth-frame jpeg"
         .replace("--micrographs raw/*.mrc", ""), moved(lambda x, y: (x / WIDTH, y / HEIGHT)), 2,
         (FRACTIONS,)),
    *[case for k in (2, 4, 8) for case in of_coordinates(
        f"K3 binned by {k}", moved(lambda x, y, k=k: (x / k, y / k)), **DOUBT,
        warns=(rf"\b{k}\b|corner|binned|scale",))],
    *[case for k in (1.5, 3) for case in of_coordinates(
        f"K3 binned by {k}", moved(lambda x, y, k=k: (x / k, y / k)), **DOUBT,
        warns=("corner|binned|scale|random|fit",))],
    *of_coordinates("K3 of a micrograph twice as fine", moved(lambda x, y: (2 * x, 2 * y)),
                    status=2, says=("outside|binned|scale",)),
    *of_coordinates("K3 in Å", moved(lambda x, y: (2 * x, 2 * y), n=9), status=2,
                    says=("outside|binned|scale",)),
    *of_coordinates("K3 x mirrored", moved(lambda x, y: (WIDTH - x, y)), **DOUBT,
                    warns=("mirror|left|flip",)),
    *of_coordinates("K3 y mirrored", moved(lambda x, y: (x, HEIGHT - y)), status=2,
                    says=("upside down", "frame")),
    *of_coordinates("K3 turned by half", moved(lambda x, y: (WIDTH - x, HEIGHT - y)), **DOUBT,
                    warns=("turn|rotat|180|mirror",)),
    *of_coordinates("K3 x and y swapped", {"a.star": star([(n, y, x) for n, x, y in rows()
                    if x < HEIGHT])}, **DOUBT, warns=("swap|exchang|transpos|turn|outside",)),
    *of_coordinates("K3 all in one corner", moved(lambda x, y: (x % 40 + 2, y % 40 + 2)),
                    n=None, **DOUBT, warns=("corner|random|fit|contrast",)),
    *of_coordinates("K3 at random", {"a.star": star(at_random)}, **DOUBT,
                    warns=("random|fit|contrast",)),
    *of_coordinates("K3 of the next micrograph", {"a.star": star([(f"{STEMS[i // 20 - 1]}.mrc", x,
                    y) for i, (_, x, y) in enumerate(rows())])}, **DOUBT,
                    warns=("random|fit|contrast",)),
    *of_coordinates("K3 corners of boxes given as centres", moved(lambda x, y: (x - 12, y - 12)),
                    **DOUBT, says=("",)),
    *of_coordinates("K3 picked by eye, up to 3 px off", {"a.star": star(near)}),
    *of_coordinates("K3 two picks on each", {"a.star": star(rows(n=2))}, n=8),
    *of_coordinates("K3 all particles", {"a.star": star(rows(n=45))}, n=180),
    *of_coordinates("K3 a third of them is nothing", {"a.star": star(at_random[:20] + rows()[20:])},
                    precision=None, recall=None, says=("",)),
    Case("K3 a data set binned by 2", DATA, data_moved(lambda *box: [v / 2 for v in box]), **DOUBT,
         warns=(r"\b2\b|corner|binned|scale",)),
    Case("K3 a data set mirrored", DATA, data_moved(lambda x, y, w, h: [WIDTH - x - w, y, w, h]),
         **DOUBT, warns=("mirror|left|flip",)),
    Case("K3 a data set in fractions", DATA, data_moved(lambda x, y, w, h: [x / WIDTH, y / HEIGHT,
         w / WIDTH, h / HEIGHT]), 2, (FRACTIONS,)),
    # Pixel sizes; the headers say 2 Å
    Case("further Å and the pixel size of the header", f"{PIXELS} 48A --pixel-size 2", n=80),
    Case("further Å, and only the header knows the pixel size", f"{PIXELS} 48A", says=("2",), n=80),
    Case("further Å, and only the header knows, picking", f"{ONE} --diameter 48A", says=("2",),
         n=45),
    Case("further a pixel size three times off", f"{PIXELS} 48A --pixel-size 6", **DOUBT,
         warns=("pixel-size", r"\b2\b", r"\b6\b")),
    Case("further a pixel size three times off, picking", f"{ONE} --diameter 48A --pixel-size 6",
         **DOUBT, warns=("pixel-size", r"\b2\b", r"\b6\b")),
    Case("further a pixel size in nm", f"{PIXELS} 48A --pixel-size 0.2", **DOUBT,
         warns=("pixel-size|diameter",)),
    Case("further a pixel size that is a little rounded", f"{PIXELS} 48A --pixel-size 2.01", n=80),
    Case("further a header that knows no pixel size", f"{PIXELS} 48A --pixel-size 2", headers(0.0),
         n=80),
    Case("further a header of 1 Å, as programs leave it", f"{PIXELS} 48A --pixel-size 2",
         headers(1.0), **EITHER, n=80),
    Case("further Å, and nobody knows the pixel size", f"{PIXELS} 48A", headers(0.0), 2,
         ("--pixel-size",)),
    Case("further Å, and the headers do not agree", f"{PIXELS} 48A", headers(2.0, 4.0), 0,
         (r"Pixel size: 2 to 4 Å \(the headers of 4 MRC files\)",), n=80),
    Case("further Å, and a header does not know the pixel size", f"{PIXELS} 48A",
         headers(2.0, 0.0), 2, (r"mic_00\d\.mrc", "--pixel-size")),
    Case("further px, and the headers do not agree", f"{PIXELS} 24px", headers(2.0, 4.0), 0,
         warns=("2 to 4 Å", "--diameter in Å"), n=80),
    Case("further a negative pixel size", f"{PIXELS} 48A --pixel-size -2", status=2,
         says=("pixel-size",)),
    # Diameters
    *[Case(f"further a diameter of {text!a}", f"{PIXELS} '{text}' --pixel-size 2", n=80)
      for text in USUAL],
    *[Case(f"further a diameter of {text!a}", f"{PIXELS} '{text}' --pixel-size 2", n=80,
           **EITHER) for text in ("24PX", "48a", "48ang", "4.8nm")],
    *[Case(f"further no diameter: {text}", f"{PIXELS} {text}", status=2, says=("diameter",))
      for text in ("24", "px", "0px", "nanpx", "infpx", "-24px", "1e9px", "24pxx", "2000px")],
    # Contrast
    Case("further white particles", f"{PICKING} raw/*.mrc", white, 0, ("--invert",)),
    Case("further white particles, inverted", f"{PICKING} raw/*.mrc --invert", white, 0, n=180),
    Case("further dark particles, inverted", f"{PICKING} raw/*.mrc --invert", status=0,
         says=("invert",)),
    Case("further white particles are learned as they are", f"{LABELS} picks.star", white, n=80),
]  # fmt: skip
