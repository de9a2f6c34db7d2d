"""What the pools of a cloud are: volume types in availability zones for everybody, the scheduler's pools for administrators.

Of the first the quota is the capacity: a type's own, if it has one, in the project's, which all of them share. Of the second the backend
says it; one that says `infinite` or `unknown` has no end here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from storage.errors import Invalid, UnknownPool
from storage.model import Sizes
from storage.platforms.base import PoolReport, Room
from storage.platforms.cinder import records
from storage.platforms.cinder.client import Client
from storage.platforms.cinder.records import GIB_MIB, Json

ENDLESS_MIB: Final = 1 << 40
"""An exbibyte: the capacity of what has none."""
TYPE: Final = "type"
"""The one parameter that a profile may give: the volume type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a new volume is asked for."""

    volume_type: str
    zone: str | None = None
    host: str = ""
    """The scheduler's pool that it must come to; empty: any."""


class Pooling(Protocol):
    may_stray: bool
    """Whether Cinder could put a volume elsewhere than it was asked for."""

    def reports(self, volumes: Iterable[Json]) -> Sequence[PoolReport]: ...

    def pool_of(self, volume: Json) -> str: ...

    def check(self, parameters: Mapping[str, str]) -> None:
        """Raises Invalid for what goes with no pool, and asks Cinder nothing."""

    def place(self, pool: str, parameters: Mapping[str, str]) -> Place:
        """Raises UnknownPool, and Invalid for parameters that do not go with the pool."""

    def sizes(self, pool: str, parameters: Mapping[str, str]) -> Sizes | None:
        """Those of the volume type, as the last `reports` saw them; None where they are not known. Raises as `place`, asks nobody."""


class ByType:
    """Pools `ZONE/TYPE`, which everybody can see."""

    may_stray = False

    def __init__(self, client: Client, platform: str, *, zone_bound: bool, region: str) -> None:
        self._client, self._platform, self._zone_bound, self._region = client, platform, zone_bound, region
        self._sizes: Mapping[str, Sizes] = {}

    def reports(self, volumes: Iterable[Json]) -> Sequence[PoolReport]:
        project = self._client.project("read the quota")
        quota = self._client.get(f"/os-quota-sets/{project}", action="read the quota", usage="true")["quota_set"]
        types = sorted(_types(self._client), key=lambda one: str(one["name"]))
        self._sizes = {str(one["name"]): _sizes_of(one) for one in types}
        ours = Counter[str]()
        for volume in volumes:
            if records.token(volume):
                ours[self.pool_of(volume)] += int(volume["size"])
        return [
            self._report(zone, one["name"], quota, ours)
            for zone in self._zones()
            for one in types
            if ours[f"{zone}/{one['name']}"] or (_is_exclusive(one) and _is_for(one, zone))
        ]

    def pool_of(self, volume: Json) -> str:
        return f"{volume.get('availability_zone') or ''}/{volume.get('volume_type') or ''}"

    def check(self, parameters: Mapping[str, str]) -> None:
        _only_type(parameters)

    def place(self, pool: str, parameters: Mapping[str, str]) -> Place:
        zone, _, kind = pool.partition("/")
        if not (zone and kind):
            raise UnknownPool(pool=pool, platform=self._platform)
        _only_type(parameters)
        wanted = parameters.get(TYPE, kind)
        if wanted != kind:
            reason = f"the pool says the volume type, {kind}; no parameter is needed"
            raise Invalid(field=f"parameters.{TYPE}", value=wanted, reason=reason)
        return Place(volume_type=kind, zone=zone)

    def sizes(self, pool: str, parameters: Mapping[str, str]) -> Sizes | None:
        return self._sizes.get(self.place(pool, parameters).volume_type)

    def _zones(self) -> list[str]:
        found = self._client.get("/os-availability-zone", action="list availability zones")["availabilityZoneInfo"]
        return sorted(one["zoneName"] for one in found if one["zoneState"]["available"])

    def _report(self, zone: str, kind: str, quota: Mapping[str, Any], ours: Counter[str]) -> PoolReport:
        """Its own is what the type's quota has, and its room the project's; each stands for the other where that has no limit.

        Where no volume more may be made, the others' part is all that is not ours.
        """
        name = f"{zone}/{kind}"
        of_type = sum(size for pool, size in ours.items() if pool.partition("/")[2] == kind)
        typed = _room(f"gigabytes_{kind}", quota, of_type)
        room = _room("gigabytes", quota, ours.total()) or typed
        own = _room(f"gigabytes_{kind}", quota, ours[name]) or room
        capacity_mib = own.capacity_mib if own else ENDLESS_MIB
        foreign_mib = own.foreign_mib if own else 0
        if any(_is_used_up(quota.get(count)) for count in ("volumes", f"volumes_{kind}")):
            foreign_mib = max(foreign_mib, capacity_mib - ours[name] * GIB_MIB)
        return PoolReport(
            name=name,
            capacity_mib=capacity_mib,
            foreign_mib=foreign_mib,
            region=self._region,
            zone=zone if self._zone_bound else "",
            labels={"volume_type": kind, "availability_zone": zone},
            room=room,
        )


def _sizes_of(volume_type: Json) -> Sizes:
    """Extra specs are shown to administrators alone; of others Cinder refuses what is too small or too large when it is asked for it."""
    specs = volume_type.get("extra_specs") or {}
    least, most = (
        int(text) if (text := str(specs.get(f"provisioning:{key}_vol_size", ""))).isdecimal() else None for key in ("min", "max")
    )
    return Sizes(
        of=f"volume type {volume_type['name']}",
        min_mib=max(1, least or 1) * GIB_MIB,
        max_mib=most * GIB_MIB if most else None,
        granularity_mib=GIB_MIB,
    )


def _room(name: str, quota: Mapping[str, Any], ours_gib: int) -> Room | None:
    """What a quota leaves, Polly's own volumes aside; None where there is none, or it has no limit."""
    found = quota.get(name)
    if found is None or found["limit"] < 0:
        return None
    capacity_mib = max(1, int(found["limit"]) * GIB_MIB)
    foreign_mib = (_used(found) - ours_gib) * GIB_MIB
    return Room(name=name, capacity_mib=capacity_mib, foreign_mib=min(max(0, foreign_mib), capacity_mib))


def _types(client: Client) -> list[Json]:
    found: list[Json] = client.get("/types", action="list volume types")["volume_types"]
    return found


def _specs(kind: Json) -> Mapping[str, str]:
    """What a type asks of its backend; who is no administrator sees what users must know of it."""
    return kind.get("extra_specs") or {}


def _is_exclusive(kind: Json) -> bool:
    return _specs(kind).get("multiattach") != "<is> True"


def _is_for(kind: Json, zone: str) -> bool:
    """A type may be kept to some availability zones."""
    zones = _specs(kind).get("RESKEY:availability_zones")
    return not zones or zone in [one.strip() for one in zones.split(",")]


def _is_used_up(found: Mapping[str, Any] | None) -> bool:
    return found is not None and 0 <= int(found["limit"]) <= _used(found)


def _used(found: Mapping[str, Any]) -> int:
    return int(found["in_use"]) + int(found.get("reserved") or 0)


class ByBackend:
    """The scheduler's pools, such as `host@backend#pool`; only an administrator sees them, and where a volume is."""

    may_stray = True

    def __init__(self, client: Client, platform: str, *, region: str) -> None:
        self._client, self._platform, self._region = client, platform, region

    def reports(self, volumes: Iterable[Json]) -> Sequence[PoolReport]:
        ours = Counter[str]()
        for volume in volumes:
            if records.token(volume):
                ours[self.pool_of(volume)] += records.size_mib(volume)
        return [self._report(pool["name"], pool["capabilities"], ours[pool["name"]]) for pool in self._pools()]

    def pool_of(self, volume: Json) -> str:
        return str(volume.get("os-vol-host-attr:host") or "")

    def check(self, parameters: Mapping[str, str]) -> None:
        _only_type(parameters)

    def place(self, pool: str, parameters: Mapping[str, str]) -> Place:
        found = next((one for one in self._pools() if one["name"] == pool), None)
        if found is None:
            raise UnknownPool(pool=pool, platform=self._platform)
        _only_type(parameters)
        wanted, leading = parameters.get(TYPE), self._types_to(found)
        chosen = wanted or (leading[0] if len(leading) == 1 else None)
        if chosen not in leading or chosen is None:
            reason = f"it must be one of the volume types that lead to this pool: {', '.join(leading) or 'there is none'}"
            raise Invalid(field=f"parameters.{TYPE}", value=wanted or "", reason=reason)
        return Place(volume_type=chosen, host=pool)

    def sizes(self, pool: str, parameters: Mapping[str, str]) -> Sizes | None:
        """Which type a volume gets is seen only when Cinder is asked."""
        return None

    def _pools(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._client.get("/scheduler-stats/get_pools", action="list the scheduler's pools", detail="true")[
            "pools"
        ]
        return sorted(found, key=lambda pool: str(pool["name"]))

    def _types_to(self, pool: Mapping[str, Any]) -> list[str]:
        backend = pool["capabilities"].get("volume_backend_name")
        types = [one for one in _types(self._client) if _is_exclusive(one)]
        return sorted(one["name"] for one in types if _specs(one).get("volume_backend_name") == backend)

    def _report(self, name: str, able: Mapping[str, Any], ours_mib: int) -> PoolReport:
        capacity, free = _gib(able.get("total_capacity_gb")), _gib(able.get("free_capacity_gb"))
        used = max(capacity - free, 0) if capacity is not None and free is not None else 0
        capacity_mib = max(1, int(capacity * GIB_MIB)) if capacity is not None else ENDLESS_MIB
        labels = {key: str(able[key]) for key in ("volume_backend_name", "storage_protocol", "vendor_name") if able.get(key)}
        foreign_mib = min(max(0, int(used * GIB_MIB) - ours_mib), capacity_mib)
        return PoolReport(name=name, capacity_mib=capacity_mib, foreign_mib=foreign_mib, region=self._region, labels=labels)


def _only_type(parameters: Mapping[str, str]) -> None:
    for key, value in parameters.items():
        if key != TYPE:
            raise Invalid(field=f"parameters.{key}", value=value, reason=f"Cinder's volumes have one parameter, {TYPE}")


def _gib(said: object) -> float | None:
    """None for `infinite`, `unknown` and what else is no number."""
    try:
        return float(str(said)) if str(said) not in ("infinite", "unknown") else None
    except ValueError:
        return None
