"""What unit tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from storage.inventory import Ledger, open_ledger
from tests.ledgers import Clock, assert_sound
from tests.stage import ShakyLedger, Stage, shaky


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(ledger_url: str, clock: Clock) -> Iterator[Ledger]:
    """A new ledger, on SQLite and on PostgreSQL; whatever a test does with it, it must be sound afterwards."""
    opened = open_ledger(ledger_url, clock=clock)
    try:
        yield opened
        assert_sound(opened)
    finally:
        opened.close()


@pytest.fixture
def shaky_ledger(sqlite_url: str, clock: Clock) -> Iterator[ShakyLedger]:
    """A ledger that fails when a test says so, and is sound afterwards all the same."""
    opened = shaky(sqlite_url, clock)
    try:
        yield opened
        opened.fails_before = opened.fails_after = 0
        assert_sound(opened)
    finally:
        opened.close()


@pytest.fixture
def stage(shaky_ledger: ShakyLedger, clock: Clock) -> Stage:
    """A broker without a thread, registered with a Mesos that is only a record of calls."""
    made = Stage(shaky_ledger, clock)
    made.subscribed()
    return made
