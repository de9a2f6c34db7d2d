"""What a platform calls the machine that this process runs on: a module for each source, imported only when a platform names it.

A source knows no adapter and needs no credentials: it asks the machine, or the metadata server that only the machine can reach.
`Capabilities.identity` names it; the operator's word in the agent's file wins over it.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Final

from storage.errors import Invalid
from storage.node.steps import Machine

HOSTNAME: Final = "hostname"


def identify(source: str, machine: Machine, *, hostname: str) -> str:
    """The platform's name of this machine, such as `i-0123456789abcdef0`; `hostname` is what Mesos calls it.

    Raises NodeError where the source does not answer, with what to write into the agent's file instead; Invalid for an unknown source.
    """
    if source == HOSTNAME:
        return hostname
    module = f"{__name__}.{source}"
    if not source.isidentifier() or find_spec(module) is None:
        raise Invalid(field="identity", value=source, reason="this executor knows no such source; it may be older than the broker")
    identity: str = import_module(module).identify(machine)
    return identity
