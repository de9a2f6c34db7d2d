"""New ids: UUIDs that sort by their age (RFC 9562, version 7), so that the ledger's indexes grow at their ends."""

from __future__ import annotations

import os
import time

_VARIANT = "89ab"


def new_id() -> str:
    """A new id, such as `0198c2f0-7d3a-7c21-9f04-5b6e7a8c9d10`."""
    at = f"{time.time_ns() // 1_000_000:012x}"
    chance = os.urandom(10)
    tail = chance.hex()
    return f"{at[:8]}-{at[8:]}-7{tail[:3]}-{_VARIANT[chance[9] & 3]}{tail[3:6]}-{tail[6:18]}"
