"""The broker attaches for executors that have no credentials: after a commit, once, answered, and taken back when the claim ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from executors.wire import ATTACH, Delivery, Progress, VolumeProgress, encode
from framework.marathon.reading import read_app
from framework.mesos.events import Status
from framework.mesos.instances import Task
from storage.lifecycle import ClaimState, ProofKind
from storage.model import Birth, ClaimId, Proof
from storage.platforms.base import CreateRequest
from storage.platforms.testing import ABILITIES, MemoryPlatform
from tests.ledgers import Clock
from tests.stage import ShakyLedger, Stage, app, birth_of, from_master, stage_config, status, volume_of

BY_BROKER = stage_config(platforms={"disks": {"kind": "memory", "attach_by": "broker"}})
ABLE = msgspec.structs.replace(ABILITIES, identity="cloud", counts_slots=False)
NODE = "i-1"


@pytest.fixture
def stage(shaky_ledger: ShakyLedger, clock: Clock) -> Stage:
    made = Stage(shaky_ledger, clock, platform=MemoryPlatform("disks", capabilities=ABLE), config=BY_BROKER)
    made.subscribed()
    return made


def update(task: Task, state: str, *volumes: VolumeProgress, **more: Any) -> Status:
    return msgspec.structs.replace(status(task, state, **more), data=encode(Progress(volumes=volumes, identities={"disks": NODE})))


def wishes(task: Task, **more: Any) -> list[VolumeProgress]:
    return [
        VolumeProgress(**{"claim_id": claim.claim_id, "epoch": claim.epoch, "step": "ATTACHING", "wants": ATTACH, **more})
        for claim in task.claims.values()
    ]


def wish(stage: Stage, task: Task, **more: Any) -> Status:
    said = update(task, "TASK_STARTING", *wishes(task, **more))
    stage.hear(said)
    return said


def delivered(stage: Stage, task: Task) -> Delivery:
    wish(stage, task)
    stage.work()
    return stage.driver.deliveries[-1]


def born(stage: Stage, task: Task) -> VolumeProgress:
    """As far as a birth that the executor has told of."""
    delivery = delivered(stage, task)
    assert delivery.external_id
    return progress_of(delivery, birth_of(delivery.external_id))


def progress_of(delivery: Delivery, birth: Birth | None = None, **more: Any) -> VolumeProgress:
    said = {"claim_id": delivery.claim_id, "epoch": delivery.epoch, "step": "ATTACHING", "external_id": delivery.external_id, **more}
    return VolumeProgress(**{"size_mib": delivery.size_mib, "birth": birth, **said})


def running(stage: Stage, task: Task) -> VolumeProgress:
    said = born(stage, task)
    stage.hear(update(task, "TASK_STARTING", said))
    stage.work()
    said = msgspec.structs.replace(said, step="MOUNTED")
    stage.hear(update(task, "TASK_RUNNING", said))
    return said


def attached(stage: Stage) -> list[Sequence[str]]:
    return [tuple(volume.attached) for volume in stage.storage.volumes.values()]


# --- what a launch says


def test_a_launch_tells_a_node_no_more_than_it_needs(stage: Stage) -> None:
    (task,) = stage.run()
    said = stage.driver.launched()[0].platforms["disks"]
    assert (said.attach_by, said.device, said.identity, said.settings) == ("broker", "block", "cloud", {})
    assert task.record.by_broker == ("disks",)


# --- attaching


def test_a_node_that_has_got_another_name_is_attached_to_by_that(stage: Stage) -> None:
    (first,) = stage.run()
    stage.hear(update(first, "TASK_FINISHED", msgspec.structs.replace(running(stage, first), step="RELEASED")))
    stage.tick(1.0)
    stage.work()
    stage.tick(60.0)
    stage.offer("a1")
    (second,) = stage.tasks()
    assert second.task_id != first.task_id
    renamed = encode(Progress(volumes=tuple(wishes(second)), identities={"disks": "a1.example"}))
    stage.hear(msgspec.structs.replace(status(second, "TASK_STARTING"), data=renamed))
    stage.work()
    assert attached(stage) == [("a1.example",)]


def test_a_wish_is_stored_then_done_then_stored_then_answered(stage: Stage) -> None:
    (task,) = stage.run()
    said = wish(stage, task)
    assert stage.driver.acknowledged == [said.uuid]
    assert stage.ledger.claims().items[0].state is ClaimState.ATTACHING
    assert (attached(stage), stage.driver.deliveries) == ([], [])
    stage.work()
    (delivery,) = stage.driver.deliveries
    assert attached(stage) == [(NODE,)]
    volume = stage.ledger.volumes().items[0]
    assert (delivery.external_id, delivery.size_mib, delivery.error) == (volume.external_id, 16, None)
    assert delivery.attachment
    assert (delivery.attachment.external_id, delivery.attachment.serial) == (volume.external_id, volume.external_id)
    told = [event for event in stage.ledger.events(limit=100).items if event.what == "volume.attached"]
    assert [event.why for event in told] == [f"{volume.external_id} to i-1 as {delivery.attachment.device}"]


def test_a_wish_that_could_not_be_stored_is_not_acted_upon(stage: Stage, shaky_ledger: ShakyLedger) -> None:
    (task,) = stage.run()
    shaky_ledger.fails_before = 1
    wish(stage, task)
    assert stage.hands.jobs == []


def test_a_wish_that_is_repeated_meanwhile_is_done_once_and_afterwards_again(stage: Stage) -> None:
    (task,) = stage.run()
    wish(stage, task)
    wish(stage, task)
    assert len(stage.hands.jobs) == 1
    stage.work()
    wish(stage, task)
    stage.work()
    first, second = stage.driver.deliveries
    assert first == second
    assert attached(stage) == [(NODE,)]


def test_a_broker_that_died_on_the_way_does_it_when_it_is_asked_again(stage: Stage) -> None:
    (task,) = stage.run()
    wish(stage, task)
    stage.hands.work()  # the platform has done it; the broker dies before it hears so
    later = stage.next_life()
    assert later.driver.deliveries == []
    assert delivered(later, later.tasks()[0]).error is None
    assert attached(later) == [(NODE,)]
    assert len(later.storage.volumes) == 1


def test_an_attachment_that_could_not_be_stored_is_not_told_of(stage: Stage, shaky_ledger: ShakyLedger) -> None:
    (task,) = stage.run()
    wish(stage, task)
    answers = stage.hands.work()
    shaky_ledger.fails_before = 1
    stage.hand_on(answers)
    assert stage.driver.deliveries == []
    stage.tick(1.0)
    assert delivered(stage, stage.tasks()[0]).external_id == stage.ledger.volumes().items[0].external_id


def test_what_the_platform_refuses_is_told_with_its_own_code(stage: Stage) -> None:
    (task,) = stage.run()
    stage.storage.capacity_mib = 1
    error = delivered(stage, task).error
    assert error
    assert (error.code, error.message) == ("PoolFull", "Pool default of platform disks has 1 MiB free, 16 MiB were asked for.")


def test_a_volume_is_made_by_its_profile_whatever_an_executor_says(shaky_ledger: ShakyLedger, clock: Clock) -> None:
    profiles = {"fast": {"platforms": ["disks"], "parameters": {"type": "slow"}, "labels": {"team": "shop"}}}
    config = stage_config(platforms={"disks": {"kind": "memory", "attach_by": "broker"}}, profiles=profiles)
    stage = Stage(shaky_ledger, clock, platform=MemoryPlatform("disks", capabilities=ABLE), config=config)
    stage.subscribed()
    (task,) = stage.run()
    assert delivered(stage, task).error is None
    (made,), (plan,) = stage.storage.volumes.values(), stage.plans(task)
    assert made.request == CreateRequest(
        pool="default", size_mib=16, token=plan.claim_id, name="/db#0/data", parameters={"type": "slow"}, labels={"team": "shop"}
    )


@pytest.mark.parametrize("changes", [{"epoch": 7}, {"claim_id": ClaimId("another")}])
def test_a_wish_for_what_is_not_the_tasks_is_its_end(stage: Stage, changes: dict[str, Any]) -> None:
    (task,) = stage.run()
    wish(stage, task, **changes)
    assert stage.hands.jobs == []
    assert stage.driver.kills == [task.task_id]


def test_a_wish_of_an_executor_that_was_to_attach_itself_is_nothing(shaky_ledger: ShakyLedger, clock: Clock) -> None:
    stage = Stage(shaky_ledger, clock, platform=MemoryPlatform("disks", capabilities=ABLE))
    stage.subscribed()
    (task,) = stage.run()
    wish(stage, task)
    assert stage.hands.jobs == []


def test_a_node_without_a_name_is_told_so(stage: Stage) -> None:
    (task,) = stage.run()
    stage.hear(msgspec.structs.replace(status(task, "TASK_STARTING"), data=encode(Progress(volumes=tuple(wishes(task))))))
    (delivery,) = stage.driver.deliveries
    assert delivery.error
    assert "has not said what platform disks calls it" in delivery.error.message


def test_an_answer_that_cannot_be_sent_is_asked_for_again(stage: Stage) -> None:
    (task,) = stage.run()
    wish(stage, task)
    stage.driver.connected = False
    stage.work()
    assert stage.driver.deliveries == []
    stage.driver.connected = True
    assert delivered(stage, task).error is None


# --- births


def test_a_birth_is_confirmed_once_the_platform_has_it_too(stage: Stage) -> None:
    (task,) = stage.run()
    said = born(stage, task)
    stage.hear(update(task, "TASK_STARTING", said))
    assert stage.driver.receipts == []
    stage.hear(update(task, "TASK_STARTING", said))
    stage.work()
    assert stage.driver.receipts == [said.claim_id]
    assert [volume.birth for volume in stage.storage.volumes.values()] == [said.birth]


def test_a_birth_on_a_platform_that_keeps_none_is_confirmed_at_once(shaky_ledger: ShakyLedger, clock: Clock) -> None:
    able = msgspec.structs.replace(ABLE, marks=False, fences=False)
    stage = Stage(shaky_ledger, clock, platform=MemoryPlatform("disks", capabilities=able), config=BY_BROKER)
    stage.subscribed()
    (task,) = stage.run()
    said = born(stage, task)
    stage.hear(update(task, "TASK_STARTING", said))
    assert (stage.driver.receipts, stage.hands.jobs) == ([said.claim_id], [])


def test_a_birth_that_the_platform_cannot_take_now_is_asked_for_again(stage: Stage) -> None:
    (task,) = stage.run()
    said = born(stage, task)
    stage.storage.expired = True
    stage.hear(update(task, "TASK_STARTING", said))
    stage.work()
    assert (stage.driver.receipts, stage.driver.kills) == ([], [])
    stage.storage.expired = False
    stage.hear(update(task, "TASK_STARTING", said))
    stage.work()
    assert stage.driver.receipts == [said.claim_id]


def test_a_birth_that_the_platform_never_got_is_kept_there_with_the_next_claim(stage: Stage) -> None:
    (task,) = stage.run()
    said = born(stage, task)
    stage.storage.expired = True
    stage.hear(update(task, "TASK_STARTING", said))
    stage.work()
    stage.storage.expired = False
    stage.hear(update(task, "TASK_FAILED", msgspec.structs.replace(said, step="RELEASED", held=False)))
    stage.tick(60.0)
    stage.work()
    stage.tick(60.0)
    stage.offer("a1")
    (task,) = stage.tasks()
    assert [volume.birth for volume in stage.storage.volumes.values()] == [None]
    wish(stage, task)
    stage.work()
    assert [volume.birth for volume in stage.storage.volumes.values()] == [said.birth]


def test_a_birth_of_an_older_epoch_than_the_platforms_ends_the_task(stage: Stage) -> None:
    (task,) = stage.run()
    said = born(stage, task)
    (volume,) = stage.storage.volumes.values()
    stage.storage.volumes[volume.external_id] = msgspec.structs.replace(volume, mark=volume.mark.fenced(9))
    stage.hear(update(task, "TASK_STARTING", said))
    stage.work()
    assert (stage.driver.receipts, stage.driver.kills) == ([], [task.task_id])


# --- and back


def test_a_claim_ends_when_the_broker_has_detached_what_its_executor_let_go(stage: Stage) -> None:
    (task,) = stage.run()
    said = running(stage, task)
    stage.hear(update(task, "TASK_FINISHED", msgspec.structs.replace(said, step="RELEASED", held=False)))
    assert stage.ledger.claims().items[0].state is ClaimState.RELEASING
    assert attached(stage) == [(NODE,)]
    stage.tick()
    stage.work()
    assert (attached(stage), stage.ledger.claims().items) == ([()], [])
    freed = [event.why for event in stage.ledger.events(limit=1000).items if event.what == "claim.freed"]
    assert len(freed) == 1
    assert freed[0].startswith("RELEASED: unmounted by its executor")
    assert freed[0].endswith("detached from i-1")


@pytest.mark.parametrize("restarted", [False, True])
def test_an_executor_that_dies_is_detached_after(stage: Stage, restarted: bool) -> None:
    (task,) = stage.run()
    running(stage, task)
    stage.hear(status(task, "TASK_FAILED", source="SOURCE_AGENT"))
    broker = stage.next_life() if restarted else stage
    broker.tick()
    broker.work()
    assert (attached(broker), broker.ledger.claims().items) == ([()], [])


def test_an_executor_that_dies_before_its_volume_came_leaves_nothing(stage: Stage) -> None:
    (task,) = stage.run()
    wish(stage, task)
    stage.hear(status(task, "TASK_FAILED", source="SOURCE_AGENT"))
    stage.tick()
    assert [key for key, _, _ in stage.hands.jobs] == [f"volume {volume_id}" for volume_id in list(task.volumes) * 2]
    stage.work()
    stage.janitor.resume()
    stage.work()
    assert (stage.storage.volumes, stage.ledger.claims().items, stage.ledger.orphans()) == ({}, [], [])


def test_a_failed_executor_that_waited_in_vain_leaves_nothing(stage: Stage) -> None:
    (task,) = stage.run()
    wish(stage, task)
    said = wishes(task, step="FAILED", held=False)
    stage.hear(update(task, "TASK_FAILED", *said))
    stage.tick()
    stage.work()
    stage.janitor.resume()
    stage.work()
    assert (stage.storage.volumes, stage.ledger.claims().items, stage.ledger.orphans()) == ({}, [], [])


def test_a_wish_whose_task_ended_before_its_turn_came_is_not_begun(stage: Stage) -> None:
    """Else a slow platform is kept busy with what nobody waits for, and those who wait are late as well."""
    (task,) = stage.run()
    wish(stage, task)
    stage.hear(update(task, "TASK_FAILED", *wishes(task, step="FAILED", held=False)))
    stage.hands.work()
    assert stage.storage.volumes == {}


def test_a_task_that_was_never_heard_of_ends_at_once(stage: Stage) -> None:
    (task,) = stage.run()
    stage.hear(from_master(task, "TASK_DROPPED"))
    assert stage.ledger.claims().items == []


def ended_by_a_person_meanwhile(stage: Stage) -> Any:
    """A claim on a volume with data ends by a person's word, while a worker attaches the volume; the worker's answer."""
    (task,) = stage.run()
    running(stage, task)
    stage.hear(status(task, "TASK_FAILED", source="SOURCE_AGENT"))
    stage.tick(60.0)
    stage.work()
    stage.tick(60.0)
    stage.offer("a1")
    (task,) = stage.tasks()
    wish(stage, task)
    jobs = stage.hands.work()
    stage.scheduler.statuses.settled(next(iter(task.claims.values())), Proof(kind=ProofKind.OPERATOR_OVERRIDE, evidence="it burnt"))
    stage.hear(status(task, "TASK_FAILED", source="SOURCE_AGENT"))
    return jobs


def test_a_claim_that_a_person_ended_meanwhile_leaves_nothing_attached(stage: Stage) -> None:
    jobs = ended_by_a_person_meanwhile(stage)
    stage.hand_on(jobs)
    assert attached(stage) == [(NODE,)]
    stage.work()
    assert (attached(stage), stage.driver.deliveries[1:]) == ([()], [])


def test_neither_does_one_whose_volume_was_never_born_and_is_the_ledgers_no_more(stage: Stage) -> None:
    (task,) = stage.run()
    wish(stage, task)
    answers = stage.hands.work()
    stage.apps.scale("/db", 0, "test")
    stage.hear(from_master(task, "TASK_UNREACHABLE"))
    stage.scheduler.statuses.settled(next(iter(task.claims.values())), Proof(kind=ProofKind.OPERATOR_OVERRIDE, evidence="it burnt"))
    assert stage.ledger.volumes().items == []
    stage.hand_on(answers)
    assert attached(stage) == [(NODE,)]
    stage.work()
    assert attached(stage) == [()]


def test_what_a_later_claim_on_the_same_node_has_is_not_taken_back(stage: Stage) -> None:
    jobs = ended_by_a_person_meanwhile(stage)
    stage.tick(60.0)
    stage.offer("a1")
    assert len(stage.ledger.claims().items) == 1
    stage.hand_on(jobs)
    stage.work()
    assert attached(stage) == [(NODE,)]


def test_a_setting_that_changes_meanwhile_counts_for_later_launches(stage: Stage) -> None:
    (task,) = stage.run()
    running(stage, task)
    later = stage.next_life(config=stage_config())
    (same,) = later.tasks()
    said = [VolumeProgress(claim_id=claim.claim_id, epoch=claim.epoch, step="RELEASED", held=False) for claim in same.claims.values()]
    later.hear(update(same, "TASK_FINISHED", *said))
    assert attached(later) == [(NODE,)]
    later.tick()
    later.work()
    assert (attached(later), later.ledger.claims().items) == ([()], [])


def test_two_volumes_are_attached_at_once(stage: Stage) -> None:
    (task,) = stage.run(volumes=[volume_of("data"), volume_of("log")])
    wish(stage, task)
    assert len(stage.hands.jobs) == 2
    stage.work()
    assert {delivery.claim_id for delivery in stage.driver.deliveries} == set(task.claims)


def test_a_platform_that_is_not_configured_any_more_is_told_of(stage: Stage) -> None:
    (task,) = stage.run()
    stage.context.platforms.pop("disks")  # type: ignore[attr-defined]  # a dict, as the stage has it
    wish(stage, task)
    (delivery,) = stage.driver.deliveries
    assert delivery.error
    assert (delivery.error.code, stage.hands.jobs) == ("UnknownPlatform", [])


def test_a_volume_that_its_app_has_no_more_is_not_made(stage: Stage) -> None:
    (task,) = stage.run()
    stage.state().app = read_app(app(volumes=[volume_of("elsewhere")]))
    wish(stage, task)
    (delivery,) = stage.driver.deliveries
    assert delivery.error
    assert (delivery.error.code, "a volume at data" in delivery.error.message) == ("Conflict", True)
    assert (stage.hands.jobs, stage.storage.volumes) == ([], {})


def test_what_cannot_be_taken_back_now_ends_nothing_else(stage: Stage) -> None:
    jobs = ended_by_a_person_meanwhile(stage)
    stage.storage.expired = True
    stage.hand_on(jobs)
    stage.work()
    assert (attached(stage), stage.ledger.claims().items) == ([(NODE,)], [])
