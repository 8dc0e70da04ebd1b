"""Masks of junk that somebody painted: <stem>.png for a micrograph, 8-bit, not 0 where junk is.

Row 0 is at the top of the micrograph as it is shown, in the JPEG's frame. A mask may have any
scale of its micrograph.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from picking.errors import UserError, leave_out, warn
from picking.formats.names import few, finder


def find_junk_masks(
    folder: Path,
    sizes_px: Mapping[str, tuple[int, int]],
    ignored: Collection[str] = (),
    allow_partial: bool = False,
) -> dict[str, Path]:
    """Return the masks of a folder by the micrograph's name, checked.

    Args:
        folder: with the masks.
        sizes_px: (height, width) of the micrographs, by name.
        ignored: micrographs that are not used, of whose masks it need not tell.
        allow_partial: more than a tenth may be of micrographs that are not known.

    Raises `UserError` where there is none, for one that is no mask or of another shape, for two of
    one micrograph, and for more than a tenth of unknown micrographs.
    """
    if not folder.is_dir():
        raise UserError(f"--junk {folder} is no folder: give the one with a <stem>.png for each")
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    masks = [path for path in files if path.suffix.lower() == ".png"]
    if not masks:
        raise UserError(
            f"--junk {folder} holds no PNG: it is to hold masks, <stem>.png for a micrograph"
        )
    if len(masks) < len(files):
        others = [path.name for path in files if path not in masks]
        warn(f"{folder} holds {len(others):,} files that are no PNG (e.g. {few(others)}): no masks")
    known_name = finder([*sizes_px, *ignored])
    found: dict[str, Path] = {}
    unknown = []
    for path in masks:
        name = known_name(path.stem)
        if name is None:
            unknown.append(path.name)
        elif name not in ignored:
            if found.setdefault(name, path) is not path:
                raise UserError(f"{found[name]} and {path} are both masks of {name}: leave one")
            _require_shape(path, name, sizes_px[name])
    leave_out(
        len(unknown),
        len(masks),
        f"{len(unknown):,} of {len(masks):,} masks in {folder} are of micrographs that are not "
        f"given (masks are {few(unknown)}; given are {few(sizes_px)})",
        allow_partial,
    )
    return found


def read_junk_mask(path: Path) -> np.ndarray:
    """Return where junk was painted, bool (h, w), at the mask's scale; raises `UserError`."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            mode, mask = image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as a PNG ({error}): write it again") from error
    if mode not in ("L", "1"):
        raise UserError(
            f"{path} is no mask (its pixels are of mode {mode}): write it as 8-bit grey, 0 where "
            "there is no junk"
        )
    return mask != 0


def junk_mask_at(path: Path, size_px: tuple[int, int]) -> np.ndarray:
    """Return where junk was painted, bool of ``size_px``, at least half of each px."""
    mask = Image.fromarray(read_junk_mask(path).astype(np.uint8) * 255)
    return np.asarray(mask.resize(size_px[::-1], Image.Resampling.BOX)) > 127


def _require_shape(path: Path, name: str, size_px: tuple[int, int]) -> None:
    """Raise `UserError` unless a mask has the shape of its micrograph, at whatever scale."""
    (height, width), mask = size_px, read_junk_mask(path)
    rows, columns = mask.shape
    # Both sides are rounded to whole px
    if abs(rows * width - columns * height) > max(height, width):
        raise UserError(
            f"{path} is {columns} x {rows} px, but {name} {width} x {height}: a mask has the same "
            "shape, at any scale: is it of another micrograph, or turned by 90 degrees?"
        )
