"""The connection on which a master's events arrive: dialling, TLS, HTTP and records. Knows no pymesos, and not what an event says."""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from http_parser.http import HttpParser

from framework.mesos.channel import RECEIVE_BYTES
from framework.mesos.events import DEFAULT_HEARTBEAT_S
from framework.mesos.leader import Address, parse_address
from framework.mesos.recordio import RecordReader
from storage.errors import Invalid

HEARTBEATS_MISSED: Final = 3
LONGEST_REFUSAL: Final = 2000


class Lost(Exception):
    """The connection is of no more use; another may be."""


class Redirected(Exception):
    """Another master leads."""

    def __init__(self, address: Address) -> None:
        self.address = address


class Rejected(Exception):
    """The master will not have this framework."""


class EventStream:
    """One subscription's connection. It never blocks: `advance` does what can be done now.

    request: the SUBSCRIBE request, whole. on_record: takes each record; what it raises ends the stream's use.
    attempt: which of the host's addresses to try. connect_s: how long connecting may take. clock: monotonic seconds.
    """

    def __init__(
        self,
        address: Address,
        request: bytes,
        on_record: Callable[[bytes], None],
        *,
        clock: Callable[[], float],
        connect_s: float,
        attempt: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.address = address
        self.stream_id = ""
        """The Mesos-Stream-Id, once the master has let the framework in."""
        self.patience_s = connect_s
        """How long nothing need be heard."""
        self._request, self._on_record, self._clock = request, on_record, clock
        self._tls = (tls or ssl.create_default_context()) if address.tls else None
        self._parser = HttpParser()
        self._records = RecordReader()
        self._refusal = b""
        self._connected = False
        self._interest = select.POLLOUT
        self._heard_at = clock()
        self._socket = _begin_to_connect(address, attempt)

    @property
    def interest(self) -> int:
        """What to poll the socket for."""
        return self._interest | (select.POLLOUT if self._connected and self._request else 0)

    @property
    def expires_at(self) -> float:
        """When to give it up if nothing is heard before."""
        return self._heard_at + self.patience_s

    def expect_heartbeats(self, every_s: float) -> None:
        if every_s > 0:
            self.patience_s = HEARTBEATS_MISSED * every_s

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def advance(self) -> None:
        """Raises Lost, Redirected, Rejected, BadRecord or OSError; then it is to be closed."""
        if self._connected or self._finish_connecting():
            self._write_request()
            self._receive()

    def _finish_connecting(self) -> bool:
        if code := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, os.strerror(code))
        if self._tls is None or self._handshake(self._tls):
            self._connected, self._interest = True, select.POLLIN
            self._heard_at = self._clock()
            self.expect_heartbeats(DEFAULT_HEARTBEAT_S)
        return self._connected

    def _handshake(self, tls: ssl.SSLContext) -> bool:
        if not isinstance(self._socket, ssl.SSLSocket):
            self._socket = tls.wrap_socket(self._socket, server_hostname=self.address.host, do_handshake_on_connect=False)
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            self._interest = select.POLLIN
        except ssl.SSLWantWriteError:
            self._interest = select.POLLOUT
        else:
            return True
        return False

    def _write_request(self) -> None:
        if not self._request:
            return
        try:
            sent = self._socket.send(self._request)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return
        self._request = self._request[sent:]

    def _receive(self) -> None:
        more = True
        while more:
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            if not data:
                self._judge_status(ended=True)
                raise Lost("the master closed the connection")
            self._heard_at = self._clock()
            self._take(data)
            more = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def _take(self, data: bytes) -> None:
        if self._parser.execute(data, len(data)) != len(data):
            raise Lost("what came is not HTTP")
        if not self.stream_id and not self._judge_status(ended=False):
            return
        if self._parser.is_partial_body():
            for record in self._records.feed(self._parser.recv_body()):
                self._on_record(record)
        if self._parser.is_message_complete():
            raise Lost("the master ended the event stream")

    def _judge_status(self, *, ended: bool) -> bool:
        """Whether the master has let this framework in; False while its answer is still on its way."""
        if not self._parser.is_headers_complete():
            return False
        status = self._parser.get_status_code()
        headers = {name.lower(): value for name, value in self._parser.get_headers().items()}
        if status == 307:
            raise Redirected(_redirect_target(headers.get("location", ""), tls=self.address.tls))
        if status != 200:
            self._refusal += self._parser.recv_body()
            if ended or self._parser.is_message_complete() or len(self._refusal) > LONGEST_REFUSAL:
                raise _refusal(status, self._refusal[:LONGEST_REFUSAL].decode(errors="replace").strip())
            return False
        if not (stream_id := headers.get("mesos-stream-id")):
            raise Lost("its answer has no Mesos-Stream-Id: this is no Mesos master")
        self.stream_id = stream_id
        return True


def _begin_to_connect(address: Address, attempt: int) -> socket.socket:
    """Tries the name's addresses in turn, one an attempt."""
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, where = found[attempt % len(found)]
    fresh = socket.socket(family, kind, protocol)
    fresh.setblocking(False)
    code = fresh.connect_ex(where)
    if code not in (0, errno.EINPROGRESS, errno.EAGAIN):
        fresh.close()
        raise OSError(code, os.strerror(code))
    return fresh


def _redirect_target(location: str, *, tls: bool) -> Address:
    """Whatever the scheme there says, a framework that wants TLS never sends its secret without."""
    try:
        return parse_address(urlsplit(location).netloc or location, tls=tls)
    except (Invalid, ValueError) as error:
        raise Lost("it redirects to no readable address") from error


def _refusal(status: int, body: str) -> Exception:
    said = f" (HTTP {status}: {body})" if body else f" (HTTP {status})"
    if status == 401:
        return Rejected(f"authentication failed: the master does not accept this principal and secret, or wants one{said}")
    if status == 403:
        return Rejected(f"authentication or authorization failed: the master does not let this principal register the framework{said}")
    if status == 400:
        return Rejected(f"the master does not accept the registration{said}")
    return Lost(f"the master is not ready{said}" if status in (404, 503) else f"the master refused{said}")
