"""Snapshots as Polly's verbs have them, and volumes that begin with one or with another volume.

How the array takes and links them is in `copying`, how it clones in `cloning`; here is what is refused, and what is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from storage.errors import Invalid, PoolFull, UnknownSnapshot, UnknownVolume
from storage.model import ExternalId, Page
from storage.platforms import parts
from storage.platforms.base import CreateRequest, SnapshotReport
from storage.platforms.powermax import naming
from storage.platforms.powermax.cloning import Clones
from storage.platforms.powermax.copying import Copies, Snapshot, from_session
from storage.platforms.powermax.unisphere import FULL, LOCKS, NotThere, Refused
from storage.platforms.powermax.volumes import Volume, Volumes


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshots:
    copies: Copies
    clones: Clones
    volumes: Volumes
    platform: str
    array: str
    pool_of: Callable[[Volume], str]
    fit: Callable[[int], int]
    """A size in MiB that a volume may have, as Capabilities.fit says."""

    # --- the verbs --------------------------------------------------------------------------------

    def page(self, *, after: str | None, limit: int) -> Page[SnapshotReport]:
        """Others' as well, for a snapshot of Polly's that people have renamed looks like one of theirs."""
        found: dict[str, SnapshotReport] = {}
        for volume in self.volumes.all(anew=after is None):
            for session in map(from_session, volume.sessions):
                if not naming.is_clone(session.name):
                    report = _report(volume, session)
                    found[report.external_id] = report
        ids, last = parts.cut(found, after, limit)
        return Page(items=[found[one] for one in ids], after=last)

    def take(self, volume: Volume, token: str) -> SnapshotReport:
        called = naming.snapshot_name(token)
        with LOCKS.hold(self.array, f"{volume.device}-{called}"):
            if (found := self._taken(volume, called)) is None:
                self._take(volume, called)
                found = self._taken(volume, called)
        if found is None:
            reason = f"the array says that it made {called}, and does not show it"
            raise Refused(platform=self.platform, action="snapshot a volume", reason=reason)
        return _report(volume, found, token=token)

    def _taken(self, volume: Volume, name: str) -> Snapshot | None:
        """The first of this name: who made another in the same moment takes the first for theirs as well."""
        try:
            return next((one for one in self.copies.of(volume.device) if one.name == name), None)
        except NotThere as error:
            raise UnknownVolume(volume=volume.id) from error

    def _take(self, volume: Volume, name: str) -> None:
        try:
            self.copies.take(volume.device, name)
        except NotThere as error:
            raise UnknownVolume(volume=volume.id) from error
        except Refused as error:
            if error.says(FULL):
                reason = str(error.fields["reason"])
                pool = f"{self.pool_of(volume)} ({reason})"
                raise PoolFull(pool=pool, platform=self.platform, free_mib=0, size_mib=volume.size_mib, reason=reason) from error
            raise

    def delete(self, snapshot: ExternalId) -> None:
        """Gone already is fine."""
        if found := self._known(snapshot):
            self.copies.end(found)

    def _known(self, snapshot: ExternalId) -> Snapshot | None:
        parsed = naming.parse_snapshot_id(snapshot)
        return self.copies.get(*parsed) if parsed else None

    # --- volumes with what is there -----------------------------------------------------------------

    def restored(self, source: ExternalId, name: str, size_mib: int, *, srp: str, level: str) -> Volume:
        """A volume of this name from a snapshot, as large as the snapshot's. Raises UnknownSnapshot, Invalid, PoolFull, Refused."""
        made, snapshot = self.volumes.choose(self.volumes.named(name)), self._known(source)
        if made is None:
            if snapshot is None:
                raise UnknownSnapshot(snapshot=source)
            origin_mib = self.fit(self.volumes.get(snapshot.device).size_mib)
            if size_mib < origin_mib:
                raise Invalid(field="size_mib", value=size_mib, reason=f"snapshot {source} has {origin_mib} MiB")
            try:
                made = self.copies.make(snapshot, name, origin_mib, srp=srp, level=level)
            except NotThere as error:
                raise UnknownSnapshot(snapshot=source) from error
            except Refused as error:
                raise self.volumes.full(error, srp, size_mib) from error
        self.copies.sweep(snapshot, name)
        return made

    def cloned(self, request: CreateRequest, name: str, origin: Callable[[], Volume], *, level: str) -> Volume:
        """A volume of this name that is a clone, as large as its source, which `origin` looks at. Raises PoolFull, Refused."""
        made = self.volumes.choose(self.volumes.named(name))
        if made is None:
            source = origin()
            try:
                made = self.clones.make(source, request.token, name, srp=request.pool, level=level)
            except Refused as error:
                raise self.volumes.full(error, request.pool, self.fit(request.size_mib)) from error
        elif parsed := naming.parse_volume_id(request.source or ""):
            self.clones.tidy(parsed[0], request.token)
        self.copies.sweep(None, name)
        return made


def _report(volume: Volume, snapshot: Snapshot, *, token: str = "") -> SnapshotReport:
    return SnapshotReport(
        external_id=naming.snapshot_id(snapshot.device, snapshot.id),
        volume=volume.id,
        size_mib=volume.size_mib,
        token=naming.token_of_snapshot(snapshot.name) or token,
        created_at=snapshot.created_at,
    )
