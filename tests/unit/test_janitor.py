"""What becomes of volumes by itself: reclaimed, gone on with, discarded; and never what may hold data."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from framework.janitor import FIRST_RETRY_S, LAST_RETRY_S, SYNC_POOLS_S
from framework.turning import InTurn
from storage.errors import LedgerUnavailable, TurnLost, UnknownApp
from storage.lifecycle import VolumeState
from storage.model import ExternalId, Volume, VolumeId
from tests.stage import ShakyLedger, Stage, from_master, status, volume_of


def used_and_deleted(stage: Stage, profile: str) -> ExternalId:
    """An app whose volume has data, and that is deleted; its volume on the platform."""
    (task,) = stage.run(volumes=[volume_of(profile=profile)])
    stage.start(task)
    external = stage.ledger.volume("/db#0/data").external_id
    assert external
    stage.apps.delete("/db", "test")
    stage.end(task, "TASK_KILLED")
    stage.tick()
    return external


def is_gone(stage: Stage) -> bool:
    try:
        stage.apps.app("/db")
    except UnknownApp:
        return True
    return False


def test_volumes_stay_or_go_as_their_profile_says(stage: Stage) -> None:
    kept = used_and_deleted(stage, "fast")
    stage.work()
    assert is_gone(stage)
    assert kept in stage.storage.volumes
    assert stage.ledger.volume("/db#0/data").state is VolumeState.AVAILABLE


def test_a_deleted_apps_volume_goes_once_its_platform_is_back(stage: Stage) -> None:
    (task,) = stage.run(volumes=[volume_of(profile="brief")])
    stage.start(task)
    stage.apps.delete("/db", "test")
    stage.end(task, "TASK_KILLED")
    stage.storage.expired = True
    stage.tick()
    stage.work()
    assert is_gone(stage)
    for _ in range(20):
        stage.clock.now += LAST_RETRY_S
        stage.janitor.resume()
        stage.work()
    stage.storage.expired = False
    stage.clock.now += LAST_RETRY_S
    stage.janitor.resume()
    stage.work()
    assert (stage.storage.volumes, stage.ledger.volumes().items) == ({}, [])


def test_a_platform_that_fails_is_asked_less_and_less(stage: Stage) -> None:
    used_and_deleted(stage, "brief")
    stage.storage.expired = True
    asked = 0
    for _ in range(120):
        stage.clock.now += 1.0
        stage.janitor.resume()
        asked += len(stage.hands.jobs)
        stage.work()
    assert asked < 12


def test_the_last_snapshot_is_there_before_the_app_is_forgotten(stage: Stage) -> None:
    external = used_and_deleted(stage, "last")
    assert not is_gone(stage)
    later = stage.next_life()
    later.janitor.resume()
    later.work()
    later.tick(6.0)
    later.work()
    assert is_gone(later)
    (snapshot,) = later.storage.snapshots.values()
    assert snapshot.volume == external


def test_an_unborn_volume_goes_whatever_its_profile_says(stage: Stage) -> None:
    (task,) = stage.run()
    stage.make(stage.plans(task)[0])
    stage.apps.delete("/db", "test")
    stage.hear(status(task, "TASK_FAILED", source="SOURCE_AGENT"))
    assert stage.tidied
    for external in list(stage.storage.volumes):
        stage.platform.detach(ExternalId(external), task.record.hostname)
    stage.janitor.resume()
    stage.work()
    assert (stage.storage.volumes, stage.ledger.orphans()) == ({}, [])


@pytest.mark.parametrize("state", ["TASK_UNREACHABLE", "TASK_GONE", "TASK_GONE_BY_OPERATOR"])
def test_what_a_cut_off_executor_makes_late_goes_too(stage: Stage, state: str) -> None:
    """Its claim ended because nothing was born; nobody has seen it end."""
    (task,) = stage.run()
    (plan,) = stage.plans(task)
    stage.hear(from_master(task, state))
    stage.tick()
    stage.work()
    assert stage.tasks() == []
    stage.janitor.resume()
    stage.work()
    made = stage.make(plan)
    assert made.external_id
    assert [orphan.token for orphan in stage.ledger.orphans()] == [plan.token]
    assert not stage.janitor.resume()
    stage.platform.detach(made.external_id, task.record.hostname)
    stage.clock.now += stage.config.claims.quiet_after_s
    assert stage.janitor.resume()
    stage.work()
    assert (stage.storage.volumes, stage.ledger.orphans()) == ({}, [])


def test_what_is_found_early_does_not_end_the_watch(stage: Stage) -> None:
    (task,) = stage.run()
    (plan,) = stage.plans(task)
    first = stage.make(plan)
    stage.hear(from_master(task, "TASK_UNREACHABLE"))
    stage.tick()
    stage.work()
    assert first.external_id
    stage.platform.detach(first.external_id, task.record.hostname)
    stage.janitor.resume()
    stage.work()
    assert stage.storage.volumes == {}
    assert [orphan.token for orphan in stage.ledger.orphans()] == [plan.token]


def test_what_an_executor_that_died_had_attached_before_its_birth_is_detached_and_deleted(stage: Stage) -> None:
    (task,) = stage.run()
    stage.make(stage.plans(task)[0], "i-1")
    stage.hear(status(task, "TASK_FAILED", source="SOURCE_AGENT"))
    stage.janitor.resume()
    stage.work()
    assert (stage.storage.volumes, stage.ledger.orphans()) == ({}, [])


def test_an_orphan_that_the_ledger_knows_as_a_volume_is_not_deleted(stage: Stage) -> None:
    (task,) = stage.run()
    (plan,) = stage.plans(task)
    made = stage.make(plan)
    stage.hear(status(task, "TASK_FAILED", source="SOURCE_AGENT"))
    assert made.external_id
    stage.platform.detach(made.external_id, task.record.hostname)
    report = stage.platform.inspect(made.external_id)
    with stage.ledger.begin("test") as tx:
        tx.adopt(
            Volume(
                volume_id=VolumeId("v"),
                name="mine",
                platform="disks",
                pool="default",
                size_mib=report.size_mib,
                external_id=made.external_id,
            )
        )
    stage.janitor.resume()
    stage.work()
    assert made.external_id in stage.storage.volumes
    assert stage.ledger.orphans() == []


def test_a_ledger_that_is_away_is_left_to_the_guard(stage: Stage, shaky_ledger: ShakyLedger) -> None:
    used_and_deleted(stage, "brief")
    shaky_ledger.fails_before = 1
    stage.work()
    assert stage.ledger.volume("/db#0/data").state is VolumeState.DELETING
    stage.clock.now += LAST_RETRY_S
    stage.janitor.resume()
    stage.work()
    assert stage.ledger.volumes().items == []
    shaky_ledger.fails_before = 1
    with pytest.raises(LedgerUnavailable):
        stage.janitor.sync_pools_now()


def test_pools_follow_their_platform_while_claims_come_and_go(stage: Stage) -> None:
    stage.run()
    stage.storage.capacity_mib = 64
    stage.janitor.look_at_pools()
    assert stage.hands.jobs == []
    stage.clock.now = stage.janitor.pools_due_at()
    stage.janitor.look_at_pools()
    stage.janitor.look_at_pools()
    assert len(stage.hands.jobs) == 1
    assert stage.janitor.pools_due_at() == stage.clock.now + SYNC_POOLS_S
    stage.work()
    (pool,) = stage.ledger.pools()
    assert (pool.capacity_mib, pool.provisioned_mib) == (64, 16)


def test_a_volume_waits_for_its_last_snapshot_to_be_ready(stage: Stage) -> None:
    external = used_and_deleted(stage, "last")
    for _ in range(3):
        stage.tick(6.0)
        assert len(stage.hands.jobs) == 1
    assert external in stage.storage.volumes
    assert not is_gone(stage)
    stage.work()
    stage.tick(6.0)
    stage.work()
    assert is_gone(stage)
    assert [snapshot.volume for snapshot in stage.storage.snapshots.values()] == [external]


def test_a_volume_waits_for_a_persons_snapshot_that_is_still_to_be_made(stage: Stage) -> None:
    """Of a volume that is gone it never could be, and its row would stay for ever."""
    external = used_and_deleted(stage, "last")
    stage.volumes.snapshot("/db#0/data", "by hand", "test")
    by_hand = stage.hands.jobs.pop()
    for _ in range(3):
        stage.tick(6.0)
        stage.work()
    assert external in stage.storage.volumes
    assert not is_gone(stage)
    stage.hands.jobs.append(by_hand)
    for _ in range(2):
        stage.work()
        stage.tick(6.0)
    stage.work()
    assert is_gone(stage)
    assert len(stage.storage.snapshots) == 2
    assert {snapshot.state for snapshot in stage.ledger.snapshots().items} == {"READY"}


def test_what_a_token_made_is_remembered_until_it_could_be_deleted(stage: Stage) -> None:
    (task,) = stage.run()
    (plan,) = stage.plans(task)
    stage.make(plan)
    stage.hear(status(task, "TASK_FAILED", source="SOURCE_AGENT"))
    stage.storage.expired = True
    stage.janitor.resume()
    stage.work()
    assert [orphan.token for orphan in stage.ledger.orphans()] == [plan.token]
    stage.storage.expired = False
    stage.janitor.resume()
    assert stage.hands.jobs == [], "it is asked again without a wait"
    stage.clock.now += LAST_RETRY_S
    stage.janitor.resume()
    stage.work()
    assert (stage.storage.volumes, stage.ledger.orphans()) == ({}, [])


def test_pools_that_cannot_be_read_stay_as_they_were(stage: Stage) -> None:
    before = stage.ledger.pools()
    stage.storage.capacity_mib, stage.storage.expired = 64, True
    stage.clock.now = stage.janitor.pools_due_at()
    stage.janitor.look_at_pools()
    stage.work()
    assert stage.ledger.pools() == before
    assert stage.janitor.pools_due_at() < float("inf")


def test_a_volume_with_a_persons_snapshot_stays_when_its_app_is_deleted(stage: Stage) -> None:
    (task,) = stage.run(volumes=[volume_of(profile="brief")])
    stage.start(task)
    stage.volumes.snapshot("/db#0/data", "by hand", "test")
    stage.work()
    stage.apps.delete("/db", "test")
    stage.end(task, "TASK_KILLED")
    stage.tick()
    stage.work()
    assert is_gone(stage)
    assert stage.ledger.volume("/db#0/data").state is VolumeState.AVAILABLE
    assert len(stage.storage.volumes) == 1


def doomed(stage: Stage) -> None:
    """An app with three volumes is deleted; its tasks have ended."""
    tasks = stage.run(instances=3, volumes=[volume_of(profile="brief")], agents=("a1", "a2", "a3"))
    for task in tasks:
        stage.start(task)
    stage.apps.delete("/db", "test")
    for task in tasks:
        stage.end(task, "TASK_KILLED")


def test_the_volumes_of_an_app_go_in_two_commits(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    doomed(stage)
    stage.volumes.snapshot("/db#1/data", "kept", "op")
    stage.work()
    commits = Mock(wraps=stage.ledger.begin)
    monkeypatch.setattr(stage.ledger, "begin", commits)
    stage.janitor.reclaim("/db")
    commits.assert_called_once()
    stage.work()
    assert commits.call_count == 2
    assert [volume.name for volume in stage.ledger.volumes().items] == ["/db#1/data"]
    assert list(stage.storage.volumes) == [stage.ledger.volume("/db#1/data").external_id]


@pytest.mark.parametrize("how", ["fails_before", "fails_after"])
def test_where_the_ledger_is_away_when_volumes_are_gone_they_are_forgotten_later(stage: Stage, shaky_ledger: ShakyLedger, how: str) -> None:
    doomed(stage)
    stage.janitor.reclaim("/db")
    answers = stage.hands.work()
    setattr(shaky_ledger, how, 1)
    stage.hand_on(answers)
    assert stage.storage.volumes == {}
    assert len(stage.ledger.volumes().items) == (3 if how == "fails_before" else 0)
    stage.clock.now += FIRST_RETRY_S
    stage.janitor.resume()
    stage.work()
    assert stage.ledger.volumes().items == []


def test_a_volume_that_was_given_back_meanwhile_keeps_no_other(stage: Stage) -> None:
    doomed(stage)
    stage.janitor.reclaim("/db")
    answers = stage.hands.work()
    one = stage.ledger.volume("/db#1/data").volume_id
    with stage.ledger.begin("op") as tx:
        tx.mend(one, VolumeState.DELETING)
    stage.hand_on(answers)
    assert [volume.volume_id for volume in stage.ledger.volumes().items] == [one]


def test_each_is_deleted_in_the_name_of_who_asked(stage: Stage) -> None:
    tasks = stage.run(instances=2, agents=("a1", "a2"))
    for task in tasks:
        stage.start(task)
        stage.end(task)
    asked = [stage.volumes.delete(f"/db#{slot}/data", who) for slot, who in enumerate(("jane", "joe"))]
    stage.work()
    assert [future.result(timeout=0) for future in asked] == [None, None]
    assert [event.actor for event in stage.ledger.events(limit=1000).items if event.what == "volume.deleted"] == ["jane", "joe"]


def test_a_volume_whose_platform_fails_is_not_asked_for_again_at_once(stage: Stage) -> None:
    doomed(stage)
    stage.storage.expired = True
    stage.janitor.reclaim("/db")
    stage.work()
    stage.janitor.resume()
    assert stage.hands.jobs == []
    stage.storage.expired = False
    stage.clock.now += FIRST_RETRY_S
    stage.janitor.resume()
    stage.work()
    assert stage.ledger.volumes().items == []


def test_volumes_of_a_platform_that_polly_toml_has_no_more_are_left_alone(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    doomed(stage)
    monkeypatch.delitem(stage.janitor._platforms, "disks")
    assert stage.janitor.reclaim("/db")
    assert {volume.state for volume in stage.ledger.volumes().items} == {VolumeState.AVAILABLE}


def test_what_was_deleted_in_a_turn_that_is_over_is_left_to_whoever_has_it_now(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    doomed(stage)
    stage.janitor.reclaim("/db")
    answers = stage.hands.work()
    check = InTurn.check

    def lost(turn: InTurn) -> None:
        if turn._what == "volume /db#1/data":
            raise TurnLost(what=turn._what)
        check(turn)

    with monkeypatch.context() as patched:
        patched.setattr(InTurn, "check", lost)
        stage.hand_on(answers)
    assert [volume.name for volume in stage.ledger.volumes().items] == ["/db#1/data"]
    stage.clock.now += FIRST_RETRY_S
    stage.janitor.resume()
    stage.work()
    assert stage.ledger.volumes().items == []
