"""What a round's network starts from, and which micrographs it is judged on: none that it knows.

A network goes on from the weights of the last round's. Micrographs that are held out choose its
checkpoint and calibrate its scores, so no network before it may have learned their picks.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from picking.config import PUConfig, read_config
from picking.errors import UserError
from picking.files import read_json
from picking.preprocessing.few_picks import number_held_out
from picking.seeds import stream


class Start(NamedTuple):
    """A trained network of an earlier round that the next one can go on from."""

    k: int
    weights: Path
    held_out: tuple[str, ...]
    learned: tuple[str, ...]  # micrographs whose picks it, or one before it, learned


def find_start(folder: Path, config: Path) -> Start | None:
    """Return the last round whose network was trained to its end; None without one that fits.

    folder: of all rounds. config: of training, whose ``model`` the network must have.
    """
    numbers = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]
    for k in sorted(numbers, reverse=True):
        training = folder / str(k) / "training"
        weights = training / "checkpoints" / "best_model.pt"
        if not (training / "results.json").exists() or not weights.exists():
            continue
        with contextlib.suppress(UserError, OSError):
            wanted = read_config(config, [], PUConfig).model
            if wanted.backbone != "unet":
                return None
            plan = read_json(folder / str(k) / "plan.json")
            if read_config(training / "config.yaml", [], PUConfig).model != wanted:
                return None
            if isinstance(plan, dict) and "held_out" in plan and "learned" in plan:
                return Start(k, weights, tuple(plan["held_out"]), tuple(plan["learned"]))
        return None
    return None


def choose_held_out(numbers: Mapping[str, int], start: Start | None, k: int) -> list[str]:
    """Return the names of micrographs with picks that round ``k`` is not to learn.

    numbers: picks by name. They are a fifth of those with picks, at least one; after ``start`` they
    are those that were held out before, then ones whose picks no network has learned. Empty where
    there is none of these.
    """
    picked = sorted(name for name, n in numbers.items() if n)
    n_held = number_held_out(len(picked))
    drawn: list[str] = stream(k, "round", "held out").permutation(picked).tolist()
    if start is None:
        return drawn[:n_held]
    before = [name for name in start.held_out if name in picked]
    fresh = [name for name in drawn if name not in start.learned and name not in before]
    # One at least must be left to learn from
    return [*before, *fresh][: min(n_held, len(picked) - 1)]
