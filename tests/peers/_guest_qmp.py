"""QEMU's own control channel: commands with their answers, and events that are waited for. Knows nothing of what is plugged."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any


class Refused(Exception):
    """QEMU does not do this; the message is QEMU's."""


class Qmp:
    """The monitor of one QEMU, over a connected socket; any thread may use it."""

    def __init__(self, monitor: socket.socket) -> None:
        self._socket, self._file = monitor, monitor.makefile("rwb")
        self._lock = threading.Lock()
        self._events: list[dict[str, Any]] = []

    def greet(self, timeout_s: float) -> None:
        """Waits for QEMU, and makes it take commands."""
        self._socket.settimeout(timeout_s)
        self._read()
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: Any) -> Any:
        """What QEMU answers. Raises Refused, OSError."""
        with self._lock:
            self._socket.settimeout(30.0)
            words = {"execute": command, "arguments": {name.replace("_", "-"): value for name, value in arguments.items()}}
            self._file.write(json.dumps(words).encode() + b"\n")
            self._file.flush()
            while True:
                said = self._read()
                if "error" in said:
                    raise Refused(f"{command}: {said['error']['desc']}")
                if "return" in said:
                    return said["return"]
                self._events.append(said)

    def await_event(self, name: str, device: str, timeout_s: float) -> None:
        """Waits until QEMU has told this of the device. Raises TimeoutError."""
        end = time.monotonic() + timeout_s
        with self._lock:
            while not any(event.get("event") == name and event["data"].get("device") == device for event in self._events):
                self._socket.settimeout(max(end - time.monotonic(), 0.001))
                self._events.append(self._read())
            self._events = [event for event in self._events if event.get("data", {}).get("device") != device]

    def _read(self) -> dict[str, Any]:
        line = self._file.readline()
        if not line:
            raise ConnectionError("QEMU has ended")
        said: dict[str, Any] = json.loads(line)
        return said

    def close(self) -> None:
        self._file.close()
        self._socket.close()
