"""Topaz on the same micrographs, picks and scorer as ours: pretrained, and trained on a few picks.

What suits it best on val is used: of the pretrained networks, scales and radii the one with the
highest F1, of the ways to train and the epochs likewise. All of val's truth chooses.

It takes no JPEG: so it gets MRCs of the same counts, whose rows lie as ours do, scaled and
normalised by its own `preprocess`. It draws without a seed: two trainings on the same picks differ.

Topaz 0.3.20 (stats.py, pixels_given_radius) counts 2 r + 1 px for each px of a particle's disk of
radius r, those of a cylinder, so that the prior which it makes of --num-particles is so many times
too high and training diverges. It is given the prior that the number of particles stands for.
"""

import argparse
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.common import run
from benchmarks.real_sets import RealSet, draw_labels, evaluate, match_all
from picking.evaluation.matching import choose_threshold, pick_metrics, pr_curve
from picking.files import make_folder, read_json, write_json
from picking.formats.other_pickers import read_topaz
from picking.formats.picks import Micrograph, Picks
from picking.micrographs.mrc import mrc_size, write_mrc

PRETRAINED = ("resnet8_u64", "resnet16_u64")
WIDTHS_PX = (14, 20, 28, 40)  # of a particle at the scales that are tried; its networks see 71 px
LOWEST_SCORE = -1000  # all candidates, so that the curve is whole
HALF = 0.0  # its scores are log-odds
EPOCHS, STEPS = 5, 20  # of an epoch: 7 minutes of a core; ten of 1,000 are its default


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the part `topaz` takes beside what is common to all."""
    add = parser.add_argument
    add("--topaz", help="topaz: the command that starts Topaz")
    add("--scales", nargs="+", type=int, help="topaz: how many times smaller; default: by diameter")
    add(
        "--radii",
        nargs="+",
        type=float,
        default=[1, 0.7],
        help="topaz: how far picks are apart, in radii of the particle; the first with all scales",
    )
    add(
        "--train",
        nargs="+",
        default=["--method PU", "--method GE-binomial"],
        metavar="FLAGS",
        help="topaz: flags of `topaz train`, each quoted value a way to train that is tried",
    )


# Pretrained


def pretrained(args: argparse.Namespace, real: RealSet, folder: Path) -> dict[str, Any]:
    """Choose scale, network and radius on val; pick, evaluate."""
    best = choose_pretrained(args, real)
    scale, model, radius_px = (best[key] for key in ("scale", "model", "radius_px"))
    metrics = pick_and_evaluate(args, real, scale, model, radius_px, best["on_val"], folder)
    return {"labels": 0, "cpu_minutes": 0.0, "setting": best, **metrics}


def choose_pretrained(args: argparse.Namespace, real: RealSet) -> dict[str, Any]:
    """Return the scale, network and radius with the highest F1 on val, and write all that."""

    def try_on_val(scale: int, model: str, radius: float) -> dict[str, Any]:
        radius_px = max(1, round(radius * real.diameter_px / 2 / scale))
        path = real.folder / "topaz" / f"val_{scale}_{radius_px}_{model}.txt"
        found = extract(args, real, "val", scale, model, radius_px, path)
        return {
            "scale": scale, "model": model, "radius_px": radius_px, "on_val": str(path),
            **f1_on_val(real, found),
        }  # fmt: skip

    first, *others = args.radii
    scales = args.scales or scales_of(real.diameter_px)
    tried = [try_on_val(scale, model, first) for scale in scales for model in PRETRAINED]
    best = max(tried, key=lambda one: one["val_f1"])
    tried += [try_on_val(best["scale"], best["model"], radius) for radius in others]
    write_json(real.folder / "topaz" / "pretrained_on_val.json", tried)
    return max(tried, key=lambda one: one["val_f1"])


def scales_of(diameter_px: float) -> list[int]:
    """Return the whole factors that make a particle about as wide as `WIDTHS_PX`."""
    return sorted({max(1, round(diameter_px / width_px)) for width_px in WIDTHS_PX})


def f1_on_val(real: RealSet, found: dict[str, Picks]) -> dict[str, float]:
    """Return the highest F1 on val, and the AP."""
    outcomes = match_all(found, real.micrographs("val"), real.margin_px)
    metrics = pick_metrics(outcomes, choose_threshold(pr_curve(outcomes)), n_bootstrap=0)
    return {"val_f1": metrics["f1"], "val_ap": metrics["ap"]}


# Trained


def trained(
    args: argparse.Namespace, real: RealSet, n_labels: dict[str, int], seed: int, folder: Path
) -> dict[str, Any]:
    """Train on the picks in every way, choose way and epoch on val; pick, evaluate.

    It starts from the pretrained ResNet-8 at the scale and radius that suit the pretrained best.
    """
    best = choose_pretrained(args, real)
    scale, radius_px = best["scale"], best["radius_px"]
    targets = write_targets(real, scale, n_labels["train"], seed, folder / "targets.txt")
    tried: list[dict[str, Any]] = []
    for flags in args.train:
        way = folder / (re.sub(r"[^\w.]+", "_", flags).strip("_") or "default")
        minutes = train(args, real, scale, targets, n_labels["train"], flags, way)
        networks = sorted(way.glob("network_epoch*.sav"), key=epoch_of)
        for network in networks:
            path = way / f"val_{network.stem}.txt"
            found = extract(args, real, "val", scale, network, radius_px, path)
            used = minutes * epoch_of(network) / len(networks)
            tried.append({"flags": flags, "network": str(network), "on_val": str(path)})
            tried[-1]["cpu_minutes"] = used
            tried[-1] |= f1_on_val(real, found)
    write_json(folder / "trained_on_val.json", tried)
    best = max(tried, key=lambda one: one["val_f1"])
    metrics = pick_and_evaluate(
        args, real, scale, best["network"], radius_px, best["on_val"], folder
    )
    minutes = best["cpu_minutes"]
    return {"labels": n_labels["train"], "cpu_minutes": minutes, "setting": best, **metrics}


def train(
    args: argparse.Namespace,
    real: RealSet,
    scale: int,
    targets: Path,
    n_labels: int,
    flags: str,
    way: Path,
) -> float:
    """Train, with a network for each epoch in the folder ``way``; return the CPU minutes."""
    sides_px = [(m.size_px[0] // scale) * (m.size_px[1] // scale) for m in real.train]
    n_particles, radius_px = real.expected * len(real.train), labelled_px(real, scale)
    pi = prior_to_give(n_particles, n_labels, radius_px, sum(sides_px), "PU" in shlex.split(flags))
    done = way / "done.json"
    if not done.exists():
        make_folder(way)
        minutes = run(
            *shlex.split(args.topaz), "train", "-d", -1, "--model", "resnet8", "--units", 64,
            "--train-images", prepare(args, real, "train", scale), "--train-targets", targets,
            "--num-particles", -1, "--pi", pi, "--radius", radius_px,
            "--num-epochs", EPOCHS, "--epoch-size", STEPS, "--save-prefix", way / "network",
            "--output", way / "curve.txt", *shlex.split(flags),
        )  # fmt: skip
        write_json(done, {"cpu_minutes": minutes})
    return read_json(done)["cpu_minutes"]


def prior_to_give(
    n_particles: float, n_labels: int, radius_px: int, n_px: int, is_pu: bool
) -> float:
    """Return the --pi with which Topaz 0.3.20 trains on the prior of so many particles.

    Its PU draws the unlabeled from all places; the other methods from those near no pick, and take
    the share of those near one off the prior, which they count 2 r + 1 times.

    Args:
        n_particles: on all micrographs of training.
        n_labels: of them that are picked.
        radius_px: how far from a particle a place is of it.
        n_px: of all micrographs.
        is_pu: whether the method is PU.
    """
    y, x = np.ogrid[-radius_px : radius_px + 1, -radius_px : radius_px + 1]
    share = int((y**2 + x**2 <= radius_px**2).sum()) / n_px
    taken_off = 0 if is_pu else (2 * radius_px + 1) * n_labels
    return share * (n_particles if is_pu else n_particles - n_labels + taken_off)


def labelled_px(real: RealSet, scale: int) -> int:
    """Return how far from a pick a place is still of a particle: a quarter of the diameter."""
    return max(2, round(real.diameter_px / 4 / scale))


def epoch_of(network: Path) -> int:
    """Return the epoch that a network was saved after, from 1."""
    return int(network.stem.rpartition("epoch")[2])


def write_targets(real: RealSet, scale: int, n_labels: int, seed: int, path: Path) -> Path:
    """Write the picks that few-labels draws by this seed, in px at the scale."""
    make_folder(path.parent)
    lines = ["image_name\tx_coord\ty_coord"]
    for m in draw_labels(real.train, "train", n_labels, seed):
        for y, x in np.floor(m.centres_px / scale).astype(int):
            lines.append(f"{m.path.stem}\t{x}\t{y}")
    path.write_text("\n".join(lines) + "\n")
    return path


# Both


def prepare(args: argparse.Namespace, real: RealSet, split: str, scale: int) -> Path:
    """Return the folder of a split's micrographs as Topaz's own preprocessing makes them."""
    folder = real.folder / "topaz" / f"{split}_{scale}"
    if not folder.exists():
        raw, small = folder.with_suffix(".raw"), folder.with_suffix(".part")
        make_folder(raw)
        paths = [raw / f"{m.path.stem}.mrc" for m in real.micrographs(split)]
        for m, path in zip(real.micrographs(split), paths, strict=True):
            # Upside down in a frame that is: row 0 of the file is the top of the image
            write_mrc(path, np.flipud(np.asarray(Image.open(m.path), dtype=np.float32)), 1)
        run(*shlex.split(args.topaz), "preprocess", "-s", scale, "-o", f"{small}/", *paths)
        for path in paths:
            path.unlink()
        raw.rmdir()
        small.rename(folder)
    return folder


def pick_and_evaluate(
    args: argparse.Namespace,
    real: RealSet,
    scale: int,
    network: str,
    radius_px: int,
    on_val: str,
    folder: Path,
) -> dict[str, Any]:
    """Return what `evaluate` makes of a network's candidates, those of val kept in ``on_val``."""
    of_split = Path(on_val) if args.split == "val" else folder / f"{args.split}.txt"
    val, picked = (
        extract(args, real, split, scale, network, radius_px, path)
        for split, path in (("val", Path(on_val)), (args.split, of_split))
    )
    return evaluate(real, args.split, val, picked, HALF)


def extract(
    args: argparse.Namespace,
    real: RealSet,
    split: str,
    scale: int,
    network: Path | str,
    radius_px: int,
    path: Path,
) -> dict[str, Picks]:
    """Return a network's candidates on a split by stem, in px of the micrographs; kept in ``path``.

    Args:
        args: the command line.
        real: the set.
        split: of it.
        scale: by which the micrographs are smaller.
        network: a file, or the name of a pretrained one.
        radius_px: within which a candidate suppresses lower ones, in px at the scale.
        path: read where it exists.
    """
    small = prepare(args, real, split, scale)
    if not path.exists():
        make_folder(path.parent)
        half_written = path.with_suffix(".part")
        run(
            *shlex.split(args.topaz), "extract", "-d", -1, "--model", network,
            "--radius", radius_px, "--threshold", LOWEST_SCORE, "--output", half_written,
            *sorted(small.glob("*.mrc")),
        )  # fmt: skip
        half_written.rename(path)
    return read_candidates(path, real.micrographs(split), small)


def read_candidates(path: Path, micrographs: Sequence[Micrograph], small: Path) -> dict[str, Picks]:
    """Return Topaz's picks on its smaller micrographs by stem, in px of ours."""
    found = {one.name: one for one in read_topaz(path)}
    candidates = {}
    for m in micrographs:
        height, width = mrc_size(small / f"{m.path.stem}.mrc")
        one = found.get(m.path.stem)
        centres = np.zeros((0, 2)) if one is None else one.centres_px
        scores = np.zeros(0) if one is None else one.scores
        centres = centres * np.array(m.size_px) / (height, width)
        diameters = np.full(len(scores), np.median(m.diameters_px))
        candidates[m.path.stem] = Picks(m.name, centres, scores, diameters, m.size_px)
    return candidates
