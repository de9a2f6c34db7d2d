"""A node as an NFS server sees it: the address that this machine reaches others from.

A machine with several networks may mount from another address than this one, and is named by hand then.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from storage.errors import NodeError
from storage.node.steps import Machine

ELSEWHERE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses that no host has (RFC 5737, RFC 3849): the kernel says from where it would go there, and sends nothing."""
BY_HAND: Final = 'say it in /etc/polly/agent.toml: [platforms.NAME] node = "the address that this machine mounts from"'


def source_address(family: int, elsewhere: str) -> str:
    """Raises OSError where there is no way there."""
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.connect((elsewhere, 9))
        return str(asking.getsockname()[0])


def identify(machine: Machine, *, source: Callable[[int, str], str] = source_address) -> str:
    """Raises NodeError where the machine has no address that others could see."""
    for family, elsewhere in ELSEWHERE:
        with suppress(OSError):
            found = ipaddress.ip_address(source(family, elsewhere).partition("%")[0])
            if not (found.is_loopback or found.is_unspecified or found.is_link_local):
                return str(found)
    raise NodeError(command="asking for the node's address", target="the default route", reason=f"there is none; {BY_HAND}")
