"""ministack, a second and different server that plays Amazon's API, in an environment of its own, on loopback."""

from __future__ import annotations

from tests.peers.moto import Server
from tests.peers.venvs import venv


def install() -> None:
    venv("ministack")


class MiniStack(Server):
    def __init__(self) -> None:
        program = str(venv("ministack") / "bin" / "ministack")
        # Its own default is to listen on every address.
        super().__init__(lambda port: [program], lambda port: {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port)})
