"""What is worked on: the micrographs in their order, their labels and pictures, what comes next."""

import dataclasses
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from picking.inputs.micrograph_lists import MicrographList
from picking.inputs.paths import Paths
from picking.labelling.folder.actions import Labels
from picking.labelling.folder.derived import counts
from picking.labelling.folder.labels import LabelsFolder
from picking.labelling.folder.session import Session
from picking.labelling.proposing import propose
from picking.labelling.rounds.plan import write_plan
from picking.labelling.rounds.proposals import Proposals
from picking.labelling.viewing.pictures import LATER, Pictures
from picking.labelling.viewing.pyramid import TILE_PX

# The first micrograph to look at is chosen from so many, or from those seen in so many seconds
FIRST_OF, FIRST_S = 12, 2.0
# Thumbnails that are made unasked, to choose from what differs: each takes reading a micrograph
MOST_AHEAD = 400
GOLDEN = (5**0.5 - 1) / 2


@dataclasses.dataclass
class Work:
    """A session at work, as the page sees it; micrographs go by their place in ``names``.

    names: of all, those without a file among them. problems: why one cannot be looked at, by name.
    diameters_px and paths: of those that can be read. listed: the list that names the micrographs,
    if one does. config: of training. proposals: of the last round that has some.
    id: tells these labels from those of another server on the same port.
    """

    session: Session
    names: Sequence[str]
    problems: Mapping[str, str]
    labels: LabelsFolder
    pictures: Pictures
    diameters_px: Mapping[str, float]
    paths: Paths
    listed: MicrographList | None
    config: Path | None
    proposals: Proposals | None = None
    id: str = ""

    def __post_init__(self) -> None:
        self.place = {name: place for place, name in enumerate(self.names)}
        self._seen: dict[str, None] = {}
        self._proposed: dict[str | None, dict[str, Any] | None] = {}
        self._lock = threading.Lock()

    def plan_round(self, expected: float | None, learns: bool) -> int:
        """Plan the next round of this session; return its number. See `write_plan`."""
        return write_plan(
            self.labels, self.session, self.paths, self.listed is not None, expected, self.config,
            learns,
        )  # fmt: skip

    def begin(self) -> None:
        """Begin to make pictures ahead, thumbnails of micrographs all over the list."""
        readable = [name for name in self.names if name not in self.problems]
        # Any first part of these is spread evenly over the list, in which neighbours are alike
        spread = sorted(range(len(readable)), key=lambda place: place * GOLDEN % 1)[:MOST_AHEAD]
        self.pictures.prepare([readable[place] for place in spread], LATER, thumbnails=True)
        self.pictures.begin()

    def overview(self) -> dict[str, Any]:
        """Return the session, and of every micrograph its name, state and counts."""
        folder: Path = self.labels.folder
        return {
            "id": self.id,
            "folder": folder.absolute().name,
            "diameter": self.session.diameter,
            "used_by": self.labels.used_by,
            "tile_px": TILE_PX,
            "micrographs": [self.row(name) for name in self.names],
            **self.ends(),
        }

    def row(self, name: str) -> dict[str, Any]:
        """Return the state and counts of a micrograph."""
        state, n_picks, n_negatives = counts(self.labels.history.of(name))
        return {
            "name": name,
            "state": state,
            "picks": n_picks,
            "not_particles": n_negatives,
            "problem": self.problems.get(name),
        }

    def ends(self) -> dict[str, Any]:
        """Return how many events there are, and what can be undone and done again."""
        history = self.labels.history
        return {"n": history.n, "undo": history.can_undo, "redo": history.can_redo}

    def micrograph(self, name: str) -> dict[str, Any]:
        """Return what the page needs of a micrograph to show it; makes its picture.

        Raises `UserError` where the file cannot be read.
        """
        with self._lock:
            self._seen[name] = None
        pyramid = self.pictures.pyramid(name)
        return {
            "micrograph": self.place[name],
            "size_px": pyramid.size_px,
            "n_levels": len(pyramid.levels),
            "stamp": self.pictures.stamp(name),
            "diameter_px": self.diameters_px[name],
            **self.labels_of(name),
        }

    def labels_of(self, name: str) -> dict[str, Any]:
        """Return the labels of a micrograph, with the number of the last event in them."""
        n = self.labels.history.n
        return {"n": n, "labels": as_json(self.labels.history.of(name))}

    def next_after(self, name: str | None) -> dict[str, Any] | None:
        """Return which micrograph to look at after one and why, and have it made ready."""
        if name is None:
            self._wait_for_some_thumbnails()
        with self._lock:
            known = self._proposed.get(name)
            if known is not None and self._still_stands(known["name"]):
                return known
            history = self.labels.history
            usable = [one for one in self.names if one not in self.problems]
            states = {one: history.of(one).state for one in usable}
            proposal = propose(
                states,
                self.pictures.features(),
                self.proposals.uncertainty() if self.proposals else {},
                self._seen,
                name,
            )
            if proposal is None:
                return None
            answer = {"micrograph": self.place[proposal.name], **proposal._asdict()}
            # Once it was said, it stands, since it is made ready meanwhile
            self._proposed[name] = answer
        self.pictures.prepare([proposal.name])
        return answer

    def take_proposals(self, proposals: Proposals) -> None:
        """Take a round's proposals, which change what is worth looking at."""
        with self._lock:
            self.proposals = proposals
            self._proposed.clear()

    def _wait_for_some_thumbnails(self) -> None:
        """Wait, not for long, until there is something to choose the very first one from."""
        enough = min(FIRST_OF, len(self.names) - len(self.problems))
        give_up = time.monotonic() + FIRST_S
        while len(self.pictures.features()) < enough and time.monotonic() < give_up:
            time.sleep(0.05)

    def _still_stands(self, name: str) -> bool:
        return name not in self._seen and self.labels.history.of(name).state == "untouched"


def as_json(labels: Labels) -> dict[str, Any]:
    """Return labels as the page keeps them."""
    return {
        "marks": [[i, *mark.centre_px, mark.is_particle] for i, mark in labels.marks.items()],
        "junk": [
            {"path": stroke.path_px, "radius": stroke.radius_px, "erase": stroke.erases}
            for stroke in labels.junk
        ],
        "complete": labels.complete,
        "left_out": labels.left_out,
    }
