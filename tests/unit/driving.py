"""A driver on a fake master, with what it told its sink."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from framework.mesos.driver import Driver
from framework.mesos.events import Event
from tests.support import eventually

FRAMEWORK = {"name": "polly", "user": "root", "roles": ["*"], "failover_timeout": 60.0, "capabilities": [{"type": "MULTI_ROLE"}]}

E = TypeVar("E")


class Heard:
    """A sink that keeps the events."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._new = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._new:
            self.events.append(event)
            self._new.notify_all()

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def wait(self, kind: type[E], number: int = 1, timeout_s: float = 10.0) -> E:
        """The n-th event of the kind."""
        with self._new:
            if not self._new.wait_for(lambda: len(self.of(kind)) >= number, timeout_s):
                raise TimeoutError(f"no {kind.__name__} number {number} within {timeout_s} s: {self.events}")
            return self.of(kind)[number - 1]


class Clock:
    """Stands still until it is set forward."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Eager(random.Random):
    """Takes all the jitter off, down to no wait at all."""

    def uniform(self, a: float, b: float) -> float:
        return 0.0


@contextmanager
def driving(master: str, sink: Callable[[Event], None] | None = None, **options: Any) -> Iterator[tuple[Driver, Heard]]:
    """A started driver that does not wait before it connects again."""
    heard = Heard()
    defaults: dict[str, Any] = {"framework": FRAMEWORK, "call_timeout_s": 5.0, "rng": Eager()}
    driver = Driver(master=master, sink=sink or heard, **(defaults | options))
    driver.start()
    try:
        yield driver, heard
    finally:
        driver.stop()


def connected(driver: Driver) -> None:
    eventually(lambda: driver.connected, what="the driver is connected")
