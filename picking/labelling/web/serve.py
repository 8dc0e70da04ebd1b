"""Starting the server: its port, its address, how it ends."""

import getpass
import os
import socket

import uvicorn

from picking.errors import Stopped, UserError, raise_if_stopped
from picking.files import sha256
from picking.labelling.web.app import Answers
from picking.labelling.web.guard import LOOPBACK, Guard, token_of
from picking.labelling.web.work import Work

TRIED_PORTS = 100


def listening_socket(host: str, port: int) -> socket.socket:
    """Return a socket bound to a port; a `UserError` names the next free one where it is in use."""
    try:
        return _bound(host, port)
    except PermissionError as error:
        raise UserError(f"--port {port} is not for everybody: choose one above 1023") from error
    except socket.gaierror as error:
        raise UserError(f"--host {host} is no name or address of this machine") from error
    except OSError as error:
        if error.errno == 99:  # EADDRNOTAVAIL
            raise UserError(f"--host {host} is no name or address of this machine") from error
        for other in range(port + 1, min(port + TRIED_PORTS, 65536)):
            try:
                _bound(host, other).close()
            except OSError:
                continue
            raise UserError(f"port {port} is in use: --port {other} is free") from error
        raise UserError(f"port {port} is in use, and so are those after it: give --port") from error


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(128)  # else two servers may bind one port
    except OSError:
        bound.close()
        raise
    return bound


def serve(work: Work, host: str, listening: socket.socket) -> None:
    """Serve the page until Ctrl-C or SIGTERM, and print where it is."""
    port = listening.getsockname()[1]
    token = token_of(work.labels.folder, work.labels.used_by is None)
    work.id = sha256("session of ", token)[:16]
    answers = Answers(work, lambda: server.should_exit)
    guard = Guard(answers.app(), token, host, port)

    async def heed_earlier() -> None:
        """End after a Ctrl-C that came before uvicorn was there to take it."""
        try:
            raise_if_stopped()
        except Stopped:
            server.should_exit = True

    server = uvicorn.Server(
        uvicorn.Config(
            guard, log_level="warning", ws="none", access_log=False, timeout_graceful_shutdown=2,
            server_header=False, date_header=False, callback_notify=heed_earlier, timeout_notify=1,
        )
    )  # fmt: skip
    shown = f"[{host}]" if ":" in host else host
    if host in ("0.0.0.0", "::"):
        shown = socket.gethostname()
    print(f"\n  http://{shown}:{port}/?token={token}\n")
    if host in LOOPBACK and not os.environ.get("DISPLAY"):
        machine = f"{getpass.getuser()}@{socket.gethostname()}"
        print("This machine shows no windows. Run this on your own, then open the address there:")
        print(f"\n  ssh -L {port}:{shown}:{port} {machine}\n")
    print("Ctrl-C ends it; every click is kept.", flush=True)
    work.begin()
    try:
        server.run(sockets=[listening])
    finally:
        work.pictures.end()
        work.labels.write_changed()
