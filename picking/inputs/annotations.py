"""Annotated data sets: COCO JSON or CryoPPP's CSVs -> the micrographs of a split.

Centres are (y, x) in px of the original image, in the JPEG's frame: origin top left, y down.
"""

import csv
import dataclasses
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from picking.errors import UserError, leave_out, warn
from picking.files import sha256
from picking.formats.coco import Coco, read_coco
from picking.formats.cryoppp_csv import read_csv_of_one
from picking.formats.names import few
from picking.formats.picks import Micrograph, merge_duplicates, require_px, tell_of_zero_area
from picking.micrographs.reading import SUFFIXES

SPLITS = ("train", "val", "test")
MAPPING_FILE = "empiar_ids.csv"
CSV_FOLDER = "particle_coordinates"
MOVIES = (".mrcs", ".eer")
FEWEST_ALIKE = 5  # particles that are not in the same places by chance
MAX_FRACTION_UNANNOTATED = 0.5  # of the images; above, they are mistaken for others


@dataclasses.dataclass(frozen=True)
class Split:
    """The annotated micrographs of one split, sorted by name, and what was left out of it.

    annotations_hash: of all that decides a plan, image sizes aside; images_hash: of file sizes.
    category: of the annotations, where it has a name; ..._of_others: of other categories.
    """

    name: str
    micrographs: tuple[Micrograph, ...]
    source: str
    annotations_hash: str
    images_hash: str
    n_images_unannotated: int = 0
    n_images_missing: int = 0
    n_annotations_orphaned: int = 0
    n_annotations_of_others: int = 0
    category: str | None = None


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


def read_split(
    data_root: Path, split: str, category: str | None = None, allow_partial: bool = False
) -> Split:
    """Read the annotated micrographs of one split from its COCO JSON or, without one, its CSVs.

    category: of COCO's boxes; None: see `read_coco`. Particles that are listed twice count once.

    Raises `UserError` for anything malformed, when nothing is annotated and, unless
    ``allow_partial``, when more than a tenth of the annotations have no area or no image or of the
    annotated images are missing, and when more than half of the images are not annotated.
    """
    folder = data_root / split
    by_name = _images_in(folder)
    if not by_name:
        raise UserError(
            f"{folder} holds no image ({', '.join(SUFFIXES)}): put the micrographs there"
        )
    source, annotations_hash, read, coco = _read_source(
        data_root, split, by_name, category, allow_partial
    )
    tell_of_zero_area(read, source, allow_partial)
    require_px(read, source)
    listed = merge_duplicates(read, source)
    n_merged = sum(len(m.centres_px) for m in read) - sum(len(m.centres_px) for m in listed)
    ids = _read_mapping(data_root / MAPPING_FILE)
    annotated = [m for m in listed if len(m.centres_px)]
    members: list[Micrograph] = []
    missing = []
    for m in annotated:
        path = _locate(m.path, folder, by_name)
        if path is None:
            missing.append(m.name)
        else:
            # Else of the folder that is named by it, e.g. train/10017/a.jpg
            of_folder = (part for part in path.relative_to(folder).parts[:-1] if part.isdigit())
            empiar_id = ids.get(path.stem) or next(of_folder, None)
            members.append(dataclasses.replace(m, path=path, empiar_id=empiar_id))
    members.sort(key=lambda m: m.name)
    images = {path.with_suffix("") for path in by_name.values()}
    unannotated = sorted(images - {m.path.with_suffix("") for m in members})

    there = [path.name for path in by_name.values()]
    detail = f"missing: {', '.join(missing[:3])}" if missing else "no particle is listed"
    count = (
        f"{source}: {len(members)} of {len(annotated)} annotated images of split '{split}' are "
        f"in {folder} ({detail}; there are: {', '.join(there[:3])}): "
        "check that annotation and images belong together"
    )
    if not members:
        raise UserError(count)
    leave_out(len(missing), len(annotated), count, allow_partial)
    if len(unannotated) > MAX_FRACTION_UNANNOTATED * len(images) and not allow_partial:
        raise UserError(
            f"{source}: {len(unannotated)} of {len(images)} images in {folder} have no annotation "
            f"(e.g. {', '.join(path.name for path in unannotated[:3])}): check that annotation "
            "and images belong together, or go on without the others with --allow-partial"
        )
    names = {m.path: m.name for m in members}
    for m in members:
        if names[m.path] != m.name:
            raise UserError(
                f"{source}: '{m.name}' and '{names[m.path]}' are both {m.path}: remove one"
            )
    return Split(
        name=split,
        micrographs=tuple(members),
        source=source,
        annotations_hash=sha256(
            annotations_hash,
            *(f"{m.name}:{m.empiar_id};" for m in members),
            # What else decides which of the particles in those files are used
            *([f"merged:{n_merged};"] if n_merged else []),
            *([f"category:{coco.category};"] if coco.n_others else []),
        ),
        images_hash=sha256(*(f"{m.name}:{m.path.stat().st_size};" for m in members)),
        n_images_unannotated=len(unannotated),
        n_images_missing=len(missing),
        n_annotations_orphaned=coco.n_orphaned,
        n_annotations_of_others=coco.n_others,
        category=coco.category,
    )


def say_csvs_without_image(data_root: Path, splits: Iterable[str], allow_partial: bool) -> None:
    """Say how many CSVs of a data set are of no image in train/, val/ or test/.

    Nothing is said where all ``splits`` that were read have their COCO JSON, since then no CSV is
    used. Raises `UserError` when they are more than a tenth, unless ``allow_partial``.
    """
    folder = data_root / CSV_FOLDER
    if not folder.is_dir() or all(_json_of(data_root, split).is_file() for split in splits):
        return
    stems = {path.stem for split in SPLITS for path in _images_in(data_root / split).values()}
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".csv")
    others = [path.name for path in files if path.suffix != ".csv" or path.stem not in stems]
    leave_out(
        len(others),
        len(files),
        f"{len(others):,} of {len(files):,} CSVs in {folder} are of no image in "
        f"{', '.join(SPLITS)} (e.g. {', '.join(others[:3])}): each is <image's name>.csv",
        allow_partial,
    )


def say_common(splits: Iterable[Split]) -> None:
    """Warn of micrographs of two splits with the same particles: copies, or of one CSV."""
    first: dict[bytes, str] = {}
    common = []
    for split in splits:
        for m in split.micrographs:
            if len(m.centres_px) >= FEWEST_ALIKE:
                known = first.setdefault(m.centres_px.tobytes(), split.name)
                common += [] if known == split.name else [f"{m.name} in {known} and {split.name}"]
    if common:
        warn(
            f"{len(common):,} micrographs have the same particles as one of another split (e.g. "
            f"{few(common)}): what is learned there cannot be tested here, so keep each in one "
            "split, and where only names are alike rename those"
        )


def _json_of(data_root: Path, split: str) -> Path:
    return data_root / "annotations" / f"instances_{split}.json"


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
    _tell_of_no_images(folder)
    paths.sort(key=lambda path: SUFFIXES.index(path.suffix.lower()))
    by_name: dict[str, Path] = {}
    for path in paths:
        by_name.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    stems = Counter(path.stem for path in by_name.values())
    alone = {path.stem: path for path in by_name.values() if stems[path.stem] == 1}
    return {**alone, **by_name}


def _tell_of_no_images(folder: Path) -> None:
    """Say which links to images lead nowhere, and which files are movies."""
    left_out = [
        path.name
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in MOVIES
        or (path.suffix.lower() in SUFFIXES and path.is_symlink() and not path.exists())
    ]
    if left_out:
        warn(
            f"{folder}: {len(left_out):,} files are movies or links to nothing (e.g. "
            f"{few(left_out)}) and are left out: give averaged micrographs, mend the links"
        )


def _read_source(
    data_root: Path,
    split: str,
    by_name: dict[str, Path],
    category: str | None,
    allow_partial: bool,
) -> tuple[str, str, list[Micrograph], Coco]:
    """Return what was read, its hash, the micrographs it lists, and what COCO says besides."""
    json_path = _json_of(data_root, split)
    if json_path.is_file():
        coco = read_coco(json_path, category, allow_partial)
        for picks in coco.records:
            _require_name_inside(picks.name, str(json_path))
        folder = data_root / split
        listed = [Micrograph(**vars(picks), path=folder / picks.name) for picks in coco.records]
        return str(json_path), sha256(json_path.read_bytes()), listed, coco
    csv_folder = data_root / CSV_FOLDER
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
    if category is not None:
        raise UserError(
            f"--category {category}: the CSVs in {csv_folder} know no categories: leave it out"
        )
    listed = []
    for path, image in images.items():
        picks = dataclasses.replace(read_csv_of_one(path), name=image.name)
        listed.append(Micrograph(**vars(picks), path=image))
    source = f"{len(images)} CSV files in {csv_folder}"
    nothing = Coco([], 0, 0, None)
    return source, sha256(*(path.read_bytes() for path in images)), listed, nothing


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


def _locate(path: Path, folder: Path, by_name: dict[str, Path]) -> Path | None:
    """Return the image's file; CryoTransformer writes .jpg names whatever the source was."""
    if not path.is_file():
        name = path.relative_to(folder).with_suffix("")
        there = by_name.get(name.as_posix()) or by_name.get(name.name)
        if there is None:
            return None
        path = there
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{path} is a link out of {folder}: copy the image into the folder")
    return path


def _require_name_inside(name: str, where: str) -> None:
    """Raise `UserError` unless the name can be that of a file inside the split's folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in PurePosixPath(name.replace("\\", "/")).parts:
        raise UserError(
            f"{where}: file_name '{name}' leaves the split's folder: use names inside it"
        )
    try:
        parts = [os.fsencode(part) for part in path.parts]
    except UnicodeEncodeError:
        parts = [b"\0"]
    if len(name) >= 2000 or any(len(part) > 255 or b"\0" in part for part in parts):
        raise UserError(f"{where}: file_name '{name}' cannot be that of a file: mend it")
