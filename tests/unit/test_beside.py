"""Transactions in a thread of their own."""

from __future__ import annotations

import threading

import pytest

from storage.ledger.beside import Beside


def test_the_work_is_done_while_the_transaction_is_under_way() -> None:
    beside, worked = Beside(), threading.Event()
    assert beside.run(lambda: worked.wait(10), worked.set) is True
    beside.close()


def test_what_the_transaction_raises_is_raised() -> None:
    beside, done = Beside(), list[str]()

    def fail() -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        beside.run(fail, lambda: done.append("the work"))
    assert done == ["the work"]
    beside.close()


def test_work_that_fails_is_raised_once_the_transaction_is_done() -> None:
    beside, done = Beside(), list[str]()

    def fail() -> None:
        raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"):
        beside.run(lambda: done.append("stored"), fail)
    assert done == ["stored"]
    beside.close()
