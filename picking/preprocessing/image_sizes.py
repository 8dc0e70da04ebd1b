"""Which images of a split are used, and how large they are, before any is decoded."""

from collections.abc import Sequence

import numpy as np

from picking.errors import UserError
from picking.formats.picks import Micrograph, inside
from picking.inputs.annotations import Split
from picking.micrographs.problems import UnreadableImage
from picking.micrographs.reading import image_size
from picking.parallel import ordered_map
from picking.seeds import stream


def read_headers(
    split: Split,
    limit: int | None,
    skipped: list[str],
    skip_unreadable: bool,
    seed: int,
    n_workers: int,
) -> tuple[list[Micrograph], list[tuple[int, int]]]:
    """Return a split's micrographs without those in ``skipped``, and their (height, width) in px.

    limit: so many are drawn at random, if there are more. Images whose header cannot be read are
    added to ``skipped`` with ``skip_unreadable``, otherwise they are a `UserError`.
    """
    members = list(split.micrographs)
    if limit is not None and limit < len(members):
        order = stream(seed, "max-images", split.name).permutation(len(members))
        members = [members[i] for i in sorted(order[:limit])]
    wanted = [m for m in members if m.name not in skipped]
    read = list(ordered_map(_try_size, wanted, n_workers, f"Headers {split.name}"))
    problems = [size for size in read if isinstance(size, str)]
    if problems and (not skip_unreadable or len(problems) == len(read)):
        raise unreadable_error(problems, len(read))
    skipped += [m.name for m, size in zip(wanted, read, strict=True) if isinstance(size, str)]
    records = [m for m in wanted if m.name not in skipped]
    return records, [size for size in read if not isinstance(size, str)]


def _try_size(micrograph: Micrograph) -> tuple[int, int] | str:
    """Return (height, width) px, or what is wrong with the file."""
    try:
        return image_size(micrograph.path)
    except UnreadableImage as error:
        return str(error)


def unreadable_error(problems: list[str], n_images: int) -> UserError:
    """Name and count the images that cannot be read."""
    return UserError(
        f"{len(problems)} of {n_images} micrographs cannot be read: {'; '.join(problems[:3])}"
        f"{'; ...' if len(problems) > 3 else ''}; mend them and run the same command again, or "
        "leave them out with --skip-unreadable"
    )


def distances_to_edge(
    records: Sequence[Micrograph], sizes_px: Sequence[tuple[int, int]]
) -> np.ndarray:
    """Return how far each particle's centre that is inside lies from the nearest edge, px (n,)."""
    distances = [np.empty(0)]
    for record, size_px in zip(records, sizes_px, strict=True):
        centres = record.centres_px[inside(record, size_px)]
        distances.append(np.minimum(centres, size_px - centres).min(axis=1))
    return np.concatenate(distances)
