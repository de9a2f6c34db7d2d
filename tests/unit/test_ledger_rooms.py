"""Room that several pools share: given out once, by one transaction or by several at a time, and counted once."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import NullPool, create_engine, text

from framework.source import LedgerSource
from framework.views import platforms
from storage.errors import PoolFull
from storage.inventory import Ledger, Placed, PlaceRequest, Refused
from storage.model import VolumeId
from storage.platforms.base import PoolReport, Room
from tests.ledgers import fresh, furnish, new, place, placed, refusal, task
from tests.support import eventually

QUOTA = Room(name="quota", capacity_mib=1000, foreign_mib=100)


@pytest.fixture
def shared(ledger: Ledger) -> Ledger:
    """Pools p and q share a room of 900 MiB, q has 500 of its own; r is apart."""
    furnish(ledger)
    report(ledger, QUOTA)
    return ledger


def report(ledger: Ledger, room: Room) -> None:
    reports = [
        PoolReport(name="p", capacity_mib=1000, foreign_mib=100, room=room),
        PoolReport(name="q", capacity_mib=500, room=room),
        PoolReport(name="r", capacity_mib=200),
    ]
    with ledger.begin("test") as tx:
        tx.sync_pools("local", reports)


def free(ledger: Ledger) -> dict[str, int]:
    return {pool.name: pool.free_mib for pool in ledger.pools()}


def test_what_one_pool_takes_the_others_of_its_room_have_no_more(shared: Ledger) -> None:
    assert free(shared) == {"p": 900, "q": 500, "r": 200}
    placed(shared, task("t1", fresh("c1", new("one", size_mib=600))))
    assert free(shared) == {"p": 300, "q": 300, "r": 200}
    placed(shared, task("t2", fresh("c2", new("two", pool="q", size_mib=200)), fresh("c3", new("three", pool="r", size_mib=200))))
    assert free(shared) == {"p": 100, "q": 100, "r": 0}
    full = refusal(shared, task("t3", fresh("c4", new("four", pool="q", size_mib=101))))
    assert isinstance(full, PoolFull)
    assert (full.fields["pool"], full.fields["free_mib"], full.fields["size_mib"]) == ("quota", 100, 101)


def test_of_several_at_once_those_are_placed_that_the_room_holds(shared: Ledger) -> None:
    wanted = [task(f"t{n}", fresh(f"c{n}", new(f"v{n}", pool="pq"[n % 2], size_mib=200))) for n in range(6)]
    outcomes = place(shared, *wanted)
    assert [isinstance(outcome, Placed) for outcome in outcomes] == [True] * 4 + [False] * 2
    both = task("t9", fresh("c8", new("eight", size_mib=60)), fresh("c9", new("nine", pool="q", size_mib=60)))
    assert isinstance(place(shared, both)[0], Refused), "one task's volumes are more than the room together"
    assert free(shared) == {"p": 100, "q": 100, "r": 200}


def test_a_volume_by_hand_and_one_that_grows_take_of_the_room_too(shared: Ledger) -> None:
    with shared.begin("test") as tx:
        tx.plan(new("one", size_mib=500), token="t1")
        tx.plan(new("two", pool="q", size_mib=300), token="t2")
    with pytest.raises(PoolFull, match="Pool quota of platform local has 100 MiB free, 101 MiB"), shared.begin("test") as tx:
        tx.plan(new("three", pool="q", size_mib=101), token="t3")
    with pytest.raises(PoolFull, match="Pool quota of platform local has 100 MiB free, 101 MiB"), shared.begin("test") as tx:
        tx.resize(VolumeId("v-one"), 601)
    with shared.begin("test") as tx:
        tx.resize(VolumeId("v-one"), 600)
    assert free(shared) == {"p": 0, "q": 0, "r": 200}


def test_what_others_take_of_the_room_is_gone_from_all_its_pools(shared: Ledger) -> None:
    placed(shared, task("t1", fresh("c1", new("one", size_mib=600))))
    report(shared, Room(name="quota", capacity_mib=1000, foreign_mib=500))
    assert free(shared) == {"p": 0, "q": 0, "r": 200}
    assert isinstance(refusal(shared, task("t2", fresh("c2", new("two", pool="q", size_mib=1)))), PoolFull)
    placed(shared, task("t3", fresh("c3", new("three", pool="r", size_mib=1))))


def test_two_brokers_at_once_do_not_give_it_twice(shared: Ledger, ledger_url: str) -> None:
    """Each takes from another pool of the room. The second begins before the first has committed, and must see what that has taken."""
    began = threading.Event()
    answers: list[Placed | Refused] = []

    def second() -> None:
        began.set()
        answers.extend(place(shared, task("t2", fresh("c2", new("two", pool="q", size_mib=500)))))

    other = threading.Thread(target=second)
    with shared.begin("broker") as tx:
        (first,) = tx.place([task("t1", fresh("c1", new("one", size_mib=500)))])
        other.start()
        began.wait(timeout=30)
        if ledger_url.startswith("postgresql"):
            eventually(lambda: somebody_waits(ledger_url), what="the second waits for the first")
    other.join(timeout=60)
    assert isinstance(first, Placed)
    (late,) = answers
    assert isinstance(late, Refused)
    assert isinstance(late.error, PoolFull)


def test_parts_of_one_transaction_share_a_room(shared: Ledger) -> None:
    parts = [[task(f"t{n}", fresh(f"c{n}", new(f"v{n}", pool="pq"[n % 2], size_mib=300)))] for n in range(4)]
    with shared.begin("broker") as tx:
        outcomes = tx.place_parts(parts)
    assert outcomes is not None
    assert [isinstance(outcome, Placed) for outcome in outcomes] == [True] * 3 + [False]


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)  # on SQLite nobody else writes meanwhile
def test_a_pool_that_comes_into_the_room_between_two_parts_gives_no_more_than_the_room_has(shared: Ledger) -> None:
    def parts() -> Iterator[list[PlaceRequest]]:
        yield [task("t1", fresh("c1", new("one", size_mib=900)))]
        with shared.begin("test") as other:
            other.session.execute(text("UPDATE pools SET room = 'quota', room_limit_mib = 900 WHERE name = 'r'"))
        yield [task("t2", fresh("c2", new("two", pool="r", size_mib=1)))]

    with shared.begin("broker") as tx:
        outcomes = tx.place_parts(parts())
    assert outcomes is not None
    assert [isinstance(outcome, Placed) for outcome in outcomes] == [True, False]


def somebody_waits(url: str) -> bool:
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return bool(connection.execute(text(waiting)).scalar())


def test_a_platform_adds_up_to_what_it_has(shared: Ledger) -> None:
    source = LedgerSource(shared)
    (whole,) = platforms(source.pools(), source.hearings())
    assert (whole.capacity_mib, whole.free_mib) == (1000 + 200, 900 + 200)
    placed(shared, task("t1", fresh("c1", new("one", size_mib=500))))
    (whole,) = platforms(source.pools(), source.hearings())
    assert (whole.provisioned_mib, whole.free_mib) == (500, 400 + 200)
    some = [view for view in source.pools() if view.pool.name != "p"]
    assert platforms(some, source.hearings())[0].capacity_mib == 500 + 200
