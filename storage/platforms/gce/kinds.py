"""The types of zonal disks, and what Google allows of each. Regional disks are not among them: they belong to no one zone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from storage.model import Sizes

GIB_IN_MIB: Final = 1024


class DiskType(Struct, frozen=True, kw_only=True):
    name: str
    quota: str
    """The regional quota that its gigabytes count for."""
    least_gib: int
    most_gib: int = 65536
    iops: bool = False
    """Takes provisionedIops."""
    throughput: bool = False
    """Takes provisionedThroughput."""
    many_readers: bool = False
    """May be attached to several instances for reading."""

    @property
    def sizes(self) -> Sizes:
        return Sizes(
            of=f"type {self.name}", min_mib=self.least_gib * GIB_IN_MIB, max_mib=self.most_gib * GIB_IN_MIB, granularity_mib=GIB_IN_MIB
        )


TYPES: Final[Mapping[str, DiskType]] = {
    kind.name: kind
    for kind in (
        DiskType(name="pd-standard", quota="DISKS_TOTAL_GB", least_gib=10, many_readers=True),
        DiskType(name="pd-balanced", quota="SSD_TOTAL_GB", least_gib=10, many_readers=True),
        DiskType(name="pd-ssd", quota="SSD_TOTAL_GB", least_gib=10, many_readers=True),
        DiskType(name="pd-extreme", quota="SSD_TOTAL_GB", least_gib=500, iops=True, many_readers=True),
        DiskType(name="hyperdisk-balanced", quota="HDB_TOTAL_GB", least_gib=4, iops=True, throughput=True),
        DiskType(name="hyperdisk-extreme", quota="HDX_TOTAL_GB", least_gib=64, iops=True),
        DiskType(name="hyperdisk-throughput", quota="HDT_TOTAL_GB", least_gib=2048, most_gib=32768, throughput=True),
    )
}
