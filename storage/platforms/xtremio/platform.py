"""The adapter of XtremIO: a cluster is a pool, a volume is found by its name, a snapshot is a volume that nobody maps.

The array keeps no marks, and gives one volume to as many hosts as ask: that a volume is on one node only is seen to here, by
looking again after each mapping and giving way to whoever else is there.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from storage.errors import Invalid, PlatformUnavailable, UnknownPool, UnknownVolume, VolumeInUse
from storage.model import ExternalId, Page
from storage.platforms import cloning, parts
from storage.platforms.base import Attachment, Capabilities, CreateRequest, Finding, Platform, PoolReport, SnapshotReport, VolumeReport
from storage.platforms.options import write_options
from storage.platforms.pacing import TokenBucket
from storage.platforms.restapi import Answer, RestApi, Timing
from storage.platforms.xtremio import doctor, naming
from storage.platforms.xtremio.hosts import Hosts, groups_in
from storage.platforms.xtremio.options import XtremioOptions
from storage.platforms.xtremio.snapshots import Snapshots
from storage.platforms.xtremio.volumes import GIB, NAA, Volumes, id_of, mib_of, name_of, serial_of
from storage.platforms.xtremio.xms import NotThere, Refused, Xms

MOST_MIB: Final = 256 * 1024 * 1024
"""256 TiB: the largest volume."""
PARALLEL: Final = 4
CALLS_PER_S, BURST = 20.0, 20
ATTACH_TRIES: Final = 8
"""How often two nodes that map one volume in the same moment may both give way."""


class XtremioPlatform(Platform):
    Options = XtremioOptions

    def __init__(
        self,
        name: str,
        options: XtremioOptions,
        *,
        wait: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._name, self._options, self._wait, self._chance = name, options, wait, chance
        timing = Timing(bucket=TokenBucket(CALLS_PER_S, BURST, wait=wait, chance=chance), wait=wait, parallel=PARALLEL)
        self._api = RestApi(name, options, timing)
        self._xms = Xms(self._api, options.cluster, wait)
        self._volumes = Volumes(xms=self._xms, platform=name)
        self._snapshots = Snapshots(volumes=self._volumes)
        self._hosts = Hosts(self._xms, name, register=options.register_hosts, portals=options.portals)

    @property
    def name(self) -> str:
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            snapshots=True,
            snapshot_attached=True,
            snapshots_outlive=True,
            restores=True,
            clones=True,
            clone_attached=True,
            expand_attached=True,
            expand_detached=True,
            labels=False,
            min_mib=GIB,
            max_mib=MOST_MIB,
            granularity_mib=GIB,
            identity=self._options.protocol,
            transports=("iscsi",) if self._options.protocol == "iscsi" else (),
            scsi_disk=("XtremIO", "XtremApp"),
            parallel=PARALLEL,
        )

    def settings(self) -> Mapping[str, str]:
        return write_options(self._options)

    # --- pools and lists --------------------------------------------------------------------------------------

    def pools(self) -> Sequence[PoolReport]:
        """Without capacity_mib the flash counts as it is; what data reduction gains is the operator's to promise, by `overcommit`."""
        cluster = self._xms.get("clusters", self._xms.cluster, action="look at the cluster")
        capacity_mib = self._options.capacity_mib or mib_of(cluster, "ud-ssd-space")
        foreign_mib = sum(mib_of(found) for found in self._volumes.all() if not naming.is_ours(name_of(found)))
        return [
            PoolReport(
                name=self._xms.cluster,
                capacity_mib=capacity_mib,
                foreign_mib=min(capacity_mib, foreign_mib),
                region=self._options.region,
                zone=self._options.zone,
            )
        ]

    def volumes(self, *, after: str | None = None, limit: int = 1000) -> Page[VolumeReport]:
        """The XMS lists everything at once, so a part is cut from it; the order is that of the names."""
        maps = self._hosts.all_maps()
        found = {name_of(volume): volume for volume in self._volumes.all() if naming.is_volume(name_of(volume))}
        names, last = parts.cut(found, after, limit)
        called = self._hosts.called(group for name in names for group in maps[name])
        held = {name: tuple(sorted(called[group] for group in maps[name])) for name in names}
        return Page(items=[self._report(found[name], held[name]) for name in names], after=last)

    def inspect(self, external_id: ExternalId) -> VolumeReport:
        """Also by its bare name, as a person writes it who adopts a volume."""
        bare = self._volumes.named(external_id) if naming.is_volume(external_id) else None
        found = bare if bare is not None else self._volumes.known(external_id)
        return self._report(found, self._holders(name_of(found)))

    def _holders(self, name: str) -> tuple[str, ...]:
        return tuple(sorted(self._hosts.called(groups_in(self._hosts.maps_of(name))).values()))

    def _report(self, volume: Answer, held_by: tuple[str, ...], *, token: str = "") -> VolumeReport:
        """`token`: of a copy that has not got its name yet."""
        name = name_of(volume)
        return VolumeReport(
            external_id=id_of(volume),
            pool=self._xms.cluster,
            size_mib=mib_of(volume),
            serial=serial_of(volume),
            token=naming.token_of_volume(name) or token,
            held_by=held_by,
            zone=self._options.zone,
        )

    def find(self, token: str) -> VolumeReport | None:
        """Also a copy that has not got its name yet, so that it can be deleted."""
        try:
            name = naming.volume_name(token)
        except Invalid:
            return None
        if (found := self._volumes.named(name)) is not None:
            return self._report(found, self._holders(name))
        begun = (one for one in self._volumes.all() if name_of(one).endswith(naming.begun_name("", name)))
        return next((self._report(one, (), token=token) for one in begun), None)

    # --- create, delete, expand ---------------------------------------------------------------------------------

    def check_parameters(self, parameters: Mapping[str, str], *, pool: str | None = None) -> None:
        for parameter, value in parameters.items():
            raise Invalid(field=f"parameters.{parameter}", value=value, reason="a volume of XtremIO has no parameters")

    def create(self, request: CreateRequest) -> VolumeReport:
        if request.pool != self._xms.cluster:
            raise UnknownPool(pool=request.pool, platform=self._name)
        self.check_parameters(request.parameters)
        name, size_mib = naming.volume_name(request.token), self.capabilities.fit(request.size_mib)
        if self._volumes.named(name) is None:
            if (origin := self._origin(request, size_mib)) is None:
                self._volumes.make(name, size_mib)
            else:
                self._snapshots.copy(origin, name, size_mib)
        if request.snapshot is not None or request.source is not None:
            self._volumes.resize(name, size_mib)
        return self.inspect(ExternalId(name))

    def _origin(self, request: CreateRequest, size_mib: int) -> str | None:
        """The name of what a writable copy is to be made of."""
        if request.source is not None:
            source = self.inspect(request.source)
            cloning.check(request, source, size_mib)
            return naming.name_in(source.external_id)
        return None if request.snapshot is None else self._snapshots.restorable(request.snapshot, size_mib)

    def delete(self, external_id: ExternalId) -> None:
        """Also a copy that has not got its name yet."""
        try:
            name = external_id if naming.is_begun(external_id) and external_id.isprintable() else name_of(self._volumes.known(external_id))
        except UnknownVolume:
            return
        self._refuse_mapped(name)
        try:
            self._volumes.discard(name)
        except Refused:
            self._refuse_mapped(name)
            raise

    def _refuse_mapped(self, name: str) -> None:
        if held := self._holders(name):
            raise VolumeInUse(volume=name, holder=", ".join(held))

    def expand(self, external_id: ExternalId, size_mib: int) -> VolumeReport:
        found = self._volumes.known(external_id)
        wanted, now_mib = self.capabilities.fit(size_mib), mib_of(found)
        if wanted < now_mib:
            raise Invalid(field="size_mib", value=size_mib, reason=f"volume {external_id} has {now_mib} MiB, and volumes never shrink")
        self._volumes.resize(name_of(found), wanted)
        return self.inspect(external_id)

    # --- attach, detach -------------------------------------------------------------------------------------------

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        name = name_of(self._volumes.known(external_id))
        group = self._hosts.registered(node)
        for _ in range(ATTACH_TRIES):
            if others := [other for other in groups_in(self._hosts.maps_of(name)) if other != group]:
                raise VolumeInUse(volume=external_id, holder=", ".join(sorted(self._hosts.called(others).values())))
            if self._mapped_alone(name, group):
                return self._attachment(external_id, group, read_only=read_only)
            self._wait(self._chance())
        raise VolumeInUse(volume=external_id, holder="another node that maps it in the same moment")

    def _mapped_alone(self, name: str, group: str) -> bool:
        """Maps the volume and looks again: whoever sees another's map takes its own away, so that two never both stay."""
        was_there = group in groups_in(self._hosts.maps_of(name))
        try:
            self._hosts.map(name, group)
        except NotThere as error:
            if self._volumes.named(name) is None:
                raise UnknownVolume(volume=name) from error
            raise
        if groups_in(self._hosts.maps_of(name)) == [group]:
            return True
        if not was_there:
            self._hosts.unmap(name, group)
        return False

    def _attachment(self, external_id: ExternalId, group: str, *, read_only: bool) -> Attachment:
        """The array names a volume for the network, its NAA, with its first mapping; so it is read again."""
        volume = self._volumes.known(external_id)
        name, serial = name_of(volume), serial_of(volume)
        mapping = next((found for found in self._hosts.maps_of(name) if found["ig-name"] == group), None)
        if mapping is None:
            reason = f"somebody has taken volume {external_id} from {group} in the same moment"
            raise PlatformUnavailable(platform=self._name, action="attach a volume", reason=reason)
        if not serial.startswith(NAA):
            raise PlatformUnavailable(platform=self._name, action="attach a volume", reason=f"the array has given volume {name} no NAA yet")
        is_iscsi = self._options.protocol == "iscsi"
        return Attachment(
            external_id=external_id,
            device=f"/dev/disk/by-id/wwn-0x{serial.removeprefix(NAA)}",
            serial=serial,
            read_only=read_only,
            transport="iscsi" if is_iscsi else "",
            context={"lun": str(mapping["lun"]), "portals": self._hosts.portals()} if is_iscsi else {"lun": str(mapping["lun"])},
        )

    def detach(self, external_id: ExternalId, node: str) -> None:
        """`node` may also be the name of an initiator group."""
        try:
            name = name_of(self._volumes.known(external_id))
        except UnknownVolume:
            return
        for group in self._hosts.groups(node):
            self._hosts.unmap(name, group)

    # --- snapshots --------------------------------------------------------------------------------------------------

    def snapshots(self, *, after: str | None = None, limit: int = 1000) -> Page[SnapshotReport]:
        return self._snapshots.page(after=after, limit=limit)

    def snapshot(self, external_id: ExternalId, *, token: str, name: str = "") -> SnapshotReport:
        return self._snapshots.take(external_id, token)

    def delete_snapshot(self, snapshot: ExternalId) -> None:
        self._snapshots.delete(snapshot)

    # --- the whole --------------------------------------------------------------------------------------------------

    def check(self) -> Sequence[Finding]:
        return doctor.check(self._options, self._xms, self._hosts)

    def close(self) -> None:
        self._api.close()
