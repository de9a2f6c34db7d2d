"""What EC2 calls this machine: its instance id, from the instance metadata service in version 2, which wants a token first.

No proxy is asked and nothing is sent but the two calls. AWS_EC2_METADATA_SERVICE_ENDPOINT names another address, as for all of
Amazon's tools.
"""

from __future__ import annotations

import http.client
import os
import re
from typing import Final
from urllib.parse import urlsplit

from storage.errors import NodeError
from storage.node.steps import Machine

ENDPOINT: Final = "http://169.254.169.254"
VARIABLE: Final = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
TIMEOUT_S: Final = 2.0
PATIENCE_S: Final = 6.0
"""How long the service is asked again; it may come up after us, or refuse calls for their rate."""
INSTANCE: Final = re.compile(r"i-([0-9a-f]{8}|[0-9a-f]{17})")
BY_HAND: Final = '[platforms.NAME] node = "i-..." in /etc/polly/agent.toml names it by hand'
_LONGEST: Final = 4096


class _Refused(Exception):
    """The service gives another answer than wanted."""


def identify(machine: Machine) -> str:
    """The instance id. Raises NodeError, which says how to name it by hand."""
    endpoint = os.environ.get(VARIABLE) or ENDPOINT
    said: list[str] = []
    wrong: list[str] = []

    def answers() -> bool:
        try:
            said.append(_ask(endpoint))
        except (OSError, http.client.HTTPException, ValueError, _Refused) as error:
            wrong.append(str(error) or type(error).__name__)
        return bool(said)

    if not machine.pace.until(answers, timeout_s=PATIENCE_S, every_s=1.0):
        hint = "a container needs the instance's hop limit at 2 or more"
        raise NodeError(command="ask for the instance id", target=endpoint, reason=f"{wrong[-1]}; {hint}; {BY_HAND}")
    if not INSTANCE.fullmatch(said[0]):
        raise NodeError(command="ask for the instance id", target=endpoint, reason=f"{said[0][:60]!r} is none; {BY_HAND}")
    return said[0]


def _ask(endpoint: str) -> str:
    url = urlsplit(endpoint)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError(f"{VARIABLE} must be an address such as {ENDPOINT}")
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.hostname, url.port, timeout=TIMEOUT_S)
    try:
        token = _answer(connection, "PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"})
        return _answer(connection, "GET", "/latest/meta-data/instance-id", {"X-aws-ec2-metadata-token": token})
    finally:
        connection.close()


def _answer(connection: http.client.HTTPConnection, method: str, path: str, headers: dict[str, str]) -> str:
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    text = response.read(_LONGEST).decode("ascii", "replace").strip()
    if response.status != 200 or not text:
        raise _Refused(f"{method} {path} was answered with {response.status} {response.reason}")
    if not text.isprintable():
        raise _Refused(f"{method} {path} was answered with what is no text")
    return text
