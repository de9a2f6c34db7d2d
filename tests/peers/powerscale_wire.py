"""A simulated OneFS over TLS on 127.0.0.1, and replies that get lost there."""

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

from tests.peers.powerscale_cluster import Cluster
from tests.peers.powerscale_ifs import Ifs
from tests.peers.powerscale_onefs import OneFs
from tests.peers.powerscale_shapes import PRIVILEGES


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    front: OneFs

    def _handle(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, said, more = self.front.answer(self.command, self.path, headers, sent)
        lost = self.front.lose
        if lost and self.command == lost[0] and lost[1] in self.path:
            self.front.lose, self.close_connection = None, True
            return
        answer, kind = _written(said)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for cookie in more.get("Set-Cookie", "").splitlines():
            self.send_header("Set-Cookie", cookie)
        if status != 204:
            self.send_header("Content-Length", str(len(answer)))
        if status == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815 - the names are http.server's

    def log_message(self, *_: object) -> None:
        """Quiet."""


def _written(said: Any) -> tuple[bytes, str]:
    if said is None:
        return b"", "text/plain"
    if isinstance(said, bytes):
        return said, "application/octet-stream"
    return (said.encode(), "text/html") if isinstance(said, str) else (json.dumps(said).encode(), "application/json")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away, or does not trust us, is no news."""


@contextmanager
def serving(folder: Path) -> Iterator[OneFs]:
    """OneFS with a certificate of its own, whose authority is in `ca_file`; its /ifs is below the folder."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = folder / "powerscale.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    front = OneFs(cluster=Cluster(ifs=Ifs(folder=folder / "cluster")), ca_file=str(ca_file), privileges=dict(PRIVILEGES))
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"front": front}))
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    front.url = f"https://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="onefs", daemon=True)
    thread.start()
    try:
        yield front
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
