"""The server's answers, in JSON; what changes is pushed to every page as it happens.

    GET  /  /page/FILE                        the page
    GET  /session                             all micrographs with their states
    GET  /micrographs/I                       what is needed to show one
    GET  /tiles/I/LEVEL/ROW/COLUMN  /thumbnails/I
    GET  /next?after=I                        what to look at next, and why
    POST /actions                             {"session": ID, "actions": [...]}: what was clicked
    GET  /pushes                              server-sent events

and those of rounds, in `learning`.

Micrographs go by their place in the list: no request holds a path.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from picking.errors import UserError, sentence_of
from picking.labelling.folder.actions import OF_ACTIONS
from picking.labelling.folder.labels import Done
from picking.labelling.web.bodies import json_of
from picking.labelling.web.learning import Learning
from picking.labelling.web.work import Work

PAGE = Path(__file__).parent.parent / "page"
KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
FOLLOW_S = 0.4  # how often another process's events are looked for, and changed files are written
ALIVE_S = 10.0  # how often a page hears that the server is there
CLOSING_S = 0.3
FOR_A_DAY = {"cache-control": "private, max-age=86400, immutable"}  # the address has the stamp


class Answers:
    """The routes, and the pages that listen. is_closing: whether the server is to end."""

    def __init__(self, work: Work, is_closing: Callable[[], bool]) -> None:
        self.work, self.is_closing = work, is_closing
        self.learning = Learning(work, self.tell)
        self.listening: set[asyncio.Queue[dict[str, Any]]] = set()
        self.problem: str | None = None  # with the disk, said once
        self.files = {
            path.name: (path.read_bytes(), KINDS[path.suffix])
            for path in sorted(PAGE.iterdir())
            if path.suffix in KINDS
        }

    def app(self) -> Starlette:
        """Return the application."""
        return Starlette(
            routes=[
                Route("/", self._index),
                Route("/page/{file}", self._file),
                Route("/session", self._session),
                Route("/micrographs/{place:int}", self._micrograph),
                Route("/tiles/{place:int}/{level:int}/{row:int}/{column:int}", self._tile),
                Route("/thumbnails/{place:int}", self._thumbnail),
                Route("/next", self._next),
                Route("/actions", self._actions, methods=["POST"]),
                Route("/pushes", self._pushes),
                *self.learning.routes(),
            ],
            exception_handlers={UserError: _say, OSError: _say, HTTPException: _say_http},
            lifespan=self._lifespan,
        )

    async def _index(self, request: Request) -> Response:
        content, kind = self.files["index.html"]
        return Response(content, media_type=kind)

    async def _file(self, request: Request) -> Response:
        content, kind = self.files.get(request.path_params["file"], (None, ""))
        if content is None:
            raise HTTPException(404, "there is no such file")
        return Response(content, media_type=kind)

    async def _session(self, request: Request) -> Response:
        return JSONResponse(await to_thread.run_sync(self.work.overview))

    async def _micrograph(self, request: Request) -> Response:
        name = self._readable(request.path_params["place"])
        return JSONResponse(await to_thread.run_sync(self.work.micrograph, name))

    async def _tile(self, request: Request) -> Response:
        where = request.path_params
        name = self._readable(where["place"])

        def made() -> bytes:
            pyramid = self.work.pictures.pyramid(name)
            return pyramid.tile(where["level"], where["row"], where["column"])

        try:
            return Response(await to_thread.run_sync(made), 200, FOR_A_DAY, "image/jpeg")
        except IndexError as error:
            raise HTTPException(404, "there is no such tile") from error

    async def _thumbnail(self, request: Request) -> Response:
        name = self._readable(request.path_params["place"])
        made = await to_thread.run_sync(self.work.pictures.thumbnail, name)
        return Response(made.jpeg, 200, {"cache-control": "private, max-age=60"}, "image/jpeg")

    async def _next(self, request: Request) -> Response:
        after = request.query_params.get("after", "")
        name = self._name(int(after)) if after.isdecimal() else None
        return JSONResponse(await to_thread.run_sync(self.work.next_after, name))

    async def _actions(self, request: Request) -> Response:
        """Do what was clicked, in its order; answer of each that it is done, or why not."""
        content = await json_of(request)
        if content.get("session") != self.work.id:  # a window of a server that was here before
            raise HTTPException(409, "The server has other labels now: reload this page.")
        actions = content.get("actions")
        if not isinstance(actions, list):
            raise HTTPException(400, "actions is a list")
        answers = []
        for action in actions:
            own = action.get("id") if isinstance(action, dict) else None
            try:
                done = await to_thread.run_sync(self.work.labels.act, action)
            except UserError as error:
                answers.append({"id": own, "refused": str(error)})
                continue
            answers.append({"id": own, "known": done is None})
            if done is not None:
                self.publish(done)
        return JSONResponse({"answers": answers})

    async def _pushes(self, request: Request) -> Response:
        return StreamingResponse(self._listen(), media_type="text/event-stream")

    async def _listen(self) -> AsyncIterator[str]:
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.listening.add(queue)
        silent_s = 0.0
        try:
            yield _push({"hello": self.work.labels.history.n, "problem": self.problem})
            while not self.is_closing():
                try:
                    yield _push(await asyncio.wait_for(queue.get(), CLOSING_S))
                except asyncio.TimeoutError:
                    silent_s += CLOSING_S
                    if silent_s >= ALIVE_S:
                        silent_s = 0.0
                        yield ": alive\n\n"
        finally:
            self.listening.discard(queue)

    def publish(self, done: Done) -> None:
        """Tell every page of an event and of the micrograph that it changed."""
        if done.event["do"] == "size":
            return
        message: dict[str, Any] = {"event": done.event, **self.work.ends()}
        if done.name in self.work.place:
            message |= {"micrograph": self.work.place[done.name], "row": self.work.row(done.name)}
            if done.event["do"] in OF_ACTIONS:
                message |= self.work.labels_of(done.name)
        # Others may have been done since: what is told of must not pass for later
        self.tell({**message, "n": done.n})

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message to every page."""
        for queue in self.listening:
            queue.put_nowait(message)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Write changed files, or follow another process's events, as long as the server runs."""
        tasks = [asyncio.create_task(f()) for f in (self._follow, self.learning.follow)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(FOLLOW_S)
            problem = None
            try:
                if self.work.labels.used_by is None:
                    await to_thread.run_sync(self.work.labels.write_changed)
                else:
                    for done in await to_thread.run_sync(self.work.labels.follow):
                        self.publish(done)
            except (UserError, OSError) as error:
                problem = sentence_of(error) or str(error)
            if problem != self.problem:
                self.problem = problem
                self.tell({"problem": problem})

    def _name(self, place: int) -> str:
        if not 0 <= place < len(self.work.names):
            raise HTTPException(404, "there is no such micrograph")
        return self.work.names[place]

    def _readable(self, place: int) -> str:
        name = self._name(place)
        if name in self.work.problems:
            raise UserError(self.work.problems[name])
        return name


def _push(message: dict[str, Any]) -> str:
    return f"data: {json.dumps(message)}\n\n"


async def _say(request: Request, error: Exception) -> Response:
    """Answer with the sentence of an error that the user can mend."""
    status = 507 if isinstance(error, OSError) else 422
    return JSONResponse({"problem": sentence_of(error) or str(error)}, status)


async def _say_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"problem": error.detail}, error.status_code)
