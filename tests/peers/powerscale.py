"""The independent client that the simulated OneFS must satisfy: that of Manila's PowerScale driver.

It is run as a program in an environment that is not Polly's (`tests/peers/clients`).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.peers import venvs
from tests.peers.powerscale_onefs import PASSWORD, USER, OneFs


def install() -> None:
    venvs.venv("powerscale")


def run(front: OneFs) -> dict[str, Any]:
    """What the client saw, as its program tells it; what it could not do fails the program."""
    python = venvs.venv("powerscale") / "bin" / "python"
    program = Path(__file__).parent / "clients" / "powerscale_manila.py"
    # requests, which it stands on, would trust the authorities that these name instead of the one that it is told
    around = {name: value for name, value in os.environ.items() if name not in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")}
    command = [str(python), str(program), front.url, USER, PASSWORD, front.ca_file]
    ended = subprocess.run(command, env=around, capture_output=True, text=True, timeout=120)
    if ended.returncode:
        raise AssertionError(f"Manila's client ended with {ended.returncode}: {ended.stderr[-4000:]}")
    seen: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return seen
