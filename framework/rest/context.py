"""What every route needs: the broker, the ledger's source, who asks, and the way to write JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, cast
from urllib.parse import unquote

from fastapi import Depends, Request, Response

from framework.records import encode, plain
from framework.service import Broker
from framework.source import LedgerSource
from storage.errors import Invalid
from storage.model import Page

LARGEST_BODY = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    broker: Broker
    source: LedgerSource


def _context(request: Request) -> Context:
    return cast(Context, request.app.state.polly)


def _actor(request: Request) -> str:
    """Who asks, for the event log: what the client says of itself, in harmless characters."""
    named = re.sub(r"[^\w.@-]", "_", unquote(request.headers.get("x-polly-user", "")))[:64]
    return f"operator:{named or 'api'}"


def only_known(request: Request) -> None:
    """Raises Invalid for a parameter that the route does not have: a filter that is misspelt must not mean everything."""
    known = sorted(parameter.alias for parameter in request.scope["route"].dependant.query_params)
    for name, value in request.query_params.items():
        if name not in known:
            there_are = f"; there are {', '.join(known)}" if known else ", nor any other here"
            raise Invalid(field=name, value=value, reason=f"there is no such parameter{there_are}")


async def _body(request: Request) -> bytes:
    """Raises Invalid for a body that is too large."""
    found = bytearray()
    async for chunk in request.stream():
        found += chunk
        if len(found) > LARGEST_BODY:
            raise Invalid(field="the request", value=f"{len(found)} bytes or more", reason=f"at most {LARGEST_BODY} are read")
    return bytes(found)


Polly = Annotated[Context, Depends(_context)]
Actor = Annotated[str, Depends(_actor)]
Body = Annotated[bytes, Depends(_body)]


def answer(content: Any, status: int = 200, **headers: str) -> Response:
    return Response(encode(content), status, headers, media_type="application/json")


def listed(items: Iterable[object], after: str | None = None, **more: float) -> Response:
    return answer({"items": [plain(item) for item in items], "after": after, **more})


def paged(page: Page[Any]) -> Response:
    return listed(page.items, page.after)
