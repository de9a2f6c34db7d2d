"""unreachableStrategy: when an instance whose agent is away is replaced, when it is forgotten, and what a volume of it has to say."""

from __future__ import annotations

from typing import Any

import pytest

from framework.mesos.instances import Phase, Task
from storage.lifecycle import ClaimState
from storage.model import AccessMode, Birth, ExternalId, Volume, VolumeId
from storage.platforms.base import CreateRequest
from tests.stage import Stage, from_master, status, volume_of

STRATEGY = {"inactiveAfterSeconds": 10, "expungeAfterSeconds": 60}


def start(stage: Stage, **more: Any) -> Task:
    (task,) = stage.run(unreachableStrategy=STRATEGY, **more)
    if task.claims:
        stage.start(task)
    else:
        stage.hear(status(task, "TASK_RUNNING"))
    return task


def lose(stage: Stage, task: Task, *, for_s: float) -> None:
    stage.hear(from_master(task, "TASK_UNREACHABLE"))
    stage.tick()
    stage.tick(for_s)
    stage.work()
    stage.offer("a2")


def ids(stage: Stage) -> list[str]:
    return [task.task_id for task in stage.tasks()]


def test_nothing_is_replaced_before_its_time(stage: Stage) -> None:
    task = start(stage, volumes=[])
    lose(stage, task, for_s=9.0)
    assert ids(stage) == [task.task_id]
    assert stage.state().waiting == {}


def test_an_instance_without_volumes_is_replaced_and_not_yet_forgotten(stage: Stage) -> None:
    task = start(stage, volumes=[])
    lose(stage, task, for_s=10.0)
    assert len(stage.tasks()) == 2
    assert {it.slot for it in stage.tasks()} == {0}
    stage.tick(50.0)
    assert task.task_id not in ids(stage)
    assert len(stage.tasks()) == 1
    assert task.task_id not in {placement.placement_id for placement in stage.ledger.placements()}
    stage.hear(status(task, "TASK_RUNNING"))
    assert stage.driver.kills == [task.task_id]


@pytest.mark.parametrize(("selection", "first_stays"), [("YOUNGEST_FIRST", True), ("OLDEST_FIRST", False)])
def test_of_two_that_live_one_goes_as_the_app_selects(stage: Stage, selection: str, first_stays: bool) -> None:
    first = start(stage, volumes=[], killSelection=selection)
    lose(stage, first, for_s=10.0)
    (second,) = (task for task in stage.tasks() if task is not first)
    stage.hear(status(second, "TASK_RUNNING"))
    stage.hear(status(first, "TASK_RUNNING"))
    stage.tick()
    goes, stays = (second, first) if first_stays else (first, second)
    assert stage.driver.kills == [goes.task_id]
    stage.hear(status(goes, "TASK_KILLED"))
    assert ids(stage) == [stays.task_id]
    assert stage.state().waiting == {}


def test_a_clock_that_was_ahead_in_an_earlier_life_keeps_no_instance_waiting(stage: Stage) -> None:
    task = start(stage, volumes=[])
    stage.hear(from_master(task, "TASK_UNREACHABLE"))
    stage.clock.now -= 86_400
    later = stage.next_life()
    later.tick(9.0)
    later.offer("a2")
    assert len(later.tasks()) == 1
    later.tick(1.0)
    later.offer("a2")
    assert len(later.tasks()) == 2


def test_who_comes_back_before_its_replacement_was_launched_goes_on(stage: Stage) -> None:
    task = start(stage, volumes=[])
    stage.hear(from_master(task, "TASK_UNREACHABLE"))
    stage.tick(10.0)
    assert list(stage.state().waiting) == [0]
    stage.hear(status(task, "TASK_RUNNING"))
    stage.tick()
    stage.offer("a2")
    assert ids(stage) == [task.task_id]
    assert (stage.state().waiting, stage.driver.kills) == ({}, [])


def test_a_replacement_waits_for_the_volume_and_says_so(stage: Stage) -> None:
    task = start(stage)
    lose(stage, task, for_s=10.0)
    assert ids(stage) == [task.task_id]
    blocked = stage.state().waiting[0].blocked
    assert "volume /db#0/data is claimed by task" in blocked
    assert "STRANDED" in blocked
    stage.hear(status(task, "TASK_RUNNING"))
    assert stage.state().waiting == {}
    assert [claim.state for claim in task.claims.values()] == [ClaimState.MOUNTED]


def test_a_volume_that_is_proven_free_goes_to_the_replacement_with_the_next_offer(stage: Stage) -> None:
    task = start(stage)
    lose(stage, task, for_s=10.0)
    stage.driver.demand.clear()
    external = task.volumes[VolumeId(stage.plans(task)[0].volume_id)].external_id
    assert external
    stage.platform.detach(external, task.record.hostname)
    stage.tick(6.0)
    stage.work()
    stage.tick()
    assert stage.driver.demand == ["revive"]
    stage.offer("a2")
    (second,) = stage.tasks()
    assert second.task_id != task.task_id
    assert stage.plans(second)[0].external_id == external


@pytest.mark.parametrize("dies", [False, True])
def test_a_forgotten_instance_keeps_its_claim_and_is_killed_when_it_comes_back(stage: Stage, dies: bool) -> None:
    task = start(stage)
    lose(stage, task, for_s=60.0)
    if dies:
        stage = stage.next_life()
    stage.tick()
    stage.offer("a2")
    (claim,) = stage.ledger.claims().items
    assert (claim.state, claim.holder.placement) == (ClaimState.STRANDED, task.task_id)
    (known,) = stage.tasks()
    assert (known.phase, known.record.expunged) == (Phase.UNREACHABLE, True)
    assert "STRANDED" in stage.state().waiting[0].blocked
    stage.hear(status(task, "TASK_RUNNING"))
    stage.tick(20.0)
    assert stage.driver.kills[-1] == task.task_id
    stage.end(known, "TASK_KILLED")
    stage.tick()
    stage.offer("a2")
    (second,) = stage.tasks()
    assert second.task_id != task.task_id
    assert second.claims.keys() != task.claims.keys()
    assert [volume.name for volume in second.volumes.values()] == ["/db#0/data"]


def test_a_volume_that_several_may_read_keeps_no_replacement_waiting(stage: Stage) -> None:
    made = stage.platform.create(CreateRequest(pool="default", size_mib=16, token="by hand", name="pages"))
    born = Birth(serial=made.external_id, filesystem="ext4", filesystem_uuid="u")
    with stage.ledger.begin("test") as tx:
        tx.adopt(pages(made.external_id, born))
    capability = {"accessMode": "MULTI_NODE_READER_ONLY", "accessType": "mount", "fsType": "ext4"}
    external = {"provider": "csi", "name": "pages", "options": {"pluginName": "disks", "capability": capability}}
    task = start(stage, volumes=[{"containerPath": "data", "mode": "RO", "external": external}])
    lose(stage, task, for_s=10.0)
    assert len(stage.tasks()) == 2
    assert len(stage.ledger.claims().items) == 2


def pages(external: ExternalId, born: Birth) -> Volume:
    return Volume(
        volume_id=VolumeId("pages"),
        name="pages",
        platform="disks",
        pool="default",
        size_mib=16,
        external_id=external,
        access_mode=AccessMode.MULTI_NODE_READER_ONLY,
        birth=born,
    )


def test_a_disabled_strategy_replaces_nothing(stage: Stage) -> None:
    (task,) = stage.run(unreachableStrategy="disabled", volumes=[volume_of()])
    stage.start(task)
    lose(stage, task, for_s=1e7)
    assert ids(stage) == [task.task_id]
    assert not task.record.expunged
    assert stage.state().waiting == {}
