"""A node as Fibre Channel initiators: the WWPNs of its ports that are online, separated by commas, such as `21000024ff57b236`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from storage.errors import NodeError
from storage.node.steps import Machine

WWPN: Final = re.compile(r"0x([0-9a-f]{16})")
BY_HAND: Final = 'say it in /etc/polly/agent.toml: [platforms.NAME] node = "21000024ff57b236"'


def identify(machine: Machine) -> str:
    """Raises NodeError where no port is online."""
    hosts = machine.roots.sys / "class" / "fc_host"
    found = list(_online(machine))
    if not found:
        raise NodeError(command="asking for the node's WWPNs", target=str(hosts), reason=f"no port is online; {BY_HAND}")
    return ",".join(found)


def _online(machine: Machine) -> Iterator[str]:
    for host in sorted((machine.roots.sys / "class" / "fc_host").glob("host*")):
        with suppress(OSError):
            state, name = (host / "port_state").read_text().strip(), WWPN.fullmatch((host / "port_name").read_text().strip())
            if state == "Online" and name:
                yield name[1]
