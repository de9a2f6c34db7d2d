"""A test double of a Mesos agent: the executor API over real HTTP on loopback, with every word of it in the test's hands.

It checks nothing that Mesos decides; what the real agent does is tried in tests/cluster.
"""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support import eventually

FRAMEWORK = {"id": {"value": "framework-1"}, "name": "polly", "user": "root", "capabilities": [{"type": "TASK_KILLING_STATE"}]}
EXECUTOR = {"executor_id": {"value": "executor-1"}, "framework_id": FRAMEWORK["id"], "command": {}}


@dataclass
class Call:
    """What an executor sent."""

    body: dict[str, Any]
    headers: Mapping[str, str]

    @property
    def kind(self) -> str:
        return str(self.body["type"])


@dataclass
class FakeAgent:
    """acknowledge: answer each update at once. refuse_with: the HTTP status of the next subscriptions or updates, in turn."""

    acknowledge: bool = True
    subscribe_statuses: list[int] = field(default_factory=list)
    update_statuses: list[int] = field(default_factory=list)
    silent: bool = False
    """Takes a SUBSCRIBE and says nothing."""
    framework: dict[str, Any] = field(default_factory=lambda: dict(FRAMEWORK))

    def __post_init__(self) -> None:
        self.calls: list[Call] = []
        self._server: _Server | None = None
        self._streams: list[_Handler] = []
        self._lock = threading.Lock()
        self.port = 0

    # --- its life

    def start(self) -> FakeAgent:
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.agent = self
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def stop(self) -> None:
        """As an agent's death: nobody listens, and every connection ends."""
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        for handler in list(self._server.handlers):
            handler.abort()
        self._server = None
        with self._lock:
            self._streams.clear()

    def __enter__(self) -> FakeAgent:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "MESOS_AGENT_ENDPOINT": f"127.0.0.1:{self.port}",
            "MESOS_FRAMEWORK_ID": "framework-1",
            "MESOS_EXECUTOR_ID": "executor-1",
            "MESOS_SLAVE_ID": "agent-1",
            "MESOS_CHECKPOINT": "1",
            "MESOS_RECOVERY_TIMEOUT": "15mins",
            "MESOS_SUBSCRIPTION_BACKOFF_MAX": "20ms",
            "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD": "5secs",
        }

    # --- what it says

    def send(self, event: dict[str, Any]) -> None:
        """To the latest subscription."""
        with self._lock:
            stream = self._streams[-1]
        stream.event(event)

    def launch(self, task_id: str, data: bytes = b"") -> None:
        task = {"name": task_id, "task_id": {"value": task_id}, "agent_id": {"value": "agent-1"}, "data": base64.b64encode(data).decode()}
        self.send({"type": "LAUNCH", "launch": {"task": task}})

    def kill(self, task_id: str, grace_s: float | None = None) -> None:
        policy = {} if grace_s is None else {"kill_policy": {"grace_period": {"nanoseconds": int(grace_s * 1e9)}}}
        self.send({"type": "KILL", "kill": {"task_id": {"value": task_id}, **policy}})

    def message(self, data: bytes) -> None:
        self.send({"type": "MESSAGE", "message": {"data": base64.b64encode(data).decode()}})

    def shutdown(self) -> None:
        self.send({"type": "SHUTDOWN"})

    def send_bytes(self, data: bytes) -> None:
        """One chunk of the stream, whatever is in it."""
        with self._lock:
            stream = self._streams[-1]
        stream.raw(data)

    def acknowledge_update(self, status: dict[str, Any]) -> None:
        self.send({"type": "ACKNOWLEDGED", "acknowledged": {"task_id": status["task_id"], "uuid": status["uuid"]}})

    # --- what it heard

    def heard(self, kind: str) -> list[Call]:
        return [call for call in list(self.calls) if call.kind == kind]

    @property
    def statuses(self) -> list[dict[str, Any]]:
        """The updates that came by calls, in order."""
        return [call.body["update"]["status"] for call in self.heard("UPDATE")]

    def subscribed(self, times: int = 1) -> Call:
        """Waits for the n-th subscription whose SUBSCRIBED was sent, and returns its call."""
        eventually(lambda: len(self._streams) > 0 and len(self.heard("SUBSCRIBE")) >= times, what="a subscription")
        return self.heard("SUBSCRIBE")[times - 1]

    # --- its handlers

    def take(self, handler: _Handler, call: Call) -> None:
        self.calls.append(call)
        if call.kind == "SUBSCRIBE":
            self._subscribe(handler)
            return
        status = self.update_statuses.pop(0) if self.update_statuses else 202
        handler.answer(status)
        if call.kind == "UPDATE" and status == 202 and self.acknowledge:
            self.acknowledge_update(call.body["update"]["status"])

    def _subscribe(self, handler: _Handler) -> None:
        status = self.subscribe_statuses.pop(0) if self.subscribe_statuses else 200
        if status != 200:
            handler.answer(status)
            return
        handler.begin_stream()
        if not self.silent:
            info = {"executor_info": EXECUTOR, "framework_info": self.framework, "agent_info": {"hostname": "node-1"}}
            with self._lock:
                self._streams.append(handler)
                handler.event({"type": "SUBSCRIBED", "subscribed": info})
        handler.ended.wait()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    agent: FakeAgent

    def __init__(self, *arguments: Any) -> None:
        self.handlers: set[_Handler] = set()
        super().__init__(*arguments)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """An executor that goes away in the middle of a call is what many a test is about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.ended = threading.Event()
        self._writing = threading.Lock()
        self.server.handlers.add(self)

    def finish(self) -> None:
        self.server.handlers.discard(self)
        super().finish()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.agent.take(self, Call(body=body, headers=dict(self.headers)))

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Content-Type", "application/json")
        self.end_headers()

    def event(self, event: dict[str, Any]) -> None:
        self.raw(_record(event))

    def raw(self, data: bytes) -> None:
        with self._writing:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

    def abort(self) -> None:
        self.ended.set()
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            self.close_connection = True

    def log_message(self, *arguments: Any) -> None:
        """Nothing: the tests look at `calls`."""


def _record(event: dict[str, Any]) -> bytes:
    data = json.dumps(event).encode()
    return str(len(data)).encode() + b"\n" + data
