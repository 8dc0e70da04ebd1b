"""What a round is made of: a folder, a copy of the labels, and the commands that are run.

    rounds/<k>/  labels/  plan.json  status.json  log.txt  store/  training/  picks/  threshold.json

The commands are those that a user would type: preprocess, train, pick. A round that learns nothing
has the last one alone, with the network that comes with the project.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from picking.config import PUConfig, read_config
from picking.errors import UserError
from picking.files import make_folder, read_json, write_json
from picking.inputs.labels_folder import JUNK, LEFT_OUT, UNTOUCHED
from picking.inputs.paths import Paths
from picking.labelling.folder.labels import LabelsFolder
from picking.labelling.folder.session import Session, write_session

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "configs" / "pu_from_general.yaml"
GENERAL = "general"  # the network that comes with the project
LEAST_PICKS = 10


class Step(NamedTuple):
    """A command of a round, and what it does, in words."""

    title: str
    command: list[str]


def round_folder(folder: Path, k: int) -> Path:
    """Return the folder of round ``k`` of a folder of labels."""
    return folder / "rounds" / str(k)


def last_round(folder: Path) -> int | None:
    """Return the number of the last round, None where there was none."""
    numbers = [int(path.name) for path in (folder / "rounds").glob("*") if path.name.isdecimal()]
    return max(numbers, default=None)


def checkpoint(round_path: Path) -> Path:
    """Return where a round's network is once it was trained."""
    return round_path / "training" / "checkpoints" / "best_model.pt"


def write_plan(
    labels: LabelsFolder,
    session: Session,
    paths: Paths,
    is_list: bool,
    expected: float | None,
    config: Path | None,
    learns: bool = True,
) -> int:
    """Make a round's folder with a copy of the labels and what is to be run; return its number.

    Args:
        labels: to learn from.
        session: of the labels.
        paths: of the micrographs that can be read.
        is_list: whether the session's micrographs are a list, which says more than files do.
        expected: particles on a micrograph, about; None: preprocessing goes by complete ones.
        config: of training; None: `CONFIG`.
        learns: else the general network proposes, whatever is labelled.

    Raises `UserError` where too little is labelled to learn from, and for a configuration that is
    none.
    """
    history = labels.history
    used = {n: path for n, path in paths.items() if history.of(n).state != LEFT_OUT}
    numbers = {name: len(history.of(name).places_px(True)) for name in used}
    labelled, n_picks = [name for name, n in numbers.items() if n], sum(numbers.values())
    if learns and (n_picks < LEAST_PICKS or len(labelled) < 2):
        raise UserError(
            f"{n_picks} particles on {len(labelled)} micrographs are too few to learn from: mark "
            f"{LEAST_PICKS} or more, on two micrographs or more"
        )
    k, config = (last_round(labels.folder) or 0) + 1, config or CONFIG
    read_config(config, [], PUConfig)  # a mistake there is said before anything is made
    round_path = round_folder(labels.folder, k)
    make_folder(round_path.parent)
    round_path.mkdir()
    touched = [name for name in used if history.of(name).state != UNTOUCHED]
    labels.write_to(round_path / "labels", paths.keys() - used.keys())
    write_session(round_path / "labels", session)
    picked = dict.fromkeys([*touched, *used])  # of thousands those that are looked at first
    listed = list(session.micrographs)  # is passed on whole
    learned_from, all_picked = (
        listed if is_list else [_argument(used[name]) for name in names]
        for names in (touched, picked)
    )
    network = str(checkpoint(round_path)) if learns else GENERAL
    steps = learn_steps(round_path, session, learned_from, expected, config) if learns else []
    steps.append(pick_step(round_path, session, network, all_picked))
    plan = {
        "n_picks": n_picks if learns else 0,
        "n_micrographs": len(used),
        "steps": [step._asdict() for step in steps],
    }
    write_json(round_path / "plan.json", plan)
    return k


def learn_steps(
    round_path: Path,
    session: Session,
    learned_from: Sequence[str],
    expected: float | None,
    config: Path,
) -> list[Step]:
    """Return the commands that make a round's network.

    learned_from: micrographs, as on a command line.
    """
    store = str(round_path / "store")
    preprocess = ["--micrographs", *learned_from, "--labels", str(round_path / "labels")]
    preprocess += [*_size(session), "--output-dir", store, "--num-workers", "2"]
    preprocess += ["--skip-unreadable"]
    if expected is not None:
        preprocess += ["--expected-particles", f"{expected:g}"]
    train = ["--config", str(config), "--data-dir", store, "--resume"]
    train += ["--experiments-dir", str(round_path), "--exp-name", "training"]
    return [
        Step("Preparing", _script("preprocess_coco_full_dataset.py", preprocess)),
        Step("Training", _script("train_pu_fixed_full.py", train)),
    ]


def pick_step(round_path: Path, session: Session, network: str, picked: Sequence[str]) -> Step:
    """Return the command that makes a round's proposals.

    network, picked: a checkpoint and micrographs, as on a command line.
    """
    pick = ["--checkpoint", network, "--micrographs", *picked, *_size(session)]
    pick += ["--output", str(round_path / "picks"), "--resume"]
    junk = round_path / "labels" / JUNK
    if any(junk.glob("*.png")):  # a folder without a mask would be refused
        pick += ["--junk", str(junk)]
    return Step("Picking all", _script("pick_particles.py", pick))


def _size(session: Session) -> list[str]:
    """Return how large particles and pixels are, as on a command line."""
    size = ["--diameter", session.diameter]
    if session.pixel_size is not None:
        size += ["--pixel-size", f"{session.pixel_size:g}"]
    return size


def read_plan(round_path: Path) -> Mapping | None:
    """Return a round's plan, None where it was not written."""
    path = round_path / "plan.json"
    return read_json(path) if path.exists() else None


def steps_of(plan: Mapping) -> list[Step]:
    """Return the steps of a plan that was read."""
    return [Step(step["title"], list(step["command"])) for step in plan["steps"]]


def shown_command(step: Step) -> str:
    """Return a command for the log, without hundreds of names of micrographs."""
    words = step.command[1:]
    if "--micrographs" in words:
        start = words.index("--micrographs") + 1
        end = next((i for i in range(start, len(words)) if words[i].startswith("--")), len(words))
        if end - start > 3:
            words[start + 2 : end] = [f"... ({end - start} in all)"]
    return " ".join(words)


def _argument(path: Path) -> str:
    """Return a path that no script takes for an option."""
    return str(path.absolute() if str(path).startswith("-") else path)


def _script(name: str, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, str(ROOT / name), *arguments]
