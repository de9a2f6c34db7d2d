"""Two brokers on one ledger and one platform, at the same moment: each with connections and adapters of its own, as two processes have."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from sqlalchemy import NullPool, create_engine, text

from framework.service import ImportOrder
from storage.errors import Conflict, LedgerUnavailable, WorkedOnElsewhere
from storage.inventory import Ledger, Turn, open_ledger
from storage.lifecycle import VolumeState
from storage.model import Pool, Volume
from storage.platforms.testing import MemoryPlatform, MemoryStorage
from tests.ledgers import Clock
from tests.stage import Stage, sound, stage_config
from tests.support import eventually
from tests.unit.test_volumes import born, failure

LATER_S = 60.0


class Watched(MemoryPlatform):
    """Keeps what it was asked, and lets something happen in the middle of one call."""

    def __init__(self, storage: MemoryStorage, asked: list[str]) -> None:
        super().__init__("disks", storage=storage)
        self.asked, self.during = asked, ""
        self.meanwhile: Callable[[], None] = lambda: None

    @contextmanager
    def _call(self, verb: str) -> Iterator[MemoryStorage]:
        self.asked.append(verb)
        with super()._call(verb) as storage:
            if verb == self.during:
                self.during = ""
                self.meanwhile()
            yield storage


class Brokers:
    """`one` and `other`, with the app /db of `one`, which has a volume that is born and free."""

    def __init__(self, one: Ledger, other: Ledger, clock: Clock) -> None:
        storage, self.asked = MemoryStorage(), list[str]()
        self.platform = Watched(storage, self.asked)
        self.one = Stage(one, clock, platform=self.platform)
        config = stage_config(framework={"name": "other", "roles": ["polly"]})
        self.other = Stage(other, clock, platform=Watched(storage, self.asked), config=config, ids=self.one.numbers)
        for stage in (self.one, self.other):
            stage.subscribed()
        self.volume = born(self.one)

    def go_on(self) -> None:
        """The other goes on with whatever it finds in the ledger."""
        self.other.clock.now += LATER_S
        self.other.janitor.resume()
        self.other.work()

    def during(self, verb: str) -> None:
        self.platform.during, self.platform.meanwhile = verb, self.go_on


@contextmanager
def both(url: str, clock: Clock) -> Iterator[Brokers]:
    with closing(open_ledger(url, clock=clock)) as one, closing(open_ledger(url, clock=clock)) as other:
        yield Brokers(one, other, clock)
        sound(other)


@pytest.fixture
def brokers(ledger_url: str, clock: Clock) -> Iterator[Brokers]:
    with both(ledger_url, clock) as made:
        yield made


@pytest.fixture
def neighbours(sqlite_url: str, clock: Clock) -> Iterator[Brokers]:
    """The same, where it does not matter to the database what is done."""
    with both(sqlite_url, clock) as made:
        yield made


def delete(one: Stage, volume: Volume) -> None:
    one.volumes.delete(volume.volume_id, "jane")


def expand(one: Stage, volume: Volume) -> None:
    one.volumes.expand(volume.volume_id, 64, "jane")


def snapshot(one: Stage, volume: Volume) -> None:
    one.volumes.snapshot(volume.volume_id, "monday", "jane")


def delete_snapshot(one: Stage, volume: Volume) -> None:
    taken = one.volumes.snapshot(volume.volume_id, "monday", "jane")
    one.work()
    one.volumes.delete_snapshot(taken.result(timeout=0).snapshot_id, "jane")


def leave_unborn(one: Stage, volume: Volume) -> None:
    (task,) = one.run("/brief")
    one.make(one.plans(task)[0])
    one.apps.delete("/brief", "jane")
    one.end(task, "TASK_FAILED")
    one.clock.now += one.config.claims.quiet_after_s
    one.janitor.resume()


WORK = [(delete, "delete"), (expand, "expand"), (snapshot, "snapshot"), (delete_snapshot, "delete_snapshot"), (leave_unborn, "find")]


@pytest.mark.parametrize(("begin", "verb"), WORK, ids=[verb for _, verb in WORK])
def test_what_one_broker_is_doing_no_other_does_meanwhile_or_again(
    neighbours: Brokers, begin: Callable[[Stage, Volume], None], verb: str
) -> None:
    begin(neighbours.one, neighbours.volume)
    neighbours.asked.clear()
    neighbours.during(verb)
    neighbours.one.work()
    assert neighbours.platform.during == ""
    neighbours.go_on()
    assert neighbours.asked.count(verb) == 1
    assert not neighbours.other.janitor.resume()
    assert not neighbours.one.janitor.resume()


@pytest.mark.parametrize(("begin", "verb"), WORK, ids=[verb for _, verb in WORK])
def test_what_another_broker_was_quicker_to_do_is_done(neighbours: Brokers, begin: Callable[[Stage, Volume], None], verb: str) -> None:
    """It waited here for a worker."""
    begin(neighbours.one, neighbours.volume)
    neighbours.asked.clear()
    neighbours.go_on()
    assert neighbours.asked.count(verb) == 1
    neighbours.one.work()
    assert not neighbours.one.janitor.resume()
    if verb != "find":  # it is looked for once more: nobody has told this broker
        assert neighbours.asked.count(verb) == 1


def test_a_volume_that_another_broker_has_given_back_is_not_deleted_by_one_that_knew_it_doomed(neighbours: Brokers) -> None:
    one, other, volume = neighbours.one, neighbours.other, neighbours.volume
    assert volume.external_id
    other.platform.attach(volume.external_id, "elsewhere", epoch=9)
    one.volumes.delete(volume.volume_id, "jane")
    other.janitor.resume()
    one.work()
    assert one.ledger.volume(volume.name).state is VolumeState.AVAILABLE
    one.platform.detach(volume.external_id, "elsewhere")
    one.apps.scale("/db", 1, "jane")
    one.tick()
    one.offer("a1")
    assert len(one.tasks()) == 1
    other.work()
    assert volume.external_id in one.storage.volumes


def just_after(one: Stage, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """In the moment after this broker's worker has read the volume."""
    read = one.ledger.volume

    def volume(name: str) -> Volume:
        found = read(name)
        monkeypatch.setattr(one.ledger, "volume", read)
        happens()
        return found

    monkeypatch.setattr(one.ledger, "volume", volume)


def test_what_was_asked_again_just_after_it_was_given_back_is_done(neighbours: Brokers, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, volume = neighbours.one, neighbours.other, neighbours.volume
    assert volume.external_id
    one.storage.capacity_mib = 32
    refused = one.volumes.expand(volume.volume_id, 64, "jane")
    neighbours.go_on()
    one.storage.capacity_mib = 1024
    just_after(one, monkeypatch, lambda: expand(other, volume))
    one.work()
    other.work()
    assert isinstance(failure(refused), Conflict)
    assert (one.ledger.volume(volume.name).size_mib, one.storage.volumes[volume.external_id].size_mib) == (64, 64)

    other.platform.attach(volume.external_id, "elsewhere", epoch=9)
    delete(other, volume)
    one.janitor.resume()
    other.work()
    other.platform.detach(volume.external_id, "elsewhere")
    just_after(one, monkeypatch, lambda: delete(other, volume))
    one.work()
    other.work()
    assert one.storage.volumes == {}


def test_who_asks_while_another_broker_is_at_it_reads_so(neighbours: Brokers) -> None:
    one, other, volume = neighbours.one, neighbours.other, neighbours.volume
    one.volumes.snapshot(volume.volume_id, "monday", "jane")

    def ask() -> None:
        future = other.volumes.expand(volume.volume_id, 64, "joe")
        other.work()
        error = failure(future)
        assert isinstance(error, WorkedOnElsewhere)
        assert str(error) == "Another broker on this ledger is at work on volume /db#0/data."

    neighbours.platform.during, neighbours.platform.meanwhile = "snapshot", ask
    one.work()
    neighbours.go_on()
    assert one.storage.volumes[volume.external_id or ""].size_mib == 64


def test_what_a_person_asked_of_one_broker_and_another_was_refused_is_said(neighbours: Brokers) -> None:
    future = neighbours.one.volumes.expand(neighbours.volume.volume_id, 64, "jane")
    neighbours.one.storage.capacity_mib = 32
    neighbours.go_on()
    neighbours.one.work()
    error = failure(future)
    assert isinstance(error, Conflict)
    assert "wanted 64 MiB, found 16 MiB: the platform refused more" in str(error)


def test_a_snapshot_of_a_volume_that_another_broker_is_deleting_is_refused(neighbours: Brokers) -> None:
    """Stored, it could be neither made nor given up once the volume is gone."""
    one, other, volume = neighbours.one, neighbours.other, neighbours.volume
    new_id = one.new_id

    def meanwhile() -> str:
        delete(other, volume)
        return new_id()

    one.volumes._ids = meanwhile  # between the look at the volume and the intent
    with pytest.raises(Conflict, match=r"volume /db#0/data is not as expected: wanted AVAILABLE, found DELETING\."):
        one.volumes.snapshot(volume.volume_id, "monday", "jane")
    other.work()
    assert one.ledger.snapshots().items == []
    assert not one.janitor.resume()


def test_what_an_unborn_claim_of_another_broker_has_just_left_is_not_imported(neighbours: Brokers, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is to be deleted, and whoever had it attached by then would lose it."""
    one, other = neighbours.one, neighbours.other
    (task,) = other.run("/brief")
    made = other.make(other.plans(task)[0]).external_id
    future = one.volumes.adopt(ImportOrder(platform="disks", external_id=made or "", name="mine", profile="fast"), "jane")
    pools = one.ledger.pools

    def meanwhile(platform: str | None = None) -> list[Pool]:
        other.apps.delete("/brief", "joe")
        other.end(task, "TASK_FAILED")
        return pools(platform)

    monkeypatch.setattr(one.ledger, "pools", meanwhile)  # what is looked at last before the import is stored
    one.work()
    error = failure(future)
    assert isinstance(error, Conflict)
    assert str(error) == f"volume {made} is not as expected: wanted nobody's, found Polly's own, never born and to be deleted."


def test_a_turn_ends_with_its_process(ledger_url: str) -> None:
    program = (
        "import sys; from storage.inventory import open_ledger; "
        "print(bool(open_ledger(sys.argv[1]).take_turn('volume v')), flush=True); input()"
    )
    opened = closing(open_ledger(ledger_url))
    with (
        opened as ledger,
        subprocess.Popen([sys.executable, "-c", program, ledger_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder,
    ):
        assert holder.stdout
        assert holder.stdout.readline() == "True\n"
        assert ledger.take_turn("volume v") is None
        assert ledger.take_turn("volume w")
        holder.kill()
        eventually(lambda: ledger.take_turn("volume v"), what="the server has seen the end of the holder")


def test_a_turn_that_was_taken_twice_is_over_when_both_have_ended(brokers: Brokers) -> None:
    one, other = brokers.one.ledger, brokers.other.ledger
    first, second = one.take_turn("volume v"), one.take_turn("volume v")
    assert first
    assert second
    first.end()
    assert other.take_turn("volume v") is None
    second.end()
    assert other.take_turn("volume v")


def test_turns_begin_anew_after_the_server_has_ended_their_session(postgresql_url: str) -> None:
    engine = create_engine(postgresql_url, poolclass=NullPool)
    one, other = open_ledger(postgresql_url), open_ledger(postgresql_url)
    try:
        lost = one.take_turn("volume v")
        assert lost
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"))
        mine = eventually(lambda: _taken(other), what="the other's turn")
        assert mine
        lost.end()
        assert one.take_turn("volume v") is None
        mine.end()
        assert one.take_turn("volume v")
    finally:
        one.close()
        other.close()


def _taken(ledger: Ledger) -> Turn | None:
    try:
        return ledger.take_turn("volume v")
    except LedgerUnavailable:
        return None
