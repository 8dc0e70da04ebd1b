"""What a micrograph is called in files: which one a name means, and which names can be written."""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from picking.errors import UserError, leave_out, one_line, warn
from picking.micrographs.reading import SUFFIXES

# What cryoSPARC puts before a name, RELION before that of a stack; what they put behind.
UID = re.compile(r"^\d+[_@]")
TAIL = re.compile(
    r"(_(patch|rigid)_aligned(_doseweighted)?)?"  # then RELION, Gautomatch, Topaz's exporters
    r"(_autopick|_manualpick|_automatch|_topazpicks|_picks?|_particles)?$"
)
# What coordinates are, in messages
LABELS, PICKS, TRUTH, NEGATIVES = "labels", "picks", "true particles", "places without a particle"
LONGEST_NAME = 255 - len(".npz")  # bytes, of what we put a suffix behind


def stem(name: str) -> str:
    """Return a micrograph's name without folder and image suffix: a.1 for dir/a.1.jpg."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.stem if path.suffix.lower() in (*SUFFIXES, ".mrcs", ".eer") else path.name


def core(name: str) -> str:
    """Return `stem` without what programs put behind."""
    return TAIL.sub("", stem(name))


def in_picture(name: str) -> str:
    """Return a name as fonts can draw it: Latin letters as they are, what else there is escaped."""
    return one_line(name).encode("latin-1", "backslashreplace").decode("latin-1")


def few(names: Iterable[str]) -> str:
    """Return up to three of the names for a message, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (", ".join(names[:3]) or "none") + more


def finder(known: Iterable[str]) -> Callable[[str], str | None]:
    """Return a function from a name in a file of picks to the one of ``known`` it means, or None.

    The two may differ in folder, suffix and tail, in how Unicode composes a letter, and one of
    them may have cryoSPARC's leading number; but not both, since 001_a is not 002_a. The closest
    likeness counts.
    """

    def forms(name: str) -> tuple[str, str, str, str]:
        """Return a name as it is, without folder and suffix, without tail, and without number."""
        name = unicodedata.normalize("NFC", name)
        return name, stem(name), core(name), UID.sub("", core(name))

    tables: list[dict[str, list[str]]] = [{}, {}, {}, {}]
    for name in dict.fromkeys(known):
        for table, form in zip(tables, forms(name), strict=True):
            table.setdefault(form, []).append(name)

    def find(name: str) -> str | None:
        """Return the known name, None without one; raises `UserError` where several fit."""
        whole, alone, tailless, bare = forms(name)
        of_whole, of_stem, of_core, of_bare = tables
        for form, table in (
            (whole, of_whole), (whole, of_stem), (alone, of_stem), (tailless, of_core),
            (bare, of_core), (tailless, of_bare),
        ):  # fmt: skip
            names = table.get(form, [])
            if len(names) > 1:
                raise UserError(f"'{name}' could be any of {few(names)}: rename the micrographs")
            if names:
                return names[0]
        return None

    return find


def say_unknown(
    what: str,
    n_unknown: Mapping[str, int],
    n_all: int,
    known: Collection[str],
    unserved: Sequence[str],
    allow_partial: bool,
) -> None:
    """Say how many coordinates are left out because nobody knows their micrographs.

    Args:
        what: the coordinates are: `LABELS`, `PICKS`, `TRUTH` or `NEGATIVES`.
        n_unknown: coordinates by the name of a micrograph that is not known.
        n_all: coordinates, those of known micrographs among them.
        known: names of micrographs.
        unserved: those of them that the files do not name. Picks and true particles of others may
            come along with those that were wanted, but then each of these has its own.
        allow_partial: more than a tenth may be left out.

    Raises `UserError` where names do not fit, and where all coordinates are left out.
    """
    n_left_out = sum(n_unknown.values())
    others = "have no truth" if what == PICKS else "are not given"
    those = "truth is of" if what == PICKS else "given are"
    message = (
        f"{n_left_out:,} of {n_all:,} {what} are of {len(n_unknown):,} micrographs that {others} "
        f"({what} are of {few(n_unknown)}; {those} {few(known)}"
        + (f", without {what} {few(unserved)})" if unserved else ")")
    )
    if n_left_out and n_left_out == n_all:
        raise UserError(f"no micrograph is in both: {message}: give files of the same micrographs")
    if unserved or what in (LABELS, NEGATIVES):
        leave_out(n_left_out, n_all, message, allow_partial)
    elif n_left_out:
        warn(message)


def require_writable(names: Iterable[str], formats: Iterable[str], one_file: bool) -> None:
    """Raise `UserError` for a micrograph whose name would not come back from a file of its picks.

    STAR: as starfile and RELION read it, which know quotes but no escapes. starfile takes ' for ",
    RELION makes one space of several. CSV holds names only where it is of many micrographs.
    """
    for name in names:
        problem = None
        if len(name.encode(errors="surrogatepass")) > LONGEST_NAME:
            problem = f"is longer than {LONGEST_NAME} bytes"
        elif "\\" in name:
            problem = "has a backslash, which stands between folders elsewhere"
        elif "star" in formats and (character := _unfit_for_star(name)):
            problem = f"has {character}, which RELION or starfile misread in a STAR file"
        elif "csv" in formats and one_file and (name != name.strip() or not _is_utf_8(name)):
            problem = "begins or ends with a space or is not UTF-8, which a CSV cannot hold"
        elif "cs" in formats and not _is_utf_8(name):
            problem = "has bytes that are not UTF-8, which a .cs cannot hold"
        if problem:
            raise UserError(
                f"the micrograph's name '{name}' {problem}: rename the file, or a link to it"
            )


def require_star_text(text: str, where: str, cure: str) -> None:
    """Raise `UserError` for a text that would not come back from a STAR file, as a name."""
    if character := _unfit_for_star(text):
        raise UserError(
            f"{where} has '{text}' with {character}, which RELION or starfile misread in a STAR "
            f"file: {cure}"
        )


def _unfit_for_star(name: str) -> str | None:
    """Return what of a name no STAR file can hold, in words."""
    if not _is_utf_8(name):
        return "bytes that are not UTF-8"
    if any(character < " " for character in name) or len(name.splitlines()) > 1:
        return "a tab, a line break or another control character"
    if "'" in name:
        return "a single quote"
    if "  " in name:
        return "two spaces in a row"
    if '"' in name and (name.startswith('"') or " " in name or "#" in name):
        return "a double quote"
    return None


def _is_utf_8(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)
