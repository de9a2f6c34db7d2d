"""Calls to the master over one keep-alive connection, many at a time. Knows HTTP/1.1, and nothing of what a call says.

The master answers pipelined requests in their order, so a batch costs one round trip for each window of it, not for each call.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import httptools

from framework.mesos.errors import CallFailed, CallInDoubt, CallRefused, NotConnected
from framework.mesos.leader import Address

PATH: Final = "/api/v1/scheduler"
WINDOW: Final = 128
"""Requests that may be unanswered at a time."""
RECEIVE_BYTES: Final = 256 * 1024
LONGEST_BODY: Final = 2000
"""Characters of a refusal's body that are kept."""
CLOSED: Final = "the connection was closed"
NO_ANSWER: Final = (httptools.HttpParserError, httptools.HttpParserUpgrade)
TAKEN: Final = frozenset({200, 202})
NOT_DONE: Final = frozenset({501, 503})
"""What a server answers from 500 on that did nothing. A gateway, or a fault on the way, does not know what became of the request."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One subscription, as calls must name it."""

    address: Address
    stream_id: str
    framework_id: str
    authorization: str | None = field(default=None, repr=False)
    """The value of the Authorization header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call, encoded."""

    name: str
    body: bytes


def dial(address: Address, *, timeout_s: float, tls: ssl.SSLContext | None) -> socket.socket:
    """A connected socket with this timeout for each of its operations. Raises OSError."""
    plain = socket.create_connection((address.host, address.port), timeout=timeout_s)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if not address.tls:
        return plain
    try:
        return (tls or ssl.create_default_context()).wrap_socket(plain, server_hostname=address.host)
    except BaseException:
        plain.close()
        raise


class CallChannel:
    """The calls of one session. Safe to use from any thread; one batch is under way at a time."""

    def __init__(self, session: Session, *, timeout_s: float, tls: ssl.SSLContext | None = None) -> None:
        self._session, self._timeout_s, self._tls = session, timeout_s, tls
        self._head = _request_head(session)
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._answers = _Answers()
        self._aborted = False

    @property
    def session(self) -> Session:
        return self._session

    def send(self, calls: Sequence[Call]) -> list[CallFailed | None]:
        """What became of each call, in order; None: the master took it (202, or 200).

        A call is never sent twice: what was sent and got no answer is CallInDoubt, what was not sent is NotConnected.
        """
        outcomes: list[CallFailed | None] = []
        with self._lock:
            for start in range(0, len(calls), WINDOW):
                window = calls[start : start + WINDOW]
                if failure := self._connect():
                    return outcomes + [NotConnected(call=call.name, reason=failure) for call in calls[start:]]
                outcomes += self._exchange(window)
        return outcomes

    def abort(self) -> None:
        """Ends what is under way, from another thread, and refuses all that comes."""
        self._aborted = True
        if held := self._socket:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(held, socket.SHUT_RDWR)
        if self._lock.acquire(blocking=False):
            self._close()
            self._lock.release()

    def _connect(self) -> str | None:
        """Makes sure of a connection that is alive as far as one can see; otherwise returns why there is none."""
        if self._socket and _has_ended(self._socket):
            self._close()
        if self._socket is None and not self._aborted:
            try:
                self._socket = dial(self._session.address, timeout_s=self._timeout_s, tls=self._tls)
            except OSError as error:
                return f"{self._session.address.netloc} cannot be reached: {error}"
        if self._aborted:
            self._close()
            return "the subscription it belongs to has ended"
        return None

    def _exchange(self, calls: Sequence[Call]) -> list[CallFailed | None]:
        assert self._socket  # noqa: S101 - _connect has seen to it
        answers: list[_Answer] = []
        reason = CLOSED
        try:
            self._socket.sendall(b"".join(piece for call in calls for piece in (self._head, b"%d\r\n\r\n" % len(call.body), call.body)))
            while len(answers) < len(calls):
                data = self._socket.recv(RECEIVE_BYTES)
                if not data:
                    break
                answers += self._answers.feed(data)
        except TimeoutError:
            reason = f"no answer within {self._timeout_s} s"
        except (OSError, *NO_ANSWER) as error:
            reason = str(error) or type(error).__name__
        if len(answers) != len(calls) or self._aborted:
            self._close()
        in_doubt = [CallInDoubt(call=call.name, reason=reason) for call in calls[len(answers) :]]
        return [_outcome(call, answer) for call, answer in zip(calls, answers, strict=False)] + in_doubt

    def _close(self) -> None:
        held, self._socket = self._socket, None
        self._answers = _Answers()
        if held:
            held.close()


def _request_head(session: Session) -> bytes:
    lines = [
        f"POST {PATH} HTTP/1.1",
        f"Host: {session.address.netloc}",
        "Content-Type: application/json",
        "Accept: application/json",
        f"Mesos-Stream-Id: {session.stream_id}",
    ]
    if session.authorization:
        lines.append(f"Authorization: {session.authorization}")
    return ("\r\n".join(lines) + "\r\nContent-Length: ").encode()


def _has_ended(held: socket.socket) -> bool:
    """Between batches the master has nothing to say: what can be read then is the end (or a goodbye)."""
    waits_s = held.gettimeout()
    held.settimeout(0)
    try:
        held.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    finally:
        held.settimeout(waits_s)
    return True


def _outcome(call: Call, answer: _Answer) -> CallFailed | None:
    if answer.status in TAKEN:
        return None
    body = answer.body[:LONGEST_BODY].decode(errors="replace").strip() or "no reason given"
    if not _is_refusal(answer.status):
        return CallInDoubt(call=call.name, reason=f"HTTP {answer.status}: {body}")
    return CallRefused(call=call.name, http_status=answer.status, body=body)


def _is_refusal(status: int) -> bool:
    """Whether the master surely did not do it: another success is some proxy's, and 408 that of one that gave up."""
    return (300 <= status < 500 and status != 408) or status in NOT_DONE


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes


class _Answers:
    """Reads HTTP answers one after the other; the methods on_... are called by httptools."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._done: deque[_Answer] = deque()

    def feed(self, data: bytes) -> list[_Answer]:
        """The answers that this piece completes. Raises one of NO_ANSWER, if none before it was complete."""
        try:
            self._parser.feed_data(data)
        except NO_ANSWER:
            if not self._done:
                raise
        done = list(self._done)
        self._done.clear()
        return done

    def on_message_begin(self) -> None:
        self._body.clear()

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if (status := self._parser.get_status_code()) >= 200:  # what is below announces an answer
            self._done.append(_Answer(status, b"".join(self._body)))
