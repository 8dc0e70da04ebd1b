"""Learning from a few picks: places near them are the labelled, places anywhere the unlabeled.

A place is positive when it lies within `POSITIVE_RADIUS` diameters of a particle's centre. Windows
are cut about each pick, and at random from the whole of every micrograph; training crops them at
random (`picking.training.augment.window_views`), so that a pick lies anywhere in its crop. A U-Net
scores every place of a crop. Those near a pick are the labelled, in any crop; the nnPU risk
compares them with the other places of the random windows. With N particles a micrograph, n of them
picked, the shares of places near a particle are known,

    of all places            N a,  a = π (POSITIVE_RADIUS · diameter)² / area
    of those near no pick    π_U = (N - n) a / (1 - n a).

No place is called negative, since nobody knows where the other particles are.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from picking.errors import UserError
from picking.files import sha256
from picking.formats import annotations
from picking.formats.coordinates import Picks, read_picks
from picking.formats.frames import check_frame
from picking.formats.micrographs import UnreadableImage, image_size
from picking.formats.paths import expand, find_micrographs
from picking.preprocessing.plan import MicrographPlan
from picking.seeds import stream

# How far off a particle's centre a place still is positive, in diameters
POSITIVE_RADIUS = 0.25
# Micrographs are scaled so that a particle is so wide. A window as stored is WINDOW_PX wide, twice
# what the network sees of it, so that its middle can lie anywhere in a crop.
PARTICLE_PX, WINDOW_PX = 20, 128
REACH_PX = POSITIVE_RADIUS * PARTICLE_PX
VAL_SHARE = 0.2


@dataclasses.dataclass(frozen=True)
class WindowSettings:
    """What decides windows, beside micrographs and picks; the script's --help explains it.

    window_px: side of a window, after scaling. diameter_px: of the particles, in px of
    the micrograph. expected_particles: of a micrograph, or None.
    """

    window_px: int
    diameter_px: float
    per_micrograph: int
    expected_particles: float | None
    seed: int

    @property
    def scale(self) -> float:
        """Px of the scaled micrograph per px of the micrograph."""
        return PARTICLE_PX / self.diameter_px


def read_splits(
    micrographs: Sequence[str],
    val_micrographs: Sequence[str] | None,
    labels: Sequence[str],
    frame: str | None,
    diameter_px: float,
    seed: int,
    skip_unreadable: bool,
) -> dict[str, annotations.Split]:
    """Return train and val: the micrographs that the patterns name, with the picks on them.

    labels: patterns of files of picks, in ``frame`` or what their format has. Micrographs that
    cannot be read stay in, without picks, with ``skip_unreadable``. Raises `UserError` when most
    picks fit the micrographs upside down, and as `splits_of_picks` does.
    """
    paths, val_names = find_micrographs(micrographs), None
    if val_micrographs:
        val_paths = find_micrographs(val_micrographs)
        by_stem = {path.stem: path for path in paths.values()}
        for path in val_paths.values():
            other = by_stem.get(path.stem, path)
            if other.resolve() != path.resolve():
                raise UserError(f"{other} and {path} have one name: rename one of them")
        paths, val_names = {**paths, **val_paths}, list(val_paths)
    files, sizes = expand(labels), {}
    for name, path in paths.items():
        try:
            sizes[name] = image_size(path)
        except UnreadableImage:
            if not skip_unreadable:
                raise
    picks = read_picks(files, sizes, frame, only_known=True)
    check_frame(picks, paths, files, frame, "--frame", diameter_px)
    source = ", ".join(path.name for path in files[:3]) + ", ..." * (len(files) > 3)
    return splits_of_picks(list(paths.values()), picks, diameter_px, val_names, source, seed)


def splits_of_picks(
    paths: Sequence[Path],
    picks: Sequence[Picks],
    diameter_px: float,
    val_names: Sequence[str] | None,
    source: str,
    seed: int,
) -> dict[str, annotations.Split]:
    """Return the splits train and val: micrographs with their picks, or with none.

    Of the micrographs with picks `VAL_SHARE`, at least one, are drawn for val, unless ``val_names``
    tells which micrographs are val's. All others, also those without picks, are train's.

    Raises `UserError` when a split would have no pick.
    """
    by_name = {p.name: p for p in picks if len(p.centres_px)}
    if val_names is None:
        picked = sorted(by_name)
        if len(picked) < 2:
            raise UserError(
                f"picks lie on {len(picked)} micrograph{'s'[: len(picked) != 1]}, but two are "
                "needed, one of them to choose the checkpoint on: pick some particles on another"
            )
        n_val = max(1, round(VAL_SHARE * len(picked)))
        val_names = list(stream(seed, "val-micrographs").permutation(picked)[:n_val])
    splits = {}
    for name in ("train", "val"):
        members = [path for path in paths if (path.name in val_names) == (name == "val")]
        records = tuple(
            _record(path, by_name.get(path.name), diameter_px)
            for path in sorted(members, key=lambda path: path.name)
            if name == "train" or path.name in by_name
        )
        if not any(len(record.centres_px) for record in records):
            raise UserError(
                f"there is no pick on the {len(members)} micrographs of split '{name}': "
                "pick some there, or name others with --val-micrographs"
            )
        parts: list[str | bytes] = []
        for record in records:
            parts += [f"{record.name}:{len(record.centres_px)}:", record.centres_px.tobytes()]
        splits[name] = annotations.Split(
            name=name,
            micrographs=records,
            source=source,
            annotations_hash=sha256(*parts),
            images_hash=sha256(*(f"{r.name}:{r.path.stat().st_size};" for r in records)),
            n_images_unannotated=0,
            n_images_missing=0,
            n_annotations_orphaned=0,
        )
    return splits


def _record(path: Path, picks: Picks | None, diameter_px: float) -> annotations.Micrograph:
    centres = np.empty((0, 2)) if picks is None else picks.centres_px
    diameters = np.full(len(centres), diameter_px)
    return annotations.Micrograph(path, path.name, centres, diameters, None, 0, None)


def plan_windows(
    split: str,
    records: Sequence[annotations.Micrograph],
    sizes_px: Sequence[tuple[int, int]],
    settings: WindowSettings,
) -> list[MicrographPlan]:
    """Plan the windows of a split, one `MicrographPlan` per record.

    Raises `UserError` when a window would be as large as a micrograph.
    """
    plans = []
    for record, size_px in zip(records, sizes_px, strict=True):
        height, width = (max(1, round(n * settings.scale)) for n in size_px)
        if settings.window_px >= min(height, width):
            raise UserError(
                f"{record.name} is {size_px[1]} x {size_px[0]} px, no larger than a window, "
                f"{settings.window_px / PARTICLE_PX:g} particles of {settings.diameter_px:.0f} px: "
                "check --diameter"
            )
        within = annotations.inside(record, size_px)
        rng = stream(settings.seed, "windows", split, record.name)
        none = np.empty((0, 2))
        plans.append(
            MicrographPlan(
                micrograph=record,
                size_px=size_px,
                patch_size_px=settings.window_px,
                labelled_px=record.centres_px[within],
                hidden_px=none,
                negatives_px=none,
                off_centre_px=none,
                outlier_candidates_px=none,
                n_outliers=0,
                n_negatives_wanted=0,
                n_outside=int((~within).sum()),
                windows_px=rng.random((settings.per_micrograph, 2)) * np.array(size_px),
                scaled_px=(height, width),
                reach_px=REACH_PX,
            )
        )
    return plans


def place_priors(
    settings: WindowSettings, sizes_px: Sequence[tuple[int, int]], n_picks: Sequence[int]
) -> dict[str, float | None]:
    """Return the priors of the places of windows drawn anywhere from micrographs, as of patches.

    sizes_px, n_picks: of each micrograph. ``actual_prior`` is the share near a pick, ``pool_prior``
    that near a particle, ``unlabeled_prior`` that near a particle among those near no pick; the
    last two are None without an expected number.

    Raises `UserError` when so many particles would cover more than the micrographs.
    """
    disk = math.pi * (POSITIVE_RADIUS * settings.diameter_px) ** 2 / np.prod(sizes_px, axis=1)
    actual = float(np.mean(np.asarray(n_picks) * disk))
    if settings.expected_particles is None:
        return {"actual_prior": actual, "pool_prior": None, "unlabeled_prior": None}
    share = settings.expected_particles * disk.mean()
    if not 0 < share < 0.5:
        raise UserError(
            f"--expected-particles {settings.expected_particles:g} of {settings.diameter_px:.0f} "
            f"px would be centred within {share:.0%} of a micrograph: give the number on one "
            "micrograph, about"
        )
    pool = float(np.mean(np.maximum(n_picks, settings.expected_particles) * disk))
    unlabeled = (pool - actual) / (1 - actual)
    return {"actual_prior": actual, "pool_prior": pool, "unlabeled_prior": unlabeled}
