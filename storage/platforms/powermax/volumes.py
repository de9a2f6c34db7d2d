"""The array's volumes and storage groups, as the adapter asks for them. Sizes on the array are whole cylinders.

Names of volumes are not unique on the array; what is made of that is in `making` and `copying`.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from storage.errors import Conflict, PoolFull
from storage.model import ExternalId
from storage.platforms.powermax import naming
from storage.platforms.powermax.unisphere import EXISTS, FULL, GROUP_FULL, LOCKS, NO_MEMBER, NotThere, Object, Refused, Unisphere
from storage.platforms.restapi import Answer

CYLINDER_KIB: Final = 1920
GRANULE_MIB: Final = 15
"""Eight cylinders: the smallest size that is whole MiB and whole cylinders."""
MADE: Final = re.compile(r"Creating new Volumes.*\[([0-9A-F]{5})\]")
NO_LEVEL: Final = "None"
LISTING_S: Final = 15.0
"""How old the list may be that a walk through its parts goes on with: the array lists everything, each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    device: str
    name: str
    cylinders: int
    wwn: str
    groups: tuple[str, ...]
    is_source: bool = False
    """It has snapshots."""
    is_written: bool = False
    sessions: tuple[Answer, ...] = ()
    """Its snapshots, where a list has told them."""
    srp: str = ""

    @property
    def id(self) -> ExternalId:
        return naming.volume_id(self.device, self.name)

    @property
    def size_mib(self) -> int:
        return self.cylinders * CYLINDER_KIB // 1024

    @property
    def serial(self) -> str:
        """As Linux writes it."""
        return f"naa.{self.wwn.lower()}"

    @property
    def is_copying(self) -> bool:
        return any(naming.is_copying(group) for group in self.groups)

    @property
    def is_used(self) -> bool:
        """Somebody has it, or had it: of two with one name it is the one."""
        return self.is_source or self.is_written or not all(naming.is_home(group) for group in self.groups)


def _from_details(said: Answer) -> Volume:
    return Volume(
        device=str(said["volumeId"]),
        name=str(said.get("volume_identifier") or ""),
        cylinders=said.whole("cap_cyl"),
        wwn=str((said.get("has_effective_wwn") and said.get("effective_wwn")) or said["wwn"]),
        groups=tuple(sorted(said.get("storageGroupId") or ())),
        is_source=str(said.get("snapvx_source")).lower() == "true",
        is_written=said.number("allocated_percent", otherwise=0.0) > 0,
    )


def _from_list(said: Answer) -> Volume:
    header = said.part("volumeHeader")
    sessions = said.part("timeFinderInfo").objects("snapVXSession", optional=True) if said.get("timeFinderInfo") else []
    name = str(header.get("userDefinedIdentifier") or "")
    return Volume(
        device=str(header["volumeId"]),
        name="" if name == "N/A" else name,
        cylinders=int(header.number("capMB") * 1024 / CYLINDER_KIB + 0.3),  # its MB are rounded
        wwn=str((header.get("hasEffectiveWWN") and header.get("effectiveWWN")) or header.get("wwn") or ""),
        groups=tuple(sorted(header.get("storageGroup") or ())),
        sessions=tuple(one.part("snapshotHeader") for session in sessions for one in session.objects("srcSnapshotGenInfo", optional=True)),
        srp=str(header.get("SRP") or ""),
    )


def _is_plain(said: Answer) -> bool:
    """A thin volume of open systems, and none of the array's own."""
    header = said.part("volumeHeader")
    own = header.get("private") or header.get("system_resource") or header.get("encapsulated")
    return not own and header.get("configuration", "TDEV") == "TDEV" and header.get("emulationType", "FBA") == "FBA"


class Volumes:
    """Raises PlatformUnavailable and Refused beside what it says."""

    def __init__(self, unisphere: Unisphere, platform: str, array: str, now: Callable[[], float]) -> None:
        self._unisphere, self._platform, self._array, self._now = unisphere, platform, array, now
        self._lock = threading.Lock()
        self._listed: tuple[float, list[Volume]] | None = None

    # --- looking --------------------------------------------------------------------------------

    def get(self, device: str) -> Volume:
        """Raises NotThere."""
        return _from_details(self._unisphere.get("look at a volume", "volume", device))

    def named(self, name: str) -> list[Volume]:
        """All volumes of this name, in the order of their devices."""
        found = self._unisphere.all("look for a volume", "volume", volume_identifier=name)
        seen = []
        for device in sorted(str(one["volumeId"]) for one in found):
            try:
                seen.append(self.get(device))
            except NotThere:
                continue
        return [volume for volume in seen if volume.name == name]

    def all(self, *, anew: bool = True) -> list[Volume]:
        """Every thin volume of the array, in the order of their devices."""
        with self._lock:
            if anew or self._listed is None or self._now() - self._listed[0] > LISTING_S:
                found = self._unisphere.all("list its volumes", "volume", private=True)
                self._listed = self._now(), sorted((_from_list(one) for one in found if _is_plain(one)), key=lambda one: one.device)
            return self._listed[1]

    def choose(self, found: Sequence[Volume]) -> Volume | None:
        """The volume that counts, of those with one name; one that is in no group is being deleted. Raises Conflict."""
        ready = [volume for volume in found if volume.groups and not volume.is_copying]
        used = [volume for volume in ready if volume.is_used]
        if len(used) > 1:
            names = ", ".join(volume.device for volume in used)
            raise Conflict(what=f"the name {used[0].name} on array {self._array}", expected="one volume", found=f"{names}, each in use")
        return next(iter(used or ready), None)

    # --- making and removing --------------------------------------------------------------------

    def make(self, name: str, size_mib: int, *, srp: str, level: str) -> str:
        """A new volume in the first group of its pool and level that has room; its device, or empty if the array does not tell."""
        number = 1
        while True:
            try:
                return self.make_in(naming.pool_group(srp, level, number), name, size_mib, srp=srp, level=level)
            except Refused as error:
                if not error.says(GROUP_FULL):
                    raise
            number += 1

    def make_in(self, group: str, name: str, size_mib: int, *, srp: str, level: str) -> str:
        body = {"expandStorageGroupParam": {"addVolumeParam": _new_volume(name, size_mib)}}
        try:
            job = self._edit_or_make(group, "create a volume", body, srp=srp, level=level)
        except Refused as error:
            raise self.full(error, srp, size_mib) from error
        told = [found[1] for task in job.objects("task", optional=True) if (found := MADE.search(str(task.get("description", ""))))]
        return told[0] if told else ""

    def full(self, error: Refused, srp: str, size_mib: int) -> Refused | PoolFull:
        if error.says(FULL):
            return PoolFull(pool=srp, platform=self._platform, free_mib=0, size_mib=size_mib, reason=error.fields["reason"])
        return error

    def make_group(self, group: str, *, srp: str, level: str, first: str = "", size_mib: int = GRANULE_MIB) -> None:
        """There already is fine. `first` names a volume that comes with it, the smallest one unless `size_mib` says more."""
        attributes = _attributes(first, size_mib) if first else {"volume_size": "0", "capacityUnit": "GB", "num_of_vols": 0}
        levels = {"sloId": level, "workloadSelection": "NONE", "volumeAttributes": [attributes]}
        body = {"storageGroupId": group, "srpId": srp, "emulation": "FBA", "sloBasedStorageGroupParam": [levels]}
        try:
            self._unisphere.begin("make a storage group", "POST", "storagegroup", body=body)
        except Refused as error:
            if not error.says(EXISTS):
                raise

    def drop_group(self, group: str) -> None:
        """One that is empty. Gone already is fine, and so is one that the array keeps."""
        with contextlib.suppress(Refused):
            self._unisphere.change("drop a storage group", "DELETE", "storagegroup", group)

    def groups(self) -> list[str]:
        """The names of all storage groups."""
        return self._unisphere.names("look for storage groups", "storagegroup", "storageGroupId")

    def is_empty(self, group: str) -> bool:
        """Gone already is not empty."""
        try:
            return self._unisphere.get("look at a storage group", "storagegroup", group).whole("num_of_vols") == 0
        except NotThere:
            return False

    def add(self, group: str, device: str, action: str) -> None:
        """Raises NotThere for an unknown group or volume."""
        body = {"expandStorageGroupParam": {"addSpecificVolumeParam": {"volumeId": [device], "remoteSymmSGInfoParam": {"force": "false"}}}}
        self._edit(group, action, body)

    def take(self, group: str, device: str, action: str) -> bool:
        """Out of the group; False where it was not in it."""
        try:
            self._edit(group, action, {"removeVolumeParam": {"volumeId": [device], "remoteSymmSGInfoParam": {"force": "false"}}})
        except Refused as error:
            if isinstance(error, NotThere) or error.says(NO_MEMBER):
                return False
            raise
        return True

    def move(self, source: str, device: str, srp: str, level: str) -> None:
        """Into the first group of a pool and level that has room. Raises Refused where it is no longer in `source`."""
        number = 1
        while True:
            target = naming.pool_group(srp, level, number)
            body = {"moveVolumeToStorageGroupParam": {"volumeId": [device], "storageGroupId": target, "force": "false"}}
            try:
                self.make_group(target, srp=srp, level=level)
                self._edit(source, "finish a copy", body)
                return
            except Refused as error:
                if not error.says(GROUP_FULL):
                    raise
            number += 1

    def rename(self, device: str, name: str) -> None:
        """Raises NotThere."""
        identifier = {"identifier_name": name, "volumeIdentifierChoice": "identifier_name"}
        body = {"editVolumeActionParam": {"modifyVolumeIdentifierParam": {"volumeIdentifier": identifier}}}
        self._unisphere.change("name a volume", "PUT", "volume", device, body=body)

    def grow(self, device: str, size_mib: int) -> None:
        body = {"expandVolumeParam": {"volumeAttribute": {"volume_size": _cylinders(size_mib), "capacityUnit": "CYL"}}}
        self._unisphere.begin("expand a volume", "PUT", "volume", device, body={"editVolumeActionParam": body})

    def remove(self, volume: Volume) -> None:
        """Out of its groups, and gone. Gone already is fine. What is not deleted goes back where it was: one that somebody uses in the
        same moment, and one that has got the number of this one meanwhile, for in no group it cannot be another's before it is gone."""
        taken = [group for group in volume.groups if self.take(group, volume.device, "delete a volume")]
        try:
            if self.get(volume.device).name == volume.name:
                self._unisphere.change("delete a volume", "DELETE", "volume", volume.device)
            else:
                self._put_back(taken, volume.device)
        except NotThere:
            return
        except Refused:
            self._put_back(taken, volume.device)
            raise

    def _put_back(self, groups: Sequence[str], device: str) -> None:
        for group in groups:
            with contextlib.suppress(Refused):
                self.add(group, device, "leave a volume where it was")

    def _edit_or_make(self, group: str, action: str, body: Object, *, srp: str, level: str) -> Answer:
        try:
            return self._edit(group, action, body)
        except NotThere:
            self.make_group(group, srp=srp, level=level)
        return self._edit(group, action, body)

    def _edit(self, group: str, action: str, body: Object) -> Answer:
        with LOCKS.hold(self._array, group):
            return self._unisphere.begin(action, "PUT", "storagegroup", group, body={"editStorageGroupActionParam": body})


def _new_volume(name: str, size_mib: int) -> Object:
    return {"emulation": "FBA", "create_new_volumes": "True", "volumeAttributes": [_attributes(name, size_mib)]}


def _attributes(name: str, size_mib: int) -> Object:
    identifier = {"identifier_name": name, "volumeIdentifierChoice": "identifier_name"}
    return {"num_of_vols": 1, "volumeIdentifier": identifier, "volume_size": _cylinders(size_mib), "capacityUnit": "CYL"}


def _cylinders(size_mib: int) -> str:
    return str(-(-size_mib * 1024 // CYLINDER_KIB))
