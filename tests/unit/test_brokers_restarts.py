"""PostgreSQL restarts while a broker is at work on a platform: its turn ends with its session, and another broker takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from typing import Any

import pytest
from sqlalchemy import NullPool, create_engine, text

from framework.workers import Outcome
from storage.errors import AlreadyLed, LedgerUnavailable, PollyError, WorkedOnElsewhere
from storage.inventory import Ledger, open_ledger
from storage.lifecycle import VolumeState
from storage.model import ExternalId, Volume
from storage.platforms.base import SnapshotReport
from storage.platforms.testing import MemoryPlatform
from tests.ledgers import Clock
from tests.stage import SCHEDULER, Stage, from_master, sound
from tests.support import eventually
from tests.unit.test_brokers import WORK, Brokers, delete, expand, snapshot
from tests.unit.test_deliveries import BY_BROKER, wish


class Restarted(Brokers):
    def __init__(self, url: str, one: Ledger, other: Ledger, clock: Clock) -> None:
        super().__init__(one, other, clock)
        self._engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")

    def restart(self) -> None:
        """What brokers see of it: every session is ended, and new ones begin."""
        with self._engine.connect() as connection:
            others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            connection.execute(text(f"SELECT pg_terminate_backend(pid) {others}"))  # words of our own
            eventually(lambda: not connection.execute(text(f"SELECT count(*) {others}")).scalar(), what="the sessions end")

    def restart_before(self, answers: Sequence[tuple[Callable[[Outcome[Any]], None], Outcome[Any]]]) -> None:
        """The other asks the platform too before either hears what it has said; these are the first one's answers."""
        self.restart()
        self.other.clock.now += 60.0
        self.other.janitor.resume()
        theirs = self.other.hands.work()
        self.one.hand_on(answers)
        self.other.hand_on(theirs)

    def restart_and_go_on(self) -> None:
        self.restart()
        self.go_on()

    def block(self) -> None:
        """The platform refuses to delete the volume: somebody has made a snapshot of it."""
        self.one.storage.snapshots["by hand"] = SnapshotReport(
            external_id=ExternalId("by hand"), volume=ExternalId(self.volume.external_id or ""), size_mib=16, token=""
        )

    def unblock(self) -> None:
        del self.one.storage.snapshots["by hand"]


@pytest.fixture
def brokers(postgresql_url: str, clock: Clock) -> Iterator[Restarted]:
    with closing(open_ledger(postgresql_url, clock=clock)) as one, closing(open_ledger(postgresql_url, clock=clock)) as other:
        made = Restarted(postgresql_url, one, other, clock)
        yield made
        made.one.clock.now += 600.0
        for stage in (made.one, made.other):
            stage.janitor.resume()
            stage.work()
        assert not made.one.janitor.resume()
        sound(other)


@pytest.mark.parametrize(("begin", "verb"), WORK, ids=[verb for _, verb in WORK])
def test_what_another_has_done_meanwhile_is_stored_once(brokers: Restarted, begin: Callable[[Stage, Volume], None], verb: str) -> None:
    begin(brokers.one, brokers.volume)
    brokers.asked.clear()
    brokers.platform.during, brokers.platform.meanwhile = verb, brokers.restart_and_go_on
    brokers.one.work()
    assert brokers.asked.count(verb) == 2
    before = len(brokers.one.ledger.events(limit=1000).items)
    brokers.one.work()
    assert len(brokers.one.ledger.events(limit=1000).items) == before
    assert len(brokers.one.storage.snapshots) == len(brokers.one.ledger.snapshots().items)
    assert [volume.size_mib for volume in brokers.one.storage.volumes.values()] == [
        it.size_mib for it in brokers.one.ledger.volumes().items
    ]


def test_a_volume_that_was_given_back_meanwhile_is_not_deleted(brokers: Restarted) -> None:
    """Between its look and its call a broker loses its turn; another's call is refused, and the volume goes to a task."""
    one, volume = brokers.one, brokers.volume
    delete(one, volume)

    def meanwhile() -> None:
        brokers.block()
        brokers.restart_and_go_on()
        brokers.unblock()
        assert one.ledger.volume(volume.name).state is VolumeState.AVAILABLE

    brokers.platform.during, brokers.platform.meanwhile = "inspect", meanwhile
    one.work()
    assert volume.external_id in one.storage.volumes
    one.apps.scale("/db", 1, "jane")
    one.tick()
    one.offer("a1")
    assert len(one.tasks()) == 1


def test_a_refusal_of_before_gives_back_no_volume_that_another_is_deleting(brokers: Restarted) -> None:
    one, volume = brokers.one, brokers.volume
    future = one.volumes.delete(volume.volume_id, "jane")
    brokers.block()
    answers = one.hands.work()
    brokers.unblock()
    brokers.restart()
    brokers.other.clock.now += 60.0
    brokers.other.janitor.resume()
    theirs: list[PollyError | None] = []

    def meanwhile() -> None:
        one.hand_on(answers)
        theirs.append(future.exception(timeout=0))  # type: ignore[arg-type]  # of this program
        assert one.ledger.volume(volume.name).state is VolumeState.DELETING

    brokers.other.platform.during, brokers.other.platform.meanwhile = "delete", meanwhile  # type: ignore[attr-defined]  # Watched
    brokers.other.work()
    assert isinstance(theirs[0], WorkedOnElsewhere)
    assert one.storage.volumes == {}
    assert one.ledger.volumes().items == []


def test_a_refusal_of_before_takes_back_no_growth_that_another_has_made(brokers: Restarted) -> None:
    one, volume = brokers.one, brokers.volume
    expand(one, volume)
    one.storage.capacity_mib = 32
    answers = one.hands.work()
    one.storage.capacity_mib = 8192
    brokers.restart_before(answers)
    assert one.ledger.volume(volume.name).size_mib == 64


def test_a_refusal_of_before_forgets_no_snapshot_that_another_has_made(brokers: Restarted) -> None:
    one, volume = brokers.one, brokers.volume
    snapshot(one, volume)
    made = one.storage.volumes.pop(volume.external_id or "")
    answers = one.hands.work()
    one.storage.volumes[made.external_id] = made
    brokers.restart_before(answers)
    assert [it.external_id for it in one.ledger.snapshots().items] == list(one.storage.snapshots)


def test_who_leads_no_more_takes_no_volume_from_a_task_of_who_does(brokers: Restarted) -> None:
    """It waited for a worker to detach the volume of a task that is gone; a standby has done so since, and the next task is there."""
    one, (gone,) = brokers.one, brokers.one.run("/gone")
    one.start(gone)
    with ExitStack() as stack:
        stack.enter_context(suppress(LedgerUnavailable))  # what is led ends with its session
        stack.enter_context(one.ledger.lead(SCHEDULER, "one"))
        one.hear(from_master(gone, "TASK_GONE"))
        one.tick()
        brokers.restart()
        standby = Stage(brokers.other.ledger, one.clock, platform=brokers.other.platform, ids=one.numbers)
        stack.enter_context(standby.ledger.lead(SCHEDULER, "standby"))
        standby.subscribed()
        standby.tick()
        standby.work()
        standby.offer("a1")
        (now,) = standby.tasks("/gone")
        standby.start(now)
        answers = one.hands.work()
        (volume,) = now.volumes.values()
        assert list(one.storage.volumes[volume.external_id or ""].attached) == ["a1.example"]
        with pytest.raises(AlreadyLed):
            one.hand_on(answers)


def test_who_leads_no_more_attaches_nothing_and_tells_no_executor_so(brokers: Restarted) -> None:
    ledger, clock = brokers.one.ledger, brokers.one.clock
    one = Stage(ledger, clock, platform=MemoryPlatform("disks", storage=brokers.one.storage), config=BY_BROKER, ids=brokers.one.numbers)
    one.subscribed()
    (task,) = one.run("/late")
    with ExitStack() as stack:
        stack.enter_context(suppress(LedgerUnavailable))  # what is led ends with its session
        stack.enter_context(ledger.lead(SCHEDULER, "one"))
        wish(one, task)
        brokers.restart()
        stack.enter_context(brokers.other.ledger.lead(SCHEDULER, "standby"))
        one.work()
    assert [volume.attached for volume in one.storage.volumes.values()] == [{}]
    assert one.driver.deliveries == []
