"""The API on a port: uvicorn in a thread of its own, with a clean end."""

from __future__ import annotations

import socket
from threading import Event, Thread

import uvicorn
from fastapi import FastAPI

from framework.rest.listening import listen
from storage.errors import Invalid

START_S = 30.0
STOP_S = 10.0


class Server:
    """A running API. `url` is where it answers."""

    def __init__(self, app: FastAPI, listener: socket.socket) -> None:
        self._started = Event()
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5, lifespan="off")
        self._uvicorn = _Uvicorn(config, self._started)
        self._thread = Thread(target=self._run, args=(listener,), name="polly-api", daemon=True)
        host, port = listener.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def _run(self, listener: socket.socket) -> None:
        with listener:
            self._uvicorn.run(sockets=[listener])

    def start(self) -> Server:
        self._thread.start()
        if not self._started.wait(START_S):
            self.stop()
            raise Invalid(field="--listen", value=self.url, reason="the HTTP server did not come up")
        return self

    def stop(self) -> None:
        """Answers what is under way, for a bounded time, and frees the port. Safe to call twice."""
        self._uvicorn.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(STOP_S)


class _Uvicorn(uvicorn.Server):
    """Tells when it answers."""

    def __init__(self, config: uvicorn.Config, started: Event) -> None:
        super().__init__(config)
        self._told = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._told.set()


def serve(app: FastAPI, host: str, port: int, *, token: str | None) -> Server:
    """Listens and answers. Raises what `listen` raises."""
    return Server(app, listen(host, port, token=token)).start()
