"""What may be wrong with a micrograph's file: what makes it unreadable, and what is only said."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from picking.errors import UserError, warn

# Pixels of a micrograph, at most: Pillow refuses larger images, which could fill any memory.
MOST_PX = 178_956_970

# What reading notes of a file: one of these keys -> how many.
Notes = dict[str, int]
IN_JUNK = "in_junk"  # candidates that were left out, said once at the end
BAD_PX, TRAILING_BYTES, UNSIGNED, CONSTANT = "bad_px", "trailing_bytes", "unsigned", "constant"
SAID = {
    BAD_PX: "{n:,} bad px (not finite, dead or hot) were replaced by their surroundings in {where}",
    TRAILING_BYTES: "{n:,} bytes behind the pixels were left out of {where}",
    UNSIGNED: "{n:,} px below 0 only make sense without a sign, and were read so, in {where}",
    CONSTANT: "all px are equal in {where}",
}


class UnreadableImage(UserError):
    """An image file that is missing, truncated or not a single micrograph."""


def too_large(path: Path) -> UnreadableImage:
    """Return what to say of an image that could fill any memory."""
    return UnreadableImage(f"{path} has more than {MOST_PX:,} px: bin it or cut it into parts")


def warn_of_notes(noted: Mapping[str, Notes]) -> None:
    """Say in a line for each kind what was noted of micrographs, by name."""
    for kind, what in SAID.items():
        names = [name for name, notes in noted.items() if notes.get(kind)]
        if names:
            where = f"{len(names):,} micrograph{'s' * (len(names) > 1)} ({examples(names)})"
            warn(what.format(n=sum(noted[name][kind] for name in names), where=where))


def notes_text(notes: Notes) -> str:
    """Return what to add to a micrograph's line: bad px replaced, candidates in junk left out."""
    texts = {BAD_PX: "bad px replaced", IN_JUNK: "candidates in junk left out"}
    said = ", ".join(f"{notes[key]:,} {what}" for key, what in texts.items() if notes.get(key))
    return f" ({said})" if said else ""


def examples(names: Sequence[str]) -> str:
    """Return up to three names, and whether there are more."""
    return f"e.g. {', '.join(names[:3])}" if len(names) > 3 else ", ".join(names)
