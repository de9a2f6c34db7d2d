"""The two ways in which a local volume lies on the disk and is held: an image on a loop device, and a plain folder.

Both are held by a flock. An image's goes into the loop device and lives until its last mount is gone. A folder's lives as
long as any process has the descriptor, so the executor hands it on to the task's init.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from storage.model import AccessMode
from storage.platforms.local import loop
from storage.platforms.local.copying import can_reflink, copy_sparse, copy_tree, reflink
from storage.platforms.local.folders import FOLDER_MODE, Folder, locked
from storage.platforms.local.space import MIB
from storage.platforms.local.waiting import soon

GONE_S: Final = 5.0
"""How long a device may take to go after its last user: udev, or whoever looks for a free one, opens it for a moment."""

MODES: Final = frozenset({AccessMode.SINGLE_NODE_WRITER, AccessMode.SINGLE_NODE_READER_ONLY, AccessMode.MULTI_NODE_READER_ONLY})


class Hold(Protocol):
    """A volume that this process has brought here."""

    device: str

    def descriptor(self) -> int | None:
        """What keeps it held in every process that has it open, where that is a matter of processes."""

    def busy(self) -> str:
        """Who uses it in a way that forbids to let go; empty if nobody does."""

    def drop(self) -> None:
        """Lets go of what this process has; twice is fine."""

    def remains(self) -> str:
        """Who holds it although it was dropped; empty if nobody does."""


class Format(Protocol):
    suffix: str
    device: str

    def make(self, folder: Folder, stem: str, size_mib: int) -> None:
        """Empty data of this size, on disk once this returns."""

    def size_mib(self, folder: Folder, stem: str, asked_mib: int) -> int: ...

    def lock(self, folder: Folder, stem: str, *, read_only: bool) -> int:
        """The descriptor whose flock holds the data; not locked yet."""

    def probe(self, folder: Folder, stem: str) -> int | None:
        """A descriptor to ask that lock with; None where nothing can hold it. Makes nothing."""

    def hold(self, lock: int, folder: Folder, stem: str, *, read_only: bool) -> Hold:
        """Brings the data here. The locked descriptor belongs to the Hold from now on; to the caller if this raises."""

    def instant(self, source: Folder, stem: str, target: Folder, new_stem: str) -> bool:
        """A copy as of one moment, of data that may be in use; False where that cannot be."""

    def copy(self, source: Folder, stem: str, target: Folder, new_stem: str) -> None:
        """A copy of data that nobody writes to, on disk once this returns."""

    def grow(self, folder: Folder, stem: str, size_mib: int) -> None: ...

    def leftovers(self, stem: str) -> Sequence[str]:
        """The other files of a thing, apart from its data and its sidecar."""

    def copies_in_use(self, pool: Folder) -> bool:
        """Whether `instant` can be done in this pool."""


class LoopHold:
    def __init__(self, device: str, fd: int, backing: loop.Backing) -> None:
        self.device = device
        self._fd: int | None = fd
        self._backing = backing

    def descriptor(self) -> int | None:
        return None

    def busy(self) -> str:
        return f"a mount of {self.device}" if loop.stands_on(self.device, self._backing) and loop.in_use(self.device) else ""

    def drop(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def remains(self) -> str:
        gone = soon(lambda: not loop.stands_on(self.device, self._backing), GONE_S)
        return "" if gone else f"another user of {self.device}"


class ImageFormat:
    suffix = ".img"
    device = "block"

    def __init__(self, platform: str) -> None:
        self._platform = platform

    def make(self, folder: Folder, stem: str, size_mib: int) -> None:
        with open(self._image(folder, stem, os.O_RDWR | os.O_CREAT | os.O_EXCL), "wb") as image:
            image.truncate(size_mib * MIB)
            os.fsync(image.fileno())

    def size_mib(self, folder: Folder, stem: str, asked_mib: int) -> int:
        found = folder.stat(stem + self.suffix)
        return found.st_size // MIB if found else asked_mib

    def lock(self, folder: Folder, stem: str, *, read_only: bool) -> int:
        return self._image(folder, stem, os.O_RDONLY if read_only else os.O_RDWR)

    def probe(self, folder: Folder, stem: str) -> int | None:
        return self._image(folder, stem, os.O_RDONLY)

    def hold(self, lock: int, folder: Folder, stem: str, *, read_only: bool) -> Hold:
        backing = loop.Backing.of(lock)
        device, fd = loop.configure(lock, stem, platform=self._platform, read_only=read_only)
        os.close(lock)
        return LoopHold(device, fd, backing)

    def instant(self, source: Folder, stem: str, target: Folder, new_stem: str) -> bool:
        with (
            open(self._image(source, stem, os.O_RDONLY), "rb") as old,
            open(self._image(target, new_stem, os.O_RDWR | os.O_CREAT | os.O_EXCL), "wb") as new,
        ):
            done = reflink(old.fileno(), new.fileno())
        if not done:
            target.remove(new_stem + self.suffix)
        return done

    def copy(self, source: Folder, stem: str, target: Folder, new_stem: str) -> None:
        with (
            open(self._image(source, stem, os.O_RDONLY), "rb") as old,
            open(self._image(target, new_stem, os.O_RDWR | os.O_CREAT | os.O_EXCL), "wb") as new,
        ):
            copy_sparse(old.fileno(), new.fileno())

    def grow(self, folder: Folder, stem: str, size_mib: int) -> None:
        with open(self._image(folder, stem, os.O_RDWR), "rb+") as image:
            if os.fstat(image.fileno()).st_size < size_mib * MIB:
                image.truncate(size_mib * MIB)
                os.fsync(image.fileno())
            for device in loop.devices_on(loop.Backing.of(image.fileno())):
                loop.refresh_size(device)

    def leftovers(self, stem: str) -> Sequence[str]:
        return ()

    def copies_in_use(self, pool: Folder) -> bool:
        return can_reflink(pool)

    def _image(self, folder: Folder, stem: str, flags: int) -> int:
        return folder.open(stem + self.suffix, flags)


class FolderHold:
    def __init__(self, fd: int, folder: Path, *, read_only: bool) -> None:
        self.device = str(folder)
        self._fd: int | None = fd
        self._probe: int | None = None
        self._read_only = read_only

    def descriptor(self) -> int | None:
        return self._fd

    def busy(self) -> str:
        return next((f"a mount on {target}" for target in _mounts_of(self.device)), "")

    def drop(self) -> None:
        if self._fd is not None:
            self._probe = os.open(f"/proc/self/fd/{self._fd}", os.O_RDWR | os.O_CLOEXEC)
            os.close(self._fd)
            self._fd = None

    def remains(self) -> str:
        """Other readers may stay; beside a writer there was nobody, so whoever is left came from us."""
        if self._probe is None:
            return ""
        if not self._read_only and not locked(self._probe, fcntl.LOCK_EX):
            return "a process that was given its lock"
        os.close(self._probe)
        self._probe = None
        return ""


class FolderFormat:
    suffix = ".dir"
    device = "folder"

    def __init__(self, platform: str) -> None:
        self._platform = platform

    def make(self, folder: Folder, stem: str, size_mib: int) -> None:
        os.mkdir(stem + self.suffix, FOLDER_MODE, dir_fd=folder.fd)

    def size_mib(self, folder: Folder, stem: str, asked_mib: int) -> int:
        return asked_mib

    def lock(self, folder: Folder, stem: str, *, read_only: bool) -> int:
        return folder.open(f"{stem}.lock", os.O_RDWR | os.O_CREAT)

    def probe(self, folder: Folder, stem: str) -> int | None:
        with contextlib.suppress(FileNotFoundError):
            return folder.open(f"{stem}.lock", os.O_RDWR)
        return None

    def hold(self, lock: int, folder: Folder, stem: str, *, read_only: bool) -> Hold:
        return FolderHold(lock, folder.path / (stem + self.suffix), read_only=read_only)

    def instant(self, source: Folder, stem: str, target: Folder, new_stem: str) -> bool:
        return False

    def copy(self, source: Folder, stem: str, target: Folder, new_stem: str) -> None:
        copy_tree(source, stem + self.suffix, target, new_stem + self.suffix, platform=self._platform)

    def grow(self, folder: Folder, stem: str, size_mib: int) -> None:
        """Nothing: a folder has no size of its own."""

    def leftovers(self, stem: str) -> Sequence[str]:
        return (f"{stem}.lock",)

    def copies_in_use(self, pool: Folder) -> bool:
        return False


def _mounts_of(folder: str) -> Sequence[str]:
    """The mount points of this namespace that show the folder itself."""
    try:
        wanted = os.stat(folder, follow_symlinks=False)
    except FileNotFoundError:
        return ()
    device = f"{os.major(wanted.st_dev)}:{os.minor(wanted.st_dev)}"
    lines = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [parts[4] for parts in lines if parts[2] == device and _is_same(parts[4], wanted)]


def _is_same(target: str, wanted: os.stat_result) -> bool:
    with contextlib.suppress(OSError):
        found = os.stat(target.encode().decode("unicode_escape"), follow_symlinks=False)
        return stat.S_ISDIR(found.st_mode) and (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)
    return False


FORMATS: Final[dict[str, Callable[[str], Format]]] = {"image": ImageFormat, "folder": FolderFormat}
