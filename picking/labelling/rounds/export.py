"""What all of it comes to, in any format: labels, and elsewhere proposals above the threshold."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from picking.files import make_folder
from picking.formats.coordinates import FORMATS, write_picks
from picking.formats.picks import Picks
from picking.formats.relion.writing import remove_relion, write_relion
from picking.inputs.labels_folder import LEFT_OUT
from picking.inputs.micrograph_lists import MicrographList
from picking.labelling.folder.actions import Labels
from picking.labelling.folder.history import History
from picking.labelling.rounds.proposals import Proposals, not_marked

CLICKED_SCORE = 1.0
EXPORT = "export"  # below the folder of labels


def final_picks(
    name: str,
    labels: Labels,
    candidates: Picks | None,
    threshold: float,
    size_px: tuple[int, int],
    diameter_px: float,
) -> Picks:
    """Return the picks of a micrograph: what was marked, and what the network adds (`not_marked`).

    What was marked scores `CLICKED_SCORE`; a micrograph that is left out has no picks.
    """
    marked = np.array(labels.places_px(True)).reshape(-1, 2)
    added, scores = np.empty((0, 2)), np.empty(0)
    if candidates is not None:
        keep = candidates.scores >= threshold
        keep &= not_marked(candidates, labels, size_px, diameter_px)
        added, scores = candidates.centres_px[keep], candidates.scores[keep]
    if labels.state == LEFT_OUT:
        marked = marked[:0]
    centres = np.concatenate([marked, added])
    all_scores = np.concatenate([np.full(len(marked), CLICKED_SCORE), scores])
    return Picks(name, centres, all_scores, np.full(len(centres), diameter_px), size_px)


def export(
    folder: Path,
    history: History,
    sizes_px: Mapping[str, tuple[int, int]],
    diameters_px: Mapping[str, float],
    proposals: Proposals | None,
    formats: Sequence[str],
    listed: MicrographList | None,
) -> int:
    """Write the picks of all micrographs into a folder; return how many there are.

    What an earlier export wrote there, in these formats, of micrographs that have none now, goes.

    formats: keys of `picking.formats.coordinates.FORMATS`. Where a list names the micrographs,
    RELION's list of coordinate files is written too. Raises `UserError` as `write_picks` does.
    """
    threshold = proposals.threshold() if proposals else 0.0
    picks = [
        final_picks(
            name,
            history.of(name),
            proposals.of(name) if proposals else None,
            threshold,
            size_px,
            diameters_px[name],
        )
        for name, size_px in sizes_px.items()
    ]
    make_folder(folder)
    exposures = listed.exposures if listed else {}
    names = listed.names if listed else {}
    written = {*write_picks(folder, picks, formats, exposures=exposures, names=names)}
    for name in formats:
        for path in (folder / name).glob(f"*{FORMATS[name]}"):
            if path not in written:
                path.unlink()
    if listed is None or listed.exposures:
        remove_relion(folder)
    else:
        write_relion(
            folder, picks, listed.names, listed.groups, listed.optics, listed.project, listed.path
        )
    return sum(len(one.scores) for one in picks)


def made_of(proposals: Proposals | None, n_micrographs: int) -> str:
    """Return in words what exported picks of so many micrographs are made of."""
    if proposals is None:
        return "what was marked; no round has proposals yet"
    return (
        f"what was marked, and proposals of round {proposals.round_path.name} from "
        f"{proposals.threshold():.3f} up, which {len(proposals):,} of {n_micrographs:,} "
        "micrographs have"
    )
