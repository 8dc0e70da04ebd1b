"""Who may ask: requests from this page alone, by people who were given its address.

Login nodes are shared, so listening on 127.0.0.1 keeps nobody out who works there. A random token
in the first address becomes a cookie that no script reads and that no other site's page sends. Host
is checked because a name of somebody else's may be made to point to 127.0.0.1 (DNS rebinding), and
Origin because his pages may send requests there.
"""

import hmac
import ipaddress
import os
import secrets
import socket
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from picking.files import sha256

TOKEN_FILE = ".token"
TOKEN_BYTES = 24
HEADERS = {
    # Nothing but this server's own files, no script within HTML, no frame around it
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
NO_TOKEN = (
    "This page opens with the whole address that label_particles.py printed, "
    "http://.../?token=...\n"
)
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def token_of(folder: Path, is_ours: bool) -> str:
    """Return the token of a folder of labels, the same as before, so that pages live on.

    is_ours: whether this process holds the folder; else the token is a new one. Nobody else can
    read the file.
    """
    path = folder / TOKEN_FILE
    if is_ours:
        try:
            kept = path.read_text(encoding="ascii").strip()
            if len(kept) >= TOKEN_BYTES and not path.stat().st_mode & 0o077:
                return kept
        except (OSError, ValueError):
            pass
    token = secrets.token_urlsafe(TOKEN_BYTES)
    if is_ours:
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(token + "\n")
    return token


class Guard:
    """Passes to ``app`` what may come in; all else gets an answer of one sentence.

    host: what the server listens on. port: where, which is in the cookie's name, since cookies of
    two servers on one host would replace each other.
    """

    def __init__(self, app: ASGIApp, token: str, host: str, port: int) -> None:
        self.app = app
        self._token = token
        self._cookie_name = f"labelling_{port}"
        self._cookie = sha256("cookie of ", token)
        self._names = {*LOOPBACK, host.lower(), socket.gethostname().lower()}
        self._is_open = host not in LOOPBACK

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have the app do so."""
        if scope["type"] == "lifespan":  # websockets the server does not speak
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal, new_cookie = self._judge(scope, headers)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer.update(HEADERS)
                answer.setdefault("cache-control", "no-store")
                if new_cookie:
                    flags = "HttpOnly; SameSite=Strict; Path=/"
                    answer.append("set-cookie", f"{self._cookie_name}={self._cookie}; {flags}")
            await send(message)

        await (refusal or self.app)(scope, receive, send_with_headers)

    def _judge(self, scope: Scope, headers: Headers) -> tuple[PlainTextResponse | None, bool]:
        """Return a refusal, or None, and whether the one who asks is to be given the cookie."""
        host = headers.get("host", "")
        if not self._is_ours(host):
            return PlainTextResponse("This server does not go by that name.\n", 421), False
        origin = headers.get("origin")
        if origin is not None and origin != f"{scope['scheme']}://{host}":
            return PlainTextResponse("Requests of other sites are not answered.\n", 403), False
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if scope["path"] == "/" and _same(query.get("token", [""])[0], self._token):
            return None, True
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return PlainTextResponse("Requests of other sites are not answered.\n", 403), False
        if not _same(self._cookie_of(headers), self._cookie):
            return PlainTextResponse(NO_TOKEN, 403), False
        return None, False

    def _is_ours(self, host: str) -> bool:
        """Return whether a Host header names this server; the port may be that of a tunnel."""
        name, _, port = host.rpartition(":") if not host.endswith("]") else (host, ":", "")
        name = (name if port.isdigit() or not port else host).strip("[]").lower()
        if name in self._names:
            return True
        try:  # an address is no name that could be made to point here
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._is_open

    def _cookie_of(self, headers: Headers) -> str:
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(self._cookie_name)
        except CookieError:
            return ""
        return morsel.value if morsel else ""


def _same(a: str, b: str) -> bool:
    return hmac.compare_digest(a.encode(errors="replace"), b.encode())
