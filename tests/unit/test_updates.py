"""What one status means for a task and its claims."""

from __future__ import annotations

import msgspec
import pytest

from executors.wire import FAILED, RELEASED, Progress, VolumeProgress
from framework.mesos.events import Status
from framework.mesos.instances import Phase, Task, TaskRecord
from framework.mesos.updates import Effect, effect_of
from framework.mesos.verdicts import judge
from storage.lifecycle import ClaimState, ProofKind
from storage.model import Access, Birth, Claim, ClaimId, ExternalId, Holder, NodeId, PlacementId, Volume, VolumeId, WorkloadId

NOW = 1_000.0
BIRTH = Birth(serial="s", filesystem="ext4", filesystem_uuid="u")
BORN = Volume(
    volume_id=VolumeId("v1"), name="v", platform="disks", pool="p", size_mib=16, token="c0", external_id=ExternalId("x1"), birth=BIRTH
)
NEW = msgspec.structs.replace(BORN, token="c1", external_id=None, birth=None, owner="/db")
IMPORTED = msgspec.structs.replace(BORN, token="", birth=None)
CLAIM = Claim(
    claim_id=ClaimId("c1"),
    volume_id=VolumeId("v1"),
    holder=Holder(scheduler="mesos/polly", placement=PlacementId("t1"), node=NodeId("a1")),
    epoch=3,
    access=Access.RW,
    state=ClaimState.RESERVED,
    lease_until=NOW + 60,
)


def task(volume: Volume = BORN, *, phase: Phase = Phase.LAUNCHED, claim: ClaimState = ClaimState.RESERVED, **record: object) -> Task:
    return Task(
        task_id=PlacementId("t1"),
        app_id=WorkloadId("/db"),
        slot=0,
        agent_id=NodeId("a1"),
        phase=phase,
        record=TaskRecord(hostname="a1", **record),  # type: ignore[arg-type]  # fields as they come
        claims={CLAIM.claim_id: msgspec.structs.replace(CLAIM, state=claim)},
        volumes={volume.volume_id: volume},
    )


def said(step: str, **more: object) -> VolumeProgress:
    return VolumeProgress(**{"claim_id": ClaimId("c1"), "epoch": 3, "step": step, **more})  # type: ignore[arg-type]  # fields as they come


def effect(of: Task, state: str, *volumes: VolumeProgress, source: str = "SOURCE_EXECUTOR", reason: str = "") -> Effect:
    status = Status(task_id="t1", agent_id="a1", state=state, source=source, reason=reason, message="words")
    return effect_of(
        of, status, Progress(volumes=volumes) if volumes else None, judge(state, source, reason=reason), NOW, quiet_after_s=120.0
    )


@pytest.mark.parametrize(
    ("before", "state", "after"),
    [
        (Phase.LAUNCHED, "TASK_STARTING", Phase.STARTING),
        (Phase.STARTING, "TASK_RUNNING", Phase.RUNNING),
        (Phase.RUNNING, "TASK_STARTING", Phase.RUNNING),
        (Phase.RUNNING, "TASK_STAGING", Phase.RUNNING),
        (Phase.KILLING, "TASK_RUNNING", Phase.KILLING),
        (Phase.RUNNING, "TASK_UNREACHABLE", Phase.UNREACHABLE),
        (Phase.RUNNING, "TASK_UNKNOWN", Phase.UNREACHABLE),
        (Phase.UNREACHABLE, "TASK_RUNNING", Phase.RUNNING),
        (Phase.UNREACHABLE, "TASK_STAGING", Phase.LAUNCHED),
        (Phase.RUNNING, "TASK_FAILED", Phase.SETTLING),
        (Phase.UNREACHABLE, "TASK_GONE", Phase.SETTLING),
        (Phase.SETTLING, "TASK_RUNNING", Phase.SETTLING),
        (Phase.SETTLING, "TASK_UNREACHABLE", Phase.SETTLING),
        (Phase.SETTLING, "TASK_UNKNOWN", Phase.SETTLING),
    ],
)
def test_a_task_goes_on_and_never_back(before: Phase, state: str, after: Phase) -> None:
    assert effect(task(phase=before, claim=ClaimState.RELEASING), state).phase is after


@pytest.mark.parametrize(("state", "dies"), [("TASK_RUNNING", True), ("TASK_UNREACHABLE", False), ("TASK_LOST", False)])
def test_nothing_brings_back_a_task_whose_end_is_proven(state: str, dies: bool) -> None:
    over = task(phase=Phase.SETTLING, claim=ClaimState.RELEASING, proof="TASK_GONE", evidence="TASK_GONE from the master")
    found = effect(over, state, said("MOUNTED", birth=BIRTH))
    assert (found.writes, found.claims, found.births, found.settle) == ([], {}, [], {})
    assert found.record == over.record
    assert found.stale is dies


def test_the_executors_own_word_counts_though_mesos_has_said_before_that_the_task_is_gone() -> None:
    over = task(phase=Phase.SETTLING, claim=ClaimState.RELEASING, proof="TASK_GONE", evidence="TASK_GONE from the master")
    found = effect(over, "TASK_FAILED", said(RELEASED))
    assert found.freed == {CLAIM.claim_id}
    assert found.over


def test_only_a_terminal_status_proves_an_end() -> None:
    for state in ("TASK_UNREACHABLE", "TASK_LOST", "TASK_UNKNOWN"):
        found = effect(task(phase=Phase.RUNNING, claim=ClaimState.MOUNTED), state)
        assert not found.ended
        assert found.claims[CLAIM.claim_id].state is ClaimState.STRANDED
        assert found.record.unreachable_at == NOW


@pytest.mark.parametrize(
    ("before", "state", "said_of_it", "after"),
    [
        (ClaimState.RESERVED, "TASK_STAGING", (), ClaimState.RESERVED),
        (ClaimState.RESERVED, "TASK_RUNNING", (said("ATTACHING"),), ClaimState.ATTACHING),
        (ClaimState.RESERVED, "TASK_STARTING", (said(FAILED, held=True),), ClaimState.RESERVED),
        (ClaimState.ATTACHING, "TASK_RUNNING", (), ClaimState.MOUNTED),
        (ClaimState.ATTACHING, "TASK_KILLING", (), ClaimState.ATTACHING),
        (ClaimState.MOUNTED, "TASK_KILLING", (), ClaimState.MOUNTED),
        (ClaimState.RELEASING, "TASK_RUNNING", (), ClaimState.RELEASING),
    ],
)
def test_what_the_executor_says_goes_before_what_its_tasks_state_says(
    before: ClaimState, state: str, said_of_it: tuple[VolumeProgress, ...], after: ClaimState
) -> None:
    claim = effect(task(claim=before), state, *said_of_it).claim(CLAIM.claim_id)
    assert claim is not None
    assert claim.state is after


def test_a_volume_of_which_nothing_is_said_yet_stays_as_it_is() -> None:
    first = effect(task(NEW, claim=ClaimState.ATTACHING), "TASK_STARTING", said("ATTACHING"))
    assert (first.writes, first.volumes, first.births) == ([], {}, [])
    made = effect(task(NEW, claim=ClaimState.ATTACHING), "TASK_STARTING", said("ATTACHING", external_id=ExternalId("x1")))
    assert (len(made.writes), made.births) == (1, [])


@pytest.mark.parametrize(
    ("phase", "state", "started_at", "unreachable_at"),
    [
        (Phase.LAUNCHED, "TASK_STARTING", 0.0, 5.0),
        (Phase.STARTING, "TASK_RUNNING", NOW, 5.0),
        (Phase.RUNNING, "TASK_UNREACHABLE", 0.0, NOW),
        (Phase.UNREACHABLE, "TASK_UNREACHABLE", 0.0, 5.0),
    ],
)
def test_when_a_task_started_and_when_it_was_lost_is_the_first_time(
    phase: Phase, state: str, started_at: float, unreachable_at: float
) -> None:
    found = effect(task(phase=phase, claim=ClaimState.MOUNTED, unreachable_at=5.0), state).record
    assert (found.started_at, found.unreachable_at) == (started_at, unreachable_at)
    assert effect(task(phase=phase, started_at=7.0), state).record.started_at == 7.0


def test_a_birth_is_learnt_once_and_confirmed_each_time() -> None:
    made = said("ATTACHING", external_id=ExternalId("x1"), birth=BIRTH, size_mib=16)
    first = effect(task(NEW), "TASK_STARTING", made)
    assert first.births == ["c1"]
    assert first.volumes[NEW.volume_id].birth == BIRTH
    second = effect(task(first.volumes[NEW.volume_id], phase=Phase.STARTING, claim=ClaimState.ATTACHING), "TASK_STARTING", made)
    assert (second.births, second.volumes, second.writes) == (["c1"], {}, [])


@pytest.mark.parametrize(
    "other",
    [
        said("MOUNTED", birth=Birth(serial="s", filesystem="ext4", filesystem_uuid="another")),
        said("MOUNTED", external_id=ExternalId("another")),
        said("MOUNTED", epoch=2),
        said("MOUNTED", claim_id=ClaimId("ended")),
    ],
)
def test_whoever_speaks_for_another_volume_or_claim_must_die_and_is_confirmed_nothing(other: VolumeProgress) -> None:
    found = effect(task(), "TASK_RUNNING", other)
    assert found.stale
    assert found.births == []


def test_a_birth_that_comes_while_the_claim_is_stranded_takes_the_claim_back() -> None:
    stranded = task(NEW, phase=Phase.UNREACHABLE, claim=ClaimState.STRANDED)
    found = effect(stranded, "TASK_STARTING", said("ATTACHING", external_id=ExternalId("x1"), birth=BIRTH))
    assert found.claims[CLAIM.claim_id].state is ClaimState.ATTACHING
    assert found.births == ["c1"]


@pytest.mark.parametrize("before", [ClaimState.RESERVED, ClaimState.STRANDED])
def test_a_task_that_is_heard_alive_without_data_has_its_claims(before: ClaimState) -> None:
    found = effect(task(phase=Phase.LAUNCHED, claim=before), "TASK_RUNNING", source="SOURCE_MASTER", reason="REASON_RECONCILIATION")
    assert found.claims[CLAIM.claim_id].state is ClaimState.MOUNTED


@pytest.mark.parametrize("last", [said(RELEASED, held=False), said(FAILED, held=False)])
def test_what_the_executor_let_go_of_is_free(last: VolumeProgress) -> None:
    found = effect(task(phase=Phase.RUNNING, claim=ClaimState.MOUNTED), "TASK_FINISHED", last)
    assert found.freed == {CLAIM.claim_id}
    assert found.over


@pytest.mark.parametrize("last", [(), (said(FAILED, held=True),), (said("RELEASING"),)])
def test_what_it_may_still_hold_is_settled_first(last: tuple[VolumeProgress, ...]) -> None:
    found = effect(task(phase=Phase.RUNNING, claim=ClaimState.MOUNTED), "TASK_FAILED", *last)
    assert found.freed == set()
    assert not found.over
    assert found.claims[CLAIM.claim_id].state is ClaimState.RELEASING
    assert list(found.settle) == [CLAIM.claim_id]
    assert found.record.proof == "TERMINAL_STATUS"
    assert found.record.evidence


@pytest.mark.parametrize(("volume", "freed"), [(NEW, True), (IMPORTED, False), (BORN, False)])
def test_only_what_polly_was_to_make_can_be_unborn(volume: Volume, freed: bool) -> None:
    found = effect(task(volume, phase=Phase.STARTING, claim=ClaimState.ATTACHING), "TASK_FAILED", source="SOURCE_AGENT")
    assert bool(found.freed) is freed
    assert found.untidy is freed


def test_a_volume_planned_by_hand_stays_planned_when_its_claim_ends_unborn() -> None:
    by_hand = msgspec.structs.replace(NEW, owner="")
    found = effect(task(by_hand, phase=Phase.STARTING, claim=ClaimState.ATTACHING), "TASK_FAILED", source="SOURCE_AGENT")
    assert found.freed
    assert len(found.writes) == 1
    assert not found.untidy


def test_a_launch_that_is_ruled_out_frees_what_was_only_reserved() -> None:
    assert effect(task(), "TASK_DROPPED", source="SOURCE_MASTER").freed
    assert not effect(task(claim=ClaimState.STRANDED), "TASK_DROPPED", source="SOURCE_MASTER").freed
    assert not effect(task(), "TASK_GONE", source="SOURCE_MASTER").freed


def test_an_end_that_an_agent_tells_when_it_is_back_frees_nothing_by_itself() -> None:
    """Nobody has heard of the task while it ran, but it may have attached its volume."""
    found = effect(task(), "TASK_FAILED", source="SOURCE_MASTER", reason="REASON_AGENT_REREGISTERED")
    assert not found.freed
    assert [proof.kind for proof in found.settle.values()] == [ProofKind.TERMINAL_STATUS]


@pytest.mark.parametrize(
    ("state", "killing", "counts"), [("TASK_FAILED", False, True), ("TASK_FINISHED", False, True), ("TASK_FAILED", True, False)]
)
def test_which_ends_count_for_the_back_off(state: str, killing: bool, counts: bool) -> None:
    assert effect(task(phase=Phase.RUNNING, killing=killing), state).failed is counts
    assert not effect(task(phase=Phase.RUNNING), "TASK_KILLED").failed
