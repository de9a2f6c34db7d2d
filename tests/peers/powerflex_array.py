"""A PowerFlex array as a state in memory: what its metadata manager (MDM) allows, what it refuses, and with which code.

Knows no HTTP. Codes and sentences are those of the array's own table; codes above 226 other than 4037 and 4039 were not seen
on a real one.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

SYSTEM: Final = "14dbbf5617523654"
GIB_KB: Final = 1 << 20
GRANULE_KB: Final = 8 * GIB_KB
MOST_IN_A_VTREE: Final = 127
"""A volume and its 126 snapshots."""
LONGEST_NAME: Final = 31


class Refused(Exception):
    """The MDM says no."""

    def __init__(self, code: int, message: str, *, status: int = 500, details: Iterable[int] = ()) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status, self.details = code, message, status, tuple(details)


@dataclass(kw_only=True)
class Domain:
    id: str
    name: str
    kind: str = "Mirroring"


@dataclass(kw_only=True)
class Pool:
    id: str
    name: str
    domain: str
    net_kb: int
    limit_kb: int
    """How much may be promised in all: thin volumes may be more than there is."""
    padded: bool = True
    layout: str = "MediumGranularity"


@dataclass(kw_only=True)
class Sdc:
    id: str
    guid: str
    ip: str
    name: str | None = None
    approved: bool = True


@dataclass(kw_only=True)
class Volume:
    id: str
    name: str
    pool: str
    size_kb: int
    kind: str
    vtree: str
    ancestor: str | None = None
    created: int = 0
    limit: str = "ReadWrite"
    compression: str = "None"
    mapped: dict[str, str] = field(default_factory=dict)
    """Access modes by SDC."""
    limits: dict[str, tuple[int, int]] = field(default_factory=dict)
    data: bytes = b""
    """What its hosts have written, for tests that look at it."""


@dataclass(kw_only=True)
class Array:
    """One system. All verbs are atomic, as the MDM's are."""

    version: str
    most_mappings: int = 1024
    clock: Callable[[], float] = time.time
    domains: dict[str, Domain] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)
    sdcs: dict[str, Sdc] = field(default_factory=dict)
    volumes: dict[str, Volume] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)

    # --- looking --------------------------------------------------------------------------------

    def volume(self, key: str) -> Volume:
        if len(key) != 16 or not set(key) <= set("0123456789abcdef"):
            raise Refused(0, "id must be a hexadecimal number (unsigned long)", status=400)
        if key not in self.volumes:
            raise Refused(79, "Could not find the volume")
        return self.volumes[key]

    def named(self, name: str) -> Volume:
        for volume in self.volumes.values():
            if volume.name == name:
                return volume
        raise Refused(79, "Could not find the volume")

    def pool(self, key: str) -> Pool:
        if key not in self.pools:
            raise Refused(171, "Could not find Storage Pool")
        return self.pools[key]

    def domain(self, key: str) -> Domain:
        if key not in self.domains:
            raise Refused(142, "Could not find Protection Domain")
        return self.domains[key]

    def sdc(self, wanted: Mapping[str, Any]) -> Sdc:
        key, guid = wanted.get("sdcId"), str(wanted.get("guid", "")).lower()
        for sdc in self.sdcs.values():
            if sdc.id == key or (guid and sdc.guid.lower() == guid):
                return sdc
        raise Refused(80, "Could not find the SDC")

    def tree(self, vtree: str) -> list[Volume]:
        return [volume for volume in self.volumes.values() if volume.vtree == vtree]

    def promised_kb(self, pool: str) -> int:
        return sum(volume.size_kb for volume in self.volumes.values() if volume.pool == pool and volume.ancestor is None)

    def used_kb(self, pool: str) -> int:
        """Thick volumes use all that they have, and thin ones nothing that would be worth counting here."""
        return sum(volume.size_kb for volume in self.volumes.values() if volume.pool == pool and volume.kind == "ThickProvisioned")

    # --- changing -------------------------------------------------------------------------------

    def create(self, wanted: Mapping[str, Any]) -> Volume:
        pool, size_kb = self.pool(str(wanted.get("storagePoolId", ""))), _size_kb(wanted)
        if wanted.get("protectionDomainId", pool.domain) != pool.domain:
            raise Refused(197, "The specified Storage Pool is not in the specified Protection Domain")
        kind = str(wanted.get("volumeType") or "ThickProvisioned")
        if kind not in ("ThinProvisioned", "ThickProvisioned"):
            raise Refused(
                0, f"volumeType should get one of the following values: ThickProvisioned, ThinProvisioned, but its value is {kind}"
            )
        key = self._key()
        name = self._free_name(wanted.get("name") or f"volume-{key}")
        self._make_room(pool, size_kb, thick=kind == "ThickProvisioned")
        compression = str(wanted.get("compressionMethod") or "None")
        return self._add(Volume(id=key, name=name, pool=pool.id, size_kb=size_kb, kind=kind, vtree=self._key(), compression=compression))

    def snapshot(self, wanted: Mapping[str, Any]) -> list[Volume]:
        pairs = [(self.volume(str(one["volumeId"])), one.get("snapshotName")) for one in wanted["snapshotDefs"]]
        made = []
        for origin, name in pairs:
            if len(self.tree(origin.vtree)) >= MOST_IN_A_VTREE:
                raise Refused(0, "One or more snapshots could not be made", details=[182])
            key = self._key()
            copy = Volume(
                id=key,
                name=self._free_name(name or f"snap-{key}"),
                pool=origin.pool,
                size_kb=origin.size_kb,
                kind="Snapshot",
                vtree=origin.vtree,
                ancestor=origin.id,
                limit=str(wanted.get("accessModeLimit") or "ReadWrite"),
                data=origin.data,
            )
            made.append(self._add(copy))
        return made

    def resize(self, key: str, size_kb: int) -> None:
        volume = self.volume(key)
        wanted = -(-size_kb // GRANULE_KB) * GRANULE_KB
        if wanted <= volume.size_kb:
            raise Refused(133, "Volume capacity can only be increased")
        self._make_room(self.pool(volume.pool), wanted - volume.size_kb, thick=volume.kind == "ThickProvisioned")
        volume.size_kb = wanted

    def rename(self, key: str, name: str) -> None:
        volume = self.volume(key)
        if volume.name != name:
            volume.name = self._free_name(name)

    def overwrite(self, key: str, source: str) -> None:
        volume, origin = self.volume(key), self.volume(source)
        if volume.vtree != origin.vtree:
            raise Refused(198, "To overwrite the content of a volume, the source and target volumes must be from the same V-Tree.")
        volume.data = origin.data

    def remove(self, key: str, mode: str) -> None:
        """ONLY_ME leaves what was made from it: the children become its ancestor's."""
        volume = self.volume(key)
        doomed = {"ONLY_ME": [volume], "WHOLE_VTREE": self.tree(volume.vtree), "INCLUDING_DESCENDANTS": self._below(volume)}.get(mode)
        if doomed is None:
            raise Refused(0, f"removeMode has a value that is not known: {mode}", status=400)
        if any(one.mapped for one in doomed):
            raise Refused(104, "Volume is mapped")
        for one in doomed:
            for child in self.volumes.values():
                child.ancestor = one.ancestor if child.ancestor == one.id else child.ancestor
            del self.volumes[one.id]

    def map(self, key: str, wanted: Mapping[str, Any]) -> None:
        volume, sdc = self.volume(key), self.sdc(wanted)
        newer = self.version >= "4.0"
        if not sdc.approved:
            raise Refused(321, "The SDC is not approved")
        if sdc.id in volume.mapped:
            raise Refused(4037 if newer else 81, f"The volume is already mapped to this {'host' if newer else 'SDC'}")
        if volume.mapped and not _truth(wanted.get("allowMultipleMappings")):
            raise Refused(297, "This volume is already mapped and may not be mapped to additional SDCs.")
        if sum(sdc.id in one.mapped for one in self.volumes.values()) >= self.most_mappings:
            raise Refused(294, "The SDC is mapped to too many volumes. Please remove some mapping.")
        mode = str(wanted.get("accessMode") or volume.limit)
        if mode == "ReadWrite" and volume.limit == "ReadOnly":
            raise Refused(58, "Write access is needed")
        volume.mapped[sdc.id] = mode

    def unmap(self, key: str, wanted: Mapping[str, Any]) -> None:
        volume = self.volume(key)
        if "allSdcs" in wanted and not wanted.get("sdcId") and not wanted.get("guid"):
            volume.mapped.clear()
            return
        sdc = self.sdc(wanted)
        if sdc.id not in volume.mapped:
            raise Refused(4039 if self.version >= "4.0" else 84, "The volume is not mapped to SDC")
        del volume.mapped[sdc.id]

    def set_mode(self, key: str, wanted: Mapping[str, Any]) -> None:
        volume, sdc = self.volume(key), self.sdc(wanted)
        if sdc.id not in volume.mapped:
            raise Refused(4039 if self.version >= "4.0" else 84, "The volume is not mapped to SDC")
        volume.mapped[sdc.id] = str(wanted["accessMode"])

    def set_limits(self, key: str, wanted: Mapping[str, Any]) -> None:
        sdc = self.sdc(wanted)
        self.volume(key).limits[sdc.id] = (int(wanted.get("iopsLimit") or 0), int(wanted.get("bandwidthLimitInKbps") or 0))

    # --- its rules ------------------------------------------------------------------------------

    def _key(self) -> str:
        return f"{0x254A2B3C:08x}{next(self._numbers):08x}"

    def _add(self, volume: Volume) -> Volume:
        volume.created = int(self.clock())
        self.volumes[volume.id] = volume
        return volume

    def _free_name(self, name: str) -> str:
        if len(name) > LONGEST_NAME:
            raise Refused(226, "The given name exceeds the allowed length of 31 characters.")
        if not name.isascii() or not name.isprintable() or " " in name:
            raise Refused(227, "The given name contains invalid characters. Use alphanumeric and punctuation characters only.")
        if any(volume.name == name for volume in self.volumes.values()):
            raise Refused(99, "Volume name already in use. Please use a different name.")
        return name

    def _make_room(self, pool: Pool, more_kb: int, *, thick: bool) -> None:
        if self.promised_kb(pool.id) + more_kb > pool.limit_kb:
            raise Refused(313, "Requested volume size exceeds the volume allocation limit")
        if thick and self.used_kb(pool.id) + more_kb > pool.net_kb:
            raise Refused(67, "Insufficient resources")

    def _below(self, volume: Volume) -> list[Volume]:
        children = [one for one in self.volumes.values() if one.ancestor == volume.id]
        return [volume, *(one for child in children for one in self._below(child))]


def _size_kb(wanted: Mapping[str, Any]) -> int:
    try:
        size_kb = int(wanted["volumeSizeInKb"]) if "volumeSizeInKb" in wanted else int(wanted["volumeSizeInGb"]) * GIB_KB
    except (KeyError, ValueError):
        raise Refused(0, "Volume size must be given as a number", status=400) from None
    if size_kb <= 0:
        raise Refused(225, "The specified volume size is illegal. Volume size must be in 8 GB blocks")
    if size_kb > (1 << 20) * GIB_KB:
        raise Refused(190, "The volume size too large")
    return -(-size_kb // GRANULE_KB) * GRANULE_KB


def _truth(value: object) -> bool:
    return str(value).lower() == "true"


def small_array(version: str) -> Array:
    """Two protection domains with three pools, and four SDCs."""
    array = Array(version=version)
    array.domains = {key: Domain(id=key, name=name) for key, name in (("fa85edfd00000000", "domain1"), ("fa85edfd00000001", "domain2"))}
    first, second = array.domains
    for number, (name, domain, padded) in enumerate((("fast", first, True), ("slow", first, True), ("raw", second, False))):
        key = f"6c6dc5450000000{number}"
        array.pools[key] = Pool(id=key, name=name, domain=domain, net_kb=64 << 30, limit_kb=256 << 30, padded=padded)
    for number in range(1, 5):
        key, guid = f"01f7117d0000000{number}", f"028888FA-502A-4FAC-A888-1FA3B256358{number}"
        array.sdcs[key] = Sdc(id=key, guid=guid, ip=f"192.168.10.{number}")
    return array
