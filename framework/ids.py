"""New ids: UUIDs that sort by their age (RFC 9562, version 7), so that the ledger's indexes grow at their ends."""

from __future__ import annotations

import os
import time

_VARIANT = "89ab"
_AT_ONCE = 256
_chances: list[str] = []
"""Random digits for the next ids, asked of the system for many at once. Threads share it: each takes its own from the end."""
os.register_at_fork(after_in_child=_chances.clear)


def new_id() -> str:
    """A new id, such as `0198c2f0-7d3a-7c21-9f04-5b6e7a8c9d10`."""
    at = f"{time.time_ns() // 1_000_000:012x}"
    tail = _chance()
    return f"{at[:8]}-{at[8:]}-7{tail[:3]}-{_VARIANT[int(tail[18], 16) & 3]}{tail[3:6]}-{tail[6:18]}"


def _chance() -> str:
    try:
        return _chances.pop()
    except IndexError:
        digits = os.urandom(10 * _AT_ONCE).hex()
        _chances.extend([digits[start : start + 20] for start in range(20, len(digits), 20)])
        return digits[:20]
