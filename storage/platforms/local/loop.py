"""Loop devices by their ioctls: a device that takes its image's lock along, and goes when nothing uses it any more.

The kernel keeps the open file that a loop device was configured with. Configured with the very descriptor that carries the
image's flock, the device therefore holds that lock until its last user is gone, in whatever mount namespace, whether or not
the process that attached it lives. All this needs root.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from storage.errors import PlatformError

CONTROL: Final = Path("/dev/loop-control")
SYS_BLOCK: Final = Path("/sys/block")

_LOOP_GET_STATUS64: Final = 0x4C05
_LOOP_SET_CAPACITY: Final = 0x4C07
_LOOP_CONFIGURE: Final = 0x4C0A
_LOOP_CTL_GET_FREE: Final = 0x4C82
_READ_ONLY: Final = 1
_AUTOCLEAR: Final = 4
_NAME_BYTES: Final = 64

_INFO: Final = struct.Struct("=QQQQQIIII64s64s32s2Q")
"""loop_info64: device, inode, rdevice, offset, sizelimit, number, encrypt type and key size, flags, file name, crypt name, key, init."""
_CONFIG_HEAD: Final = struct.Struct("=II")
"""loop_config: the image's descriptor, the block size (0: the kernel's choice); then loop_info64 and 64 reserved bytes."""

MOST_TRIES: Final = 100
"""Others may take the free device that the kernel named before we do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backing:
    """Which file a loop device stands on: the numbers that stat() gives of it."""

    device: int
    inode: int

    @classmethod
    def of(cls, fd: int) -> Backing:
        found = os.fstat(fd)
        return cls(device=found.st_dev, inode=found.st_ino)


def configure(image: int, label: str, *, platform: str, read_only: bool) -> tuple[str, int]:
    """Binds a free loop device to the open image. Returns its path and a descriptor of it: the device goes with its last one.

    `label` is kept as the device's lo_file_name. Raises PlatformError where the kernel or the rights don't allow it.
    """
    try:
        for _ in range(MOST_TRIES):
            if bound := _try_free(image, label, read_only):
                return bound
    except OSError as error:
        raise PlatformError(platform=platform, action=f"bring {label} to a loop device", reason=_why(error)) from error
    raise PlatformError(platform=platform, action=f"bring {label} to a loop device", reason="no loop device stayed free long enough")


def _why(error: OSError) -> str:
    if error.errno in (errno.EINVAL, errno.ENOTTY):
        return f"the kernel refused LOOP_CONFIGURE, which came with Linux 5.8 ({error.strerror})"
    if error.errno in (errno.EPERM, errno.EACCES):
        return f'loop devices need root ({error.strerror}); without root use format = "folder"'
    return error.strerror or str(error)


def _try_free(image: int, label: str, read_only: bool) -> tuple[str, int] | None:
    path = f"/dev/loop{_free_number()}"
    device = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, _LOOP_CONFIGURE, _config(image, label, read_only))
        _verify(device, path, image)
    except BaseException as error:
        os.close(device)
        if isinstance(error, OSError) and error.errno == errno.EBUSY:
            return None
        raise
    return path, device


def _free_number() -> int:
    control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    finally:
        os.close(control)


def _config(image: int, label: str, read_only: bool) -> bytearray:
    flags = _AUTOCLEAR | (_READ_ONLY if read_only else 0)
    name = label.encode()[: _NAME_BYTES - 1]
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, name, b"", b"", 0, 0)
    return bytearray(_CONFIG_HEAD.pack(image, 0) + info + bytes(64))


def _verify(device: int, path: str, image: int) -> None:
    if backing_of(device) != Backing.of(image):
        raise OSError(errno.EIO, f"{path} does not stand on the image that it was given")


def backing_of(device: int) -> Backing | None:
    """What an open loop device stands on; None for one that stands on nothing."""
    answer = bytearray(_INFO.size)
    try:
        fcntl.ioctl(device, _LOOP_GET_STATUS64, answer)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    number, inode = _INFO.unpack(answer)[:2]
    return Backing(device=number, inode=inode)


def stands_on(path: str, backing: Backing) -> bool:
    """Whether the loop device at `path` still stands on this file."""
    try:
        device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            return False
        raise
    try:
        return backing_of(device) == backing
    finally:
        os.close(device)


def devices_on(backing: Backing) -> Iterator[str]:
    """The loop devices of this machine that stand on a file."""
    for entry in SYS_BLOCK.glob("loop*/loop/backing_file"):
        path = f"/dev/{entry.parts[-3]}"
        if stands_on(path, backing):
            yield path


def in_use(path: str) -> bool:
    """Whether somebody has claimed the device: a mount in any namespace, or a program that opened it exclusively."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return True
        raise
    return False


def refresh_size(path: str) -> None:
    """Lets the device see that its file has grown."""
    device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, _LOOP_SET_CAPACITY, 0)
    finally:
        os.close(device)


def usable() -> str:
    """Why no loop device can be made here; empty if one can. Nothing is made."""
    try:
        _free_number()
    except OSError as error:
        return f"{CONTROL}: {error.strerror}"
    return ""
