"""Waiting for what the kernel or another process does in a moment: the one place where this platform polls."""

from __future__ import annotations

import time
from collections.abc import Callable

_SHORTEST_S = 0.0005
_LONGEST_S = 0.05


def soon(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Asks until the answer is true, at growing intervals; False when `timeout_s` seconds are over."""
    deadline, pause_s = time.monotonic() + timeout_s, _SHORTEST_S
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_S)
    return True
