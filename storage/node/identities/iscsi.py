"""A node as an iSCSI initiator: the IQN that open-iscsi was installed with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from storage.errors import NodeError
from storage.node.steps import Machine

FILE: Final = Path("/etc/iscsi/initiatorname.iscsi")
NAME: Final = re.compile(r"^\s*InitiatorName\s*=\s*((?:iqn|eui|naa)\.\S+)\s*$", re.MULTILINE)
BY_HAND: Final = 'install open-iscsi, or say it in /etc/polly/agent.toml: [platforms.NAME] node = "iqn..."'


def identify(machine: Machine, *, file: Path = FILE) -> str:
    """Raises NodeError where there is no initiator."""
    try:
        found = NAME.search(file.read_text(errors="replace"))
    except OSError as error:
        raise NodeError(command="asking for the initiator's name", target=str(file), reason=f"{error.strerror}; {BY_HAND}") from error
    if found is None:
        raise NodeError(command="asking for the initiator's name", target=str(file), reason=f"it names no initiator; {BY_HAND}")
    return found[1]
