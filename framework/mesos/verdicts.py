"""What a task status says about the holder of a volume: the proof rule, as one pure function.

Time is no proof, TASK_UNREACHABLE is no proof, TASK_LOST is no proof. Source of the states' meaning: Mesos' mesos.proto,
TaskState and TaskStatus, and its reconciliation rules (a task that a registered agent does not know is TASK_GONE; one of an
agent that the master does not know is TASK_UNKNOWN).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from storage.lifecycle import ProofKind
from storage.model import Proof


class Standing(Enum):
    """How a task stands, as far as a status can tell."""

    ALIVE = "alive"
    """It may touch its volumes."""
    ENDED = "ended"
    """It is over, and the proof says by whose word."""
    UNREACHABLE = "unreachable"
    """Its agent is cut off; it may well be running."""
    UNKNOWN = "unknown"
    """Nobody who could know was heard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    standing: Standing
    proof: Proof | None = None
    """Set with ENDED only."""
    agent_gone: bool = False
    """Its agent is gone for good, with all that ran there."""


ALIVE = frozenset({"TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING"})
TERMINAL = frozenset({"TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR"})
ENDED = {
    **dict.fromkeys(TERMINAL, ProofKind.TERMINAL_STATUS),
    "TASK_DROPPED": ProofKind.LAUNCH_RULED_OUT,
    "TASK_GONE": ProofKind.TASK_GONE,
    "TASK_GONE_BY_OPERATOR": ProofKind.TASK_GONE_BY_OPERATOR,
}
AGENT_REMOVED = frozenset({"REASON_SLAVE_REMOVED", "REASON_AGENT_REMOVED"})
"""Why a task is TASK_GONE with its agent. Otherwise its agent may well be there, and only not know it any more."""
RECONCILIATION = "REASON_RECONCILIATION"
"""The reason of a status that answers a question, and of no other."""
OF_AN_AGENT = frozenset({RECONCILIATION, "REASON_SLAVE_REREGISTERED", "REASON_AGENT_REREGISTERED"})
"""Reasons of the master's words that repeat an agent's: of a task that an agent which is back says has ended, the launch did happen."""
AGENT_SIDE = frozenset({"SOURCE_EXECUTOR", "SOURCE_SLAVE", "SOURCE_AGENT"})


def judge(state: str, source: str, *, reason: str = "", message: str = "", agent: str = "") -> Verdict:
    """What a status means. `state`, `source` and `reason` are Mesos' names, as in TaskStatus.

    A master that refuses a task, or ends it before it was sent on, rules its launch out.
    """
    if state in ALIVE:
        return Verdict(standing=Standing.ALIVE)
    if state == "TASK_UNREACHABLE":
        return Verdict(standing=Standing.UNREACHABLE)
    if state not in ENDED:
        return Verdict(standing=Standing.UNKNOWN)
    ruled_out = state in TERMINAL and source not in AGENT_SIDE and reason not in OF_AN_AGENT
    kind = ProofKind.LAUNCH_RULED_OUT if ruled_out else ENDED[state]
    said = " ".join(word for word in (state, "from", source, reason and f"({reason})", agent and f"agent {agent}", message) if word)
    gone = state == "TASK_GONE_BY_OPERATOR" or (state == "TASK_GONE" and reason in AGENT_REMOVED)
    return Verdict(standing=Standing.ENDED, proof=Proof(kind=kind, evidence=said), agent_gone=gone)
