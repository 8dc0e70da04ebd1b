"""A data set of simulated micrographs with exact truth, in CryoTransformer's layout.

`simulate_dataset` writes {train,val,test}/*.jpg, annotations/instances_<split>.json,
particle_coordinates/<stem>.csv, empiar_ids.csv and, on request, mrc/<stem>.mrc. As in the real
data, particles near the edge are in the image but not listed, `iscrowd` is 1 on every box, and one
training micrograph has lost its CSV. `truth/<stem>.csv` lists every particle; it is for evaluation,
never for training.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from picking.errors import UserError
from picking.files import locked, read_json, remove_half_written, write_json, write_saved
from picking.formats.annotations import MAPPING_FILE, SPLITS
from picking.formats.cryoppp_csv import read_csv_of_one
from picking.micrographs.reading import raw_to_uint8, write_mrc
from picking.parallel import ordered_map
from picking.seeds import stream
from picking.simulation.proteins import PROTEINS, Protein

if TYPE_CHECKING:  # scipy is loaded when there is something to simulate, so that --help is quick
    from picking.simulation.micrograph import Simulated

RECORD, UNFINISHED_RECORD = "simulation.json", "simulation.unfinished.json"
JPEG_QUALITY = 90
DEFOCUS_ANGSTROM = (9000.0, 25000.0)
DENSITY_SPREAD = (0.5, 1.4)  # of a micrograph, over the data set's
CARBON_FRACTION = 0.2  # of micrographs
CRYSTALS_PER_UM2 = 20.0
CSV_HEADER = "X-Coordinate,Y-Coordinate,Diameter,Angle-Rot,Angle-Tilt,Angle-Psi,Defocus-U"


@dataclass(frozen=True)
class Arguments:
    """What a data set follows from."""

    n_train: int = 30  # micrographs
    n_val: int = 8
    n_test: int = 8
    size_px: Sequence[int] = (1024, 1024)  # height, width
    n_proteins: int = 3  # the first so many of `PROTEINS`
    protein_ratio: float = 1.0  # micrographs of a protein over those of the next
    pixel_size_angstrom: float = 2.0
    snr: Sequence[float] = (0.03, 0.08)  # per raw pixel, drawn for each micrograph between these
    density: float = 1.0  # number of particles over the usual one
    annotation_margin: float = 0.6  # of edges without listed particles, in largest diameters
    n_unannotated: int = 0  # training micrographs without a CSV
    omit_test_json: bool = False  # the test split has CSVs only
    mrc: bool = False  # raw counts are written too
    seed: int = 42

    @property
    def margin_px(self) -> int:
        """Distance from the edges within which no particle is listed."""
        largest = max(p.diameter_angstrom for p in PROTEINS[: self.n_proteins])
        return math.ceil(self.annotation_margin * largest / self.pixel_size_angstrom)


@dataclass(frozen=True)
class MicrographPlan:
    """What one micrograph will show; the rest follows from the seed and the file's name."""

    split: str
    stem: str  # file name without suffix
    protein: Protein
    annotated: bool  # it has a CSV
    size_px: tuple[int, int]  # height, width
    pixel_size_angstrom: float
    defocus_angstrom: float
    snr: float  # per raw pixel
    density: float  # number of particles over the usual one
    carbon: bool  # the edge of the support film crosses the image
    n_crystals: int  # pieces of ice
    seed: int


def simulate_dataset(
    output: Path, *, n_unannotated: int | None = None, num_workers: int = 0, **others: Any
) -> bool:
    """Write a data set into ``output``; return False when it was already there.

    n_unannotated and others: of `Arguments`; None: 1 of 10 or more; size_px may be (side,).
    num_workers: processes; the result does not depend on it. The same call goes on with an
    interrupted set. Raises `UserError` for values out of range and for a folder with anything else
    in it.
    """
    asked = Arguments(**others)
    if n_unannotated is None:
        n_unannotated = 1 if asked.n_train >= 10 else 0
    asked = replace(asked, n_unannotated=n_unannotated, snr=list(asked.snr))
    _check_arguments(asked, num_workers)
    asked = replace(asked, size_px=[asked.size_px[0], asked.size_px[-1]])
    arguments = vars(asked)
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file: choose a folder")
    with locked(output):
        if _is_finished(output, arguments):
            (output / UNFINISHED_RECORD).unlink(missing_ok=True)  # killed before it did this
            return False
        remove_half_written(output, *output.glob("*/"))
        write_json(output / UNFINISHED_RECORD, {"arguments": arguments})
        plans = plan_dataset(asked)
        folders = {"annotations", "particle_coordinates", "truth"} | {p.split for p in plans}
        for folder in folders | {"mrc"} if asked.mrc else folders:
            (output / folder).mkdir(exist_ok=True)
        job = partial(_write_micrograph, output=output, margin_px=asked.margin_px, mrc=asked.mrc)
        boxes = list(ordered_map(job, plans, num_workers, "simulating"))
        _write_annotations(output, plans, boxes, asked.omit_test_json)
        record = {
            "arguments": arguments,
            "annotation_margin_px": asked.margin_px,
            "proteins": [vars(protein) for protein in PROTEINS[: asked.n_proteins]],
            "micrographs": [vars(plan) | {"protein": plan.protein.name} for plan in plans],
        }
        write_json(output / RECORD, record)
        (output / UNFINISHED_RECORD).unlink()
    return True


def plan_dataset(asked: Arguments) -> list[MicrographPlan]:
    """Return the plan of every micrograph, in the order of its file name.

    The proteins of a split are equally frequent, or in the proportions of ``protein_ratio``, in
    random order; defocus, signal-to-noise ratio, density, carbon and ice are drawn for each
    micrograph.
    """
    seed, (height, width) = asked.seed, asked.size_px
    lost = stream(seed, "unannotated").permutation(asked.n_train)[: asked.n_unannotated]
    area_um2 = height * width * (asked.pixel_size_angstrom * 1e-4) ** 2
    plans: list[MicrographPlan] = []
    for split in SPLITS:
        n = getattr(asked, f"n_{split}")
        order = stream(seed, "proteins", split).permutation(n)
        proteins = protein_indices(n, asked.n_proteins, asked.protein_ratio)[order]
        for index, protein in enumerate(proteins):
            stem = f"mic_{len(plans):05d}"
            rng = stream(seed, "conditions", stem)
            plans.append(
                MicrographPlan(
                    split=split,
                    stem=stem,
                    protein=PROTEINS[protein],
                    annotated=split != "train" or index not in lost,
                    size_px=(height, width),
                    pixel_size_angstrom=asked.pixel_size_angstrom,
                    defocus_angstrom=round(rng.uniform(*DEFOCUS_ANGSTROM), 1),
                    snr=math.exp(rng.uniform(*np.log(asked.snr))),
                    density=asked.density * rng.uniform(*DENSITY_SPREAD),
                    carbon=bool(rng.uniform() < CARBON_FRACTION),
                    n_crystals=int(rng.poisson(CRYSTALS_PER_UM2 * area_um2)),
                    seed=seed,
                )
            )
    return plans


def protein_indices(n: int, n_proteins: int, ratio: float) -> np.ndarray:
    """Return n indices of proteins, each protein having ``ratio`` times as many as the next."""
    if ratio == 1:
        return np.arange(n) % n_proteins
    ends = np.cumsum(ratio ** -np.arange(n_proteins, dtype=float))
    return np.searchsorted(ends / ends[-1], (np.arange(n) + 0.5) / n)


def simulate_planned(plan: MicrographPlan) -> "Simulated":
    """Simulate the micrograph of a plan; the same plan gives the same one, bit for bit."""
    from picking.simulation.ctf import Optics
    from picking.simulation.micrograph import simulate_micrograph

    return simulate_micrograph(
        plan.protein,
        Optics(plan.pixel_size_angstrom, plan.defocus_angstrom),
        plan.size_px,
        stream(plan.seed, "micrograph", plan.stem),
        snr=plan.snr,
        density=plan.density,
        carbon=plan.carbon,
        n_crystals=plan.n_crystals,
    )


def _write_micrograph(
    plan: MicrographPlan, output: Path, margin_px: int, mrc: bool
) -> list[list[int]]:
    """Write a micrograph unless it is there; return its boxes, [x, y, width, height] each."""
    coordinates = output / "particle_coordinates" / f"{plan.stem}.csv"
    jpeg = output / plan.split / f"{plan.stem}.jpg"
    if not jpeg.exists():
        image = simulate_planned(plan)
        rows = np.column_stack([image.centres_px[:, ::-1], image.angles_deg])  # x, y, angles
        _write_csv(output / "truth" / f"{plan.stem}.csv", rows, image.diameter_px, plan)
        far_edge = np.array(plan.size_px[::-1]) - 1 - margin_px
        listed = rows[((rows[:, :2] >= margin_px) & (rows[:, :2] <= far_edge)).all(axis=1)]
        listed[:, :2] = np.rint(listed[:, :2])
        if plan.annotated:
            _write_csv(coordinates, listed, int(image.diameter_px), plan)
        if mrc:
            write_mrc(output / "mrc" / f"{plan.stem}.mrc", image.raw, plan.pixel_size_angstrom)
        # The JPEG comes last and at once: where it is, the rest is too.
        shown = Image.fromarray(raw_to_uint8(image.raw))
        write_saved(jpeg, lambda file: shown.save(file, "JPEG", quality=JPEG_QUALITY))
    if not plan.annotated:
        return [[0, 0, 0, 0]]
    particles = read_csv_of_one(coordinates)
    (y, x), side = particles.centres_px.T.astype(int), particles.diameters_px.astype(int)
    return np.stack([x - side // 2, y - side // 2, side, side], axis=1).tolist()


def _write_csv(path: Path, rows: np.ndarray, diameter_px: float, plan: MicrographPlan) -> None:
    lines = [CSV_HEADER]
    for x, y, *angles in rows:
        turned = ",".join(f"{angle:.2f}" for angle in angles)
        lines.append(f"{x:.6g},{y:.6g},{diameter_px:g},{turned},{plan.defocus_angstrom:g}")
    path.write_text("\n".join(lines) + "\n")


def _write_annotations(
    output: Path, plans: list[MicrographPlan], boxes: list[list[list[int]]], omit_test_json: bool
) -> None:
    """Write the mapping to protein ids and a COCO JSON per split, as the real ones are."""
    mapping = [f"{plan.stem}.jpg,{plan.protein.name}" for plan in plans]
    (output / MAPPING_FILE).write_text("\n".join(["file_name,empiar_id", *mapping]) + "\n")
    for split in SPLITS:
        of_split = [(p, b) for p, b in zip(plans, boxes, strict=True) if p.split == split]
        if not of_split or (split == "test" and omit_test_json):
            continue
        images: list[dict] = []
        annotations: list[dict] = []
        for image_id, (plan, image_boxes) in enumerate(of_split):
            height, width = plan.size_px
            name = f"{plan.stem}.jpg"
            images.append({"id": image_id, "file_name": name, "width": width, "height": height})
            for box in image_boxes:
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "category_id": 1,
                        "iscrowd": 1,
                        "area": box[2] ** 2,
                        "image_id": image_id,
                        "segmentation": [],
                        "bbox": box,
                    }
                )
        coco = {
            "info": [{"description": "Simulated micrographs in CryoTransformer layout"}],
            "categories": [{"id": 1, "name": "particle", "supercategory": ""}],
            "images": images,
            "annotations": annotations,
        }
        path = output / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(coco))


def _is_finished(output: Path, arguments: dict[str, Any]) -> bool:
    """Return whether ``output`` holds this data set whole; False when empty or interrupted."""
    for name in (RECORD, UNFINISHED_RECORD):
        if not (output / name).is_file():
            continue
        there = {"protein_ratio": 1.0} | read_json(output / name).get("arguments", {})
        differing = [key for key in arguments if there.get(key) != arguments[key]]
        if differing:
            detail = ", ".join(f"{k} {there.get(k)}, not {arguments[k]}" for k in differing)
            raise UserError(
                f"--output {output} holds a data set made with other arguments ({detail}): "
                "choose another folder or remove this one"
            )
        return name == RECORD
    if any(not path.name.startswith(".") for path in output.iterdir()):
        raise UserError(
            f"--output {output} holds other files and no {RECORD}: choose an empty or new folder"
        )
    return False


def _check_arguments(asked: Arguments, num_workers: int) -> None:
    numbers = [n for v in vars(asked).values() for n in (v if isinstance(v, Sequence) else [v])]
    if not all(math.isfinite(n) for n in numbers):
        raise UserError("the simulator's arguments must be finite numbers: correct them")
    n_micrographs = [asked.n_train, asked.n_val, asked.n_test]
    if min(n_micrographs) < 0 or sum(n_micrographs) == 0:
        raise UserError(f"numbers of micrographs {n_micrographs}: give none below 0 and one above")
    for flag, value, low, high in (
        ("proteins", asked.n_proteins, 1, len(PROTEINS)),
        ("protein-ratio", asked.protein_ratio, 1, 10),  # 1: equal numbers
        ("pixel-size", asked.pixel_size_angstrom, 0.5, 8),  # Å
        ("density", asked.density, 0, 10),
        ("unannotated", asked.n_unannotated, 0, asked.n_train),
        ("seed", asked.seed, 0, math.inf),
        ("num-workers", num_workers, 0, math.inf),
    ):
        if not low <= value <= high:
            raise UserError(f"--{flag} {value}: give {low} to {high}")
    if len(asked.snr) != 2 or not 0 < asked.snr[0] <= asked.snr[1]:
        raise UserError(f"--snr {asked.snr}: give a low and a high value above 0, in this order")
    sides_px = asked.size_px
    if not 1 <= len(sides_px) <= 2 or not 64 <= min(sides_px) <= max(sides_px) <= 16384:
        raise UserError(f"--size {sides_px}: give a side, or height and width, of 64 to 16384")
    if asked.annotation_margin < 0 or 2 * asked.margin_px >= min(sides_px):
        raise UserError(
            f"--annotation-margin {asked.annotation_margin} is {asked.margin_px} px, which leaves "
            f"nothing of {min(sides_px)} px: lower it or raise --size"
        )
