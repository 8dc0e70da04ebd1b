"""Numbers with a unit on the command line: the diameter of the particles."""

import math

from picking.errors import UserError


def as_number(text: str, otherwise: float) -> float:
    """Return the number that the text is, ``otherwise`` where it is none or not finite."""
    try:
        value = float(text)
    except ValueError:
        return otherwise
    return value if math.isfinite(value) else otherwise


def diameter_in_px(
    text: str | None, pixel_size_angstrom: float | None, known_px: float | None = None
) -> float:
    """Return --diameter in px of the micrographs; without it ``known_px``, where that is known."""
    if text is None:
        if known_px is None:
            raise UserError("--diameter is missing: give the particles', such as 108px or 150A")
        return float(known_px)
    unit = next((unit for unit in ("px", "A", "Å") if text.endswith(unit)), "")
    value = as_number(text.removesuffix(unit), 0)
    if not unit or value <= 0:
        raise UserError(
            f"--diameter is '{text}': give a number with its unit, such as 108px or 150A"
        )
    if unit == "px":
        return value
    if pixel_size_angstrom is None or not 0 < pixel_size_angstrom < math.inf:
        raise UserError(f"--diameter {text} is in Å: give --pixel-size too, in Å per px")
    return value / pixel_size_angstrom
