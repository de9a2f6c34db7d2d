"""Two brokers on one ledger that meet on one machine, or over one name: what is the machine's is counted once, and shared with care."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from offers.tally import Refusal
from storage.errors import AlreadyExists
from storage.inventory import Workload, open_ledger
from storage.ledger.records import SlotsUsed
from storage.model import ExternalId, NodeId, WorkloadId
from storage.platforms.testing import MemoryPlatform
from tests.ledgers import Clock
from tests.stage import SCHEDULER, Stage, app, external_of, from_master, sound, stage_config
from tests.support import eventually
from tests.unit.test_ledger_rooms import somebody_waits
from tests.unit.test_sharing import MACHINE, PAGES, attach, attached, imported_pages, read, running, settle

Brokers = tuple[Stage, Stage]


@pytest.fixture
def brokers(request: pytest.FixtureRequest, sqlite_url: str, clock: Clock) -> Iterator[Brokers]:
    platforms = {"disks": {"kind": "memory", **getattr(request, "param", {})}}
    with closing(open_ledger(sqlite_url, clock=clock)) as mine, closing(open_ledger(sqlite_url, clock=clock)) as others:
        one = Stage(mine, clock, config=stage_config(platforms=platforms))
        config = stage_config(framework={"name": "other", "roles": ["polly"]}, platforms=platforms)
        other = Stage(others, clock, config=config, platform=MemoryPlatform("disks", storage=one.storage), ids=one.numbers)
        for stage in (one, other):
            stage.subscribed()
        yield one, other
        sound(mine)


@pytest.fixture
def pages(brokers: Brokers) -> ExternalId:
    return imported_pages(brokers[0])


@pytest.mark.parametrize("agent", ["a1", "a2"])
def test_a_task_that_ends_leaves_its_volume_to_one_of_another_broker(brokers: Brokers, pages: ExternalId, agent: str) -> None:
    """Their agents may have other ids: the platform calls both the same machine."""
    one, other = brokers
    mine, others = read(one, "/web"), read(other, "/other", agent=agent)
    attach(one, pages)
    one.hear(from_master(mine, "TASK_GONE"))
    settle(one)
    assert [claim.holder.placement for claim in one.ledger.claims().items] == [others.task_id]
    assert attached(one, pages) == [MACHINE]
    other.hear(from_master(others, "TASK_GONE"))
    settle(other)
    assert attached(one, pages) == []


def test_one_that_comes_while_the_platform_is_still_to_be_asked_keeps_its_volume(brokers: Brokers, pages: ExternalId) -> None:
    one, other = brokers
    mine = read(one, "/web")
    attach(one, pages)
    one.hear(from_master(mine, "TASK_GONE"))
    one.tick(6.0)
    read(other, "/late")
    one.work()
    assert attached(one, pages) == [MACHINE]


def test_of_two_that_end_together_neither_leaves_the_volume_attached(brokers: Brokers, pages: ExternalId) -> None:
    one, other = brokers
    tasks = read(one, "/web"), read(other, "/other")
    attach(one, pages)
    for stage, task in zip(brokers, tasks, strict=True):
        stage.hear(from_master(task, "TASK_GONE"))
    settle(one)
    assert attached(one, pages) == []
    settle(other)
    assert one.ledger.claims().items == []


def test_on_another_machine_it_is_no_reason_to_stay_attached(brokers: Brokers, pages: ExternalId) -> None:
    one, other = brokers
    mine = read(one, "/web")
    (others,) = other.run("/other", agents=["a3"], volumes=PAGES)
    attach(one, pages)
    one.hear(from_master(mine, "TASK_GONE"))
    settle(one)
    assert attached(one, pages) == []
    assert [claim.holder.placement for claim in one.ledger.claims().items] == [others.task_id]


@pytest.mark.parametrize("brokers", [{"slots_per_node": 2}], indirect=True)
@pytest.mark.parametrize("agent", ["a1", "a2"])
def test_attach_slots_that_another_broker_uses_of_a_machine_are_not_given_again(brokers: Brokers, agent: str) -> None:
    one, other = brokers
    (task,) = one.run("/mine", agents=["a1"])
    one.hear(running(task))
    other.context.node_names[NodeId("a2")] = {"disks": MACHINE}
    assert len(other.run("/others", instances=2, agents=[agent])) == 1
    (waiting,) = other.state("/others").waiting.values()
    assert [dict(tally.counts) for tally in waiting.tallies.values()] == [{Refusal.SLOTS: 1}]
    other.offer("a3")
    assert len(other.tasks("/others")) == 2


def test_who_waits_for_a_volume_that_a_task_of_another_broker_holds_reads_so_and_gets_it_after(brokers: Brokers) -> None:
    one, other = brokers
    shared = [external_of("ledger", size=1)]
    (task,) = one.run("/mine", volumes=shared)
    one.start(task)
    assert other.run("/others", volumes=shared) == []
    words = f"volume ledger is claimed by task {task.task_id} of mesos/stage (MOUNTED)"
    for _ in range(2):
        assert other.state("/others").waiting[0].blocked == words
        other.scheduler.cycle.wishes_of(other.context.picture.due(other.clock()))
    one.apps.scale("/mine", 0, "jane")
    one.end(task, "TASK_KILLED")
    other.offer("a1")
    assert len(other.tasks("/others")) == 1


def test_an_app_id_is_one_frameworks_also_for_two_that_ask_at_once(postgresql_url: str, clock: Clock) -> None:
    with closing(open_ledger(postgresql_url, clock=clock)) as mine, closing(open_ledger(postgresql_url, clock=clock)) as others:
        other = Stage(others, clock, config=stage_config(framework={"name": "other", "roles": ["polly"]}))
        with ThreadPoolExecutor(1) as threads:
            with mine.begin("test") as tx:
                tx.put_workload(Workload(scheduler=SCHEDULER, workload_id=WorkloadId("/db"), spec="{}", instances=1), new=True)
                late = threads.submit(other.apps.run, app("/db"), "joe")
                eventually(lambda: somebody_waits(postgresql_url), what="the other waits")
            with pytest.raises(AlreadyExists, match=r"App /db of mesos/stage exists already\."):
                late.result(timeout=60)
        assert [workload.scheduler for workload in mine.workloads()] == [SCHEDULER]


@pytest.mark.parametrize("brokers", [{"slots_per_node": 1}], indirect=True)
def test_who_loses_the_last_attach_slot_of_a_machine_to_a_round_of_the_same_moment_gets_another_or_waits_for_slots(
    brokers: Brokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = brokers
    one.offer("a1")
    one.apps.run(app("/mine", instances=2), "jane")
    looked = one.ledger.slots_elsewhere

    def meanwhile(scheduler: str) -> list[SlotsUsed]:
        seen = looked(scheduler)
        monkeypatch.undo()
        assert len(other.run("/others", agents=["a1"])) == 1
        return seen

    monkeypatch.setattr(one.ledger, "slots_elsewhere", meanwhile)
    one.offer("a1")
    assert one.tasks("/mine") == []
    waiting = one.state("/mine").waiting
    assert "Node a1 has all 1 attach slots of platform disks in use." in {it.blocked.partition(": ")[2] for it in waiting.values()}
    one.offer("a1", "a2")
    assert [task.agent_id for task in one.tasks("/mine")] == ["a2"]
    (last,) = waiting.values()
    assert [dict(tally.counts) for tally in last.tallies.values()] == [{Refusal.SLOTS: 2}]
