"""The independent clients that the simulated Unisphere must satisfy: Dell's PyU4V, and the REST client of Cinder's driver.

Each is run as a program in an environment that is not Polly's (`tests/peers/clients`).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
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
    python = venvs.venv(CLIENTS[client]) / "bin" / "python"
    program = Path(__file__).parent / "clients" / f"{client}.py"
    port = front.url.rpartition(":")[2]
    command = [str(python), str(program), port, USER, PASSWORD, front.ca_file]
    # requests, which both stand on, would trust the authorities that these name instead of the one that it is told
    around = {name: value for name, value in os.environ.items() if name not in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")}
    ended = subprocess.run(command, env=around, capture_output=True, text=True, timeout=120)
    if ended.returncode:
        raise AssertionError(f"{client} ended with {ended.returncode}: {ended.stderr[-4000:]}")
    seen: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return seen
