"""Micrographs that cannot be used: they are left out, the work goes on, and it is said."""

from collections.abc import Mapping
from pathlib import Path

from picking.errors import LeftOut, UserError
from picking.micrographs.problems import UnreadableImage, examples
from picking.micrographs.reading import image_size

Reasons = dict[str, str]  # file name of a micrograph -> why it is left out


def readable_sizes(
    paths: Mapping[str, Path], strict: bool
) -> tuple[dict[str, tuple[int, int]], Reasons]:
    """Return (height, width) px of the micrographs, and why those without it are left out.

    Raises `UserError` where all are, and with ``strict`` at the first.
    """
    sizes_px: dict[str, tuple[int, int]] = {}
    left_out: Reasons = {}
    for name, path in paths.items():
        try:
            sizes_px[name] = image_size(path)
        except UnreadableImage as error:
            give_up_on(name, error, left_out, strict)
    require_some(sizes_px, left_out)
    return sizes_px, left_out


def give_up_on(name: str, error: UnreadableImage, left_out: Reasons, strict: bool) -> None:
    """Note and print that a micrograph is left out, or with ``strict`` raise the error."""
    if strict:
        raise error
    left_out[name] = str(error)
    print(f"Left out: {error}", flush=True)


def require_some(used: Mapping[str, object], left_out: Reasons) -> None:
    """Raise `UserError` where nothing is left of the micrographs."""
    if left_out and not used:
        reasons = [*left_out.values()]
        n = f"none of the {len(reasons):,} micrographs can be used: " if len(reasons) > 1 else ""
        raise UserError(n + "; ".join(reasons[:3]))


def tell(left_out: Reasons, n_given: int) -> None:
    """Raise `LeftOut` where some micrographs were; call when all work is done."""
    if left_out:
        first = next(iter(left_out.values()))
        raise LeftOut(
            f"{len(left_out):,} of {n_given:,} micrographs were left out "
            f"({examples([*left_out])}): {first}; all else is done: mend them and run the same "
            "again (picking: with --resume)"
        )
