"""The server's part in rounds: it starts and stops them, and tells what they come to.

GET  /learning  /proposals/I
POST /propose  /train {"expected": N|null}  /go-on  /stop  /threshold {"threshold": T}
POST /export {"formats": [...]}
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anyio import to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from picking.errors import UserError
from picking.files import is_number
from picking.formats.coordinates import FORMATS
from picking.labelling.folder.labels import READ_ONLY
from picking.labelling.rounds.export import EXPORT, export, made_of
from picking.labelling.rounds.plan import ROOT, last_round, round_folder
from picking.labelling.rounds.progress import idle_round, progress
from picking.labelling.rounds.proposals import Proposals, last_with_proposals
from picking.labelling.rounds.runner import LOG, RUNNING, STATUS, STOP
from picking.labelling.web.bodies import json_of
from picking.labelling.web.work import Work
from picking.preprocessing.windows.priors import mean_of_complete

LOOK_S, IDLE_S = 1.0, 4.0  # while a round runs, and else


class Learning:
    """The routes of rounds. tell: sends a message to every page."""

    def __init__(self, work: Work, tell: Callable[[dict[str, Any]], None]) -> None:
        self.work, self._tell = work, tell
        self._told: dict[str, Any] | None = None
        self._children: list[subprocess.Popen] = []

    def routes(self) -> list[Route]:
        """Return the routes."""
        post = ["POST"]
        return [
            Route("/learning", self._learning),
            Route("/proposals/{place:int}", self._proposals),
            Route("/propose", self._propose, methods=post),
            Route("/train", self._train, methods=post),
            Route("/go-on", self._go_on, methods=post),
            Route("/stop", self._stop, methods=post),
            Route("/threshold", self._threshold, methods=post),
            Route("/export", self._export, methods=post),
        ]

    def overview(self) -> dict[str, Any]:
        """Return the last round's progress, and what the last one with proposals proposes."""
        work, k = self.work, last_round(self.work.labels.folder)
        self._find_proposals()
        known = [work.labels.history.of(name) for name in work.paths]
        usual = mean_of_complete(
            (len(labels.places_px(True)), labels.complete)
            for labels in known
            if not labels.left_out
        )
        result: dict[str, Any] = {
            "round": None if k is None else progress(round_folder(work.labels.folder, k)),
            "usual": None if usual is None else round(usual),
            "formats": [name for name in FORMATS],
            "proposals": None,
        }
        if (proposals := work.proposals) is not None:
            threshold = proposals.threshold()
            numbers = proposals.numbers(threshold)
            of_labels = work.labels.history, work.diameters_px.__getitem__, threshold
            result["proposals"] = {
                "round": int(proposals.round_path.name),
                "threshold": threshold,
                "histogram": proposals.histogram(),
                "numbers": {work.place[name]: n for name, n in numbers.items()},
                "left": {work.place[name]: n for name, n in proposals.left(*of_labels).items()},
                "quality": proposals.quality(*of_labels),
            }
        return result

    async def follow(self) -> None:
        """Tell the pages of a round's progress, as long as the server runs."""
        while True:
            overview = await to_thread.run_sync(self.overview)
            if overview != self._told:
                self._told = overview
                self._tell({"learning": overview})
            self._children = [child for child in self._children if child.poll() is None]
            is_running = overview["round"] and overview["round"]["state"] == RUNNING
            await asyncio.sleep(LOOK_S if is_running else IDLE_S)

    def _find_proposals(self) -> None:
        """Take the proposals of the last round that has any, and read what it picked since."""
        work = self.work
        known, path = work.proposals, last_with_proposals(work.labels.folder)
        if path is None:
            return
        if known is not None and known.round_path == path:
            if known.update():
                work.take_proposals(known)
            return
        found = Proposals(path, work.labels.sizes_px)
        found.update()
        work.take_proposals(found)

    def _start(self, k: int) -> None:
        folder = self.work.labels.folder
        round_path = round_folder(folder, k)
        (round_path / STATUS).unlink(missing_ok=True)
        (round_path / STOP).unlink(missing_ok=True)
        os.utime(round_path)
        command = [sys.executable, ROOT / "label_particles.py", "--output", folder, "--go-on", k]
        with (round_path / LOG).open("ab") as log:
            child = subprocess.Popen(
                list(map(str, command)), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        self._children.append(child)

    def _require_free(self) -> Path | None:
        """Return the folder of the last round; raises `UserError` while it runs, or read-only."""
        labels = self.work.labels
        if labels.used_by is not None:
            raise UserError(READ_ONLY.format(labels.used_by))
        return idle_round(labels.folder)

    async def _learning(self, request: Request) -> Response:
        return JSONResponse(await to_thread.run_sync(self.overview))

    async def _proposals(self, request: Request) -> Response:
        place, work = request.path_params["place"], self.work
        if not 0 <= place < len(work.names):
            raise HTTPException(404, "there is no such micrograph")
        name = work.names[place]
        return JSONResponse(work.proposals.as_json(name) if work.proposals else [])

    async def _train(self, request: Request) -> Response:
        asked = await json_of(request)
        expected = asked.get("expected")
        if expected is not None and (not is_number(expected) or expected <= 0):
            raise UserError("the number of particles on a micrograph is above 0")
        return await self._begin(expected, learns=True)

    async def _propose(self, request: Request) -> Response:
        await json_of(request)
        return await self._begin(None, learns=False)

    async def _begin(self, expected: float | None, learns: bool) -> Response:
        """Plan a round and start it."""

        def started() -> int:
            self._require_free()
            k = self.work.plan_round(expected, learns)
            self._start(k)
            return k

        return JSONResponse({"round": await to_thread.run_sync(started)})

    async def _go_on(self, request: Request) -> Response:
        await json_of(request)
        last = self._require_free()
        if last is None:
            raise UserError("there is no round yet: train")
        self._start(int(last.name))
        return JSONResponse({"round": int(last.name)})

    async def _stop(self, request: Request) -> Response:
        await json_of(request)
        labels = self.work.labels
        if labels.used_by is not None:
            raise UserError(READ_ONLY.format(labels.used_by))
        if (k := last_round(labels.folder)) is not None:
            (round_folder(labels.folder, k) / STOP).touch()
        return JSONResponse({})

    async def _threshold(self, request: Request) -> Response:
        threshold = (await json_of(request)).get("threshold")
        if self.work.labels.used_by is not None:
            raise UserError(READ_ONLY.format(self.work.labels.used_by))
        if self.work.proposals is None:
            raise UserError("there are no proposals yet: train")
        self.work.proposals.keep_threshold(threshold)
        return JSONResponse(await to_thread.run_sync(self.overview))

    async def _export(self, request: Request) -> Response:
        formats, work = (await json_of(request)).get("formats"), self.work
        if not isinstance(formats, list) or not formats or not {*formats} <= {*FORMATS}:
            raise UserError(f"formats are some of {', '.join(FORMATS)}")
        if work.labels.used_by is not None:
            raise UserError(READ_ONLY.format(work.labels.used_by))
        folder = work.labels.folder / EXPORT

        def exported() -> int:
            return export(
                folder, work.labels.history, work.labels.sizes_px, work.diameters_px,
                work.proposals, formats, work.listed,
            )  # fmt: skip

        n = await to_thread.run_sync(exported)
        what = made_of(work.proposals, len(work.labels.sizes_px))
        return JSONResponse({"n_picks": n, "folder": str(folder), "made_of": what})
