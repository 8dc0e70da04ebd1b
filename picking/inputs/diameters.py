"""Lengths with a unit on the command line: the particles' diameter, in px or by the pixel size."""

import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from picking.errors import UserError, warn
from picking.inputs.paths import Paths
from picking.micrographs.pixel_size import header_pixel_size

LENGTH = re.compile(r"([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?|[0-9]+\.)\s*([^\W\d]*)")
# What a unit is in, by how people write it; Å is one letter here, however it was typed
PX, ANGSTROM = "px", "Å"
UNITS = {"px": (PX, 1), "pix": (PX, 1), "pixel": (PX, 1), "pixels": (PX, 1), "nm": (ANGSTROM, 10),
         "a": (ANGSTROM, 1), "å": (ANGSTROM, 1), "ang": (ANGSTROM, 1), "angstrom": (ANGSTROM, 1),
         "angstroms": (ANGSTROM, 1), "ångström": (ANGSTROM, 1)}  # fmt: skip
LEAST_DIAMETER_PX = 4.0  # a particle of fewer px is a dot, and nothing can be learnt of it
PIXEL_SIZES_AGREE = 0.05  # relative; headers are rounded, and calibrated anew


def as_number(text: str, otherwise: float) -> float:
    """Return the number that the text is, ``otherwise`` where it is none or not finite."""
    try:
        value = float(text)
    except ValueError:
        return otherwise
    return value if math.isfinite(value) else otherwise


def read_length(text: str) -> tuple[float, str]:
    """Return a length as a number and what it is in, `PX` or `ANGSTROM`.

    Units are taken in upper and lower case, with or without a space; Å also as A, angstrom, nm.
    """
    plain = unicodedata.normalize("NFKC", text).strip().casefold()
    found = LENGTH.fullmatch(plain)
    value = as_number(found[1], 0) if found else 0
    if not found or value <= 0 or found[2] not in UNITS:
        comma = " (and a point for decimals)" if "," in text else ""
        raise UserError(
            f"--diameter is '{text}': give a number with its unit, such as 108px or 150A{comma}"
        )
    unit, factor = UNITS[found[2]]
    return value * factor, unit


def diameter_in_px(
    text: str | None, pixel_size_angstrom: float | None, known_px: float | None = None
) -> float:
    """Return --diameter in px of the micrographs; without it ``known_px``, where that is known."""
    if text is None:
        if known_px is None:
            raise UserError("--diameter is missing: give the particles', such as 108px or 150A")
        return float(known_px)
    value, unit = read_length(text)
    if unit == PX:
        return value
    if pixel_size_angstrom is None or not 0 < pixel_size_angstrom < math.inf:
        raise UserError(f"--diameter {text} is in Å: give --pixel-size too, in Å per px")
    return value / pixel_size_angstrom


def require_lengths(diameter: str | None, pixel_size_angstrom: float | None) -> None:
    """Raise `UserError` when --diameter or --pixel-size cannot be what is meant."""
    if diameter is not None:
        read_length(diameter)
    if pixel_size_angstrom is not None and not 0 < pixel_size_angstrom < math.inf:
        raise UserError(
            f"--pixel-size is {pixel_size_angstrom:g}: give the Å of a px, such as 1.77"
        )


def asked_diameter(
    diameter: str | None, pixel_size_angstrom: float | None, micrographs: Paths
) -> float | None:
    """Return --diameter in px of the micrographs, None without; prints the pixel size used.

    The pixel size is --pixel-size, which is held against the headers of the MRCs, or else theirs.
    Raises `UserError` when one is needed and unknown, or not the same for all micrographs.
    """
    require_lengths(diameter, pixel_size_angstrom)
    headers = {name: header_pixel_size(path) for name, path in micrographs.items()}
    known = {name: size for name, size in headers.items() if size is not None}
    in_angstrom = diameter is not None and read_length(diameter)[1] == ANGSTROM
    used, source = pixel_size_angstrom, "--pixel-size"
    if known:
        smallest, largest = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
        if known[largest] > (1 + PIXEL_SIZES_AGREE) * known[smallest]:
            message = (
                f"the micrographs' pixels differ: {known[smallest]:.4g} Å in {smallest}, "
                f"{known[largest]:.4g} Å in {largest}, so no one diameter fits all"
            )
            if in_angstrom and used is None:
                raise UserError(f"{message}: pick those of one pixel size at a time")
            warn(f"{message}: go through those of one pixel size at a time")
        median = float(np.median(list(known.values())))
        if used is None:
            used, source = median, f"the headers of {len(known):,} MRC files"
        elif abs(math.log(used / median)) > math.log1p(PIXEL_SIZES_AGREE):
            warn(
                f"--pixel-size is {used:g} Å, but the headers say {median:.4g} Å ({len(known):,} "
                f"MRC files, e.g. {next(iter(known))}): check which is right, since --pixel-size "
                "is used"
            )
    if not in_angstrom:
        return None if diameter is None else diameter_in_px(diameter, None)
    if used is None:
        raise UserError(
            f"--diameter {diameter} is in Å: give --pixel-size too, in Å per px; the micrographs' "
            "headers do not say it (JPEG, PNG and TIFF have none; in an MRC 0 or exactly 1 stands "
            "for unknown)"
        )
    print(f"Pixel size: {used:.4g} Å ({source})")
    return diameter_in_px(diameter, used)


def asked_diameters(
    diameter: str | None,
    pixel_size_angstrom: float | None,
    micrographs: Paths,
    listed: Mapping[str, float],
) -> tuple[float | None, dict[str, float]]:
    """Return `asked_diameter` and, by name, that of micrographs whose px have another size.

    listed: Å per px by name, as a list of micrographs says it; --pixel-size and headers are held
    against it. Without any, headers are used, and no two micrographs differ.
    """
    if not listed:
        return asked_diameter(diameter, pixel_size_angstrom, micrographs), {}
    require_lengths(diameter, pixel_size_angstrom)
    headers = {name: header_pixel_size(path) for name, path in micrographs.items()}
    known = {n: listed.get(n) or headers[n] for n in micrographs}
    sizes = {name: size for name, size in known.items() if size is not None}
    differing = [n for n in listed if headers[n] and not _agree(headers[n], listed[n])]
    if differing:
        name = differing[0]
        warn(
            f"the list of micrographs says {listed[name]:.4g} Å of {name}, but its header "
            f"{headers[name]:.4g} Å ({len(differing):,} of {len(listed):,} micrographs): check "
            "which is right, since the list is used"
        )
    smallest, largest = min(sizes.values()), max(sizes.values())
    several = f"{smallest:.4g} to {largest:.4g} Å" if smallest < largest else f"{smallest:.4g} Å"
    used = pixel_size_angstrom
    if used is not None and not (_agree(used, smallest) and _agree(used, largest)):
        warn(
            f"--pixel-size is {used:g} Å, but the list of micrographs says {several}: check which "
            "is right, since --pixel-size is used for all"
        )
    if diameter is None or read_length(diameter)[1] == PX:
        if not _agree(smallest, largest):
            warn(
                f"the micrographs' pixels differ, {several}, so no diameter in px fits all: give "
                "--diameter in Å, or go through those of one pixel size at a time"
            )
        return None if diameter is None else diameter_in_px(diameter, None), {}
    if used is not None:
        print(f"Pixel size: {used:.4g} Å (--pixel-size)")
        return diameter_in_px(diameter, used), {}
    unknown = [name for name in micrographs if name not in sizes]
    if unknown:
        raise UserError(
            f"--diameter {diameter} is in Å, but neither list nor header says the pixel size of "
            f"{len(unknown):,} micrographs (e.g. {unknown[0]}): give --pixel-size, in Å per px"
        )
    print(f"Pixel size: {several} (the list of micrographs)")
    first = next(iter(sizes.values()))
    others = {name: size for name, size in sizes.items() if size != first}
    return diameter_in_px(diameter, first), {
        name: diameter_in_px(diameter, size) for name, size in others.items()
    }


def _agree(a: float | None, b: float | None) -> bool:
    return bool(a and b) and abs(math.log(a / b)) <= math.log1p(PIXEL_SIZES_AGREE)  # type: ignore


def pixel_size_of(
    pixel_size_angstrom: float | None, micrographs: Paths, listed: Mapping[str, float]
) -> Callable[[str], float | None]:
    """Return what tells a micrograph's Å per px by its name: --pixel-size, the list or its header.

    None where nobody knows it.
    """

    def find(name: str) -> float | None:
        if pixel_size_angstrom is not None or name in listed:
            return pixel_size_angstrom or listed[name]
        return header_pixel_size(micrographs[name]) if name in micrographs else None

    return find


def require_diameter_fits(
    diameter_px: float,
    sizes_px: Mapping[str, tuple[int, int]],
    own_px: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Raise `UserError` when particles are wider than a micrograph or only a few px wide.

    sizes_px: (height, width) by name. own_px: diameters by name on micrographs whose px have
    another size. Call before anything that takes time.
    """
    advice = "check --diameter, and --pixel-size where it is in Å"
    smallest_px = min((own_px.get(name, diameter_px) for name in sizes_px), default=diameter_px)
    if smallest_px < LEAST_DIAMETER_PX:
        raise UserError(
            f"the particles' diameter is {smallest_px:.3g} px, which no picker can see "
            f"({LEAST_DIAMETER_PX:g} px at least): {advice}"
        )
    for name, size_px in sizes_px.items():
        there_px = own_px.get(name, diameter_px)
        if there_px > min(size_px):
            raise UserError(
                f"the particles' diameter is {there_px:.6g} px, but {name} is {size_px[1]} x "
                f"{size_px[0]} px: {advice}"
            )
