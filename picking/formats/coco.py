"""COCO JSON: boxes and scores of many micrographs in one file, in the JPEG's frame.

The JSON that CryoTransformer released drops every particle in an ordinary COCO reader, so
`iscrowd`, `area` and `info` are not looked at, image ids may be any numbers, and a box
`[0, 0, 0, 0]` stands for a micrograph that nobody annotated.
"""

import contextlib
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from picking.errors import UserError
from picking.files import is_number, read_json
from picking.formats.picks import Picks, from_boxes, known_diameters

FRAME = "y in the JPEG's frame: origin top left, y down; px of the original image"
MAX_FRACTION_ORPHANED = 0.1  # of the boxes; above, images and boxes are not of one export


def read_coco(path: Path) -> tuple[list[Picks], int]:
    """Return a record for each image of a COCO JSON, and how many boxes are of no such image.

    Boxes without area are left out of the records and counted there. Raises `UserError` for
    anything malformed, and when more than a tenth of the boxes are of no image.
    """
    from pycocotools.coco import COCO

    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(
            f"{path} is not in the COCO format: it is an object with 'images' and 'annotations'"
        )
    images = _list_of_objects(content, "images", path)
    annotations = _list_of_objects(content, "annotations", path)
    _require_images(images, path)
    for n, annotation in enumerate(annotations):
        _require_box(annotation, f"{path}: annotations[{n}]")
        annotation["id"] = n  # which the index needs, and we do not
        if not isinstance(annotation.get("image_id"), int | float | str):
            annotation["image_id"] = None
    index = COCO()
    index.dataset = {"images": images, "annotations": annotations}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        index.createIndex()
    records = []
    for key, image in index.imgs.items():
        boxes = [[*one["bbox"], _score(one)] for one in index.imgToAnns[key]]
        table = np.array(boxes, dtype=np.float64).reshape(-1, 5)
        size_px = int(image["height"]), int(image["width"])
        records.append(from_boxes(image["file_name"], table[:, :4], table[:, 4], size_px=size_px))
    n_orphaned = sum(len(boxes) for key, boxes in index.imgToAnns.items() if key not in index.imgs)
    if n_orphaned > MAX_FRACTION_ORPHANED * len(annotations):
        raise UserError(
            f"{path}: {n_orphaned} of {len(annotations)} annotations name an image_id that "
            "is not under 'images': check that both come from the same export"
        )
    return records, n_orphaned


def _require_images(images: list[dict], path: Path) -> None:
    """Raise `UserError` unless each image has an id and a name of its own, and a size in px."""
    ids, names = set(), set()
    for n, image in enumerate(images):
        where = f"{path}: images[{n}]"
        name = image.get("file_name")
        if not isinstance(name, str) or not PurePosixPath(name).name:
            raise UserError(f"{where} has no 'file_name': add it")
        for key in ("width", "height"):
            if not is_number(image.get(key)) or int(image[key]) <= 0:
                raise UserError(f"{where} ({name}): '{key}' must be a positive number of px")
        if not isinstance(image.get("id"), int | float | str) or image["id"] in ids:
            raise UserError(f"{where} ({name}): 'id' must be a number or text of its own")
        if name in names:
            raise UserError(f"{where}: file_name '{name}' stands twice: remove one")
        ids.add(image["id"])
        names.add(name)


def _require_box(annotation: dict, where: str) -> None:
    """Raise `UserError` unless there are four numbers of px and, perhaps, a score."""
    box, score = annotation.get("bbox"), _score(annotation)
    if not isinstance(box, list) or len(box) != 4 or not all(is_number(v) for v in box):
        raise UserError(
            f"{where}: 'bbox' must be four finite numbers [x, y, width, height], "
            f"not {str(box)[:60]}"
        )
    if score is not math.nan and not is_number(score):
        raise UserError(f"{where}: 'score' must be a finite number, not {str(score)[:60]}")


def _score(annotation: dict) -> Any:
    score = annotation.get("score")
    return math.nan if score is None else score


def _list_of_objects(content: dict, key: str, path: Path) -> list[dict]:
    value = content.get(key)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise UserError(f"{path}: '{key}' must be a list of objects, as in the COCO format")
    return value


def coco_text(picks: Sequence[Picks]) -> str:
    """Return a COCO JSON; every micrograph is an image, whether it has picks or not."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i, p in enumerate(picks, start=1):
        if p.size_px is None:
            raise UserError(f"{p.name}: its size is unknown, but COCO states it: give the image")
        height, width = p.size_px
        images.append({"id": i, "file_name": p.name, "height": height, "width": width})
        for (y, x), side, score in zip(p.centres_px, known_diameters(p), p.scores, strict=True):
            box = [round(float(v), 4) for v in (x - side / 2, y - side / 2, side, side)]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": i, "category_id": 1, "bbox": box,
                 "area": round(float(side**2), 4), "iscrowd": 0}
            )  # fmt: skip
            if not math.isnan(score):
                annotations[-1]["score"] = round(float(score), 6)
    content = {
        "info": {"description": "particle picks", "frame": FRAME},
        "categories": [{"id": 1, "name": "particle"}],
        "images": images,
        "annotations": annotations,
    }
    return json.dumps(content, allow_nan=False) + "\n"
