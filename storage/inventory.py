"""The ledger: the only truth about who may use what, and the only way to change it.

Reads are methods of `Ledger`; every change is a method of the `Transaction` that `Ledger.begin` opens. The database
guards each transition, this code explains what it refused. One process writes to a SQLite ledger at a time and the
others wait; on PostgreSQL writers meet only at the rows that they share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from storage.errors import PollyError
from storage.ledger.claiming import Advance, Release
from storage.ledger.elsewhere import ElsewhereReads
from storage.ledger.engine import Database
from storage.ledger.leadership import check_terms, led
from storage.ledger.migrate import prepare
from storage.ledger.overview import Overview
from storage.ledger.records import (
    ClaimRequest,
    Neighbour,
    NewVolume,
    Orphan,
    Placed,
    Placement,
    PlaceRequest,
    PoolUse,
    Pruned,
    Refused,
    Restored,
    Workload,
)
from storage.ledger.retention import part_of
from storage.ledger.sightings import SightingReads, written
from storage.ledger.storing import WORTH_A_THREAD, Storing
from storage.ledger.transaction import Transaction
from storage.ledger.turns import Turn, Turns

PART_LINES: Final = 500
"""How many lines of the event log one part of its pruning looks at: placing waits for such a part at the most."""

__all__ = [
    "PART_LINES",
    "WORTH_A_THREAD",
    "Advance",
    "ClaimRequest",
    "Ledger",
    "Neighbour",
    "NewVolume",
    "Orphan",
    "PlaceRequest",
    "Placed",
    "Placement",
    "PoolUse",
    "Pruned",
    "Refused",
    "Release",
    "Restored",
    "Storing",
    "Transaction",
    "Turn",
    "Workload",
    "open_ledger",
    "written",
]


def open_ledger(url: str, *, clock: Callable[[], float] = time.time, read_only: bool = False) -> Ledger:
    """Opens the ledger at `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/DATABASE`, and makes or migrates it if need be.

    With `read_only` nothing is made, migrated or written. Raises LedgerUnavailable for everything that is wrong with the
    database or the URL.
    """
    database = Database(url, read_only=read_only)
    try:
        prepare(database)
    except PollyError:
        database.close()
        raise
    return Ledger(database, clock)


class Ledger(Overview, SightingReads, ElsewhereReads):
    """One opened ledger. Threads may share it; a forked child may not."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._terms: dict[str, int] = {}
        self._turns = Turns(database)

    def __repr__(self) -> str:
        return f"Ledger({self.url})"

    @property
    def url(self) -> str:
        """Where it is, without the password."""
        return self._database.shown

    @contextmanager
    def begin(self, actor: str, *, now: float | None = None) -> Iterator[Transaction]:
        """One transaction: committed when the block ends, rolled back whole on any exception or refusal.

        `actor` is who does it, for the event log. Every line and instant of it is `now`, or the clock's at its beginning. It is not
        nested: a second one inside waits for the first and fails. Raises LedgerUnavailable, and AlreadyLed in a process
        whose leadership has gone to another.
        """
        with self._database.writing() as session:
            check_terms(session, self._terms)
            transaction = Transaction(session, actor=actor, now=self._clock() if now is None else now)
            yield transaction
            transaction.close()

    @contextmanager
    def placing(self, actor: str, *, most: int) -> Iterator[Storing]:
        """Places tasks in a transaction of their own, part by part; see Transaction.place and `begin`.

        Where it is worth a thread for `most`, the most tasks that may come, the database works on what it has been given while the
        caller goes on. Nothing is stored if the block ends before the outcomes were asked for.
        """
        now = self._clock()
        storing = Storing(lambda: self.begin(actor, now=now), self._database.beside, now, most)
        try:
            yield storing
        finally:
            storing.abandon()

    @contextmanager
    def lead(self, scheduler: str, who: str) -> Iterator[None]:
        """Makes this process the only one that runs the scheduler, until the block ends or the process dies.

        Raises AlreadyLed with the name of the one that runs it.
        """
        with led(self._database, scheduler, who, self._clock()) as term:
            self._terms[scheduler] = term
            try:
                yield
            finally:
                self._terms.pop(scheduler, None)

    def prune_events(self, before: float, *, after: int = 0, most: int = PART_LINES) -> Pruned:
        """Deletes, of the `most` lines of the event log after that number, what is older than `before` and tells of nothing that goes on.

        A part is a short transaction; the whole is done by going on after the last until there is no `after`. Lines are looked at in the
        order of their writing, so that old ones behind a part without any stay: those that a clock that was ahead has dated keep them.
        Raises what `begin` raises.
        """
        with self._database.reading() as session:
            part = part_of(session, before=before, after=after, most=most)
        deleted = 0
        if part.doomed:
            with self.begin("broker") as transaction:
                deleted = transaction.drop_events(before=before, after=after, last=part.last)
        return Pruned(deleted=deleted, after=part.last if part.old else None)

    def take_turn(self, subject: str) -> Turn | None:
        """The right to do what is intended with the subject, until the turn ends or this process dies; see storage.ledger.turns.

        None while another process has it. Raises LedgerUnavailable.
        """
        return self._turns.take(subject)

    def close(self) -> None:
        """Closes every connection. Safe to repeat."""
        self._turns.close()
        self._database.close()
