"""Run folders of active learning: what is complete, what is missing, what can be compared."""

import collections
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from picking.active_learning.strategies import strategy_name
from picking.config import ActiveConfig, config_from_dict, plain
from picking.errors import UserError
from picking.files import read_json

COUNTS = ("num_labeled", "num_pool", "num_particles_labeled", "num_particles_pool", "val_images")
# What may differ between repetitions; data are compared by content, not by path
NO_SETTINGS = (
    "active_learning.strategy",
    "active_learning.iterations",
    "active_learning.full_epochs",  # a run of full has them in training.epochs
    "active_learning.target_f1",
    "training.seed",
    "training.compile",
    "training.channels_last",
    "training.eval_batch_size",
)
# What labelling costs, in clicks: a particle is one (METHODS: active learning on regions)
OPENING, IMAGE = 10, 2  # a micrograph, and each image of it: a tile or the whole
MODEL = ("model.name", "model.width", "model.depth")


@dataclasses.dataclass(frozen=True)
class LearningCurve:
    """F1 (n,) against the numbers of labelled images (n,) and labelled particles (n,).

    clicks: their `cost` (n,); None where a run does not say of how many micrographs its images are.
    """

    images: np.ndarray
    particles: np.ndarray
    f1: np.ndarray
    clicks: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder: its configuration and the metrics.json of its complete iterations, from 0."""

    name: str
    config: ActiveConfig
    input_hash: str | None  # None before the first iteration is complete
    iterations: list[dict]
    unused: list[int]  # complete iterations after a missing one

    @property
    def strategy(self) -> str:
        """The strategy, under the one name that `STRATEGIES` has it under."""
        return strategy_name(self.config.active_learning.strategy)

    @property
    def seed(self) -> int:
        """The seed."""
        return self.config.training.seed

    @property
    def settings(self) -> dict[str, Any]:
        """What repetitions have in common besides strategy and data, by dotted key."""
        sections = plain(self.config)
        return {
            f"{section}.{key}": value
            for section in sections
            for key, value in sections[section].items()
            if section != "data" and f"{section}.{key}" not in NO_SETTINGS
        }

    @property
    def repeated(self) -> tuple:
        """Strategy and settings, which repetitions with other seeds share."""
        return self.strategy, tuple(sorted(self.settings.items()))

    @property
    def model(self) -> tuple:
        """Network, width and depth."""
        return tuple(self.settings[key] for key in MODEL)

    def curve(self, split: str) -> LearningCurve:
        """Return the curve on `val` or `test`, without iterations that have no F1 there."""
        known = [m for m in self.iterations if f1_of(m, split) is not None]
        images = np.array([m["num_labeled"] for m in known], float)
        particles = np.array([m["num_particles_labeled"] for m in known], float)
        micrographs = np.array([m.get("num_micrographs_labeled", np.nan) for m in known], float)
        clicks = cost(images, micrographs, particles)
        return LearningCurve(
            images,
            particles,
            np.array([f1_of(m, split) for m in known], float),
            None if np.isnan(clicks).any() else clicks,
        )


@dataclasses.dataclass(frozen=True)
class Group:
    """Repetitions with different seeds of one strategy with one set of settings."""

    label: str
    runs: dict[int, Run]  # by seed

    @property
    def first(self) -> Run:
        """Any of the runs, for what they have in common."""
        return next(iter(self.runs.values()))


def cost(images: np.ndarray, micrographs: np.ndarray, particles: np.ndarray) -> np.ndarray:
    """Return what labels cost in clicks, (n,).

    Of so many images (n,), of so many micrographs, each opened once, with so many particles.
    """
    return OPENING * micrographs + IMAGE * images + particles


def f1_of(metrics: dict, split: str) -> float | None:
    """Return F1 at 0.5 on `val` or `test`; None where it is undefined or not measured."""
    return metrics["f1_score"] if split == "val" else (metrics.get("test") or {}).get("f1_score")


def read_runs(folder: Path) -> list[Run]:
    """Read every run in ``folder``; raises `UserError` where there is none or one is damaged."""
    configs = sorted(folder.glob("*/config.json"))
    if not configs:
        raise UserError(
            f"{folder} holds no run: make some with ./run_active_learning_comparison.sh or "
            "'python train_active_learning_fixed.py --strategy random', or give --experiments-dir"
        )
    return [_read_run(path) for path in configs]


def _read_run(path: Path) -> Run:
    config = config_from_dict(read_json(path), str(path), ActiveConfig)
    iterations: list[dict] = []
    while (metrics := path.parent / f"iteration_{len(iterations)}" / "metrics.json").exists():
        iterations.append(_read_iteration(metrics, iterations))
    input_hash = None
    if iterations:
        record = read_json(path.with_name("run.json"))
        input_hash = record.get("input_hash") if isinstance(record, dict) else None
        if not isinstance(input_hash, str):
            raise UserError(f"{path.with_name('run.json')} has no input_hash: copy it again")
    numbers = [p.parent.name[10:] for p in path.parent.glob("iteration_*/metrics.json")]
    unused = sorted(int(k) for k in numbers if k.isdecimal() and int(k) >= len(iterations))
    return Run(path.parent.name, config, input_hash, iterations, unused)


def _read_iteration(path: Path, before: list[dict]) -> dict:
    """Read one metrics.json; raises `UserError` naming file and key where it cannot be right."""
    metrics = read_json(path)
    if problem := _problem(metrics, before):
        advice = "copy the file again, or move the run elsewhere"
        raise UserError(f"{path} is damaged ({problem}): {advice}")
    return metrics


def _problem(metrics: Any, before: list[dict]) -> str | None:
    if not isinstance(metrics, dict) or not isinstance(metrics.get("test") or {}, dict):
        return "no metrics by name"
    for key in COUNTS:
        if type(metrics.get(key)) is not int or metrics[key] < 0:
            return f"'{key}' is {metrics.get(key)!r}, not a count"
    micrographs = metrics.get("num_micrographs_labeled", 1)  # older runs lack it
    if type(micrographs) is not int or not 0 < micrographs <= metrics["num_labeled"]:
        return f"'num_micrographs_labeled' is {micrographs!r}, not a count"
    for split in ("val", "test"):
        f1 = f1_of(metrics, split) if "f1_score" in metrics else "missing"
        if f1 is not None and not (isinstance(f1, int | float) and 0 <= f1 <= 1):
            return f"'f1_score' is {f1!r}, not 0 to 1"
    if before and (
        metrics["num_labeled"] <= before[-1]["num_labeled"]
        or metrics["num_particles_labeled"] < before[-1]["num_particles_labeled"]
        or metrics["num_pool"] != before[-1]["num_pool"]
    ):
        return "its counts do not go on from the iteration before"
    if not 0 < metrics["num_labeled"] <= metrics["num_pool"]:
        return "more images labelled than there are"
    return None


def incomplete(run: Run, label: str) -> str | None:
    """Return what the run lacks, in words, or None when every iteration is complete."""
    n = len(run.iterations)
    planned = 1 if run.strategy == "full" else run.config.active_learning.iterations
    done = "no iteration" if n == 0 else "iteration 0" if n == 1 else f"iterations 0-{n - 1}"
    text = f"{label} seed {run.seed}: {done} of {planned} complete"
    if run.unused:
        text += f"; {', '.join(map(str, run.unused))} not used because iteration {n} is missing"
    without = [k for k, m in enumerate(run.iterations) if m["f1_score"] is None]
    if without:
        text += f"; no F1 in {', '.join(map(str, without))}"
    return text if n < planned or without else None


def comparable(runs: list[Run]) -> tuple[list[Run], dict[str, str]]:
    """Return the runs that can be compared, and why each other one is left out, by name.

    Only runs on the same data (input hash, sizes of pool and validation) can be compared: those on
    the data that most runs have, or of several such, most iterations. Of runs with the same
    settings and seed, the one with most iterations counts.
    """
    by_data: dict[tuple, list[Run]] = collections.defaultdict(list)
    for run in runs:
        if run.iterations:
            counts = run.iterations[0]
            by_data[run.input_hash, counts["num_pool"], counts["val_images"]].append(run)

    def extent(data: tuple) -> tuple[int, int]:
        return len(by_data[data]), sum(len(run.iterations) for run in by_data[data])

    def described(data: tuple) -> str:
        return f"{data[1]:,} + {data[2]:,} images, hash {data[0][:12]}"

    chosen = max(by_data, key=extent)
    left_out = {
        run.name: f"on other data: {described(data)}; compared are runs on {described(chosen)}"
        for data, others in by_data.items() if data != chosen
        for run in others
    }  # fmt: skip
    kept: dict[tuple, Run] = {}
    for run in sorted(by_data[chosen], key=lambda run: -len(run.iterations)):
        first = kept.setdefault((*run.repeated, run.seed), run)
        if first is not run:
            left_out[run.name] = f"same settings and seed as {first.name}, no more iterations"
    return [run for run in runs if not run.iterations or run in kept.values()], left_out


def labels(runs: list[Run]) -> dict[str, str]:
    """Return a label for each run, by name: its strategy, and what differs from most runs."""
    default = Run("", ActiveConfig(), None, [], []).settings
    active = [run for run in runs if run.strategy != "full"]
    common = dict(default)
    for key, value in default.items():
        counts = collections.Counter(run.settings[key] for run in active)
        common[key] = max(counts, key=lambda v: (counts[v], v == value), default=value)
    named = {}
    for run in runs:
        keys = MODEL if run.strategy == "full" else list(default)
        differing = [
            str(run.settings[key]) if key in ("model.name", "active_learning.start")
            else f"{key.split('.')[1]}={run.settings[key]}"
            for key in keys if run.settings[key] != common[key]
        ]  # fmt: skip
        named[run.name] = run.strategy + (f" ({', '.join(differing)})" if differing else "")
    return named


def groups(runs: list[Run], named: dict[str, str]) -> list[Group]:
    """Return the runs that have an F1, grouped: random first, then by label; seeds in order."""
    by_settings: dict[tuple, dict[int, Run]] = collections.defaultdict(dict)
    for run in sorted(runs, key=lambda run: run.seed):
        if len(run.curve("val").f1):
            by_settings[run.repeated][run.seed] = run
    listed = [Group(named[min(run.name for run in g.values())], g) for g in by_settings.values()]
    return sorted(listed, key=lambda group: (group.first.strategy != "random", group.label))


def counterpart(active: list[Group], group: Group, strategy: str) -> Group | None:
    """Return the group of another strategy with the same settings, or None."""
    same = (g for g in active if g.first.settings == group.first.settings and g is not group)
    return next((g for g in same if g.first.strategy == strategy), None)


def n_seeds(n: int) -> str:
    """Return a number of seeds in words."""
    return "1 seed" if n == 1 else f"{n} seeds"
