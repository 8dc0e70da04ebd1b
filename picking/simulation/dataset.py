"""A data set of simulated micrographs with exact truth, in CryoTransformer's layout.

`simulate_dataset` writes {train,val,test}/*.jpg, annotations/instances_<split>.json,
particle_coordinates/<stem>.csv, empiar_ids.csv and, on request, mrc/<stem>.mrc. As in the real
data, particles near the edge are in the image but not listed, `iscrowd` is 1 on every box, and one
training micrograph has lost its CSV. `truth/<stem>.csv` lists every particle; it is for evaluation,
never for training. Beside the MRCs, RELION finds them and the particles in `truth/*.star`.
"""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from picking.errors import UserError
from picking.files import locked, read_json, remove_half_written, write_json, write_saved
from picking.formats.cryoppp_csv import read_csv_of_one
from picking.inputs.annotations import MAPPING_FILE, SPLITS
from picking.micrographs.mrc import write_mrc
from picking.micrographs.preparation import raw_to_uint8
from picking.parallel import ordered_map
from picking.simulation.plans import (
    Arguments,
    MicrographPlan,
    check_arguments,
    plan_dataset,
    simulate_planned,
)
from picking.simulation.relion import write_relion_truth

RECORD, UNFINISHED_RECORD = "simulation.json", "simulation.unfinished.json"
JPEG_QUALITY = 90
CSV_HEADER = "X-Coordinate,Y-Coordinate,Diameter,Angle-Rot,Angle-Tilt,Angle-Psi,Defocus-U"


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
    asked = replace(asked, proteins=list(asked.proteins))  # lists, as the record has them
    check_arguments(asked, num_workers)
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
        if asked.mrc:
            write_relion_truth(output, plans)
        record = {
            "arguments": arguments,
            "annotation_margin_px": asked.margin_px,
            "optics": {k: v for k, v in vars(plans[0].optics).items() if k != "defocus_angstrom"},
            "proteins": [vars(protein) for protein in asked.chosen],
            "micrographs": [vars(plan) | {"protein": plan.protein.name} for plan in plans],
        }
        write_json(output / RECORD, record)
        (output / UNFINISHED_RECORD).unlink()
    return True


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
        older = {"protein_ratio": 1.0, "proteins": [], "junk": 0.0}  # of records that lack them
        there = older | read_json(output / name).get("arguments", {})
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
