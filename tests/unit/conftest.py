"""What unit tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from storage.inventory import Ledger, open_ledger
from tests.ledgers import Clock, assert_sound


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
