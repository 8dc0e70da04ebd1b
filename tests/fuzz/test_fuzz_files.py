"""Files that are whole but odd: all that goes in is used, told of, or refused.

What goes in is made here, so it is known how much of it there is: `accounted` counts.
"""

import functools
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import starfile
from hypothesis import strategies as st

from picking.errors import UserError
from picking.formats.coordinates import FORMATS, read_picks, write_picks
from picking.formats.picks import Picks
from picking.inputs.paths import find_micrographs
from picking.micrographs.reading import read_micrograph
from tests.files import base, images

from .oracle import ENDS, REFUSAL, SUCCESS, accounted, call_main, outcome, run_cases, short

# Of starfile; its own pool reserves more address space than a case may take
pyarrow.set_memory_pool(pyarrow.system_memory_pool())
SIZE_PX = (320, 384)
KNOWN = ("a.mrc", "bb.mrc", "Ünï 1.mrc", "None.mrc", "0012.mrc", "data_7.mrc")
UNKNOWN = ("other.mrc", "nan", "NA", "x y.mrc")


def quoted(name):
    return f'"{name}"' if " " in name or name.startswith(("data_", "#")) else name


# Coordinates


@st.composite
def particles(draw, names=KNOWN, most=40):
    """Distinct places (name, x, y) in the MRC's frame, mostly of one of a few names."""
    n = draw(st.integers(1, most))
    chosen = draw(st.lists(st.sampled_from(names), min_size=n, max_size=n))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    cells = rng.permutation(28 * 34)[:n]
    return [(name, 20 + 10 * float(c % 34), 20 + 10 * float(c // 34))
            for name, c in zip(chosen, cells, strict=True)]  # fmt: skip


@st.composite
def cut_up(draw, rows):
    """The rows in up to four parts, of which some may be empty."""
    cuts = sorted(draw(st.lists(st.integers(0, len(rows)), max_size=3)))
    return [rows[a:b] for a, b in itertools.pairwise((0, *cuts, len(rows)))]


@st.composite
def block(draw, rows, name):
    """One block of a STAR file, with its columns in any order and others among them."""
    columns = {
        "_rlnMicrographName": [quoted(row[0]) for row in rows],
        "_rlnCoordinateX": [f"{row[1]:.3f}" for row in rows],
        "_rlnCoordinateY": [f"{row[2]:.{draw(st.integers(0, 5))}f}" for row in rows],
    }
    more = {
        "_rlnAutopickFigureOfMerit": "0.5", "_rlnClassNumber": "-999", "_rlnAnglePsi": "1e-3",
        "_rlnComment": '"a b # c"', "_rlnCtfImage": "x@y.mrc", "_rlnOpticsGroup": "1",
    }  # fmt: skip
    for label in draw(st.lists(st.sampled_from(sorted(more)), unique=True, max_size=3)):
        columns[label] = [more[label]] * len(rows)
    labels = draw(st.permutations(sorted(columns)))
    lines = [f"data_{name}", ""]
    if len(rows) == 1 and draw(st.booleans()):
        lines += [f"{label} {columns[label][0]}" for label in labels]
    else:
        mark = draw(st.sampled_from((" #{}", "", " # {}", "\t#{}")))
        lines += ["loop_", *(f"{label}{mark.format(i)}" for i, label in enumerate(labels, 1))]
        gap = draw(st.sampled_from((" ", "\t", "   ")))
        for i in range(len(rows)):
            if draw(st.integers(0, 19)) == 0:
                lines.append(draw(st.sampled_from(("", "# by eye", "   "))))
            lines.append(gap.join(columns[label][i] for label in labels))
    return "\n".join([*lines, "", ""])


def used_of(found, rows):
    """How many picks were read; those of each micrograph must be the ones that went in."""
    for picks in found:
        given = {(row[1], SIZE_PX[0] - row[2]) for row in rows if row[0] == picks.name}
        came = {(round(x, 3), round(y, 3)) for y, x in picks.centres_px}
        assert came <= given, f"{picks.name} has {sorted(came - given)[:3]}"
    return sum(len(picks.centres_px) for picks in found)


def read(paths):
    return read_picks(paths, dict.fromkeys(KNOWN, SIZE_PX), only_known=True, allow_partial=True)


def star_blocks(draw, folder):
    """One STAR file of several blocks, some of one name, perhaps with others between."""
    rows = draw(particles(draw(st.sampled_from((KNOWN[:2], KNOWN, (*KNOWN, *UNKNOWN))))))
    names = st.sampled_from(("", "particles", "a", "bb", "micrographs"))
    blocks = [draw(block(part, draw(names))) for part in draw(cut_up(rows))]
    optics = "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnImagePixelSize #2\n1 2.0\n\n"
    for other in draw(st.lists(st.sampled_from((optics, "data_general\n\n_rlnVersion 4\n\n")),
                               max_size=2)):  # fmt: skip
        blocks.insert(draw(st.integers(0, len(blocks))), other)
    text = "# version 30001\n\n" + "".join(blocks)
    end = draw(st.sampled_from(("\n", "\n", "\r\n", "\r")))
    mark = draw(st.sampled_from(("", "", "\ufeff")))
    path = folder / "all.star"
    path.write_bytes((mark + text.replace("\n", end)).encode())
    return accounted(
        lambda: used_of(read([path]), rows), len(rows), [path.name, *KNOWN, "micrograph"]
    )


def of_one(draw, kind, rows):
    """The text of a file of one micrograph, in the format of that suffix."""
    if kind == ".star":
        lines = ["data_", "loop_", "_rlnCoordinateX", "_rlnCoordinateY"]
        return "\n".join([*lines, *(f"{x} {y}" for _, x, y in rows), ""])
    boxes = [(x - 10, y - 10, 20, 20) for _, x, y in rows]
    if kind == ".box":
        gap = draw(st.sampled_from((" ", "\t", ",", ", ")))
        return "".join(gap.join(map(str, box)) + "\n" for box in boxes)
    down = [(x, SIZE_PX[0] - y) for _, x, y in rows]
    if kind == ".csv":
        gap = draw(st.sampled_from((",", ",", ";", "\t")))
        lines = [f"X-Coordinate{gap}Y-Coordinate{gap}Diameter"]
        lines += [gap.join(map(str, (x, y, 20))) for x, y in down]
        return "\n".join([*lines, *[""] * draw(st.integers(0, 2))])
    labels = ("CoordinateX", "CoordinateY", "Width", "Height")
    lines = ["data_cryolo", "loop_", *(f"_{label} #{i}" for i, label in enumerate(labels, 1))]
    return "\n".join([*lines, *(" ".join(map(str, box)) for box in boxes), ""])


def several_files(draw, folder):
    """A file of each micrograph, of several formats and conventions, and one JSON of others."""
    rows = draw(particles((*KNOWN[:4], "other.mrc")))
    paths = []
    for name in sorted({row[0] for row in rows}):
        kind = draw(st.sampled_from((".star", ".box", ".csv", ".cbox")))
        stem = name.removesuffix(".mrc") + draw(st.sampled_from(("", "_autopick", "_picks")))
        path = folder / f"{stem}{kind}"
        text = of_one(draw, kind, [row for row in rows if row[0] == name])
        end = draw(st.sampled_from(("\n", "\r\n")))
        mark = draw(st.sampled_from(("", "\ufeff")))
        path.write_bytes((mark + text.replace("\n", end)).encode())
        paths.append(path)
    paths += draw(st.lists(st.sampled_from(paths), max_size=1))  # one is given twice
    call = lambda: used_of(read(dict.fromkeys(paths)), rows)  # noqa: E731
    return accounted(call, len(rows), [path.name for path in paths] + ["micrograph"])


def json_boxes(draw, folder):
    """COCO of several categories, some boxes of no size, some of no image."""
    rows = draw(particles(KNOWN[:3]))
    names = draw(
        st.lists(
            st.sampled_from(("particle", "ice", "Particle", "virus", "carbon")),
            min_size=1, max_size=3, unique=True,
        )
    )  # fmt: skip
    boxes = []
    for i, (name, x, y) in enumerate(rows):
        oddity = draw(st.sampled_from(("", "", "", "", "flat", "orphan")))
        side = 0 if oddity == "flat" else 20
        boxes.append({"id": i, "image_id": 99 if oddity == "orphan" else KNOWN.index(name),
                      "category_id": draw(st.integers(1, len(names))),
                      "bbox": [x - 10, SIZE_PX[0] - y - 10, side, side]})  # fmt: skip
    content = {
        "images": [{"id": i, "file_name": n, "height": SIZE_PX[0], "width": SIZE_PX[1]}
                   for i, n in enumerate(KNOWN[:3])],
        "categories": [{"id": i, "name": n} for i, n in enumerate(names, 1)],
        "annotations": boxes,
    }  # fmt: skip
    path = folder / "a.json"
    mark = draw(st.sampled_from(("", "\ufeff")))
    path.write_text(mark + json.dumps(content), encoding="utf-8")
    return accounted(lambda: used_of(read([path]), rows), len(rows), [path.name, *KNOWN])


def call_in(folder, main, *argv):
    """`call_main` in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        return call_main(main, *argv)
    finally:
        os.chdir(before)


def labels_of_a_run(draw, folder):
    """Labels through the script, some twice, some outside, some of unknown micrographs."""
    base.lay_out(folder)
    rows = [row for stem in base.STEMS for row in base.rows(stem, n=draw(st.integers(2, 20)))]
    rows += draw(st.lists(st.sampled_from(rows), max_size=5))
    rows += [(base.STEMS[0] + ".mrc", 700.0 + i, 9.0) for i in range(draw(st.integers(0, 1)))]
    rows += [("other.mrc", 9.0, 9.0 + i) for i in range(draw(st.integers(0, 4)))]
    parts = draw(cut_up(draw(st.permutations(rows))))
    (folder / "a.star").write_text("".join(draw(block(part, "")) for part in parts))

    def use():
        printed = call_in(
            folder, base.SCRIPTS["preprocess"].main, "--micrographs", "raw/*.mrc", "--labels",
            "a.star", "--diameter", "24px", "--output-dir", "out", "--num-workers", 0, "--dry-run",
            "--allow-partial",
        )  # fmt: skip
        return base.n_labels(printed)

    return accounted(use, len(rows), ["a.star", *base.STEMS, "micrograph"])


# Names

LETTERS = st.one_of(
    st.sampled_from("ab1_-.#'\" $;,=@[]*?\\~|{}%&!:+\t\n\r\x0b\x85\u2028\u3000\ufeffÜß样\udcff"),
    st.characters(exclude_characters="/\x00"),
)
NAMES = st.one_of(
    st.text(LETTERS, min_size=1, max_size=12),
    st.sampled_from(("data_", "loop_", "save_", "global_", "stop_", "_", "#", ";", "None", "nan",
                     "NA", "true", "1e5", "inf", "0x1")).flatmap(
        lambda first: st.text(LETTERS, max_size=3).map(lambda rest: first + rest)),
    st.text(LETTERS, min_size=1, max_size=3).map(lambda text: text * 80),
)  # fmt: skip


def names_written(draw, folder):
    """Micrographs of any names: what is written comes back under them, by starfile too."""
    stems = draw(st.lists(NAMES.filter(_encodable), min_size=1, max_size=3, unique=True))
    rng = np.random.default_rng(len(stems))
    listed = [
        Picks(f"{stem}.mrc", rng.uniform(20, 300, (3 + i, 2)).round(2), rng.random(3 + i),
              np.full(3 + i, 20.0), SIZE_PX)
        for i, stem in enumerate(stems)
    ]  # fmt: skip
    formats = draw(st.lists(st.sampled_from(sorted(FORMATS)), min_size=1, unique=True))
    one_file = draw(st.booleans())

    def use():
        files = write_picks(folder / "out", listed, formats, one_file)
        for kind in formats:
            paths = [path for path in files if path.suffix == FORMATS[kind]]
            found = {p.name: p for p in read_picks(paths, {p.name: SIZE_PX for p in listed})}
            for picks in listed:
                came = found[picks.name].centres_px
                np.testing.assert_allclose(came, picks.centres_px, atol=0.01)

    result = outcome(use, ["name", "would be one file", "could be any of"])
    if result == SUCCESS and "star" in formats:
        as_text = {"always_dict": True, "parse_as_string": ["rlnMicrographName"]}
        tables = [starfile.read(path, **as_text)[""] for path in (folder / "out").rglob("*.star")]
        came = {name for table in tables for name in table["rlnMicrographName"]}
        assert came == {picks.name for picks in listed}
    return result


def names_found(draw, folder):
    """Files of any names in any folder: each that a pattern matches is used or told of."""
    inside = folder / draw(st.one_of(st.just("raw"), NAMES).filter(_is_a_name))
    inside.mkdir()
    stems = draw(st.lists(NAMES.filter(_is_a_name), min_size=1, max_size=5, unique=True))
    endings = st.sampled_from((".mrc",) * 6 + (".MRC", ".mrcs", ".eer", ".txt", ""))
    for stem in stems:
        path = inside / (stem + draw(endings))
        if not path.exists() and _is_a_name(path.name):
            how = draw(st.sampled_from(("file",) * 6 + ("link", "dangling", "folder")))
            if how == "folder":
                path.mkdir()
            elif how == "file":
                path.touch()
            else:
                path.symlink_to(__file__ if how == "link" else folder / "nowhere")
    shown = [path for path in inside.iterdir() if not path.name.startswith(".")]
    call = lambda: len(find_micrographs([str(inside / "*")], allow_partial=True))  # noqa: E731
    return accounted(call, len(shown), ["match", "none of", "folder", "picks", "micrograph"])


def _encodable(name):
    """Whether a name could have come from a file system."""
    try:
        return bool(os.fsencode(name))
    except UnicodeEncodeError:
        return False


def _is_a_name(name):
    """Whether a file may be called so."""
    return name not in (".", "..") and _encodable(name) and len(os.fsencode(name)) <= 255


# Placement


def run_in(folder, *argv):
    """`base.run` of preprocessing in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        return base.run("preprocess", *argv)
    finally:
        os.chdir(before)


def placement(draw, folder):
    """Coordinates as they are, and moved: what is moved must be told of, what is not must not."""
    base.lay_out(folder)
    n = draw(st.integers(10, 40))
    scale = draw(st.sampled_from((1, 1, 1, 0.5, 0.25, 0.125)))
    flips = draw(st.tuples(*[st.booleans()] * 3))
    height, width = base.SIZE_PX
    rows = []
    for name, x, y in base.rows(n=n):
        x, y = (width - x if flips[0] else x), (height - y if flips[1] else y)
        x, y = (y, x) if flips[2] else (x, y)
        if x < width and y < height:
            rows.append((name, x * scale, y * scale))
    as_it_is = scale == 1 and not any(flips)
    (folder / "a.star").write_text(base.star(rows))
    result = run_in(
        folder, "--micrographs", "raw/*.mrc", "--labels", "a.star", "--diameter",
        "24px", "--output-dir", "out", "--num-workers", 0, "--dry-run",
    )  # fmt: skip
    assert bool(result.err) != as_it_is, f"scale {scale}, flips {flips}: {result.err}"
    return REFUSAL if result.status else SUCCESS


# Headers


@functools.cache
def picture():
    """What is read of the cut-out where nothing is odd, and near it, whatever the numbers."""
    return images.small()


def looks_like(path):
    """Assert that what is read is the picture, neither negated nor turned nor mirrored."""
    image = read_micrograph(path).astype(float)
    raw = picture()
    assert image.shape == raw.shape
    alike = np.corrcoef(_smooth(image).ravel(), _smooth(raw).ravel())[0, 1]
    assert alike > 0.8, f"correlation {alike:.2f} with what was written"


def _smooth(raw):
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(raw, 2.0)


GREY = images.as_bytes
KINDS = {
    "u1": lambda: GREY().astype(np.uint8), "i1": lambda: GREY(-128, 127).astype(np.int8),
    "i2": lambda: (picture() * 30).astype(np.int16),
    "i2 negative": lambda: (picture() * 30 - 20_000).astype(np.int16),
    "u2": lambda: (picture() * 30 + 40_000).astype(np.uint16), "f4": lambda: picture().copy(),
    "f2": lambda: picture().astype(np.float16),
}  # fmt: skip
MODES = {"u1": 0, "i1": 0, "i2": 1, "i2 negative": 1, "u2": 6, "f4": 2, "f2": 12}


def mrc_headers(draw, folder):
    """An MRC as some program writes it: stamp, MAP, byte order, flags, extended header, tail."""
    kind = draw(st.sampled_from(sorted(MODES)))
    order = draw(st.sampled_from("<<>"))
    own = b"\x44\x44\0\0" if order == "<" else b"\x11\x11\0\0"
    others = (b"\x44\x41\0\0", b"\x44\0\0\0", b"\x44   ", bytes(4), b"\x11\x11\0\0")
    stamp = draw(st.one_of(st.just(own), st.sampled_from(others)))
    # Sampling, cell, extremes, space group, origin, deviation, labels
    places = st.sampled_from((7, 8, 9, 10, 11, 12, 19, 20, 21, 22, 49, 50, 51, 54, 55, 56))
    values = st.sampled_from((-1, 0, 1, 2, 3, 401, 2**31 - 1))
    words = draw(st.dictionaries(places, values, max_size=3))
    content = images.mrc(
        KINDS[kind](), MODES[kind], order=order, stamp=stamp,
        imod={"u1": 0, "i1": 1}.get(kind, draw(st.sampled_from((None, 0, 4)))), words=words,
        extended=bytes(draw(st.sampled_from((0, 0, 80, 1024)))),
        tail=bytes(draw(st.sampled_from((0, 0, 1, 700)))),
        map_=draw(st.sampled_from((b"MAP ", b"MAP ", b"MAP\0", bytes(4), b"    "))),
    )  # fmt: skip
    path = folder / "a.mrc"
    path.write_bytes(content)
    return outcome(lambda: looks_like(path), [path.name])


def tiff_headers(draw, folder):
    """A TIFF of any type of numbers, byte order and polarity."""
    kinds = {**KINDS, "u4": lambda: (picture() * 1e6 + 3e9).astype(np.uint32),
             "i4": lambda: (picture() * 1e3 - 1e5).astype(np.int32),
             "f8": lambda: picture().astype(np.float64)}  # fmt: skip
    pixels = kinds[draw(st.sampled_from(sorted(kinds)))]()
    negative = pixels.dtype.kind == "u" and draw(st.booleans())
    if negative:
        pixels = np.iinfo(pixels.dtype).max - pixels
    path = folder / draw(st.sampled_from(("a.tif", "a.tiff", "a.TIF")))
    order = draw(st.sampled_from("<>"))
    path.write_bytes(images.tiff(pixels, photometric=0 if negative else 1, order=order))
    return outcome(lambda: looks_like(path), [path.name])


CASES = {
    star_blocks: 120, several_files: 80, json_boxes: 60, labels_of_a_run: 40, names_written: 120,
    names_found: 80, placement: 30, mrc_headers: 80, tiff_headers: 40,
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_odd_files_are_used_told_of_or_refused_and_nothing_is_dropped_in_silence(case):
    assert set() < run_cases(case, short(CASES[case])) <= ENDS


def test_a_drop_without_a_word_is_caught():
    with pytest.raises(AssertionError, match="3 of 10 were dropped"):
        accounted(lambda: 7, 10)
    assert accounted(lambda: 10, 10) != REFUSAL


def test_what_is_refused_needs_no_account():
    def refuse():
        raise UserError("a.star: give another")

    assert accounted(refuse, 10) == REFUSAL
