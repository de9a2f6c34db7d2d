"""Media as volumes: which are in the pools, what is known of each, and how they are found, listed and reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from storage.errors import PlatformError, UnknownVolume
from storage.model import ExternalId, Page
from storage.platforms.base import VolumeReport
from storage.platforms.virtualbox import layout
from storage.platforms.virtualbox.host import Host, Known, Medium
from storage.platforms.virtualbox.layout import Layout, Place, is_volume
from storage.platforms.virtualbox.records import Record, read_record, write_record


class Found(Struct, frozen=True, kw_only=True):
    """A medium of a pool, with what Polly keeps of it."""

    medium: Medium
    place: Place
    record: Record

    @property
    def uuid(self) -> ExternalId:
        return ExternalId(self.medium.uuid)

    @property
    def key(self) -> str:
        return layout.record_key(self.place, self.medium.uuid)


def _is_deleted(record: Record) -> bool:
    return record.deleting


class Media:
    def __init__(self, platform: str, host: Host, places: Layout) -> None:
        self.platform, self.host, self.places = platform, host, places

    def known(self, external_id: str) -> Found:
        """Raises UnknownVolume, and PlatformError for one whose file VirtualBox cannot read."""
        found = self.seek(external_id, is_volume)
        if found is None:
            raise UnknownVolume(volume=external_id)
        if found.medium.fault:
            raise PlatformError(platform=self.platform, action=f"read volume {external_id}", reason=found.medium.fault)
        return found

    def seek(self, external_id: str, wanted: Callable[[Place], bool]) -> Found | None:
        """The medium with this id, if it is in a pool and what is wanted."""
        if not layout.is_uuid(external_id):
            return None
        medium = self.host.look([external_id]).get(external_id)
        if medium is None and self._reopen()[0]:
            medium = self.host.look([external_id]).get(external_id)
        place = self.places.place(medium.location) if medium else None
        if medium is None or place is None or not wanted(place):
            return None
        return self._with_record(medium, place)

    def at(self, location: str) -> Found | None:
        """The medium with this file, whether or not it is in VirtualBox's list; None if it is not there or cannot be read."""
        medium, place = self.host.open(location), self.places.place(location)
        return self._with_record(medium, place) if medium and place and not medium.fault else None

    def find(self, token: str) -> Found | None:
        return next((found for file in self._files(layout.volume_stem(token)) if (found := self.at(file))), None)

    def listed(self) -> Sequence[tuple[Known, Place]]:
        """All media of the pools, by their ids."""
        placed = ((known, self.places.place(known.location)) for known in self.host.media())
        return sorted(((known, place) for known, place in placed if place), key=lambda pair: pair[0].uuid)

    def page(self, wanted: Callable[[Place], bool], after: str | None, limit: int) -> Page[Found]:
        """A part of the pools' media. Those whose file VirtualBox cannot read are left out: looking at one says why."""
        if after is None and (lost := self._reopen()[1]) and self._void(lost, _is_deleted):
            with self.host.locked():
                self.bury()
        ids = [known.uuid for known, place in self.listed() if wanted(place) and known.uuid > (after or "")]
        part = ids[:limit]
        seen = self.host.look(part)
        placed = [(medium, place) for uuid in part if (medium := seen.get(uuid)) and (place := self.places.place(medium.location))]
        texts = self.host.records([layout.record_key(place, medium.uuid) for medium, place in placed])
        items = [self._found(medium, place, texts) for medium, place in placed if not medium.fault and wanted(place)]
        return Page(items=items, after=part[-1] if len(ids) > limit else None)

    def save(self, found: Found, record: Record) -> None:
        """Whoever goes on with a medium does not delete it."""
        kept = replace(record, deleting=False)
        if kept != found.record:
            self.host.write_record(found.key, write_record(kept))

    def bury(self, is_void: Callable[[Record], bool] = _is_deleted) -> None:
        """Takes away those records of media that are gone that died with their makers or deleters. To be called under the lock."""
        for key in self._void(self._reopen()[1], is_void):
            self.host.write_record(key, "")

    def _void(self, lost: Sequence[str], is_void: Callable[[Record], bool]) -> Sequence[str]:
        texts = self.host.records(lost)
        return [key for key, text in texts.items() if is_void(read_record(self.platform, key, text))]

    def report(self, found: Found, *, zone: str = "") -> VolumeReport:
        medium, place, record = found.medium, found.place, found.record
        return VolumeReport(
            external_id=found.uuid,
            pool=place.pool,
            size_mib=medium.size_mib,
            serial=layout.serial(medium.uuid),
            token=place.token,
            name=record.name or ("" if place.token else place.stem),
            epoch=record.mark.epoch,
            birth=record.birth,
            held_by=medium.machines,
            zone=zone,
            labels=record.labels,
        )

    def _with_record(self, medium: Medium, place: Place) -> Found:
        return self._found(medium, place, self.host.records([layout.record_key(place, medium.uuid)]))

    def _found(self, medium: Medium, place: Place, texts: Mapping[str, str]) -> Found:
        key = layout.record_key(place, medium.uuid)
        return Found(medium=medium, place=place, record=read_record(self.platform, key, texts.get(key, "")))

    def _reopen(self) -> tuple[bool, Sequence[str]]:
        """Puts our media back into VirtualBox's list, which somebody has taken them from.

        Returns whether there were any, and the keys of the records that no medium has.
        """
        listed = {layout.record_key(place, known.uuid) for known, place in self.listed()}
        lost = [key for key in self.host.record_keys() if key.startswith(layout.RECORDS) and key not in listed]
        back = [key for key in lost if any(self.host.open(file) for file in self._files(key.removeprefix(layout.RECORDS)))]
        return bool(back), [key for key in lost if key not in back]

    def _files(self, stem: str) -> Sequence[str]:
        """Where a medium of this name would be; one that is known by its id had a name that we did not give."""
        if layout.is_uuid(stem):
            return ()
        return [self.places.file(pool, stem, suffix) for pool in self.places.pools for suffix in layout.suffixes()]
