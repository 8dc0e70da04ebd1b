"""Learning from a few picks: places near them are the labelled, places anywhere the unlabeled.

A place is positive when it lies within `POSITIVE_RADIUS` diameters of a particle's centre. Windows
are cut about each pick, and at random from the whole of every micrograph; training crops them at
random (`picking.training.augment.window_views`), so that a pick lies anywhere in its crop. A U-Net
scores every place of a crop. Those near a pick are the labelled, in any crop; the nnPU risk
compares them with the other places of the random windows. With N particles a micrograph, n of them
picked, the fractions of places near a particle are known,

    of all places            N a,  a = π (POSITIVE_RADIUS · diameter)² / area
    of those near no pick    π_U = (N - n) a / (1 - n a).

No place is called negative, since nobody knows where the other particles are.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from picking.errors import UserError, warn
from picking.files import sha256
from picking.formats.coordinates import read_picks
from picking.formats.names import LABELS
from picking.formats.picks import Micrograph, Picks, inside, known_as, merge_duplicates
from picking.inputs.annotations import Split
from picking.inputs.diameters import require_diameter_fits
from picking.inputs.paths import Paths, find_coordinates
from picking.inputs.placement import check_placement
from picking.micrographs.junk import coarseness, in_junk, junk_mask, without_regions_of
from picking.micrographs.preparation import PARTICLE_PX, PREPARATION, prepare, scale_micrograph
from picking.micrographs.problems import UnreadableImage
from picking.micrographs.reading import image_size
from picking.preprocessing.cutting import CutPlan, Group, cut_patches, nearest_pixels
from picking.seeds import stream
from picking.stores.patches import TAG_PARTICLE, TAG_WINDOW

# How far off a particle's centre a place still is positive, in diameters
POSITIVE_RADIUS = 0.25
# A window as stored is twice as wide as what the network sees of it, so that its middle can lie
# anywhere in a crop.
WINDOW_PX = 128
REACH_PX = POSITIVE_RADIUS * PARTICLE_PX
VAL_FRACTION = 0.2
SPARES = 2  # for each window, to be cut in place of one that lies in junk


@dataclasses.dataclass(frozen=True)
class WindowPlan(CutPlan):
    """The windows of one micrograph, in the order of their rows in the store.

    windows_px: float64 (n, 2), the centres of the windows anywhere, beside those about the picks.
    spare_px: float64 (m, 2), those that are cut instead of windows that lie in junk, in this order;
    without any, windows may lie in junk. scaled_px: (height, width) that the micrograph is scaled
    to before windows are cut.
    """

    windows_px: np.ndarray
    spare_px: np.ndarray
    scaled_px: tuple[int, int]

    kinds = ("labelled", "unknown")  # what a picture tells apart

    @property
    def scale(self) -> float:
        """Px of a row per px of the micrograph, along y."""
        return self.scaled_px[0] / self.size_px[0]

    @property
    def arrays(self) -> dict[str, tuple[int, int]]:
        """The files of windows and of where they are near a pick."""
        return dict.fromkeys(("patches.npy", "picked.npy"), (self.patch_size_px,) * 2)

    @property
    def decoded_px(self) -> tuple[int, int]:
        """What a JPEG is decoded near."""
        return self.scaled_px

    @property
    def n_particles(self) -> int:
        """Picks."""
        return len(self.labelled_px)

    @property
    def n_rows(self) -> int:
        """Windows of this micrograph."""
        return len(self.labelled_px) + len(self.windows_px)

    def groups(self, noted: dict) -> list[Group]:  # noqa: D102
        return [
            Group(self.labelled_px, TAG_PARTICLE, True),
            Group(self.drawn_px(noted.get("windows")), TAG_WINDOW, False),
        ]

    def drawn_px(self, chosen: Sequence[int] | None) -> np.ndarray:
        """Return the windows that are cut, (n, 2); chosen: of windows and spares, as noted."""
        every = np.concatenate([self.windows_px, self.spare_px])
        return self.windows_px if chosen is None else every[list(chosen)]

    def identity(self) -> list[str | bytes]:  # noqa: D102
        return [
            f"{self.micrograph.name}:{self.size_px}:{self.patch_size_px}:{self.scaled_px}:",
            f"{REACH_PX}:{len(self.labelled_px)}:",
            self.labelled_px.tobytes(),
            self.windows_px.tobytes(),
            self.spare_px.tobytes(),
        ]

    def draw(self, image: np.ndarray) -> tuple[list[np.ndarray], dict]:
        """Return the windows and where they are near a pick, two of uint8 (n_rows, p, p).

        The journal notes the fraction of the micrograph that is junk, which windows and spares were
        taken for it, how many picks lie where junk was seen, and how coarse a micrograph with picks
        is: of others nobody knows whether they are junk all over.
        """
        scale = np.array(self.scaled_px) / self.size_px
        scaled = scale_micrograph(image, self.scaled_px)
        noted = self.clear_of_junk(scaled) if len(self.spare_px) else {}
        if len(self.labelled_px):
            noted["coarseness"] = coarseness(scaled, PARTICLE_PX)
        windows_px = self.drawn_px(noted.get("windows"))
        centres_px = np.concatenate([self.labelled_px, windows_px]) * scale
        prepared = prepare(scaled, (PARTICLE_PX, PARTICLE_PX))
        picked = _near(self.labelled_px * scale, REACH_PX, self.scaled_px)
        rows = [cut_patches(one, centres_px, self.patch_size_px) for one in (prepared, picked)]
        return rows, noted

    def clear_of_junk(self, scaled: np.ndarray) -> dict:
        """Return what `draw` notes; a region with a pick in it is no junk, since users know."""
        junk, noted = junk_mask(scaled, PARTICLE_PX), dict[str, Any]()
        if n_picks := int(in_junk(junk, self.labelled_px, self.size_px).sum()):
            noted["picks_in_junk"] = n_picks
            junk = without_regions_of(junk, self.labelled_px, self.size_px)
        if not junk.any():
            return noted
        every = np.concatenate([self.windows_px, self.spare_px])
        clear = np.flatnonzero(~in_junk(junk, every, self.size_px))
        if len(clear):  # as many as wanted, some twice where hardly any place is left
            noted["windows"] = np.resize(
                clear[: len(self.windows_px)], len(self.windows_px)
            ).tolist()
            noted["junk_fraction"] = round(float(junk.mean()), 4)
        return noted

    def counts(self) -> dict:  # noqa: D102
        return {"n_particles": self.n_particles}


@dataclasses.dataclass(frozen=True)
class WindowSettings:
    """What decides windows, beside micrographs and picks."""

    window_px: int  # side, after scaling
    diameter_px: float  # of the particles, on the micrograph
    per_micrograph: int  # windows anywhere
    expected_particles: float | None  # on a micrograph
    seed: int
    keep_junk: bool = False  # windows may lie in junk
    # Diameters by name where px have another size
    own_px: Mapping[str, float] = dataclasses.field(default_factory=dict)
    pixel_size_angstrom: float | None = None  # of the others, where known

    @property
    def scale(self) -> float:
        """Px of the scaled micrograph per px of the micrograph, but for those of ``own_px``."""
        return PARTICLE_PX / self.diameter_px

    def diameter_on(self, name: str) -> float:
        """Return the particles' diameter in px of a micrograph."""
        return self.own_px.get(name, self.diameter_px)

    def plan_split(
        self,
        split: str,
        records: Sequence[Micrograph],
        sizes_px: Sequence[tuple[int, int]],
        n_workers: int = 0,
    ) -> list[WindowPlan]:
        """Plan the windows of a split, one `WindowPlan` per record; takes no workers.

        Raises `UserError` when a window would be as large as a micrograph.
        """
        plans = []
        for record, size_px in zip(records, sizes_px, strict=True):
            diameter_px = self.diameter_on(record.name)
            height, width = (max(1, round(n * PARTICLE_PX / diameter_px)) for n in size_px)
            if self.window_px >= min(height, width):
                raise UserError(
                    f"{record.name} is {size_px[1]} x {size_px[0]} px, no larger than a window, "
                    f"{self.window_px / PARTICLE_PX:g} particles of {diameter_px:.0f} px: "
                    "check --diameter"
                )
            rng = stream(self.seed, "windows", split, record.name)
            spare_rng = stream(self.seed, "spare-windows", split, record.name)
            n_spare = 0 if self.keep_junk else SPARES * self.per_micrograph
            plans.append(
                WindowPlan(
                    micrograph=record,
                    size_px=size_px,
                    patch_size_px=self.window_px,
                    labelled_px=record.centres_px[inside(record, size_px)],
                    windows_px=rng.random((self.per_micrograph, 2)) * np.array(size_px),
                    spare_px=spare_rng.random((n_spare, 2)) * np.array(size_px),
                    scaled_px=(height, width),
                )
            )
        return plans

    def lines(self, split: str, plans: Sequence[WindowPlan]) -> list[str]:
        """Return the lines on a split's windows that users look for."""
        counts = self.summary(plans, [])
        n_picked = sum(len(p.labelled_px) > 0 for p in plans)
        pool, unlabeled = counts["pool_prior"], counts["unlabeled_prior"]
        known = "left to training to estimate"
        if self.expected_particles is not None:
            known = f"{pool:.4f}; of those near no pick: {unlabeled:.4f}"
        return [
            f"Windows of {split} split",
            f"Total images: {len(plans)}, {n_picked} of them with picks",
            f"  Scale: {self.scale:.4f}; a particle becomes {PARTICLE_PX} px wide",
            f"  Picks: {counts['n_labeled']:,}, a window about each",
            f"  Unlabeled windows, anywhere: {counts['n_unlabeled']:,}",
            f"  Fraction of positives among their places: {known}",
        ]

    def summary(self, plans: Sequence[WindowPlan], noted: list[dict]) -> dict:
        """Return what these micrographs have in all, as metadata.json says it."""
        n_picks = [len(p.labelled_px) for p in plans]
        n_in_junk = sum(entry.get("picks_in_junk", 0) for entry in noted)
        return {
            "n_images": len(plans),
            "n_patches": sum(p.n_rows for p in plans),
            "n_labeled": sum(n_picks),
            "n_unlabeled": sum(len(p.windows_px) for p in plans),
            **place_priors(
                self,
                [p.size_px for p in plans],
                n_picks,
                [self.diameter_on(p.micrograph.name) for p in plans],
                [entry.get("junk_fraction", 0.0) for entry in noted] or None,
            ),
            **({"n_picks_in_junk": n_in_junk} if n_in_junk else {}),
        }

    def description(self, content_hash: str) -> dict:
        """Return what metadata.json says of the whole store, beside counts.

        ``windows`` says that what is not labelled is unknown, and how micrographs are scaled; where
        it is known, of which pixel size those are on which particles are ``diameter_px`` wide.
        """
        windows = {"scale": self.scale, "diameter_px": self.diameter_px, "reach_px": REACH_PX}
        if self.pixel_size_angstrom is not None:
            windows["pixel_size_angstrom"] = self.pixel_size_angstrom
        return {
            "patch_size_px": self.window_px,
            "preparation": PREPARATION,
            "content_hash": content_hash,
            "windows": windows,
        }


def read_splits(
    micrographs: Paths,
    val_micrographs: Paths,
    labels: Sequence[str],
    frame: str | None,
    diameter_px: float,
    seed: int,
    skip_unreadable: bool,
    allow_partial: bool = False,
    category: str | None = None,
    own_px: Mapping[str, float] = MappingProxyType({}),
    pixel_size_of: Callable[[str], float | None] = lambda name: None,
) -> dict[str, Split]:
    """Return train and val: the micrographs with the picks on them.

    Args:
        micrographs: all, or those of train.
        val_micrographs: those that are val's; without any, some of the picked ones are drawn.
        labels: patterns of files of picks.
        frame: of the picks, jpeg or mrc; None: what their format has.
        diameter_px: of the particles.
        seed: of what is drawn.
        skip_unreadable: micrographs that cannot be read stay in, without picks.
        allow_partial: more than a tenth of the picks may be of no use.
        category: of COCO's boxes; None: see `picking.formats.coco.read_coco`.
        own_px: diameters by name on micrographs whose px have another size.
        pixel_size_of: as `read_picks` takes it.

    Raises `UserError` when most picks fit the micrographs upside down, and as `splits_of_picks`
    does.
    """
    paths, val_names = micrographs, None
    if val_micrographs:
        by_stem = {path.stem: path for path in paths.values()}
        for path in val_micrographs.values():
            other = by_stem.get(path.stem, path)
            if other.resolve() != path.resolve():
                raise UserError(f"{other} and {path} have one name: rename one of them")
        paths, val_names = {**paths, **val_micrographs}, list(val_micrographs)
    files, sizes = find_coordinates(labels, allow_partial), {}
    unreadable = []
    for name, path in paths.items():
        try:
            sizes[name] = image_size(path)
        except UnreadableImage:
            if not skip_unreadable:
                raise
            unreadable.append(name)
    require_diameter_fits(diameter_px, sizes, own_px)
    picks = read_picks(
        files, sizes, frame, True, what=LABELS, ignored=unreadable, allow_partial=allow_partial,
        category=category, pixel_size_of=pixel_size_of,
    )  # fmt: skip
    picks = [known_as(one, own_px[one.name]) if one.name in own_px else one for one in picks]
    check_placement(picks, paths, files, frame, "--frame", diameter_px, own_px)
    source = ", ".join(path.name for path in files[:3]) + ", ..." * (len(files) > 3)
    picks = merge_duplicates(picks, source, diameter_px)
    return splits_of_picks(
        list(paths.values()), picks, diameter_px, val_names, source, seed, own_px
    )


def check_expected(expected: float | None, splits: Mapping[str, Split]) -> None:
    """Hold the expected number of particles on a micrograph against the picks.

    Raises `UserError` when there are more on average; warns when some micrograph has more.
    """
    counts = [(len(m.centres_px), m.name) for split in splits.values() for m in split.micrographs]
    if expected is None or max(counts)[0] <= expected:
        return
    mean = sum(n for n, _ in counts) / len(counts)
    if mean > expected:
        raise UserError(
            f"--expected-particles is {expected:g}, but there are {mean:.1f} picks on a micrograph "
            "on average: give the number of all particles on one micrograph, about"
        )
    more = sorted(((n, name) for n, name in counts if n > expected), reverse=True)
    warn(
        f"--expected-particles is {expected:g}, but {len(more)} of {len(counts)} micrographs have "
        f"more picks (e.g. {', '.join(f'{n} on {name}' for n, name in more[:3])}): give a larger "
        "number unless these are unlike the others"
    )


def splits_of_picks(
    paths: Sequence[Path],
    picks: Sequence[Picks],
    diameter_px: float,
    val_names: Sequence[str] | None,
    source: str,
    seed: int,
    own_px: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, Split]:
    """Return the splits train and val: micrographs with their picks, or with none.

    Of the micrographs with picks `VAL_FRACTION`, at least one, are drawn for val, unless
    ``val_names`` tells which are val's. All others, also those without picks, are train's.

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
        n_val = max(1, round(VAL_FRACTION * len(picked)))
        val_names = list(stream(seed, "val-micrographs").permutation(picked)[:n_val])
    splits = {}
    for name in ("train", "val"):
        members = [path for path in paths if (path.name in val_names) == (name == "val")]
        records = tuple(
            _record(path, by_name.get(path.name), own_px.get(path.name, diameter_px))
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
        splits[name] = Split(
            name=name,
            micrographs=records,
            source=source,
            annotations_hash=sha256(*parts),
            images_hash=sha256(*(f"{r.name}:{r.path.stat().st_size};" for r in records)),
        )
    return splits


def _record(path: Path, picks: Picks | None, diameter_px: float) -> Micrograph:
    centres = np.empty((0, 2)) if picks is None else picks.centres_px
    diameters = np.full(len(centres), diameter_px)
    unknown = np.full(len(centres), np.nan)
    return Micrograph(path.name, centres, unknown, diameters, None, path=path)


def place_priors(
    settings: WindowSettings,
    sizes_px: Sequence[tuple[int, int]],
    n_picks: Sequence[int],
    diameters_px: Sequence[float] | None = None,
    junk_fractions: Sequence[float] | None = None,
) -> dict[str, float | None]:
    """Return the three priors for places instead of patches.

    sizes_px, n_picks, diameters_px, junk_fractions: of each micrograph; None: the settings'
    diameter, and no junk, where no particle is expected and no window is cut.
    ``actual_prior`` is the fraction near a pick, ``pool_prior`` that near a particle,
    ``unlabeled_prior`` that near a particle among those near no pick; the last two are None without
    an expected number.

    Raises `UserError` when so many particles would cover more than the micrographs.
    """
    diameters = settings.diameter_px if diameters_px is None else np.asarray(diameters_px)
    left = 1 - np.asarray(junk_fractions or 0.0)
    disk = math.pi * (POSITIVE_RADIUS * diameters) ** 2 / (np.prod(sizes_px, axis=1) * left)
    actual = float(np.mean(np.asarray(n_picks) * disk))
    if settings.expected_particles is None:
        return {"actual_prior": actual, "pool_prior": None, "unlabeled_prior": None}
    covered = settings.expected_particles * disk.mean()
    if not 0 < covered < 0.5:
        raise UserError(
            f"--expected-particles {settings.expected_particles:g} of {settings.diameter_px:.0f} "
            f"px would be centred within {covered:.0%} of a micrograph: give the number on one "
            "micrograph, about"
        )
    pool = float(np.mean(np.maximum(n_picks, settings.expected_particles) * disk))
    unlabeled = (pool - actual) / (1 - actual)
    return {"actual_prior": actual, "pool_prior": pool, "unlabeled_prior": unlabeled}


def _near(centres_px: np.ndarray, reach_px: float, size_px: tuple[int, int]) -> np.ndarray:
    """Return uint8 (h, w): 1 within reach of the pixel that `cut_patches` takes for a centre."""
    at, reach = nearest_pixels(centres_px, size_px), int(reach_px)
    near = np.zeros([n + 2 * reach for n in size_px], np.uint8)
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disk = (y**2 + x**2 <= reach_px**2).astype(np.uint8)
    for row, column in at:
        near[row : row + len(disk), column : column + len(disk)] |= disk
    return near[reach : reach + size_px[0], reach : reach + size_px[1]]
