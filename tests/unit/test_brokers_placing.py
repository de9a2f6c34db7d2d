"""Two brokers that place at the same moment, on a real PostgreSQL: neither waits for the other in a circle, and nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import psycopg
import pytest
from psycopg import sql

from storage.errors import LedgerUnavailable
from storage.inventory import Ledger, Placed, PlaceRequest, Refused, open_ledger
from storage.ledger.placing import HELD
from storage.model import AccessMode, ExternalId, Node, NodeId, VolumeId
from storage.platforms.base import PoolReport, Room
from tests.ledgers import assert_sound, fresh, furnish, make, new, old, place, placed, task
from tests.servers import Postgres
from tests.support import eventually
from tests.unit.test_ledger_rooms import somebody_waits

QUOTA = Room(name="quota", capacity_mib=10_000)
Parts = Sequence[Sequence[PlaceRequest]]


@pytest.fixture
def brokers(postgres: Postgres, postgresql_url: str) -> Iterator[tuple[Ledger, Ledger]]:
    """Pools p and q are a room, and so are r and s apart. A deadlock is seen at once."""
    name = postgresql_url.rpartition("/")[2]
    with psycopg.connect(host="127.0.0.1", port=postgres.port, user="polly", dbname=name, autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} SET deadlock_timeout = '20ms'").format(sql.Identifier(name)))
    with ExitStack() as stack:
        one, other = (stack.enter_context(closing(open_ledger(postgresql_url))) for _ in range(2))
        with one.begin("test") as tx:
            tx.sync_pools("local", [PoolReport(name=pool, capacity_mib=5000, room=QUOTA) for pool in "pq"])
            tx.sync_pools("far", [PoolReport(name=pool, capacity_mib=5000) for pool in "rs"])
        yield one, other
        assert_sound(one)


def at_once(rounds: Sequence[tuple[Ledger, Parts]]) -> list[list[Placed | Refused] | None]:
    """Each round in a thread. None begins its second part before the database has done the first of all."""
    met = threading.Barrier(len(rounds), timeout=30)

    def run(ledger: Ledger, parts: Parts) -> list[Placed | Refused] | None:
        with ledger.begin("broker") as tx:

            def given() -> Iterator[Sequence[PlaceRequest]]:
                for number, part in enumerate(parts):
                    if number == 1:
                        tx.session.find(HELD, [])  # its answer comes after those to all that was sent before
                        met.wait()
                    yield part

            return tx.place_parts(given())

    with ThreadPoolExecutor(len(rounds)) as threads:
        return [done.result(timeout=60) for done in [threads.submit(run, *it) for it in rounds]]


def some(who: str, pool: str, platform: str) -> list[PlaceRequest]:
    """Three tasks of a broker, each with a new volume."""
    made = [new(f"{who} {pool} {number}", pool=pool, platform=platform, owner=f"/{who}") for number in range(3)]
    return [task(it.name, fresh(f"claim of {it.name}", it), scheduler=f"mesos/{who}") for it in made]


def test_rounds_that_take_from_the_same_pools_in_other_orders_are_placed_both(brokers: tuple[Ledger, Ledger]) -> None:
    one, other = brokers
    places = [("p", "local"), ("r", "far"), ("q", "local"), ("s", "far")]
    outcomes = at_once([(one, [some("one", *at) for at in places]), (other, [some("other", *at) for at in reversed(places)])])
    assert outcomes == [None, None]
    assert {pool.name: pool.provisioned_mib for pool in one.pools()} == dict.fromkeys("pqrs", 600)


def test_of_a_round_that_gives_way_to_another_only_what_the_other_has_is_refused(brokers: tuple[Ledger, Ledger]) -> None:
    """Each claims both volumes, in another order: without an end by force they would wait for each other."""
    one, other = brokers
    for name in ("x", "y"):
        make(one, name, mode=AccessMode.MULTI_NODE_MULTI_WRITER)

    def of(who: str, first: str, second: str) -> Parts:
        shared = [task(f"{who} {name}", old(f"claim of {who} {name}", name, 1), scheduler=f"mesos/{who}") for name in (first, second)]
        return [[shared[0], *some(who, "p", "local")], [shared[1], *some(who, "q", "local")]]

    outcomes = at_once([(one, of("one", "x", "y")), (other, of("other", "y", "x"))])
    assert sorted(outcome is None for outcome in outcomes) == [False, True]
    (late,) = [outcome for outcome in outcomes if outcome is not None]
    assert [isinstance(it, Placed) for it in late] == [False, True, True, True, False, True, True, True]
    assert [str(it.error) for it in late if isinstance(it, Refused)] == [
        f"volume {name} is not as expected: wanted epoch 1, found epoch 2."
        for name in (("x", "y") if outcomes[0] is not None else ("y", "x"))
    ]
    assert len(one.placements()) == 2 + 12


def test_a_transaction_holds_no_pool_before_its_end(brokers: tuple[Ledger, Ledger]) -> None:
    """What a platform has rounded up is accounted in whichever order statuses come."""
    one, other = brokers
    (claim,) = placed(one, task("t1", fresh("c1", new("one"))))
    with one.begin("mesos") as tx:
        tx.created(VolumeId("v-one"), token=claim.claim_id, external_id=ExternalId("ext-1"), size_mib=104)
        placed(other, task("t2", fresh("c2", new("two"))))
    assert {pool.name: pool.provisioned_mib for pool in one.pools("local")} == {"p": 204, "q": 0}


@pytest.mark.parametrize("named", [False, True], ids=["one-mesos", "two"])
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "old"])
def test_of_two_that_take_the_last_slots_of_a_machine_at_once_one_is_refused(
    brokers: tuple[Ledger, Ledger], postgresql_url: str, *, named: bool, is_new: bool
) -> None:
    """Where the machine is an agent of two masters, what the platform calls it tells that it is one."""
    nodes = {"mesos/one": "node1", "mesos/other": "node2" if named else "node1"}
    one, other = brokers
    for scheduler, node in nodes.items():
        with one.begin("test") as tx:
            tx.put_nodes([Node(node_id=NodeId(node), scheduler=scheduler, hostname="m", slots={"local": 2})])
            tx.name_node(scheduler, NodeId(node), {"local": "i-1"} if named else {})

    def two(scheduler: str) -> list[PlaceRequest]:
        names = [f"{scheduler} {number}" for number in range(2)]
        for name in () if is_new else names:
            make(one, name, mode=AccessMode.SINGLE_NODE_WRITER)
        claims = [fresh(f"c {name}", new(name)) if is_new else old(f"c {name}", name, 1) for name in names]
        return [task(name, claim, scheduler=scheduler, node=nodes[scheduler]) for name, claim in zip(names, claims, strict=True)]

    first, late = two("mesos/one"), two("mesos/other")
    with ThreadPoolExecutor(1) as threads:
        with one.begin("broker") as tx:
            assert all(isinstance(it, Placed) for it in tx.place(first[:1]))
            asked = threads.submit(place, other, *late)
            eventually(lambda: asked.done() or somebody_waits(postgresql_url), what="the other waits, or has not to")
        outcomes = asked.result(timeout=60)
    assert [isinstance(it, Placed) for it in outcomes] == [True, False]
    assert [str(it.error) for it in outcomes if isinstance(it, Refused)] == [
        f"Node {nodes['mesos/other']} has all 2 attach slots of platform local in use."
    ]
    assert [str(it.error) for it in place(one, *first[1:]) if isinstance(it, Refused)] == [
        "Node node1 has all 2 attach slots of platform local in use."
    ]


def test_a_broker_that_stops_in_a_transaction_does_not_stop_the_others(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one whose machine is suspended: its server still hears from the kernel there, and would keep its locks."""
    with closing(open_ledger(postgresql_url)) as other:
        furnish(other)
        monkeypatch.setattr("storage.ledger.engine.STOPPED_S", 0.1)
        with closing(open_ledger(postgresql_url)) as one:

            def stop() -> None:
                with one.begin("broker") as tx:
                    try:
                        tx.place([task("t1", fresh("c1", new("one")))])
                    finally:  # where this machine is busy it may be ended before
                        placed(other, task("t2", fresh("c2", new("two"))))

            with pytest.raises(LedgerUnavailable):
                stop()
        assert [it.placement_id for it in other.placements()] == ["t2"]
        assert_sound(other)
