"""Volumes that have an iSCSI target of their own, as Cinder's LVM driver gives them: log in, and log out for good.

The disk is found by the volume's id, which is in the target's name. A password (CHAP) is the node's own business: iscsiadm takes
it from /etc/iscsi/iscsid.conf.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from storage.errors import UnsafePath
from storage.node.steps import Machine
from storage.platforms.base import Attachment

PROGRAMS: Final[Mapping[str, str]] = {"iscsiadm": "open-iscsi"}
TARGET: Final = re.compile(r"(?:iqn|eui|naa)\.[A-Za-z0-9.:-]+")
PORTAL: Final = re.compile(r"(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9][A-Za-z0-9.-]*):[0-9]{1,5}")
IS_THERE: Final = 15
"""iscsiadm's exit code: there is a session already."""
NOTHING: Final = 21
"""iscsiadm's exit code: no such record or session."""


def connect(attachment: Attachment, machine: Machine) -> None:
    """Raises NodeError, UnsafePath."""
    node = _node(attachment)
    machine.run([*node, "--op", "new"])
    machine.run([*node, "--op", "update", "--name", "node.startup", "--value", "manual"])
    machine.run([*node, "--login"], ok=(0, IS_THERE))
    machine.run([*node, "--rescan"])


def disconnect(attachment: Attachment, machine: Machine) -> None:
    """Raises NodeError, UnsafePath."""
    node = _node(attachment)
    machine.run([*node, "--logout"], ok=(0, NOTHING))
    machine.run([*node, "--op", "delete"], ok=(0, NOTHING))


def _node(attachment: Attachment) -> list[str]:
    target, portal = attachment.context["target"], attachment.context["portal"]
    if not TARGET.fullmatch(target) or not PORTAL.fullmatch(portal):
        raise UnsafePath(path=f"{portal} {target}", reason="an iSCSI target is iqn.…, its portal HOST:PORT")
    return ["iscsiadm", "--mode", "node", "--targetname", target, "--portal", portal]
