"""Junk on micrographs: what the mask finds and what it costs, and picks with it and without.

    python -m benchmarks.junk masks
    python -m benchmarks.junk picks --steps 300

masks: simulated micrographs with each kind of junk and without any, and train and val of real sets:
how much of the junk is masked, how much of the mask is junk, particles in the mask, CPU time. What
is junk on the real ones nobody says. picks: simulated micrographs with junk; a network learns from
some labels and picks with --keep-junk and without. Thresholds have the highest F1 on validation, in
the same way.
"""

import argparse
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common import ROOT, new_parser, overrides, print_header, print_row, script
from benchmarks.real_sets import RealSet, write_labels
from picking.errors import UserError, run_script
from picking.files import read_json
from picking.formats.picks import Micrograph
from picking.micrographs.junk import in_junk, junk_mask
from picking.micrographs.preparation import PARTICLE_PX, scale_micrograph
from picking.micrographs.reading import read_scaled
from picking.simulation.dataset import simulate_dataset
from picking.simulation.junk import KINDS
from picking.simulation.plans import Arguments, plan_dataset, simulate_planned

FOLDER = ROOT / "experiments" / "junk_benchmark"
ASKED = Arguments(
    n_train=8, n_val=4, n_test=12, size_px=(1024, 1024), proteins=("SIM-004",),
    pixel_size_angstrom=4.0, snr=(0.06, 0.12), junk=0.7, seed=42,
)  # fmt: skip
N_LABELS = {"train": 40, "val": 15}
METRICS = ("precision", "recall", "f1", "ap")


def main() -> None:
    """Run one part."""
    parser = new_parser(__doc__)
    parser.add_argument("part", choices=("masks", "picks"))
    parser.add_argument("--data-root", type=Path, default=Path("../shared/data"), help="real sets")
    parser.add_argument("--micrographs", type=int, default=10, help="masks: simulated of a kind")
    parser.add_argument("--steps", type=int, default=300, help="picks: of training")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="picks: what is made")
    args = parser.parse_args()
    if args.part == "masks":
        masks(args)
    else:
        picks(args)


def masks(args: argparse.Namespace) -> None:
    """Print a row for each kind of simulated junk and for each real set."""
    print_header(
        "micrographs", "n", "junk found", "of the mask junk", "masked", "particles in the mask",
        "CPU s each",
    )  # fmt: skip
    asked = replace(ASKED, n_train=args.micrographs, n_val=0, n_test=0, n_proteins=6, proteins=())
    plans = [replace(plan, carbon=False) for plan in plan_dataset(asked)]
    for kind in (*KINDS, None):
        of_kind = (simulate_planned(replace(p, junk=(kind,) if kind else ())) for p in plans)
        mask_row(f"simulated, {kind or 'nothing more'}", (
            (scaled(image.raw, image.diameter_px), image.centres_px, image.raw.shape, image.junk)
            for image in of_kind
        ))  # fmt: skip
    for root in sorted(path for path in args.data_root.glob("*") if path.is_dir()):
        real = RealSet(root.resolve())
        listed = [m for split in ("train", "val") for m in real.micrographs(split)]
        mask_row(root.name, (
            (read_scaled(m.path, working_px(m, real.diameter_px)), m.centres_px, m.size_px, None)
            for m in listed
        ))  # fmt: skip


def working_px(micrograph: Micrograph, diameter_px: float) -> tuple[int, int]:
    """Return the size, (height, width), at which particles are as wide as networks see them."""
    if micrograph.size_px is None:
        raise UserError(f"the size of {micrograph.name} is not known")
    height, width = (round(n * PARTICLE_PX / diameter_px) for n in micrograph.size_px)
    return height, width


def scaled(raw: np.ndarray, diameter_px: float) -> np.ndarray:
    """Return a raw micrograph at working scale."""
    height, width = (round(n * PARTICLE_PX / diameter_px) for n in raw.shape)
    return scale_micrograph(raw, (height, width))


def mask_row(name: str, images: Iterable[tuple]) -> None:
    """Print what masks hold of images, each (grey, centres in px, size in px, junk or None)."""
    found, masked, true, n_px, n_lost, n, seconds, n_images = 0, 0, 0, 0, 0, 0, 0.0, 0
    known = True
    for grey, centres_px, size_px, junk in images:
        started = time.process_time()
        mask = junk_mask(grey, PARTICLE_PX)
        seconds += time.process_time() - started
        n_images, n_px, masked = n_images + 1, n_px + mask.size, masked + int(mask.sum())
        n_lost += int(in_junk(mask, centres_px, size_px).sum())
        n += len(centres_px)
        known = junk is not None
        if known:
            there = scale_micrograph(255 * junk.astype(np.uint8), mask.shape) > 127
            found, true = found + int((mask & there).sum()), true + int(there.sum())
    print_row(
        name, n_images, f"{found / true:.2f}" if known and true else "-",
        f"{found / masked:.2f}" if known and masked else "-", f"{masked / n_px:.1%}",
        f"{n_lost:,} of {n:,} ({n_lost / max(n, 1):.2%})", f"{seconds / n_images:.3f}",
    )  # fmt: skip


def picks(args: argparse.Namespace) -> None:
    """Learn and pick on simulated micrographs with junk, with the mask and without; print a row."""
    data = args.folder / "simulated"
    simulate_dataset(data, **{**vars(ASKED), "n_unannotated": 0, "annotation_margin": 0.6})
    real = RealSet(data.resolve())
    write_labels(real, args.folder, N_LABELS, ASKED.seed)
    paths = {split: [m.path for m in real.micrographs(split)] for split in ("train", "val", "test")}
    diameter = ("--diameter", f"{real.diameter_px:g}px")
    print_header("picks", *METRICS, "candidates in junk left out")
    folder = args.folder
    script(
        "preprocess_coco_full_dataset.py", "--labels", folder / "picks.star", "--micrographs",
        *paths["train"], "--val-micrographs", *paths["val"], *diameter, "--expected-particles",
        real.expected, "--output-dir", folder / "store", "--num-workers", 0,
    )  # fmt: skip
    script(
        "train_pu_fixed_full.py", "--config", "configs/pu_few_labels.yaml", "--resume",
        "--exp-name", "run", "--experiments-dir", folder, "--data-dir", folder / "store",
        "--device", "cpu", *overrides(f"training.max_steps={args.steps}"),
    )  # fmt: skip
    checkpoint = ("--checkpoint", folder / "run" / "checkpoints" / "best_model.pt", *diameter)
    for where in ("anywhere", "not in junk"):
        keep = ["--keep-junk"] if where == "anywhere" else []
        truth = [data / "annotations" / f"instances_{split}.json" for split in ("val", "test")]
        script(
            "pick_particles.py", *checkpoint, "--micrographs", *paths["val"], *keep,
            "--choose-threshold", truth[0], "--device", "cpu",
        )  # fmt: skip
        output = folder / f"picks_{where.replace(' ', '_')}"
        script(
            "pick_particles.py", *checkpoint, "--micrographs", *paths["test"], *keep, "--output",
            output, "--evaluate", truth[1], "--overlay", "--resume", "--device", "cpu",
        )  # fmt: skip
        result = read_json(output / "evaluation.json")
        rows = (output / "summary.csv").read_text().splitlines()[1:]
        n_in_junk = sum(int(row.rsplit(",", 1)[1]) for row in rows)
        print_row(where, *(f"{result[name]:.3f}" for name in METRICS), n_in_junk)


if __name__ == "__main__":
    run_script(main)
