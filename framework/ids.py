"""New ids: UUIDs that sort by their age (RFC 9562, version 7), so that the ledger's indexes grow at their ends."""

from __future__ import annotations

import os
import time

_VARIANT = "89ab"
_AT_ONCE = 256
_tails: list[str] = []
"""The parts of the next ids that are random, made for many at once. Threads share it: each takes its own from the end."""
os.register_at_fork(after_in_child=_tails.clear)


def new_id() -> str:
    """A new id, such as `0198c2f0-7d3a-7c21-9f04-5b6e7a8c9d10`."""
    at = f"{time.time_ns() // 1_000_000:012x}"
    return f"{at[:8]}-{at[8:]}-{_tail()}"


def _tail() -> str:
    try:
        return _tails.pop()
    except IndexError:
        digits = os.urandom(10 * _AT_ONCE).hex()
        chances = [digits[start : start + 20] for start in range(0, len(digits), 20)]
        made = [f"7{chance[:3]}-{_VARIANT[int(chance[18], 16) & 3]}{chance[3:6]}-{chance[6:18]}" for chance in chances]
        _tails.extend(made[1:])
        return made[0]
