"""Clones: a snapshot for this one copy, which is ended as soon as the copy has its data.

Its name is made of the token, so whoever goes on with a copy that was cut off finds the snapshot that it was begun from, and the
moment stays the same. It is none of the snapshots that Polly reports. One that is not linked may be ended by anybody: who would
have gone on with it takes another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from storage.errors import PlatformUnavailable, PoolFull, UnknownVolume, VolumeInUse
from storage.platforms.powermax import naming
from storage.platforms.powermax.copying import Copies, Snapshot
from storage.platforms.powermax.unisphere import NotThere, Refused
from storage.platforms.powermax.volumes import Volume, Volumes

TRIES: Final = 5
"""How often the snapshot of a clone may be taken away before it is linked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clones:
    copies: Copies
    volumes: Volumes
    platform: str

    def make(self, source: Volume, token: str, name: str, *, srp: str, level: str) -> Volume:
        """A volume of this name with what the source holds. Raises UnknownVolume, PoolFull, Refused."""
        before = self._left(source.device, token)
        try:
            made = self._copied(source, token, name, srp=srp, level=level)
        except (Refused, PoolFull):
            self.tidy(source.device, token)
            raise
        self.tidy(source.device, token)
        self._sweep([one for one in self._left(source.device, token) if one in before])
        return made

    def _copied(self, source: Volume, token: str, name: str, *, srp: str, level: str) -> Volume:
        for _ in range(TRIES):
            try:
                return self.copies.make(self._snapshot(source, token), name, source.size_mib, srp=srp, level=level)
            except NotThere:
                if done := self.volumes.choose(self.volumes.named(name)):  # another with the same token has ended the snapshot
                    return done
            self._make_sure_of(source)
        reason = f"the snapshot {naming.clone_name(token)} was taken away {TRIES} times"
        raise PlatformUnavailable(platform=self.platform, action="clone a volume", reason=reason)

    def _make_sure_of(self, source: Volume) -> None:
        try:
            now = self.volumes.get(source.device)
        except NotThere as error:
            raise UnknownVolume(volume=source.id) from error
        if now.id != source.id:
            raise UnknownVolume(volume=source.id)

    def _left(self, device: str, token: str) -> list[Snapshot]:
        """The snapshots of other clones: of such as are being made, and of such as were cut off."""
        with contextlib.suppress(NotThere):
            return [one for one in self.copies.of(device) if naming.is_clone(one.name) and one.name != naming.clone_name(token)]
        return []

    def _sweep(self, left: Sequence[Snapshot]) -> None:
        """What was there for as long as a whole clone takes."""
        for one in left:
            with contextlib.suppress(Refused):  # it is linked
                self.copies.end(one)

    def _snapshot(self, source: Volume, token: str) -> Snapshot:
        called = naming.clone_name(token)
        if not self._called(source.device, called):
            self.copies.take(source.device, called)
        found = self._called(source.device, called)
        if not found:
            reason = f"the array says that it made the snapshot {called}, and does not show it"
            raise Refused(platform=self.platform, action="clone a volume", reason=reason)
        return found[0]

    def _called(self, device: str, name: str) -> list[Snapshot]:
        return [one for one in self.copies.of(device) if one.name == name]

    def tidy(self, device: str, token: str) -> None:
        """Ends the snapshot of a clone that has its data; one that another still copies from is theirs to end."""
        with contextlib.suppress(Refused):
            for one in self._called(device, naming.clone_name(token)):
                self.copies.end(one)

    def other_snapshots(self, volume: Volume) -> Sequence[str]:
        """The snapshots of a volume without those that a clone was cut off from: these go. Raises VolumeInUse while one is copied from."""
        found = self.copies.of(volume.device)
        for one in found:
            if naming.is_clone(one.name):
                try:
                    self.copies.end(one)
                except Refused as error:
                    raise VolumeInUse(volume=volume.id, holder=f"a clone that is being made of it ({one.name})") from error
        return [one.name for one in found if not naming.is_clone(one.name)]
