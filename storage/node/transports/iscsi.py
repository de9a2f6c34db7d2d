"""Volumes as LUNs behind an array's iSCSI targets, which many volumes of a node share: log in, look for the LUN, stay logged in.

A password (CHAP) is the node's own business: iscsiadm takes it from /etc/iscsi/iscsid.conf. That the disk goes from the kernel
before its volume is unmapped is seen to by devices.forget.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from storage.errors import NodeError, UnsafePath
from storage.node.steps import Machine
from storage.platforms.base import Attachment

PROGRAMS: Final[Mapping[str, str]] = {"iscsiadm": "open-iscsi"}
TARGET: Final = re.compile(r"(?:iqn|eui|naa)\.[A-Za-z0-9.:-]+")
PORTAL: Final = re.compile(r"(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9][A-Za-z0-9.-]*):[0-9]{1,5}")
IS_THERE: Final = 15
"""iscsiadm's exit code: there is a session already."""


def connect(attachment: Attachment, machine: Machine) -> None:
    """Logs in to every portal that answers, and looks for new LUNs there. Raises UnsafePath, and NodeError if none answers."""
    refused: list[NodeError] = []
    portals = list(_portals(attachment))
    for node in portals:
        try:
            _log_in(node, machine)
        except NodeError as error:
            refused.append(error)
    if len(refused) == len(portals):
        reason = str(refused[0]) if refused else "the array has no portal"
        raise NodeError(command="iscsiadm", target=attachment.external_id, reason=reason)


def disconnect(attachment: Attachment, machine: Machine) -> None:
    """Other volumes of the node use the sessions; they stay."""


def _log_in(node: list[str], machine: Machine) -> None:
    machine.run([*node, "--op", "new"])
    machine.run([*node, "--login"], ok=(0, IS_THERE))
    machine.run([*node, "--rescan"])


def _portals(attachment: Attachment) -> Iterator[list[str]]:
    """`portals` of the context: `ADDRESS:PORT,IQN` of each, separated by blanks."""
    for text in attachment.context["portals"].split():
        portal, _, target = text.partition(",")
        if not TARGET.fullmatch(target) or not PORTAL.fullmatch(portal):
            raise UnsafePath(path=text, reason="a portal is ADDRESS:PORT,IQN")
        yield ["iscsiadm", "--mode", "node", "--targetname", target, "--portal", portal]
