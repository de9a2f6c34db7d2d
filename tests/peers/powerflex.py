"""The independent clients that the simulated PowerFlex array must satisfy: Dell's PyPowerFlex, and the client of Cinder's driver.

Each is run as a program in an environment that is not Polly's (`tests/peers/clients`).
"""

from __future__ import annotations

from typing import Any

from tests.peers import venvs
from tests.peers.powerflex_gateway import USER, Gateway

CLIENTS = {"powerflex_sdk": "powerflex", "powerflex_cinder": "xtremio"}
"""The environment of each program; Cinder is large, so that of XtremIO's peer is used for this client too."""


def install() -> None:
    for environment in CLIENTS.values():
        venvs.venv(environment)


def run(client: str, gateway: Gateway) -> dict[str, Any]:
    """What the client saw, as its program tells it; what it could not do fails the program."""
    port = gateway.url.rpartition(":")[2]
    return venvs.seen(CLIENTS[client], client, port, USER, gateway.password, gateway.ca_file)
