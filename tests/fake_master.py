"""A Mesos master that does as a test says: it speaks the scheduler API's HTTP, and nothing is decided by it.

The real one is in tests/cluster; this one is for what a real one does only on a bad day.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support import eventually

Reply = tuple[int, bytes]
"""HTTP status and body."""
HANG = None
"""In place of a Reply: no answer at all."""
CLOSE = (0, b"")
"""In place of a Reply: the connection is closed without one."""


@dataclass
class Request:
    headers: dict[str, str]
    """Names in lower case."""
    call: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.call["type"])


@dataclass
class Subscription:
    """One SUBSCRIBE that was let in, and its event stream."""

    request: Request
    connection: socket.socket
    ended: threading.Event = field(default_factory=threading.Event)
    """Set when the framework has closed the connection."""

    def send(self, event: Mapping[str, Any]) -> None:
        self.send_record(json.dumps(event).encode())

    def send_record(self, record: bytes) -> None:
        self.send_bytes(b"%d\n%b" % (len(record), record))

    def send_bytes(self, data: bytes) -> None:
        """One HTTP chunk."""
        self.connection.sendall(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        """Closes the connection, as a master that dies."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class FakeMaster:
    """Listens from construction until close().

    refusals: answers to the next SUBSCRIBEs, in order: (status, headers, body); when there are none, they are let in.
        With the header `Connection: close` it is the connection's end that ends the body.
    answer: what to reply to every other call.
    greet: whether a SUBSCRIBED event follows at once.
    """

    def __init__(self, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, heartbeat_s: float = 15.0) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family)
        self._tls = tls
        self._heartbeat_s = heartbeat_s
        self._open: set[socket.socket] = set()
        port = self._listener.getsockname()[1]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.version = "1.11.0"
        self.greet = True
        self.refusals: list[tuple[int, dict[str, str], bytes]] = []
        self.answer: Callable[[Request], Reply | None] = lambda _: (202, b"")
        self.subscriptions: list[Subscription] = []
        self.requests: list[Request] = []
        """Every call but SUBSCRIBE, in the order of arrival."""
        self.attempts = 0
        """SUBSCRIBEs, refused ones too."""
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> FakeMaster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def subscription(self, number: int = 1) -> Subscription:
        """The n-th that was let in, waiting for it."""
        eventually(lambda: len(self.subscriptions) >= number, what=f"subscription {number}")
        return self.subscriptions[number - 1]

    def kinds(self) -> list[str]:
        return [request.kind for request in self.requests]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._open.add(connection)
            with connection, connection.makefile("rb") as reader:
                while request := _read_request(reader):
                    if request.kind == "SUBSCRIBE":
                        self._subscribe(request, connection, reader)
                        return
                    if not self._reply(request, connection):
                        return
        self._open.discard(connection)

    def _reply(self, request: Request, connection: socket.socket) -> bool:
        self.requests.append(request)
        reply = self.answer(request)
        if reply == CLOSE:
            return False
        if reply is not HANG:
            connection.sendall(_head(reply[0], {"Content-Length": str(len(reply[1]))}) + reply[1])
        return True

    def _subscribe(self, request: Request, connection: socket.socket, reader: Any) -> None:
        self.attempts += 1
        if self.refusals:
            status, headers, body = self.refusals.pop(0)
            length = {} if headers.get("Connection") == "close" else {"Content-Length": str(len(body))}
            connection.sendall(_head(status, headers | length) + body)
            return
        connection.sendall(_head(200, {"Transfer-Encoding": "chunked", "Mesos-Stream-Id": f"stream-{self.attempts}"}))
        subscription = Subscription(request, connection)
        if self.greet:
            subscription.send(self.subscribed(request))
        self.subscriptions.append(subscription)
        with contextlib.suppress(OSError):
            reader.read()
        subscription.ended.set()

    def subscribed(self, request: Request) -> dict[str, Any]:
        framework_id = request.call.get("framework_id", {"value": "framework-1"})
        info = {"id": "master-1", "version": self.version}
        content = {"framework_id": framework_id, "heartbeat_interval_seconds": self._heartbeat_s, "master_info": info}
        return {"type": "SUBSCRIBED", "subscribed": content}


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode()


def _read_request(reader: Any) -> Request | None:
    if not reader.readline():
        return None
    headers: dict[str, str] = {}
    while (line := reader.readline().decode("latin-1").strip()) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Request(headers, json.loads(reader.read(int(headers["content-length"]))))
