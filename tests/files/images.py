"""K5, K9, K10: pixels that are no counts, their sign and polarity, and headers of MRCs."""

import functools
import io
import json
import struct

import numpy as np
from PIL import Image

from . import base
from .base import own_raw
from .case import LABELS, PICKING, Case

ONE = f"{PICKING} one/*"
CUT = (slice(0, 200), slice(0, 230))  # no disk lies across its edges


@functools.cache
def small():
    """A cut-out of a micrograph that is picked quickly, float32 (h, w) from the top."""
    return np.ascontiguousarray(base.counts("mic_000")[CUT])


def n_small():
    """How many disks are on it."""
    return int((base.centres("mic_000") < (200, 230)).all(axis=1).sum())


def mrc(
    pixels,
    mode,
    stamp=b"\x44\x44\0\0",
    imod=None,
    words=None,
    extended=b"",
    tail=b"",
    map_=b"MAP ",
    order="<",
):
    """The bytes of an MRC; pixels: (h, w) from the top, as they are stored.

    words: place -> value of further words of the header. imod: IMOD's flags.
    """
    height, width = pixels.shape[-2:]
    depth = 1 if pixels.ndim == 2 else len(pixels)
    header = bytearray(1024)
    struct.pack_into(f"{order}4i", header, 0, width, height, depth, mode)
    struct.pack_into(f"{order}3i", header, 28, width, height, depth)
    struct.pack_into(f"{order}3f", header, 40, 2.0 * width, 2.0 * height, 2.0 * depth)
    struct.pack_into(f"{order}3f", header, 52, 90, 90, 90)
    struct.pack_into(f"{order}3i", header, 64, 1, 2, 3)
    struct.pack_into(
        f"{order}3f", header, 76, *(float(np.real(f(pixels))) for f in (np.min, np.max, np.mean))
    )
    struct.pack_into(f"{order}i", header, 92, len(extended))
    struct.pack_into(f"{order}i", header, 108, 20140)
    header[208:212], header[212:216] = map_, stamp
    if imod is not None:
        struct.pack_into(f"{order}2i", header, 152, 1146047817, imod)
    for place, value in (words or {}).items():
        struct.pack_into(f"{order}i", header, 4 * place, value)
    body = np.ascontiguousarray(pixels[..., ::-1, :])
    body = body.astype(body.dtype.newbyteorder(order))
    return bytes(header) + extended + body.tobytes() + tail


def as_bytes(low=0, high=255):
    """The cut-out, spread over grey levels from low to high."""
    raw = small()
    grey = (raw - raw.min()) / (raw.max() - raw.min())
    return np.rint(low + grey * (high - low))


def tiff(pixels, *, photometric=1, sample_format=None, order="<", orientation=None, pages=1):
    """The bytes of a plain grey TIFF, as a microscope's program might write it."""
    height, width = pixels.shape
    kind = sample_format or {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    entries = [(256, 4, width), (257, 4, height), (258, 3, 8 * pixels.itemsize), (259, 3, 1),
               (262, 3, photometric), (273, 4, 8), (277, 3, 1), (278, 4, height),
               (279, 4, len(data)), (339, 3, kind)]  # fmt: skip
    if orientation:
        entries.append((274, 3, orientation))
    mark = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(f"{order}H", len(entries))
    for tag, type_, value in sorted(entries):
        packed = struct.pack(f"{order}{'HH' if type_ == 3 else 'I'}", *([value, 0] if type_ == 3
                             else [value]))  # fmt: skip
        directory += struct.pack(f"{order}HHI", tag, type_, 1) + packed
    return mark + struct.pack(f"{order}I", 8 + len(data)) + data + directory + bytes(4)


def encoded(pixels, kind, mode=None, **options):
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def f4(change=None):
    """The cut-out as float32, with pixels changed."""
    raw = small().copy()
    if change is not None:
        change(raw)
    return raw


def put(value, *where):
    def change(raw):
        raw[where if where else (100, 100)] = value

    return change


def one(name, content, id, n=None, **expected):
    """Pick a single image; ``content`` makes its bytes when it is wanted."""
    expected = {"n": n_small() if n is None else n, **expected}
    return Case(id, ONE, {f"one/{name}": content}, **expected)


def three(*contents):
    return {f"one/{'abc'[i]}.mrc": content for i, content in enumerate(contents)}


GOOD = mrc(small(), 2)
RAW8 = as_bytes().astype(np.uint8)
SCATTER = tuple(np.random.default_rng(2).integers(0, (200, 230), (60, 2)).T)
BAD_PX = {
    "one NaN pixel": put(np.nan), "one infinite pixel": put(np.inf), "one pixel of minus infinity":
    put(-np.inf), "one pixel of 1e30": put(1e30), "one dead pixel": put(0), "one hot pixel":
    put(65535), "60 hot pixels": put(60000, *SCATTER), "60 NaN pixels": put(np.nan, *SCATTER),
    "a column of NaN": put(np.nan, slice(None), 7), "a dead row": put(0, 30),
    "a corner of NaN": put(np.nan, slice(0, 4), slice(0, 4)),
}  # fmt: skip
BEYOND = {
    "half of it NaN": mrc(f4(put(np.nan, slice(0, 100))), 2),
    "all of it NaN": mrc(f4(put(np.nan, slice(None))), 2), "cut in half": GOOD[: len(GOOD) // 2],
    "of no bytes": b"", "a text": b"see the other folder\n", "a header alone": GOOD[:1024],
    "a movie": mrc(np.stack([small()] * 3), 2), "of complex numbers": mrc(
        np.zeros((200, 230), np.complex64), 4), "of mode 99": mrc(small(), 99),
}  # fmt: skip
LEFT_OUT = f"{PICKING} one/*.mrc"
COUNTED = r"\b{0}\b"


CUT_FOR_REAL = f"{LABELS} picks.star --windows-per-micrograph 5".replace("--dry-run ", "")


def with_bad_raw(content):
    def write(folder):
        path = own_raw(folder) / "mic_003.mrc"
        path.unlink()
        path.write_bytes(content)

    return write


def full(change):
    raw = base.counts("mic_003").copy()
    change(raw)
    return mrc(raw, 2)


def names_it(name):
    def check(folder, result):
        assert name in (folder / "out/summary.csv").read_text()
        assert not (folder / "out/star" / f"{name[0]}.star").exists()

    return check


summary_names_it = names_it("b.mrc")


def skips(folder, result):
    splits = json.loads((folder / "out/metadata.json").read_text())["splits"].values()
    assert [name for one in splits for name in one["skipped_unreadable"]] == ["mic_003.mrc"]
    assert sum(split["n_labeled"] for split in splits) == 3 * base.N_PICKED


def bordered(width):
    """The cut-out with zeros around it, so many px wide."""
    raw = np.zeros_like(small())
    raw[width:-width, width:-width] = small()[width:-width, width:-width]
    return raw


def clipped(low, high):
    """The cut-out, black up to one percentile of its greys and white from another on."""
    black, white = np.percentile(small(), [low, high])
    return np.rint((small() - black) / (white - black) * 255).clip(0, 255).astype(np.uint8)


SHOW_NOTHING = {
    "7": ("b.mrc", mrc(np.full((200, 230), 7, np.float32), 2), "has no contrast"),
    "7 but for rounding": ("b.mrc", mrc(7 + small() * np.float32(1e-9), 2), "has no contrast"),
    "the left half is dead": ("b.mrc", mrc(f4(put(0, slice(None), slice(0, 115))), 2),
                              "shows nothing on"),
    "the upper half is white": ("b.png", encoded(np.where(
        np.arange(200)[:, None] < 100, 255, RAW8).astype(np.uint8), "PNG"), "shows nothing on"),
    "white": ("b.png", encoded(clipped(0, 40), "PNG"), "is saturated"),
    "black": ("b.tif", tiff(clipped(60, 100)), "is saturated"),
    "white, of 16 bits": ("b.tif", tiff(((f4() - 88) * 9000).clip(0, 65535).astype(np.uint16)),
                          "is saturated"),
}  # fmt: skip
IN_ORDER = {
    "half a percent is clipped at each end": clipped(0.5, 99.5),
    "80 grey levels": as_bytes(90, 170).astype(np.uint8),
}
HALF_DEAD = full(put(0, slice(None), slice(0, 320)))


CASES = [
    # K5
    *[Case(f"K5 {what} on one of three", LEFT_OUT, three(GOOD, mrc(f4(change), 2), GOOD), 0,
           says=("",) if what == "one dead pixel" else (r"b\.mrc",), n=3 * n_small())
      for what, change in BAD_PX.items() if "corner" not in what],
    Case("K5 a corner of NaN on one of three", LEFT_OUT, three(GOOD, mrc(f4(BAD_PX[
         "a corner of NaN"]), 2), GOOD), (0, 3), (r"b\.mrc",)),
    *[Case(f"K5 one of three is {what}", LEFT_OUT, three(GOOD, content, GOOD), 3, (r"b\.mrc",),
           n=2 * n_small(), check=summary_names_it) for what, content in BEYOND.items()],
    *[Case(f"K5 one of three is {what}, strict", f"{LEFT_OUT} --strict", three(GOOD, content,
           GOOD), 2, (r"b\.mrc",)) for what, content in BEYOND.items() if what[:4] in ("half",
                                                                                       "cut ")],
    Case("K5 one of three is beyond help, and again with --resume", f"{LEFT_OUT} --resume",
         three(GOOD, BEYOND["half of it NaN"], GOOD), 3, (r"b\.mrc",), n=2 * n_small(),
         before=(LEFT_OUT,), check=summary_names_it),
    Case("K5 all are beyond help", LEFT_OUT, three(*[BEYOND["half of it NaN"]] * 3), (2, 3),
         (r"a\.mrc",)),
    *[Case(f"K5 one of two shows nothing: {what}", LEFT_OUT.replace("*.mrc", "*"), {
           "one/a.mrc": GOOD, f"one/{name}": content}, 3, (rf"{name[0]}\.\w+ {says}",), n=n_small(),
           check=names_it(name)) for what, (name, content, says) in SHOW_NOTHING.items()],
    *[one("a.png", encoded(pixels, "PNG"), f"K5 {what}") for what, pixels in IN_ORDER.items()],
    Case("K5 zeros are a border of 15 px", ONE, {"one/a.mrc": mrc(bordered(15), 2)}, 0, ("",)),
    Case("K5 labels on a half-dead micrograph", CUT_FOR_REAL, with_bad_raw(HALF_DEAD), 2,
         ("mic_003.mrc shows nothing on 50% of its area", "--skip-unreadable")),
    Case("K5 labels on a half-dead micrograph, which is left out", f"{CUT_FOR_REAL} "
         "--skip-unreadable", with_bad_raw(HALF_DEAD), 0, ("1 images .* left out",), check=skips),
    Case("K5 hot pixels in a 16-bit TIFF", ONE, {"one/a.tif": tiff(np.where(np.isin(
         np.arange(46000).reshape(200, 230), np.arange(99, 46000, 4001)), 65535, f4() * 10)
         .astype(np.uint16))}, 0, ("a.tif",), n=n_small()),
    Case("K5 a NaN pixel where labels are", f"{LABELS} picks.star", with_bad_raw(full(put(np.nan,
         9, 9))), 0, ("",), n=80),
    Case("K5 labels on a micrograph beyond help", CUT_FOR_REAL,
         with_bad_raw(full(put(np.nan, slice(0, 200)))), (0, 2, 3), ("mic_003",)),
    Case("K5 labels on a file that is no image", f"{LABELS} picks.star", with_bad_raw(b"x"), 2,
         ("mic_003",)),
    # K9
    one("a.mrc", mrc(RAW8, 0, imod=0), "K9 unsigned bytes by IMOD's flag"),
    one("a.mrc", mrc(as_bytes(-128, 127).astype(np.int8), 0, imod=1),
        "K9 signed bytes by IMOD's flag"),
    one("a.mrc", mrc(as_bytes(-128, 127).astype(np.int8), 0), "K9 signed bytes without IMOD"),
    one("a.mrc", mrc(as_bytes(0, 120).astype(np.int8), 0), "K9 bytes below 128 without IMOD"),
    one("a.mrc", mrc(RAW8, 0), "K9 unsigned bytes, of which the header says by its extremes alone",
        status=(0, 2, 3), says=("a.mrc",)),
    one("a.mrc", mrc((f4() * 10).astype(np.int16), 1), "K9 int16"),
    one("a.mrc", mrc((f4() * 10 - 2000).astype(np.int16), 1), "K9 int16 below zero"),
    one("a.mrc", mrc((f4() * 10 + 40000).astype(np.uint16), 6), "K9 uint16"),
    one("a.mrc", mrc(f4().astype(np.float16), 12), "K9 float16"),
    one("a.tif", tiff(RAW8), "K9 TIFF of 8 bits"),
    one("a.tif", tiff(255 - RAW8, photometric=0), "K9 TIFF with white as zero", says=("",)),
    one("a.tif", tiff((65535 - f4() * 300).astype(np.uint16), photometric=0),
        "K9 TIFF of 16 bits with white as zero", status=(0, 3), says=(r"a\.tif",), n=None),
    one("a.tif", tiff(as_bytes(-128, 127).astype(np.int8)), "K9 TIFF of signed bytes",
        says=("",)),
    one("a.tif", tiff((f4() * 10 - 2000).astype(np.int16)), "K9 TIFF of int16 below zero",
        says=("",)),
    one("a.tif", tiff((f4() * 100 + 40000).astype(np.uint16)), "K9 TIFF of uint16"),
    one("a.tif", tiff((f4() * 1e6 + 3e9).astype(np.uint32)), "K9 TIFF of uint32 above 2^31",
        says=("",)),
    one("a.tif", tiff((f4() * 1000 - 2e6).astype(np.int32)), "K9 TIFF of int32"),
    one("a.tif", tiff(f4()), "K9 TIFF of float32"),
    one("a.tif", tiff(f4().astype(np.float64)), "K9 TIFF of float64", status=(0, 2, 3),
        says=("",), n=None),
    one("a.tif", tiff(f4().astype(np.float16)), "K9 TIFF of float16", status=(0, 2, 3),
        says=("",), n=None),
    one("a.tif", tiff((f4() * 10).astype(np.uint16), order=">"), "K9 TIFF of the other byte order"),
    one("a.tif", tiff((f4() * 10).astype(np.int16), order=">"), "K9 TIFF of int16, other order",
        says=("",)),
    one("a.png", encoded(RAW8, "PNG"), "K9 PNG of 8 bits"),
    one("a.png", encoded((f4() * 300).astype(np.uint16), "PNG"), "K9 PNG of 16 bits"),
    one("a.png", encoded(RAW8, "PNG", "P"), "K9 PNG with a palette"),
    one("a.png", encoded(RAW8, "PNG", "LA"), "K9 PNG with transparency"),
    one("a.png", encoded(RAW8, "PNG", "RGB"), "K9 PNG in colour"),
    one("a.jpg", encoded(RAW8, "JPEG", quality=95), "K9 JPEG"),
    one("a.jpg", encoded(RAW8, "JPEG", "CMYK", quality=95), "K9 JPEG in CMYK"),
    # K10
    *[one("a.mrc", mrc(small(), 2, stamp=stamp), f"K10 the stamp {stamp.hex(' ')}")
      for stamp in (b"\x44\0\0\0", b"\x44   ", b"\x44\x41\0\0", b"\0\0\0\0", b"    ",
                    b"\xff\xff\xff\xff")],
    one("a.mrc", mrc(small(), 2, map_=b"\0\0\0\0"), "K10 no MAP"),
    one("a.mrc", mrc(small(), 2, map_=b"MAP\0"), "K10 MAP and a zero"),
    one("a.mrc", mrc(small(), 2, map_=b"\0\0\0\0", stamp=b"\0\0\0\0"), "K10 no MAP, no stamp"),
    one("a.mrc", mrc(small(), 2, order=">", stamp=b"\x11\x11\0\0"), "K10 the other byte order"),
    one("a.mrc", mrc(small(), 2, order=">", stamp=b"\0\0\0\0"),
        "K10 the other byte order without a stamp"),
    one("a.mrc", mrc(small(), 2, order=">", stamp=b"\x11\0\0\0"),
        "K10 the other byte order with half a stamp"),
    one("a.mrc", mrc(small(), 2, stamp=b"\x11\x11\0\0"), "K10 a stamp of the other byte order"),
    one("a.mrc", mrc(small(), 2, order=">"), "K10 the other byte order, stamped as this one"),
    one("a.mrc", mrc(small(), 2, extended=bytes(4096)), "K10 an extended header"),
    one("a.mrc", mrc(small(), 2, extended=bytes(4096), words={24: 0x49524553}),
        "K10 an extended header of SerialEM"),
    one("a.mrc", mrc(small(), 2, words={7: 0, 8: 0, 9: 0}), "K10 no sampling"),
    one("a.mrc", mrc(small(), 2, words={10: 0, 11: 0, 12: 0}), "K10 no cell"),
    one("a.mrc", mrc(small(), 2, words={56: 255}), "K10 255 labels"),
    one("a.mrc", mrc(small(), 2, words={56: -1}), "K10 minus one label"),
    one("a.mrc", mrc(small(), 2, words={22: 1}), "K10 the space group of a volume"),
    one("a.mrc", mrc(small()[None], 2), "K10 a stack of one"),
    one("a.mrc", mrc(small(), 2, words={16: 0, 17: 0, 18: 0}), "K10 no order of axes"),
    one("a.mrc", mrc(small(), 2, words={16: 2, 17: 1}), "K10 rows and columns exchanged",
        status=(0, 3), says=(r"a\.mrc|axes|axis",), n=None),
    *[Case(f"K10 {n} bytes behind the pixels", ONE, {f"one/{s}.mrc": mrc(small(), 2, tail=bytes(n))
           for s in "ab"}, 0, n=2 * n_small(), says=("",), never="RuntimeWarning|mrcfile")
      for n in (1, 512, 100_000)],
    one("a.mrc", GOOD[:-4], "K10 a pixel is missing", status=(2, 3), says=(r"a\.mrc",), n=None),
    one("a.mrc", mrc(small(), 2, words={0: 460}), "K10 twice as wide as the file", status=(2, 3),
        says=(r"a\.mrc",), n=None),
    one("a.mrc", mrc(small(), 2, words={0: -230}), "K10 a negative width", status=(2, 3),
        says=(r"a\.mrc",), n=None),
    one("a.mrc", tiff(RAW8), "K10 a TIFF that is called MRC", status=(0, 2, 3), says=("",),
        never="copy it again"),
    one("a.tif", GOOD, "K10 an MRC that is called TIFF", status=(0, 2, 3), says=("",),
        never="copy it again", n=None),
    one("a.MRC", GOOD, "K10 a suffix in capitals"),
    Case("K10 labels on odd headers", f"{LABELS} picks.star", with_bad_raw(mrc(base.counts(
         "mic_003"), 2, stamp=b"\x44   ", map_=b"\0\0\0\0", tail=bytes(9))), 0,
         ("",), n=80, never="RuntimeWarning"),
]  # fmt: skip
