"""The independent clients that the simulated PowerFlex array must satisfy: Dell's PyPowerFlex, and the client of Cinder's driver.

Each is run as a program in an environment that is not Polly's (`tests/peers/clients`).
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
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
    python = venvs.venv(CLIENTS[client]) / "bin" / "python"
    program = Path(__file__).parent / "clients" / f"{client}.py"
    port = gateway.url.rpartition(":")[2]
    command = [str(python), str(program), port, USER, gateway.password, gateway.ca_file]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if ended.returncode:
        raise AssertionError(f"{client} ended with {ended.returncode}: {ended.stderr[-4000:]}")
    seen: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return seen
