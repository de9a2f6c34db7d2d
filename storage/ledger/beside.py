"""A transaction in a thread of its own, while the caller goes on with work of its own. Knows no database.

A database's driver lets other threads have Python while a statement runs and while a disk or a server is waited for, and to
store a thousand placements takes about as long as to make the launches that must not be sent before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

AT_ONCE = 4
"""Transactions under way at a time: writers that meet only on PostgreSQL."""

T = TypeVar("T")


class Beside:
    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="polly-ledger")

    def run(self, store: Callable[[], T], meanwhile: Callable[[], None]) -> T:
        """What `store` returns, once both are done. Raises what it raises, else what the other does."""
        begun = threading.Event()

        def work() -> T:
            begun.set()
            return store()

        done = self._threads.submit(work)
        try:
            begun.wait()  # gives way to the thread, which else would wait for Python's next turn
            meanwhile()
        finally:
            stored = done.result()
        return stored

    def close(self) -> None:
        self._threads.shutdown()
