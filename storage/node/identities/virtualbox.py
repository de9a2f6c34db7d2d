"""A VirtualBox VM's name for its platform: the UUID of its firmware's tables, or the MAC address of its first network card.

VirtualBox writes the UUID so that Linux may read its first three fields the other way round. Which way cannot be told from here:
the adapter looks for both.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from storage.errors import NodeError
from storage.node.steps import Machine

UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
PRODUCT: Final = "VirtualBox"


def identify(machine: Machine) -> str:
    """Raises NodeError where this is no VirtualBox VM, or shows nothing to know it by."""
    dmi, net = machine.roots.sys / "class/dmi/id", machine.roots.sys / "class/net"
    if (product := _text(dmi / "product_name")) != PRODUCT:
        raise _unknown(dmi / "product_name", f"this machine is {product or 'unknown'}, not a VM of VirtualBox")
    if UUID.fullmatch(uuid := _text(dmi / "product_uuid").lower()):
        return uuid
    cards = sorted(card for card in _listed(net) if (card / "device").exists() and MAC.fullmatch(_text(card / "address").lower()))
    if not cards:
        raise _unknown(dmi / "product_uuid", "it cannot be read (only root may), and there is no network card with a MAC address")
    return _text(cards[0] / "address").lower()


def _unknown(file: Path, reason: str) -> NodeError:
    by_hand = 'name the VM by hand in /etc/polly/agent.toml: [platforms.NAME] node = "its name or UUID in VirtualBox"'
    return NodeError(command="learn this VM's name", target=str(file), reason=f"{reason}; {by_hand}")


def _text(file: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return file.read_text().strip()
    return ""


def _listed(folder: Path) -> list[Path]:
    with suppress(OSError):
        return list(folder.iterdir())
    return []
