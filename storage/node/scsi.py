"""What a SCSI disk says of itself now. The kernel keeps what it said when it was first seen, and shows that in sysfs for ever.

A LUN that an array has taken away leaves its disk in the kernel, and the next volume under the same number comes up as that disk: the
kernel goes on showing the name of the first one for what is the other's data. So a disk is asked itself before it is believed.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

SG_IO: Final = 0x2285
FROM_DEVICE: Final = -3
INQUIRY: Final = 0x12
VITAL: Final = 0x01
"""The bit that asks for a page of vital product data."""
SIZE: Final = 4096
TIMEOUT_MS: Final = 5_000
PAGES: Final = {0x83: "vpd_pg83", 0x80: "vpd_pg80"}
"""The pages that say which disk it is, and where sysfs keeps them."""
NOT_CONNECTED: Final = 0x20
"""What the first byte of an answer is at least if nothing is behind the LUN."""
RUNNING: Final = "running"
"""The state of a disk whose path works; one whose path does not is waited for by whoever asks it."""

CUT_OFF: Final = ("offline", "transport-offline")
"""The states of a disk that the kernel lets nobody open: its path is lost, and was not back within the session's time."""

Inquire = Callable[[Path, int], bytes]
"""Asks a disk for a page of vital product data, with its header of four bytes. Raises OSError."""


class _Request(ctypes.Structure):
    """struct sg_io_hdr of scsi/sg.h."""

    _fields_ = (
        ("interface_id", ctypes.c_int),
        ("dxfer_direction", ctypes.c_int),
        ("cmd_len", ctypes.c_ubyte),
        ("mx_sb_len", ctypes.c_ubyte),
        ("iovec_count", ctypes.c_ushort),
        ("dxfer_len", ctypes.c_uint),
        ("dxferp", ctypes.c_void_p),
        ("cmdp", ctypes.c_void_p),
        ("sbp", ctypes.c_void_p),
        ("timeout", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("pack_id", ctypes.c_int),
        ("usr_ptr", ctypes.c_void_p),
        ("status", ctypes.c_ubyte),
        ("masked_status", ctypes.c_ubyte),
        ("msg_status", ctypes.c_ubyte),
        ("sb_len_wr", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort),
        ("driver_status", ctypes.c_ushort),
        ("resid", ctypes.c_int),
        ("duration", ctypes.c_uint),
        ("info", ctypes.c_uint),
    )


def inquire(device: Path, page: int) -> bytes:
    """The page as the disk has it now. Raises OSError, also where nothing is behind the LUN any more."""
    answer = ctypes.create_string_buffer(SIZE)
    words = ctypes.create_string_buffer(bytes((INQUIRY, VITAL, page, SIZE >> 8, SIZE & 0xFF, 0)), 6)
    request = _Request(
        interface_id=ord("S"),
        dxfer_direction=FROM_DEVICE,
        cmd_len=6,
        dxfer_len=SIZE,
        dxferp=ctypes.addressof(answer),
        cmdp=ctypes.addressof(words),
        timeout=TIMEOUT_MS,
    )
    fd = os.open(device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, SG_IO, request)
    finally:
        os.close(fd)
    said = answer.raw[: SIZE - request.resid]
    if request.status or request.host_status or request.driver_status or said[1:2] != bytes((page,)):
        raise OSError(f"{device} does not answer an INQUIRY (status {request.status}, host status {request.host_status})")
    return said


def is_itself(block: Path, device: Path, ask: Inquire) -> bool:
    """Whether the disk, whose folder in sysfs is `block`, still is what sysfs says; anything but a SCSI disk is.

    A disk that does not answer, or whose path does not work, is not.
    """
    shown = _shown(block)
    if not shown:
        return True
    try:
        return _runs(block) and all(_same(ask(device, page), data) for page, data in shown.items())
    except OSError:
        return False


def is_anothers(block: Path, device: Path, ask: Inquire) -> bool:
    """Whether the disk answers, and says that it is another one than sysfs says."""
    try:
        said = {page: (ask(device, page), data) for page, data in _shown(block).items()} if _runs(block) else {}
    except OSError:
        return False
    return any(told[0] < NOT_CONNECTED and not _same(told, data) for told, data in said.values())


def look_again(block: Path, device: Path, ask: Inquire) -> None:
    """Has the kernel read anew what the disk is, if it is not what sysfs says. Raises OSError."""
    if _runs(block) and not is_itself(block, device, ask):
        (block / "device" / "rescan").write_text("1")


def _shown(block: Path) -> dict[int, bytes]:
    return {page: data for page, name in PAGES.items() if (data := _data(block / "device" / name))}


def is_cut_off(block: Path) -> bool:
    return _state(block) in CUT_OFF


def _runs(block: Path) -> bool:
    return _state(block) == RUNNING


def _state(block: Path) -> str:
    """What the kernel says of the path to the disk; running where it says nothing."""
    with suppress(OSError):
        return (block / "device" / "state").read_text().strip()
    return RUNNING


def _same(said: bytes, shown: bytes) -> bool:
    """The page's own length counts: what comes after it is no part of it."""
    return said[: 4 + int.from_bytes(said[2:4], "big")] == shown[: 4 + int.from_bytes(shown[2:4], "big")]


def _data(file: Path) -> bytes:
    with suppress(OSError):
        return file.read_bytes()
    return b""
