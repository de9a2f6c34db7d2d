"""How one token makes one volume on an array where names are not unique, whoever makes it at the same time or died making it.

A volume is made under a name for beginners and gets its own name only if, after it was made, no other of either name is seen: of
two makers the later one sees the earlier, so never both go on. One whose maker is gone is taken out of its group before it is
deleted; and who gives a name looks whether the volume is still in its group. So the two never cross.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from storage.errors import Conflict, PlatformUnavailable
from storage.platforms.powermax import naming
from storage.platforms.powermax.unisphere import NotThere, Refused
from storage.platforms.powermax.volumes import Volume, Volumes

TRIES: Final = 40
LONGEST_WAIT_S: Final = 15
PATIENCE: Final = 4
"""How often a volume that another has begun is seen in a row before it counts as left behind."""


class Maker:
    """Raises PlatformUnavailable and Refused beside what it says. `chance` is a part of a second."""

    def __init__(self, volumes: Volumes, platform: str, wait: Callable[[float], None], chance: Callable[[], float]) -> None:
        self._volumes, self._platform, self._wait, self._chance = volumes, platform, wait, chance

    def make(self, name: str, size_mib: int, *, srp: str, level: str) -> Volume:
        """The volume of this name, made unless it is there. Raises PoolFull, and Conflict where several of the name are in use."""
        begun_name = naming.begun_name(name)
        seen: dict[str, int] = {}
        for number in range(TRIES):
            if done := self._volumes.choose(called := self._volumes.named(name)):
                return done
            others = [*self._volumes.named(begun_name), *called]
            seen = {volume.device: seen.get(volume.device, 0) + 1 for volume in others}
            for volume in others:
                if seen[volume.device] > PATIENCE:
                    self._end(volume)
            if not others and (made := self._named(self._volumes.make(begun_name, size_mib, srp=srp, level=level), begun_name, name)):
                return made
            self._wait(self._chance() * min(1 + number, LONGEST_WAIT_S))
        reason = f"others begin to make {name} as well, and do not end"
        raise PlatformUnavailable(platform=self._platform, action="create a volume", reason=reason)

    def _named(self, device: str, begun_name: str, name: str) -> Volume | None:
        """The new volume under its own name; None, and it is gone, if another was seen. Beginners are looked for first, for they rename."""
        begun, done = self._volumes.named(begun_name), self._volumes.named(name)
        mine = next((volume for volume in begun if volume.device == device or (not device and len(begun) == 1)), None)
        if mine is None:
            return None
        if len(begun) > 1 or done:
            self._take_up(mine)
            return None
        try:
            self._volumes.rename(mine.device, name)
            now = self._volumes.get(mine.device)
        except NotThere:
            return None
        return now if now.name == name and now.groups else None

    def _end(self, volume: Volume) -> None:
        """Of one that is in no group somebody has begun the delete; one that has data is for a person to look at."""
        if volume.groups:
            self._take_up(volume)
        elif volume.is_used:
            raise Conflict(what=f"volume {volume.id}", expected="a storage group that it is in", found="none, and data on it")
        else:
            with contextlib.suppress(Refused):
                self._volumes.remove(volume)

    def _take_up(self, volume: Volume) -> None:
        """Deletes what is not to be, unless it gets its name in this very moment: then it goes back where it was.

        Only who took it out of its group goes on, and looks again: its number may be another volume's by now.
        """
        taken = [group for group in volume.groups if self._volumes.take(group, volume.device, "take up a volume")]
        if not taken:
            return
        with contextlib.suppress(Refused):  # somebody else was faster, and the array keeps what is in a group again
            now = self._volumes.get(volume.device)
            if now.name == volume.name:
                self._volumes.remove(now)
            else:
                for group in taken:
                    self._volumes.add(group, volume.device, "take up a volume")
