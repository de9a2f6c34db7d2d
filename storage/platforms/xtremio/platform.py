"""The adapter of XtremIO: a cluster is a pool, a volume is found by its name, a snapshot is a volume that nobody maps.

The array keeps no marks, and gives one volume to as many hosts as ask: that a volume is on one node only is seen to here, by
looking again after each mapping and giving way to whoever else is there.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from storage.errors import (
    Invalid,
    PlatformUnavailable,
    PollyError,
    PoolFull,
    UnknownPool,
    UnknownSnapshot,
    UnknownVolume,
    VolumeInUse,
)
from storage.model import ExternalId, Page
from storage.platforms.base import Attachment, Capabilities, CreateRequest, Finding, Platform, PoolReport, SnapshotReport, VolumeReport
from storage.platforms.options import write_options
from storage.platforms.pacing import TokenBucket
from storage.platforms.passwords import exposed
from storage.platforms.restapi import KEYS, RestApi, Timing
from storage.platforms.xtremio import naming
from storage.platforms.xtremio.hosts import Hosts, holders
from storage.platforms.xtremio.options import XtremioOptions
from storage.platforms.xtremio.xms import NotThere, Object, Refused, Xms

GIB: Final = 1024
MOST_MIB: Final = 256 * 1024 * 1024
"""256 TiB: the largest volume."""
PARALLEL: Final = 4
CALLS_PER_S, BURST = 20.0, 20
ATTACH_TRIES: Final = 8
"""How often two nodes that map one volume in the same moment may both give way."""
LIMITS: Final = ("too_many_objs", "too_many_snapshots_per_vol")
VOLUME_PROPS: Final = ("name", "vol-id", "vol-size", "naa-name", "ancestor-vol-id")


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
        self._hosts = Hosts(self._xms, name, register=options.register_hosts)

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
            expand_attached=True,
            expand_detached=True,
            labels=False,
            min_mib=GIB,
            max_mib=MOST_MIB,
            granularity_mib=GIB,
            identity=self._options.protocol,
            transports=("iscsi",) if self._options.protocol == "iscsi" else (),
            parallel=PARALLEL,
        )

    def settings(self) -> Mapping[str, str]:
        return write_options(self._options)

    # --- pools and lists --------------------------------------------------------------------------------------

    def pools(self) -> Sequence[PoolReport]:
        """Without capacity_mib the flash counts as it is; what data reduction gains is the operator's to promise, by `overcommit`."""
        cluster = self._xms.get("clusters", self._xms.cluster, action="look at the cluster")
        capacity_mib = self._options.capacity_mib or _mib(cluster["ud-ssd-space"])
        foreign_mib = sum(_mib(found["vol-size"]) for found in self._all_volumes() if not naming.token_of_volume(_name(found)))
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
        held: dict[str, list[str]] = defaultdict(list)
        for volume, group in self._hosts.all_maps():
            held[volume].append(group)
        found = {_name(volume): volume for volume in self._all_volumes() if not naming.is_snapshot(_name(volume))}
        names, last = _part(found, after, limit)
        return Page(items=[self._report(found[name], tuple(sorted(held[name]))) for name in names], after=last)

    def _all_volumes(self) -> list[Object]:
        return self._xms.all("volumes", props=VOLUME_PROPS)

    def inspect(self, external_id: ExternalId) -> VolumeReport:
        found = self._known(external_id)
        return self._report(found, holders(self._hosts.maps_of(_name(found))))

    def _known(self, external_id: ExternalId) -> Object:
        if not external_id or len(external_id) > naming.LONGEST or naming.is_snapshot(external_id):
            raise UnknownVolume(volume=external_id)
        try:
            return self._xms.get("volumes", external_id, action="look at a volume")
        except NotThere as error:
            raise UnknownVolume(volume=external_id) from error

    def _report(self, volume: Object, held_by: tuple[str, ...]) -> VolumeReport:
        name = _name(volume)
        return VolumeReport(
            external_id=ExternalId(name),
            pool=self._xms.cluster,
            size_mib=_mib(volume["vol-size"]),
            serial=_serial(volume),
            token=naming.token_of_volume(name),
            held_by=held_by,
            zone=self._options.zone,
        )

    def find(self, token: str) -> VolumeReport | None:
        if not token:
            return None
        try:
            return self.inspect(ExternalId(naming.volume_name(token)))
        except (UnknownVolume, Invalid):
            return None

    # --- create, delete, expand ---------------------------------------------------------------------------------

    def check_parameters(self, parameters: Mapping[str, str], *, pool: str | None = None) -> None:
        for parameter, value in parameters.items():
            raise Invalid(field=f"parameters.{parameter}", value=value, reason="a volume of XtremIO has no parameters")

    def create(self, request: CreateRequest) -> VolumeReport:
        if request.pool != self._xms.cluster:
            raise UnknownPool(pool=request.pool, platform=self._name)
        self.check_parameters(request.parameters)
        name, size_mib = naming.volume_name(request.token), self.capabilities.fit(request.size_mib)
        if made := self.find(request.token):
            return self._grown(made, size_mib) if request.snapshot else made
        if request.snapshot is not None:
            self._clone(request.snapshot, name, size_mib)
        else:
            self._make(name, size_mib)
        return self.inspect(ExternalId(name))

    def _make(self, name: str, size_mib: int) -> None:
        try:
            self._xms.create("volumes", {"vol-name": name, "vol-size": _written(size_mib)}, action="create a volume")
        except Refused as error:
            if error.words != "vol_obj_name_not_unique":
                raise self._full(error, size_mib) from error

    def _clone(self, snapshot: ExternalId, name: str, size_mib: int) -> None:
        """A writable snapshot of the snapshot, which gets its name in a second step: one that waits for it is taken up."""
        source = self._snapshot_or_refuse(snapshot)
        if size_mib < _mib(source["vol-size"]):
            raise Invalid(field="size_mib", value=size_mib, reason=f"snapshot {snapshot} has {_mib(source['vol-size'])} MiB")
        self._copy(_name(source), name, "regular", size_mib)
        self._resize(name, size_mib)

    def _grown(self, made: VolumeReport, size_mib: int) -> VolumeReport:
        """A copy whose growing was cut off."""
        if made.size_mib < size_mib:
            self._resize(made.external_id, size_mib)
            return self.inspect(made.external_id)
        return made

    def _copy(self, source: str, name: str, kind: str, size_mib: int) -> None:
        values = {"volume-list": [source], "snapshot-set-name": f"{name}-set", "snap-suffix": name, "snapshot-type": kind}
        try:
            self._xms.create("snapshots", values, action="copy a volume")
        except Refused as error:
            if "not_unique" not in error.words:
                raise self._full(error, size_mib) from error
        try:
            self._xms.change("volumes", f"{source}.{name}", {"vol-name": name}, action="name a copy")
        except Refused as error:
            if not isinstance(error, NotThere) and "not_unique" not in error.words:
                raise
            if not self._is_there(name):  # somebody with the same token has named it in the same moment
                raise

    def _is_there(self, name: str) -> bool:
        try:
            self._xms.get("volumes", name, action="look at a copy")
        except NotThere:
            return False
        return True

    def _full(self, error: Refused, size_mib: int) -> PollyError:
        if error.words in LIMITS:
            return PoolFull(pool=f"{self._xms.cluster} ({error.words})", platform=self._name, free_mib=0, size_mib=size_mib)
        return error

    def delete(self, external_id: ExternalId) -> None:
        try:
            name = _name(self._known(external_id))
        except UnknownVolume:
            return
        self._refuse_mapped(name)
        try:
            self._xms.delete("volumes", name, action="delete a volume")
        except NotThere:
            return
        except Refused:
            self._refuse_mapped(name)
            raise

    def _refuse_mapped(self, name: str) -> None:
        if held := holders(self._hosts.maps_of(name)):
            raise VolumeInUse(volume=name, holder=", ".join(held))

    def expand(self, external_id: ExternalId, size_mib: int) -> VolumeReport:
        wanted, now_mib = self.capabilities.fit(size_mib), _mib(self._known(external_id)["vol-size"])
        if wanted < now_mib:
            raise Invalid(field="size_mib", value=size_mib, reason=f"volume {external_id} has {now_mib} MiB, and volumes never shrink")
        self._resize(external_id, wanted)
        return self.inspect(external_id)

    def _resize(self, name: str, size_mib: int) -> None:
        if _mib(self._xms.get("volumes", name, action="look at a volume")["vol-size"]) < size_mib:
            try:
                self._xms.change("volumes", name, {"vol-size": _written(size_mib)}, action="expand a volume")
            except Refused as error:
                raise self._full(error, size_mib) from error

    # --- attach, detach -------------------------------------------------------------------------------------------

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        name = _name(self._known(external_id))
        group = self._hosts.registered(node)
        for _ in range(ATTACH_TRIES):
            others = [holder for holder in holders(self._hosts.maps_of(name)) if holder != group]
            if others:
                raise VolumeInUse(volume=external_id, holder=", ".join(others))
            if self._mapped_alone(external_id, group):
                return self._attachment(external_id, group, read_only=read_only)
            self._wait(self._chance())
        raise VolumeInUse(volume=external_id, holder="another node that maps it in the same moment")

    def _mapped_alone(self, external_id: ExternalId, group: str) -> bool:
        """Maps the volume and looks again: whoever sees another's map takes its own away, so that two never both stay."""
        was_there = group in holders(self._hosts.maps_of(external_id))
        try:
            self._hosts.map(external_id, group)
        except NotThere as error:
            raise UnknownVolume(volume=external_id) from error
        if set(holders(self._hosts.maps_of(external_id))) == {group}:
            return True
        if not was_there:
            self._hosts.unmap(external_id, group)
        return False

    def _attachment(self, external_id: ExternalId, group: str, *, read_only: bool) -> Attachment:
        """The array names a volume for the network, its NAA, with its first mapping; so it is read again."""
        serial = _serial(self._xms.get("volumes", external_id, action="look at a volume"))
        mapping = next(found for found in self._hosts.maps_of(external_id) if found["ig-name"] == group)
        is_iscsi = self._options.protocol == "iscsi"
        return Attachment(
            external_id=external_id,
            device=f"/dev/disk/by-id/wwn-0x{serial.removeprefix('naa.')}",
            serial=serial,
            read_only=read_only,
            transport="iscsi" if is_iscsi else "",
            context={"lun": str(mapping["lun"]), "portals": self._portals()} if is_iscsi else {"lun": str(mapping["lun"])},
        )

    def _portals(self) -> str:
        """`ADDRESS:PORT,IQN` of each portal, separated by blanks."""
        wanted = self._options.portals
        found = [portal for portal in self._xms.all("iscsi-portals") if not wanted or portal["name"] in wanted]
        return " ".join(f"{portal['ip-addr'].partition('/')[0]}:{portal['ip-port']},{portal['port-address']}" for portal in found)

    def detach(self, external_id: ExternalId, node: str) -> None:
        """`node` may also be the name of an initiator group, as `held_by` tells it."""
        try:
            name = _name(self._known(external_id))
        except UnknownVolume:
            return
        if group := self._hosts.group(node):
            self._hosts.unmap(name, group)

    # --- snapshots --------------------------------------------------------------------------------------------------

    def snapshots(self, *, after: str | None = None, limit: int = 1000) -> Page[SnapshotReport]:
        found = {_name(volume): volume for volume in self._all_volumes() if naming.is_snapshot(_name(volume))}
        names, last = _part(found, after, limit)
        return Page(items=[_snapshot(found[name]) for name in names], after=last)

    def snapshot(self, external_id: ExternalId, *, token: str, name: str = "") -> SnapshotReport:
        source = self._known(external_id)
        wanted = naming.snapshot_name(token)
        if not self._is_there(wanted):
            self._copy(_name(source), wanted, "readonly", _mib(source["vol-size"]))
        return _snapshot(self._xms.get("volumes", wanted, action="look at a snapshot"))

    def _snapshot_or_refuse(self, snapshot: ExternalId) -> Object:
        try:
            if naming.is_snapshot(snapshot):
                return self._xms.get("volumes", snapshot, action="look at a snapshot")
        except NotThere as error:
            raise UnknownSnapshot(snapshot=snapshot) from error
        raise UnknownSnapshot(snapshot=snapshot)

    def delete_snapshot(self, snapshot: ExternalId) -> None:
        try:
            self._xms.delete("volumes", _name(self._snapshot_or_refuse(snapshot)), action="delete a snapshot")
        except (UnknownSnapshot, NotThere):
            return

    # --- the whole --------------------------------------------------------------------------------------------------

    def check(self) -> Sequence[Finding]:
        try:
            cluster = self._xms.get("clusters", self._xms.cluster, action="look at the cluster")
            self._hosts.group("polly-doctor")
            portals = self._portals() if self._options.protocol == "iscsi" else "-"
        except PlatformUnavailable as error:
            mend = "Check endpoint, ca_file, username and password_file, and that this machine reaches the XMS."
            return [Finding(ok=False, subject=self._options.endpoint, message=str(error), mend=mend)]
        except NotThere as error:
            mend = "Name a cluster of this XMS in `cluster`, or none if it manages only one."
            return [Finding(ok=False, subject=f"cluster {self._options.cluster}", message=str(error), mend=mend)]
        except PollyError as error:
            return [Finding(ok=False, subject=self._options.endpoint, message=str(error), mend=error.advice or KEYS)]
        found = [
            Finding(
                ok=True,
                subject=self._xms.cluster,
                message=f"XtremIO {cluster.get('sys-sw-version', '')}, reached as {self._options.username}",
            ),
            *exposed(self._options.password_file),
        ]
        if not portals:
            mend = "Give the cluster iSCSI portals, or check the names in `portals`."
            found.append(Finding(ok=False, subject=self._xms.cluster, message="it has no iSCSI portal that nodes may use", mend=mend))
        return found

    def close(self) -> None:
        self._api.close()


def _name(volume: Object) -> str:
    return str(volume["vol-id"][1] if volume.get("name") is None else volume["name"])


def _mib(kib: object) -> int:
    """The XMS writes sizes in KiB, as text. A part of a MiB that is there is not promised."""
    return int(str(kib)) // 1024


def _written(size_mib: int) -> str:
    return f"{size_mib // GIB}g"


def _serial(volume: Object) -> str:
    """As Linux writes it; a volume that was never mapped has none yet, and its name stands for it."""
    naa = str(volume.get("naa-name") or "").lower()
    return f"naa.{naa}" if naa else _name(volume)


def _snapshot(volume: Object) -> SnapshotReport:
    ancestor: Sequence[object] = volume.get("ancestor-vol-id") or ()
    return SnapshotReport(
        external_id=ExternalId(_name(volume)),
        volume=ExternalId(str(ancestor[1]) if len(ancestor) > 1 else ""),
        size_mib=_mib(volume["vol-size"]),
        token=naming.token_of_snapshot(_name(volume)),
    )


def _part(found: Mapping[str, Object], after: str | None, limit: int) -> tuple[list[str], str | None]:
    if limit < 1:
        raise Invalid(field="limit", value=limit, reason="a part has 1 item or more")
    names = sorted(name for name in found if after is None or name > after)
    return names[:limit], names[limit - 1] if len(names) > limit else None
