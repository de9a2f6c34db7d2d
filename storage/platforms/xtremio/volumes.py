"""The array's volumes, as the adapter asks for them: a snapshot is one as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from storage.errors import PollyError, PoolFull, UnknownVolume
from storage.model import ExternalId
from storage.platforms.restapi import Answer
from storage.platforms.xtremio import naming
from storage.platforms.xtremio.xms import NotThere, Refused, Xms, named

GIB: Final = 1024
NAA: Final = "naa."
LIMITS: Final = ("too_many_objs", "too_many_snapshots_per_vol")
PROPS: Final = ("name", "vol-id", "vol-size", "naa-name", "ancestor-vol-id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Volumes:
    """Raises PlatformUnavailable and Refused beside what it says."""

    xms: Xms
    platform: str

    def all(self) -> list[Answer]:
        return self.xms.all("volumes", props=PROPS)

    def named(self, name: str) -> Answer | None:
        """A volume or a snapshot of this name, a copy that is begun as well."""
        try:
            found = self.xms.get("volumes", name, action="look at a volume")
        except NotThere:
            return None
        if name_of(found) != name:
            raise found.wrong(f"is called {name_of(found)!r} where {name!r} was asked for")
        return found

    def known(self, external_id: ExternalId) -> Answer:
        """Raises UnknownVolume, also where the name is another volume's by now."""
        name = naming.name_in(external_id)
        found = self.named(name) if naming.is_volume(name) else None
        if found is None or id_of(found) != external_id:
            raise UnknownVolume(volume=external_id)
        return found

    def make(self, name: str, size_mib: int) -> None:
        """There already is fine. Raises PoolFull."""
        try:
            self.xms.create("volumes", {"vol-name": name, "vol-size": _written(size_mib)}, action="create a volume")
        except Refused as error:
            if error.words != "vol_obj_name_not_unique":
                raise self.full(error, size_mib) from error

    def resize(self, name: str, size_mib: int) -> None:
        """That large already is fine. Raises UnknownVolume, PoolFull."""
        if self._size_mib(name) < size_mib:
            try:
                self.xms.change("volumes", name, {"vol-size": _written(size_mib)}, action="expand a volume")
            except NotThere as error:
                raise UnknownVolume(volume=name) from error
            except Refused as error:
                if self._size_mib(name) < size_mib:  # otherwise somebody has made it larger in the same moment
                    raise self.full(error, size_mib) from error

    def _size_mib(self, name: str) -> int:
        found = self.named(name)
        if found is None:
            raise UnknownVolume(volume=name)
        return mib_of(found)

    def discard(self, name: str) -> None:
        """Gone already is fine."""
        try:
            self.xms.delete("volumes", name, action="delete a volume")
        except NotThere:
            return

    def full(self, error: Refused, size_mib: int) -> PollyError:
        if error.words in LIMITS:
            return PoolFull(pool=f"{self.xms.cluster} ({error.words})", platform=self.platform, free_mib=0, size_mib=size_mib)
        return error


def name_of(volume: Answer) -> str:
    return str(volume.get("name") or named(volume, "vol-id"))


def id_of(volume: Answer) -> ExternalId:
    name = name_of(volume)
    return naming.volume_id(name, "" if naming.is_ours(name) else str((volume.get("vol-id") or [""])[0]))


def mib_of(found: Answer, key: str = "vol-size") -> int:
    """The XMS writes sizes in KiB, as text. A part of a MiB that is there is not promised."""
    return found.whole(key) // 1024


def serial_of(volume: Answer) -> str:
    """As Linux writes it; a volume that was never mapped has none yet, and its name stands for it."""
    naa = str(volume.get("naa-name") or "").lower()
    return f"{NAA}{naa}" if naa else name_of(volume)


def _written(size_mib: int) -> str:
    return f"{size_mib // GIB}g"
