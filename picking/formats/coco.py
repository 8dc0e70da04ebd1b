"""COCO JSON: boxes and scores of many micrographs in one file, in the JPEG's frame.

The JSON that CryoTransformer released drops every particle in an ordinary COCO reader, so
`iscrowd`, `area` and `info` are not looked at, image ids may be any numbers, and a box
`[0, 0, 0, 0]` stands for a micrograph that nobody annotated.
"""

import contextlib
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from picking.errors import MAX_FRACTION_LEFT_OUT, UserError, leave_out, warn
from picking.files import is_number, read_json
from picking.formats.picks import Picks, from_boxes, known_diameters

FRAME = "y in the JPEG's frame: origin top left, y down; px of the original image"
FEWEST_CORNERS = 5  # boxes of which it can be told that they are pairs of corners
CATEGORY = "of COCO's boxes, where there are several; default: the one called particle"
PARTICLES = ("particle", "particles")  # the category to take where there are several


class Coco(NamedTuple):
    """What a COCO JSON holds of one category.

    records: of the images. unannotated: names of further ones, which nobody looked at. n_orphaned,
    n_others: boxes of no image, and of other categories. category: its name, None where the file
    says none.
    """

    records: list[Picks]
    n_orphaned: int
    n_others: int
    category: str | None
    unannotated: Sequence[str] = ()


def read_coco(path: Path, category: str | None = None, allow_partial: bool = False) -> Coco:
    """Read the boxes of one category; those of others, and of images that are not listed, are told.

    category: its name; None: the only one in use, or that of particles. Boxes without area are
    left out of the records and counted there. Raises `UserError` for anything malformed, when the
    category is none of the file's or not clear, and, unless ``allow_partial``, when more than a
    tenth of the boxes are of no image.
    """
    from pycocotools.coco import COCO

    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(
            f"{path} is not in the COCO format: it is an object with 'images' and 'annotations'"
        )
    images = _list_of_objects(content, "images", path)
    listed = _list_of_objects(content, "annotations", path)
    _require_images(images, path)
    of_category, taken = _choose_category(content, listed, category, path)
    annotations = []
    for n, annotation in enumerate(listed):
        if not of_category[n]:
            continue
        _require_box(annotation, f"{path}: annotations[{n}]")
        annotation["id"] = n  # which the index needs, and we do not
        if not isinstance(annotation.get("image_id"), int | float | str):
            annotation["image_id"] = None
        annotations.append(annotation)
    index = COCO()
    index.dataset = {"images": images, "annotations": annotations}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        index.createIndex()
    records, unannotated = [], []
    for key, image in index.imgs.items():
        of_image = index.imgToAnns[key]
        boxes = [[*one["bbox"], _score(one)] for one in of_image]
        table = np.array(boxes, dtype=np.float64).reshape(-1, 5)
        size_px = int(image["height"]), int(image["width"])
        if len(of_image) == 1 and _is_placeholder(of_image[0]):
            unannotated.append(image["file_name"])
        else:
            records.append(
                from_boxes(image["file_name"], table[:, :4], table[:, 4], size_px=size_px)
            )
    _require_widths(annotations, index.imgs, path)
    orphans = [one for one in annotations if one["image_id"] not in index.imgs]
    leave_out(
        len(orphans),
        len(annotations),
        f"{path}: {len(orphans)} of {len(annotations)} annotations name an image_id that is not "
        f"under 'images' (e.g. {', '.join(str(one['image_id']) for one in orphans[:3])}) and are "
        "left out",
        allow_partial,
    )
    return Coco(records, len(orphans), len(listed) - len(annotations), taken, unannotated)


def may_be_coco(patterns: Iterable[str]) -> bool:
    """Return whether a COCO JSON may be among the files of a command line, by their names."""
    return any(name.lower().endswith(".json") or Path(name).is_dir() for name in patterns)


def require_one_category(taken: Mapping[str, str | None]) -> None:
    """Raise `UserError` when files or splits (the keys) give boxes of different categories."""
    named = {where: name for where, name in taken.items() if name is not None}
    if len({_plain(name) for name in named.values()}) > 1:
        details = "; ".join(f"'{name}' in {where}" for where, name in list(named.items())[:3])
        raise UserError(
            f"the boxes are of different categories, {details}: choose one with --category, or "
            "give them one name"
        )


def _choose_category(
    content: dict, annotations: list[dict], wanted: str | None, path: Path
) -> tuple[list[bool], str | None]:
    """Return which annotations are of the category to take, and its name where it is defined."""
    listed = content.get("categories")
    defined: dict[Any, str] = {
        one["id"]: str(one.get("name"))
        for one in (listed if isinstance(listed, list) else ())
        if isinstance(one, dict) and isinstance(one.get("id"), int | float | str)
    }
    names = []
    for annotation in annotations:
        key = annotation.get("category_id")
        known = isinstance(key, int | float | str) and key in defined
        names.append(defined[key] if known else "none" if key is None else f"id {key}")
    n_boxes = Counter(
        name
        for name, annotation in zip(names, annotations, strict=True)
        if not _is_placeholder(annotation)
    )
    choices = dict.fromkeys([*n_boxes, *defined.values()] if wanted else n_boxes)
    if len(n_boxes) < 2 and wanted is None:
        found = list(n_boxes)
    elif wanted in choices:
        found = [wanted]
    else:
        likes = (wanted,) if wanted else PARTICLES
        found = [name for name in choices if _plain(name) in map(_plain, likes)]
    if len(found) != 1 and (choices or wanted):
        counts = ", ".join(f"{name!r} ({n_boxes[name]:,})" for name in list(choices)[:10])
        of = f"{path}: its boxes are of these categories: {counts or 'none'}"
        if wanted:
            raise UserError(f"{of}; --category {wanted} is none of them: give one of these names")
        raise UserError(f"{of}: choose the particles' with --category")
    (taken,) = found or (None,)
    others = [f"{n:,} boxes of {name!r}" for name, n in n_boxes.items() if name != taken]
    if others:
        chosen = f"those of {taken!r} are taken"
        warn(f"{path}: {', '.join(others[:10])} are left out, {chosen} (--category chooses)")
    of_it = [
        name == taken or _is_placeholder(annotation)
        for name, annotation in zip(names, annotations, strict=True)
    ]
    return of_it, taken if others or taken in defined.values() else None


def _plain(name: str) -> str:
    return name.strip().casefold()


def _is_placeholder(annotation: dict) -> bool:
    """Return whether it is the released JSON's word for a micrograph that nobody annotated."""
    return annotation.get("bbox") == [0, 0, 0, 0]


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
    if box is None:
        raise UserError(f"{where} has no 'bbox', and outlines and key points are not read: add it")
    if not isinstance(box, list) or len(box) != 4 or not all(is_number(v) for v in box):
        raise UserError(
            f"{where}: 'bbox' must be four finite numbers [x, y, width, height], "
            f"not {str(box)[:60]}"
        )
    if score is not math.nan and not is_number(score):
        raise UserError(f"{where}: 'score' must be a finite number, not {str(score)[:60]}")


def _require_widths(annotations: list[dict], images: dict[Any, dict], path: Path) -> None:
    """Raise `UserError` for boxes that only make sense as two corners, x1, y1, x2, y2."""
    boxes = [
        [*one["bbox"], images[one["image_id"]]["width"], images[one["image_id"]]["height"]]
        for one in annotations
        if one["image_id"] in images and not _is_placeholder(one)
    ]
    x, y, width, height, *size_px = np.array(boxes, dtype=np.float64).reshape(-1, 6).T
    beyond = (x + width > size_px[0]) | (y + height > size_px[1])
    as_corners = ((width > x) & (height > y)).all()
    if len(boxes) >= FEWEST_CORNERS and as_corners and beyond.mean() > MAX_FRACTION_LEFT_OUT:
        raise UserError(
            f"{path}: {beyond.sum():,} of {len(boxes):,} boxes leave their image: 'bbox' must be "
            "[x, y, width, height], and these seem to be two corners, [x1, y1, x2, y2]"
        )
    larger = (width > size_px[0]) | (height > size_px[1])
    if larger.any():
        raise UserError(
            f"{path}: {larger.sum():,} of {len(boxes):,} boxes are larger than their image, such "
            f"as {boxes[int(larger.argmax())][:4]}: 'bbox' must be [x, y, width, height] in px"
        )


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
