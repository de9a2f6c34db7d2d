"""Work outside the broker's thread: calls to platforms, which may take seconds. Results come back to the broker's thread.

One job at a time per key (a volume, an import): what is submitted for a busy key waits its turn, in order. Each platform has
a lane of its own, so that one that hangs keeps no other waiting; in it what a task waits for goes before what only tidies up.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Generic, TypeVar

from storage.errors import AdapterFault, PollyError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
logger = logging.getLogger(__name__)

IN_A_ROW = 3
"""So many urgent jobs of a platform begin before one that is not: where many claims are stranded, urgent ones never end."""


class Outcome(Generic[T_co]):
    """What a job came to: its value, or the error that it raised."""

    def __init__(self, value: T_co | None = None, error: PollyError | None = None) -> None:
        self._value, self.error = value, error

    def get(self) -> T_co:
        """The value. Raises the job's error."""
        if self.error is not None:
            raise self.error
        return self._value  # type: ignore[return-value]  # a job without an error has left its value


class _Lane:
    """One platform's threads, and what waits for one of them."""

    def __init__(self, platform: str, threads: int) -> None:
        self.threads = ThreadPoolExecutor(threads, thread_name_prefix=f"polly-{platform}")
        self._urgent, self._others = deque[Callable[[], None]](), deque[Callable[[], None]]()
        self._in_a_row = 0

    def put(self, run: Callable[[], None], *, urgent: bool) -> None:
        (self._urgent if urgent else self._others).append(run)

    def take(self) -> Callable[[], None]:
        if self._urgent and not (self._others and self._in_a_row >= IN_A_ROW):
            self._in_a_row += 1
            return self._urgent.popleft()
        self._in_a_row = 0
        return self._others.popleft()


class Workers:
    """`post` hands a call to the broker's thread; it must not block."""

    def __init__(
        self, post: Callable[[Callable[[], None]], None], *, threads: int = 4, parallel: Callable[[str], int] | None = None
    ) -> None:
        """`parallel` says how many jobs of a platform run at a time, by its name; `threads` is for one of which it is not said."""
        self._post, self._parallel = post, parallel or (lambda _: threads)
        self._lanes: dict[str, _Lane] = {}
        self._lock = Lock()
        self._queues: dict[str, deque[tuple[Callable[[], None], bool]]] = {}
        self._closed = False

    def submit(self, platform: str, key: str, job: Callable[[], T], done: Callable[[Outcome[T]], None], *, urgent: bool = False) -> None:
        """Runs `job` in a thread; `done` is called with its outcome in the broker's thread. `urgent`: before what is not."""

        def run() -> None:
            outcome = _outcome(platform, job)
            self._post(lambda: done(outcome))
            self._next(platform, key)

        with self._lock:
            if key in self._queues:
                self._queues[key].append((run, urgent))
            else:
                self._queues[key] = deque()
                self._begin(platform, run, urgent)

    def _next(self, platform: str, key: str) -> None:
        with self._lock:
            if self._queues[key]:
                self._begin(platform, *self._queues[key].popleft())
            else:
                del self._queues[key]

    def _begin(self, platform: str, run: Callable[[], None], urgent: bool) -> None:
        if self._closed:
            return
        lane = self._lanes.get(platform)
        if lane is None:
            lane = self._lanes[platform] = _Lane(platform, self._parallel(platform))
        lane.put(run, urgent=urgent)
        lane.threads.submit(self._run_one, lane)

    def _run_one(self, lane: _Lane) -> None:
        """As many times as something was put in the lane."""
        with self._lock:
            run = lane.take()
        run()

    def close(self) -> None:
        """Waits for the jobs that run; those that have not begun are dropped: their intents are in the ledger."""
        with self._lock:
            self._closed = True
        for lane in self._lanes.values():
            lane.threads.shutdown(wait=True, cancel_futures=True)


def _outcome(platform: str, job: Callable[[], T]) -> Outcome[T]:
    try:
        return Outcome(job())
    except PollyError as error:
        return Outcome(error=error)
    except Exception as error:
        logger.exception("the adapter of platform %s failed", platform)
        return Outcome(error=AdapterFault(platform=platform, reason=f"{type(error).__name__}: {error}"))
