"""Picks judged by what they are for: the resolution of a map that RELION makes of them.

    OMP_NUM_THREADS=1 python -m benchmarks.reconstruction --seed 0
    ... --checkpoint best_model.pt              # a network instead of one trained here
    ... --picks 'other/*.box'                   # a row more: any picker's coordinates

Micrographs of one protein are simulated with known orientations. A network learns from some picks
on four of them. The others are picked by it, by relion_autopick's Laplacian of Gaussian (LoG) as it
comes, and by the best of its picks, as many as ours. RELION cuts each set of picks, reconstructs
its halves, and compares them inside a sphere of the particle's diameter.

Nothing is searched for. A pick within half a diameter of a particle, one to one, gets its true
orientation and half. A false pick gets an orientation and a half at random: a refinement must put
it somewhere too, and where it does says nothing about the protein. In life it is worse, since the
alignment also finds in noise what it looks for.

"aligned": each box is shifted by what the pick was off, as a refinement would find it, so only the
choice of particles counts. "as picked": it is not, so centring counts as well.
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
import starfile

from benchmarks.common import ROOT, new_parser, overrides, print_header, print_row, script
from picking.evaluation.matching import match
from picking.formats.coordinates import read_picks, write_picks
from picking.formats.picks import Picks, select
from picking.inputs.paths import find_coordinates
from picking.seeds import stream
from picking.simulation.dataset import simulate_dataset
from picking.simulation.proteins import PROTEINS, random_angles

PROTEIN = next(protein for protein in PROTEINS if protein.name == "SIM-002")  # D7
PIXEL_SIZE_ANGSTROM, SIDE_PX = 2.5, 1440
DIAMETER_PX = PROTEIN.diameter_angstrom / PIXEL_SIZE_ANGSTROM
BOX_PX = 100  # 1.5 diameters
LEVELS = (0.143, 0.5)
ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
COORDINATES = ["rlnCoordinateX", "rlnCoordinateY"]
ORIGINS = ["rlnOriginXAngst", "rlnOriginYAngst"]


def main() -> None:
    """Simulate, learn, pick in each way, reconstruct and print."""
    parser = new_parser(__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of everything")
    parser.add_argument("--micrographs", type=int, default=22, help="to reconstruct from")
    parser.add_argument("--labels", type=int, default=100, help="picks to learn from")
    parser.add_argument("--checkpoint", type=Path, help="pick with this one and its threshold")
    parser.add_argument("--picks", nargs="+", default=[], help="files of another picker")
    parser.add_argument("--set", nargs="+", default=[], help="config values of the training")
    args = parser.parse_args()
    if shutil.which("relion_reconstruct") is None:
        sys.exit("no RELION here: apt-get install relion")
    folder = ROOT / "experiments" / "reconstruction" / f"seed_{args.seed}"
    started = time.monotonic()
    simulated = folder / "simulated"
    simulate_dataset(
        simulated, n_train=4, n_val=0, n_test=args.micrographs, size_px=[SIDE_PX], mrc=True,
        proteins=[PROTEIN.name], pixel_size_angstrom=PIXEL_SIZE_ANGSTROM, seed=args.seed,
        num_workers=2,
    )  # fmt: skip
    truth = starfile.read(simulated / "truth" / "particles.star")
    to_pick = sorted(path.stem for path in (simulated / "test").iterdir())
    for done in ("picks", "log", "maps"):
        shutil.rmtree(folder / done, ignore_errors=True)
    checkpoint = args.checkpoint or learn(args, folder)
    learned = time.monotonic()
    script(
        "pick_particles.py", "--checkpoint", checkpoint, "--output", folder / "picks", "--device",
        "cpu", "--diameter", f"{DIAMETER_PX}px", "--micrographs", *mrcs(simulated, to_pick),
    )  # fmt: skip
    log_picks(simulated, folder / "log", to_pick)
    sizes = {f"{stem}.mrc": (SIDE_PX, SIDE_PX) for stem in to_pick}
    ours = read_picks(sorted((folder / "picks" / "star").iterdir()), sizes)
    log = read_picks(sorted((folder / "log").rglob("*_autopick.star")), sizes)
    rows = {
        "truth": true_picks(truth["particles"], to_pick),
        "ours": ours,
        "LoG": log,
        "LoG, as many as ours": best(log, sum(len(p.scores) for p in ours)),
    }
    if args.picks:
        rows["--picks"] = read_picks(find_coordinates(args.picks), sizes)
    picked = time.monotonic()
    levels = " / ".join(map(str, LEVELS))
    print_header("picks", "number", "F1", f"aligned, Å at FSC {levels}", "as picked", "off, Å")
    for number, (name, picks) in enumerate(rows.items()):
        particles, f1, off = with_angles(picks, truth["particles"], to_pick, args.seed)
        job = folder / "maps" / str(number)  # RELION's shell stumbles over spaces
        found = resolutions(simulated, job, truth | {"particles": particles})
        print_row(name, f"{len(particles):,}", f"{f1:.3f}", *found, f"{off:.0f}")
    minutes = np.diff([started, learned, picked, time.monotonic()]) / 60
    print("\nminutes: simulating and learning {:.1f}, picking {:.1f}, maps {:.1f}".format(*minutes))


def learn(args: argparse.Namespace, folder: Path) -> Path:
    """Learn from some particles of the micrographs that are not picked, as the README does."""
    simulated = folder / "simulated"
    learned_from = sorted(path.stem for path in (simulated / "train").iterdir())
    truth = starfile.read(simulated / "truth" / "particles.star")["particles"]
    true = true_picks(truth, learned_from)
    chosen = stream(args.seed, "labels").permutation(sum(len(p.scores) for p in true))
    some, first = [], 0
    for picks in true:
        n = len(picks.scores)
        some.append(select(picks, np.isin(np.arange(first, first + n), chosen[: args.labels])))
        first += n
    write_picks(folder / "labels", some, ["star"], one_file=True)
    expected = ("--expected-particles", round(first / len(true)))
    script(
        "preprocess_coco_full_dataset.py", "--micrographs", simulated / "mrc" / "*.mrc", "--labels",
        folder / "labels" / "picks.star", "--diameter", f"{DIAMETER_PX}px", *expected,
        "--output-dir", folder / "store", "--seed", args.seed, "--num-workers", 0,
    )  # fmt: skip
    script(
        "train_pu_fixed_full.py", "--config", "configs/pu_few_labels.yaml", "--resume",
        "--exp-name", "run", "--experiments-dir", folder, "--data-dir", folder / "store",
        "--device", "cpu", *overrides(f"training.seed={args.seed}", *args.set),
    )  # fmt: skip
    best_model = folder / "run" / "checkpoints" / "best_model.pt"
    script(
        "pick_particles.py", "--checkpoint", best_model, *expected, "--device", "cpu",
        "--micrographs", *mrcs(simulated, learned_from),
    )  # fmt: skip
    return best_model


def mrcs(simulated: Path, stems: Sequence[str]) -> list[Path]:
    return [simulated / "mrc" / f"{stem}.mrc" for stem in stems]


def true_picks(particles: pd.DataFrame, stems: Sequence[str]) -> list[Picks]:
    """Return the particles of these micrographs as picks, in the JPEG's frame."""
    picks = []
    for stem in stems:
        x, y = of_micrograph(particles, stem)[COORDINATES].to_numpy().T
        centres, unknown = np.stack([SIDE_PX - y, x], axis=1), np.full(len(x), np.nan)
        picks.append(Picks(f"{stem}.mrc", centres, unknown, unknown, (SIDE_PX, SIDE_PX)))
    return picks


def of_micrograph(particles: pd.DataFrame, stem: str) -> pd.DataFrame:
    return particles[particles["rlnMicrographName"] == f"mrc/{stem}.mrc"]


def log_picks(simulated: Path, job: Path, stems: Sequence[str]) -> None:
    """Pick with RELION's Laplacian of Gaussian, with its interface's defaults but the diameters."""
    job.mkdir(parents=True)
    blocks = starfile.read(simulated / "truth" / "micrographs_ctf.star")
    names = [f"mrc/{stem}.mrc" for stem in stems]
    table = blocks["micrographs"]
    blocks["micrographs"] = table[table["rlnMicrographName"].isin(names)]
    starfile.write(blocks, job / "micrographs.star")
    diameter = PROTEIN.diameter_angstrom
    relion(
        simulated, "autopick", "--i", job / "micrographs.star", "--odir", f"{job}/", "--pickname",
        "autopick", "--LoG", "--LoG_diam_min", 0.9 * diameter, "--LoG_diam_max", 1.1 * diameter,
        "--shrink", 0, "--lowpass", 20, "--LoG_adjust_threshold", 0, "--LoG_upper_threshold", 5,
    )  # fmt: skip


def best(picks: list[Picks], n: int) -> list[Picks]:
    """Return the n picks with the highest scores."""
    lowest = np.sort(np.concatenate([p.scores for p in picks]))[-n:][0]
    return [select(p, p.scores >= lowest) for p in picks]


def with_angles(
    picks: list[Picks], truth: pd.DataFrame, stems: Sequence[str], seed: int
) -> tuple[pd.DataFrame, float, float]:
    """Return the picks as RELION's particles, origins as if aligned; F1; Å off centre, median."""
    tables, n_true, offs = [], 0, [np.empty((0, 2))]
    by_stem = {Path(p.name).stem: p for p in picks}
    for stem in stems:
        true = of_micrograph(truth, stem)
        n_true += len(true)
        if stem not in by_stem:
            continue
        found = by_stem[stem]
        at = np.stack([found.centres_px[:, 1], SIDE_PX - found.centres_px[:, 0]], axis=1)
        matched = match(at, found.scores, true[COORDINATES].to_numpy(), DIAMETER_PX / 2)
        rows = true.iloc[matched.clip(0)].reset_index(drop=True)
        false = matched < 0
        rng = stream(seed, "false picks", stem)
        rows.loc[false, ANGLES] = random_angles(int(false.sum()), rng)
        rows.loc[false, "rlnRandomSubset"] = rng.integers(1, 3, false.sum())
        cut_at = np.floor(at) + 0.5  # RELION drops the fraction
        off = np.where(false[:, None], 0, cut_at - rows[COORDINATES].to_numpy())
        rows[ORIGINS] = off * PIXEL_SIZE_ANGSTROM
        offs.append(off[~false] * PIXEL_SIZE_ANGSTROM)
        rows[COORDINATES] = at
        tables.append(rows)
    particles, matched_off = pd.concat(tables), np.concatenate(offs)
    f1 = 2 * len(matched_off) / (len(particles) + n_true)
    return particles, f1, float(np.median(np.hypot(*matched_off.T)))


def resolutions(simulated: Path, job: Path, blocks: dict[str, Any]) -> list[str]:
    """Cut, reconstruct and compare halves, aligned and as picked; return Å at `LEVELS` of each."""
    job.mkdir(parents=True)
    starfile.write(blocks, job / "picks.star")
    relion(
        simulated, "preprocess", "--i", "truth/micrographs_ctf.star", "--reextract_data_star",
        job / "picks.star", "--part_star", job / "aligned.star", "--part_dir", f"{job}/",
        "--extract", "--extract_size", BOX_PX, "--norm", "--bg_radius", round(0.42 * BOX_PX),
        "--invert_contrast",
    )  # fmt: skip
    cut = starfile.read(job / "aligned.star")
    cut["particles"][ORIGINS] = 0.0
    starfile.write(cut, job / "as_picked.star")
    write_mask(job / "mask.mrc")
    return [resolution(simulated, job, way) for way in ("aligned", "as_picked")]


def resolution(simulated: Path, job: Path, way: str) -> str:
    """Return the resolution of a STAR file of particles at each level."""
    halves = [f"{job}/{way}_half{half}_class001_unfil.mrc" for half in (1, 2)]
    both = [
        subprocess.Popen(
            ["relion_reconstruct", "--i", f"{job}/{way}.star", "--o", path, "--subset", str(half),
             "--ctf", "--sym", PROTEIN.symmetry],
            cwd=simulated, stdout=subprocess.DEVNULL,
        )
        for half, path in enumerate(halves, start=1)
    ]  # fmt: skip
    if any([process.wait() for process in both]):
        sys.exit(f"relion_reconstruct failed on {job}/{way}.star")
    relion(
        simulated, "postprocess", "--i", halves[0], "--i2", halves[1], "--o", f"{job}/{way}_fsc",
        "--angpix", PIXEL_SIZE_ANGSTROM, "--mask", job / "mask.mrc",
    )  # fmt: skip
    curve = starfile.read(job / f"{way}_fsc.star")["fsc"]
    return " / ".join(f"{crossing(curve, level):.2f}" for level in LEVELS)


def crossing(curve: pd.DataFrame, level: float) -> float:
    """Return the Å at which the FSC first falls below a level, between shells by interpolation."""
    s = curve["rlnResolution"].to_numpy(float)
    fsc = curve["rlnFourierShellCorrelationCorrected"].to_numpy(float)
    i = int(np.argmax(fsc < level))
    return 1 / (s[i - 1] + (s[i] - s[i - 1]) * (fsc[i - 1] - level) / (fsc[i - 1] - fsc[i]))


def write_mask(path: Path) -> None:
    """Write a sphere of the particle's diameter and a soft edge of 6 px."""
    distance = np.sqrt(((np.indices((BOX_PX,) * 3) - BOX_PX // 2) ** 2).sum(axis=0))
    edge = ((distance - DIAMETER_PX / 2 - 2) / 6).clip(0, 1)
    with mrcfile.new(path) as file:
        file.set_data((0.5 + 0.5 * np.cos(np.pi * edge)).astype(np.float32))
        file.voxel_size = PIXEL_SIZE_ANGSTROM


def relion(folder: Path, program: str, *arguments: object) -> None:
    """Run a program of RELION's in its project, or end with what it said."""
    command = [f"relion_{program}", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
