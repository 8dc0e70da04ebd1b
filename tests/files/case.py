"""What a case is: files, a command, and what must come out."""

import csv
import dataclasses
import re
import shlex
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from . import base

_OUT = "--output out --annotated-margin 0"
LABELS = (
    "preprocess --output-dir out --num-workers 0 --dry-run --diameter 24px --expected-particles 45 "
    "--micrographs raw/*.mrc --labels"
)
PICKS = f"pick {_OUT} --diameter 24px --micrographs raw/*.mrc --evaluate truth.star --picks"
TRUTH = f"pick {_OUT} --diameter 24px --micrographs raw/*.mrc --picks truth.star --evaluate"
PICKING = "pick --checkpoint tiny.pt --device cpu --output out --micrographs"
DATA = (
    "preprocess --output-dir out --num-workers 0 --dry-run --patch-size 32 --hide-ratio 0 "
    "--data-root data"
)
# For what may be read or refused: what is read must be all of it
EITHER = {"status": (0, 2), "says": ("",)}
ROLES = {"labels": LABELS, "picks": PICKS, "truth": TRUTH}
Files = Mapping[str, str | bytes] | Callable[[Path], object]


@dataclasses.dataclass(frozen=True)
class Case:
    """A row of the corpus.

    command: words as in a shell, but no pattern is expanded. files: name -> content, or what writes
    them into the folder where the command is run. before: commands that come first, whatever their
    status. status: one that the script must leave with, or several of which any will do.
    says: expressions of which each must be found in what is printed, whatever the case of letters;
    warns: the same on stderr alone. Without either, nothing may stand on stderr. never: what must
    not be printed.

    Where the status is 0 or 3: n: labels planned, picks scored or picks made; n_truth: true
    particles scored. check: a further look at the folder and what was printed.
    """

    id: str
    command: str
    files: Files = dataclasses.field(default_factory=dict)
    status: int | tuple[int, ...] = 0
    says: tuple[str, ...] = ()
    warns: tuple[str, ...] = ()
    never: str | None = None
    n: int | None = None
    n_truth: int | None = None
    precision: float | None = None
    recall: float | None = None
    before: tuple[str, ...] = ()
    check: Callable[[Path, object], None] | None = None


def anywhere(id, files, given="", **expected):
    """Return one case, in which the files are labels or picks or truth, as their name decides."""
    role = list(ROLES)[zlib.crc32(id.encode()) % len(ROLES)]
    return of_coordinates(id, files, given, roles=(role,), **expected)


def of_coordinates(id, files, given="", n=80, roles=tuple(ROLES), **expected):
    """Return cases in which the same files are labels, picks to score, and truth.

    given: names of the files, and further flags; by default those of ``files``. n: coordinates that
    must be used of them.
    """
    given = given or " ".join(shlex.quote(name) for name in files)
    cases = []
    for role in roles:
        of_role = {"n": n} if role in ("labels", "picks") else {"n_truth": n}
        if role == "picks":
            of_role |= {"precision": 1.0}
        if role == "truth":
            of_role |= {"recall": 1.0}
        cases.append(Case(f"{id}, {role}", f"{ROLES[role]} {given}", files, **of_role | expected))
    return cases


def write(files: Files, folder: Path) -> None:
    """Write the files of a case into its folder."""
    if callable(files):
        files(folder)
        return
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def judge(case: Case, folder: Path) -> None:
    """Run the case in its folder, the current one, and assert what must hold."""
    write(case.files, folder)
    for command in case.before:
        base.run(*shlex.split(command))
    result = base.run(*shlex.split(case.command))
    printed = result.out + result.err
    allowed = case.status if isinstance(case.status, tuple) else (case.status,)
    assert result.status in allowed, f"status {result.status}: {printed[-700:]}"
    if not case.says + case.warns and result.status == 0:
        assert result.err == "", f"a false alarm: {result.err}"
    for where, all_words in ((printed, case.says), (result.err, case.warns)):
        for words in all_words:
            assert re.search(words, where, re.IGNORECASE), f"'{words}' not in: {where[-900:]}"
    assert not (case.never and re.search(case.never, printed)), printed[-700:]
    assert "Traceback" not in printed and not list(folder.rglob("*.tmp"))
    if result.status in (0, 3):
        _judge_numbers(case, result, folder)
    if case.check is not None:
        case.check(folder, result)


def _judge_numbers(case, result, folder):
    if case.n is not None and case.command.startswith("preprocess"):
        assert result.n_labels == case.n
    elif case.n is not None and "--checkpoint" in case.command:
        assert n_picked(folder) == case.n
    elif case.n is not None:
        assert result.report["n_picks"] == case.n
    for name in ("n_truth", "precision", "recall"):
        wanted = getattr(case, name)
        if wanted is not None:
            assert abs(result.report[name] - wanted) < 0.006, (name, result.report[name])


def n_picked(folder: Path) -> int:
    """Return how many picks summary.csv counts."""
    with (folder / "out/summary.csv").open(newline="") as file:
        return sum(int(row["picks"] or 0) for row in csv.DictReader(file))
