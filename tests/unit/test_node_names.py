"""What platforms call a node: said by its executor, kept by the ledger, and used to take a volume from a task that is gone."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from executors.wire import Progress, VolumeProgress, encode
from framework.mesos.events import Status
from framework.mesos.instances import Task
from storage.lifecycle import ClaimState
from storage.platforms.testing import ABILITIES, MemoryPlatform
from tests.ledgers import Clock
from tests.stage import ShakyLedger, Stage, from_master, status, step

ABLE = msgspec.structs.replace(ABILITIES, identity="cloud")


@pytest.fixture
def stage(shaky_ledger: ShakyLedger, clock: Clock) -> Stage:
    """A broker whose platform does not call nodes by their hostnames."""
    made = Stage(shaky_ledger, clock, platform=MemoryPlatform("disks", capabilities=ABLE))
    made.subscribed()
    return made


def named(update: Status, volumes: tuple[VolumeProgress, ...] = (), **identities: str) -> Status:
    return msgspec.structs.replace(update, data=encode(Progress(volumes=volumes, identities=identities)))


def started(stage: Stage, task: Task, node: str = "i-1") -> None:
    """The executor says what the platform calls its node, and only then attaches."""
    (plan,) = stage.plans(task)
    stage.hear(
        named(status(task, "TASK_STARTING"), (VolumeProgress(claim_id=plan.claim_id, epoch=plan.epoch, step="ATTACHING"),), disks=node)
    )
    made = stage.make(plan, node)
    stage.hear(named(status(task, "TASK_RUNNING"), (step(made, "MOUNTED"),), disks=node))


def identities(stage: Stage) -> Any:
    return [node.identities for node in stage.ledger.nodes()]


def test_a_launch_says_how_the_node_learns_its_name(stage: Stage) -> None:
    stage.run()
    (launch,) = stage.driver.launched()
    assert launch.platforms["disks"].identity == "cloud"


def test_a_name_is_in_the_ledger_with_the_first_word_of_the_executor(stage: Stage) -> None:
    (task,) = stage.run()
    assert identities(stage) == [{}]
    (plan,) = stage.plans(task)
    stage.hear(
        named(status(task, "TASK_STARTING"), (VolumeProgress(claim_id=plan.claim_id, epoch=plan.epoch, step="ATTACHING"),), disks="i-1")
    )
    assert identities(stage) == [{"disks": "i-1"}]
    assert stage.ledger.claims().items[0].state is ClaimState.ATTACHING
    stage.offer("a1")
    assert identities(stage) == [{"disks": "i-1"}]


def test_a_name_that_could_not_be_stored_is_stored_with_the_update_that_comes_again(stage: Stage, shaky_ledger: ShakyLedger) -> None:
    (task,) = stage.run()
    update = named(status(task, "TASK_STARTING"), disks="i-1")
    shaky_ledger.fails_before = 1
    stage.hear(update)
    assert identities(stage) == [{}]
    stage.hear(update)
    assert identities(stage) == [{"disks": "i-1"}]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_task_that_is_gone_is_detached_by_its_nodes_name(stage: Stage, restarted: bool) -> None:
    (task,) = stage.run()
    started(stage, task)
    broker = stage.next_life() if restarted else stage
    broker.hear(from_master(broker.tasks()[0], "TASK_GONE"))
    broker.tick()
    broker.work()
    assert broker.ledger.claims().items == []
    assert [volume.attached for volume in broker.storage.volumes.values()] == [{}]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_task_that_never_spoke_is_detached_by_what_another_on_its_node_has_said(stage: Stage, restarted: bool) -> None:
    (first,) = stage.run()
    started(stage, first)
    stage.end(first)
    stage.storage.volumes = {key: msgspec.structs.replace(volume, attached={}) for key, volume in stage.storage.volumes.items()}
    broker = stage.next_life() if restarted else stage
    broker.tick(60.0)
    broker.offer("a1")
    (second,) = broker.tasks()
    assert broker.context.node_name(second, "disks") == "i-1"


def test_a_node_that_nobody_named_has_no_name(stage: Stage) -> None:
    (task,) = stage.run()
    assert stage.context.node_name(task, "disks") is None
    assert stage.context.node_name(task, "gone from polly.toml") == "a1.example"


def test_a_stopped_node_frees_the_volume_of_a_task_that_nobody_can_reach(stage: Stage) -> None:
    (task,) = stage.run(unreachableStrategy={"inactiveAfterSeconds": 0, "expungeAfterSeconds": 0})
    started(stage, task)
    stage.hear(from_master(task, "TASK_UNREACHABLE"))
    stage.tick(1.0)
    stage.tick()
    stage.work()
    assert stage.ledger.claims().items[0].state is ClaimState.STRANDED
    stage.storage.stopped.add("i-1")
    stage.tick(10.0)
    stage.work()
    assert stage.ledger.claims().items == []
    assert "NODE_STOPPED" in "".join(event.why for event in stage.ledger.events(limit=1000).items)
