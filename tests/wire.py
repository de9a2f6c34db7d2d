"""A wire that tests can pull at: a reverse HTTP proxy on loopback that loses answers, refuses calls and counts them."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType

HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host"})
CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
ANSWER_S = 130.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    status: int
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)


class Wire:
    """In front of a server on loopback: `url` is where it is reached instead. Safe for any number of clients."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._lock = threading.Lock()
        self._losing = 0
        self._spared = 0
        self._refusals: list[Refusal] = []
        self.calls: Counter[str] = Counter()
        """By method and path, `GET /v3/volumes/detail`; what was refused here is not in it."""
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Wire:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    @contextlib.contextmanager
    def losing(self, *, after: int = 0) -> Iterator[None]:
        """The answer to the next call that changes something is lost: the server has done it, and the line goes dead.

        `after`: so many such calls are answered first.
        """
        with self._lock:
            self._losing, self._spared = 1, after
        try:
            yield
        finally:
            with self._lock:
                self._losing = self._spared = 0

    @contextlib.contextmanager
    def refusing(self, *refusals: Refusal) -> Iterator[None]:
        """The next calls are refused here, one for each refusal."""
        with self._lock:
            self._refusals = list(refusals)
        try:
            yield
        finally:
            with self._lock:
                self._refusals = []

    def _next_refusal(self) -> Refusal | None:
        with self._lock:
            return self._refusals.pop(0) if self._refusals else None

    def _is_lost(self, method: str) -> bool:
        with self._lock:
            if not self._losing or method not in CHANGING:
                return False
            if self._spared:
                self._spared -= 1
                return False
            self._losing = 0
            return True

    def _count(self, method: str, path: str) -> None:
        with self._lock:
            self.calls[f"{method} {path.partition('?')[0]}"] += 1

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        wire = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *arguments: object) -> None:
                """Nobody reads it."""

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if refusal := wire._next_refusal():
                    self.answer(refusal.status, refusal.headers, refusal.body)
                    return
                wire._count(self.command, self.path)
                is_lost = wire._is_lost(self.command)
                upstream = http.client.HTTPConnection("127.0.0.1", wire._upstream, timeout=ANSWER_S)
                with contextlib.closing(upstream):
                    headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
                    upstream.request(self.command, self.path, body, headers)
                    got = upstream.getresponse()
                    content = got.read()
                if is_lost:
                    self.close_connection = True
                    self.connection.shutdown(2)
                    return
                self.answer(got.status, {name: value for name, value in got.headers.items() if name.lower() not in HOP_BY_HOP}, content)

            def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = pass_on  # noqa: N815 - names of http.server's

        return Handler
