"""moto's server, which plays Amazon's API: in an environment of its own, on loopback, one for the whole run."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.peers.venvs import venv
from tests.ports import free_port, give_back
from tests.support import eventually

START_S = 60.0


def install() -> None:
    venv("moto")


class Server:
    """A server program that answers HTTP on a port of its own; ends with stop()."""

    def __init__(self, command: Callable[[int], list[str]], environment: Callable[[int], dict[str, str]] = lambda port: {}) -> None:
        self.port = free_port()
        words = {**os.environ, **environment(self.port)}
        self._log = Path(tempfile.mkstemp(prefix="polly-peer-")[1])
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(command(self.port), stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=words)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait(self) -> None:
        eventually(self._answers, START_S, f"the server answers: {self._log.read_text()[-500:]}")

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.unlink(missing_ok=True)
        give_back(self.port)

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"the server ended: {self._log.read_text()[-500:]}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            connection.request("GET", "/")
            connection.getresponse().read()
            connection.close()
            return True
        return False


class Moto(Server):
    def __init__(self) -> None:
        program = str(venv("moto") / "bin" / "moto_server")
        # Thirteen hundred images of others, and their snapshots, would be looked through at every call.
        super().__init__(lambda port: [program, "-H", "127.0.0.1", "-p", str(port)], lambda port: {"MOTO_EC2_LOAD_DEFAULT_AMIS": "false"})

    def reset(self) -> None:
        """Forgets all that was made."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("POST", "/moto-api/reset")
        connection.getresponse().read()
        connection.close()
