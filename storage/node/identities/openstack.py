"""What OpenStack calls this machine: its server's id, as the metadata server says, or else the config drive."""

from __future__ import annotations

import json
import re
import tempfile
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final

from storage.errors import NodeError
from storage.node.steps import Machine

SERVER: Final = ("169.254.169.254", 80)
DOCUMENT: Final = "openstack/latest/meta_data.json"
ANSWER_S: Final = 3.0
PATIENCE_S: Final = 10.0
"""How long is asked again: right after the start the server may be late."""
LARGEST: Final = 1 << 20
DRIVE: Final = "config-2"
"""The label of a config drive."""
UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
BY_HAND: Final = 'say it in /etc/polly/agent.toml: [platforms.NAME] node = "the server\'s id"'


def identify(machine: Machine, *, server: tuple[str, int] = SERVER) -> str:
    """Raises NodeError where neither is there, or what is there names no server."""
    reasons: list[str] = []
    if drive := _drive(machine):
        return _server(f"the config drive {drive}", _on_drive(drive, machine))
    said: list[str] = []

    def answered() -> bool:
        try:
            said.append(_ask(server))
        except (OSError, HTTPException) as error:
            reasons.append(str(error) or type(error).__name__)
        return bool(said)

    target = f"the metadata server {server[0]}"
    if not machine.pace.until(answered, timeout_s=PATIENCE_S):
        raise _failure(target, f"{reasons[-1]}, and there is no config drive")
    return _server(target, said[0])


def _ask(server: tuple[str, int]) -> str:
    """Asks directly: a proxy would be asked about its own machine."""
    connection = HTTPConnection(*server, timeout=ANSWER_S)
    try:
        connection.request("GET", f"/{DOCUMENT}")
        answer = connection.getresponse()
        text = answer.read(LARGEST).decode("utf-8", "replace")
        if answer.status != 200:
            raise HTTPException(f"HTTP {answer.status}")
        return text
    finally:
        connection.close()


def _drive(machine: Machine) -> str:
    """The device of the config drive, if the machine has one."""
    link = machine.roots.dev / "disk" / "by-label" / DRIVE
    try:
        device = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return ""
    return str(device) if machine.roots.is_block(device) else ""


def _on_drive(drive: str, machine: Machine) -> str:
    """Mounted for a moment, for reading, where only we see it."""
    with tempfile.TemporaryDirectory(prefix="polly-config-drive-") as folder:
        machine.run(["mount", "-o", "ro,nosuid,nodev,noexec"], drive, folder)
        try:
            return Path(folder, DOCUMENT).read_text(errors="replace")
        except OSError as error:
            raise _failure(f"the config drive {drive}", str(error)) from error
        finally:
            machine.run(["umount"], folder)


def _server(target: str, text: str) -> str:
    try:
        said = json.loads(text)["uuid"]
    except (ValueError, KeyError, TypeError) as error:
        raise _failure(target, f"it gives no JSON with a uuid: {text[:80]!r}") from error
    if not isinstance(said, str) or not UUID.fullmatch(said):
        raise _failure(target, f"it says {str(said)[:80]!r}")
    return said


def _failure(target: str, reason: str) -> NodeError:
    return NodeError(command="asking for the server's id", target=target, reason=f"{reason}; {BY_HAND}")
