"""PowerFlex: volumes that the array's client on each node (the SDC) shows as /dev/sciniX.

An object on the array carries a name and nothing else of ours. So the token is in the name, and the array itself refuses a
second volume of that name; but there is no place for an epoch, a birth certificate or labels, and none is claimed: `marks` and
`fences` are not declared, because a mapping that is gone does not keep an older holder from asking for it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from storage.errors import (
    Invalid,
    PlatformError,
    PoolFull,
    UnknownPool,
    UnknownSnapshot,
    UnknownVolume,
    Unsupported,
    VolumeInUse,
)
from storage.model import AccessMode, ExternalId, Page
from storage.platforms import cloning, parts
from storage.platforms.base import Attachment, Capabilities, CreateRequest, Finding, Platform, PoolReport, SnapshotReport, VolumeReport
from storage.platforms.options import write_options
from storage.platforms.powerflex import doctor, names
from storage.platforms.powerflex.array import Pool, PowerFlexArray
from storage.platforms.powerflex.client import Client
from storage.platforms.powerflex.failures import FULL, GONE, MAPPED, NAME_TAKEN, SHRINKS, Refused, verb
from storage.platforms.powerflex.mapping import Mappings
from storage.platforms.powerflex.objects import KB_PER_MIB, Volume
from storage.platforms.powerflex.options import PowerFlexOptions, read_parameters
from storage.platforms.powerflex.reports import ID, Reports, is_snapshot, may_be_snapshot

SLOTS: Final = 1024
"""Volumes that one SDC may have."""
GRANULE_MIB: Final = 8 * 1024
ABILITIES: Final = Capabilities(
    snapshots=True,
    snapshot_attached=True,
    restores=True,
    clones=True,
    clone_attached=True,
    expand_attached=True,
    expand_detached=True,
    labels=False,
    snapshots_outlive=True,
    access_modes=frozenset({AccessMode.SINGLE_NODE_WRITER, AccessMode.SINGLE_NODE_READER_ONLY, AccessMode.MULTI_NODE_READER_ONLY}),
    min_mib=GRANULE_MIB,
    max_mib=1 << 30,
    granularity_mib=GRANULE_MIB,
    slots_per_node=SLOTS,
    identity="scaleio",
    transports=("scaleio",),
    parallel=8,
)


class PowerFlexPlatform(Platform):
    """One PowerFlex system, through its gateway."""

    Options = PowerFlexOptions

    def __init__(
        self,
        name: str,
        options: PowerFlexOptions,
        *,
        now: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._name, self._options = name, options
        self._array = PowerFlexArray(Client(options, now=now, wait=wait), now=now)
        self._reports = Reports(self._array, options)
        self._mappings = Mappings(name, self._array, self._reports, slots=SLOTS)

    @property
    def name(self) -> str:
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        return ABILITIES

    def settings(self) -> Mapping[str, str]:
        return write_options(self._options)

    # --- looking --------------------------------------------------------------------------------

    @verb("look at its pools")
    def pools(self) -> Sequence[PoolReport]:
        """Reads the list of all volumes as well, for what others have been promised: for now and then, not for each offer."""
        pools = self._array.pools(anew=True).values()
        return self._reports.pools([pool for pool in pools if self._uses(pool) and self._fills(pool)])

    @verb("list its volumes")
    def volumes(self, *, after: str | None = None, limit: int = 1000) -> Page[VolumeReport]:
        found, last = self._part(after, limit, lambda volume: not is_snapshot(volume))
        return Page(items=[self._reports.volume(volume) for volume in found], after=last)

    @verb("look at a volume")
    def inspect(self, external_id: ExternalId) -> VolumeReport:
        return self._reports.volume(self._reports.known(external_id))

    @verb("look for a volume")
    def find(self, token: str) -> VolumeReport | None:
        found = self._array.named(names.name_of(names.VOLUME, token)) if token else None
        return self._reports.volume(found, token=token) if found else None

    def _part(self, after: str | None, limit: int, wanted: Callable[[Volume], bool]) -> tuple[list[Volume], str | None]:
        """The gateway gives all or nothing, so a walk through the parts looks anew only when its first look has become old."""
        listed = {volume.id: volume for volume in self._array.volumes(anew=after is None) if wanted(volume)}
        keys, last = parts.cut(listed, after, limit)
        if last is None:
            self._array.walked()
        return [listed[key] for key in keys], last

    def _uses(self, pool: Pool) -> bool:
        return pool.is_mirrored and (not self._options.pools or pool.name in self._options.pools)

    def _fills(self, pool: Pool) -> bool:
        """Whether volumes are made in it: one that never has any must not be chosen for its room."""
        return pool.is_padded or self._options.allow_unpadded

    # --- making and removing --------------------------------------------------------------------

    def check_parameters(self, parameters: Mapping[str, str], *, pool: str | None = None) -> None:
        read_parameters(parameters, is_copy=False)

    @verb("create a volume")
    def create(self, request: CreateRequest) -> VolumeReport:
        if not request.token:
            raise Invalid(field="token", value="", reason="a volume is created with an idempotency token")
        name = names.name_of(names.VOLUME, request.token)
        volume = self._array.named(name)
        made = volume or self._make(request, name)
        if _is_copy(request) and made.size_mib < ABILITIES.fit(request.size_mib):
            made = self._grow_copy(made, ABILITIES.fit(request.size_mib), is_new=volume is None)
        return self._reports.volume(made, token=request.token)

    def _make(self, request: CreateRequest, name: str) -> Volume:
        pool, parameters = self._pool(request.pool), read_parameters(request.parameters, is_copy=_is_copy(request))
        size_mib = ABILITIES.fit(request.size_mib)
        try:
            if _is_copy(request):
                key = self._array.snapshot(self._origin(request, pool).id, name)
            else:
                key = self._array.create(pool, name, size_mib, parameters)
        except Refused as refused:
            if refused.means(FULL):
                raise self._full(pool, size_mib, refused) from refused
            if not refused.means(NAME_TAKEN):
                raise
            key = self._made_meanwhile(name, refused)
        return self._array.volume(key)

    def _made_meanwhile(self, name: str, refused: Refused) -> str:
        """The same token came twice at once, and the other was first."""
        found = self._array.named(name)
        if found is None:
            raise refused
        return found.id

    def _pool(self, name: str) -> Pool:
        pool = self._array.pool(name)
        if pool is None or not self._uses(pool):
            raise UnknownPool(pool=name, platform=self._name)
        if not self._fills(pool):
            reason = "the pool has no zero padding, so a new volume may show old data; enable it there, or set allow_unpadded"
            raise Unsupported(platform=self._name, action=f"create a volume in pool {name}", reason=reason)
        return pool

    def _origin(self, request: CreateRequest, pool: Pool) -> Volume:
        """What is to be snapshotted: a snapshot of either is a volume like others, that a node may write to."""
        if request.source is None:
            return self._copyable(request, pool)
        source = self._reports.known(request.source)
        cloning.check(request, self._reports.volume(source), ABILITIES.fit(request.size_mib))
        return source

    def _copyable(self, request: CreateRequest, pool: Pool) -> Volume:
        snapshot = self._reports.known_snapshot(request.snapshot or ExternalId(""))
        if snapshot is None:
            raise UnknownSnapshot(snapshot=request.snapshot)
        if snapshot.storage_pool_id != pool.id:
            where = self._array.pool_of(snapshot)
            reason = f"a volume from a snapshot is in the snapshot's pool, {where.name if where else snapshot.storage_pool_id}"
            raise Invalid(field="pool", value=request.pool, reason=reason)
        if ABILITIES.fit(request.size_mib) < snapshot.size_mib:
            raise Invalid(field="size_mib", value=request.size_mib, reason=f"snapshot {snapshot.id} has {snapshot.size_mib} MiB")
        return snapshot

    def _grow_copy(self, volume: Volume, size_mib: int, *, is_new: bool) -> Volume:
        """A copy is as large as its snapshot at first. One that finds no room to grow is not left behind."""
        try:
            return self._grow(volume, size_mib)
        except PoolFull:
            if is_new:
                self._remove(volume)
            raise

    def _full(self, pool: Pool, size_mib: int, refused: Refused) -> PoolFull:
        space = self._array.space([pool.id])[pool.id]
        free_mib = max(0, min(space.net_unused_capacity_in_kb, space.capacity_available_for_volume_allocation_in_kb)) // KB_PER_MIB
        return PoolFull(pool=pool.name, platform=self._name, free_mib=free_mib, size_mib=size_mib, reason=refused.reason)

    @verb("delete a volume")
    def delete(self, external_id: ExternalId) -> None:
        try:
            volume = self._reports.known(external_id)
        except UnknownVolume:
            return
        except Refused as refused:
            if refused.means(GONE):
                return
            raise
        self._refuse_mapped(volume)
        self._remove(volume)

    def _remove(self, volume: Volume) -> None:
        try:
            self._array.remove(volume.id)
        except Refused as refused:
            if refused.means(GONE):
                return
            if refused.means(MAPPED):
                self._refuse_mapped(self._array.volume(volume.id))
            raise

    def _refuse_mapped(self, volume: Volume) -> None:
        if volume.mapped:
            raise VolumeInUse(volume=volume.id, holder=self._reports.holder(volume.mapped[0]))

    @verb("expand a volume")
    def expand(self, external_id: ExternalId, size_mib: int) -> VolumeReport:
        volume, wanted_mib = self._reports.known(external_id), ABILITIES.fit(size_mib)
        if wanted_mib < volume.size_mib:
            raise Invalid(field="size_mib", value=size_mib, reason=f"volume {external_id} has {volume.size_mib} MiB, and never shrinks")
        return self._reports.volume(volume if wanted_mib == volume.size_mib else self._grow(volume, wanted_mib))

    def _grow(self, volume: Volume, size_mib: int) -> Volume:
        pool = self._array.pool_of(volume)
        try:
            self._array.resize(volume.id, size_mib)
        except Refused as refused:
            if pool and refused.means(FULL):
                raise self._full(pool, size_mib - volume.size_mib, refused) from refused
            if not refused.means(SHRINKS):  # somebody else has made it larger in the same moment
                raise
        grown = self._array.volume(volume.id)
        if grown.size_mib < size_mib:
            reason = f"the array leaves it at {grown.size_mib} MiB where {size_mib} MiB were asked for"
            raise PlatformError(platform=self._name, action=f"expand volume {volume.id}", reason=reason)
        return grown

    # --- attaching ------------------------------------------------------------------------------

    @verb("attach a volume")
    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        self._mappings.attach(self._reports.known(external_id), node, read_only=read_only)
        serial = self._reports.serial(external_id)
        return Attachment(
            external_id=external_id,
            device=f"/dev/disk/by-id/emc-vol-{serial}",
            serial=serial,
            read_only=read_only,
            transport="scaleio",
        )

    @verb("detach a volume")
    def detach(self, external_id: ExternalId, node: str) -> None:
        if ID.fullmatch(external_id):
            self._mappings.detach(external_id, node)

    # --- snapshots ------------------------------------------------------------------------------

    @verb("list its snapshots")
    def snapshots(self, *, after: str | None = None, limit: int = 1000) -> Page[SnapshotReport]:
        found, last = self._part(after, limit, may_be_snapshot)
        return Page(items=[self._reports.snapshot(snapshot) for snapshot in found], after=last)

    @verb("snapshot a volume")
    def snapshot(self, external_id: ExternalId, *, token: str, name: str = "") -> SnapshotReport:
        """All of a volume at one moment, also of one in use: what a crash at that moment would have left."""
        if not token:
            raise Invalid(field="token", value="", reason="a snapshot is made with an idempotency token")
        called = names.name_of(names.SNAPSHOT, token)
        found = self._array.named(called)
        if found is None:
            found = self._array.volume(self._take(self._reports.known(external_id), called))
        return self._reports.snapshot(found, token=token)

    def _take(self, volume: Volume, name: str) -> str:
        try:
            return self._array.snapshot(volume.id, name)
        except Refused as refused:
            pool = self._array.pool_of(volume)
            if pool and refused.means(FULL):
                raise self._full(pool, volume.size_mib, refused) from refused
            if refused.means(NAME_TAKEN):
                return self._made_meanwhile(name, refused)
            raise

    @verb("delete a snapshot")
    def delete_snapshot(self, snapshot: ExternalId) -> None:
        if found := self._reports.known_snapshot(snapshot):
            self._refuse_mapped(found)
            self._remove(found)

    # --- itself ---------------------------------------------------------------------------------

    def check(self) -> Sequence[Finding]:
        return doctor.check(self._options, self._array)

    def close(self) -> None:
        self._array.close()


def _is_copy(request: CreateRequest) -> bool:
    return request.snapshot is not None or request.source is not None
