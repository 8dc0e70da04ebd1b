"""What somebody clicked and painted on micrographs -> the splits train and val.

Nothing more is known than what somebody clicked: a micrograph with picks may hold other particles,
unless it is said to be complete. Micrographs on which nothing was clicked take no part: PU learning
wants picks that are a fair sample of the particles among the unlabeled, and micrographs differ, so
that a network would learn to tell those with picks from the others. With a hundred picks on four of
six micrographs of EMPIAR-10017 F1 on val was 0.844 without the other two and 0.829 with them, with
fifty on two of the six 0.831 and 0.797 (RESULTS, section 31).
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from picking.errors import UserError, leave_out, warn
from picking.files import sha256
from picking.formats.coordinates import read_picks
from picking.formats.names import LABELS, NEGATIVES, few, finder
from picking.formats.picks import (
    Micrograph,
    Picks,
    inside,
    known_as,
    merge_duplicates,
    select,
)
from picking.inputs.annotations import Split
from picking.inputs.diameters import require_diameter_fits
from picking.inputs.junk_masks import find_junk_masks, read_junk_mask
from picking.inputs.paths import Paths, find_coordinates
from picking.inputs.placement import check_placement
from picking.micrographs.junk import in_junk
from picking.micrographs.problems import UnreadableImage
from picking.micrographs.reading import image_size
from picking.preprocessing.windows.plan import POSITIVE_RADIUS
from picking.seeds import stream

VAL_FRACTION = 0.2


@dataclasses.dataclass(frozen=True)
class Beside:
    """What somebody said beside picks.

    not_particles: patterns of files with places that are no particle. junk: a folder of masks
    (`find_junk_masks`). complete: names of micrographs on which every particle is picked. left_out:
    of those that are not to be used.
    """

    not_particles: Sequence[str] = ()
    junk: Path | None = None
    complete: Sequence[str] = ()
    left_out: Sequence[str] = ()


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
    beside: Beside = Beside(),
) -> dict[str, Split]:
    """Return train and val: the micrographs with the picks on them, and what else is known of them.

    Args:
        micrographs: all, or those of train.
        val_micrographs: those that are val's; without any, some of the picked ones are drawn.
        labels: patterns of files of picks.
        frame: of the coordinates, jpeg or mrc; None: what their format has.
        diameter_px: of the particles.
        seed: of what is drawn.
        skip_unreadable: micrographs that cannot be read stay in, without picks.
        allow_partial: more than a tenth of what is given may be of no use.
        category: of COCO's boxes; None: see `picking.formats.coco.read_coco`.
        own_px: diameters by name on micrographs whose px have another size.
        pixel_size_of: as `read_picks` takes it.
        beside: what is known beside picks.

    Raises `UserError` when most coordinates fit the micrographs upside down, when more than a tenth
    of the places without a particle are picks as well, and as `splits_of_picks` does.
    """
    paths, val_names = micrographs, None
    if val_micrographs:
        by_stem = {path.stem: path for path in paths.values()}
        for path in val_micrographs.values():
            other = by_stem.get(path.stem, path)
            if other.resolve() != path.resolve():
                raise UserError(f"{other} and {path} have one name: rename one of them")
        paths, val_names = {**paths, **val_micrographs}, list(val_micrographs)
    ignored, unreadable = list(filter(None, map(finder(paths), beside.left_out))), []
    if ignored:
        print(f"Left out, as they are marked: {len(ignored):,} of {len(paths):,} micrographs")
        paths = {name: path for name, path in paths.items() if name not in ignored}
        if not paths:
            raise UserError("all micrographs are marked to be left out: take some of them back")
    files, sizes = find_coordinates(labels, allow_partial), {}
    for name, path in paths.items():
        try:
            sizes[name] = image_size(path)
        except UnreadableImage:
            if not skip_unreadable:
                raise
            unreadable.append(name)
    ignored += unreadable
    require_diameter_fits(diameter_px, sizes, own_px)
    masks = {}
    if beside.junk is not None:
        masks = find_junk_masks(beside.junk, sizes, ignored, allow_partial)
        covered = [name for name, path in masks.items() if read_junk_mask(path).all()]
        if covered:
            warn(
                f"{beside.junk}: {len(covered):,} micrographs are junk all over (e.g. "
                f"{few(covered)}): they are left out, with what is picked there"
            )
            ignored += covered
            paths = {name: path for name, path in paths.items() if name not in covered}
            sizes = {name: size for name, size in sizes.items() if name not in covered}
    complete = _find_complete(beside.complete, sizes, ignored, allow_partial)

    def read(patterns: list[Path], what: str) -> list[Picks]:
        """Return the coordinates of files, checked against the micrographs."""
        found = read_picks(
            patterns, sizes, frame, True, what=what, ignored=ignored, allow_partial=allow_partial,
            category=category if what == LABELS else None, pixel_size_of=pixel_size_of,
        )  # fmt: skip
        found = [known_as(one, own_px[one.name]) if one.name in own_px else one for one in found]
        check_placement(
            found, paths, patterns, frame, "--frame", diameter_px, own_px, what == LABELS
        )
        return merge_duplicates(found, _source(patterns), diameter_px, what=_WORDS[what])

    picks = read(files, LABELS)
    negatives: list[Picks] = []
    if beside.not_particles:
        others = find_coordinates(beside.not_particles, allow_partial)
        listed = read(others, NEGATIVES)
        negatives = _without_picked(
            listed, picks, lambda name: own_px.get(name, diameter_px), _source(others),
            allow_partial,
        )  # fmt: skip
    _say_picks_in_junk(picks, masks, sizes)
    return splits_of_picks(
        list(paths.values()), picks, diameter_px, val_names, _source(files), seed, own_px,
        negatives, masks, complete, unreadable,
    )  # fmt: skip


_WORDS = {LABELS: "particles", NEGATIVES: NEGATIVES}


def _source(files: Sequence[Path]) -> str:
    return ", ".join(path.name for path in files[:3]) + ", ..." * (len(files) > 3)


def _find_complete(
    listed: Sequence[str],
    known: Mapping[str, object],
    ignored: Sequence[str],
    allow_partial: bool,
) -> set[str]:
    """Return the names of micrographs that are complete; says which of those listed are unknown."""
    find = finder([*known, *ignored])
    found = {name: find(name) for name in listed}
    unknown = [name for name, known_name in found.items() if known_name is None]
    message = (
        f"{len(unknown):,} of {len(listed):,} micrographs that are listed as complete are not "
        f"given ({few(unknown)}; given are {few(known)})"
    )
    if unknown and len(unknown) == len(listed):
        raise UserError(f"{message}: give the names of micrographs")
    leave_out(len(unknown), len(listed), message, allow_partial)
    return {name for name in found.values() if name in known}  # type: ignore[misc]


def _without_picked(
    negatives: Sequence[Picks],
    picks: Sequence[Picks],
    diameter_on: Callable[[str], float],
    source: str,
    allow_partial: bool,
) -> list[Picks]:
    """Return the places without a particle but for those that are positive, since near a pick.

    How many there are is said; raises `UserError` for more than a tenth.
    """
    from scipy.spatial import cKDTree

    centres = {one.name: one.centres_px for one in picks if len(one.centres_px)}
    kept, examples, n = [], [], 0
    for one in negatives:
        if one.name in centres and len(one.centres_px):
            away, _ = cKDTree(centres[one.name]).query(one.centres_px)
            both = away <= POSITIVE_RADIUS * diameter_on(one.name)
            n += int(both.sum())
            examples += [f"x {x:.0f}, y {y:.0f} on {one.name}" for y, x in one.centres_px[both]]
            one = select(one, ~both)
        kept.append(one)
    n_all = sum(len(one.centres_px) for one in negatives)
    leave_out(
        n,
        n_all,
        f"{source}: {n:,} of {n_all:,} {NEGATIVES} are picks too, within a quarter of a diameter "
        f"(e.g. {'; '.join(examples[:3])}): the picks count",
        allow_partial,
    )
    return kept


def _say_picks_in_junk(
    picks: Sequence[Picks], masks: Mapping[str, Path], sizes_px: Mapping[str, tuple[int, int]]
) -> None:
    counts = {}
    for one in picks:
        if one.name in masks and len(one.centres_px):
            within = inside(dataclasses.replace(one, size_px=None), sizes_px[one.name])
            mask = read_junk_mask(masks[one.name])
            counts[one.name] = int(in_junk(mask, one.centres_px[within], sizes_px[one.name]).sum())
    names = [name for name, n in counts.items() if n]
    if names:
        warn(
            f"{sum(counts.values()):,} picks lie in what was painted as junk (e.g. on "
            f"{few(names)}): they are learned from all the same; take them out, or the paint"
        )


def splits_of_picks(
    paths: Sequence[Path],
    picks: Sequence[Picks],
    diameter_px: float,
    val_names: Sequence[str] | None,
    source: str,
    seed: int,
    own_px: Mapping[str, float] = MappingProxyType({}),
    negatives: Sequence[Picks] = (),
    masks: Mapping[str, Path] = MappingProxyType({}),
    complete: Iterable[str] = (),
    unreadable: Iterable[str] = (),
) -> dict[str, Split]:
    """Return the splits train and val: micrographs with their picks, or with none.

    Of the micrographs with picks `VAL_FRACTION`, at least one, are drawn for val, unless
    ``val_names`` tells which are val's. All others are train's. Those stay of which something is
    known, and how many do not is printed.

    negatives: places that are no particle. masks: of junk, ``complete`` and ``unreadable``: by
    name; what cannot be read stays train's, and is told of when the store is written.

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
        drawn = stream(seed, "val-micrographs").permutation(picked)
        val_names = list(drawn[: max(1, round(VAL_FRACTION * len(picked)))])
    known_as_none = {p.name: p.centres_px for p in negatives if len(p.centres_px)}
    complete, splits = set(complete), {}
    told_of = {*by_name, *known_as_none, *complete, *unreadable}
    if n_silent := sum(path.name not in told_of for path in paths):
        print(
            f"Learning from {len(paths) - n_silent:,} of {len(paths):,} micrographs: on the others "
            "nothing is labelled"
        )

    def record(path: Path) -> Micrograph:
        of_it = by_name.get(path.name)
        centres = np.empty((0, 2)) if of_it is None else of_it.centres_px
        return Micrograph(
            name=path.name,
            centres_px=centres,
            scores=np.full(len(centres), np.nan),
            diameters_px=np.full(len(centres), own_px.get(path.name, diameter_px)),
            size_px=None,
            path=path,
            negatives_px=known_as_none.get(path.name, np.empty((0, 2))),
            junk=masks.get(path.name),
            complete=path.name in complete,
        )

    for name in ("train", "val"):
        members = [path for path in paths if (path.name in val_names) == (name == "val")]
        records = tuple(
            record(path)
            for path in sorted(members, key=lambda path: path.name)
            if path.name in told_of
        )
        if not any(len(one.centres_px) for one in records):
            raise UserError(
                f"there is no pick on the {len(members)} micrographs of split '{name}': "
                "pick some there, or name others with --val-micrographs"
            )
        parts: list[str | bytes] = []
        for one in records:
            parts += [f"{one.name}:{len(one.centres_px)}:", one.centres_px.tobytes()]
            # Only what there is, so that stores of picks alone stay what they were
            if len(one.negatives_px):
                parts += [f"none:{len(one.negatives_px)}:", one.negatives_px.tobytes()]
            parts += ["complete:"] if one.complete else []
            parts += ["junk:", one.junk.read_bytes()] if one.junk else []
        splits[name] = Split(
            name=name,
            micrographs=records,
            source=source,
            annotations_hash=sha256(*parts),
            images_hash=sha256(*(f"{r.name}:{r.path.stat().st_size};" for r in records)),
        )
    return splits
