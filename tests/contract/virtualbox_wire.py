"""A wire to a web service that can be cut: calls go through it, and an answer is lost or the service dies where a test says so."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.ports import free_port, give_back

OPERATION = re.compile(rb"<(?:\w+:)?(I[A-Za-z]+_\w+)")


class Wire:
    """`before` and `after` are called with each operation's name; what they say true to is not sent, or not answered."""

    def __init__(self, port: int) -> None:
        self.before: Callable[[str], bool] = lambda operation: False
        self.after: Callable[[str], bool] = lambda operation: False
        self.seen: list[str] = []
        self._to = port
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}/"
        self._server: ThreadingHTTPServer | None = None

    @contextmanager
    def losing(self, operation: str) -> Iterator[None]:
        """The next answer to this operation is lost; what was asked is done."""
        lost: list[str] = []

        def after(seen: str) -> bool:
            if seen != operation or lost:
                return False
            lost.append(seen)
            return True

        self.after = after
        try:
            yield
        finally:
            self.after = lambda seen: False
        assert lost, f"{operation} was not called"

    def start(self) -> Wire:
        wire = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._pass_on(b"")

            def do_POST(self) -> None:
                self._pass_on(self.rfile.read(int(self.headers["Content-Length"])))

            def _pass_on(self, body: bytes) -> None:
                found = OPERATION.search(body)
                operation = found[1].decode() if found else ""
                wire.seen.append(operation)
                if wire.before(operation) or (answer := wire._ask(self.command, self.path, body)) is None or wire.after(operation):
                    self.close_connection = True
                    return
                self.send_response(answer[0])
                self.send_header("Content-Type", "text/xml; charset=utf-8")
                self.send_header("Content-Length", str(len(answer[1])))
                self.end_headers()
                self.wfile.write(answer[1])

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class' name for it
                """The tests say what happens."""

        give_back(self._port)
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()

    def _ask(self, method: str, path: str, body: bytes) -> tuple[int, bytes] | None:
        connection = HTTPConnection("127.0.0.1", self._to, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": "text/xml; charset=utf-8", "SOAPAction": '""'})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            return None
        finally:
            connection.close()
