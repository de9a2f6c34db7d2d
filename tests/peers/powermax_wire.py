"""A simulated Unisphere over TLS on 127.0.0.1, and replies that get lost there."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme

from tests.peers.powermax_array import small_array
from tests.peers.powermax_unisphere import Unisphere


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    front: Unisphere

    def _handle(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, said = self.front.answer(
            self.command, self.path, self.headers.get("Authorization", ""), json.loads(sent) if sent.strip() else {}
        )
        lost = self.front.lose
        if lost and self.command == lost[0] and lost[1] in self.path:
            self.front.lose, self.close_connection = None, True
            return
        answer = b"" if said is None else said if isinstance(said, bytes) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(answer)))
        if status == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815 - the names are http.server's

    def log_message(self, *_: object) -> None:
        """Quiet."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away, or does not trust us, is no news."""


@contextmanager
def serving(folder: Path) -> Iterator[Unisphere]:
    """Unisphere with a certificate of its own, whose authority is in `ca_file`."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = folder / "powermax.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    front = Unisphere(array=small_array(), ca_file=str(ca_file))
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"front": front}))
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    front.url = f"https://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="unisphere", daemon=True)
    thread.start()
    try:
        yield front
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
