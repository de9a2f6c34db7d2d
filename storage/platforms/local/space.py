"""How much room a pool has. Images are sparse and folders have no quota, so the filesystem is what counts."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from storage.platforms.base import Room
from storage.platforms.local import layout
from storage.platforms.local.folders import Folder

MIB: Final = 1 << 20
_BLOCK: Final = 512
"""What st_blocks counts in, whatever the filesystem's own blocks are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A pool as it is now, in MiB."""

    capacity_mib: int
    """The cap that is set, or what the filesystem has."""
    foreign_mib: int
    """Of the capacity, what is not there for volumes: other files, snapshots, the filesystem's own reserve."""
    free_mib: int
    """What a new volume could be filled with at this moment."""
    device: int
    """Of its filesystem, as st_dev says it."""
    disk_mib: int
    """What the filesystem has."""
    others_mib: int
    """What is not free there, this pool's volumes aside."""
    volumes_mib: int
    """What this pool's volumes take there."""


def shared(pool: Space, pools: Iterable[Space]) -> Room | None:
    """The filesystem that several of the pools are on; None where it is this one's alone."""
    beside = [one for one in pools if one.device == pool.device]
    if len(beside) < 2:
        return None
    foreign_mib = pool.others_mib + pool.volumes_mib - sum(one.volumes_mib for one in beside)
    name = f"filesystem {os.major(pool.device)}:{os.minor(pool.device)}"
    return Room(name=name, capacity_mib=pool.disk_mib, foreign_mib=min(max(0, foreign_mib), pool.disk_mib))


def look(pool: Folder, suffix: str, cap_mib: int | None) -> Space:
    """Reads the size of every file of the pool: for reports, not for each call."""
    volumes, snapshots = _allocated(pool, suffix)
    free, size = _free(pool), _size(pool)
    capacity = cap_mib * MIB if cap_mib is not None else size
    foreign = max(snapshots, capacity - free - volumes) if cap_mib is not None else capacity - free - volumes
    left = min(free, capacity - volumes - snapshots)
    return Space(
        capacity_mib=capacity // MIB,
        foreign_mib=-(-max(0, foreign) // MIB),
        free_mib=max(0, left) // MIB,
        device=os.fstat(pool.fd).st_dev,
        disk_mib=size // MIB,
        others_mib=-(-max(0, size - free - volumes) // MIB),
        volumes_mib=volumes // MIB,
    )


def free_mib(pool: Folder, suffix: str, cap_mib: int | None) -> int:
    """What a new volume could be filled with; only a cap makes this read the pool."""
    return _free(pool) // MIB if cap_mib is None else look(pool, suffix, cap_mib).free_mib


def _free(folder: Folder) -> int:
    found = os.fstatvfs(folder.fd)
    return found.f_bavail * found.f_frsize


def _size(folder: Folder) -> int:
    found = os.fstatvfs(folder.fd)
    return found.f_blocks * found.f_frsize


def _allocated(pool: Folder, suffix: str) -> tuple[int, int]:
    """The bytes on disk of the pool's volumes, and of its snapshots."""
    volumes = snapshots = 0
    for folder in _folders(pool):
        for name in folder.names():
            stem = name.removesuffix(suffix)
            if stem != name and layout.volume_spot(stem):
                volumes += _on_disk(folder, name)
            elif stem != name and layout.snapshot_spot(stem):
                snapshots += _on_disk(folder, name)
    return volumes, snapshots


def _folders(pool: Folder) -> Iterator[Folder]:
    """Where things lie: the pool itself and its shards."""
    yield pool
    if volumes := pool.sub_or_none(layout.VOLUMES):
        with volumes:
            for shard in filter(layout.SHARD.fullmatch, volumes.names()):
                with volumes.sub(shard) as folder:
                    yield folder


def _on_disk(folder: Folder, name: str) -> int:
    """A file's bytes, or those of all that is in a folder; links are not followed, and what vanished meanwhile is nothing."""
    found = folder.stat(name)
    if found is None:
        return 0
    size = found.st_blocks * _BLOCK
    if stat.S_ISDIR(found.st_mode):
        for _, folders, files, fd in os.fwalk(name, dir_fd=folder.fd):
            size += sum(_blocks(fd, inner) for inner in (*folders, *files)) * _BLOCK
    return size


def _blocks(fd: int, name: str) -> int:
    with contextlib.suppress(FileNotFoundError):
        return os.stat(name, dir_fd=fd, follow_symlinks=False).st_blocks
    return 0
