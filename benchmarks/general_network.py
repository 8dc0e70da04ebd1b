"""The network that is shipped: it learned from many structures, to pick what it never saw.

    python -m benchmarks.general_network --real empiar-10017 ribosome-10028
    python -m benchmarks.general_network --ship FILE --real ...     # models/GENERAL.md says which

It learns from simulated micrographs, each of its own structure (picking/simulation/variety.py), and
from train of the --real sets. All particles are known there, so that what is near none is negative:
the risk of positives and negatives. No two people measure a diameter alike, so each micrograph
counts as one of particles some tenths smaller or larger. One in twenty simulated ones, and val of
the real sets, choose the weights and calibrate the scores. Some of all are low-passed, as published
micrographs may be.

How it picks a set that is not among --real: benchmarks/picking.py, part general, with --start
experiments/general_network/A+B/general.pt. What is finished is read, not run again.
"""

import argparse
import dataclasses
import functools
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common import ROOT, new_parser, overrides, require_same_settings, script
from benchmarks.real_sets import RealSet
from picking.config import DataConfig
from picking.errors import UserError, run_script
from picking.files import make_folder, sha256, write_json, write_saved
from picking.formats.picks import Micrograph
from picking.inputs.annotations import Split
from picking.micrographs.preparation import PARTICLE_PX
from picking.micrographs.reading import read_grey
from picking.parallel import ordered_map
from picking.preprocessing.cutting import patch_writer
from picking.preprocessing.metadata import count_splits
from picking.preprocessing.windows.plan import WINDOW_PX, WindowPlan
from picking.preprocessing.windows.settings import WindowSettings
from picking.runs.checkpoints import load_checkpoint, save_checkpoint
from picking.seeds import stream
from picking.simulation.plans import MicrographPlan
from picking.simulation.variety import (
    LOWPASS_SIGMA,
    LOWPASSED,
    lowpassed,
    plan_varied,
    simulate_varied,
)
from picking.stores.journal import Journal
from picking.stores.writer import write_split

FOLDER = ROOT / "experiments" / "general_network"
LOG_MISMEASURED = (math.log(0.85), math.log(1.45))  # diameters of simulated particles
MISMEASURED = (1.0, 0.85, 1.2)  # of real ones: each micrograph is there so many times
WINDOWS_SIMULATED, WINDOWS_REAL = 20, 400  # anywhere, of a micrograph
ONE_OF = 20  # simulated micrographs is for validation


def main() -> None:
    """Train what is missing; ship the network."""
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--data-root", type=Path, default=Path("../shared/data"), help="folder of real sets")
    add("--real", nargs="*", default=[], metavar="SET", help="to learn from, by folder")
    add("--micrographs", type=int, default=700, help="simulated")
    add("--seed", type=int, default=0)
    add("--set", nargs="+", default=["training.max_steps=3000"], help="config values")
    add("--name", default="", help="tells runs with other settings apart")
    add("--ship", type=Path, metavar="FILE", help="also write the network here")
    args = parser.parse_args()
    args.data_root = args.data_root.resolve()
    known = sorted(path.name for path in args.data_root.iterdir() if path.is_dir())
    if unknown := sorted({*args.real} - {*known}):
        raise UserError(f"{unknown[0]} is not in {args.data_root}: choose of {', '.join(known)}")

    folder = FOLDER / f"{'+'.join(args.real) or 'simulated'}{args.name}"
    plans = plan_varied(args.micrographs, args.seed)
    settings = {key: getattr(args, key) for key in ("micrographs", "seed", "set")}
    # Images are known by number, so those of another recipe would be taken for them
    settings["recipe"] = sha256(repr((plans, LOWPASSED, LOWPASS_SIGMA)))[:12]
    require_same_settings(folder, settings)
    if not (folder / "store" / "metadata.json").exists():
        make_store(args, plans, FOLDER / f"simulated_{settings['recipe']}", folder / "store")
    script(
        "train_pu_fixed_full.py", "--config", "configs/pu_few_labels.yaml", "--resume",
        "--exp-name", "run", "--experiments-dir", folder, "--data-dir", folder / "store",
        "--device", "cpu", "--num-workers", 0,
        *overrides(f"training.seed={args.seed}", *args.set),
    )  # fmt: skip
    network = folder / "general.pt"
    if not network.exists():
        write_network(folder / "run" / "checkpoints" / "best_model.pt", network)
    if args.ship:
        write_network(network, args.ship)
    print(f"Finished {network}")


def write_network(trained: Path, path: Path) -> None:
    """Write what picking and fine-tuning need of a checkpoint.

    How coarse the micrographs were that it learned from is left out: of all proteins that says
    nothing about one. So is where its store lay.
    """
    checkpoint = load_checkpoint(trained)
    kept = ("kind", "config", "network", "input", "threshold", "calibration")
    slim = {key: checkpoint[key] for key in kept if key in checkpoint}
    slim["input"] = {key: value for key, value in slim["input"].items() if key != "coarseness"}
    slim["config"]["data"]["dir"] = DataConfig.dir
    save_checkpoint(path, slim)


# What it learns from


def make_store(
    args: argparse.Namespace, plans: Sequence[MicrographPlan], images: Path, store: Path
) -> None:
    """Make the store of windows of real micrographs and simulated ones, kept in ``images``."""
    listed: dict[str, list[tuple[Micrograph, float, int]]] = {"train": [], "val": []}
    make_folder(images)
    job = functools.partial(simulated, images=images)
    for i, micrograph in enumerate(ordered_map(job, plans, os.cpu_count() or 1, "Simulating")):
        factor = math.exp(stream(args.seed, "mismeasured", str(i)).uniform(*LOG_MISMEASURED))
        diameter_px = plans[i].protein.diameter_angstrom / plans[i].pixel_size_angstrom
        one = (micrograph, diameter_px * factor, WINDOWS_SIMULATED)
        listed["val" if i % ONE_OF == 0 else "train"].append(one)
    for name in args.real:
        real = RealSet(args.data_root / name)
        for split in listed:
            for factor in MISMEASURED if split == "train" else MISMEASURED[:1]:
                n = WINDOWS_REAL if factor == 1 else WINDOWS_REAL // 3
                listed[split] += [
                    (annotated(real, one, factor, store), real.diameter_px * factor, n)
                    for one in real.micrographs(split)
                ]
            if split == "train":
                listed[split] += [
                    (softened(real, one, store, args.seed), real.diameter_px, WINDOWS_REAL // 3)
                    for one in real.train
                ]
    own_px = {one.name: diameter_px for of in listed.values() for one, diameter_px, _ in of}
    settings = WindowSettings(
        window_px=WINDOW_PX, diameter_px=float(PARTICLE_PX), per_micrograph=WINDOWS_SIMULATED,
        expected_particles=None, seed=args.seed, own_px=own_px,
    )  # fmt: skip
    make_folder(store)
    journal, plans_of, splits = Journal(store / ".journal", {"splits": list(listed)}), {}, {}
    for split, members in listed.items():
        windows: list[WindowPlan] = []
        for one, _, n in members:
            of_one = dataclasses.replace(settings, per_micrograph=n)
            windows += of_one.plan_split(split, [one], [size_of(one)])
        make_folder(store / split)
        if unreadable := write_split([patch_writer(store / split, windows, journal)], 0):
            raise UserError(f"cannot be read: {', '.join(unreadable)}")
        plans_of[split] = windows
        splits[split] = Split(split, tuple(one for one, _, _ in members), "general", "", "")
    noted = {split: journal.noted(split) for split in splits}
    counts = count_splits(settings, plans_of, noted, splits, {split: [] for split in splits})
    write_json(
        store / "metadata.json", {**settings.description(journal.content_hash()), **counts}
    )  # last: it says "finished"


def simulated(plan: MicrographPlan, images: Path) -> Micrograph:
    """Simulate a micrograph unless it is there; return it with all its particles."""
    path, truth = images / f"{plan.stem}.png", images / f"{plan.stem}.npy"
    if not path.exists():
        image = simulate_varied(plan)
        write_saved(truth, functools.partial(np.save, arr=image.centres_px))
        write_grey(path, image.raw)
    return known_in_full(path, path.name, np.load(truth), plan.size_px)


def write_grey(path: Path, grey: np.ndarray) -> None:
    """Write (h, w) as a PNG of 16 bits that are all used."""
    scaled = (grey - grey.min()) / np.ptp(grey) * (2**16 - 1)
    picture = Image.fromarray(np.rint(scaled).astype(np.uint16))
    write_saved(path, functools.partial(picture.save, format="PNG"))


def annotated(real: RealSet, one: Micrograph, factor: float, store: Path) -> Micrograph:
    """Return a micrograph of a real set as known in full, but for the margin without labels."""
    size_px, margin_px = size_of(one), real.margin_px
    mask = np.full([max(1, n // 4) for n in size_px], 255, np.uint8)
    inner = margin_px // 4 + (margin_px > 0)
    mask[inner : mask.shape[0] - inner, inner : mask.shape[1] - inner] = 0
    path = store / "margins" / f"{real.name}_{one.path.stem}.png"
    make_folder(path.parent)
    Image.fromarray(mask).save(path)
    name = f"{real.name}_{factor}_{one.name}"
    known = known_in_full(one.path, name, one.centres_px, size_px)
    return dataclasses.replace(known, junk=path if margin_px else None)


def softened(real: RealSet, one: Micrograph, store: Path, seed: int) -> Micrograph:
    """Return a micrograph of a real set as denoising might leave it, known in full."""
    path = store / "lowpassed" / f"{real.name}_{one.path.stem}.png"
    make_folder(path.parent)
    rng = stream(seed, "lowpass", path.name)
    write_grey(path, lowpassed(read_grey(one.path), real.diameter_px, rng))
    known = annotated(real, one, 1, store)
    return dataclasses.replace(known, name=f"lowpassed_{known.name}", path=path)


def known_in_full(
    path: Path, name: str, centres_px: np.ndarray, size_px: Sequence[int]
) -> Micrograph:
    """Return a micrograph on which all particles are listed."""
    unknown = np.full(len(centres_px), np.nan)
    size = (int(size_px[0]), int(size_px[1]))
    return Micrograph(name, centres_px, unknown, unknown, size, path=path, complete=True)


def size_of(one: Micrograph) -> tuple[int, int]:
    """Return the size of a micrograph, (height, width) in px."""
    if one.size_px is None:
        raise UserError(f"the size of {one.name} is not known")
    return one.size_px


if __name__ == "__main__":
    run_script(main)
