"""What the pools hold: as much as the operator says, or as their folders' disks do, which several of them may share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from storage.platforms.base import PoolReport, Room
from storage.platforms.virtualbox import layout
from storage.platforms.virtualbox.host import Disk
from storage.platforms.virtualbox.media import Media
from storage.platforms.virtualbox.options import VirtualBoxOptions


class Pools:
    def __init__(self, media: Media, options: VirtualBoxOptions) -> None:
        self._media, self._host, self._options = media, media.host, options

    def reports(self) -> Sequence[PoolReport]:
        """A pool whose folder is missing is left out: its disk may not be mounted, and VirtualBox would make the folder."""
        folders = {pool: self._media.places.folder(pool) for pool in self._options.pools}
        there = [pool for pool, folder in folders.items() if self._host.has_folder(folder)]
        if self._options.capacity_mib is not None:
            return [self._report(pool, self._options.capacity_mib, self._copies_mib([pool]), self._total()) for pool in there]
        disks = {pool: disk for pool in there if (disk := self._host.disk(folders[pool]))}
        found = {name: self._measured(name, disks) for name in {disk.name for disk in disks.values()}}
        return [self._report(pool, *found[disk.name]) for pool, disk in disks.items()]

    def _measured(self, name: str, disks: Mapping[str, Disk]) -> tuple[int, int, Room | None]:
        """Of a disk: what it holds, what others than Polly's volumes take of that, and the room that it is for several pools."""
        together = [pool for pool, disk in disks.items() if disk.name == name]
        disk = disks[together[0]]
        foreign_mib = self._used_by_others(disk, together)
        room = Room(name=name, capacity_mib=disk.size_mib, foreign_mib=foreign_mib) if len(together) > 1 else None
        return disk.size_mib, foreign_mib, self._total() or room

    def _report(self, pool: str, capacity_mib: int, foreign_mib: int, room: Room | None) -> PoolReport:
        return PoolReport(
            name=pool,
            capacity_mib=capacity_mib,
            foreign_mib=min(capacity_mib, foreign_mib),
            room=room,
            region=self._options.region,
            zone=self._options.zone,
        )

    def _total(self) -> Room | None:
        if (total_mib := self._options.total_mib) is None:
            return None
        foreign_mib = min(total_mib, self._copies_mib(self._options.pools))
        return Room(name=self._options.root, capacity_mib=total_mib, foreign_mib=foreign_mib)

    def _copies_mib(self, pools: Collection[str]) -> int:
        """What snapshots and unfinished media take, and our lock."""
        ids = [known.uuid for known, place in self._media.listed() if place.pool in pools and not layout.is_volume(place)]
        return sum(self._host.sizes(ids).values())

    def _used_by_others(self, disk: Disk, pools: Collection[str]) -> int:
        ours = [known.uuid for known, place in self._media.listed() if place.pool in pools and layout.is_volume(place)]
        return max(0, disk.size_mib - disk.free_mib - sum(medium.on_disk_mib for medium in self._host.look(ours).values()))
