"""The independent clients that the simulated Unisphere must satisfy: Dell's PyU4V, and the REST client of Cinder's driver.

Each is run as a program in an environment that is not Polly's (`tests/peers/clients`).
"""

from __future__ import annotations

from typing import Any

from tests.peers import venvs
from tests.peers.powermax_unisphere import PASSWORD, USER, Unisphere

CLIENTS = {"powermax_sdk": "powermax", "powermax_cinder": "xtremio"}
"""The environment of each program; Cinder is large, so that of XtremIO's peer is used for this client too."""


def install() -> None:
    for environment in CLIENTS.values():
        venvs.venv(environment)


def run(client: str, front: Unisphere) -> dict[str, Any]:
    """What the client saw, as its program tells it; what it could not do fails the program."""
    port = front.url.rpartition(":")[2]
    return venvs.seen(CLIENTS[client], client, port, USER, PASSWORD, front.ca_file)
