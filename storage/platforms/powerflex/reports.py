"""What the array shows, as Polly reports it: volumes, snapshots and pools."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from storage.errors import UnknownVolume
from storage.model import ExternalId
from storage.platforms.base import PoolReport, SnapshotReport, VolumeReport
from storage.platforms.powerflex import names
from storage.platforms.powerflex.array import Pool, PowerFlexArray
from storage.platforms.powerflex.failures import GONE, Refused
from storage.platforms.powerflex.objects import KB_PER_MIB, READ_ONLY, Mapping, Space, Volume
from storage.platforms.powerflex.options import PowerFlexOptions

ID: Final = re.compile(r"[0-9a-f]{16}")
SNAPSHOT_TYPE: Final = "Snapshot"


def is_snapshot(volume: Volume) -> bool:
    """On the array a snapshot is a volume. Polly tells its own by their names; of others' it takes the read-only ones for snapshots."""
    if kind := names.kind_in(volume.name or ""):
        return kind == names.SNAPSHOT
    return volume.volume_type == SNAPSHOT_TYPE and volume.access_mode_limit == READ_ONLY


def may_be_snapshot(volume: Volume) -> bool:
    """Also one that was renamed: what was made from a volume and has no name of Polly's may be either, and is what it is asked for as."""
    return is_snapshot(volume) or (volume.volume_type == SNAPSHOT_TYPE and not names.kind_in(volume.name or ""))


class Reports:
    """Makes reports of one platform's volumes."""

    def __init__(self, array: PowerFlexArray, options: PowerFlexOptions) -> None:
        self._array, self._options = array, options

    def known(self, external_id: ExternalId) -> Volume:
        """The volume. Raises UnknownVolume, also for an id that none can have and for a snapshot's."""
        volume = self._array.volume(external_id) if ID.fullmatch(external_id) else None
        if volume is None or is_snapshot(volume):
            raise UnknownVolume(volume=external_id)
        return volume

    def known_snapshot(self, external_id: ExternalId) -> Volume | None:
        """None for one that is gone, and for a volume."""
        if not ID.fullmatch(external_id):
            return None
        try:
            found = self._array.volume(external_id)
        except Refused as refused:
            if refused.means(GONE):
                return None
            raise
        return found if may_be_snapshot(found) else None

    def volume(self, volume: Volume, *, token: str = "") -> VolumeReport:
        """`token`: what it was looked for with, where its name does not tell."""
        pool = self._array.pool_of(volume)
        return VolumeReport(
            external_id=ExternalId(volume.id),
            pool=pool.name if pool else volume.storage_pool_id,
            size_mib=volume.size_mib,
            serial=self.serial(volume.id),
            token=names.token_in(volume.name or "") or token,
            name=volume.name or "",
            held_by=tuple(self.holder(mapping) for mapping in volume.mapped),
            zone=self._options.zone,
        )

    def serial(self, volume: str) -> str:
        """What the node's driver calls the device."""
        return f"{self._array.system()}-{volume}"

    def holder(self, mapping: Mapping) -> str:
        """What the node calls itself, as far as the array says."""
        sdc = self._array.sdc_of(mapping)
        return sdc.called if sdc else mapping.sdc_name or mapping.sdc_ip or mapping.sdc_id

    def snapshot(self, snapshot: Volume, *, token: str = "") -> SnapshotReport:
        return SnapshotReport(
            external_id=ExternalId(snapshot.id),
            volume=ExternalId(snapshot.ancestor_volume_id or ""),
            size_mib=snapshot.size_mib,
            token=names.token_in(snapshot.name or "") or token,
            created_at=float(snapshot.creation_time),
        )

    def pools(self, pools: Sequence[Pool]) -> list[PoolReport]:
        spaces = self._array.space([pool.id for pool in pools]) if pools else {}
        volumes = self._array.volumes() if pools else ()
        self._array.walked()
        return [self._pool(pool, spaces[pool.id], volumes) for pool in pools if pool.id in spaces]

    def _pool(self, pool: Pool, space: Space, volumes: Iterable[Volume]) -> PoolReport:
        capacity_mib = (space.net_capacity_in_use_in_kb + space.net_unused_capacity_in_kb) // KB_PER_MIB
        promised_mib = sum(volume.size_mib for volume in volumes if volume.storage_pool_id == pool.id and _is_foreign(volume))
        return PoolReport(
            name=pool.name,
            capacity_mib=capacity_mib,
            foreign_mib=min(promised_mib, capacity_mib),
            region=self._options.region,
            zone=self._options.zone,
        )


def _is_foreign(volume: Volume) -> bool:
    """Whether others have made it. What was made from a volume shares its data, and is counted with it."""
    return volume.ancestor_volume_id is None and not names.kind_in(volume.name or "")
