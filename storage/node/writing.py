"""Whether the kernel writes to a device at all: a mount for reading only does, to replay a journal, and so does whoever mends an error.

What is set is the device's, not a mount's, and outlives the process: whoever comes to write takes it back.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Final

from storage.errors import DeviceInUse, NodeError
from storage.node.devices import exclusively, ioctl, shared

BLKROSET: Final = 0x125D
BLKROGET: Final = 0x125E


def forbid(device: str) -> None:
    """Has the kernel write nothing to the device until `allow`. Again is fine. Raises NodeError.

    One that is mounted already stays as it is: the kernel then replays nothing, and shows a reader what others have mounted for reading.
    """
    with suppress(DeviceInUse), exclusively(device) as fd:
        if not _is_forbidden(device, fd):
            ioctl(device, fd, BLKROSET, struct.pack("=i", True))


def allow(device: str) -> None:
    """Takes back what a reader has set that was here before. Raises NodeError for a device that itself can only be read."""
    with shared(device) as fd:
        if _is_forbidden(device, fd):
            ioctl(device, fd, BLKROSET, struct.pack("=i", False))
        if _is_forbidden(device, fd):
            raise NodeError(command="open for writing", target=device, reason="the device can only be read")


def _is_forbidden(device: str, fd: int) -> bool:
    return bool(struct.unpack("=i", ioctl(device, fd, BLKROGET, bytes(4)))[0])
