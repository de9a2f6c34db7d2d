"""A PowerMax array as a state in memory: what it allows, what it refuses, and in which words. Knows no HTTP.

It is unkind where real ones may be: names of volumes are not unique, the number of a deleted volume is given out again, groups
have a largest size, and a group in a masking view never becomes empty.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.peers.powermax_objects import Group, Link, Port, Refused, Snapshot, View, Volume, known, missing

MIB_PER_CYLINDER: Final = 1.875
UNITS_MIB: Final = {"CYL": MIB_PER_CYLINDER, "MB": 1, "GB": 1024, "TB": 1024 * 1024}
LONGEST_NAME, LONGEST_SNAPSHOT_NAME = 64, 32


@dataclass(kw_only=True)
class Array:
    """All verbs are called with `lock` held."""

    microcode: str = "6079.225.0"
    usable_tb: float = 10.0
    subscribed_limit_tb: float = 50.0
    most_in_group: int = 4096
    most_snapshots: int = 256
    link_looks: int = 1
    volumes: dict[str, Volume] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    hosts: dict[str, list[str]] = field(default_factory=dict)
    port_groups: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict)
    ports: dict[tuple[str, str], Port] = field(default_factory=dict)
    snapshots: dict[tuple[str, str, int], Snapshot] = field(default_factory=dict)
    logged_in: set[str] = field(default_factory=set)
    """Initiators that the array's ports have seen."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self._snap_ids = itertools.count(118749976833)

    # --- looking --------------------------------------------------------------------------------

    def volume(self, key: str) -> Volume:
        return known("volume", self.volumes, key)

    def group(self, name: str) -> Group:
        return known("storage group", self.groups, name)

    def host(self, name: str) -> list[str]:
        return known("host", self.hosts, name)

    def view(self, name: str) -> View:
        return known("masking view", self.views, name)

    def groups_of(self, volume: str) -> list[str]:
        return sorted(group.name for group in self.groups.values() if volume in group.volumes)

    def views_of(self, *, group: str = "", host: str = "", ports: str = "") -> list[str]:
        return sorted(
            view.name for view in self.views.values() if group in ("", view.group) and host in ("", view.host) and ports in ("", view.ports)
        )

    def snapshots_of(self, volume: str) -> list[Snapshot]:
        return [one for one in self.snapshots.values() if one.source == volume]

    def links_to(self, volume: str) -> list[Snapshot]:
        return [one for one in self.snapshots.values() if volume in one.links]

    def subscribed_tb(self) -> float:
        return sum(volume.cylinders for volume in self.volumes.values()) * MIB_PER_CYLINDER / (1 << 20)

    def host_of(self, initiator: str) -> str:
        return next((name for name, initiators in self.hosts.items() if initiator in initiators), "")

    # --- volumes and groups -----------------------------------------------------------------------

    def make_group(self, name: str, srp: str, level: str, attributes: Iterable[Mapping[str, Any]]) -> list[Volume]:
        _checked_name("storage group", name)
        if name in self.groups:
            raise Refused(f"The requested storage group resource already exists: {name}", status=409)
        if srp not in ("None", "SRP_1"):
            raise missing("SRP", srp)
        if level not in ("None", "NONE", "Diamond", "Platinum", "Gold", "Silver", "Bronze", "Optimized"):
            raise Refused(f"Invalid service level: {level}", status=400)
        wanted = list(attributes)
        self._make_room(wanted)
        self.groups[name] = Group(name=name, srp=srp, level=level)
        return self.add_new(name, wanted)

    def delete_group(self, name: str) -> None:
        group = self.group(name)
        if self.views_of(group=name):
            raise Refused(f"Storage group {group.name} cannot be deleted because it is part of a masking view")
        del self.groups[name]

    def add_new(self, name: str, attributes: Sequence[Mapping[str, Any]]) -> list[Volume]:
        group = self.group(name)
        self._make_room(attributes)
        wanted = [one for one in attributes for _ in range(int(one.get("num_of_vols", 0)))]
        self._make_room_in(group, len(wanted))
        made = [self._new(group, one) for one in wanted]
        self._add(group, [volume.id for volume in made])
        return made

    def _new(self, group: Group, attributes: Mapping[str, Any]) -> Volume:
        identifier = attributes.get("volumeIdentifier") or {}
        name = str(identifier.get("identifier_name", ""))
        if len(name) > LONGEST_NAME:
            raise Refused(f"The volume identifier {name} is longer than {LONGEST_NAME} characters", status=400)
        key = next(f"{number:05X}" for number in itertools.count(1) if f"{number:05X}" not in self.volumes)
        volume = Volume(id=key, name=name, cylinders=cylinders(attributes), srp="SRP_1")
        self.volumes[key] = volume
        return volume

    def add_existing(self, name: str, keys: Sequence[str]) -> None:
        group = self.group(name)
        for key in keys:
            self.volume(key)
            if key in group.volumes:
                raise Refused(f"Volume {key} is already a member of the storage group {name}")
            if group.level != "None" and any(self.groups[one].level != "None" for one in self.groups_of(key)):
                raise Refused(f"A device cannot belong to more than one storage group in use by FAST: {key}")
        self._make_room_in(group, len(keys))
        self._add(group, keys)

    def remove(self, name: str, keys: Sequence[str]) -> None:
        group = self.group(name)
        for key in keys:
            if key not in group.volumes:
                raise Refused(f"Volume {key} is not a member of the storage group {name}")
        if self.views_of(group=name) and set(group.volumes) <= set(keys):
            raise Refused(f"The last device of storage group {name} cannot be removed while it is part of a masking view")
        for key in keys:
            del group.volumes[key]
            for view in self.views_of(group=name):
                self.views[view].luns.pop(key, None)

    def move(self, name: str, keys: Sequence[str], target: str) -> None:
        self.group(target)
        self.remove(name, keys)
        self.add_existing(target, keys)

    def resize(self, key: str, wanted: int) -> None:
        volume = self.volume(key)
        if wanted <= volume.cylinders:
            raise Refused(f"The new size of volume {key} must be larger than its size")
        self._make_room([{"volume_size": wanted - volume.cylinders, "capacityUnit": "CYL", "num_of_vols": 1}])
        volume.cylinders = wanted

    def rename(self, key: str, name: str) -> None:
        self.volume(key).name = name

    def delete(self, key: str) -> None:
        self.volume(key)
        if groups := self.groups_of(key):
            raise Refused(f"The volume {key} cannot be deleted because it is a member of the storage group(s) {', '.join(groups)}")
        if self.snapshots_of(key) or self.links_to(key):
            raise Refused(f"The volume {key} cannot be deleted because it is in a SnapVX session")
        del self.volumes[key]

    def _make_room(self, attributes: Iterable[Mapping[str, Any]]) -> None:
        more_tb = sum(cylinders(one) * int(one.get("num_of_vols", 0)) for one in attributes) * MIB_PER_CYLINDER / (1 << 20)
        if more_tb and self.subscribed_tb() + more_tb > self.subscribed_limit_tb:
            raise Refused("The operation failed because there is insufficient capacity available in the storage resource pool SRP_1")

    def _make_room_in(self, group: Group, more: int) -> None:
        if len(group.volumes) + more > self.most_in_group:
            raise Refused("Failed to create batch task(s): The maximum allowed devices for a storage group has been exceeded")

    def _add(self, group: Group, keys: Iterable[str]) -> None:
        for key in keys:
            group.volumes[key] = None
            for view in self.views_of(group=group.name):
                self._give_lun(self.views[view], key)

    def _give_lun(self, view: View, key: str) -> None:
        taken = {lun for one in self.views.values() if one.host == view.host for lun in one.luns.values()}
        view.luns[key] = next(lun for lun in itertools.count(1) if lun not in taken)

    # --- hosts, ports, views ----------------------------------------------------------------------

    def make_host(self, name: str, initiators: Sequence[str]) -> None:
        _checked_name("host", name)
        if name in self.hosts:
            raise Refused(f"The requested host resource already exists: {name}", status=409)
        for initiator in initiators:
            if self.host_of(initiator):
                raise Refused(f"The initiator {initiator} is already in use by host {self.host_of(initiator)}")
        self.hosts[name] = list(initiators)

    def delete_host(self, name: str) -> None:
        self.host(name)
        if self.views_of(host=name):
            raise Refused(f"Host {name} cannot be deleted because it is part of a masking view")
        del self.hosts[name]

    def make_port_group(self, name: str, ports: Iterable[tuple[str, str]]) -> None:
        _checked_name("port group", name)
        if name in self.port_groups:
            raise Refused(f"The requested port group resource already exists: {name}", status=409)
        wanted = list(ports)
        for port in wanted:
            if port not in self.ports:
                raise missing("port", ":".join(port))
        self.port_groups[name] = wanted

    def delete_port_group(self, name: str) -> None:
        if name not in self.port_groups:
            raise missing("port group", name)
        if self.views_of(ports=name):
            raise Refused(f"Port group {name} cannot be deleted because it is part of a masking view")
        del self.port_groups[name]

    def make_view(self, name: str, host: str, ports: str, group: str) -> None:
        _checked_name("masking view", name)
        if name in self.views:
            raise Refused(f"The requested masking view resource already exists: {name}", status=409)
        self.host(host)
        if ports not in self.port_groups:
            raise missing("port group", ports)
        if not self.group(group).volumes:
            raise Refused(f"The storage group {group} of a masking view must not be empty")
        if same := [one for one in self.views.values() if (one.host, one.ports, one.group) == (host, ports, group)]:
            raise Refused(f"A masking view of this host, port group and storage group already exists: {same[0].name}", status=409)
        view = self.views[name] = View(name=name, host=host, ports=ports, group=group)
        for key in self.groups[group].volumes:
            self._give_lun(view, key)

    def delete_view(self, name: str) -> None:
        self.view(name)
        del self.views[name]

    # --- SnapVX ---------------------------------------------------------------------------------------

    def generations(self, volume: str, name: str) -> list[Snapshot]:
        """The newest first: generation 0."""
        return sorted((one for one in self.snapshots_of(volume) if one.name == name), key=lambda one: -one.id)

    def generation_of(self, snapshot: Snapshot) -> int:
        return [one.id for one in self.generations(snapshot.source, snapshot.name)].index(snapshot.id)

    def find_snapshot(self, volume: str, name: str, *, snap_id: int | None = None, generation: int = 0) -> Snapshot:
        found = self.generations(self.volume(volume).id, name)
        if snap_id is not None:
            found = [one for one in found if one.id == snap_id]
            generation = 0
        if generation >= len(found):
            raise missing("snapshot", f"{name} of volume {volume}")
        return found[generation]

    def snap(self, volumes: Iterable[str], name: str) -> Iterator[Snapshot]:
        if len(name) > LONGEST_SNAPSHOT_NAME or not name.replace("-", "").replace("_", "").isalnum():
            raise Refused(f"The snapshot name {name} is not valid", status=400)
        key = next(self._snap_ids)
        sources = [self.volume(volume) for volume in volumes]
        for source in sources:
            if len(self.snapshots_of(source.id)) >= self.most_snapshots:
                raise Refused(f"The maximum number of snapshots for source device {source.id} has been exceeded")
        for source in sources:
            made = Snapshot(id=key, name=name, source=source.id, cylinders=source.cylinders, data=self._read(source), made_at=time.time())
            self.snapshots[source.id, name, key] = made
            yield made

    def _read(self, volume: Volume) -> bytes:
        """A target that is linked without a copy shows the snapshot until it is unlinked."""
        return volume.data

    def link(self, snapshot: Snapshot, target: str, *, copy: bool) -> None:
        volume = self.volume(target)
        if volume.id == snapshot.source:
            raise Refused("The source and the target must not be the same device")
        if self.links_to(target):
            raise Refused("The Target device cannot be manipulated because it is already a Copy session Target device")
        if volume.cylinders < snapshot.cylinders:
            raise Refused(f"The target device {target} is smaller than the source of the snapshot")
        snapshot.links[target] = Link(copy=copy, looks_left=self.link_looks)
        volume.data = snapshot.data

    def unlink(self, snapshot: Snapshot, target: str) -> None:
        link = snapshot.links.get(target)
        if link is None:
            raise Refused(f"The device {target} is not linked to the snapshot {snapshot.name}")
        if not (link.is_done and link.copy):
            self.volumes[target].data = b""
        del snapshot.links[target]

    def restore(self, snapshot: Snapshot) -> None:
        self.volume(snapshot.source).data = snapshot.data

    def rename_snapshot(self, snapshot: Snapshot, name: str) -> None:
        del self.snapshots[snapshot.source, snapshot.name, snapshot.id]
        snapshot.name = name
        self.snapshots[snapshot.source, name, snapshot.id] = snapshot

    def terminate(self, snapshot: Snapshot) -> None:
        if snapshot.links:
            raise Refused(f"The snapshot {snapshot.name} cannot be terminated because it has linked targets")
        del self.snapshots[snapshot.source, snapshot.name, snapshot.id]


def cylinders(attributes: Mapping[str, Any]) -> int:
    """A size as the array makes it: whole cylinders, rounded up."""
    try:
        size_mib = float(attributes.get("volume_size", 0)) * UNITS_MIB[str(attributes.get("capacityUnit", "GB"))]
    except (KeyError, ValueError):
        raise Refused("The volume size or its unit is not valid", status=400) from None
    return math.ceil(size_mib / MIB_PER_CYLINDER)


def _checked_name(kind: str, name: str) -> None:
    if not 0 < len(name) <= LONGEST_NAME or not name.replace("-", "").replace("_", "").isalnum() or not name[0].isalnum():
        raise Refused(f"The {kind} name {name!r} is not valid", status=400)


def small_array(**more: Any) -> Array:
    """One SRP, two iSCSI and two Fibre Channel ports in a group each."""
    array = Array(**more)
    for number, director in enumerate(("OR-1C", "OR-2C"), start=1):
        iqn = f"iqn.1992-04.com.emc:600009700bca30c01e3e012e0000000{number}"
        array.ports[director, "1"] = Port(director=director, number="1", identifier=iqn, addresses=(f"192.168.7.{number}",))
    for number, director in enumerate(("OR-1C", "OR-2C"), start=1):
        array.ports[director, "4"] = Port(director=director, number="4", identifier=f"500009735001bc0{number}")
    array.make_port_group("polly-iscsi", [("OR-1C", "1"), ("OR-2C", "1")])
    array.make_port_group("polly-fc", [("OR-1C", "4"), ("OR-2C", "4")])
    return array
