"""A transaction in a thread of its own, which is given its work part by part while the caller goes on. Knows no database.

A database's driver lets other threads have Python while a statement runs and while a disk or a server is waited for, and to
store a thousand placements takes about as long as to choose them and to make the launches that must not be sent before.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Generic, TypeVar

AT_ONCE = 4
"""Transactions under way at a time: writers that meet only on PostgreSQL."""

TURN_S = 0.0005
"""For so long whoever gives a part leaves Python to the thread: compiled code, such as matching, would keep it until the next part."""

P = TypeVar("P")
T = TypeVar("T")


class Abandoned(Exception):
    """Whoever was to give the next part has given up: nothing is to be kept of those that came before."""


class Errand(Generic[P, T]):
    """Work in a thread, on parts that are still being given to it."""

    def __init__(self, threads: ThreadPoolExecutor, work: Callable[[Iterator[P]], T]) -> None:
        self._parts: queue.SimpleQueue[P | Abandoned | None] = queue.SimpleQueue()
        self._done: Future[T] = threads.submit(lambda: work(self._given()))

    def _given(self) -> Iterator[P]:
        while (part := self._parts.get()) is not None:
            if isinstance(part, Abandoned):
                raise part
            yield part

    def give(self, part: P) -> None:
        self._parts.put(part)
        time.sleep(TURN_S)

    def result(self) -> T:
        """What the work returns, now that it has all parts. Raises what it raises."""
        self._parts.put(None)
        return self._done.result()

    def abandon(self) -> None:
        """Returns when the work has ended with Abandoned, or by itself before."""
        self._parts.put(Abandoned())
        with suppress(Exception):
            self._done.result()


class Beside:
    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="polly-ledger")

    def begin(self, work: Callable[[Iterator[P]], T]) -> Errand[P, T]:
        return Errand(self._threads, work)

    def close(self) -> None:
        self._threads.shutdown()
