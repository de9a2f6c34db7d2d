"""The names that volumes are attached under, /dev/xvdaa to /dev/xvddx: EC2 wants one, and only Xen machines show it.

These are free of what images and people use. Which one is free is read from the instance; calls that are under way are kept
apart here, and for what other processes take meanwhile EC2 refuses a name in use, so that the next is tried.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from string import ascii_lowercase
from typing import Final
from zlib import crc32

from storage.errors import NoSlot

NAMES: Final = tuple(f"/dev/xvd{first}{second}" for first in "abcd" for second in ascii_lowercase if f"{first}{second}" <= "dx")


class DeviceNames:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: dict[str, set[str]] = {}

    @contextmanager
    def one(self, platform: str, node: str, volume_id: str, in_use: Collection[str]) -> Iterator[str]:
        """A name that is free on this node, kept for the length of the body. Raises NoSlot.

        Where the search starts depends on the volume, so that processes that know nothing of each other rarely meet.
        """
        with self._lock:
            taken = self._taken.setdefault(node, set())
            start = crc32(volume_id.encode()) % len(NAMES)
            free = [name for name in NAMES[start:] + NAMES[:start] if name not in in_use and name not in taken]
            if not free:
                raise NoSlot(node=node, slots=len(NAMES), platform=platform)
            taken.add(free[0])
        try:
            yield free[0]
        finally:
            with self._lock:
                taken.discard(free[0])
                if not taken:
                    self._taken.pop(node, None)
