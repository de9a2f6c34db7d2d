"""Snapshots: global, outlive their disk, and are found by a name that is made of their token."""

from __future__ import annotations

from typing import Any, Final

from storage.errors import Conflict, Invalid, PlatformError, UnknownSnapshot, UnknownVolume
from storage.model import ExternalId, Page
from storage.platforms.base import SnapshotReport
from storage.platforms.gce import tags
from storage.platforms.gce.api import Api
from storage.platforms.gce.attachments import Attachments
from storage.platforms.gce.failures import GONE, TAKEN, Fault
from storage.platforms.gce.names import NAME, place_of_link, snapshot_name
from storage.platforms.gce.options import GceOptions
from storage.platforms.gce.records import place_of, snapshot_report

COMING: Final = frozenset({"CREATING", "UPLOADING"})
LEAVING: Final = frozenset({"DELETING"})


class Snapshots:
    def __init__(self, name: str, options: GceOptions, api: Api, attachments: Attachments) -> None:
        self._name, self._options, self._api, self._attachments = name, options, api, attachments

    def page(self, after: str | None, limit: int) -> Page[SnapshotReport]:
        """Those of disks in this platform's zones; the project may have others."""
        found, token = self._api.snapshots(page_token=after or "", most=limit)
        items = [snapshot_report(one) for one in found if one.status not in LEAVING and self._is_here(one)]
        return Page(items=items, after=token or None)

    def _is_here(self, snapshot: Any) -> bool:
        source = place_of_link(snapshot.source_disk)
        return source is not None and source.zone in self._options.zones

    def make(self, external_id: ExternalId, *, token: str, name: str) -> SnapshotReport:
        made = self._api.snapshot(snapshot_name(token))
        if made is None:
            disk = self._attachments.ready(external_id)
            story = tags.write_story(tags.Story(token=token, name=name, volume=external_id))
            try:
                self._api.create_snapshot(place_of(disk), name=snapshot_name(token), description=story, labels={tags.OURS: "snapshot"})
            except Fault as fault:
                if fault.code in GONE:
                    raise UnknownVolume(volume=external_id) from fault
                if fault.code not in TAKEN:
                    raise
        return self._finished(external_id, token)

    def _finished(self, external_id: ExternalId, token: str) -> SnapshotReport:
        """The snapshot of this token once all of it is stored. Raises Conflict for one of that name that is not it."""
        found = self._api.snapshot(snapshot_name(token))
        if found is not None and found.status in COMING:
            found = self._api.settled_snapshot(found.name, COMING)
        if found is None or found.status != "READY":
            state = "gone" if found is None else found.status
            raise PlatformError(platform=self._name, action=f"snapshot volume {external_id}", reason=f"the snapshot is {state}")
        report = snapshot_report(found)
        if report.token != token:
            raise Conflict(what=f"the snapshot {found.name}", expected=f"token {token}", found=f"token {report.token or 'none'}")
        return report

    def delete(self, snapshot: ExternalId) -> None:
        found = self._api.snapshot(snapshot) if NAME.fullmatch(snapshot) else None
        if found is None:
            return
        try:
            self._api.delete_snapshot(found.name)
        except Fault as fault:
            if fault.code not in GONE:
                raise

    def source(self, snapshot: ExternalId, size_mib: int) -> str:
        """The snapshot as the source of a new disk of this size. Raises UnknownSnapshot, Invalid for a smaller one."""
        found = self._api.snapshot(snapshot) if NAME.fullmatch(snapshot) else None
        if found is not None and found.status in COMING:
            found = self._api.settled_snapshot(found.name, COMING)
        if found is None or found.status != "READY":
            raise UnknownSnapshot(snapshot=snapshot)
        least_mib = snapshot_report(found).size_mib
        if size_mib < least_mib:
            raise Invalid(field="size_mib", value=size_mib, reason=f"snapshot {snapshot} has {least_mib} MiB")
        return f"projects/{self._options.project}/global/snapshots/{found.name}"
