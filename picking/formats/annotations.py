"""Annotated micrographs: COCO JSON or CryoPPP CSV -> one typed record per micrograph.

Centres are (y, x) in px of the original image, in the JPEG's frame: origin top left, y down.

The released JSON has habits that drop every particle in an ordinary COCO reader, so `iscrowd`,
`area` and `info` are not looked at, image ids may be any integers, and a box `[0, 0, 0, 0]` stands
for a micrograph that nobody annotated.
"""

import csv
import dataclasses
import math
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from picking.errors import UserError
from picking.files import is_number, read_json, sha256
from picking.formats.micrographs import SUFFIXES

SPLITS = ("train", "val", "test")
MAPPING_FILE = "empiar_ids.csv"
# Above these shares the data set is broken or mistaken for another one; below, it is counted.
MAX_SHARE_MISSING = 0.1
MAX_SHARE_UNANNOTATED = 0.5
MAX_SHARE_OUTSIDE = 0.1


@dataclasses.dataclass(frozen=True)
class Micrograph:
    """One annotated micrograph.

    centres_px: float64 (n, 2), (y, x); boxes over the border keep their centre.
    diameters_px: float64 (n,), particle diameters.
    size_px: (height, width) that the annotation states, or None (CSV states none).
    """

    path: Path
    name: str
    centres_px: np.ndarray
    diameters_px: np.ndarray
    size_px: tuple[int, int] | None
    n_zero_area: int
    empiar_id: str | None


@dataclasses.dataclass(frozen=True)
class Split:
    """The annotated micrographs of one split, sorted by name, and what was left out of it.

    annotations_hash: of all that decides a plan, image sizes aside; images_hash: of file sizes.
    """

    name: str
    micrographs: tuple[Micrograph, ...]
    source: str
    annotations_hash: str
    images_hash: str
    n_images_unannotated: int
    n_images_missing: int
    n_annotations_orphaned: int


def find_splits(data_root: Path, asked: Iterable[str] | None = None) -> list[str]:
    """Return the splits to read: those asked for, else those of train, val, test that are there.

    Raises `UserError` when the root or a split that was asked for is missing.
    """
    if not data_root.is_dir():
        raise UserError(f"--data-root {data_root} is not a folder: give the data set's top folder")
    present = [name for name in SPLITS if (data_root / name).is_dir()]
    if not present:
        raise UserError(
            f"--data-root {data_root} has none of train/, val/ and test/: give the folder that "
            "holds them"
        )
    for name in asked or ():
        if name not in present:
            raise UserError(
                f"split '{name}' has no folder in {data_root}; there are: {', '.join(present)}"
            )
    return [name for name in present if asked is None or name in asked]


def read_split(data_root: Path, split: str) -> Split:
    """Read the annotated micrographs of one split from its COCO JSON or, without one, its CSVs.

    Raises `UserError` for anything malformed, when nothing is annotated, when more than a tenth
    of the annotated images are missing, and when more than half of the images are not annotated.
    """
    folder = data_root / split
    by_name = _images_in(folder)
    if not by_name:
        raise UserError(
            f"{folder} holds no image ({', '.join(SUFFIXES)}): put the micrographs there"
        )
    source, annotations_hash, listed, n_orphaned = _read_source(data_root, split, by_name)
    ids = _read_mapping(data_root / MAPPING_FILE)
    annotated = [m for m in listed if len(m.centres_px)]
    found: list[Micrograph] = []
    missing = []
    for micrograph in annotated:
        path = _locate(micrograph.path, folder, by_name)
        if path is None:
            missing.append(micrograph.name)
        else:
            empiar_id = ids.get(path.stem) or _folder_id(path, folder)
            found.append(dataclasses.replace(micrograph, path=path, empiar_id=empiar_id))
    found.sort(key=lambda m: m.name)
    images = {path.with_suffix("") for path in by_name.values()}
    unannotated = sorted(images - {m.path.with_suffix("") for m in found})

    if not found or len(missing) > MAX_SHARE_MISSING * len(annotated):
        there = [path.name for path in by_name.values()]
        detail = f"missing: {', '.join(missing[:3])}" if missing else "no particle is listed"
        raise UserError(
            f"{source}: {len(found)} of {len(annotated)} annotated images of split '{split}' are "
            f"in {folder} ({detail}; there are: {', '.join(there[:3])}): "
            "check that annotation and images belong together"
        )
    if len(unannotated) > MAX_SHARE_UNANNOTATED * len(images):
        raise UserError(
            f"{source}: {len(unannotated)} of {len(images)} images in {folder} have no annotation "
            f"(e.g. {', '.join(path.name for path in unannotated[:3])}): check that annotation "
            "and images belong together, or take the others out of the folder"
        )
    names = {m.path: m.name for m in found}
    for m in found:
        if names[m.path] != m.name:
            raise UserError(
                f"{source}: '{m.name}' and '{names[m.path]}' are both {m.path}: remove one"
            )
    return Split(
        name=split,
        micrographs=tuple(found),
        source=source,
        annotations_hash=sha256(annotations_hash, *(f"{m.name}:{m.empiar_id};" for m in found)),
        images_hash=sha256(*(f"{m.name}:{m.path.stat().st_size};" for m in found)),
        n_images_unannotated=len(unannotated),
        n_images_missing=len(missing),
        n_annotations_orphaned=n_orphaned,
    )


def inside(micrograph: Micrograph, size_px: tuple[int, int]) -> np.ndarray:
    """Return which centres lie inside the image, bool (n,).

    Raises `UserError` when more than a tenth do not, as with coordinates at another scale, or
    when the annotation states another image size than the file has.
    """
    height, width = size_px
    if micrograph.size_px is not None and micrograph.size_px != size_px:
        raise UserError(
            f"{micrograph.name}: annotated as {micrograph.size_px[1]} x {micrograph.size_px[0]} "
            f"px, but the image has {width} x {height} px: the coordinates are at another scale"
        )
    y, x = micrograph.centres_px.T
    within = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    n_outside = int((~within).sum())
    if n_outside > max(1, MAX_SHARE_OUTSIDE * len(within)):
        raise UserError(
            f"{micrograph.name}: {n_outside} of {len(within)} centres lie outside the image of "
            f"{width} x {height} px (largest x {x.max():.0f}, y {y.max():.0f}; smallest x "
            f"{x.min():.0f}, y {y.min():.0f}): the coordinates are probably at another scale"
        )
    return within


def _images_in(folder: Path) -> dict[str, Path]:
    """Return the images under their names in ``folder``, e.g. 10017/a, and alone, e.g. a.

    Of a micrograph in several formats the first of `SUFFIXES` counts. A file name that images in
    two folders share does not stand alone.
    """
    paths = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    ]
    paths.sort(key=lambda path: SUFFIXES.index(path.suffix.lower()))
    by_name: dict[str, Path] = {}
    for path in paths:
        by_name.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    stems = Counter(path.stem for path in by_name.values())
    alone = {path.stem: path for path in by_name.values() if stems[path.stem] == 1}
    return {**alone, **by_name}


def _read_source(
    data_root: Path, split: str, by_name: dict[str, Path]
) -> tuple[str, str, list[Micrograph], int]:
    """Return what was read, its hash, the micrographs it lists and how many boxes have no image."""
    json_path = data_root / "annotations" / f"instances_{split}.json"
    if json_path.is_file():
        listed, n_orphaned = _read_coco(json_path, data_root / split)
        return str(json_path), sha256(json_path.read_bytes()), listed, n_orphaned
    csv_folder = data_root / "particle_coordinates"
    images: dict[Path, Path] = {}
    for image in sorted(set(by_name.values())):
        path = csv_folder / f"{image.stem}.csv"
        if path.is_file():
            if path in images:
                raise UserError(f"{path} is for both {images[path]} and {image}: rename one")
            images[path] = image
    if not images:
        raise UserError(
            f"split '{split}' has no annotation: looked for {json_path} and for CSVs of its "
            f"{len(set(by_name.values()))} images in {csv_folder}"
        )
    source = f"{len(images)} CSV files in {csv_folder}"
    return source, sha256(*(path.read_bytes() for path in images)), _read_csvs(images), 0


def _read_coco(json_path: Path, folder: Path) -> tuple[list[Micrograph], int]:
    content = read_json(json_path)
    if not isinstance(content, dict):
        raise UserError(f"{json_path}: a COCO file is an object with 'images' and 'annotations'")
    images: dict[Any, dict] = {}
    names = set()
    for n, image in enumerate(_list_of_objects(content, "images", json_path)):
        where = f"{json_path}: images[{n}]"
        name = image.get("file_name")
        if not isinstance(name, str) or not PurePosixPath(name).name:
            raise UserError(f"{where} has no 'file_name': add it")
        if (
            PurePosixPath(name).is_absolute()
            or ".." in PurePosixPath(name.replace("\\", "/")).parts
        ):
            raise UserError(
                f"{where}: file_name '{name}' leaves the split's folder: use names inside it"
            )
        if not _can_be_a_file(name):
            raise UserError(f"{where}: file_name '{name}' cannot be that of a file: mend it")
        for key in ("width", "height"):
            if not is_number(image.get(key)) or image[key] <= 0:
                raise UserError(f"{where} ({name}): '{key}' must be a positive number of px")
        if not isinstance(image.get("id"), int) or image["id"] in images:
            raise UserError(f"{where} ({name}): 'id' must be an integer of its own")
        if name in names:
            raise UserError(f"{where}: file_name '{name}' stands twice: remove one")
        names.add(name)
        images[image["id"]] = image
    boxes: dict[Any, list] = {key: [] for key in images}
    n_orphaned = 0
    annotations = _list_of_objects(content, "annotations", json_path)
    for n, annotation in enumerate(annotations):
        box = annotation.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(is_number(v) for v in box):
            raise UserError(
                f"{json_path}: annotations[{n}]: 'bbox' must be four finite numbers "
                f"[x, y, width, height], not {str(box)[:60]}"
            )
        image_id = annotation.get("image_id")
        if isinstance(image_id, int) and image_id in boxes:
            boxes[image_id].append(box)
        else:
            n_orphaned += 1
    if n_orphaned > MAX_SHARE_MISSING * len(annotations):
        raise UserError(
            f"{json_path}: {n_orphaned} of {len(annotations)} annotations name an image_id that "
            "is not under 'images': check that both come from the same export"
        )
    micrographs = []
    for key, image in images.items():
        corners = np.array(boxes[key], dtype=np.float64).reshape(-1, 4)
        corners = corners[(corners[:, 2] > 0) & (corners[:, 3] > 0)]
        micrographs.append(
            Micrograph(
                path=folder / image["file_name"],
                name=image["file_name"],
                centres_px=corners[:, 1::-1] + corners[:, :1:-1] / 2,  # (y, x) + (h, w) / 2
                diameters_px=corners[:, 2:].mean(axis=1),
                size_px=(int(image["height"]), int(image["width"])),
                n_zero_area=len(boxes[key]) - len(corners),
                empiar_id=None,
            )
        )
    return micrographs, n_orphaned


def _read_csvs(images: dict[Path, Path]) -> list[Micrograph]:
    """Read the micrographs of ``images``, CSV file -> image."""
    micrographs = []
    for path, image_path in images.items():
        rows = read_coordinates_csv(path)
        keep = rows[:, 2] > 0
        micrographs.append(
            Micrograph(
                path=image_path,
                name=image_path.name,
                centres_px=rows[keep][:, 1::-1],  # x, y -> y, x
                diameters_px=rows[keep, 2],
                size_px=None,
                n_zero_area=int((~keep).sum()),
                empiar_id=None,
            )
        )
    return micrographs


def read_coordinates_csv(path: Path) -> np.ndarray:
    """Read a CryoPPP CSV: float64 (n, 3) of x, y, diameter in px; further columns are ignored."""
    wanted = ("x-coordinate", "y-coordinate", "diameter")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [cell.strip().lower() for cell in next(reader, [])]
            missing = [name for name in wanted if name not in header]
            if missing:
                raise UserError(
                    f"{path} has no column {', '.join(missing)}: the header must name "
                    "X-Coordinate, Y-Coordinate and Diameter"
                )
            columns = [header.index(name) for name in wanted]
            rows = []
            for line in reader:
                if not line:
                    continue
                try:
                    row = [float(line[column]) for column in columns]
                except (ValueError, IndexError):
                    row = [math.nan]
                if not all(map(is_number, row)):
                    raise UserError(
                        f"{path}, line {reader.line_num}: three finite numbers are needed, "
                        f"not {','.join(line)[:60]!r}"
                    )
                rows.append(row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV ({error}): write it again") from error
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def _read_mapping(path: Path) -> dict[str, str]:
    """Return image stem -> EMPIAR id from a CSV with the columns file_name and empiar_id."""
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            columns = set(reader.fieldnames or ())
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as CSV ({error}): write it again") from error
    if not {"file_name", "empiar_id"} <= columns:
        raise UserError(f"{path} needs the columns file_name and empiar_id: add them or delete it")
    return {Path(row["file_name"]).stem: row["empiar_id"].strip() for row in rows}


def _folder_id(path: Path, folder: Path) -> str | None:
    """Return the EMPIAR id when the image lies in a folder named by it, e.g. train/10017/a.jpg."""
    return next((part for part in path.relative_to(folder).parts[:-1] if part.isdigit()), None)


def _locate(path: Path, folder: Path, by_name: dict[str, Path]) -> Path | None:
    """Return the image's file; CryoTransformer writes .jpg names whatever the source was."""
    if not path.is_file():
        name = path.relative_to(folder).with_suffix("")
        found = by_name.get(name.as_posix()) or by_name.get(name.name)
        if found is None:
            return None
        path = found
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{path} is a link out of {folder}: copy the image into the folder")
    return path


def _can_be_a_file(name: str) -> bool:
    """Return whether the file system takes the name; asking it for another is an error."""
    try:
        parts = [os.fsencode(part) for part in PurePosixPath(name).parts]
    except UnicodeEncodeError:
        return False
    return all(len(part) <= 255 and b"\0" not in part for part in parts) and len(name) < 2000


def _list_of_objects(content: dict, key: str, path: Path) -> list[dict]:
    value = content.get(key)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise UserError(f"{path}: '{key}' must be a list of objects, as in the COCO format")
    return value
