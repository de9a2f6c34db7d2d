"""Stands before a server that makes no faults of its own, passes each call on, and loses the replies that a test wants lost.

It knows no API: calls that are to be counted as different differ in their first line or their body.
"""

from __future__ import annotations

import http.client
from contextlib import closing
from hashlib import sha256

from storage.platforms.faulting import Fate, Faults
from tests.peers.loopback import Asked, Reply, Server

HOP: frozenset[str] = frozenset({"connection", "content-length", "host", "transfer-encoding"})
"""Headers that are of the connection, not of the call."""


class Relay(Server):
    """A server of its own on loopback. `faults` may be replaced at any time; of a fate it knows those that break the connection."""

    def __init__(self, port: int) -> None:
        self._port, self.faults = port, Faults()
        super().__init__(self._reply, name="relay")

    def _reply(self, asked: Asked) -> Reply | None:
        fate = self.faults.fate(f"{asked.method} {asked.target} {sha256(asked.sent).hexdigest()}")
        if fate is Fate.CUT:
            return None
        reply = self._passed_on(asked)
        return None if fate is Fate.UNHEARD else reply

    def _passed_on(self, asked: Asked) -> Reply:
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)) as connection:
            headers = {name: value for name, value in asked.headers.items() if name not in HOP}
            connection.request(asked.method, asked.target, asked.sent, headers)
            answer = connection.getresponse()
            kind = answer.headers.get("Content-Type", "text/xml")
            return Reply(status=answer.status, body=answer.read(), kind=kind)
