"""K1: nothing that was given is left out without a word."""

import json

from . import base
from .base import STEMS, boxes, coco, csv, lines, rows, star
from .case import DATA, LABELS, PICKING, PICKS, TRUTH, Case, of_coordinates

TWO_UNKNOWN = star(
    rows("mic_000", "mic_001")
    + [(f"other_{name[:7]}.mrc", x, y) for name, x, y in rows("mic_002", "mic_003")]
)
ODD_NAMES = [(name, 100, 100) for name in ("None", "NA", "nan", "null", "N/A")]
A_BOX_EACH = {f"{stem}.box": lines(boxes(stem)) for stem in STEMS}
TWO_GIVEN = "--micrographs raw/mic_000.mrc raw/mic_001.mrc"


def zero_boxes(share):
    """BOX files in which a share of the boxes has no size."""
    n = round(base.N_PICKED * share)
    return {
        f"{stem}.box": lines([(x, y, 0, 0) for x, y, _, _ in boxes(stem)[:n]] + boxes(stem)[n:])
        for stem in STEMS
    }


def zero_json(n, box=(0, 0, 0, 0)):
    content = coco()
    for i in range(len(STEMS)):
        for one in content["annotations"][20 * i : 20 * i + n]:
            one["bbox"] = list(box)
    return {"a.json": json.dumps(content)}


def zero_csv(n):
    return {f"{stem}.csv": csv(stem).replace(",24\n", ",0\n", n) for stem in STEMS}


def link(folder):
    """A fifth micrograph that is not there any more."""
    (base.own_raw(folder) / "mic_004.mrc").symlink_to(folder / "nowhere.mrc")


def beside(*names):
    """Further files beside the micrographs."""

    def write(folder):
        for name in names:
            (base.own_raw(folder) if (folder / "raw").is_symlink() else folder / "raw")
            (folder / "raw" / name).write_bytes(b"of another kind")

    return write


def renamed(**names):
    """Micrographs of other names: old stem -> new name; and picks under those names."""

    def write(folder):
        raw = base.own_raw(folder)
        text = star(rows())
        for stem, name in names.items():
            (raw / f"{stem}.mrc").rename(raw / name)
            text = text.replace(f"{stem}.mrc", name)
        (folder / "a.star").write_text(text)
        (folder / "bare.star").write_text(text.replace(".mrc", ""))

    return write


def changed_data(change):
    """A data set after ``change(folder of it)``."""

    def write(folder):
        change(base.data_set(folder))

    return write


def without_json(root):
    """A data set of CSVs, one of which is of no image."""
    for path in (root / "annotations").iterdir():
        path.unlink()
    (root / "particle_coordinates").mkdir()
    for stem in (*STEMS, "nobody"):
        of = STEMS[0] if stem == "nobody" else stem
        (root / "particle_coordinates" / f"{stem}.csv").write_text(csv(of, 45))


def orphans(root):
    path = root / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    for one in content["annotations"][:5]:
        one["image_id"] = 77
    path.write_text(json.dumps(content))


def shifted(n):
    """Picks of which n on each micrograph lie outside of it."""
    return star([(name, x + 700 * (i % 20 < n), y) for i, (name, x, y) in enumerate(rows())])


NAMELESS = {"a.star": star(rows() + ODD_NAMES)}
TAILS = "{0}_patch_aligned_doseweighted.mrc"
CASES = [
    # Names that match no micrograph
    Case("K1 two of four names unknown, labels", f"{LABELS} a.star", {"a.star": TWO_UNKNOWN}, 2,
         ("40 of 80", "other_mic", "--allow-partial")),
    Case("K1 two of four names unknown, truth", f"{TRUTH} a.star", {"a.star": TWO_UNKNOWN}, 2,
         (r"40|\b2\b", "other_mic", "--allow-partial")),
    Case("K1 two of four names unknown, picks", f"{PICKS} a.star", {"a.star": TWO_UNKNOWN}, 2,
         (r"40|\b2\b", "other_mic", "--allow-partial")),
    Case("K1 two of four names unknown, labels, allowed", f"{LABELS} a.star --allow-partial",
         {"a.star": TWO_UNKNOWN}, 0, ("40 of 80", "other_mic"), n=40),
    Case("K1 two of four names unknown, truth, allowed", f"{TRUTH} a.star --allow-partial",
         {"a.star": TWO_UNKNOWN}, 0, ("other_mic",), n_truth=40),
    Case("K1 two of four names unknown, picks, allowed", f"{PICKS} a.star --allow-partial",
         {"a.star": TWO_UNKNOWN}, 0, ("other_mic",), n=40),
    *of_coordinates("K1 one row of 81 of an unknown name",
                    {"a.star": star([*rows(), ("other.mrc", 9, 9)])}, says=("1 of 81", "other")),
    *of_coordinates("K1 rows named None, NA, nan, null, N/A", NAMELESS,
                    says=("5 of 85", "None|NA|nan|null")),
    Case("K1 half of the rows named None", f"{LABELS} a.star",
         {"a.star": star([(n if i % 2 else "None", x, y) for i, (n, x, y) in enumerate(rows())])},
         2, ("40 of 80", "None")),
    *[Case(f"K1 micrographs that are called so: {name} in the table", f"{LABELS} {name}.star",
           renamed(mic_002="NA.mrc", mic_003="None.mrc", mic_001="nan.mrc"), n=80)
      for name in ("a", "bare")],
    Case("K1 all names in capitals", f"{LABELS} a.star", {"a.star": star(rows()).upper()
         .replace("DATA_", "data_").replace("LOOP_", "loop_").replace("_RLN", "_rln")
         .replace("MICROGRAPHNAME", "MicrographName").replace("COORDINATE", "Coordinate")},
         (0, 2), ("MIC_00|80",), n=80),
    Case("K1 a superset as truth", f"{PICKS} picks.star {TWO_GIVEN}", status=0,
         says=("mic_00[23]", r"\b(90|2|100)\b"), n=40, n_truth=90),
    Case("K1 a superset as labels", f"{LABELS} picks.star {TWO_GIVEN}", status=2,
         says=("40 of 80", "mic_00[23]")),
    Case("K1 picks of none of the micrographs", f"{PICKS} a.star",
         {"a.star": star([(f"x_{n}", x, y) for n, x, y in rows()])}, 2, ("x_mic",)),
    Case("K1 one of five BOX files is of no micrograph", f"{LABELS} *.box",
         {**A_BOX_EACH, "other.box": lines(boxes("mic_000"))}, 2, ("20 of 100", "other")),
    Case("K1 an empty BOX file is a micrograph without picks", f"{LABELS} *.box",
         {**A_BOX_EACH, "mic_003.box": ""}, n=60),
    Case("K1 a STAR file of no bytes", f"{LABELS} a.star picks.star", {"a.star": ""}, 2,
         ("a.star",)),
    # Names that do match, whatever their clothes
    *of_coordinates("K1 folders, suffixes and tails of other programs are no other names",
                    {"a.star": star([(n, x, y) for (n, x, y) in
                     [(f"MotionCorr/job002/{n[:7]}.mrcs", x, y) for n, x, y in rows("mic_000")]
                     + [(f"Z:\\raw\\{n}", x, y) for n, x, y in rows("mic_001")]
                     + [(f"12345_{TAILS.format(n[:7])}", x, y) for n, x, y in rows("mic_002")]
                     + [(n[:7], x, y) for n, x, y in rows("mic_003")]])}),
    Case("K1 one micrograph under two names", f"{LABELS} a.star", {"a.star": star(
         [(n if i % 2 else f"raw/{n}", x, y) for i, (n, x, y) in enumerate(rows())])}, (0, 2),
         ("mic_000|80",), n=80),
    Case("K1 a micrograph named twice counts once", f"{LABELS} picks.star --micrographs raw/*.mrc "
         "raw/mic_000.mrc", n=80),
    # Micrographs
    Case("K1 a dangling link named outright", f"{LABELS} picks.star --micrographs "
         "raw/mic_000.mrc raw/mic_001.mrc raw/mic_004.mrc", link, 2, ("mic_004",)),
    Case("K1 a dangling link in a pattern", f"{LABELS} picks.star", link, 2,
         ("mic_004", "--allow-partial")),
    Case("K1 a dangling link in a pattern, allowed", f"{LABELS} picks.star --allow-partial", link,
         0, ("mic_004",), n=80),
    Case("K1 a dangling link in a pattern, picking", f"{PICKING} raw/*.mrc", link, 2,
         ("mic_004", "--allow-partial")),
    Case("K1 movies named outright, picking", f"{PICKING} raw/mic_000.mrc raw/x.mrcs raw/x.eer",
         beside("x.mrcs", "x.eer"), 2, (r"x\.(mrcs|eer)",)),
    Case("K1 movies named outright, labels", f"{LABELS} picks.star --micrographs raw/mic_000.mrc "
         "raw/mic_001.mrc raw/x.eer", beside("x.eer"), 2, (r"x\.eer",)),
    Case("K1 movies in a pattern", f"{LABELS} picks.star --micrographs raw/*",
         beside("x.mrcs", "y.eer"), (0, 2), (r"x\.mrcs|y\.eer",), n=80),
    Case("K1 one file in a pattern is a picture of another kind", f"{LABELS} picks.star "
         "--micrographs raw/*", beside("mic_004.dm4"), (0, 2), (r"mic_004\.dm4",), n=80),
    Case("K1 a file without a suffix named outright", f"{LABELS} picks.star --micrographs "
         "raw/mic_000.mrc raw/mic_001.mrc raw/frames", beside("frames"), 2, ("frames",)),
    # Rows without size, or outside
    *of_coordinates("K1 one box of 20 has no size", zero_boxes(0.05), "*.box", n=76,
                    says=(r"\b4 of 80|1 of 20",)),
    *of_coordinates("K1 half of the boxes have no size", zero_boxes(0.5), "*.box", status=2,
                    says=(r"40 of 80|10 of 20", r"--allow-partial")),
    *of_coordinates("K1 half of the boxes have no size, allowed", zero_boxes(0.5),
                    "*.box --allow-partial", n=40, says=(r"40 of 80|10 of 20",)),
    *of_coordinates("K1 one JSON box of 20 has no size", zero_json(1), n=76,
                    says=(r"\b4 of 80|1 of 20",)),
    *of_coordinates("K1 one JSON box of 20 has a negative size", zero_json(1, (9, 9, -24, -24)),
                    n=76, says=(r"\b4 of 80|1 of 20",)),
    *of_coordinates("K1 half of the JSON boxes have no size", zero_json(10), status=2,
                    says=(r"40 of 80|10 of 20",)),
    *of_coordinates("K1 one CSV row of 20 has no diameter", zero_csv(1), "*.csv", n=76,
                    says=(r"\b4 of 80|1 of 20",)),
    *of_coordinates("K1 half of the CSV rows have no diameter", zero_csv(10), "*.csv", status=2,
                    says=(r"40 of 80|10 of 20",)),
    Case("K1 one label of 20 is outside", f"{LABELS} a.star", {"a.star": shifted(1)}, 0,
         ("outside", r"\b4\b|\b1\b"), n=76),
    Case("K1 one pick of 20 is outside", f"{PICKS} a.star", {"a.star": shifted(1)}, 0,
         ("outside", r"\b4\b|\b1\b")),
    Case("K1 one true particle of 20 is outside", f"{TRUTH} a.star", {"a.star": shifted(1)}, 0,
         ("outside", r"\b4\b|\b1\b"), n_truth=80),
    Case("K1 half of the labels are outside", f"{LABELS} a.star", {"a.star": shifted(10)}, 2,
         ("outside",)),
    # Data sets
    Case("K1 a whole data set", DATA, changed_data(lambda root: None), n=180),
    Case("K1 a data set of CSVs, one of no image", DATA, changed_data(without_json), (0, 2),
         ("nobody",), n=180),
    Case("K1 a data set with boxes of no image", DATA, changed_data(orphans), 0, (r"\b5\b",),
         n=175),
    Case("K1 a data set whose image is gone", DATA,
         changed_data(lambda root: (root / "train/mic_001.jpg").unlink()), 2, ("mic_001",)),
    Case("K1 a data set with a dangling link", DATA, changed_data(
         lambda root: (root / "train/mic_009.jpg").symlink_to("nowhere")), (0, 2), ("mic_009",),
         n=180),
    Case("K1 a data set with movies among its images", DATA, changed_data(
         lambda root: (root / "train/mic_009.mrcs").write_bytes(b"x")), (0, 2), ("mic_009",),
         n=180),
    Case("K1 a data set with boxes of no size", DATA, changed_data(
         lambda root: (p := root / "annotations/instances_train.json").write_text(
             p.read_text().replace("24.0, 24.0]", "0.0, 0.0]", 5))), 0, (r"\b5\b",), n=175),
]  # fmt: skip
