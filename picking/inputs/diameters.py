"""Lengths with a unit on the command line: the particles' diameter, in px or by the pixel size."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from picking.errors import UserError, warn
from picking.formats.picks import Picks
from picking.inputs.paths import Paths
from picking.micrographs.pixel_size import agree, header_pixel_size
from picking.micrographs.problems import examples

LENGTH = re.compile(r"([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?|[0-9]+\.)\s*([^\W\d]*)")
# What a unit is in, by how people write it; Å is one letter here, however it was typed
PX, ANGSTROM = "px", "Å"
UNITS = {"px": (PX, 1), "pix": (PX, 1), "pixel": (PX, 1), "pixels": (PX, 1), "nm": (ANGSTROM, 10),
         "a": (ANGSTROM, 1), "å": (ANGSTROM, 1), "ang": (ANGSTROM, 1), "angstrom": (ANGSTROM, 1),
         "angstroms": (ANGSTROM, 1), "ångström": (ANGSTROM, 1)}  # fmt: skip
# Of a smaller particle a quarter of the diameter, by which a pick may be off, is little more than a
# px, and a few-label network sees it more than three times enlarged, which adds nothing
LEAST_DIAMETER_PX = 6.0
# Of a micrograph, in diameters: so much a few-label network sees at once (64 px of 20 a particle)
LEAST_WIDTH = 3


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


class PixelSizes(NamedTuple):
    """The Å per px of micrographs.

    by_name: of those of which a list or a header says it. source: which of the two.
    given: --pixel-size, which is used for all.
    """

    by_name: dict[str, float]
    source: str
    given: float | None = None

    def of(self, name: str) -> float | None:
        """Return that of a micrograph, None where nobody knows it."""
        return self.given or self.by_name.get(name)

    @property
    def usual(self) -> float | None:
        """What most micrographs have, None where that of none is known."""
        counted = Counter(self.by_name.values()).most_common(1)
        return self.given or (counted[0][0] if counted else None)

    @property
    def differ(self) -> bool:
        """Whether they are so unlike that no diameter in px fits all."""
        return not (self.given or all(agree(size, self.usual) for size in self.by_name.values()))

    def __str__(self) -> str:
        """Return the range, and where it is from."""
        if self.given:
            return f"{self.given:.4g} Å (--pixel-size)"
        ends = dict.fromkeys(f"{end(self.by_name.values()):.4g}" for end in (min, max))
        return f"{' to '.join(ends)} Å ({self.source})"


def find_pixel_sizes(
    given: float | None, micrographs: Paths, listed: Mapping[str, float]
) -> PixelSizes:
    """Return the pixel sizes; warn where --pixel-size, the list and the headers disagree.

    given: --pixel-size, which goes before all. listed: Å per px by name, as a list of micrographs
    says it, which goes before the headers of MRCs.
    """
    require_lengths(None, given)
    found = {name: header_pixel_size(path) for name, path in micrographs.items()}
    headers = {name: size for name, size in found.items() if size is not None}
    differing = [n for n in listed if n in headers and not agree(headers[n], listed[n])]
    if differing:
        name = differing[0]
        warn(
            f"the list of micrographs says {listed[name]:.4g} Å of {name}, but its header "
            f"{headers[name]:.4g} Å ({len(differing):,} of {len(listed):,} micrographs): check "
            "which is right, since the list is used"
        )
    source = "the list of micrographs" if listed else f"the headers of {len(headers):,} MRC files"
    sizes = PixelSizes({**headers, **listed}, source)
    if given and any(not agree(given, size) for size in sizes.by_name.values()):
        warn(
            f"--pixel-size is {given:g} Å, but the micrographs have {sizes}: check which is right, "
            "since --pixel-size is used for all"
        )
    return sizes._replace(given=given)


def asked_diameters(
    diameter: str | None, sizes: PixelSizes, micrographs: Collection[str]
) -> tuple[float | None, dict[str, float]]:
    """Return --diameter in px of most micrographs and, by name, of those with px of another size.

    None without --diameter. Prints the pixel sizes where they are used. Raises `UserError` where
    they are needed and not known of all; warns where a diameter in px does not fit all.
    """
    if diameter is None:
        return None, {}
    value, unit = read_length(diameter)
    if unit == ANGSTROM:
        _require_known(f"--diameter {diameter} is in Å", sizes, micrographs)
        print(f"Pixel size: {sizes}")
        return _on_each(value, sizes, micrographs)
    _warn_if_they_differ(sizes)
    return value, {}


def learned_diameters(
    learned_px: float | None,
    learned_at: float | None,
    sizes: PixelSizes,
    micrographs: Collection[str],
) -> tuple[float, dict[str, float]]:
    """Return the same for a network that knows the diameter of the particles it learned from.

    learned_px: that diameter, in px of ``learned_at`` Å; None where the checkpoint does not say it.
    Where nobody knows the pixel size there or here they are taken to be the same.
    """
    learned_px = diameter_in_px(None, None, learned_px)
    if learned_at is None or {learned_at} >= {sizes.of(name) or learned_at for name in micrographs}:
        _warn_if_they_differ(sizes)
        return learned_px, {}
    learned = f"the network learned where a px is {learned_at:.4g} Å"
    _require_known(learned, sizes, micrographs)
    print(f"Pixel size: {sizes}; {learned} and particles are {learned_px:.4g} px wide")
    return _on_each(learned_px * learned_at, sizes, micrographs)


def _on_each(
    diameter_angstrom: float, sizes: PixelSizes, micrographs: Collection[str]
) -> tuple[float, dict[str, float]]:
    usual, known = sizes.usual or math.nan, {name: sizes.of(name) for name in micrographs}
    others = {name: size for name, size in known.items() if size and size != usual}
    return diameter_angstrom / usual, {n: diameter_angstrom / size for n, size in others.items()}


def _require_known(why: str, sizes: PixelSizes, micrographs: Collection[str]) -> None:
    if sizes.usual is None:
        raise UserError(
            f"{why}: give --pixel-size too, in Å per px; the micrographs' headers do not say it "
            "(JPEG, PNG and TIFF have none; in an MRC 0 or exactly 1 stands for unknown)"
        )
    unknown = [name for name in micrographs if sizes.of(name) is None]
    if unknown:
        raise UserError(
            f"{why}, but nothing says the pixel size of {len(unknown):,} of {len(micrographs):,} "
            f"micrographs ({examples(unknown)}); the others have {sizes}: give --pixel-size, if it "
            "is one for all, or go through those apart"
        )


def _warn_if_they_differ(sizes: PixelSizes) -> None:
    if sizes.differ:
        warn(
            f"the micrographs' pixels differ, {sizes}, so no diameter in px fits all: give "
            "--diameter in Å, or go through those of one pixel size at a time"
        )


def require_diameter_fits(
    diameter_px: float,
    sizes_px: Mapping[str, tuple[int, int]],
    own_px: Mapping[str, float] = MappingProxyType({}),
    advice: str = "check --diameter, and --pixel-size where it is in Å",
) -> None:
    """Raise `UserError` where particles are a few px wide, or a micrograph a few particles.

    sizes_px: (height, width) by name. own_px: diameters by name on micrographs whose px have
    another size. Call before anything that takes time.
    """
    for name, size_px in sizes_px.items():
        there_px = own_px.get(name, diameter_px)
        if there_px < LEAST_DIAMETER_PX:
            raise UserError(
                f"the particles' diameter is {there_px:.3g} px on {name}, and below "
                f"{LEAST_DIAMETER_PX:g} px nothing can be told of them: {advice}"
            )
        if LEAST_WIDTH * there_px > min(size_px):
            raise UserError(
                f"the particles' diameter is {there_px:.6g} px, but {name} is {size_px[1]} x "
                f"{size_px[0]} px, and should be {LEAST_WIDTH} diameters wide at least: {advice}"
            )


def require_boxes_fit(
    annotated: Sequence[Picks], sizes_px: Sequence[tuple[int, int]], source: str
) -> None:
    """Raise `UserError` where annotated particles are, in the median, so on a micrograph."""
    for one, size_px in zip(annotated, sizes_px, strict=True):
        stated = one.diameters_px[np.isfinite(one.diameters_px)]
        if len(stated):
            median, advice = float(np.median(stated)), f"check the boxes or diameters in {source}"
            require_diameter_fits(median, {one.name: size_px}, advice=advice)
