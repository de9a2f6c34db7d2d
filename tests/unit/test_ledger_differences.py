"""Where the two databases differ, and what neither takes: what comes of it is the same on both."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

import pytest
from psycopg import errors
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from storage.errors import Invalid, LedgerUnavailable, LostRace, UnknownVolume
from storage.inventory import Ledger, Placed, Refused, open_ledger
from storage.ledger.surroundings import Surroundings
from storage.platforms.base import PoolReport
from tests.ledgers import Clock, fresh, furnish, new, place, task
from tests.support import eventually

HALF = "\ud800"
"""Half a surrogate pair: Python has such texts, and no database."""


@pytest.mark.parametrize("count", [3, 100])
def test_of_a_batch_only_what_no_database_can_store_is_refused(ledger: Ledger, count: int) -> None:
    furnish(ledger, capacity_mib=1000)
    wanted = [task(f"t{n}", fresh(f"c{n}", new(f"n{n}", size_mib=1, zone=HALF if n == 1 else "z1"))) for n in range(count)]
    outcomes = place(ledger, *wanted)
    assert [n for n, outcome in enumerate(outcomes) if not isinstance(outcome, Placed)] == [1]
    refused = outcomes[1]
    assert isinstance(refused, Refused)
    assert isinstance(refused.error, Invalid), refused.error
    assert ledger.pools()[0].provisioned_mib == count - 1


def test_what_cannot_be_stored_is_refused_and_not_the_programs_fault(ledger: Ledger) -> None:
    furnish(ledger)
    for wanted in (new("a", zone=HALF), new("a", size_mib=2**70)):
        with pytest.raises(Invalid, match="cannot store it"), ledger.begin("op") as tx:
            tx.plan(wanted, "r1")
    with pytest.raises((Invalid, UnknownVolume)):
        ledger.volume(HALF)


def test_a_lock_that_does_not_come_says_nothing_against_what_was_to_be_stored(postgresql_url: str) -> None:
    """As a Conflict it would be a status that does not fit the ledger, whose task is killed."""
    ledger = open_ledger(postgresql_url, clock=Clock())
    assert isinstance(ledger._database.translate(errors.LockNotAvailable("canceling statement due to lock timeout")), LedgerUnavailable)
    lost = ledger._database.translate(errors.DeadlockDetected("deadlock detected"))
    assert isinstance(lost, LedgerUnavailable)
    assert isinstance(lost, LostRace)
    ledger.close()


def test_two_brokers_that_hear_and_do_not_hear_a_platform_at_once_wait_for_each_other(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = open_ledger(postgresql_url, clock=Clock()), open_ledger(postgresql_url, clock=Clock())
    furnish(one)
    heard = Surroundings._heard

    def unheard() -> bool:
        with two.begin("two") as tx:
            return tx.unheard("local", "no answer", patience=1)

    def is_waiting() -> bool:
        with one._database.reading() as session:
            return bool(session.all(text("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")))

    with ThreadPoolExecutor(1) as other:

        def meanwhile(self: Surroundings, platform: str, *, was_silent: bool) -> None:
            futures.append(other.submit(unheard))
            eventually(is_waiting, 10, "the other waits for a lock")
            heard(self, platform, was_silent=was_silent)

        futures: list[Future[bool]] = []
        monkeypatch.setattr(Surroundings, "_heard", meanwhile)
        with one.begin("one") as tx:
            tx.sync_pools("local", [PoolReport(name="p", capacity_mib=1000)])
        assert futures[0].result() is True
    assert [pool.state for pool in one.pools()] == ["silent"]
    for ledger in (one, two):
        ledger.close()


def test_a_session_that_cannot_be_arranged_is_closed(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Connection] = []
    as_it_is = Connection.exec_driver_sql

    def refuse(connection: Connection, statement: str) -> object:
        if "tcp_keepalives" not in statement:
            return as_it_is(connection, statement)
        opened.append(connection)
        raise OperationalError(statement, None, errors.AdminShutdown("the server ends"))

    monkeypatch.setattr(Connection, "exec_driver_sql", refuse)
    with closing(open_ledger(postgresql_url)) as ledger, pytest.raises(LedgerUnavailable, match="the server ends"):
        ledger.take_turn("volume v")
    assert [connection.closed for connection in opened] == [True]
