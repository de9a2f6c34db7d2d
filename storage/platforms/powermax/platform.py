"""The adapter of PowerMax: a storage resource pool is a pool, a volume is found by its name, a node by its initiators.

The array keeps a volume's name and nothing else of Polly's, and shows one volume to as many hosts as ask: that a volume is on one
node only is seen to here, by looking again after each change and giving way to whoever else is there.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from storage.errors import HasSnapshots, Invalid, NoSlot, UnknownPool, UnknownVolume, VolumeInUse
from storage.model import ExternalId, Page
from storage.platforms import cloning, parts
from storage.platforms.base import Attachment, Capabilities, CreateRequest, Finding, Platform, PoolReport, SnapshotReport, VolumeReport
from storage.platforms.options import write_options
from storage.platforms.pacing import TokenBucket
from storage.platforms.powermax import doctor, naming
from storage.platforms.powermax.cloning import Clones
from storage.platforms.powermax.copying import Copies
from storage.platforms.powermax.hosts import Hosts
from storage.platforms.powermax.making import Maker
from storage.platforms.powermax.options import PowerMaxOptions
from storage.platforms.powermax.snapshots import Snapshots
from storage.platforms.powermax.unisphere import GROUP_FULL, LOCKS, MEMBER, NotThere, Refused, Unisphere
from storage.platforms.powermax.volumes import GRANULE_MIB, Volume, Volumes
from storage.platforms.restapi import RestApi, Timing

MOST_MIB: Final = (64 << 20) // GRANULE_MIB * GRANULE_MIB
"""64 TiB, in whole cylinders and whole MiB."""
SLOTS: Final = 4095
"""What a storage group holds, without its anchor."""
PARALLEL: Final = 4
CALLS_PER_S, BURST = 20.0, 20
TRIES: Final = 8
"""How often two who attach one volume in the same moment may both give way."""
MIB_PER_TB: Final = 1 << 20


class PowerMaxPlatform(Platform):
    Options = PowerMaxOptions

    def __init__(
        self,
        name: str,
        options: PowerMaxOptions,
        *,
        now: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._name, self._options, self._wait, self._chance = name, options, wait, chance
        timing = Timing(bucket=TokenBucket(CALLS_PER_S, BURST, now=now, wait=wait, chance=chance), wait=wait, parallel=PARALLEL)
        self._api = RestApi(name, options, timing)
        self._unisphere = Unisphere(self._api, options.array, wait)
        self._volumes = Volumes(self._unisphere, name, options.array, now)
        register = options.register_hosts
        self._hosts = Hosts(self._unisphere, self._volumes, name, port_group=options.port_group, register=register)
        self._maker = Maker(self._volumes, name, wait, chance)
        self._copies = Copies(self._unisphere, self._volumes, name, wait, chance)
        self._clones = Clones(copies=self._copies, volumes=self._volumes, platform=name)
        self._snapshots = Snapshots(
            copies=self._copies,
            clones=self._clones,
            volumes=self._volumes,
            platform=name,
            array=options.array,
            pool_of=self._pool_of,
            fit=self.capabilities.fit,
        )
        self._known: dict[str, tuple[str, ...]] = {}

    @property
    def name(self) -> str:
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            snapshots=True,
            snapshot_attached=True,
            restores=True,
            clones=True,
            clone_attached=True,
            expand_attached=True,
            expand_detached=True,
            labels=False,
            min_mib=GRANULE_MIB,
            max_mib=MOST_MIB,
            granularity_mib=GRANULE_MIB,
            slots_per_node=SLOTS,
            identity=self._options.protocol,
            transports=("iscsi",) if self._options.protocol == "iscsi" else (),
            scsi_disk=("EMC", "SYMMETRIX"),
            parallel=PARALLEL,
        )

    def settings(self) -> Mapping[str, str]:
        return write_options(self._options)

    # --- pools and lists ------------------------------------------------------------------------

    def pools(self) -> Sequence[PoolReport]:
        """Reads the list of all volumes as well, for what others have been promised: for now and then, not for each offer."""
        listed = self._volumes.all()
        return [self._pool(srp, listed) for srp in self._srps()]

    def _pool(self, srp: str, listed: Sequence[Volume]) -> PoolReport:
        said = self._unisphere.get("look at a pool", "srp", srp).part("srp_capacity")
        capacity_mib = self._options.capacity_mib or int(said.number("usable_total_tb") * MIB_PER_TB)
        foreign_mib = sum(one.size_mib for one in listed if not naming.is_ours(one.name) and self._pool_of(one) == srp)
        return PoolReport(
            name=srp,
            capacity_mib=capacity_mib,
            foreign_mib=min(capacity_mib, foreign_mib),
            region=self._options.region,
            zone=self._options.zone,
        )

    def _srps(self) -> tuple[str, ...]:
        return self._options.srps or self._once("srp", "srpId")

    def _once(self, kind: str, key: str) -> tuple[str, ...]:
        """Names that the array has, asked for once: they change with its hardware."""
        if kind not in self._known:
            self._known[kind] = tuple(sorted(self._unisphere.get("look at what it has", kind).get(key) or ()))
        return self._known[kind]

    def _pool_of(self, volume: Volume) -> str:
        """The pool that its group says; another volume's is the array's first."""
        return next((srp for group in volume.groups if (srp := naming.pool_of_group(group))), "") or next(iter(self._srps()), "")

    def volumes(self, *, after: str | None = None, limit: int = 1000) -> Page[VolumeReport]:
        """The array makes a list of everything at once, so a part is cut from it; the order is that of the devices."""
        listed = self._volumes.all(anew=after is None)
        shown = {one.device: one for one in listed if not (one.is_copying or naming.is_internal(one.name))}
        devices, last = parts.cut(shown, after, limit)
        known: dict[str, tuple[str, ...]] = {}
        return Page(items=[self._report(shown[device], known=known) for device in devices], after=last)

    def inspect(self, external_id: ExternalId) -> VolumeReport:
        return self._report(self._get(external_id))

    def _get(self, external_id: ExternalId) -> Volume:
        """Raises UnknownVolume, also where the device is another volume by now."""
        found = self._left(external_id)
        if found is None or found.is_copying or naming.is_internal(found.name):
            raise UnknownVolume(volume=external_id)
        return found

    def _left(self, external_id: ExternalId) -> Volume | None:
        """Also what a create has begun with. None where there is nothing, and where the device is another volume by now."""
        parsed = naming.parse_volume_id(external_id)
        try:
            found = self._volumes.get(parsed[0]) if parsed else None
        except NotThere:
            self._unisphere.make_sure_of_array("look at a volume")
            return None
        return found if found and found.id == external_id and not naming.is_anchor(found.name) else None

    def _report(self, volume: Volume, *, token: str = "", known: dict[str, tuple[str, ...]] | None = None) -> VolumeReport:
        """`token`: what it was looked for with, where its name does not tell."""
        return VolumeReport(
            external_id=volume.id,
            pool=self._pool_of(volume),
            size_mib=volume.size_mib,
            serial=volume.serial,
            token=naming.token_of_volume(volume.name) or token,
            held_by=self._hosts.holders(volume.groups, known),
            zone=self._options.zone,
        )

    def find(self, token: str) -> VolumeReport | None:
        """Also one that a delete or a create has begun with, so that it can be deleted."""
        if not token:
            return None
        name = naming.volume_name(token)
        found = self._volumes.named(name)
        chosen = self._volumes.choose(found) or next(iter(found or self._volumes.named(naming.begun_name(name))), None)
        return self._report(chosen, token=token) if chosen else None

    # --- create, delete, expand -----------------------------------------------------------------

    def create(self, request: CreateRequest) -> VolumeReport:
        if request.pool not in self._srps():
            raise UnknownPool(pool=request.pool, platform=self._name)
        self.check_parameters(request.parameters)
        level, name = self._level(request.parameters), naming.volume_name(request.token)
        size_mib = self.capabilities.fit(request.size_mib)
        with LOCKS.hold(self._options.array, name):
            return self._report(self._made(request, name, size_mib, level), token=request.token)

    def _made(self, request: CreateRequest, name: str, size_mib: int, level: str) -> Volume:
        if request.snapshot is not None:
            made = self._snapshots.restored(request.snapshot, name, size_mib, srp=request.pool, level=level)
        elif (source := request.source) is not None:
            made = self._snapshots.cloned(request, name, lambda: self._cloneable(request, source, size_mib), level=level)
        else:
            return self._maker.make(name, size_mib, srp=request.pool, level=level)
        return self._grown(made, size_mib) if made.size_mib < size_mib else made

    def check_parameters(self, parameters: Mapping[str, str], *, pool: str | None = None) -> None:
        for parameter, value in parameters.items():
            if parameter != "service_level":
                raise Invalid(field=f"parameters.{parameter}", value=value, reason="a volume of PowerMax has service_level only")
        if pool is not None:
            self._level(parameters)

    def _level(self, parameters: Mapping[str, str]) -> str:
        level = parameters.get("service_level", self._options.service_level)
        if level not in (known := self._once("slo", "sloId")):
            raise Invalid(field="parameters.service_level", value=level, reason=f"the array has {', '.join(known)}")
        return level

    def _cloneable(self, request: CreateRequest, source: ExternalId, size_mib: int) -> Volume:
        origin = self._get(source)
        cloning.check(request, self._report(origin), size_mib)
        return origin

    def delete(self, external_id: ExternalId) -> None:
        """Also what a create has begun with."""
        volume = self._left(external_id)
        if volume is None:
            return
        self._refuse_held(volume)
        if volume.is_source and (names := self._clones.other_snapshots(volume)):
            raise HasSnapshots(volume=external_id, snapshots=", ".join(names))
        try:
            if volume.is_copying or not volume.groups:
                self._copies.unlink(volume.device)
            self._volumes.remove(volume)
        except NotThere:
            return
        except Refused:
            if now := self._left(external_id):
                self._refuse_held(now)
            raise
        for group in filter(naming.is_copying, volume.groups):
            self._volumes.drop_group(group)

    def _refuse_held(self, volume: Volume) -> None:
        if held := self._hosts.holders(volume.groups):
            raise VolumeInUse(volume=volume.id, holder=", ".join(held))

    def expand(self, external_id: ExternalId, size_mib: int) -> VolumeReport:
        volume, wanted = self._get(external_id), self.capabilities.fit(size_mib)
        if wanted < volume.size_mib:
            reason = f"volume {external_id} has {volume.size_mib} MiB, and volumes never shrink"
            raise Invalid(field="size_mib", value=size_mib, reason=reason)
        return self._report(self._grown(volume, wanted) if wanted > volume.size_mib else volume)

    def _grown(self, volume: Volume, size_mib: int) -> Volume:
        try:
            self._volumes.grow(volume.device, size_mib)
        except NotThere:
            self._get(volume.id)  # if it is there, something else is not
            raise
        except Refused as error:
            if (now := self._get(volume.id)).size_mib >= size_mib:  # somebody was faster
                return now
            raise self._volumes.full(error, self._pool_of(volume), size_mib - volume.size_mib) from error
        return self._get(volume.id)

    # --- attach, detach -------------------------------------------------------------------------

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        volume = self._get(external_id)
        host = self._hosts.registered(node)
        for _ in range(TRIES):
            self._refuse_others(volume, host)
            if self._given_alone(volume, host):
                return self._attachment(volume, host, read_only=read_only)
            self._wait(self._chance())
            volume = self._get(external_id)
        raise VolumeInUse(volume=external_id, holder="another node that attaches it in the same moment")

    def _refuse_others(self, volume: Volume, host: str) -> None:
        if others := self._hosts.holders(_others(volume, host)):
            raise VolumeInUse(volume=volume.id, holder=", ".join(others))

    def _given_alone(self, volume: Volume, host: str) -> bool:
        """Gives the volume and looks again: whoever sees another's group takes it out of its own, so that two never both stay."""
        was_there = naming.host_group(host) in volume.groups
        if not was_there:
            self._give(volume, host)
        if not self._hosts.holders(_others(self._get(volume.id), host)):
            return True
        if not was_there:
            self._hosts.take(volume.device, host)
        return False

    def _give(self, volume: Volume, host: str) -> None:
        try:
            self._hosts.give(volume.device, host)
        except NotThere:
            self._get(volume.id)  # if it is there, something else is not
            raise
        except Refused as error:
            if error.says(GROUP_FULL):
                raise NoSlot(node=host, slots=SLOTS, platform=self._name, reason=error.fields["reason"]) from error
            if not error.says(MEMBER):
                raise

    def _attachment(self, volume: Volume, host: str, *, read_only: bool) -> Attachment:
        is_iscsi = self._options.protocol == "iscsi"
        context = {"lun": self._hosts.lun(volume.device, host)}
        return Attachment(
            external_id=volume.id,
            device=f"/dev/disk/by-id/wwn-0x{volume.wwn.lower()}",
            serial=volume.serial,
            read_only=read_only,
            transport="iscsi" if is_iscsi else "",
            context={**context, "portals": self._hosts.portals()} if is_iscsi else context,
        )

    def detach(self, external_id: ExternalId, node: str) -> None:
        """`node` may also be the name of a host."""
        try:
            volume = self._get(external_id)
        except UnknownVolume:
            return
        for host in self._hosts.find(node):
            self._hosts.take(volume.device, host, volume.groups)

    # --- snapshots ------------------------------------------------------------------------------

    def snapshots(self, *, after: str | None = None, limit: int = 1000) -> Page[SnapshotReport]:
        return self._snapshots.page(after=after, limit=limit)

    def snapshot(self, external_id: ExternalId, *, token: str, name: str = "") -> SnapshotReport:
        """All of a volume at one moment, also of one in use: what a crash at that moment would have left."""
        return self._snapshots.take(self._get(external_id), token)

    def delete_snapshot(self, snapshot: ExternalId) -> None:
        self._snapshots.delete(snapshot)

    # --- itself ---------------------------------------------------------------------------------

    def check(self) -> Sequence[Finding]:
        return doctor.check(self._options, self._unisphere, self._hosts)

    def close(self) -> None:
        self._api.close()


def _others(volume: Volume, host: str) -> tuple[str, ...]:
    return tuple(group for group in volume.groups if group != naming.host_group(host))
