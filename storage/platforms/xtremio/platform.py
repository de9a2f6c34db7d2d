"""The adapter of XtremIO: a cluster is a pool, a volume is found by its name, a snapshot is a volume that nobody maps.

The array keeps no marks, and gives one volume to as many hosts as ask: that a volume is on one node only is seen to here, by
looking again after each mapping and giving way to whoever else is there.
"""

from __future__ import annotations

import random
import time
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
from storage.platforms import cloning
from storage.platforms.base import Attachment, Capabilities, CreateRequest, Finding, Platform, PoolReport, SnapshotReport, VolumeReport
from storage.platforms.options import write_options
from storage.platforms.pacing import TokenBucket
from storage.platforms.restapi import Answer, RestApi, Timing
from storage.platforms.xtremio import doctor, naming
from storage.platforms.xtremio.hosts import Hosts, groups_in
from storage.platforms.xtremio.options import XtremioOptions
from storage.platforms.xtremio.xms import NotThere, Refused, Xms, named

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
        capacity_mib = self._options.capacity_mib or _mib(cluster, "ud-ssd-space")
        foreign_mib = sum(_mib(found) for found in self._all_volumes() if not naming.is_ours(_name(found)))
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
        found = {_name(volume): volume for volume in self._all_volumes() if naming.is_volume(_name(volume))}
        names, last = _part(found, after, limit)
        called = self._hosts.called(group for name in names for group in maps[name])
        held = {name: tuple(sorted(called[group] for group in maps[name])) for name in names}
        return Page(items=[self._report(found[name], held[name]) for name in names], after=last)

    def _all_volumes(self) -> list[Answer]:
        return self._xms.all("volumes", props=VOLUME_PROPS)

    def inspect(self, external_id: ExternalId) -> VolumeReport:
        """Also by its bare name, as a person writes it who adopts a volume."""
        bare = self._named(external_id) if naming.is_volume(external_id) else None
        found = bare if bare is not None else self._known(external_id)
        return self._report(found, self._holders(_name(found)))

    def _holders(self, name: str) -> tuple[str, ...]:
        return tuple(sorted(self._hosts.called(groups_in(self._hosts.maps_of(name))).values()))

    def _known(self, external_id: ExternalId) -> Answer:
        """Raises UnknownVolume, also where the name is another volume's by now."""
        name = naming.name_in(external_id)
        found = self._named(name) if naming.is_volume(name) else None
        if found is None or _id(found) != external_id:
            raise UnknownVolume(volume=external_id)
        return found

    def _named(self, name: str) -> Answer | None:
        """A volume or a snapshot of this name, a copy that is begun as well."""
        try:
            found = self._xms.get("volumes", name, action="look at a volume")
        except NotThere:
            return None
        if _name(found) != name:
            raise found.wrong(f"is called {_name(found)!r} where {name!r} was asked for")
        return found

    def _report(self, volume: Answer, held_by: tuple[str, ...], *, token: str = "") -> VolumeReport:
        """`token`: of a copy that has not got its name yet."""
        name = _name(volume)
        return VolumeReport(
            external_id=_id(volume),
            pool=self._xms.cluster,
            size_mib=_mib(volume),
            serial=_serial(volume),
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
        if (found := self._named(name)) is not None:
            return self._report(found, self._holders(name))
        begun = (one for one in self._all_volumes() if _name(one).endswith(naming.begun_name("", name)))
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
        if self._named(name) is None:
            if (origin := self._origin(request, size_mib)) is None:
                self._make(name, size_mib)
            else:
                self._copy(origin, name, "regular", size_mib)
        if request.snapshot is not None or request.source is not None:
            self._resize(name, size_mib)
        return self.inspect(ExternalId(name))

    def _origin(self, request: CreateRequest, size_mib: int) -> str | None:
        """What a writable snapshot is to be made of, which gets its name in a second step: one that waits for it is taken up."""
        if request.source is not None:
            source = self.inspect(request.source)
            cloning.check(request, source, size_mib)
            return source.external_id
        if request.snapshot is None:
            return None
        snapshot = self._named(request.snapshot) if naming.is_snapshot(request.snapshot) else None
        if snapshot is None:
            raise UnknownSnapshot(snapshot=request.snapshot)
        if size_mib < _mib(snapshot):
            raise Invalid(field="size_mib", value=size_mib, reason=f"snapshot {request.snapshot} has {_mib(snapshot)} MiB")
        return _name(snapshot)

    def _make(self, name: str, size_mib: int) -> None:
        try:
            self._xms.create("volumes", {"vol-name": name, "vol-size": _written(size_mib)}, action="create a volume")
        except Refused as error:
            if error.words != "vol_obj_name_not_unique":
                raise self._full(error, size_mib) from error

    def _copy(self, source: str, name: str, kind: str, size_mib: int) -> None:
        values = {"volume-list": [source], "snapshot-set-name": f"{name}-set", "snap-suffix": name, "snapshot-type": kind}
        try:
            self._xms.create("snapshots", values, action="copy a volume")
        except Refused as error:
            if "not_unique" not in error.words:
                raise self._full(error, size_mib) from error
        self._name_copy(naming.begun_name(source, name), name)

    def _name_copy(self, begun: str, name: str) -> None:
        try:
            self._xms.change("volumes", begun, {"vol-name": name}, action="name a copy")
        except NotThere:
            if self._named(name) is None:  # otherwise somebody with the same token has named it in the same moment
                raise
        except Refused as error:
            if "not_unique" not in error.words:
                raise
            self._discard(begun)  # somebody with the same token has named another

    def _discard(self, name: str) -> None:
        try:
            self._xms.delete("volumes", name, action="delete a volume")
        except NotThere:
            return

    def _full(self, error: Refused, size_mib: int) -> PollyError:
        if error.words in LIMITS:
            return PoolFull(pool=f"{self._xms.cluster} ({error.words})", platform=self._name, free_mib=0, size_mib=size_mib)
        return error

    def delete(self, external_id: ExternalId) -> None:
        """Also a copy that has not got its name yet."""
        try:
            name = external_id if naming.is_begun(external_id) and external_id.isprintable() else _name(self._known(external_id))
        except UnknownVolume:
            return
        self._refuse_mapped(name)
        try:
            self._discard(name)
        except Refused:
            self._refuse_mapped(name)
            raise

    def _refuse_mapped(self, name: str) -> None:
        if held := self._holders(name):
            raise VolumeInUse(volume=name, holder=", ".join(held))

    def expand(self, external_id: ExternalId, size_mib: int) -> VolumeReport:
        found = self._known(external_id)
        wanted, now_mib = self.capabilities.fit(size_mib), _mib(found)
        if wanted < now_mib:
            raise Invalid(field="size_mib", value=size_mib, reason=f"volume {external_id} has {now_mib} MiB, and volumes never shrink")
        self._resize(_name(found), wanted)
        return self.inspect(external_id)

    def _resize(self, name: str, size_mib: int) -> None:
        if self._size_mib(name) < size_mib:
            try:
                self._xms.change("volumes", name, {"vol-size": _written(size_mib)}, action="expand a volume")
            except NotThere as error:
                raise UnknownVolume(volume=name) from error
            except Refused as error:
                if self._size_mib(name) < size_mib:  # otherwise somebody has made it larger in the same moment
                    raise self._full(error, size_mib) from error

    def _size_mib(self, name: str) -> int:
        found = self._named(name)
        if found is None:
            raise UnknownVolume(volume=name)
        return _mib(found)

    # --- attach, detach -------------------------------------------------------------------------------------------

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        name = _name(self._known(external_id))
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
            raise UnknownVolume(volume=name) from error
        if groups_in(self._hosts.maps_of(name)) == [group]:
            return True
        if not was_there:
            self._hosts.unmap(name, group)
        return False

    def _attachment(self, external_id: ExternalId, group: str, *, read_only: bool) -> Attachment:
        """The array names a volume for the network, its NAA, with its first mapping; so it is read again."""
        volume = self._known(external_id)
        serial, maps = _serial(volume), self._hosts.maps_of(_name(volume))
        mapping = next((found for found in maps if found["ig-name"] == group), None)
        if mapping is None:
            reason = f"somebody has taken volume {external_id} from {group} in the same moment"
            raise PlatformUnavailable(platform=self._name, action="attach a volume", reason=reason)
        is_iscsi = self._options.protocol == "iscsi"
        return Attachment(
            external_id=external_id,
            device=f"/dev/disk/by-id/wwn-0x{serial.removeprefix('naa.')}",
            serial=serial,
            read_only=read_only,
            transport="iscsi" if is_iscsi else "",
            context={"lun": str(mapping["lun"]), "portals": self._hosts.portals()} if is_iscsi else {"lun": str(mapping["lun"])},
        )

    def detach(self, external_id: ExternalId, node: str) -> None:
        """`node` may also be the name of an initiator group."""
        try:
            name = _name(self._known(external_id))
        except UnknownVolume:
            return
        for group in self._hosts.groups(node):
            self._hosts.unmap(name, group)

    # --- snapshots --------------------------------------------------------------------------------------------------

    def snapshots(self, *, after: str | None = None, limit: int = 1000) -> Page[SnapshotReport]:
        found = {_name(volume): volume for volume in self._all_volumes() if naming.is_snapshot(_name(volume))}
        names, last = _part(found, after, limit)
        return Page(items=[_snapshot(found[name]) for name in names], after=last)

    def snapshot(self, external_id: ExternalId, *, token: str, name: str = "") -> SnapshotReport:
        """One that is there, or begun, is the token's also where its volume is gone by now."""
        wanted = naming.snapshot_name(token)
        begun = naming.begun_name(naming.name_in(external_id), wanted)
        if self._named(wanted) is None:
            try:
                source = self._known(external_id)
            except UnknownVolume:
                if not begun.isprintable() or self._named(begun) is None:
                    raise
                self._name_copy(begun, wanted)
            else:
                self._copy(_name(source), wanted, "readonly", _mib(source))
        return _snapshot(self._xms.get("volumes", wanted, action="look at a snapshot"))

    def delete_snapshot(self, snapshot: ExternalId) -> None:
        if naming.is_snapshot(snapshot) and self._named(snapshot) is not None:
            self._discard(snapshot)

    # --- the whole --------------------------------------------------------------------------------------------------

    def check(self) -> Sequence[Finding]:
        return doctor.check(self._options, self._xms, self._hosts)

    def close(self) -> None:
        self._api.close()


def _name(volume: Answer) -> str:
    return str(volume.get("name") or named(volume, "vol-id"))


def _id(volume: Answer) -> ExternalId:
    name = _name(volume)
    return naming.volume_id(name, "" if naming.is_ours(name) else str((volume.get("vol-id") or [""])[0]))


def _mib(found: Answer, key: str = "vol-size") -> int:
    """The XMS writes sizes in KiB, as text. A part of a MiB that is there is not promised."""
    return found.whole(key) // 1024


def _written(size_mib: int) -> str:
    return f"{size_mib // GIB}g"


def _serial(volume: Answer) -> str:
    """As Linux writes it; a volume that was never mapped has none yet, and its name stands for it."""
    naa = str(volume.get("naa-name") or "").lower()
    return f"naa.{naa}" if naa else _name(volume)


def _snapshot(volume: Answer) -> SnapshotReport:
    origin = naming.volume_id(named(volume, "ancestor-vol-id"), str(volume["ancestor-vol-id"][0])) if volume.get("ancestor-vol-id") else ""
    return SnapshotReport(
        external_id=ExternalId(_name(volume)),
        volume=ExternalId(origin),
        size_mib=_mib(volume),
        token=naming.token_of_snapshot(_name(volume)),
    )


def _part(found: Mapping[str, Answer], after: str | None, limit: int) -> tuple[list[str], str | None]:
    if limit < 1:
        raise Invalid(field="limit", value=limit, reason="a part has 1 item or more")
    names = sorted(name for name in found if after is None or name > after)
    return names[:limit], names[limit - 1] if len(names) > limit else None
