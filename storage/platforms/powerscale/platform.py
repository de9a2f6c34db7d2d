"""The adapter of PowerScale: an access zone is a pool, a folder with a hard quota a volume, an export to a node an attachment."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from storage.errors import Invalid, PoolFull, UnknownPool, UnknownSnapshot, UnknownVolume
from storage.model import AccessMode, Birth, ExternalId, Page
from storage.platforms import cloning, parts
from storage.platforms.base import Attachment, Capabilities, CreateRequest, Finding, Platform, PoolReport, SnapshotReport, VolumeReport
from storage.platforms.options import write_options
from storage.platforms.pacing import TokenBucket
from storage.platforms.powerscale import doctor, naming
from storage.platforms.powerscale.attaching import Attachments
from storage.platforms.powerscale.exports import Exports, ExportTable, Home
from storage.platforms.powerscale.folders import Folders
from storage.platforms.powerscale.growing import Growth
from storage.platforms.powerscale.onefs import Full, NotThere, OneFs, verb
from storage.platforms.powerscale.options import PowerScaleOptions, is_mode
from storage.platforms.powerscale.snapshots import Snapshot, Snapshots
from storage.platforms.powerscale.volumes import Volume, Volumes
from storage.platforms.restapi import RestApi, Timing

PARALLEL: Final = 8
CALLS_PER_S, BURST = 50.0, 50
LISTING_S: Final = 15.0
"""How old the list may be that a walk through its parts goes on with."""
ABILITIES: Final = Capabilities(
    snapshots=True,
    snapshot_attached=True,
    snapshots_outlive=True,
    restores=True,
    clones=True,
    clone_attached=True,
    expand_attached=True,
    expand_detached=True,
    fences=True,
    marks=True,
    labels=False,
    access_modes=frozenset(AccessMode),
    device="nfs",
    identity="address",
    parallel=PARALLEL,
)
PARAMETERS: Final = ("mode", "shared")
MANY_WRITE: Final = frozenset({AccessMode.MULTI_NODE_SINGLE_WRITER, AccessMode.MULTI_NODE_MULTI_WRITER})


class PowerScalePlatform(Platform):
    Options = PowerScaleOptions

    def __init__(
        self,
        name: str,
        options: PowerScaleOptions,
        *,
        now: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._name, self._options, self._now = name, options, now
        bucket = TokenBucket(CALLS_PER_S, BURST, now=now, wait=wait, chance=chance)
        self._onefs = OneFs(RestApi(name, options, Timing(bucket=bucket, wait=wait, parallel=PARALLEL)), wait)
        base = options.base_path.rstrip("/")
        self._volumes, self._folders = Volumes(self._onefs, options, wait), Folders(self._onefs, base, chance)
        self._snapshots, self._table = Snapshots(self._onefs, base), ExportTable(self._onefs, options.access_zone)
        self._attachments = Attachments(self._table, name, wait, chance)
        self._growth = Growth(self._volumes, self._table, self._attachments, name)
        self._lock = threading.Lock()
        self._listed: tuple[float, list[VolumeReport]] | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        return ABILITIES

    def settings(self) -> Mapping[str, str]:
        return write_options(self._options)

    # --- pools and lists ------------------------------------------------------------------------------

    @verb("look at its capacity")
    def pools(self) -> Sequence[PoolReport]:
        """Quotas promise room and take none: how much may be promised is the operator's to say, by `overcommit`."""
        space = self._volumes.space()
        foreign_mib = space.used_mib - sum(volume.used_bytes for volume in self._volumes.all()) // (1 << 20)
        return [
            PoolReport(
                name=self._options.access_zone,
                capacity_mib=space.capacity_mib,
                foreign_mib=max(0, min(space.capacity_mib, foreign_mib)),
                region=self._options.region,
                zone=self._options.zone,
            )
        ]

    @verb("list its volumes")
    def volumes(self, *, after: str | None = None, limit: int = 1000) -> Page[VolumeReport]:
        listed = {str(report.external_id): report for report in self._all(anew=after is None)}
        keys, last = parts.cut(listed, after, limit)
        return Page(items=[listed[key] for key in keys], after=last)

    def _all(self, *, anew: bool) -> list[VolumeReport]:
        with self._lock:
            if anew or self._listed is None or self._now() - self._listed[0] > LISTING_S:
                exports = self._table.by_path()
                seen = [(volume, exports.get(volume.path, Exports())) for volume in self._volumes.all()]
                self._listed = self._now(), [self._report(volume, found) for volume, found in seen if not found.closing]
            return self._listed[1]

    def _report(self, volume: Volume, exports: Exports) -> VolumeReport:
        return VolumeReport(
            external_id=ExternalId(volume.name),
            pool=self._options.access_zone,
            size_mib=volume.size_mib,
            serial=volume.name,
            token=naming.token_of_volume(volume.name),
            epoch=exports.kept.epoch,
            birth=exports.kept.certificate(volume.name),
            held_by=exports.held_by,
            zone=self._options.zone,
        )

    @verb("look at a volume")
    def inspect(self, external_id: ExternalId) -> VolumeReport:
        volume = self._known(external_id)
        exports = self._table.of(volume.path)
        if exports.closing:
            raise UnknownVolume(volume=external_id)
        return self._report(volume, exports)

    def _known(self, external_id: ExternalId) -> Volume:
        volume = self._volumes.get(external_id)
        if volume is None:
            raise UnknownVolume(volume=external_id)
        return volume

    @verb("look for a volume")
    def find(self, token: str) -> VolumeReport | None:
        """One that is begun, and has no quota yet, or whose delete is, has no size; it is shown so that it can be deleted."""
        try:
            name = naming.volume_name(token)
        except Invalid:
            return None
        try:
            return self.inspect(ExternalId(name))
        except UnknownVolume:
            path = self._volumes.path(name)
            if not (self._table.of(path).closing or self._folders.is_begun(name, path) or self._snapshots.is_for_clone(token)):
                return None
        return self._report(Volume(name=name, path=path, quota="", hard_bytes=0, used_bytes=0, is_ready=False), Exports())

    # --- create, delete, expand -----------------------------------------------------------------------

    def check_parameters(self, parameters: Mapping[str, str], *, pool: str | None = None) -> None:
        for key, value in parameters.items():
            reason = f"the parameters are {', '.join(PARAMETERS)}" if key not in PARAMETERS else ""
            if key == "shared" and value not in ("true", "false"):
                reason = "it must be true or false"
            elif key == "mode":
                reason = is_mode(value)
            if reason:
                raise Invalid(field=f"parameters.{key}", value=value, reason=reason)

    def access_modes(self, parameters: Mapping[str, str]) -> frozenset[AccessMode]:
        return ABILITIES.access_modes if _is_shared(parameters) else ABILITIES.access_modes - MANY_WRITE

    @verb("create a volume")
    def create(self, request: CreateRequest) -> VolumeReport:
        """A folder, then its quota, then its home; whoever repeats it goes on where it was left."""
        if request.pool != self._options.access_zone:
            raise UnknownPool(pool=request.pool, platform=self._name)
        self.check_parameters(request.parameters)
        home, mode = Home(shared=_is_shared(request.parameters)), request.parameters.get("mode", "")
        name, size_mib = naming.volume_name(request.token), ABILITIES.fit(request.size_mib)
        try:
            volume = self._volumes.get(name) or self._make(request, name, size_mib, mode)
            if request.source is not None:
                self._snapshots.end_clone(request.token)
            volume = self._volumes.counted(volume)
            return self._report(volume, self._at_home(volume, home))
        except Full as error:
            raise self._full(size_mib, error) from error

    def _at_home(self, volume: Volume, home: Home) -> Exports:
        """One that finds no room for its export is not left behind."""
        exports = self._table.of(volume.path)
        if exports.homes:
            return exports
        try:
            self._table.make_home(volume.path, home)
        except Full:
            if not self._table.of(volume.path).homes:
                self.delete(ExternalId(volume.name))
            raise
        return self._table.of(volume.path)

    def _make(self, request: CreateRequest, name: str, size_mib: int, mode: str) -> Volume:
        if request.source is not None:
            return self._clone(request, self.inspect(request.source), name, size_mib)
        snapshot = self._copyable(request.snapshot, size_mib) if request.snapshot is not None else None
        self._make_sure_of_room(size_mib)
        if snapshot is None:
            self._volumes.make_folder(name, mode=mode)
        else:
            try:
                self._folders.copy(snapshot.name, snapshot.path, name, self._volumes.path(name))
            except NotThere as error:
                if self._snapshots.get(snapshot.name) is None:
                    raise UnknownSnapshot(snapshot=snapshot.name) from error
                raise
        self._volumes.limit(name, size_mib)
        return self._known(ExternalId(name))

    def _clone(self, request: CreateRequest, source: VolumeReport, name: str, size_mib: int) -> Volume:
        """Copied from a snapshot of its own, so that it is of one moment."""
        cloning.check(request, source, size_mib)
        self._make_sure_of_room(size_mib)
        path = self._volumes.path(source.external_id)
        try:
            snapshot = self._snapshots.take_for_clone(path, request.token)
            self._folders.copy(snapshot, path, name, self._volumes.path(name))
        except NotThere as error:
            if made := self._volumes.get(name):  # another with the same token was first, and has ended the snapshot
                return made
            raise UnknownVolume(volume=source.external_id) from error
        except Full:
            self._snapshots.end_clone(request.token)
            raise
        self._volumes.limit(name, size_mib)
        return self._known(ExternalId(name))

    def _copyable(self, wanted: ExternalId, size_mib: int) -> Snapshot:
        snapshot = self._snapshots.get(wanted)
        if snapshot is None:
            raise UnknownSnapshot(snapshot=wanted)
        if size_mib < snapshot.size_mib:
            raise Invalid(field="size_mib", value=size_mib, reason=f"snapshot {wanted} has {snapshot.size_mib} MiB")
        return snapshot

    def _make_sure_of_room(self, more_mib: int) -> None:
        """A new volume fits into what is free now; OneFS itself would take quotas of any size."""
        free_mib = self._volumes.space().free_mib
        if more_mib > free_mib:
            raise PoolFull(pool=self._options.access_zone, platform=self._name, free_mib=free_mib, size_mib=more_mib)

    def _full(self, size_mib: int, error: Full) -> PoolFull:
        free_mib, reason = self._volumes.space().free_mib, error.reason
        pool = f"{self._options.access_zone} ({reason})"
        return PoolFull(pool=pool, platform=self._name, free_mib=free_mib, size_mib=size_mib, reason=reason)

    @verb("delete a volume")
    def delete(self, external_id: ExternalId) -> None:
        """Closed to all, without quota, moved out of the way, and then removed by a job of OneFS' own. What says that it is closed goes
        last: until then it is found by its token."""
        if not naming.is_id(external_id):
            return
        volume, path = self._volumes.get(external_id), self._volumes.path(external_id)
        had_home = self._attachments.close(external_id, path)
        if volume is not None:
            self._volumes.unlimit(volume)
        if volume is not None or had_home or naming.token_of_volume(external_id):
            self._folders.bin(external_id, path)
        self._folders.empty(external_id)
        if token := naming.token_of_volume(external_id):
            self._snapshots.end_clone(token)
        if had_home:
            self._attachments.forget(path)

    @verb("expand a volume")
    def expand(self, external_id: ExternalId, size_mib: int) -> VolumeReport:
        volume, wanted_mib = self._known(external_id), ABILITIES.fit(size_mib)
        if wanted_mib < volume.size_mib:
            reason = f"volume {external_id} has {volume.size_mib} MiB, and volumes never shrink"
            raise Invalid(field="size_mib", value=size_mib, reason=reason)
        if wanted_mib > volume.size_mib:
            self._make_sure_of_room(wanted_mib - volume.size_mib)
            self._growth.grow(volume, wanted_mib)
        return self.inspect(external_id)

    # --- attaching --------------------------------------------------------------------------------------

    @verb("attach a volume")
    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        volume = self._known(external_id)
        grown_mib = self._attachments.attach(volume, node, epoch=epoch, read_only=read_only)
        if grown_mib > volume.size_mib:
            self._growth.grow(volume, grown_mib)
        device = f"{self._options.server}:{volume.path}"
        return Attachment(external_id=external_id, device=device, serial=volume.name, read_only=read_only)

    @verb("detach a volume")
    def detach(self, external_id: ExternalId, node: str) -> None:
        if naming.is_id(external_id):
            self._attachments.detach(self._volumes.path(external_id), node)

    @verb("fence a volume")
    def fence(self, external_id: ExternalId, epoch: int) -> str | None:
        return self._attachments.fence(self._known(external_id), epoch)

    @verb("store a birth certificate")
    def record_birth(self, external_id: ExternalId, birth: Birth, *, epoch: int) -> None:
        self._attachments.record_birth(self._known(external_id), birth, epoch=epoch)

    # --- snapshots ----------------------------------------------------------------------------------------

    @verb("list its snapshots")
    def snapshots(self, *, after: str | None = None, limit: int = 1000) -> Page[SnapshotReport]:
        listed = {one.name: one for one in self._snapshots.all()}
        keys, last = parts.cut(listed, after, limit)
        return Page(items=[_reported(listed[key]) for key in keys], after=last)

    @verb("snapshot a volume")
    def snapshot(self, external_id: ExternalId, *, token: str, name: str = "") -> SnapshotReport:
        """All of the folder at one moment, also of one in use: what a crash of its nodes at that moment would have left."""
        volume = self._volumes.get(external_id)
        if volume is None:
            if made := self._snapshots.made(self._volumes.path(external_id), token):  # before its volume went
                return _reported(made)
            raise UnknownVolume(volume=external_id)
        try:
            return _reported(self._snapshots.take(volume.path, token, volume.size_mib))
        except NotThere as error:
            raise UnknownVolume(volume=external_id) from error
        except Full as error:
            raise self._full(volume.size_mib, error) from error

    @verb("delete a snapshot")
    def delete_snapshot(self, snapshot: ExternalId) -> None:
        self._snapshots.delete(snapshot)

    # --- itself -------------------------------------------------------------------------------------------

    def check(self) -> Sequence[Finding]:
        return doctor.check(self._options, self._onefs)

    def close(self) -> None:
        self._onefs.close()


def _is_shared(parameters: Mapping[str, str]) -> bool:
    return parameters.get("shared") == "true"


def _reported(snapshot: Snapshot) -> SnapshotReport:
    return SnapshotReport(
        external_id=ExternalId(snapshot.name),
        volume=ExternalId(snapshot.path.rpartition("/")[2]),
        size_mib=snapshot.size_mib,
        token=snapshot.token,
        created_at=snapshot.created_at,
    )
