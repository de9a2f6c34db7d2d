"""A LUN that a node sees over several paths: each is a disk of its own, and device-mapper may have put a map over them.

Reads sysfs only. What is mounted is the map where there is one; what must go before the LUN is unmapped are all paths.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

MAP: Final = "mpath-"
"""How the uuid of a map begins that dm-multipath has made; others are somebody's volume."""


def map_over(name: str, sys: Path) -> str | None:
    """The multipath map over disk `name`, such as `dm-3`."""
    return next((holder for holder in _listed(sys / "block" / name / "holders") if is_map(holder, sys)), None)


def is_map(name: str, sys: Path) -> bool:
    with suppress(OSError):
        return (sys / "block" / name / "dm" / "uuid").read_text().startswith(MAP)
    return False


def paths_of(name: str, sys: Path) -> list[str]:
    """The disks under map `name`."""
    return _listed(sys / "block" / name / "slaves")


def siblings(name: str, sys: Path) -> list[str]:
    """All disks with the same world-wide name as disk `name`, itself among them; only itself where it has none."""
    wwid = _wwid(sys / "block" / name)
    same = [other for other in _listed(sys / "block") if wwid and _wwid(sys / "block" / other) == wwid]
    return same or [name]


def _wwid(block: Path) -> str:
    with suppress(OSError):
        return (block / "device" / "wwid").read_text().strip()
    return ""


def _listed(folder: Path) -> list[str]:
    with suppress(OSError):
        return sorted(os.listdir(folder))
    return []
