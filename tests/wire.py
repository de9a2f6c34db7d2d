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

from storage.platforms.faulting import ANSWERS, Fate, Faults

HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})
"""What is between two of three only. The host that was asked for goes on, so that a server's links lead through here, too."""
ANSWER_S = 130.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    status: int
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)


class Wire:
    """In front of a server on loopback: `url` is where it is reached instead. Safe for any number of clients.

    `refusals` are the server's words for fates that are refusals.
    """

    def __init__(self, port: int, refusals: Mapping[Fate, Refusal]) -> None:
        self._upstream, self.refusals = port, refusals
        self._lock = threading.Lock()
        self._refusals: list[Refusal] = []
        self.at_call = Faults()
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
    def refusing(self, *refusals: Refusal) -> Iterator[None]:
        """The next calls are refused here, one for each refusal."""
        with self._lock:
            self._refusals = list(refusals)
        try:
            yield
        finally:
            with self._lock:
                self._refusals = []

    def _refusal(self, fate: Fate) -> Refusal | None:
        with self._lock:
            return self._refusals.pop(0) if self._refusals else self.refusals.get(fate)

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
                fate = wire.at_call.fate(f"{self.command} {self.path.partition('?')[0]}")
                if refusal := wire._refusal(fate):
                    self.answer(refusal.status, refusal.headers, refusal.body)
                    return
                if fate in ANSWERS:
                    status, page = ANSWERS[fate]
                    self.answer(status, {"Content-Type": "text/html"}, page)
                    return
                if fate is Fate.CUT:
                    self.hang_up()
                    return
                wire._count(self.command, self.path)
                upstream = http.client.HTTPConnection("127.0.0.1", wire._upstream, timeout=ANSWER_S)
                with contextlib.closing(upstream):
                    headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
                    upstream.request(self.command, self.path, body, headers)
                    got = upstream.getresponse()
                    content = got.read()
                if fate is Fate.UNHEARD:
                    self.hang_up()
                    return
                self.answer(got.status, {name: value for name, value in got.headers.items() if name.lower() not in HOP_BY_HOP}, content)

            def hang_up(self) -> None:
                self.close_connection = True
                self.connection.shutdown(2)

            def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
                self.send_response_only(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = pass_on  # noqa: N815 - names of http.server's

        return Handler
