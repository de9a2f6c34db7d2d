"""Who keeps a mount busy: found in /proc, for a person to read. What it misses it does not hide: the kernel still says busy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

HOLDERS_NAMED: Final = 8


def holders(target: str, proc: Path = Path("/proc")) -> list[str]:
    """Which processes work in `target` or have a file of it open, as `123 (postgres)`; the first few that can be seen."""
    found: list[str] = []
    for pid in sorted((name for name in os.listdir(proc) if name.isdigit()), key=int):
        if len(found) < HOLDERS_NAMED and any(is_under(place, target) for place in _places(proc / pid)):
            found.append(f"{pid} ({_name_of(proc / pid)})")
    return found


def is_under(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def _places(process: Path) -> Iterator[str]:
    """Where a process is, and what it has open."""
    descriptors = []
    with suppress(OSError):
        descriptors = os.listdir(process / "fd")
    for place in ("cwd", "root", "exe", *(f"fd/{number}" for number in descriptors)):
        with suppress(OSError):
            yield os.readlink(process / place)
    with suppress(OSError):
        for line in (process / "maps").read_text(errors="surrogateescape").splitlines():
            yield line.partition("/")[1] + line.partition("/")[2]


def _name_of(process: Path) -> str:
    with suppress(OSError):
        return (process / "comm").read_text(errors="replace").strip()
    return "?"
