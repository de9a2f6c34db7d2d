"""Work outside the broker's thread: calls to platforms, which may take seconds. Results come back to the broker's thread.

One job at a time per key (a volume, a platform): what is submitted for a busy key waits its turn, in order.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
logger = logging.getLogger(__name__)


class Outcome(Generic[T_co]):
    """What a job came to: its value, or the error that it raised."""

    def __init__(self, value: T_co | None = None, error: Exception | None = None) -> None:
        self._value, self.error = value, error

    def get(self) -> T_co:
        """The value. Raises the job's error."""
        if self.error is not None:
            raise self.error
        return self._value  # type: ignore[return-value]  # a job without an error has left its value


class Workers:
    """`post` hands a call to the broker's thread; it must not block."""

    def __init__(self, post: Callable[[Callable[[], None]], None], *, threads: int = 4) -> None:
        self._post = post
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="polly-worker")
        self._lock = Lock()
        self._queues: dict[str, deque[Callable[[], None]]] = {}

    def submit(self, key: str, job: Callable[[], T], done: Callable[[Outcome[T]], None]) -> None:
        """Runs `job` in a thread; `done` is called with its outcome in the broker's thread."""

        def run() -> None:
            try:
                outcome = Outcome(job())
            except Exception as error:
                outcome = Outcome[T](error=error)
            self._post(lambda: done(outcome))
            self._next(key)

        with self._lock:
            if key in self._queues:
                self._queues[key].append(run)
                return
            self._queues[key] = deque()
        self._pool.submit(run).add_done_callback(_complain)

    def _next(self, key: str) -> None:
        with self._lock:
            if not self._queues[key]:
                del self._queues[key]
                return
            run = self._queues[key].popleft()
        self._pool.submit(run).add_done_callback(_complain)

    def close(self) -> None:
        """Waits for the jobs that run; those that have not begun are dropped: their intents are in the ledger."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _complain(future: Future[None]) -> None:
    if not future.cancelled() and (error := future.exception()):
        logger.error("a worker failed", exc_info=error)
