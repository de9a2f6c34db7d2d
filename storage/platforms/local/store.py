"""The folders of a local platform: finding a thing by its id, the guard, making things whole or not at all, listing in parts.

It knows names and folders, not what a volume is. Raises OSError as the kernel does, and PlatformUnavailable where the root
is not there or a guard is not to be had: a missing root is never made, because it may be a disk that is not mounted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from storage.errors import Invalid, PlatformUnavailable
from storage.platforms.local import layout
from storage.platforms.local.folders import FOLDER_MODE, Folder, exclusive, locked
from storage.platforms.local.layout import Spot

GUARD_S: Final = 30.0
"""A guard is held for milliseconds; for that long only if a process was stopped, or the disk hangs."""
_FOREIGN: Final = "~"
"""In a cursor, the section of volumes that Polly did not make: after all shards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A thing that is there. The folder is open as long as the `with` that gave it."""

    spot: Spot
    pool: str
    folder: Folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    platform: str
    root: Path
    pools: tuple[str, ...]
    suffix: str
    """Of the data: `.img` or `.dir`."""
    ids: Callable[[], str]

    @contextlib.contextmanager
    def guard(self, shard: str) -> Iterator[Folder]:
        """Gives the root. Of all processes only one at a time is here with the same shard."""
        with self.opened() as root, root.made(layout.LOCKS) as locks:
            try:
                with exclusive(locks.open(shard, os.O_RDWR | os.O_CREAT), GUARD_S):
                    yield root
            except TimeoutError as error:
                reason = f"{locks.path / shard}: {error}; look for it with: fuser {locks.path / shard}"
                raise PlatformUnavailable(platform=self.platform, action="take a guard", reason=reason) from error

    def opened(self) -> Folder:
        try:
            return Folder.root(self.root)
        except OSError as error:
            raise PlatformUnavailable(platform=self.platform, action=f"open {self.root}", reason=error.strerror) from error

    def pool(self, root: Folder, pool: str) -> Folder | None:
        """A pool's folder. Only the default one is made: others may be disks that are not mounted."""
        return root.made(pool) if pool == layout.DEFAULT_POOL else root.sub_or_none(pool)

    def pool_or_refuse(self, root: Folder, pool: str) -> Folder:
        """Raises PlatformUnavailable where its folder is missing."""
        if found := self.pool(root, pool):
            return found
        raise PlatformUnavailable(platform=self.platform, action=f"open {self.root / pool}", reason="the pool's folder is not there")

    @contextlib.contextmanager
    def find(self, root: Folder, spot: Spot | None) -> Iterator[Found | None]:
        """The thing of this id, in whatever pool it lies; None if it is nowhere."""
        with contextlib.ExitStack() as opened:
            yield self._find(root, spot, opened) if spot else None

    def _find(self, root: Folder, spot: Spot, opened: contextlib.ExitStack) -> Found | None:
        for pool, place in self._places(root, spot, opened):
            if self.holds(place, spot.stem):
                return Found(spot=spot, pool=pool, folder=place)
        return None

    def _places(self, root: Folder, spot: Spot, opened: contextlib.ExitStack) -> Iterator[tuple[str, Folder]]:
        """The folder where the thing would be, in each pool that has it."""
        for pool in self.pools:
            place = root.sub_or_none(pool)
            for step in (layout.VOLUMES, spot.shard) if spot.own else ():
                place = opened.enter_context(place).sub_or_none(step) if place else None
            if place:
                yield pool, opened.enter_context(place)

    def clear(self, spot: Spot, names: Sequence[str]) -> None:
        """Removes what a deletion that broke off has left: files of these names beside data that is gone, and all that was staged."""
        with self.guard(spot.shard) as root, contextlib.ExitStack() as opened:
            for _, place in self._places(root, spot, opened):
                if not self.holds(place, spot.stem):
                    for name in names:
                        place.remove(name)
        with self.opened() as root:
            for pool in self.pools:
                with contextlib.suppress(FileNotFoundError), root.sub(pool) as place, place.sub(layout.NEW) as new:
                    _sweep(new)

    def holds(self, folder: Folder, stem: str) -> bool:
        """Whether the data of a thing is here, and is what it should be and no link."""
        found = folder.stat(stem + self.suffix)
        wanted = stat.S_ISREG if self.suffix == ".img" else stat.S_ISDIR
        return found is not None and wanted(found.st_mode)

    @contextlib.contextmanager
    def home(self, root: Folder, pool: str, spot: Spot) -> Iterator[Folder]:
        """The folder where a thing of Polly's own belongs, made if it is not there."""
        with self.pool_or_refuse(root, pool) as place:
            if not spot.own:
                yield place
                return
            with place.made(layout.VOLUMES) as volumes, volumes.made(spot.shard) as shard:
                yield shard

    @contextlib.contextmanager
    def staging(self, root: Folder, pool: str) -> Iterator[Folder]:
        """A folder of our own on the pool's filesystem, gone afterwards. What dead processes left is removed on the way."""
        with self.pool_or_refuse(root, pool) as place, place.made(layout.NEW) as new:
            _sweep(new)
            name, stage = _locked_folder(new, self.ids)
            with stage:
                try:
                    yield stage
                finally:
                    new.remove(name)

    def page(self, root: Folder, after: str | None, limit: int, *, wanted: Callable[[str], Spot | None]) -> tuple[list[Spot], str | None]:
        """Up to `limit` things in a stable order, and the cursor of the last if there may be more. Reads one shard at a time."""
        if limit < 1:
            raise Invalid(field="limit", value=limit, reason="a part has 1 item or more")
        spots: list[Spot] = []
        last = ""
        for section, stem in self._stems(root, _cursor(after), wanted):
            if len(spots) == limit:
                return spots, last
            if spot := wanted(stem):
                spots.append(spot)
                last = f"{section[0]}/{section[1]}/{stem}"
        return spots, None

    def _stems(
        self, root: Folder, after: tuple[str, str, str], wanted: Callable[[str], Spot | None]
    ) -> Iterator[tuple[tuple[str, str], str]]:
        for section in self._sections(root):
            if section < after[:2]:
                continue
            stems = self._section_stems(root, section, wanted)
            start = bisect_right(stems, after[2]) if section == after[:2] else 0
            for stem in stems[start:]:
                yield section, stem

    def _sections(self, root: Folder) -> Iterator[tuple[str, str]]:
        for pool in sorted(self.pools):
            with contextlib.suppress(FileNotFoundError), root.sub(pool) as place, place.sub(layout.VOLUMES) as volumes:
                yield from ((pool, shard) for shard in sorted(volumes.names()) if layout.SHARD.fullmatch(shard))
            yield pool, _FOREIGN

    def _section_stems(self, root: Folder, section: tuple[str, str], wanted: Callable[[str], Spot | None]) -> list[str]:
        pool, shard = section
        with contextlib.suppress(FileNotFoundError), root.sub(pool) as place:
            if shard == _FOREIGN:
                return self._stems_in(place, wanted, own=False)
            with place.sub(layout.VOLUMES) as volumes, volumes.sub(shard) as folder:
                return self._stems_in(folder, wanted, own=True)
        return []

    def _stems_in(self, folder: Folder, wanted: Callable[[str], Spot | None], *, own: bool) -> list[str]:
        stems = (name.removesuffix(self.suffix) for name in folder.names() if name.endswith(self.suffix))
        return sorted(stem for stem in stems if (spot := wanted(stem)) and spot.own is own)


def _cursor(after: str | None) -> tuple[str, str, str]:
    if after is None:
        return "", "", ""
    parts = after.split("/")
    if len(parts) != 3:
        raise Invalid(field="after", value=after, reason="it must be what the part before said")
    return parts[0], parts[1], parts[2]


def _sweep(new: Folder) -> None:
    for name in new.names():
        with contextlib.suppress(OSError), new.sub(name) as left:
            if locked(left.fd, fcntl.LOCK_EX):
                new.remove(name)


def _locked_folder(new: Folder, ids: Callable[[], str]) -> tuple[str, Folder]:
    """A new folder that shows by its lock that its maker lives."""
    while True:
        name = ids()
        with contextlib.suppress(FileNotFoundError):  # swept by another process before it was locked
            if stage := _lock_in_place(new, name):
                return name, stage


def _lock_in_place(new: Folder, name: str) -> Folder | None:
    os.mkdir(name, FOLDER_MODE, dir_fd=new.fd)
    stage = new.sub(name)
    there = locked(stage.fd, fcntl.LOCK_EX) and new.stat(name)
    if there and there.st_ino == os.fstat(stage.fd).st_ino:
        return stage
    os.close(stage.fd)
    return None
