"""Whether coordinates fit the micrographs: as read, or better in another way, or nowhere.

A particle stands out from its surroundings. So the contrast at the scale of a particle is taken
where the picks are, as a rank among all places of the micrograph, whose mean and standard
deviation at random places are known. The same is done for other readings of the coordinates
(`picking.inputs.readings`). How often it is right on real micrographs: `benchmarks/placement.py`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from picking.errors import UserError, warn
from picking.formats.coordinates import frame_of
from picking.formats.names import few
from picking.formats.picks import Picks, require_px
from picking.inputs.annotations import Split
from picking.inputs.diameters import diameter_in_px
from picking.inputs.paths import Paths
from picking.inputs.readings import Reading, readings
from picking.micrographs.problems import UnreadableImage
from picking.micrographs.reading import image_size, read_scaled

CHECKED = 10  # micrographs that are looked at, and picks on each
PICKS_CHECKED = 50
PARTICLE_PX = 8  # particles are scaled to about so many px
# From how many standard deviations above random places another reading is named, and from how many
# it is an error. The more ways a kind has, the more it takes; the frame is what is wrong most.
NAMED_FROM = {"frame": 3.3, "orientation": 3.5, "binning": 3.5, "shift": 4.2, "scale": 4.6}
REFUSED_FROM = {"frame": 3.3, "orientation": 5.0, "binning": 5.0, "shift": np.inf, "scale": 6.0}
AHEAD = 2.5  # of the coordinates as read, at least, in standard deviations ...
AHEAD_MEAN = 0.3  # ... and as the mean of the picks
NEAR_BEST = 0.85  # of two readings that fit nearly as well, the more usual mistake is named
# Faint particles have this mean contrast at least: picks with less, and 2.5 standard errors, none.
FAINT = 0.5
RANDOM_BELOW = 3.0
LEAST_OF_CORNER = 10  # picks
SURE_ALONE = 5.0  # standard deviations, of another reading on one micrograph alone
POLARITY_FROM = 4.0  # standard deviations, for a micrograph's own polarity


class Checked(NamedTuple):
    """A micrograph that is looked at: ranks (h, w) of its contrast, -1 to 1, and its picks."""

    name: str
    ranks: np.ndarray
    centres_px: np.ndarray  # (n, 2), (y, x) as the file has them
    size_px: tuple[int, int]


def check_placement(
    picks: Sequence[Picks],
    paths: Paths,
    files: Sequence[Path],
    frame: str | None,
    flag: str,
    diameter_px: float | None,
    own_px: Mapping[str, float] = MappingProxyType({}),
    of_particles: bool = True,
) -> None:
    """Raise `UserError` or warn when coordinates do not fit the micrographs as they are read.

    files: that the picks were read from, in ``frame`` or, where that is None, in what their format
    has. diameter_px: of the particles; None: what the picks state. own_px: diameters by name on
    micrographs whose px have another size. The message names ``flag``. Places that are no particles
    need not stand out, so without ``of_particles`` the other frame alone tells anything.
    """
    more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
    frame = frame or frame_of(files[0])
    cure = f"give {flag} {'jpeg' if frame == 'mrc' else 'mrc'}"
    _check(picks, paths, f"{files[0]}{more}", frame, cure, diameter_px, own_px, of_particles)


def check_splits(splits: dict[str, Split]) -> None:
    """Do the same for the annotated micrographs of a data set, split by split."""
    for split in splits.values():
        paths = {m.name: m.path for m in split.micrographs}
        _check(split.micrographs, paths, split.source, "jpeg", "mend the annotation", None)


def _check(
    picks: Sequence[Picks],
    paths: Paths,
    source: str,
    frame: str,
    cure: str,
    diameter_px: float | None,
    own_px: Mapping[str, float] = MappingProxyType({}),
    of_particles: bool = True,
) -> None:
    require_px(picks, source)
    placed = [one for one in picks if one.name in paths and len(one.centres_px)]
    if len(placed) > CHECKED:  # some from everywhere: a data set may hold several proteins
        placed = [placed[n * len(placed) // CHECKED] for n in range(CHECKED)]
    if not placed:
        return
    width_px = diameter_px or diameter_in_px(None, None, _median_px(placed))
    widths_px = [
        own_px.get(one.name) or diameter_px or _median_px([one]) or width_px for one in placed
    ]
    checked = [
        _looked_at(one, paths[one.name], frame, px)
        for one, px in zip(placed, widths_px, strict=True)
    ]
    found = [one for one in checked if one is not None]
    if not found:
        return
    as_read, best = _fits(found, frame, width_px)
    n_picks = sum(len(one.centres_px) for one in found)
    if not of_particles and (best is None or best.reading.kind != "frame"):
        return
    if best is not None:
        does = f"coordinates fit the micrographs better when read {best.reading.words}"
        if best.reading.kind == "frame":
            does = (
                f"{best.n_ahead:,} of {n_picks:,} coordinates fit the micrographs better when "
                f"turned upside down, so they are not in the frame '{frame}'"
            )
        else:
            cure = "mend the file"
        sigmas = f"{best.sigmas:.1f} standard deviations above random places, {as_read.sigmas:.1f}"
        if best.is_plain(as_read):
            raise UserError(f"{source}: {does}: {cure}")
        advice = f"{cure}, unless an overlay shows them in place"
        warn(f"{source}: {does} ({sigmas} as they are): {advice}")
        return
    astray = [
        (one.name, better.reading.words)
        for one, px in zip(checked, widths_px, strict=True)
        if one is not None and (better := _better_alone(one, frame, px))
    ]
    if astray:
        warn(
            f"{source}: coordinates on {len(astray):,} of {len(found):,} micrographs looked at fit "
            f"better when read {astray[0][1]} (e.g. on {few(name for name, _ in astray)}), unlike "
            "on the others: mend those, unless an overlay shows them in place"
        )
    elif len(mixed := _polarities(found, frame)) == 2:
        warn(
            f"{source}: particles are darker than their surroundings in {mixed[0]} and brighter in "
            f"{mixed[1]}: invert some of the micrographs, so that all are alike"
        )
    elif as_read.sigmas < RANDOM_BELOW and (part := _corner(found)):
        warn(
            f"{source}: all coordinates lie in the first 1/{part} of the micrographs' width and "
            "height, and there is no contrast there: they may be of binned micrographs; multiply "
            f"them by the binning, e.g. {part}"
        )
    elif as_read.sigmas < RANDOM_BELOW and as_read.mean + 2.5 * as_read.error < FAINT:
        warn(
            f"{source}: the micrographs have no more contrast at the {n_picks:,} coordinates "
            "looked at than anywhere: look at an overlay or montage whether they are of these "
            "micrographs and in px of them, and check the diameter"
        )


def _median_px(picks: Sequence[Picks]) -> float | None:
    """Return the median of the diameters that picks state, None where none does."""
    stated = np.concatenate([one.diameters_px for one in picks])
    stated = stated[np.isfinite(stated)]
    return float(np.median(stated)) if len(stated) else None


def contrast_ranks(path: Path, diameter_px: float) -> np.ndarray:
    """Return how bright each place is against around at a particle's scale, as ranks.

    float32 (h', w'), -1 the darkest to 1 the brightest, of the micrograph made smaller. It is a
    difference of Gaussians, the narrow one of a quarter of ``diameter_px``; of several filters it
    told true particles best. Raises `UnreadableImage`.
    """
    from scipy.ndimage import gaussian_filter
    from scipy.stats import rankdata

    factor = max(1, int(diameter_px / PARTICLE_PX))
    height, width = image_size(path)
    small = read_scaled(path, (max(1, height // factor), max(1, width // factor)))
    sigma = diameter_px / factor / 4
    grey = small.astype(np.float32)
    response = gaussian_filter(grey, sigma) - gaussian_filter(grey, 1.6 * sigma)
    ranks = rankdata(response).reshape(response.shape)
    return ((2 * ranks - 1) / ranks.size - 1).astype(np.float32)


def _looked_at(picks: Picks, path: Path, frame: str, diameter_px: float) -> Checked | None:
    try:
        ranks, size_px = contrast_ranks(path, diameter_px), image_size(path)
    except UnreadableImage:  # whoever needs it will say so
        return None
    y, x = picks.centres_px[:: -(-len(picks.centres_px) // PICKS_CHECKED)].T
    as_filed = np.stack([size_px[0] - y if frame == "mrc" else y, x], axis=1)
    return Checked(picks.name, ranks, as_filed, size_px)


@dataclasses.dataclass(frozen=True)
class Fit:
    """How well one reading fits: its mean over picks, the standard error, and their ratio.

    n_ahead: of the picks that fit better so than as read.
    """

    reading: Reading
    mean: float
    error: float
    sigmas: float
    n_ahead: int

    def is_ahead(self, as_read: "Fit") -> bool:
        """Return whether this reading is clearly better, so that it is to be named."""
        return (
            self.sigmas >= NAMED_FROM[self.reading.kind]
            and self.sigmas - as_read.sigmas >= AHEAD
            and self.mean - as_read.mean >= AHEAD_MEAN
        )

    def is_plain(self, as_read: "Fit") -> bool:
        """Return whether it is so clearly better that the coordinates are refused."""
        return self.sigmas >= REFUSED_FROM[self.reading.kind] and self.is_ahead(as_read)


AS_READ = Reading("read", "as they are", lambda centres, size_px: centres)


def _fits(found: Sequence[Checked], frame: str, diameter_px: float) -> tuple[Fit, Fit | None]:
    """Return how well the coordinates fit as read, and the better reading where there is one."""
    extent = np.concatenate([one.centres_px / one.size_px for one in found]).max(axis=1)
    side_px = max(max(one.size_px) for one in found)
    largest = 1 / max(float(np.quantile(extent, 0.9)), 1e-3)
    ways = [AS_READ, *readings(frame, diameter_px, largest, side_px)]
    # 1. The ranks where the picks are, by reading; 0 outside, where nothing is known
    ranks = np.array([np.concatenate([_ranks(one, way, frame) for one in found]) for way in ways])
    inside = np.isfinite(ranks).mean(axis=1) >= 0.9
    ranks = np.nan_to_num(ranks)
    # 2. Particles are dark, bright, or either: three features of mean 0 and deviation 1
    features = np.stack([-ranks, ranks, 2 * np.abs(ranks) - 1]) * 3**0.5
    means = features.mean(axis=2)
    # 3. Picks nearer than a diameter tell the same, so no more count than have room
    room = sum(np.prod(np.ptp(one.centres_px, axis=0) + diameter_px) for one in found)
    count = [min(ranks.shape[1], way.factor**2 * room / diameter_px**2) for way in ways]
    errors = 1 / np.sqrt(count)
    sigmas = np.where(inside, means / errors, -np.inf)
    feature = sigmas.argmax(axis=0)

    def fit(n: int) -> Fit:
        of = feature[n]
        ahead = int((features[of, n] > features[of, 0]).sum())
        return Fit(ways[n], float(means[of, n]), errors[n], float(sigmas[of, n]), ahead)

    as_read = fit(0)
    # A shift that is as good the other way is no shift: particles are larger than is said
    shifts = [n for n, way in enumerate(ways) if way.kind == "shift"]
    back = dict(zip(shifts, reversed(shifts), strict=True))
    either = {n for n in shifts if sigmas[feature[n], back[n]] > sigmas[feature[n], n] / 2}
    fits = [fit(n) for n in range(1, len(ways)) if n not in either]
    others = [one for one in fits if one.is_ahead(as_read)]
    if not others:
        return as_read, None
    enough = NEAR_BEST * max(one.sigmas for one in others)
    kind = next(one.reading.kind for one in others if one.sigmas >= enough)
    return as_read, max((o for o in others if o.reading.kind == kind), key=lambda o: o.sigmas)


def _better_alone(one: Checked, frame: str, diameter_px: float) -> Fit | None:
    """Return the reading in which one micrograph's picks alone plainly fit better, where one is."""
    _, best = _fits([one], frame, diameter_px)
    if best is None or best.reading.kind not in ("frame", "orientation", "binning"):
        return None
    return best if best.sigmas >= SURE_ALONE else None


def _ranks(one: Checked, way: Reading, frame: str) -> np.ndarray:
    """Return the ranks at the picks in another reading, NaN outside."""
    y, x = way.move(one.centres_px, one.size_px).T
    shape = np.array(one.ranks.shape)
    in_jpeg = np.stack([one.size_px[0] - y if frame == "mrc" else y, x], axis=1)
    at = np.floor(in_jpeg * (shape / one.size_px)).astype(int)
    inside = ((at >= 0) & (at < shape)).all(axis=1)
    rows, columns = np.clip(at, 0, shape - 1).T
    return np.where(inside, one.ranks[rows, columns], np.nan)


def _polarities(found: Sequence[Checked], frame: str) -> list[str]:
    """Return a micrograph with dark and one with bright particles, where there are both."""
    names: dict[bool, str] = {}
    for one in found:
        ranks = np.nan_to_num(_ranks(one, AS_READ, frame))
        sigmas = 3**0.5 * ranks.mean() * len(ranks) ** 0.5
        if abs(sigmas) >= POLARITY_FROM:
            names.setdefault(bool(sigmas > 0), one.name)
    return [names[bright] for bright in sorted(names)]


def _corner(found: Sequence[Checked]) -> int | None:
    """Return 2, 4 or 8 where all lie within that part of the width and height, else None."""
    y, x = np.concatenate([one.centres_px / one.size_px for one in found]).T
    if len(y) < LEAST_OF_CORNER:
        return None
    extent = max(x.max(), min(y.max(), 1 - y.min()))
    return next((part for part in (8, 4, 2) if extent < 1 / part), None)
