"""Time as the node counts it: the monotonic clock and waiting, passed in, and the deadline of a claim's lease."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from storage.errors import LeaseExpired


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How to read the clock and how to let time pass, both in seconds."""

    now: Callable[[], float] = time.monotonic
    wait: Callable[[float], None] = time.sleep

    def until(self, condition: Callable[[], bool], *, timeout_s: float, every_s: float = 0.5) -> bool:
        """Asks `condition` until it holds or the time is over; asks at least once, and once more at the end."""
        end = self.now() + timeout_s
        while not condition():
            left = end - self.now()
            if left <= 0:
                return False
            self.wait(min(every_s, left))
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """Until when a holder may begin to touch its volumes: a claim's lease, counted here from its receipt, less a margin.

    The margin is what may pass between the broker's commit and the receipt, and what the two clocks may differ by.
    """

    lease_s: float
    margin_s: float = 0.0
    pace: Pace = field(default_factory=Pace)
    received_at: float = 0.0
    """On `pace.now`'s clock. Deadline.of() sets it to now."""

    @classmethod
    def of(cls, lease_s: float, *, margin_s: float = 0.0, pace: Pace | None = None) -> Deadline:
        """A deadline that is counted from now."""
        pace = pace or Pace()
        return cls(lease_s=lease_s, margin_s=margin_s, pace=pace, received_at=pace.now())

    @property
    def left_s(self) -> float:
        """Seconds that are left; never negative."""
        return max(0.0, self.received_at + self.lease_s - self.margin_s - self.pace.now())

    def begin(self, action: str) -> None:
        """Allows `action` to begin, or raises LeaseExpired."""
        if self.left_s <= 0:
            raise LeaseExpired(lease_s=self.lease_s, action=action)
