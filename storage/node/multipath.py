"""A LUN that a node sees over several paths: each is a disk of its own, and device-mapper may have put a map over them.

Reads sysfs only. What is mounted is the map where there is one; what must go before the LUN is unmapped are all paths. A map says of
which LUN it is by its uuid, for as long as it lives; what its paths lead to may change under it.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

MAP: Final = "mpath-"
"""How the uuid of a map begins that dm-multipath has made; others are somebody's volume."""
NAA: Final = re.compile(r"mpath-3([0-9a-f]{16}|[0-9a-f]{32})")
"""The uuid of a map over disks with an NAA name, as all arrays have it: 3 is udev's sign for NAA."""


def map_over(name: str, sys: Path) -> str:
    """The multipath map over disk `name`, such as `dm-3`; empty where there is none."""
    return next((holder for holder in _listed(sys / "block" / name / "holders") if is_map(holder, sys)), "")


def is_map(name: str, sys: Path) -> bool:
    return uuid_of(name, sys).startswith(MAP)


def is_live(name: str, sys: Path) -> bool:
    """Whether the map has a table that is in force, so that it has a size and can be read."""
    return _text(sys / "block" / name / "size") not in ("", "0")


def maps(sys: Path) -> list[str]:
    """All multipath maps of the node."""
    return [name for name in _listed(sys / "block") if name.startswith("dm-") and is_map(name, sys)]


def uuid_of(name: str, sys: Path) -> str:
    return _text(sys / "block" / name / "dm" / "uuid")


def name_of(name: str, sys: Path) -> str:
    """What device-mapper calls `dm-3`: a friendly name, an alias of the operator's, or the WWID."""
    return _text(sys / "block" / name / "dm" / "name")


def wwid_of_map(name: str, sys: Path) -> str:
    """The world-wide name in the map's uuid, as the kernel writes it of a disk; empty where the uuid has another form."""
    found = NAA.fullmatch(uuid_of(name, sys))
    return f"naa.{found[1]}" if found else ""


def paths_of(name: str, sys: Path) -> list[str]:
    """The disks under map `name`."""
    return _listed(sys / "block" / name / "slaves")


def is_path_of(path: str, name: str, sys: Path) -> bool:
    """Whether disk `path` has the world-wide name that map `name` has: one that lies under the map may have become another's."""
    own = wwid(path, sys)
    return bool(own) and _plain(uuid_of(name, sys)).endswith(_plain(own.removeprefix("naa.").removeprefix("t10.")))


def siblings(name: str, sys: Path) -> list[str]:
    """All disks with the same world-wide name as disk `name`, itself among them; only itself where it has none."""
    own = wwid(name, sys)
    same = [other for other in _listed(sys / "block") if own and wwid(other, sys) == own]
    return same or [name]


def wwid(name: str, sys: Path) -> str:
    """The world-wide name that the kernel shows of disk `name`, such as naa.600…; empty where it shows none."""
    return _text(sys / "block" / name / "device" / "wwid")


def _plain(text: str) -> str:
    """Without what udev and the kernel write differently: blanks, underscores, dots."""
    return "".join(letter for letter in text.lower() if letter.isalnum())


def _text(file: Path) -> str:
    with suppress(OSError):
        return file.read_text(errors="replace").strip()
    return ""


def _listed(folder: Path) -> list[str]:
    with suppress(OSError):
        return sorted(os.listdir(folder))
    return []
