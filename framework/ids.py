"""New ids: UUIDs that sort by their age (RFC 9562, version 7), so that the ledger's indexes grow at their ends."""

from __future__ import annotations

import os
import time

_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
_AT_ONCE = 256
_tails: list[str] = []
"""The parts of the next ids that are random, made for many at once. Threads share it: each takes its own from the end."""
os.register_at_fork(after_in_child=_tails.clear)
_head = (0, "")
"""The latest millisecond, and how the ids of it begin. Threads share it, so both are set at once."""


def new_id() -> str:
    """A new id, such as `0198c2f0-7d3a-7c21-9f04-5b6e7a8c9d10`."""
    global _head
    now_ms = time.time_ns() // 1_000_000
    head_ms, head = _head
    if head_ms != now_ms:
        at = f"{now_ms:012x}"
        head = f"{at[:8]}-{at[8:]}-"
        _head = (now_ms, head)
    try:
        return head + _tails.pop()
    except IndexError:
        return head + _more_tails()


def _more_tails() -> str:
    digits, variant = os.urandom(10 * _AT_ONCE).hex(), _VARIANT
    chances = [digits[start : start + 20] for start in range(0, len(digits), 20)]
    made = [f"7{chance[:3]}-{variant[chance[18]]}{chance[3:6]}-{chance[6:18]}" for chance in chances]
    _tails.extend(made[1:])
    return made[0]
