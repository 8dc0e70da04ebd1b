"""MRC files, also those of programs that fill in the header as they like.

A header is believed where what it says of size and mode agrees with the length of the file.
"""

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from picking.micrographs.problems import (
    MOST_PX,
    TRAILING_BYTES,
    UNSIGNED,
    Notes,
    UnreadableImage,
    too_large,
)

HEADER_BYTES = 1024
BIG_ENDIAN = (b"\x11\x11", b"\x11\x00")
# Little-endian as the standard has it, in CCP4's words, SerialEM's and IMOD's
STAMPS = (*BIG_ENDIAN, b"\x44\x44", b"\x44\x41", b"\x44\x00", b"\x44\x20")
MODES = (0, 1, 2, 6, 12)
MODES_UNREAD = {
    3: "complex numbers", 4: "complex numbers", 16: "colours", 101: "numbers of 4 bits"
}  # fmt: skip
FOREIGN = {
    b"\x1f\x8b": "compressed by gzip: gunzip it",
    b"BZh": "compressed by bzip2: bunzip2 it",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unzstd it",
    b"PK\x03\x04": "a zip archive: unzip it",
    b"II*\x00": "a TIFF: name it .tif",
    b"MM\x00*": "a TIFF: name it .tif",
    b"II+\x00": "a TIFF, perhaps a movie (EER): average it",
    b"\x89PNG": "a PNG: name it .png",
    b"\xff\xd8\xff": "a JPEG: name it .jpg",
    b"\x89HDF": "an HDF5 file: convert it to MRC",
}
# https://bio3d.colorado.edu/imod/doc/mrc_format.txt
IMOD_STAMP, IMOD_SIGNED, IMOD_4_BITS = 1146047817, 1, 16
# Pixels of mode 0 are unsigned where so many of them lie within so many grey levels of the ends of
# the signed range, and so many times more than about its middle.
SEAM_FRACTION, SEAM_LEVELS, SEAM_RATIO = 0.05, 16, 20


class Layout(NamedTuple):
    """Where an MRC's pixels are, and what of its header tells how to read them.

    shape: (sections, height, width). dtype: with its byte order. offset: bytes before the first
    pixel. excess: bytes in the file behind the last one; below 0 where some are lacking.
    imod_flags: None where IMOD did not write the file. highest: px, as the header has it.
    pixel_size_angstrom: (x, y), 0 where the header does not say.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype
    offset: int
    excess: int
    mode: int
    imod_flags: int | None
    highest: float
    pixel_size_angstrom: tuple[float, float]

    @property
    def n_bytes(self) -> int:
        """Bytes of all pixels."""
        n_sections, height, width = self.shape
        return n_sections * height * width * self.dtype.itemsize


def mrc_size(path: Path) -> tuple[int, int]:
    """Return (height, width) in px of an MRC's one section; raises `UnreadableImage`."""
    return mrc_layout(path).shape[1:]


def read_mrc(path: Path, notes: Notes) -> np.ndarray:
    """Return the pixels of an MRC as they stand in the file, (h, w), row 0 its first.

    notes: gets what must be said of the file. Raises `UnreadableImage`.
    """
    layout = mrc_layout(path)
    _, height, width = layout.shape
    if layout.excess:
        notes[TRAILING_BYTES] = layout.excess
    data = np.fromfile(path, layout.dtype, height * width, offset=layout.offset)
    data = data.reshape(height, width)
    if data.any() and not data[height // 2 :].any():
        raise UnreadableImage(
            f"{path} holds only zeros in its second half, as an interrupted copy does: copy it "
            "again from its source"
        )
    if data.dtype.kind == "i" and _is_unsigned(layout, data, notes):
        data = data.view(data.dtype.str.replace("i", "u"))
    return data


def write_mrc(path: Path, raw: np.ndarray, pixel_size_angstrom: float) -> None:
    """Write raw counts, float (h, w) in the JPEG's frame, as a float32 MRC in the MRC's frame."""
    import mrcfile

    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(np.ascontiguousarray(np.flipud(raw), dtype=np.float32))
        mrc.voxel_size = pixel_size_angstrom
        mrc.header.label[0] = "raw counts"  # the default holds the time: two runs would differ


def has_mrc_word(path: Path) -> bool:
    """Return whether MAP stands where MRCs have it."""
    with path.open("rb") as file:
        return file.read(212)[208:211] == b"MAP"


def mrc_layout(path: Path) -> Layout:
    """Return where the pixels of a single micrograph are; raises `UnreadableImage`."""
    with path.open("rb") as file:
        content = file.read(HEADER_BYTES)
    n_bytes = path.stat().st_size
    again = "copy it again from its source"
    for magic, what in FOREIGN.items():
        if content.startswith(magic):
            raise UnreadableImage(f"{path} is no MRC but {what} first")
    if len(content) < HEADER_BYTES:
        raise UnreadableImage(
            f"{path} cannot be read: it has {n_bytes:,} bytes, and an MRC's header alone has "
            f"{HEADER_BYTES:,}: {again}"
        )
    stamp = content[212:214]
    orders = "><" if stamp in BIG_ENDIAN else "<>"
    possible = [one for order in orders if (one := _possible(content, order, n_bytes))]
    if not possible:
        (mode,) = struct.unpack_from(f"{orders[0]}i", content, 12)
        holds = f"holds {MODES_UNREAD[mode]}" if mode in MODES_UNREAD else "is no MRC"
        raise UnreadableImage(
            f"{path} cannot be read: it {holds} (mode {mode} in its header): write it again as "
            "32-bit floats, mode 2"
        )
    layout = min(possible, key=lambda one: one.excess != 0)  # the first of those that agree, if any
    n_sections, height, width = layout.shape
    says = f"its header ({width:,} x {height:,} px, mode {layout.mode})"
    if layout.excess and content[208:211] != b"MAP" and stamp not in STAMPS:
        raise UnreadableImage(
            f"{path} cannot be read: it has {n_bytes:,} bytes, which are not those that {says} "
            f"speaks of, and no mark of an MRC: {again}"
        )
    if layout.excess < 0:
        raise UnreadableImage(
            f"{path} is cut short: it has {n_bytes:,} bytes, and by {says} it should have "
            f"{n_bytes - layout.excess:,}: {again}"
        )
    if n_sections > 1:
        raise UnreadableImage(
            f"{path} holds data of shape {layout.shape}, not one micrograph: average the movie "
            "first"
        )
    if layout.excess >= layout.n_bytes:
        raise UnreadableImage(
            f"{path} has room for {1 + layout.excess // layout.n_bytes} images where {says} speaks "
            "of one: average the movie first, or mend its header"
        )
    if height * width > MOST_PX:
        raise too_large(path)
    if layout.mode == 0 and (layout.imod_flags or 0) & IMOD_4_BITS:
        raise UnreadableImage(f"{path} holds numbers of 4 bits: write it again as bytes, mode 0")
    return layout


def _possible(content: bytes, order: str, n_bytes: int) -> Layout | None:
    """Return what a header says if it is read in one byte order, None where that is nonsense."""
    from mrcfile.dtypes import HEADER_DTYPE
    from mrcfile.utils import dtype_from_mode

    header = np.frombuffer(content, HEADER_DTYPE.newbyteorder(order))[0]
    n_extended, mode = int(header["nsymbt"]), int(header["mode"])
    shape = (max(int(header["nz"]), 1), int(header["ny"]), int(header["nx"]))
    if min(shape) < 1 or mode not in MODES:
        return None
    dtype = dtype_from_mode(mode).newbyteorder(order)
    stamp, flags = np.frombuffer(bytes(header["extra2"]), f"{order}i4")[10:12].tolist()
    imod_flags = flags if stamp == IMOD_STAMP else None
    x, y = (float(header["cella"][axis] / max(header[f"m{axis}"], 1)) for axis in "xy")
    layout = Layout(shape, dtype, HEADER_BYTES, 0, mode, imod_flags, float(header["dmax"]), (x, y))
    excess = n_bytes - HEADER_BYTES - layout.n_bytes
    if excess and 0 <= n_extended <= n_bytes - HEADER_BYTES:  # else that number is the wrong one
        return layout._replace(offset=HEADER_BYTES + n_extended, excess=excess - n_extended)
    return layout._replace(excess=excess)


def _is_unsigned(layout: Layout, data: np.ndarray, notes: Notes) -> bool:
    """Return whether the numbers of mode 0 or 1, int8 or int16 (h, w), are unsigned after all.

    The standard says signed. Older programs wrote unsigned bytes, and IMOD says which; cameras
    write unsigned numbers of 16 bits. Else the header's highest value tells, as IMOD has it too, or
    of bytes the pixels. notes: gets how many would be below 0.
    """
    if data.itemsize == 1 and layout.imod_flags is not None:
        return not layout.imod_flags & IMOD_SIGNED
    highest_signed = np.iinfo(data.dtype).max
    said = highest_signed < layout.highest <= 2 * highest_signed + 1
    if not said and not (data.itemsize == 1 and _is_torn(data)):
        return False
    if n_below := int((data < 0).sum()):
        notes[UNSIGNED] = n_below
    return True


def _is_torn(data: np.ndarray) -> bool:
    """Return whether bytes, int8 (h, w), only make sense without a sign.

    Unsigned ones read as signed are torn apart, the brightest to the far end of the dark.
    """
    levels = np.bincount(data[::4].view(np.uint8).ravel(), minlength=256)
    torn = levels[128 - SEAM_LEVELS : 128 + SEAM_LEVELS]
    middle = levels[:SEAM_LEVELS].sum() + levels[-SEAM_LEVELS:].sum()
    return bool(torn.sum() > max(SEAM_FRACTION * levels.sum(), SEAM_RATIO * middle))
