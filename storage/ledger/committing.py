"""A commit in a thread of its own, while the caller goes on with work of its own. Knows no database.

A commit waits for a disk or for a server, and Python can work in the meantime: making a thousand launches takes about as
long as the flush that they must not be sent before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

AT_ONCE = 4
"""Commits under way at a time: writers that meet only on PostgreSQL."""


class Committer:
    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="polly-commit")

    def commit(self, commit: Callable[[], None], meanwhile: Callable[[], None]) -> None:
        """Returns when both are done. Raises what the commit raises, else what the other does."""
        begun = threading.Event()

        def work() -> None:
            begun.set()
            commit()

        done = self._threads.submit(work)
        try:
            begun.wait()  # gives way to the thread, which else would wait for Python's next turn
            meanwhile()
        finally:
            done.result()

    def close(self) -> None:
        self._threads.shutdown()
