"""What a node does so that a volume's device comes up, and so that nothing of it stays behind: a module for each way, imported late.

A transport knows no adapter and no credentials: all that it needs is in the attachment's `context`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Protocol, cast

from storage.errors import Invalid
from storage.node.steps import Machine
from storage.platforms.base import Attachment


class Transport(Protocol):
    """What a module of this package has. Both are safe to repeat, and raise NodeError.

    It may also have `PROGRAMS`: the programs that it runs, each with the Debian package that brings it.
    """

    def connect(self, attachment: Attachment, machine: Machine) -> None:
        """Makes the machine look for the device; it may still take a while to come up."""

    def disconnect(self, attachment: Attachment, machine: Machine) -> None:
        """Called when nothing uses the device any more, before the platform takes the volume away."""


def transport_of(attachment: Attachment) -> Transport | None:
    """None where the device comes by itself. Raises Invalid for a transport that this node does not know."""
    return cast(Transport, _module(attachment.transport)) if attachment.transport else None


def programs(name: str) -> Mapping[str, str]:
    """What a node needs for this transport: programs, each with the Debian package that brings it. Raises Invalid."""
    found: Mapping[str, str] = getattr(_module(name), "PROGRAMS", {})
    return found


def _module(name: str) -> ModuleType:
    module = f"{__name__}.{name}"
    if not name.isidentifier() or find_spec(module) is None:
        raise Invalid(field="transport", value=name, reason="this executor knows no such transport; it may be older than the broker")
    return import_module(module)
