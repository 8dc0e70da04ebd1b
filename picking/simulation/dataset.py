"""A data set of simulated micrographs with exact truth, in CryoTransformer's layout.

`simulate_dataset` writes {train,val,test}/*.jpg, annotations/instances_<split>.json,
particle_coordinates/<stem>.csv, empiar_ids.csv and, on request, mrc/<stem>.mrc. As in the real
data, particles near the edge are in the image but not listed, `iscrowd` is 1 on every box, and one
training micrograph has lost its CSV. `truth/<stem>.csv` lists every particle; it is for evaluation,
never for training.
"""

import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from picking.errors import UserError
from picking.files import locked, read_json, remove_half_written, write_atomically, write_json
from picking.formats.annotations import MAPPING_FILE, SPLITS
from picking.formats.cryoppp_csv import read_csv_of_one
from picking.formats.micrographs import raw_to_uint8, write_mrc
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
class Plan:
    """What one micrograph will show; the rest follows from the seed and the file's name."""

    split: str
    stem: str
    protein: Protein
    annotated: bool
    size_px: tuple[int, int]
    pixel_size_angstrom: float
    defocus_angstrom: float
    snr: float
    density: float
    carbon: bool
    n_crystals: int
    seed: int


def simulate_dataset(
    output: Path,
    *,
    n_train: int = 30,
    n_val: int = 8,
    n_test: int = 8,
    size_px: Sequence[int] = (1024, 1024),
    n_proteins: int = 3,
    protein_ratio: float = 1.0,
    pixel_size_angstrom: float = 2.0,
    snr: Sequence[float] = (0.03, 0.08),
    density: float = 1.0,
    annotation_margin: float = 0.6,
    n_unannotated: int | None = None,
    omit_test_json: bool = False,
    mrc: bool = False,
    seed: int = 42,
    num_workers: int = 0,
) -> bool:
    """Write a data set into ``output``; return False when it was already there.

    n_train, n_val, n_test: micrographs. size_px: (height, width), or (side,). n_proteins: the
    first so many of `PROTEINS`. protein_ratio: micrographs of a protein over those of the next.
    snr: lowest and highest, per raw pixel; drawn for each micrograph. density: number of particles
    over the usual one. annotation_margin: of edges without listed particles, in diameters of the
    largest protein. n_unannotated: training micrographs without a CSV; None: 1 of 10 or more.
    omit_test_json: the test split has CSVs only. mrc: raw counts are written too. num_workers:
    processes; the result does not depend on it. The same call goes on with an interrupted set.
    Raises `UserError` for values out of range and for a folder with anything else in it.
    """
    if n_unannotated is None:
        n_unannotated = 1 if n_train >= 10 else 0
    arguments = {
        "n_train": n_train,
        "n_val": n_val,
        "n_test": n_test,
        "size_px": [size_px[0], size_px[-1]],
        "n_proteins": n_proteins,
        "protein_ratio": protein_ratio,
        "pixel_size_angstrom": pixel_size_angstrom,
        "snr": list(snr),
        "density": density,
        "annotation_margin": annotation_margin,
        "n_unannotated": n_unannotated,
        "omit_test_json": omit_test_json,
        "mrc": mrc,
        "seed": seed,
    }
    _check_arguments(arguments, len(size_px), num_workers)
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file: choose a folder")
    with locked(output):
        if _is_finished(output, arguments):
            (output / UNFINISHED_RECORD).unlink(missing_ok=True)  # killed before it did this
            return False
        remove_half_written(output, *output.glob("*/"))
        write_json(output / UNFINISHED_RECORD, {"arguments": arguments})
        plans = plan_dataset(arguments)
        margin_px = annotation_margin_px(arguments)
        folders = {"annotations", "particle_coordinates", "truth"} | {p.split for p in plans}
        for folder in folders | {"mrc"} if mrc else folders:
            (output / folder).mkdir(exist_ok=True)
        job = partial(_write_micrograph, output=output, margin_px=margin_px, mrc=mrc)
        boxes = list(ordered_map(job, plans, num_workers, "simulating"))
        _write_annotations(output, plans, boxes, omit_test_json)
        proteins = [vars(protein) for protein in PROTEINS[:n_proteins]]
        record = {
            "arguments": arguments,
            "annotation_margin_px": margin_px,
            "proteins": proteins,
            "micrographs": [vars(plan) | {"protein": plan.protein.name} for plan in plans],
        }
        write_json(output / RECORD, record)
        (output / UNFINISHED_RECORD).unlink()
    return True


def plan_dataset(arguments: dict[str, Any]) -> list[Plan]:
    """Return the plan of every micrograph, in the order of its file name.

    arguments: as `simulate_dataset` records them. The proteins of a split are equally frequent, or
    in the proportions of ``protein_ratio``, in random order; defocus, signal-to-noise ratio,
    density, carbon and ice are drawn for each micrograph.
    """
    seed, size_px = arguments["seed"], tuple(arguments["size_px"])
    n_unannotated = arguments["n_unannotated"]
    lost = stream(seed, "unannotated").permutation(arguments["n_train"])[:n_unannotated]
    area_um2 = math.prod(size_px) * (arguments["pixel_size_angstrom"] * 1e-4) ** 2
    plans: list[Plan] = []
    for split in SPLITS:
        n = arguments[f"n_{split}"]
        order = stream(seed, "proteins", split).permutation(n)
        proteins = protein_indices(n, arguments["n_proteins"], arguments["protein_ratio"])[order]
        for index, protein in enumerate(proteins):
            stem = f"mic_{len(plans):05d}"
            rng = stream(seed, "conditions", stem)
            plans.append(
                Plan(
                    split=split,
                    stem=stem,
                    protein=PROTEINS[protein],
                    annotated=split != "train" or index not in lost,
                    size_px=size_px,
                    pixel_size_angstrom=arguments["pixel_size_angstrom"],
                    defocus_angstrom=round(rng.uniform(*DEFOCUS_ANGSTROM), 1),
                    snr=math.exp(rng.uniform(*np.log(arguments["snr"]))),
                    density=arguments["density"] * rng.uniform(*DENSITY_SPREAD),
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


def annotation_margin_px(arguments: dict[str, Any]) -> int:
    """Return the distance from the edges within which no particle is listed, in px."""
    largest = max(p.diameter_angstrom for p in PROTEINS[: arguments["n_proteins"]])
    return math.ceil(arguments["annotation_margin"] * largest / arguments["pixel_size_angstrom"])


def simulate_planned(plan: Plan) -> "Simulated":
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


def _write_micrograph(plan: Plan, output: Path, margin_px: int, mrc: bool) -> list[list[int]]:
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
        write_atomically(jpeg, _as_jpeg(raw_to_uint8(image.raw)))
    if not plan.annotated:
        return [[0, 0, 0, 0]]
    particles = read_csv_of_one(coordinates)
    centres, diameters = particles.centres_px.astype(int), particles.diameters_px.astype(int)
    boxes = np.stack(
        [centres.T[1] - diameters // 2, centres.T[0] - diameters // 2, diameters, diameters]
    )
    return boxes.T.tolist()


def _as_jpeg(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _write_csv(path: Path, rows: np.ndarray, diameter_px: float, plan: Plan) -> None:
    lines = [CSV_HEADER]
    for x, y, *angles in rows:
        turned = ",".join(f"{angle:.2f}" for angle in angles)
        lines.append(f"{x:.6g},{y:.6g},{diameter_px:g},{turned},{plan.defocus_angstrom:g}")
    path.write_text("\n".join(lines) + "\n")


def _write_annotations(
    output: Path, plans: list[Plan], boxes: list[list[list[int]]], omit_test_json: bool
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


def _check_arguments(arguments: dict[str, Any], n_sizes: int, num_workers: int) -> None:
    a = arguments
    numbers = [n for v in a.values() for n in (v if isinstance(v, list) else [v])]
    if not all(math.isfinite(n) for n in numbers):
        raise UserError("the simulator's arguments must be finite numbers: correct them")
    n_micrographs = [a[f"n_{split}"] for split in SPLITS]
    if min(n_micrographs) < 0 or sum(n_micrographs) == 0:
        raise UserError(f"numbers of micrographs {n_micrographs}: give none below 0 and one above")
    if not 1 <= a["n_proteins"] <= len(PROTEINS):
        raise UserError(f"--proteins {a['n_proteins']}: give a number from 1 to {len(PROTEINS)}")
    if not 1 <= a["protein_ratio"] <= 10:
        raise UserError(f"--protein-ratio {a['protein_ratio']}: give 1 (equal numbers) to 10")
    if not 0.5 <= a["pixel_size_angstrom"] <= 8:
        raise UserError(f"--pixel-size {a['pixel_size_angstrom']}: give 0.5 to 8 Å")
    if not 0 < a["snr"][0] <= a["snr"][1] or len(a["snr"]) != 2:
        raise UserError(f"--snr {a['snr']}: give a low and a high value above 0, in this order")
    if not 0 <= a["density"] <= 10:
        raise UserError(f"--density {a['density']}: give 0 to 10")
    if not 0 <= a["n_unannotated"] <= a["n_train"]:
        raise UserError(
            f"--unannotated {a['n_unannotated']}: give 0 to the {a['n_train']} of training"
        )
    if a["seed"] < 0 or num_workers < 0:
        raise UserError(f"--seed {a['seed']} and --num-workers {num_workers} must be 0 or more")
    if not 1 <= n_sizes <= 2 or not 64 <= min(a["size_px"]) <= max(a["size_px"]) <= 16384:
        raise UserError(f"--size {a['size_px']}: give a side, or height and width, of 64 to 16384")
    if a["annotation_margin"] < 0 or 2 * annotation_margin_px(a) >= min(a["size_px"]):
        raise UserError(
            f"--annotation-margin {a['annotation_margin']} is {annotation_margin_px(a)} px, which "
            f"leaves nothing of {min(a['size_px'])} px: lower it or raise --size"
        )
