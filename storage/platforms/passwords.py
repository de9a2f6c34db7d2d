"""What `polly doctor` says of a file that holds a password: whether others than its owner may read or change it."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from storage.platforms.base import Finding

OTHERS: Final = (stat.S_IRWXG | stat.S_IRWXO) & ~stat.S_IRGRP
"""Its group may read it: a broker that is not root may be in it."""


def exposed(file: str) -> Iterator[Finding]:
    """Nothing of a file that is not there; the login says so."""
    try:
        is_open = bool(file) and bool(Path(file).stat().st_mode & OTHERS)
    except OSError:
        return
    if is_open:
        yield Finding(ok=False, subject=file, message="others may read or change the password's file", mend=f"chmod 600 {file}")
