"""Serves a WSGI application of an OpenStack service on loopback: `_wsgi.py MODULE PORT`, run by the peer's own Python."""

from __future__ import annotations

import importlib
import socketserver
import sys
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server


class Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64


class Quiet(WSGIRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Nobody reads it."""

    def address_string(self) -> str:
        return "127.0.0.1"


def main() -> None:
    module, port = sys.argv[1], int(sys.argv[2])
    sys.argv = [module]  # the services read their own options from it
    application = importlib.import_module(module).application
    make_server("127.0.0.1", port, application, Server, Quiet).serve_forever()


main()
