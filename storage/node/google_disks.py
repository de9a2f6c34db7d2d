"""The device name that Compute Engine gives a disk, as the kernel shows it: by SCSI in a page of its own, by NVMe in the namespace.

All NVMe disks of an instance are namespaces of one controller, whose serial says nothing. The name is in the part of the namespace's
description that NVMe leaves to vendors, as JSON, and sysfs does not show that part: the device has to be asked.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

NVME_IOCTL_ADMIN_CMD: Final = 0xC0484E41
IDENTIFY: Final = 0x06
PAGE: Final = 4096
VENDOR_SPECIFIC: Final = 384
"""Where the vendors' part of a namespace's description begins."""
MODEL: Final = "nvme_card"
"""What the models of Google's controllers begin with."""
SCSI_VENDOR, SCSI_MODEL = "Google", "PersistentDisk"

IdentifyNamespace = Callable[[Path, int], bytes]
"""Asks a device for the description of a namespace: 4096 bytes."""


class _Command(ctypes.Structure):
    """struct nvme_admin_cmd of linux/nvme_ioctl.h."""

    _fields_ = (
        ("opcode", ctypes.c_uint8),
        ("flags", ctypes.c_uint8),
        ("rsvd1", ctypes.c_uint16),
        ("nsid", ctypes.c_uint32),
        ("cdw2", ctypes.c_uint32),
        ("cdw3", ctypes.c_uint32),
        ("metadata", ctypes.c_uint64),
        ("addr", ctypes.c_uint64),
        ("metadata_len", ctypes.c_uint32),
        ("data_len", ctypes.c_uint32),
        *((f"cdw{number}", ctypes.c_uint32) for number in range(10, 16)),
        ("timeout_ms", ctypes.c_uint32),
        ("result", ctypes.c_uint32),
    )


def identify_namespace(device: Path, namespace: int) -> bytes:
    """Raises OSError; needs CAP_SYS_ADMIN."""
    page = ctypes.create_string_buffer(PAGE)
    command = _Command(opcode=IDENTIFY, nsid=namespace, addr=ctypes.addressof(page), data_len=PAGE)
    fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, NVME_IOCTL_ADMIN_CMD, command)
    finally:
        os.close(fd)
    return page.raw


def device_name(block: Path, device: Path, identify: IdentifyNamespace) -> str:
    """The device name of the disk whose folder in sysfs is `block`; empty for any other disk."""
    if _text(block / "device" / "model").startswith(MODEL):
        return _of_namespace(block, device, identify)
    if (_text(block / "device" / "vendor"), _text(block / "device" / "model")) == (SCSI_VENDOR, SCSI_MODEL):
        return _of_page_83(block)
    return ""


def _of_namespace(block: Path, device: Path, identify: IdentifyNamespace) -> str:
    number = _text(block / "nsid")
    with suppress(OSError, ValueError, AttributeError):
        told: Any = json.loads(identify(device, int(number))[VENDOR_SPECIFIC:].rstrip(b"\0").decode())
        return str(told.get("device_name", ""))
    return ""


def _of_page_83(block: Path) -> str:
    """From the designators of the device: four bytes of header each, then text such as `Google  PersistentDisk  NAME`."""
    with suppress(OSError, IndexError):
        page = (block / "device" / "vpd_pg83").read_bytes()
        at = 4
        while at + 4 <= len(page):
            length = page[at + 3]
            words = page[at + 4 : at + 4 + length].decode("ascii", "ignore").strip("\0 ").split()
            if words[:2] == [SCSI_VENDOR, SCSI_MODEL] and len(words) == 3:
                return words[2]
            if page[at + 1] & 0x3F == 0 and len(words) == 1:
                return words[0]
            at += 4 + length
    return ""


def _text(file: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return file.read_text().strip("\0 \n")
    return ""
