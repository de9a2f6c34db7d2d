"""The life of a claim and of a volume: which state may follow which, and what counts as proof. Knows no database.

The ledger moves states with guarded UPDATEs; this table is what the guards and the people read.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final


class ClaimState(StrEnum):
    """Where a live claim stands. A claim that has ended is no row any more; the event log keeps its story."""

    RESERVED = "RESERVED"
    ATTACHING = "ATTACHING"
    MOUNTED = "MOUNTED"
    RELEASING = "RELEASING"
    STRANDED = "STRANDED"


FREE: Final = "FREE"
"""The end of every claim: the row goes, the volume may be claimed again."""

TRANSITIONS: Final = MappingProxyType(
    {
        ClaimState.RESERVED: frozenset({ClaimState.ATTACHING, ClaimState.MOUNTED, ClaimState.RELEASING, ClaimState.STRANDED, FREE}),
        ClaimState.ATTACHING: frozenset({ClaimState.MOUNTED, ClaimState.RELEASING, ClaimState.STRANDED, FREE}),
        ClaimState.MOUNTED: frozenset({ClaimState.RELEASING, ClaimState.STRANDED, FREE}),
        ClaimState.RELEASING: frozenset({ClaimState.STRANDED, FREE}),
        ClaimState.STRANDED: frozenset({ClaimState.ATTACHING, ClaimState.MOUNTED, ClaimState.RELEASING, FREE}),
    }
)
"""What may follow what. A STRANDED claim whose holder is heard again goes on where the holder says it is."""


QUIET_AFTER_LEASES: Final = 2.0
"""So many leases after a claim was made nobody who was told of it calls a platform for it any more, but to let go: one until its lease
ends, and one for a call that had begun."""


class ProofKind(StrEnum):
    """Why a volume may go to somebody else. Time alone is none of these."""

    RELEASED = "RELEASED"
    """The holder itself reported that it unmounted and detached."""
    TERMINAL_STATUS = "TERMINAL_STATUS"
    """A terminal task status from the agent, which saw the executor's container end."""
    LAUNCH_RULED_OUT = "LAUNCH_RULED_OUT"
    """The launch never happened: refused, dropped, or unknown to a registered agent."""
    TASK_GONE = "TASK_GONE"
    TASK_GONE_BY_OPERATOR = "TASK_GONE_BY_OPERATOR"
    NODE_STOPPED = "NODE_STOPPED"
    """The platform says that the node's instance is stopped or deleted."""
    FENCED = "FENCED"
    """The platform says that nothing holds the volume, and refuses every holder of an older epoch from now on."""
    NEVER_BORN = "NEVER_BORN"
    """No birth certificate was ever stored, and without one no task starts on it: there is nothing to lose."""
    OPERATOR_OVERRIDE = "OPERATOR_OVERRIDE"
    """A person said so, with a reason."""


class VolumeState(StrEnum):
    PLANNED = "PLANNED"
    """Capacity is taken; the platform has not yet been seen to hold it."""
    AVAILABLE = "AVAILABLE"
    """The platform holds it."""
    DELETING = "DELETING"
    """The intent to delete is stored; the platform may or may not have done it."""
    FAULTED = "FAULTED"
    """A person must look: the reason is on the volume."""


def may_follow(now: ClaimState, then: ClaimState | str) -> bool:
    """Whether a claim in state `now` may go to `then` (a ClaimState or FREE)."""
    return then in TRANSITIONS[now]
