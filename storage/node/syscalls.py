"""The few system calls of Linux that Python has no function for: mount, umount2 and unshare.

A call costs microseconds where the program of the same name costs milliseconds; both end in the same kernel code.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_DIRSYNC = 128
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_REC = 16384
MS_SLAVE = 1 << 19
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

CLONE_NEWNS = 0x00020000


def mount(source: str, target: str, filesystem: str, flags: int, data: str = "") -> None:
    """mount(2). Raises OSError with the kernel's errno and `target` as its file name."""
    _check(
        _libc().mount(os.fsencode(source), os.fsencode(target), filesystem.encode() or None, ctypes.c_ulong(flags), data.encode() or None),
        target,
    )


def umount(target: str, flags: int = 0) -> None:
    """umount2(2). Raises OSError as mount does."""
    _check(_libc().umount2(os.fsencode(target), flags), target)


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError."""
    _check(_libc().unshare(flags), "unshare")


def _check(answer: int, target: str) -> None:
    if answer != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
