"""The pace at which platforms are asked whether something still holds a volume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from framework.settling import Settler, StillHeld
from framework.workers import Outcome
from storage.lifecycle import ClaimState, ProofKind
from storage.model import Access, Birth, Claim, ClaimId, ExternalId, Holder, NodeId, PlacementId, Proof, Volume, VolumeId

RETRY_S = 5.0
GONE = Proof(kind=ProofKind.TASK_GONE, evidence="TASK_GONE from master")


class Straight:
    """Workers that do each job at once."""

    def submit(self, platform: str, key: str, job: Callable[[], Any], done: Callable[[Outcome[Any]], None]) -> None:
        done(Outcome(job()))


class Held:
    """A platform whose volume is held for ever; counts how often it is asked."""

    class capabilities:  # noqa: N801 - stands for the platform's attribute
        fences = True

    def __init__(self) -> None:
        self.asked = 0

    def fence(self, external_id: ExternalId, epoch: int) -> None:
        self.asked += 1

    def detach(self, external_id: ExternalId, node: str) -> None:
        return


CLAIM = Claim(
    claim_id=ClaimId("c1"),
    volume_id=VolumeId("v1"),
    holder=Holder(scheduler="mesos/polly", placement=PlacementId("t1"), node=NodeId("a1")),
    epoch=1,
    access=Access.RW,
    state=ClaimState.STRANDED,
    lease_until=0.0,
)
VOLUME = Volume(
    volume_id=VolumeId("v1"),
    name="v",
    platform="disks",
    pool="default",
    size_mib=16,
    external_id=ExternalId("x1"),
    birth=Birth(serial="s", filesystem="ext4", filesystem_uuid="u"),
)


@pytest.fixture
def held() -> Held:
    return Held()


def run(held: Held, opened: Callable[[Settler, float], None], *, until: int) -> list[object]:
    """Opens the case anew ten times in each second, as the broker's ticks do; returns the answers."""
    now = 0.0
    settler = Settler({"disks": held}, Straight(), clock=lambda: now, retry_s=RETRY_S)  # type: ignore[arg-type,dict-item]
    answers: list[object] = []
    for tick in range(until * 10):
        now = tick / 10
        opened(settler, now)
        settler.run(now, lambda _, answer: answers.append(answer))
    return answers


def test_a_case_that_is_opened_again_keeps_its_pace(held: Held) -> None:
    answers = run(held, lambda settler, now: settler.open(VOLUME, CLAIM, "node", None, due_at=now), until=12)
    assert held.asked == 3
    assert all(isinstance(answer, StillHeld) for answer in answers)


def test_a_proof_that_comes_later_is_tried_at_once(held: Held) -> None:
    def opened(settler: Settler, now: float) -> None:
        settler.open(VOLUME, CLAIM, "node", GONE if now >= 1.0 else None, due_at=now)

    run(held, opened, until=4)
    assert held.asked == 2
