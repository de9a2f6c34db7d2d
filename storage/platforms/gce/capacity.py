"""How much the pools hold: what the region's quota gives, less what others use of it; or what the operator says.

All pools of one region that count for one quota share it: it is their room.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from storage.platforms.base import PoolReport, Room
from storage.platforms.gce import tags
from storage.platforms.gce.api import Api
from storage.platforms.gce.kinds import GIB_IN_MIB, TYPES
from storage.platforms.gce.names import pool_name, region_of
from storage.platforms.gce.options import GceOptions
from storage.platforms.gce.records import kind_of, place_of

MOST_MIB: Final = 1 << 40
"""A quota without a limit is written as a very large one."""
TAKEN: Final = f"(labels.{tags.OURS} = {tags.MADE}) OR (labels.{tags.BIRTH['serial']}:*)"
"""What Polly has made, and what it has taken over: the ledger counts both."""


def pools(options: GceOptions, api: Api) -> Sequence[PoolReport]:
    """A pool whose quota the region does not tell is left out: the operator has to say what it holds."""
    if options.capacity_mib is not None:
        return [_report(zone, kind, options.capacity_mib, 0) for zone in options.zones for kind in options.types]
    quotas = {region: api.quotas(region) for region in dict.fromkeys(map(region_of, options.zones))}
    ours: Counter[tuple[str, str]] = Counter()
    for disk in api.all_disks(TAKEN):
        if kind_of(disk) in options.types and place_of(disk).zone in options.zones:
            ours[region_of(place_of(disk).zone), TYPES[kind_of(disk)].quota] += disk.size_gb
    reports = []
    for zone in options.zones:
        for kind in options.types:
            region, quota = region_of(zone), TYPES[kind].quota
            limit, usage = quotas[region].get(quota, (0, 0))
            if limit > 0:
                foreign_mib = max(0, usage - ours[region, quota]) * GIB_IN_MIB
                reports.append(_report(zone, kind, limit * GIB_IN_MIB, foreign_mib, f"{region} {quota}"))
    return reports


def _report(zone: str, kind: str, capacity_mib: int, foreign_mib: int, quota: str = "") -> PoolReport:
    capacity_mib = min(capacity_mib, MOST_MIB)
    foreign_mib = min(foreign_mib, capacity_mib)
    return PoolReport(
        name=pool_name(zone, kind),
        capacity_mib=capacity_mib,
        foreign_mib=foreign_mib,
        region=region_of(zone),
        zone=zone,
        labels={"type": kind},
        room=Room(name=quota, capacity_mib=capacity_mib, foreign_mib=foreign_mib) if quota else None,
    )
