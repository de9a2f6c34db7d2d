"""Apps as people ask for them, and what time brings: kills, leases, replacements; and the picture after a death."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest

from framework.mesos.apps import KILL_AGAIN_S, MOST_INSTANCES
from framework.mesos.instances import Phase
from storage.errors import AlreadyExists, Invalid, LedgerUnavailable, UnknownApp
from storage.inventory import Transaction
from storage.lifecycle import ClaimState
from storage.model import VolumeId
from tests.ledgers import Clock
from tests.stage import ShakyLedger, Stage, app, external_of, from_master, stage_config, status, volume_of


def test_an_app_is_stored_before_it_waits(stage: Stage, shaky_ledger: ShakyLedger) -> None:
    shaky_ledger.fails_before = 1
    with pytest.raises(LedgerUnavailable):
        stage.apps.run(app(), "test")
    with pytest.raises(UnknownApp):
        stage.apps.app("/db")
    stage.apps.run(app(), "test")
    with pytest.raises(AlreadyExists):
        stage.apps.run(app(), "test")


def test_an_app_of_another_framework_on_the_ledger_keeps_its_id_and_its_volumes(stage: Stage, clock: Clock) -> None:
    """Both would name their volumes alike: one would mount, and delete, what is the other's."""
    other = Stage(stage.ledger, clock, storage=stage.storage, config=stage_config(framework={"name": "other", "roles": ["polly"]}))
    stage.apps.run(app(), "test")
    with pytest.raises(AlreadyExists, match="/db of mesos/stage"):
        other.apps.run(app(), "test")
    assert list(other.picture.apps) == []
    stage.apps.scale("/db", 0, "test")
    other.apps.run(app("/web"), "test")


def test_an_app_whose_commit_was_in_doubt_is_found(stage: Stage, shaky_ledger: ShakyLedger) -> None:
    shaky_ledger.fails_after = 1
    stage.scheduler.guarded(lambda: stage.apps.run(app(instances=2), "test") and None)
    stage.tick(1.0)
    assert sorted(stage.state().waiting) == [0, 1]


@pytest.mark.parametrize("instances", [-1, MOST_INSTANCES + 1, 2**31 - 1])
def test_no_number_of_instances_is_beyond_memory(stage: Stage, instances: int) -> None:
    stage.apps.run(app(), "test")
    with pytest.raises(Invalid):
        stage.apps.scale("/db", instances, "test")
    with pytest.raises(Invalid):
        stage.apps.run(app("/big", instances=max(MOST_INSTANCES + 1, instances)), "test")


def test_a_kill_is_said_again_until_the_task_is_over(stage: Stage) -> None:
    (task,) = stage.run()
    stage.start(task)
    stage.apps.scale("/db", 0, "test")
    stage.tick()
    stage.tick(1.0)
    assert stage.driver.kills == [task.task_id]
    stage.tick(KILL_AGAIN_S)
    assert stage.driver.kills == [task.task_id] * 2
    stage.end(task, "TASK_KILLED")
    stage.tick(KILL_AGAIN_S)
    assert len(stage.driver.kills) == 2
    assert stage.ledger.volume("/db#0/data").birth is not None


def test_however_many_are_to_die_the_ledger_is_told_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = stage.run(instances=3, volumes=[], agents=("a1", "a2", "a3"))
    stage.apps.scale("/db", 0, "test")
    begin, begun = stage.ledger.begin, list[str]()

    def counted(actor: str) -> AbstractContextManager[Transaction]:
        begun.append(actor)
        return begin(actor)

    monkeypatch.setattr(stage.ledger, "begin", counted)
    stage.tick()
    assert sorted(stage.driver.kills) == sorted(task.task_id for task in tasks)
    assert begun == ["broker"]
    assert all(task.record.killing for task in stage.next_life().tasks())


def test_a_task_that_is_only_launched_is_killed_too(stage: Stage) -> None:
    (task,) = stage.run()
    stage.apps.delete("/db", "test")
    stage.tick()
    assert stage.driver.kills == [task.task_id]


def test_scaled_down_and_up_at_once_kills_nothing(stage: Stage) -> None:
    stage.run(instances=2, agents=("a1", "a2"))
    stage.apps.scale("/db", 1, "test")
    stage.apps.scale("/db", 2, "test")
    stage.tick()
    assert stage.driver.kills == []


def test_whoever_was_told_to_die_dies_and_is_replaced(stage: Stage) -> None:
    stage.run(instances=2, agents=("a1", "a2"))
    first = stage.tasks()[1]
    stage.start(first)
    stage.apps.scale("/db", 1, "test")
    stage.tick()
    stage.apps.scale("/db", 2, "test")
    later = stage.next_life()
    later.tick()
    assert later.driver.kills == [first.task_id]
    later.end(later.tasks()[1], "TASK_KILLED")
    later.tick()
    later.offer("a1", "a2")
    assert later.tasks()[1].task_id != first.task_id


def test_nothing_is_killed_without_a_connection_and_nothing_wakes_for_it(stage: Stage) -> None:
    stage.run()
    stage.apps.scale("/db", 0, "test")
    stage.driver.connected = False
    stage.tick()
    assert stage.driver.kills == []
    due_at = stage.scheduler.next_at(stage.clock())
    assert due_at is None or due_at > stage.clock()


def test_a_lease_that_ends_makes_polly_ask_and_frees_nothing(stage: Stage) -> None:
    (task,) = stage.run()
    stage.tick(61.0)
    assert [claim.state for claim in task.claims.values()] == [ClaimState.STRANDED]
    assert any(task.task_id in asked for asked in stage.driver.reconciled)
    stage.tick(1000.0)
    stage.work()
    assert len(stage.ledger.claims().items) == 1
    stage.hear(status(task, "TASK_RUNNING"))
    assert [claim.state for claim in task.claims.values()] == [ClaimState.MOUNTED]


def test_an_unreachable_task_with_a_volume_is_replaced_on_proof_only(stage: Stage) -> None:
    (task,) = stage.run(unreachableStrategy={"inactiveAfterSeconds": 0, "expungeAfterSeconds": 0}, volumes=[volume_of()]) or stage.tasks()
    stage.start(task)
    stage.hear(from_master(task, "TASK_UNREACHABLE"))
    stage.tick()
    stage.work()
    assert stage.tasks() == [task]
    volume = stage.ledger.volume("/db#0/data")
    assert volume.external_id
    stage.platform.detach(volume.external_id, task.record.hostname)
    stage.tick(6.0)
    stage.work()
    assert stage.tasks() == []
    stage.tick()
    stage.offer("a2")
    (second,) = stage.tasks()
    assert stage.plans(second)[0].epoch == 2
    assert stage.plans(second)[0].external_id == volume.external_id


def test_an_unreachable_task_without_volumes_is_given_up_and_killed_when_it_comes_back(stage: Stage) -> None:
    (task,) = stage.run(volumes=[])
    stage.hear(status(task, "TASK_RUNNING"))
    stage.hear(from_master(task, "TASK_UNREACHABLE"))
    stage.tick()
    assert stage.tasks() == []
    stage.driver.reconciled.clear()
    stage.tick(1.0)
    assert not any(task.task_id in asked for asked in stage.driver.reconciled)
    stage.hear(status(task, "TASK_RUNNING"))
    assert stage.driver.kills == [task.task_id]


def test_deleting_an_app_whose_task_is_unreachable_waits_for_the_proof(stage: Stage) -> None:
    (task,) = stage.run()
    stage.start(task)
    stage.hear(from_master(task, "TASK_UNREACHABLE"))
    stage.apps.delete("/db", "test")
    stage.tick()
    stage.work()
    assert stage.tasks() == [task]
    external = stage.ledger.volume("/db#0/data").external_id
    assert external
    stage.platform.detach(external, task.record.hostname)
    stage.tick(6.0)
    stage.work()
    stage.tick()
    with pytest.raises(UnknownApp):
        stage.apps.app("/db")


def test_a_death_at_any_point_loses_no_claim(stage: Stage) -> None:
    (task,) = stage.run()
    launched = stage.next_life()
    assert [it.phase for it in launched.tasks()] == [Phase.LAUNCHED]
    launched.tick()
    assert any(task.task_id in asked for asked in launched.driver.reconciled)
    launched.hear(status(task, "TASK_STARTING", stage.make(stage.plans(task)[0])))
    started = launched.next_life()
    assert started.tasks()[0].volumes[VolumeId(stage.plans(task)[0].volume_id)].birth is not None
    started.hear(status(task, "TASK_FAILED", source="SOURCE_AGENT"))
    settling = started.next_life()
    assert [it.phase for it in settling.tasks()] == [Phase.SETTLING]
    settling.tick()
    settling.work()
    assert settling.tasks() == []
    assert list(settling.state().waiting) == [0]


def test_the_picture_becomes_what_the_ledger_has(stage: Stage) -> None:
    (task,) = stage.run()
    with stage.ledger.begin("another hand") as tx:
        (claim,) = task.claims.values()
        tx.advance(claim.claim_id, claim.epoch, ClaimState.STRANDED, reason="seen by another hand")
    stage.context.in_doubt = True
    stage.tick(1.0)
    assert [it.state for it in stage.tasks()[0].claims.values()] == [ClaimState.STRANDED]
    assert stage.picture.reserved == {}


@pytest.mark.parametrize(("backoff_s", "held_back_s"), [(1.0, 5.0), (0.0, 0.0)])
def test_however_often_an_instance_fails_its_backoff_has_its_bound(stage: Stage, backoff_s: float, held_back_s: float) -> None:
    (task,) = stage.run(volumes=[], backoffSeconds=backoff_s, backoffFactor=1e18, maxLaunchDelaySeconds=5.0)
    stage.state().failures[0] = 10_000
    stage.hear(status(task, "TASK_FAILED"))
    waiting = stage.state().waiting[0]
    assert waiting.not_before - stage.clock() == held_back_s
    assert stage.state().failures[0] == 10_001


def test_an_option_that_the_platform_does_not_have_is_refused_with_the_app(stage: Stage) -> None:
    options = {"dvdi/driver": "fast", "dvdi/speed": "high"}
    with pytest.raises(
        Invalid, match=r"parameters\.\S*speed of the volume at data is 'high': the one parameter is type; so says platform disks"
    ):
        stage.apps.run(app(volumes=[external_of("new", size=1, options=options)]), "test")
    stage.apps.run(app("/there", volumes=[external_of("there", options=options)]), "test")
    stage.apps.run(app("/typed", volumes=[external_of("typed", size=1, options={"dvdi/driver": "fast", "dvdi/type": "quick"})]), "test")


def test_a_size_that_its_type_cannot_have_is_refused_with_the_app(stage: Stage) -> None:
    large = {"dvdi/driver": "fast", "dvdi/type": "large"}
    with pytest.raises(Invalid, match=r"size_mib of the volume at data is 3072: a volume of type large has at most 2048 MiB"):
        stage.apps.run(app(volumes=[external_of("new", size=3, options=large)]), "test")
    stage.apps.run(app("/typed", volumes=[external_of("typed", size=2, options=large)]), "test")
    stage.apps.run(app("/there", volumes=[external_of("there", options=large)]), "test")


def test_a_mount_option_that_endangers_the_node_is_refused_with_the_app(stage: Stage) -> None:
    def books(flag: str) -> dict[str, object]:
        capability = {"accessMode": "SINGLE_NODE_WRITER", "accessType": "mount", "mountFlags": [flag]}
        options = {"pluginName": "fast", "capability": capability}
        return app(
            "/books", volumes=[{"containerPath": "data", "mode": "RW", "external": {"name": "b", "provider": "csi", "options": options}}]
        )

    with pytest.raises(
        Invalid, match=r"mountFlags of the volume at data is 'errors=panic': of an ext4 mount .*; platform disks brings disks"
    ):
        stage.apps.run(books("errors=panic"), "test")
    stage.apps.run(books("errors=remount-ro"), "test")
