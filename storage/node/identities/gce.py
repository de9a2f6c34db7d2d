"""What Compute Engine calls this machine: `ZONE/NAME`, as its metadata server says. Only an instance can reach that."""

from __future__ import annotations

import os
import re
from http.client import HTTPConnection, HTTPException
from typing import Final

from storage.errors import NodeError
from storage.node.steps import Machine

HOST: Final = "metadata.google.internal"
HOST_VARIABLE: Final = "GCE_METADATA_HOST"
"""Names another host, as for Google's own libraries."""
FLAVOR: Final = {"Metadata-Flavor": "Google"}
ROOT: Final = "/computeMetadata/v1/instance/"
ANSWER_S: Final = 3.0
PATIENCE_S: Final = 10.0
"""How long is asked again: right after the start the server may be late."""
WORD: Final = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
BY_HAND: Final = '; say it in /etc/polly/agent.toml: [platforms.NAME] node = "ZONE/INSTANCE"'


def identify(machine: Machine) -> str:
    """Raises NodeError where no metadata server answers, or what answers is none."""
    host = os.environ.get(HOST_VARIABLE) or HOST
    zone = _ask(host, "zone", machine).rsplit("/", 1)[-1]
    return f"{zone}/{_ask(host, 'name', machine)}"


def _ask(host: str, what: str, machine: Machine) -> str:
    said: list[str] = []
    reasons: list[str] = []

    def answered() -> bool:
        try:
            said.append(_get(host, ROOT + what))
        except (OSError, HTTPException) as error:
            reasons.append(str(error) or type(error).__name__)
        return bool(said)

    if not answered() and not machine.pace.until(answered, timeout_s=PATIENCE_S):
        raise _failure(host, what, reasons[-1])
    if not WORD.fullmatch(said[0].rsplit("/", 1)[-1]):
        raise _failure(host, what, f"it says {said[0][:80]!r}")
    return said[0]


def _get(host: str, path: str) -> str:
    """Asks directly: a proxy would be asked about its own machine."""
    connection = HTTPConnection(host, timeout=ANSWER_S)
    try:
        connection.request("GET", path, headers=FLAVOR)
        response = connection.getresponse()
        text = response.read(4096).decode("ascii", "replace").strip()
        if response.status != 200:
            raise HTTPException(f"HTTP {response.status}")
        if response.headers.get("Metadata-Flavor") != "Google":
            raise HTTPException("what answers is not Google's metadata server")
        return text
    finally:
        connection.close()


def _failure(host: str, what: str, reason: str) -> NodeError:
    return NodeError(command=f"asking for the instance's {what}", target=f"the metadata server {host}", reason=reason + BY_HAND)
