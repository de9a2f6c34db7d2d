"""The instance metadata service of one EC2 instance, on loopback, that takes no call without its token: version 1 is switched off."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "AQAEAGx0b2tlbg=="


@dataclass
class Metadata:
    name: str
    """The instance id that it tells."""
    stumbles: int = 0
    """How many of the next calls it fails."""
    calls: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str, token: str, ttl: str) -> tuple[int, str]:
        self.calls.append(f"{method} {path}")
        if self.stumbles:
            self.stumbles -= 1
            return 503, ""
        if (method, path) == ("PUT", "/latest/api/token"):
            return (200, TOKEN) if ttl.isdigit() else (400, "")
        if token != TOKEN:
            return 401, ""
        return (200, self.name) if path == "/latest/meta-data/instance-id" else (404, "")


@contextmanager
def serving(service: Metadata) -> Iterator[str]:
    """The address at which it answers meanwhile."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(service))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


def _handler(service: Metadata) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            token, ttl = self.headers.get("X-aws-ec2-metadata-token") or "", self.headers.get("X-aws-ec2-metadata-token-ttl-seconds") or ""
            status, text = service.answer(self.command, self.path, token, ttl)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def do_GET(self) -> None:
            self._serve()

        def do_PUT(self) -> None:
            self._serve()

        def log_request(self, *_: object) -> None:
            """Says nothing of what went well."""

    return Handler
