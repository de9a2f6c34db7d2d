"""PowerFlex' own transport: the SDC shows a mapped volume as /dev/sciniX by itself, and at once when it is asked to look.

A device goes away when the array takes the mapping back; nothing on the node can be told to remove it before.
"""

from __future__ import annotations

from contextlib import suppress

from storage.errors import DeviceNotFound, UnsafePath, WrongDevice
from storage.node import devices
from storage.node.scini import Sdc
from storage.node.steps import Machine
from storage.platforms.base import Attachment


def connect(attachment: Attachment, machine: Machine) -> None:
    """Lets the SDC look for the volume. Raises NodeError."""
    Sdc(run=machine.run).rescan()


def disconnect(attachment: Attachment, machine: Machine) -> None:
    """Writes and forgets what the kernel still has of the device; one that is gone is fine. Raises NodeError."""
    roots, pace = machine.roots, machine.pace
    with suppress(DeviceNotFound, WrongDevice, UnsafePath):
        devices.flush(devices.find(attachment.serial, hint=attachment.device, roots=roots, pace=pace, timeout_s=0.0))
