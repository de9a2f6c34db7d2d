"""Who may ask: with a token whoever bears it; without one, programs of this machine, and no web page that a browser on it shows."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from framework.failures import Forbidden, NotAllowed, to_answer
from framework.rest.context import answer
from framework.rest.listening import is_loopback
from storage.errors import PollyError

OPEN_PATHS = frozenset({"/ping"})


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = _check_local(headers) if self._token is None else _check_token(headers, self._token)
        if refusal is None:
            await self._app(scope, receive, send)
            return
        status, body = to_answer(refusal)
        more = {"WWW-Authenticate": "Bearer"} if status == NotAllowed.status else {}
        await answer(body, status, **more)(scope, receive, send)


def _check_token(headers: Headers, token: str) -> PollyError | None:
    kind, _, given = headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer":
        return NotAllowed(reason="This broker answers only requests that bear its token")
    if not hmac.compare_digest(given.strip().encode(), token.encode()):
        return NotAllowed(reason="The token is not this broker's")
    return None


def _check_local(headers: Headers) -> PollyError | None:
    """A name that only resolves to loopback, or an Origin, betrays a web page that talks through somebody's browser."""
    if not is_loopback(_hostname("//" + headers.get("host", ""))):
        return Forbidden(what=f"for the host {headers.get('host', '')!r}")
    origin = headers.get("origin")
    if origin is not None and not is_loopback(_hostname(origin)):
        return Forbidden(what=f"from a page of {origin!r}")
    return None


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
