"""K2, K7, K8 and what files of coordinates look like otherwise: all of a file is read."""

import gzip
import json

from . import base
from .base import STEMS, boxes, coco, csv, lines, places, rows, star
from .case import DATA, EITHER, LABELS, PICKS, TRUTH, Case, anywhere, of_coordinates

HALVES = rows("mic_000", "mic_001"), rows("mic_002", "mic_003")
OPTICS = star(
    [(1, "opticsGroup1", 2.0)], "optics", ("OpticsGroup", "OpticsGroupName", "ImagePixelSize")
)
XY = ("CoordinateX", "CoordinateY")
NXY = ("MicrographName", *XY)
ALL = star(rows())


def key_value(row, block):
    """A block of one particle, as RELION and starfile write it."""
    return (
        f"data_{block}\n\n"
        + "".join(f"_rln{column} {value}\n" for column, value in zip(NXY, row, strict=True))
        + "\n"
    )


ONE_EACH = [row for stem in STEMS for row in rows(stem, n=1)]
TURNED = star([(0.5, y, "x", n, x) for n, x, y in HALVES[1]], "more",
              ("AutopickFigureOfMerit", "CoordinateY", "OpticsGroupName", "MicrographName",
               "CoordinateX"))  # fmt: skip
LIST = star([(f"raw/{s}.mrc", f"{s}.star") for s in STEMS], "coordinate_files",
            ("MicrographName", "MicrographCoordinates"))  # fmt: skip


# Categories


def categories(*names, of=lambda k: 1 if k < 20 else 2, n=35, **more):
    listed = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    return json.dumps(coco(n=n, categories=listed, of=of) | more)


def stripped(key):
    """The JSON of two categories without a key."""
    content = coco(n=35, of=lambda k: 1 if k < 20 else 2)
    content.pop(key, None)
    for one in content["annotations"]:
        one.pop(key, None)
    return json.dumps(content)


ICE = "ice contamination"


def data_with_ice(*names):
    """A data set in which every fifth box is of the second category."""

    def write(folder):
        for path in (base.data_set(folder) / "annotations").iterdir():
            content = json.loads(path.read_text())
            content["categories"] = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
            for i, one in enumerate(content["annotations"]):
                one["category_id"] = 2 if i % 5 == 0 else 1
            path.write_text(json.dumps(content))

    return write


# Twice


def twice(dx=0.0):
    return star([row for n, x, y in rows() for row in ((n, x, y), (n, x + dx, y))])


def twice_in_json():
    content = coco()
    content["annotations"] += [{**one, "id": one["id"] + 1000} for one in content["annotations"]]
    return json.dumps(content)


def data_twice(folder):
    path = base.data_set(folder) / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    content["annotations"] += [{**one, "id": 9999 + one["id"]} for one in content["annotations"]]
    path.write_text(json.dumps(content))


CSVS = {f"{stem}.csv": csv(stem) for stem in STEMS}


def each(change):
    """The CSV of every micrograph, changed."""
    return {name: change(text) for name, text in CSVS.items()}


def decimal_comma(text):
    return "\n".join(
        ";".join(f"{float(c):.1f}".replace(".", ",") if i else c for c in line.split(","))
        for i, line in enumerate(text.splitlines())
    )


HELIX = {f"{s}.box": lines([(*b, -1 - i % 2) for i, b in enumerate(boxes(s))]) for s in STEMS}
CASES = [
    # K2: blocks
    *of_coordinates("K2 two blocks of one name", {"a.star": star(HALVES[0]) + star(HALVES[1])}),
    *of_coordinates("K2 two blocks of two names",
                    {"a.star": star(HALVES[0], "a") + star(HALVES[1], "b")}),
    *of_coordinates("K2 three blocks of one name, the first empty",
                    {"a.star": star([]) + star(HALVES[0]) + star(HALVES[1])}),
    *of_coordinates("K2 a block for each micrograph",
                    {"a.star": "".join(star(rows(s), s) for s in STEMS)}),
    *of_coordinates("K2 a block for each micrograph, named by the block alone",
                    {"a.star": "".join(star(places(s), s, XY) for s in STEMS)},
                    **EITHER),
    *of_coordinates("K2 two files of RELION 3.1 in one, optics twice", {"a.star":
                    "".join(OPTICS + star(half, "particles") for half in HALVES)}),
    *of_coordinates("K2 blocks of other columns in another order",
                    {"a.star": star(HALVES[0]) + TURNED}),
    *of_coordinates("K2 a block without coordinates between", {"a.star": star(HALVES[0], "a")
                    + star([(f"{s}.mrc",) for s in STEMS], "micrographs", NXY[:1])
                    + star(HALVES[1], "c")}),
    *of_coordinates("K2 rows of one micrograph in both blocks",
                    {"a.star": star(rows()[::2]) + star(rows()[1::2])}),
    *of_coordinates("K2 a second block that names no micrograph",
                    {"a.star": star(HALVES[0]) + star(places("mic_002"), "b", XY)},
                    status=(0, 2), says=("MicrographName|a.star",)),
    Case("K2 a key-value block of one particle, picks", f"{PICKS} a.star",
         {"a.star": key_value(ONE_EACH[0], "")}, says=("",), n=1, precision=1.0),
    Case("K2 a key-value block of one particle, truth", f"{TRUTH} a.star",
         {"a.star": key_value(ONE_EACH[0], "")}, says=("",), n_truth=1, recall=1.0),
    *of_coordinates("K2 a key-value block for each micrograph",
                    {"a.star": "".join(map(key_value, ONE_EACH, STEMS))}, n=4),
    *of_coordinates("K2 a key-value block and a table", {"a.star": key_value(rows()[0], "one")
                    + star(rows()[1:], "rest")}),
    *anywhere("K2 comments between rows",
              {"a.star": ALL.replace("\nmic_001", "\n# the second\nmic_001", 1)}),
    *anywhere("K2 an empty line between rows",
                    {"a.star": ALL.replace("\nmic_001", "\n\nmic_001", 1)},
                    **EITHER),
    *anywhere("K2 comments behind rows",
              {"a.star": ALL.replace("\nmic_001", " # by eye\nmic_001", 1)}, **EITHER),
    *anywhere("K2 ends of lines of Windows", {"a.star": ALL.replace("\n", "\r\n")}),
    *anywhere("K2 ends of lines of old Macs", {"a.star": ALL.replace("\n", "\r")},
                    **EITHER),
    *anywhere("K2 tabs, indents and blanks behind", {"a.star": ALL.replace(" ", "\t")
                    .replace("\nmic", "\n  mic").replace("loop_", "loop_ ")}),
    *anywhere("K2 no numbers behind labels", {"a.star": ALL.replace(" #1", "")
                    .replace(" #2", "").replace(" #3", "")}),
    *anywhere("K2 other numbers behind labels", {"a.star": ALL.replace("X #2", "X #3")
                    .replace("Y #3", "Y #2")}),
    *anywhere("K2 quoted names", {"a.star": ALL.replace("mic_001.mrc", '"raw/mic_001.mrc"')
                    .replace("mic_002.mrc", "'raw/mic_002.mrc'")}),
    *anywhere("K2 a byte order mark", {"a.star": "\ufeff" + ALL}),
    *anywhere("K2 no block at all", {"a.star": ALL.replace("data_", "")}, **EITHER),
    *anywhere("K2 a cell more in every row than there are columns",
                    {"a.star": ALL.replace("\nmic", "\n7 mic")}, status=2, says=("a.star",)),
    *anywhere("K2 a cell more in one row", {"a.star": ALL.replace("\nmic_002", "\n7 mic_002",
                    1)}, status=2, says=("a.star",)),
    *anywhere("K2 a cell less in one row", {"a.star": ALL.replace("\nmic_002.mrc", "\n", 1)},
                    status=2, says=("a.star",)),
    *anywhere("K2 a cell less at the end, as of a copy that broke off",
                    {"a.star": ALL.rstrip().rsplit(" ", 1)[0]}, status=2, says=("a.star",)),
    *anywhere("K2 a name with a blank that is not quoted",
                    {"a.star": ALL.replace("mic_002", "mic 002")}, status=2, says=("a.star",)),
    *anywhere("K2 coordinates that are no numbers", {"a.star": ALL.replace(
                    f" {rows()[5][1]} ", " nan ", 1)}, status=(0, 2), n=79, says=("a.star",)),
    *anywhere("K2 RELION's list of coordinate files",
                    {"a.star": LIST, **{f"{s}.star": star(places(s), "", XY) for s in STEMS}},
                    "a.star", **EITHER),
    *anywhere("K2 a file for each micrograph without names",
                    {f"{s}.star": star(places(s), "", XY) for s in STEMS}, "mic_*.star"),
    *anywhere("K2 two files of one micrograph", {"a.star": star(rows()[:50]),
                    "b.star": star(rows()[50:])}, **EITHER),
    *anywhere("K2 one file given twice", {"a.star": ALL}, "a.star a.star"),
    *anywhere("K2 two CSVs in one, its header twice", {"mic_000.csv": csv("mic_000")
                    + csv("mic_000").replace("\n1", "\n2")}, status=2, says=("mic_000.csv",)),
    *anywhere("K2 two JSONs in one", {"a.json": json.dumps(coco("mic_000"))
                    + json.dumps(coco("mic_001"))}, status=2, says=("a.json",)),
    *anywhere("K2 COCO's list of results", {"a.json": json.dumps(coco()["annotations"])},
                    status=2, says=("a.json", "images")),
    *of_coordinates("K2 EMAN's JSON of one micrograph", {"mic_000.json": json.dumps({"boxes":
                    [[x, y, "manual"] for x, y in places("mic_000")]})}, **EITHER, n=20,
                    roles=("picks",)),
    # K7: categories
    *of_coordinates("K7 particle and ice", {"a.json": categories("particle", ICE)},
                    says=("",)),
    *of_coordinates("K7 Particles and ice", {"a.json": categories("Particles", ICE)},
                    **EITHER),
    *of_coordinates("K7 ice first, and particle has id 7", {"a.json": json.dumps(coco(
                    n=35, categories=[{"id": 2, "name": ICE}, {"id": 7, "name": "particle"}],
                    of=lambda k: 7 if k < 20 else 2))}, says=("",)),
    *of_coordinates("K7 two of which none is particle",
                    {"a.json": categories("apoferritin", ICE)}, status=2,
                    says=("--category", "apoferritin", ICE)),
    *of_coordinates("K7 two, one is asked for", {"a.json": categories("apoferritin", ICE)},
                    "a.json --category apoferritin", says=("",)),
    *of_coordinates("K7 two, the other than particle is asked for",
                    {"a.json": categories("particle", "virus", of=lambda k: 2 if k < 20 else 1)},
                    "a.json --category virus", says=("",)),
    *of_coordinates("K7 one asked for that there is not",
                    {"a.json": categories("apoferritin", ICE)}, "a.json --category ribosome",
                    status=2, says=("ribosome", "apoferritin")),
    *of_coordinates("K7 two listed, one in use",
                    {"a.json": categories("apoferritin", ICE, of=lambda k: 1, n=20)}),
    *of_coordinates("K7 two in use without names", {"a.json": stripped("categories")},
                    status=2, says=("categor",)),
    *of_coordinates("K7 boxes without a category", {"a.json": stripped("category_id")},
                    **EITHER, n=140),
    Case("K7 a data set with ice", DATA, data_with_ice("particle", ICE), 0,
         ("",), n=144),
    Case("K7 a data set of two kinds", DATA, data_with_ice("apoferritin", ICE), 2,
         ("--category", "apoferritin")),
    Case("K7 a data set of two kinds, one is asked for", f"{DATA} --category apoferritin",
         data_with_ice("apoferritin", ICE), (0, 2), ("",)),
    # K8: twice
    *of_coordinates("K8 every particle twice", {"a.star": twice()}, warns=(r"\b80\b",),
                    roles=("labels", "truth")),
    *of_coordinates("K8 every particle twice, a pixel apart", {"a.star": twice(1.0)},
                    warns=(r"\b80\b",), roles=("labels", "truth")),
    *of_coordinates("K8 every particle twice in a JSON", {"a.json": twice_in_json()},
                    warns=(r"\b80\b",), roles=("labels", "truth")),
    *of_coordinates("K8 a block twice", {"a.star": ALL + ALL}, warns=(r"\b80\b",),
                    roles=("labels", "truth")),
    *[Case(f"K8 every pick twice, {dx} px apart: the second is a false one", f"{PICKS} a.star",
           {"a.star": twice(dx)}, warns=(r"\b80 of 160\b",), n=160, precision=0.5)
      for dx in (0, 1)],
    *of_coordinates("K8 two files of the same", {"a.star": ALL, "b.star": ALL}, status=(0, 2),
                    warns=(r"a\.star|b\.star|\b80\b",)),
    *of_coordinates("K8 neighbours a third of a diameter apart are two", {"a.star": twice(8.0)},
                    n=160, roles=("labels",)),
    Case("K8 a data set with every box of train twice", DATA, data_twice,
         warns=(r"\b135\b",), n=180),
    Case("K8 more labels than are expected", f"{LABELS} picks.star --expected-particles 10",
         status=(0, 2), warns=("10", "20", "expected-particles"), n=80),
    Case("K8 as many labels as are expected", f"{LABELS} truth.star --expected-particles 45",
         n=180),
    Case("K8 more labels than are expected on one micrograph of four", f"{LABELS} a.star "
         "--expected-particles 21", {"a.star": star(rows("mic_000", n=30) + rows("mic_001", n=9)
                                                    + rows("mic_002", n=9))},
         (0, 2), n=48, says=("",)),
    # What files look like otherwise
    *anywhere("further BOX files", {f"{s}.box": lines(boxes(s), "\t") for s in STEMS},
                    "*.box"),
    *anywhere("further BOX files of helices", HELIX, "*.box", status=(0, 2),
                    precision=None, recall=None, warns=("heli|filament",)),
    *anywhere("further BOX files with EMAN's -3", {f"{s}.box": lines(
                    [(*b, -3) for b in boxes(s)]) for s in STEMS}, "*.box"),
    *anywhere("further BOX files with scores", {f"{s}.box": lines(
                    [(*b, 0.5) for b in boxes(s)]) for s in STEMS}, "*.box"),
    *anywhere("further JSON", {"a.json": json.dumps(coco())}),
    *anywhere("further JSON with a byte order mark", {"a.json": "\ufeff" + json.dumps(coco())}),
    *anywhere("further JSON in UTF-16", {"a.json": json.dumps(coco()).encode("utf-16")},
                    **EITHER),
    *anywhere("further CSV", CSVS, "*.csv"),
    *of_coordinates("further CSV without diameters", each(
                    lambda t: "\n".join(line.rpartition(",")[0] for line in t.splitlines())),
                    "*.csv"),
    *of_coordinates("further Topaz's table with commas", {"a.csv": "image_name,x_coord,y_coord\n"
                    + lines([(name[:7], x, y) for name, x, y in rows()], ",")}),
    *of_coordinates("further Gautomatch's files", {f"{s}_automatch.star": star(
                    places(s), "", XY) for s in STEMS}, "*_automatch.star"),
    *anywhere("further CSV with a byte order mark", each(lambda t: "\ufeff" + t), "*.csv"),
    *anywhere("further CSV with semicolons", each(lambda t: t.replace(",", ";")), "*.csv"),
    *anywhere("further CSV with semicolons and decimal commas", each(decimal_comma),
                    "*.csv"),
    *anywhere("further CSV with tabs", each(lambda t: t.replace(",", "\t")), "*.csv"),
    *anywhere("further CSV of Windows, blanks, quotes, empty lines",
                    each(lambda t: t.replace("\n", "\r\n").replace("X-C", '"X-C', 1).replace(
                        "te,Y", 'te",Y', 1).replace(",", ", ") + "\r\n\r\n"), "*.csv",
                    **EITHER),
    *anywhere("further CSV in UTF-16", {n: t.encode("utf-16") for n, t in CSVS.items()},
                    "*.csv", **EITHER),
    *anywhere("further CSV of one column only", each(lambda t: t.replace(",", " ")), "*.csv",
                    **EITHER),
    *anywhere("further a compressed STAR file", {"a.star": gzip.compress(ALL.encode())},
                    status=2, says=("a.star",)),
    *anywhere("further Topaz's table", {"a.txt": lines([("image_name", "x_coord", "y_coord",
              "score"), *((s, int(x), int(y), 0.5) for s in STEMS for y, x in
              base.centres(s)[:20])], "\t")}, **EITHER),
    *anywhere("further cryoSPARC's particles", {"a.cs": b"\x93NUMPY\x01\x00v\x00"}, status=2,
                    says=("a.cs",)),
]  # fmt: skip
