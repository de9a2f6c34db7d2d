"""What a storage system must know of a machine to let it in: its host name, its iSCSI initiator, its address; as compact JSON.

Cinder calls this a connector. It names the machine, so nothing is in it that changes from one moment to the next.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from storage.errors import NodeError
from storage.node.steps import Machine

INITIATOR_FILE: Final = Path("/etc/iscsi/initiatorname.iscsi")
INITIATOR: Final = re.compile(r"^\s*InitiatorName\s*=\s*((?:iqn|eui|naa)\.\S+)\s*$", re.MULTILINE)
SOMEWHERE: Final = ("192.0.2.1", 9)
"""An address that is nobody's: which of ours would be used to get anywhere. Nothing is sent."""
LONGEST: Final = 255
BY_HAND: Final = 'say it in /etc/polly/agent.toml: [platforms.NAME] node = \'{"host": "...", "ip": "..."}\''


def address() -> str:
    """Empty where no route leads out."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(SOMEWHERE)
        return str(probe.getsockname()[0])
    return ""


def identify(
    machine: Machine,
    *,
    host: Callable[[], str] = lambda: os.uname().nodename,
    address: Callable[[], str] = address,
    initiator_file: Path = INITIATOR_FILE,
) -> str:
    """Raises NodeError for a machine without a name of its own."""
    name = host()
    if not name or name.startswith("localhost"):
        raise NodeError(command="asking for the host name", target="this machine", reason=f"it is {name!r}; {BY_HAND}")
    made = {"host": name, "ip": address(), "initiator": _initiator(initiator_file), "multipath": False}
    text = json.dumps({key: value for key, value in made.items() if value != ""}, separators=(",", ":"), sort_keys=True)
    if len(text) > LONGEST:
        raise NodeError(command="naming this machine", target=name, reason=f"{text} is longer than {LONGEST} characters; {BY_HAND}")
    return text


def _initiator(file: Path) -> str:
    """Empty without open-iscsi."""
    try:
        found = INITIATOR.search(file.read_text(errors="replace"))
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise NodeError(command="asking for the initiator's name", target=str(file), reason=f"{error}; {BY_HAND}") from error
    return found[1] if found else ""
