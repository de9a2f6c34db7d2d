"""What SDKs say of a network that failed, as an operator reads it: without the names of their classes, pools and retries."""

from __future__ import annotations

import re
from typing import Final

SYSTEMS: Final = re.compile(r"\[(?:Errno -?\d+|SSL: \w+)\] [^'\")(]+")
"""The operating system's own words, or the TLS library's, within those of whoever passed them on."""


def in_brief(error: Exception) -> str:
    """The system's own words where an error holds them; all of it, in one line, where it does not."""
    found = SYSTEMS.search(str(error))
    return found[0].strip() if found else " ".join(str(error).split())
