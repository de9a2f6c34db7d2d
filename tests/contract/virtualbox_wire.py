"""A wire to a web service that can be cut: calls go through it, and an answer is lost or the service dies where a test says so."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from storage.platforms.faulting import ANSWERS, STRANGERS, Fate, Fault, Faults
from tests.peers.virtualbox import PASSWORD
from tests.ports import free_port, give_back

OPERATION = re.compile(rb"<(?:\w+:)?(I[A-Za-z]+_\w+)")
READS = re.compile(r"^$|_(get|find)[A-Z]|^IProgress_|_release|_refreshState$")
"""Operations that change nothing: dying after one of them is dying after what was changed before. Empty: the service's description."""
BOX = re.compile(rb"<returnval>([^<]+)</returnval>")


class Endings(Faults):
    """Web sessions end: those of processes that died with the fault, as they do in time (the service waits five minutes for that),
    and all of them when the credentials expire, so that the service knows no reference any more and lets nobody in."""

    def __init__(self, wire: Wire, log_off: Callable[[str], object], *, midway: Collection[Fault]) -> None:
        super().__init__(Fault.LOST, Fault.EXPIRED, Fault.DIED, *STRANGERS, midway=midway, codes={Fault.EXPIRED: "does not let"})
        self._wire, self._log_off, self._dying, self._strange = wire, log_off, False, False

    def arrange(self, fault: Fault, nth: int) -> None:
        super().arrange(fault, nth)
        self._dying, self._strange = fault is Fault.DIED, fault in STRANGERS

    def heal(self) -> None:
        super().heal()
        if self._dying:
            self._end_sessions()
        self._dying = self._strange = False

    def fate(self, call: str) -> Fate:
        """Whoever stands in the service's place answers what is only read, too."""
        if READS.search(call) and not self._strange:
            return Fate.DO
        fate = super().fate(call)
        if fate is Fate.EXPIRED:
            self._end_sessions()
        return fate

    def _end_sessions(self) -> None:
        while self._wire.sessions:
            self._log_off(self._wire.sessions.pop())


class Wire:
    """`before` is called with each operation's name; what it says true to is not sent."""

    def __init__(self, port: int) -> None:
        self.before: Callable[[str], bool] = lambda operation: False
        self.at_call = Faults()
        self.sessions: list[str] = []
        """What the service has called the sessions that were begun through this wire."""
        self.seen: list[str] = []
        self._to = port
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}/"
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> Wire:
        wire = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def do_GET(self) -> None:
                self._pass_on(b"")

            def do_POST(self) -> None:
                self._pass_on(self.rfile.read(int(self.headers["Content-Length"])))

            def _pass_on(self, body: bytes) -> None:
                found = OPERATION.search(body)
                operation = found[1].decode() if found else ""
                wire.seen.append(operation)
                fate = wire.at_call.fate(operation)
                if fate in ANSWERS:
                    self._answer(*ANSWERS[fate])
                    return
                if fate is Fate.EXPIRED:
                    body = body.replace(PASSWORD.encode(), b"another")
                cut = fate is Fate.CUT or wire.before(operation)
                if cut or (answer := wire._ask(self.command, self.path, body)) is None or fate is Fate.UNHEARD:
                    self.close_connection = True
                    return
                self._answer(*answer)

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "text/xml; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

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
            said = answer.read()
            self.sessions += [ref.decode() for ref in BOX.findall(said)] if b"logonResponse" in said else []
            return answer.status, said
        except OSError:
            return None
        finally:
            connection.close()
