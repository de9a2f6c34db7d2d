"""Volumes that several tasks read on one machine: one that ends takes nothing from another, and the last one leaves nothing attached."""

from __future__ import annotations

import msgspec
import pytest

from executors.wire import Progress, encode
from framework.mesos.events import Status
from framework.mesos.instances import Task
from storage.lifecycle import ProofKind
from storage.model import AccessMode, Birth, ExternalId, Proof, Volume, VolumeId
from storage.platforms.base import CreateRequest
from tests.stage import Stage, from_master, status

CAPABILITY = {"accessMode": "MULTI_NODE_READER_ONLY", "accessType": "mount", "fsType": "ext4"}
EXTERNAL = {"provider": "csi", "name": "pages", "options": {"pluginName": "disks", "capability": CAPABILITY}}
PAGES = [{"containerPath": "data", "mode": "RO", "external": EXTERNAL}]
MACHINE = "i-1"


@pytest.fixture
def pages(stage: Stage) -> ExternalId:
    return imported_pages(stage)


def imported_pages(stage: Stage) -> ExternalId:
    """A volume that any number of tasks may read."""
    made = stage.platform.create(CreateRequest(pool="default", size_mib=16, token="by hand", name="pages"))
    volume = Volume(
        volume_id=VolumeId("pages"),
        name="pages",
        platform="disks",
        pool="default",
        size_mib=16,
        external_id=made.external_id,
        access_mode=AccessMode.MULTI_NODE_READER_ONLY,
        birth=Birth(serial=made.external_id, filesystem="ext4", filesystem_uuid="u"),
    )
    with stage.ledger.begin("test") as tx:
        tx.adopt(volume)
    return made.external_id


def running(task: Task) -> Status:
    """Its executor says what the platform calls the machine."""
    return msgspec.structs.replace(status(task, "TASK_RUNNING"), data=encode(Progress(identities={"disks": MACHINE})))


def read(stage: Stage, app_id: str, *, agent: str = "a1") -> Task:
    (task,) = stage.run(app_id, agents=[agent], volumes=PAGES)
    stage.hear(running(task))
    stage.work()
    return task


def attach(stage: Stage, external_id: ExternalId) -> None:
    """As platforms do on which two claims of one machine have one attachment."""
    stage.platform.attach(external_id, MACHINE, epoch=9, read_only=True)


def attached(stage: Stage, external_id: ExternalId) -> list[str]:
    return list(stage.storage.volumes[external_id].attached)


def settle(stage: Stage) -> None:
    stage.tick(6.0)
    stage.work()


def test_one_that_ends_leaves_the_volume_to_the_other(stage: Stage, pages: ExternalId) -> None:
    first, _ = read(stage, "/web"), read(stage, "/other")
    attach(stage, pages)
    stage.hear(from_master(first, "TASK_GONE"))
    settle(stage)
    assert len(stage.ledger.claims().items) == 1
    assert attached(stage, pages) == [MACHINE]


def test_two_that_end_together_leave_nothing_attached(stage: Stage, pages: ExternalId) -> None:
    tasks = [read(stage, "/web"), read(stage, "/other")]
    attach(stage, pages)
    stage.hear(*[from_master(task, "TASK_GONE") for task in tasks])
    settle(stage)
    assert stage.ledger.claims().items == []
    assert attached(stage, pages) == []


def test_a_machine_that_has_become_another_agent_is_the_same_machine(stage: Stage, pages: ExternalId) -> None:
    before = read(stage, "/web")
    now = read(stage, "/other", agent="a2")
    attach(stage, pages)
    stage.hear(from_master(before, "TASK_GONE"))
    settle(stage)
    assert [claim.holder.placement for claim in stage.ledger.claims().items] == [now.task_id]
    assert attached(stage, pages) == [MACHINE]


@pytest.mark.parametrize("agent", ["a1", "a2"])
def test_nobody_comes_to_a_machine_while_the_volume_is_taken_from_it(stage: Stage, pages: ExternalId, agent: str) -> None:
    before = read(stage, "/web")
    read(stage, "/known", agent="a2")
    attach(stage, pages)
    stage.end(stage.tasks("/known")[0], "TASK_KILLED")
    stage.apps.scale("/known", 0, "test")
    stage.hear(from_master(before, "TASK_GONE"))
    stage.tick()
    assert len(stage.hands.jobs) == 1

    assert stage.run("/late", agents=[agent], volumes=PAGES) == []
    assert "is just being detached" in stage.state("/late").waiting[0].blocked
    stage.work()
    assert attached(stage, pages) == []
    stage.tick(6.0)
    stage.offer(agent)
    assert len(stage.tasks("/late")) == 1


def test_a_detach_that_goes_on_after_a_person_has_ended_the_claim_takes_nothing_from_the_next(stage: Stage) -> None:
    (before,) = stage.run()
    stage.start(before)
    stage.hear(from_master(before, "TASK_GONE"))
    stage.tick()
    (claim,) = before.claims.values()
    stage.scheduler.statuses.settled(claim, Proof(kind=ProofKind.OPERATOR_OVERRIDE, evidence="it burnt"))
    stage.tick(60.0)

    stage.offer("a1")
    assert stage.tasks() == []
    stage.work()
    stage.offer("a1")
    (now,) = stage.tasks()
    stage.start(now)
    stage.work()
    assert attached(stage, ExternalId(stage.plans(now)[0].external_id or "")) == ["a1.example"]


def test_another_machine_may_have_the_volume_meanwhile(stage: Stage, pages: ExternalId) -> None:
    before = read(stage, "/web")
    stage.hear(from_master(before, "TASK_GONE"))
    stage.tick()
    assert len(stage.run("/late", agents=["a3"], volumes=PAGES)) == 1
