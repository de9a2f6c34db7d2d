"""The names that volumes are attached under, /dev/xvdaa to /dev/xvddx: EC2 wants one, and only Xen machines show it.

These are free of what images and people use. A name is guessed from the volume, past those that this process has given; EC2
refuses one that is in use, and only then the instance is looked at. So a thousand attachments need no look at instances.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from string import ascii_lowercase
from typing import Final
from zlib import crc32

from storage.errors import NoSlot

NAMES: Final = tuple(f"/dev/xvd{first}{second}" for first in "abcd" for second in ascii_lowercase if f"{first}{second}" <= "dx")


class DeviceNames:
    """What this process has given, until it is given back: all methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given: dict[str, dict[str, str]] = {}
        """Node to name to volume."""

    def take(self, platform: str, node: str, volume_id: str, in_use: Collection[str] = ()) -> str:
        """A name that should be free on this node; another one than before if that is `in_use`. Raises NoSlot.

        Where the search starts depends on the volume, so that processes that know nothing of each other rarely meet.
        """
        with self._lock:
            given = self._given.setdefault(node, {})
            start = crc32(volume_id.encode()) % len(NAMES)
            for name in NAMES[start:] + NAMES[:start]:
                if name not in in_use and given.get(name, volume_id) == volume_id:
                    given[name] = volume_id
                    return name
        raise NoSlot(node=node, slots=len(NAMES), platform=platform)

    def give_back(self, node: str, volume_id: str) -> None:
        """The volume is not attached there any more, or never was. Given back already is fine."""
        with self._lock:
            left = {name: volume for name, volume in self._given.pop(node, {}).items() if volume != volume_id}
            if left:
                self._given[node] = left
