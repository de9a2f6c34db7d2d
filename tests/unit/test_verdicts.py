"""The proof rule, state by state."""

import pytest

from framework.mesos.verdicts import Standing, judge
from storage.lifecycle import ProofKind

ALIVE, ENDED, UNREACHABLE, UNKNOWN = Standing.ALIVE, Standing.ENDED, Standing.UNREACHABLE, Standing.UNKNOWN


@pytest.mark.parametrize(
    ("state", "source", "reason", "standing", "kind"),
    [
        ("TASK_STAGING", "SOURCE_MASTER", "REASON_RECONCILIATION", ALIVE, None),
        ("TASK_STARTING", "SOURCE_EXECUTOR", "", ALIVE, None),
        ("TASK_RUNNING", "SOURCE_EXECUTOR", "", ALIVE, None),
        ("TASK_KILLING", "SOURCE_EXECUTOR", "", ALIVE, None),
        ("TASK_FINISHED", "SOURCE_EXECUTOR", "", ENDED, ProofKind.TERMINAL_STATUS),
        ("TASK_FAILED", "SOURCE_SLAVE", "REASON_EXECUTOR_TERMINATED", ENDED, ProofKind.TERMINAL_STATUS),
        ("TASK_KILLED", "SOURCE_AGENT", "", ENDED, ProofKind.TERMINAL_STATUS),
        ("TASK_ERROR", "SOURCE_MASTER", "REASON_TASK_INVALID", ENDED, ProofKind.LAUNCH_RULED_OUT),
        ("TASK_FINISHED", "SOURCE_MASTER", "REASON_RECONCILIATION", ENDED, ProofKind.TERMINAL_STATUS),
        ("TASK_FAILED", "SOURCE_MASTER", "REASON_AGENT_REREGISTERED", ENDED, ProofKind.TERMINAL_STATUS),
        ("TASK_KILLED", "SOURCE_MASTER", "REASON_SLAVE_REREGISTERED", ENDED, ProofKind.TERMINAL_STATUS),
        ("TASK_DROPPED", "SOURCE_MASTER", "REASON_INVALID_OFFERS", ENDED, ProofKind.LAUNCH_RULED_OUT),
        ("TASK_GONE", "SOURCE_MASTER", "REASON_RECONCILIATION", ENDED, ProofKind.TASK_GONE),
        ("TASK_GONE_BY_OPERATOR", "SOURCE_MASTER", "", ENDED, ProofKind.TASK_GONE_BY_OPERATOR),
        ("TASK_UNREACHABLE", "SOURCE_MASTER", "REASON_SLAVE_REMOVED", UNREACHABLE, None),
        ("TASK_UNKNOWN", "SOURCE_MASTER", "REASON_RECONCILIATION", UNKNOWN, None),
        ("TASK_LOST", "SOURCE_MASTER", "", UNKNOWN, None),
        ("TASK_OF_A_LATER_MESOS", "SOURCE_MASTER", "", UNKNOWN, None),
    ],
)
def test_what_a_status_proves(state: str, source: str, reason: str, standing: Standing, kind: ProofKind | None) -> None:
    verdict = judge(state, source, reason=reason)
    assert verdict.standing is standing
    assert (verdict.proof.kind if verdict.proof else None) is kind


@pytest.mark.parametrize(
    ("state", "reason", "gone"),
    [
        ("TASK_GONE_BY_OPERATOR", "REASON_SLAVE_REMOVED_BY_OPERATOR", True),
        ("TASK_GONE_BY_OPERATOR", "REASON_RECONCILIATION", True),
        ("TASK_GONE", "REASON_SLAVE_REMOVED", True),
        ("TASK_GONE", "REASON_RECONCILIATION", False),
        ("TASK_UNREACHABLE", "REASON_SLAVE_REMOVED", False),
        ("TASK_RUNNING", "", False),
    ],
)
def test_what_a_status_says_of_the_agent(state: str, reason: str, gone: bool) -> None:
    """A task may be gone from an agent that is there, and only does not know it any more."""
    assert judge(state, "SOURCE_MASTER", reason=reason).agent_gone is gone


def test_the_evidence_says_who_said_what() -> None:
    verdict = judge("TASK_FAILED", "SOURCE_SLAVE", reason="REASON_EXECUTOR_TERMINATED", message="exited with 1", agent="A1")
    assert verdict.proof
    assert verdict.proof.evidence == "TASK_FAILED from SOURCE_SLAVE (REASON_EXECUTOR_TERMINATED) agent A1 exited with 1"
