"""Updates in the ledger and in the picture: stored before they are acknowledged, in any order, with a ledger that fails."""

from __future__ import annotations

import msgspec
import pytest

from executors.wire import Progress, VolumeProgress, encode, failure
from framework.mesos.instances import Phase, Task
from framework.mesos.reconcile import LAST_S
from framework.service import ImportOrder
from framework.settling import StillHeld
from storage.errors import LedgerUnavailable, PoolFull
from storage.lifecycle import ClaimState, ProofKind
from storage.model import Birth, ClaimId, Proof
from storage.platforms.base import CreateRequest
from tests.stage import ShakyLedger, Stage, external_of, from_master, status, step, volume_of

FENCED = Proof(kind=ProofKind.FENCED, evidence="nothing holds it")
NEVER_BORN = Proof(kind=ProofKind.NEVER_BORN, evidence="no birth certificate")


def test_an_update_is_acknowledged_once_it_is_stored(stage: Stage, shaky_ledger: ShakyLedger) -> None:
    (task,) = stage.run()
    update = status(task, "TASK_STARTING")
    shaky_ledger.fails_before = 1
    stage.hear(update)
    assert stage.driver.acknowledged == []
    assert task.phase is Phase.LAUNCHED
    stage.hear(update)
    assert stage.driver.acknowledged == [update.uuid]
    assert stage.tasks()[0].phase is Phase.STARTING


def test_what_was_stored_without_an_answer_is_found_again(stage: Stage, shaky_ledger: ShakyLedger) -> None:
    (task,) = stage.run()
    stage.start(task)
    shaky_ledger.fails_after = 1
    stage.end(task)
    assert stage.context.in_doubt
    stage.tick(1.0)
    assert stage.tasks() == []
    assert list(stage.state().waiting) == [0]


def test_nothing_is_placed_while_the_picture_is_in_doubt(stage: Stage) -> None:
    stage.apps.run({"id": "/web", "cmd": "x", "instances": 1}, "test")
    stage.context.in_doubt = True
    stage.offer("a1")
    assert stage.driver.accepts == []
    assert stage.driver.declined[-1][1] < 60


def test_an_old_update_does_not_spare_the_question_whether_the_task_still_lives(stage: Stage) -> None:
    """It ran on an agent that was lost while no broker was there to hear of it."""
    (task,) = stage.run(volumes=[])
    stage.hear(running := status(task, "TASK_RUNNING"))
    later = stage.next_life()
    later.hear(running)
    later.tick()
    assert [task.task_id] in later.driver.reconciled
    later.hear(from_master(task, "TASK_GONE", reason="REASON_RECONCILIATION"))
    assert later.tasks() == []


def test_nothing_is_asked_about_a_task_whose_end_is_proven(stage: Stage) -> None:
    """What is left of it is its platform's to say."""
    (task,) = stage.run()
    stage.start(task)
    later = stage.next_life()
    later.tick()
    later.hear(status(task, "TASK_FAILED", source="SOURCE_AGENT"))
    assert [it.phase for it in later.tasks()] == [Phase.SETTLING]
    asked = len(later.driver.reconciled)
    later.tick(LAST_S)
    assert [calls for calls in later.driver.reconciled[asked:] if calls] == []


def test_a_task_that_runs_has_mounted_whatever_came_late(stage: Stage) -> None:
    (task,) = stage.run()
    made = stage.make(stage.plans(task)[0])
    stage.hear(starting := status(task, "TASK_STARTING", made))
    stage.hear(status(task, "TASK_RUNNING", step(made, "MOUNTED")))
    stage.hear(from_master(task, "TASK_UNREACHABLE"))
    stage.hear(starting)
    stage.hear(from_master(task, "TASK_RUNNING", reason="REASON_RECONCILIATION"))
    assert [claim.state for claim in task.claims.values()] == [ClaimState.MOUNTED]


def test_two_claims_that_end_around_a_commit_in_doubt_end_the_task(stage: Stage, shaky_ledger: ShakyLedger) -> None:
    """The first commit was stored and brought no answer, so the second one does not know that its claim is the last."""
    (task,) = stage.run(volumes=[volume_of("data"), volume_of("log")])
    stage.start(task)
    stage.hear(status(task, "TASK_FAILED", source="SOURCE_AGENT"))
    stage.tick()
    first, second = stage.hands.work()
    shaky_ledger.fails_after = 1
    stage.hand_on([first])
    stage.hand_on([second])
    stage.tick(1.0)
    assert stage.ledger.placements() == []
    assert stage.tasks() == []
    assert list(stage.state().waiting) == [0]


def test_an_answer_that_could_not_be_stored_is_asked_for_again(stage: Stage, shaky_ledger: ShakyLedger) -> None:
    (task,) = stage.run()
    stage.start(task)
    stage.tick(0.1)
    stage.driver.reconciled.clear()
    shaky_ledger.fails_before = 1
    stage.hear(from_master(task, "TASK_GONE"))
    stage.tick(1.0)
    assert any(task.task_id in asked for asked in stage.driver.reconciled)


def test_a_terminal_status_that_comes_twice_ends_the_task_once(stage: Stage) -> None:
    (task,) = stage.run()
    stage.start(task)
    failed = status(task, "TASK_FAILED", source="SOURCE_AGENT")
    stage.hear(failed, failed)
    assert task.phase is Phase.SETTLING
    stage.hear(failed)
    detach_all(stage)
    stage.tick()
    stage.work()
    stage.hear(failed)
    assert stage.tasks() == []
    assert stage.state().failures == {0: 1}
    assert stage.driver.acknowledged.count(str(failed.uuid)) == 4


def detach_all(stage: Stage) -> None:
    for external in list(stage.storage.volumes):
        stage.platform.detach(stage.storage.volumes[external].external_id, "a1.example")


def test_an_update_after_the_end_changes_nothing_and_kills(stage: Stage) -> None:
    (task,) = stage.run()
    stage.start(task)
    running = status(task, "TASK_RUNNING")
    stage.hear(status(task, "TASK_FAILED", source="SOURCE_AGENT"))
    stage.hear(running)
    assert task.phase is Phase.SETTLING
    assert stage.driver.kills == [task.task_id]
    stage.hear(from_master(task, "TASK_UNREACHABLE"))
    assert [claim.state for claim in task.claims.values()] == [ClaimState.RELEASING]


def test_a_status_of_an_earlier_run_of_the_slot_touches_nothing_but_that_run(stage: Stage) -> None:
    (first,) = stage.run()
    stage.start(first)
    stage.end(first)
    stage.tick(2.0)
    stage.offer("a1")
    (second,) = stage.tasks()
    stage.hear(status(first, "TASK_RUNNING"))
    assert stage.driver.kills == [first.task_id]
    assert second.phase is Phase.LAUNCHED


def test_a_receipt_says_only_what_the_ledger_holds(stage: Stage, shaky_ledger: ShakyLedger) -> None:
    (task,) = stage.run()
    (plan,) = stage.plans(task)
    made = stage.make(plan)
    shaky_ledger.fails_before = 1
    stage.hear(status(task, "TASK_STARTING", made))
    assert stage.driver.receipts == []
    stage.hear(status(task, "TASK_STARTING", made))
    assert stage.driver.receipts == [plan.claim_id]
    assert stage.ledger.volume("/db#0/data").birth == made.birth


def test_no_receipt_for_a_claim_that_has_ended(stage: Stage) -> None:
    (task,) = stage.run()
    (plan,) = stage.plans(task)
    made = stage.make(plan)
    stage.hear(from_master(task, "TASK_GONE"))
    stage.hear(status(task, "TASK_STARTING", made))
    assert stage.driver.receipts == []
    assert stage.driver.kills == [task.task_id]


def test_no_receipt_for_another_filesystem_than_the_one_stored(stage: Stage) -> None:
    (task,) = stage.run()
    (plan,) = stage.plans(task)
    made = stage.make(plan)
    stage.hear(status(task, "TASK_STARTING", made))
    stage.driver.receipts.clear()
    stage.hear(status(task, "TASK_STARTING", step(made, "ATTACHING", birth=Birth(serial="s", filesystem="ext4", filesystem_uuid="other"))))
    assert stage.driver.receipts == []
    assert stage.driver.kills == [task.task_id]


def test_data_that_the_ledger_refuses_costs_the_data_and_not_the_end(stage: Stage) -> None:
    stage.run("/a", agents=("a1",), cpus=1)
    stage.start(stage.tasks("/a")[0])
    (task,) = stage.run("/b")
    (plan,) = stage.plans(task)
    stolen = step(stage.make(plan), "ATTACHING", external_id=next(iter(stage.storage.volumes)))
    stage.hear(status(task, "TASK_FAILED", stolen))
    assert stage.tasks("/b") == []
    assert stage.ledger.volume("/a#0/data").birth is not None


STRANGE = VolumeProgress(
    claim_id=ClaimId("c"), epoch=1, step="FAILED", held=False, error=failure(PoolFull(pool="p", platform="disks", free_mib=0, size_mib=1))
)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"version": 1, "volumes": [{"claim_id": "c", "epoch": 1, "step": "NONE"}]}',
        b"\xff\x00",
        encode(Progress(volumes=(STRANGE,))),
    ],
)
def test_no_data_of_an_executor_ends_the_broker(stage: Stage, data: bytes) -> None:
    (task,) = stage.run()
    stage.hear(msgspec.structs.replace(status(task, "TASK_RUNNING"), data=data))
    assert task.phase is Phase.RUNNING


def test_answers_of_the_platform_that_come_too_late_are_passed_over(stage: Stage) -> None:
    (task,) = stage.run()
    stage.start(task)
    (claim,) = task.claims.values()
    stage.hear(from_master(task, "TASK_UNREACHABLE"))
    stage.hear(status(task, "TASK_RUNNING"))
    for answer in (FENCED, NEVER_BORN, StillHeld(reason="held")):
        stage.scheduler.statuses.settled(claim, answer)
    (now,) = task.claims.values()
    assert (now.state, now.reason) == (ClaimState.MOUNTED, "")
    stage.end(task)
    stage.scheduler.statuses.settled(claim, FENCED)
    assert stage.ledger.claims().items == []


def test_why_a_volume_is_held_is_stored_once(stage: Stage, shaky_ledger: ShakyLedger) -> None:
    """It is asked every few seconds, for as long as it lasts."""
    (task,) = stage.run()
    stage.start(task)
    (claim,) = task.claims.values()
    stage.hear(from_master(task, "TASK_UNREACHABLE"))
    stage.scheduler.statuses.settled(claim, StillHeld(reason="n1 still holds it"))
    shaky_ledger.fails_before = 1
    stage.scheduler.statuses.settled(claim, StillHeld(reason="n1 still holds it"))
    assert shaky_ledger.fails_before == 1
    assert [it.reason for it in stage.ledger.claims().items] == ["n1 still holds it"]


def test_what_was_born_meanwhile_is_not_taken_for_unborn(stage: Stage) -> None:
    (task,) = stage.run()
    (claim,) = task.claims.values()
    made = stage.make(stage.plans(task)[0])
    stage.hear(status(task, "TASK_STARTING", made))
    stage.hear(from_master(task, "TASK_UNREACHABLE"))
    stage.scheduler.statuses.settled(claim, NEVER_BORN)
    assert list(task.claims) == [claim.claim_id]


def test_a_task_that_lost_one_volume_by_proof_is_killed_when_it_comes_back(stage: Stage) -> None:
    (task,) = stage.run(volumes=[volume_of("data"), volume_of("log")])
    stage.start(task)
    stage.hear(from_master(task, "TASK_UNREACHABLE"))
    first = next(iter(task.claims.values()))
    stage.scheduler.statuses.settled(first, FENCED)
    (freed,) = [event for event in stage.ledger.events(limit=100).items if event.what == "claim.freed"]
    assert (freed.actor, freed.why.partition(":")[0]) == ("broker", "FENCED")
    assert task.record.killing
    stage.hear(from_master(task, "TASK_RUNNING"))
    stage.tick()
    assert task.task_id in stage.driver.kills


def test_the_proof_outlives_the_broker(stage: Stage) -> None:
    (task,) = stage.run()
    stage.start(task)
    stage.storage.expired = True
    stage.hear(status(task, "TASK_GONE_BY_OPERATOR", source="SOURCE_MASTER"))
    stage.tick()
    stage.work()
    assert "expired" in next(iter(task.claims.values())).reason
    stage.storage.expired = False
    later = stage.next_life()
    later.tick()
    later.work()
    assert later.tasks() == []
    freed = [event.why for event in later.ledger.events(limit=1000).items if event.what == "claim.freed"]
    assert freed[-1].startswith("TASK_GONE_BY_OPERATOR: ")


def test_failures_add_up_and_a_minute_of_life_clears_them(stage: Stage) -> None:
    (task,) = stage.run(volumes=[])
    for failures in (1, 2, 3):
        (task,) = stage.tasks()
        stage.hear(status(task, "TASK_RUNNING"))
        stage.hear(status(task, "TASK_FAILED"))
        assert stage.state().failures == {0: failures}
        stage.tick(2.0)
        stage.offer("a1")
    (task,) = stage.tasks()
    stage.hear(status(task, "TASK_RUNNING"))
    stage.tick(61.0)
    stage.hear(status(task, "TASK_FAILED"))
    assert stage.state().failures == {0: 1}


def test_an_imported_volume_is_never_taken_for_unborn(stage: Stage) -> None:
    made = stage.platform.create(CreateRequest(pool="default", size_mib=16, token="theirs"))
    stage.volumes.adopt(ImportOrder(platform="disks", external_id=made.external_id, name="theirs", profile="fast"), "test")
    stage.work()
    (task,) = stage.run(volumes=[external_of("theirs")])
    assert not stage.plans(task)[0].may_format
    stage.hear(status(task, "TASK_STARTING"))
    stage.hear(status(task, "TASK_FAILED", source="SOURCE_AGENT"))
    stage.tick()
    stage.work()
    assert stage.tasks() == []
    volume = stage.ledger.volume("theirs")
    assert (volume.external_id, volume.token) == (made.external_id, "")
    assert stage.ledger.orphans() == []


def test_the_ledger_that_is_away_raises_to_nobody_but_the_guard(stage: Stage, shaky_ledger: ShakyLedger) -> None:
    (task,) = stage.run()
    shaky_ledger.fails_before = 1
    with pytest.raises(LedgerUnavailable):
        stage.scheduler.statuses.apply([status(task, "TASK_RUNNING")])


# --- what the ledger refuses, and calls that do not get through


def with_a_stolen_volume(stage: Stage) -> tuple[Task, VolumeProgress]:
    """A task, and what its executor says that the ledger cannot take: that its volume is another's."""
    stage.run("/a", agents=("a1",), cpus=1)
    stage.start(stage.tasks("/a")[0])
    (task,) = stage.run("/b", agents=("a2",), cpus=1)
    return task, step(stage.make(stage.plans(task)[0]), "ATTACHING", external_id=next(iter(stage.storage.volumes)))


def test_a_task_that_lives_is_killed_for_data_that_the_ledger_refuses_and_one_that_ended_is_not(stage: Stage) -> None:
    task, stolen = with_a_stolen_volume(stage)
    stage.hear(refused := status(task, "TASK_STARTING", stolen))
    assert (stage.driver.kills, stage.driver.acknowledged[-1]) == ([task.task_id], refused.uuid)
    assert stage.ledger.volume("/b#0/data").external_id is None
    stage.hear(status(task, "TASK_FAILED", stolen))
    assert stage.driver.kills == [task.task_id]


def test_of_a_batch_only_the_update_that_the_ledger_refuses_loses_its_data(stage: Stage) -> None:
    task, stolen = with_a_stolen_volume(stage)
    (other,) = stage.run("/c", agents=("a3",))
    made = stage.make(stage.plans(other)[0])
    stage.driver.receipts.clear()
    stage.hear(status(task, "TASK_STARTING", stolen), status(other, "TASK_STARTING", made))
    assert (stage.driver.receipts, stage.driver.kills) == ([made.claim_id], [task.task_id])
    assert stage.ledger.volume("/c#0/data").birth == made.birth


def test_an_update_that_does_not_fit_the_ledger_at_all_puts_the_picture_in_doubt(stage: Stage) -> None:
    (task,) = stage.run()
    stage.start(task)
    (claim,) = task.claims.values()
    with stage.ledger.begin("another") as tx:
        tx.free(claim.claim_id, claim.epoch, Proof(kind=ProofKind.OPERATOR_OVERRIDE, evidence="it burnt"))
    stage.driver.reconciled.clear()
    stage.hear(status(task, "TASK_FAILED", source="SOURCE_AGENT"))
    assert stage.context.in_doubt
    stage.tick(1.0)
    assert not stage.context.in_doubt
    assert [task.task_id] in stage.driver.reconciled


def test_what_is_stored_without_a_connection_is_answered_when_it_comes_again(stage: Stage) -> None:
    (task,) = stage.run()
    made = stage.make(stage.plans(task)[0])
    starting = status(task, "TASK_STARTING", made)
    stage.driver.connected = False
    stage.hear(starting)
    assert stage.ledger.volume("/db#0/data").birth == made.birth
    assert (stage.driver.receipts, stage.driver.acknowledged) == ([], [])
    stage.driver.connected = True
    stage.hear(starting)
    assert (stage.driver.receipts, stage.driver.acknowledged) == ([made.claim_id], [starting.uuid])


def test_a_stray_that_could_not_be_killed_is_killed_when_it_is_heard_again(stage: Stage) -> None:
    (task,) = stage.run()
    stage.start(task)
    stage.hear(status(task, "TASK_FAILED", source="SOURCE_AGENT"))
    stage.driver.connected = False
    stage.hear(status(task, "TASK_RUNNING"))
    stage.driver.connected = True
    assert stage.driver.kills == []
    stage.hear(status(task, "TASK_RUNNING"))
    assert stage.driver.kills == [task.task_id]
