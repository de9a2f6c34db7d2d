"""The SDC, PowerFlex' client on a node, and its block devices /dev/sciniX: asked with its own tool, for sysfs tells no serial of them.

Needs root, as the tool does. Knows no adapter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from storage.errors import NodeError
from storage.node import commands
from storage.node.commands import Run

DRV_CFG: Final = "/opt/emc/scaleio/sdc/bin/drv_cfg"
DEVICES: Final = "scini"
"""How the names of its devices begin."""
SERIAL: Final = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}")
"""A system's id and a volume's."""
_GUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
TOOL_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sdc:
    """The SDC of this node. All methods raise NodeError."""

    run: Run = commands.run

    def guid(self) -> str:
        """What the array calls this node, such as 028888FA-502A-4FAC-A888-1FA3B256358C."""
        said = self._ask("--query_guid")
        found = _GUID.search(said)
        if found is None:
            raise NodeError(command=DRV_CFG, target="--query_guid", reason=f"it says no GUID: {said[:100]!r}")
        return found[0].upper()

    def rescan(self) -> None:
        """Lets the SDC ask the array at once which volumes it has and how large they are."""
        self._ask("--rescan")

    def serial(self, device: str) -> str:
        """Of which volume a device is, as SYSTEM-VOLUME; empty where the driver says nothing that looks so."""
        found = SERIAL.search(self._ask("--query_block_device_id", "--block_device", device).lower())
        return found[0] if found else ""

    def _ask(self, *arguments: str) -> str:
        return self.run([DRV_CFG, *arguments], timeout_s=TOOL_S).out.strip()
