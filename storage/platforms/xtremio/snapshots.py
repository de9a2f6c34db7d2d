"""Snapshots, and volumes that are copies of one or of another volume: on the array all three are volumes.

A copy is made in two steps, for the array names it after its origin and it is renamed then: what waits for its name is taken up.
"""

from __future__ import annotations

from dataclasses import dataclass

from storage.errors import Invalid, UnknownSnapshot, UnknownVolume
from storage.model import ExternalId, Page
from storage.platforms import parts
from storage.platforms.base import SnapshotReport
from storage.platforms.restapi import Answer
from storage.platforms.xtremio import naming
from storage.platforms.xtremio.volumes import Volumes, mib_of, name_of
from storage.platforms.xtremio.xms import NotThere, Refused, named


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshots:
    volumes: Volumes

    # --- the verbs --------------------------------------------------------------------------------------------------

    def page(self, *, after: str | None, limit: int) -> Page[SnapshotReport]:
        found = {name_of(volume): volume for volume in self.volumes.all() if naming.is_snapshot(name_of(volume))}
        names, last = parts.cut(found, after, limit)
        return Page(items=[_report(found[name]) for name in names], after=last)

    def take(self, external_id: ExternalId, token: str) -> SnapshotReport:
        """One that is there, or begun, is the token's also where its volume is gone by now."""
        wanted = naming.snapshot_name(token)
        begun = naming.begun_name(naming.name_in(external_id), wanted)
        if self.volumes.named(wanted) is None:
            try:
                source = self.volumes.known(external_id)
            except UnknownVolume:
                if not begun.isprintable() or self.volumes.named(begun) is None:
                    raise
                self._name(begun, wanted)
            else:
                self._copy(name_of(source), wanted, "readonly", mib_of(source))
        return _report(self.volumes.xms.get("volumes", wanted, action="look at a snapshot"))

    def delete(self, snapshot: ExternalId) -> None:
        """Gone already is fine."""
        if naming.is_snapshot(snapshot) and self.volumes.named(snapshot) is not None:
            self.volumes.discard(snapshot)

    # --- volumes with what is there -----------------------------------------------------------------------------------

    def restorable(self, snapshot: ExternalId, size_mib: int) -> str:
        """The name of a snapshot that a volume of this size can begin with. Raises UnknownSnapshot, Invalid."""
        found = self.volumes.named(snapshot) if naming.is_snapshot(snapshot) else None
        if found is None:
            raise UnknownSnapshot(snapshot=snapshot)
        if size_mib < mib_of(found):
            raise Invalid(field="size_mib", value=size_mib, reason=f"snapshot {snapshot} has {mib_of(found)} MiB")
        return name_of(found)

    def copy(self, origin: str, name: str, size_mib: int) -> None:
        """A writable copy of the volume or snapshot of this name; `size_mib` is for the error. Raises PoolFull."""
        self._copy(origin, name, "regular", size_mib)

    def _copy(self, source: str, name: str, kind: str, size_mib: int) -> None:
        values = {"volume-list": [source], "snapshot-set-name": f"{name}-set", "snap-suffix": name, "snapshot-type": kind}
        try:
            self.volumes.xms.create("snapshots", values, action="copy a volume")
        except Refused as error:
            if "not_unique" not in error.words:
                raise self.volumes.full(error, size_mib) from error
        self._name(naming.begun_name(source, name), name)

    def _name(self, begun: str, name: str) -> None:
        try:
            self.volumes.xms.change("volumes", begun, {"vol-name": name}, action="name a copy")
        except NotThere:
            if self.volumes.named(name) is None:  # otherwise somebody with the same token has named it in the same moment
                raise
        except Refused as error:
            if "not_unique" not in error.words:
                raise
            self.volumes.discard(begun)  # somebody with the same token has named another


def _report(volume: Answer) -> SnapshotReport:
    origin = naming.volume_id(named(volume, "ancestor-vol-id"), str(volume["ancestor-vol-id"][0])) if volume.get("ancestor-vol-id") else ""
    return SnapshotReport(
        external_id=ExternalId(name_of(volume)),
        volume=ExternalId(origin),
        size_mib=mib_of(volume),
        token=naming.token_of_snapshot(name_of(volume)),
    )
