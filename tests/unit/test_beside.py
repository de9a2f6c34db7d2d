"""Transactions in a thread of their own."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import pytest

from storage.ledger.beside import Abandoned, Beside


@pytest.fixture
def beside() -> Iterator[Beside]:
    made = Beside()
    yield made
    made.close()


def test_the_work_goes_on_while_parts_are_still_to_come(beside: Beside) -> None:
    done = queue.SimpleQueue[int]()

    def work(parts: Iterator[int]) -> str:
        for part in parts:
            done.put(part)
        return "all"

    errand = beside.begin(work)
    for part in (1, 2):
        errand.give(part)
        assert done.get(timeout=10) == part
    assert errand.result() == "all"


def test_what_the_work_raises_is_raised_with_the_result(beside: Beside) -> None:
    def fail(parts: Iterator[int]) -> None:
        raise OSError(f"the disk is full at {next(parts)}")

    errand = beside.begin(fail)
    errand.give(1)
    errand.give(2)
    with pytest.raises(OSError, match="the disk is full at 1"):
        errand.result()


def test_work_that_is_abandoned_has_ended_without_its_end(beside: Beside) -> None:
    said = list[object]()

    def work(parts: Iterator[int]) -> None:
        try:
            said.extend(parts)
        except Abandoned as error:
            said.append(type(error))
            raise

    errand = beside.begin(work)
    errand.give(1)
    errand.abandon()
    assert said == [1, Abandoned]
