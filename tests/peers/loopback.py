"""HTTP servers of simulated platforms: threads of this process on a port of 127.0.0.1, with or without TLS.

What they answer is a function's business, and so is which answers get lost: then the call was done and the connection ends. Needs
nothing but Python's own library, so that a program in another environment can use it, too.
"""

from __future__ import annotations

import base64
import json
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from storage.platforms.faulting import ANSWERS, Fate

JSON: Final = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    method: str
    target: str
    headers: Mapping[str, str]
    """Their names in small letters."""
    sent: bytes

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")

    @property
    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.sent) if self.sent.strip() else {}
        return found

    def is_meant(self, call: tuple[str, str] | None) -> bool:
        """Whether it has this method, and a path that holds these words."""
        return call is not None and self.method == call[0] and call[1] in self.target


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    status: int
    body: bytes = b""
    kind: str = JSON
    headers: Sequence[tuple[str, str]] = ()


Answer = Callable[[Asked], Reply | None]
"""None: the answer gets lost."""


def written(status: int, said: Any, *, kind: str = JSON, headers: Sequence[tuple[str, str]] = (), again_s: int = 1) -> Reply:
    """Bytes are what they are, nothing is an empty body, and all else is JSON. Whoever asks too often is told when to come again."""
    body = b"" if said is None else said if isinstance(said, bytes) else json.dumps(said).encode()
    again = [("Retry-After", str(again_s))] if status == 429 else []
    return Reply(status=status, body=body, kind=kind, headers=[*headers, *again])


def meeting(fate: Fate, asked: Asked, answer: Answer, refusals: Mapping[Fate, Reply]) -> Reply | None:
    """The answer to a call of this fate."""
    if fate in refusals:
        return refusals[fate]
    if fate in ANSWERS:
        return elses(fate)
    reply = None if fate is Fate.CUT else answer(asked)
    return None if fate is Fate.UNHEARD else reply


def elses(fate: Fate) -> Reply:
    """What somebody else answers."""
    status, body = ANSWERS[fate]
    return Reply(status=status, body=body, kind="text/html")


def basic(authorization: str) -> tuple[str, str]:
    """User and password of an Authorization of the kind Basic; both empty for another."""
    try:
        user, _, password = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
    except ValueError:
        return "", ""
    return user, password


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    """An answer goes out in one piece."""
    answer: Answer

    def _handle(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.answer(Asked(method=self.command, target=self.path, headers=headers, sent=sent))
        if reply is None:
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in (("Content-Type", reply.kind), *reply.headers):
            self.send_header(name, value)
        if reply.status != 204:
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 - the names are http.server's

    def log_message(self, *_: object) -> None:
        """The tests' own output is enough."""


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away, or does not trust us, is no news; a mistake of the peer's own is."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Server:
    """Serves from the moment it is made until `stop`."""

    def __init__(self, answer: Answer, *, name: str, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._listener = _Listener(("127.0.0.1", port), type("Handler", (_Handler,), {"answer": staticmethod(answer)}))
        if tls is not None:
            self._listener.socket = tls.wrap_socket(self._listener.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._listener.server_port
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.02}, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join(timeout=10)


@contextmanager
def served(answer: Answer, *, name: str, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The URL where it is answered meanwhile."""
    server = Server(answer, name=name, tls=tls)
    try:
        yield server.url
    finally:
        server.stop()
