"""ext4 and xfs: made only on a blank device, looked at before each mount, grown while mounted, never shrunk.

Each kind knows its tools and reads its own superblock; the guards around them are the same for both.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol
from uuid import UUID

from storage.errors import DamagedFilesystem, Invalid, NodeError, NotBlank
from storage.node import devices, mounts, options, probing
from storage.node.commands import Output, Run
from storage.node.options import MountOptions
from storage.node.pace import Pace
from storage.node.targets import Target

MIB: Final = 1 << 20
MKFS_S: Final = 600.0
FSCK_S: Final = 3600.0
"""A preen that must replay and check a large filesystem takes long; killing it halfway helps nobody."""
GROW_S: Final = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Superblock:
    """The little of a superblock that Polly reads by itself."""

    uuid: str
    size_bytes: int
    is_finished: bool
    """mkfs has written its last block."""
    needs_replay: bool = False
    """It was not unmounted; its journal must be replayed before anything else looks at it."""
    is_clean: bool = False
    """It was unmounted, says of no error and is never due for a whole check: its check will only read."""


class Filesystem(Protocol):
    """One kind of filesystem."""

    @property
    def name(self) -> str: ...

    @property
    def min_mib(self) -> int:
        """The smallest device that mkfs takes."""

    def mkfs(self, uuid: str, options: Mapping[str, str], *, is_shared: bool) -> list[str]:
        """The command that makes it, without the device. `is_shared`: several nodes can reach the device at a time."""

    def superblock(self, head: bytes) -> Superblock:
        """Read from the first 4 KiB of the device. Raises ValueError."""

    def check(self, device: str, run: Run) -> None:
        """Before a mount for writing: repairs what is safe to repair. Raises DamagedFilesystem, NodeError."""

    def audit(self, device: str, target: Target, run: Run, *, read_only: bool) -> None:
        """Reads the whole structure of an unmounted filesystem of unknown origin, once its journal was replayed, and changes nothing else.

        `read_only`: not even that. Raises DamagedFilesystem, NodeError.
        """

    def identify(self, device: str, uuid: str, target: Target, run: Run) -> str:
        """Gives a copy of another filesystem an identity of its own where the kernel needs one; returns its UUID. Raises NodeError."""

    @property
    def grows_unmounted(self) -> bool: ...

    def grow_unmounted(self, device: str, run: Run) -> None:
        """Grows the filesystem to its device's size before it is mounted. Raises DamagedFilesystem, NodeError."""

    def grow(self, device: str, mountpoint: str, run: Run) -> None:
        """Grows the mounted filesystem to its device's size; that large already is fine. Raises NodeError."""


class Ext4:
    name: Final = "ext4"
    min_mib: Final = 2
    grows_unmounted: Final = True

    SUPERBLOCK: ClassVar[int] = 1024
    MAGIC: ClassVar[int] = 0xEF53
    IS_64BIT: ClassVar[int] = 0x80
    NEEDS_REPLAY: ClassVar[int] = 0x04
    VALID: ClassVar[int] = 0x01

    def mkfs(self, uuid: str, options: Mapping[str, str], *, is_shared: bool) -> list[str]:
        # A device that was just created has nothing to discard, and discarding takes longer than all the rest. One that is found damaged
        # while it is mounted takes no more writes, which would spread the damage; mke2fs' own default is to go on.
        chosen = {"-m": "0", "-e": "remount-ro"} | dict(options) | {"-E": _joined(options.get("-E"), "nodiscard")}
        if is_shared:
            chosen["-O"] = _joined(options.get("-O"), "mmp")
        return ["mkfs.ext4", "-q", "-F", *_flat(chosen), "-U", uuid]

    def superblock(self, head: bytes) -> Superblock:
        block = head[self.SUPERBLOCK :]
        blocks_low, log_size, most_mounts, magic, state, check_interval, features = (
            _field(block, form, at)
            for form, at in (("<I", 0x04), ("<I", 0x18), ("<h", 0x36), ("<H", 0x38), ("<H", 0x3A), ("<I", 0x44), ("<I", 0x60))
        )
        if magic != self.MAGIC:
            raise ValueError("there is no ext4 superblock")
        blocks = blocks_low + (_field(block, "<I", 0x150) << 32 if features & self.IS_64BIT else 0)
        # mke2fs writes the first superblock after a flush of all else, so one that can be read is that of a finished mkfs.
        return Superblock(
            uuid=str(UUID(bytes=block[0x68:0x78])),
            size_bytes=blocks * (1024 << log_size),
            is_finished=state != 0,
            needs_replay=bool(features & self.NEEDS_REPLAY),
            is_clean=state == self.VALID and not features & self.NEEDS_REPLAY and most_mounts <= 0 and not check_interval,
        )

    def check(self, device: str, run: Run) -> None:
        self._fsck(["e2fsck", "-p"], device, run, writes=not superblock(device, self.name).is_clean)

    def _fsck(self, command: list[str], device: str, run: Run, *, writes: bool) -> None:
        ended = run(command, device, ok=range(256), timeout_s=FSCK_S, writes=writes)
        if ended.code not in (0, 1):
            raise DamagedFilesystem(device=device, reason=f"{' '.join(command)} ended with {ended.code}: {ended.last_words}")

    def audit(self, device: str, target: Target, run: Run, *, read_only: bool) -> None:
        if superblock(device, self.name).needs_replay:
            _refuse_replay(device, read_only)
            self.check(device, run)
        ended = run(["e2fsck", "-f", "-n"], device, ok=range(256), timeout_s=FSCK_S)
        if ended.code != 0:
            raise DamagedFilesystem(device=device, reason=f"e2fsck -f -n ended with {ended.code}: {ended.last_words}")

    def identify(self, device: str, uuid: str, target: Target, run: Run) -> str:
        # Two ext4 of one UUID can be mounted at a time, and a new UUID would mean to write every checksum anew.
        self.check(device, run)
        return superblock(device, self.name).uuid

    def grow_unmounted(self, device: str, run: Run) -> None:
        # resize2fs wants a whole check right before. It takes its time, but needs no more than the device.
        self._fsck(["e2fsck", "-f", "-p"], device, run, writes=True)
        run(["resize2fs"], device, timeout_s=GROW_S, writes=True)

    def grow(self, device: str, mountpoint: str, run: Run) -> None:
        run(["resize2fs"], device, timeout_s=GROW_S, writes=True)


class Xfs:
    name: Final = "xfs"
    min_mib: Final = 300
    grows_unmounted: Final = False

    MAGIC: ClassVar[bytes] = b"XFSB"
    UNREPLAYED: ClassVar[str] = "valuable metadata changes in a log"
    """What xfs_repair says of a filesystem that was not unmounted."""

    def mkfs(self, uuid: str, options: Mapping[str, str], *, is_shared: bool) -> list[str]:
        # Without -f on purpose: mkfs.xfs then looks for signatures too and refuses by itself.
        chosen = {**options, "-m": _joined(options.get("-m"), f"uuid={uuid}")}
        return ["mkfs.xfs", "-q", "-K", *_flat(chosen)]

    def superblock(self, head: bytes) -> Superblock:
        if head[:4] != self.MAGIC:
            raise ValueError("there is no xfs superblock")
        size = _field(head, ">I", 4) * _field(head, ">Q", 8)
        return Superblock(uuid=str(UUID(bytes=head[32:48])), size_bytes=size, is_finished=head[126] == 0)

    def check(self, device: str, run: Run) -> None:
        """The kernel replays xfs' log as it mounts; what that cannot mend is for a person with xfs_repair."""

    def audit(self, device: str, target: Target, run: Run, *, read_only: bool) -> None:
        ended = self._look_through(device, run)
        if self.UNREPLAYED in f"{ended.out}{ended.err}":
            _refuse_replay(device, read_only)
            self._replay(device, target)
            ended = self._look_through(device, run)
        if ended.code != 0:
            raise DamagedFilesystem(device=device, reason=f"xfs_repair -n ended with {ended.code}: {ended.last_words}")

    def identify(self, device: str, uuid: str, target: Target, run: Run) -> str:
        # The kernel refuses a second xfs of the same UUID. A new one needs an empty log.
        self._replay(device, target)
        run(["xfs_admin", "-U", uuid], device, timeout_s=MKFS_S, writes=True)
        return superblock(device, self.name).uuid

    def _look_through(self, device: str, run: Run) -> Output:
        return run(["xfs_repair", "-n"], device, ok=range(256), timeout_s=FSCK_S)

    def _replay(self, device: str, target: Target) -> None:
        """The kernel alone replays a log, as it mounts; where the same UUID may be mounted already."""
        mounts.mount_device(device, self.name, target, MountOptions().also("nouuid"))
        mounts.unmount(target, pace=Pace())

    def grow_unmounted(self, device: str, run: Run) -> None:
        raise NodeError(command="xfs_growfs", target=device, reason="an xfs grows only while it is mounted")

    def grow(self, device: str, mountpoint: str, run: Run) -> None:
        run(["xfs_growfs", "-d"], mountpoint, timeout_s=GROW_S, writes=True)


KINDS: Final[Mapping[str, Filesystem]] = {kind.name: kind for kind in (Ext4(), Xfs())}


def kind_of(name: str) -> Filesystem:
    """Raises Invalid."""
    try:
        return KINDS[name]
    except KeyError:
        raise Invalid(field="filesystem", value=name, reason=f"it must be one of {', '.join(sorted(KINDS))}") from None


def look(device: str, *, alone: bool) -> probing.Contents:
    """What is on the device. `alone`: only if nothing else uses it (DeviceInUse). Raises NodeError."""
    opened = devices.exclusively(device) if alone else devices.shared(device)
    with opened as fd:
        return probing.probe(fd, device)


def superblock(device: str, filesystem: str) -> Superblock:
    """Raises DamagedFilesystem if there is none of this kind, or one that its mkfs did not finish."""
    with devices.shared(device) as fd:
        head = os.pread(fd, 4096, 0)
    try:
        found = kind_of(filesystem).superblock(head)
    except (ValueError, struct.error, IndexError) as error:
        raise DamagedFilesystem(device=device, reason=str(error)) from error
    if not found.is_finished:
        raise DamagedFilesystem(device=device, reason=f"its mkfs.{filesystem} was never finished")
    return found


def make(
    device: str, filesystem: str, *, uuid: str, mkfs_options: Sequence[str], size_mib: int, is_shared: bool = False, run: Run
) -> probing.Contents:
    """Formats a device on which nothing at all is to be found, and reads back what is there then.

    The caller has made sure that the volume is new; this makes sure that the device looks it: of the right size, in
    nobody's use, blank to libblkid and to wipefs. Raises NotBlank, DeviceInUse, Invalid, NodeError.
    """
    command = kind_of(filesystem).mkfs(uuid, options.check_mkfs(filesystem, mkfs_options), is_shared=is_shared)
    _refuse_size(device, size_mib)
    with devices.exclusively(device) as fd:
        found = str(probing.probe(fd, device))
        found = found if found != "nothing" else probing.second_opinion(device, run)
        if found:
            raise NotBlank(device=device, found=found)
    run(command, device, timeout_s=MKFS_S, writes=True)
    return _read_back(device, filesystem, uuid)


def needs_growth(device: str, filesystem: str) -> bool:
    """Whether the device has at least 1 MiB that its filesystem does not use. Raises DamagedFilesystem, NodeError."""
    return devices.size_bytes(device) - superblock(device, filesystem).size_bytes >= MIB


def _refuse_replay(device: str, read_only: bool) -> None:
    if read_only:
        raise DamagedFilesystem(device=device, reason=mounts.UNREPLAYED)


def _refuse_size(device: str, size_mib: int) -> None:
    size = devices.size_bytes(device)
    if size != size_mib * MIB:
        found = f"{size} bytes where a new volume of {size_mib} MiB was to be"
        raise NotBlank(device=device, found=found)


def _read_back(device: str, filesystem: str, uuid: str) -> probing.Contents:
    contents = look(device, alone=True)
    if (contents.filesystem, contents.uuid) != (filesystem, uuid) or superblock(device, filesystem).uuid != uuid:
        raise NodeError(command=f"mkfs.{filesystem}", target=device, reason=f"it ended well but left {contents} instead of {uuid}")
    return contents


def _joined(first: str | None, second: str) -> str:
    return f"{first},{second}" if first else second


def _flat(chosen: Mapping[str, str]) -> list[str]:
    return [word for pair in chosen.items() for word in pair]


def _field(block: bytes, form: str, at: int) -> int:
    value: int = struct.unpack_from(form, block, at)[0]
    return value
