"""Other ways to read coordinates: the mistakes that people make with them, undone."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

ORIENTATIONS = {  # by what is done to x and y as the file has them: swapped first, then mirrored
    (False, True, False): "upside down (y as height - y)",
    (False, False, True): "mirrored (x as width - x)",
    (False, True, True): "turned by 180 degrees (x as width - x, y as height - y)",
    (True, False, False): "with x and y swapped",
    (True, True, False): "turned by 90 degrees (x as y, y as height - x)",
    (True, False, True): "turned by 90 degrees (x as width - y, y as x)",
    (True, True, True): "with x and y swapped and both mirrored (x as width - y, y as height - x)",
}
BINNINGS = (2, 3, 4, 8)
SHIFT, SHIFTS = 1.0, 9  # diameters, and steps from -SHIFT to SHIFT
LEAST_SHIFT = 0.4  # diameters; particles are not alike all around their centres
SCALES = 0.5, 12.0  # any factor between these
OFF = 0.25  # diameters that a pick may be off and still be seen
FINEST_STEP = 0.003  # of the factors, relative
LEAST_FACTOR = 0.05  # from 1


@dataclasses.dataclass(frozen=True)
class Reading:
    """One way to read the coordinates of a file.

    kind: frame, orientation, binning, shift or scale. words: how the coordinates would be read.
    move: from float (n, 2), (y, x) in px as the file has them, and (height, width) to the same in
    the file's frame as it should be. factor: by which distances between picks grow.
    """

    kind: str
    words: str
    move: Callable[[np.ndarray, tuple[int, int]], np.ndarray]
    factor: float = 1.0


def readings(
    frame: str, diameter_px: float, largest_factor: float, side_px: int
) -> Iterator[Reading]:
    """Yield the other readings, the more usual mistakes first.

    Args:
        frame: of the file, jpeg or mrc.
        diameter_px: of the particles.
        largest_factor: by which coordinates can be multiplied and still lie on the micrograph.
        side_px: the longer side of a micrograph.
    """
    other = "jpeg" if frame == "mrc" else "mrc"
    for (swap, up_down, left_right), words in ORIENTATIONS.items():
        kind = "frame" if (swap, left_right) == (False, False) else "orientation"
        yield Reading(kind, words, _turned(swap, up_down, left_right))
    for factor in BINNINGS:
        if factor < 1.3 * largest_factor:
            words = f"times {factor} (they are of micrographs binned by {factor})"
            yield Reading("binning", words, _scaled(factor, False), factor)
            words = f"times {factor} and in the frame '{other}' (they are of micrographs binned by "
            yield Reading("binning", f"{words}{factor})", _scaled(factor, True), factor)
    steps = np.linspace(-SHIFT, SHIFT, SHIFTS)
    far = [(y, x) for y in steps for x in steps if np.hypot(y, x) >= LEAST_SHIFT]
    for y, x in np.array(far) * diameter_px:
        why = "are corners taken for centres, or is the diameter wrong?"
        words = f"with {x:+.0f} px added to x and {y:+.0f} px to y ({why})"
        yield Reading("shift", words, _shifted(y, x))
    ratio = 1 + max(OFF * diameter_px / side_px, FINEST_STEP)
    low, high = SCALES[0], max(1.0, min(1.1 * largest_factor, SCALES[1]))
    factors = np.exp(np.arange(np.log(low), np.log(high), np.log(ratio)))
    for factor in factors[np.abs(factors - 1) > LEAST_FACTOR]:
        words = f"times {factor:.3g} (are they in Å, or of micrographs scaled by that factor?)"
        yield Reading("scale", words, _scaled(factor, False), factor)
        words = f"times {factor:.3g} and in the frame '{other}'"
        yield Reading("scale", words, _scaled(factor, True), factor)


def _turned(swap: bool, up_down: bool, left_right: bool) -> Callable:
    def move(centres: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
        y, x = centres.T[::-1] if swap else centres.T
        height, width = size_px
        return np.stack([height - y if up_down else y, width - x if left_right else x], axis=1)

    return move


def _scaled(factor: float, other_frame: bool) -> Callable:
    def move(centres: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
        y, x = centres.T * factor
        return np.stack([size_px[0] - y if other_frame else y, x], axis=1)

    return move


def _shifted(y: float, x: float) -> Callable:
    return lambda centres, size_px: centres + np.array([y, x])
