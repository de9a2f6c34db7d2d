"""The broker's clock: it reads like the wall clock of the moment of its making, and no later setting of the machine's clock moves it.

Leases, retries and back-off are waits; with a wall clock that is set back by a day they would last a day.
"""

from __future__ import annotations

import time
from collections.abc import Callable


def steady_clock(
    wall: Callable[[], float] = time.time, elapsed: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
) -> Callable[[], float]:
    """Epoch seconds that only ever grow, at the pace of `elapsed`, which counts while the machine sleeps."""
    offset = wall() - elapsed()
    return lambda: offset + elapsed()
