"""Snapshots: full copies of media that are not attached. VirtualBox's own snapshots are of whole VMs, not of a medium."""

from __future__ import annotations

import time
from collections.abc import Callable

from storage.errors import UnknownSnapshot, Unsupported, VolumeInUse
from storage.model import ExternalId, Page
from storage.platforms.base import SnapshotReport
from storage.platforms.virtualbox import layout
from storage.platforms.virtualbox.attaching import remove
from storage.platforms.virtualbox.making import Making, Plan
from storage.platforms.virtualbox.media import Found, Media
from storage.platforms.virtualbox.records import Record


class Snapshots:
    def __init__(self, media: Media, making: Making, *, clock: Callable[[], float] = time.time) -> None:
        self._media, self._making, self._clock = media, making, clock

    def take(self, external_id: ExternalId, token: str, name: str) -> SnapshotReport:
        """While the copy is made VirtualBox keeps the medium from being written: no VM that has it can be started."""
        origin = self._media.known(external_id)
        stem = layout.snapshot_stem(origin.uuid, token)
        file = self._media.places.file(origin.place.pool, stem, origin.place.suffix)
        if made := self._media.at(file):
            return _report(made)
        if origin.medium.machines:
            reason = "VirtualBox cannot copy a medium in one moment while a VM has it; detach it first"
            raise Unsupported(platform=self._media.platform, action=f"snapshot volume {external_id}", reason=reason)
        size_mib = origin.medium.size_mib
        plan = Plan(
            pool=origin.place.pool, stem=stem, suffix=origin.place.suffix, size_mib=size_mib, origin=origin.uuid, origin_mib=size_mib
        )
        record = Record(name=name, made_at=self._clock())
        return _report(self._making.make(plan, record, there=lambda: self._media.at(file)))

    def known(self, snapshot: ExternalId) -> Found:
        """Raises UnknownSnapshot."""
        if found := self._media.seek(snapshot, layout.is_snapshot):
            return found
        raise UnknownSnapshot(snapshot=snapshot)

    def page(self, after: str | None, limit: int) -> Page[SnapshotReport]:
        page = self._media.page(layout.is_snapshot, after, limit)
        return Page(items=[_report(found) for found in page.items], after=page.after)

    def delete(self, snapshot: ExternalId) -> None:
        with self._media.host.locked():
            found = self._media.seek(snapshot, layout.is_snapshot)
            if found is None:
                self._media.bury()
                return
            if found.medium.machines:
                raise VolumeInUse(volume=snapshot, holder=f"VM {found.medium.machines[0]}")
            remove(self._media, found)


def _report(found: Found) -> SnapshotReport:
    return SnapshotReport(
        external_id=found.uuid,
        volume=ExternalId(found.place.origin),
        size_mib=found.medium.size_mib,
        token=found.place.token,
        created_at=found.record.made_at,
    )
