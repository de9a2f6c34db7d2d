"""Calls at the API's pace: again when it refuses for the rate or the network fails, and one look at operations for all who wait.

A call that changes something carries a request id, so Google does it once however often it is sent.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

from storage.platforms.gce.failures import Fault, fault_of, operation_fault
from storage.platforms.pacing import Poller, TokenBucket

TRIES: Final = 4
"""How often a call is made that the network or Google's servers fail."""
LONGEST_S: Final = 10.0
"""How long is waited at most between two tries."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How time passes; tests have their own."""

    now: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random
    look_every_s: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    bucket: TokenBucket
    timeout_s: float
    pace: Pace = field(default_factory=Pace)

    def __call__(self, call: Callable[[], T]) -> T:
        """The call's answer. Raises Fault; one for the rate only when `timeout_s` seconds of waiting did not help."""
        end, tries = self.pace.now() + self.timeout_s, 0
        while True:
            self.bucket.take()
            tries += 1
            try:
                return call()
            except Exception as error:
                fault = fault_of(error)
                if fault is None:
                    raise
                if not self._again(fault, tries, end):
                    raise fault from error
            self.pace.wait(min(LONGEST_S, 0.25 * 2**tries) * (0.5 + self.pace.chance() / 2))

    def _again(self, fault: Fault, tries: int, end: float) -> bool:
        if fault.throttled:
            self.bucket.throttled()
            return self.pace.now() < end
        return fault.passing and tries < TRIES


class Watched(NamedTuple):
    """Something that is waited for: an operation, a disk or a snapshot."""

    kind: str
    zone: str
    """Empty for what is global."""
    name: str


Look = Callable[[str, str, Sequence[str]], dict[str, Any]]
"""What is there of a kind, in a zone, under these names."""


class Watch:
    """Waits for operations and states; everybody of one process who waits shares the looks."""

    def __init__(self, look: Look, *, timeout_s: float, every_s: float) -> None:
        self._look, self._timeout_s = look, timeout_s
        self._poller: Poller[Watched, Any] = Poller(self._looked, every_s=every_s, most=50)

    def _looked(self, keys: Sequence[Watched]) -> dict[Watched, Any]:
        groups: dict[tuple[str, str], list[str]] = {}
        for key in keys:
            groups.setdefault((key.kind, key.zone), []).append(key.name)
        return {
            Watched(kind, zone, name): one for (kind, zone), names in groups.items() for name, one in self._look(kind, zone, names).items()
        }

    def done(self, operation: Any, zone: str) -> None:
        """Waits until the operation is done. Raises Fault for the error in it, or because it goes on for too long."""
        if fault := operation_fault(self.ended(operation, zone)):
            raise fault

    def ended(self, operation: Any, zone: str) -> Any:
        """The operation once it is done, well or not. Raises Fault because it goes on for too long."""
        key = Watched("operations", zone, operation.name)
        ready, seen = _is_done(operation), operation
        if not ready:
            ready, seen = self._poller.until(key, _is_done, timeout_s=self._timeout_s)
        if not ready:
            state = _state(seen) or "not to be seen"
            raise Fault("OPERATION_IN_PROGRESS", f"operation {operation.name} is {state} after {self._timeout_s:g} s")
        return seen

    def settled(self, kind: str, zone: str, name: str, states: frozenset[str]) -> Any:
        """Waits until a disk or snapshot is in none of the passing `states`; returns it, or None once it is gone."""
        ready, seen = self._poller.until(
            Watched(kind, zone, name), lambda one: one is None or one.status not in states, timeout_s=self._timeout_s
        )
        if not ready:
            raise Fault("RESOURCE_NOT_READY", f"{name} is {getattr(seen, 'status', 'gone')} after {self._timeout_s:g} s")
        return seen


def _is_done(operation: Any) -> bool:
    return _state(operation) == "DONE"


def _state(operation: Any) -> str:
    """Empty for one that is not there, or in a state that this version of Google's client does not know."""
    return getattr(operation.status, "name", "") if operation is not None else ""
