"""The independent client that the simulated OneFS must satisfy: that of Manila's PowerScale driver.

It is run as a program in an environment that is not Polly's (`tests/peers/clients`).
"""

from __future__ import annotations

from typing import Any

from tests.peers import venvs
from tests.peers.powerscale_onefs import PASSWORD, USER, OneFs


def install() -> None:
    venvs.venv("powerscale")


def run(front: OneFs) -> dict[str, Any]:
    """What the client saw, as its program tells it; what it could not do fails the program."""
    return venvs.seen("powerscale", "powerscale_manila", front.url, USER, PASSWORD, front.ca_file)
