"""EC2 with disks: what the front has attached to an instance comes up on this machine, as a loop device under a link like udev's.

Everything of one machine: the disks of all instances come up here. A disk is there before EC2 says that it is attached, and gone
before EC2 says that it is detached. One that is taken away while something has it mounted is noted: no platform would let it go. Who was
killed has a moment to unmount, as on EC2, where to detach takes seconds.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from storage.errors import PollyError
from storage.node import devices
from storage.platforms.ebs import ids, tags
from tests.peers.ec2_front import Front
from tests.peers.ec2_wire import Answer, Call, text
from tests.support import eventually

BY_ID = Path("/dev/disk/by-id")
GIB = 1 << 30
UNMOUNT_S = 5.0
ATTACHED = ("attaching", "attached")
TERMINATE = {"Action": "TerminateInstances", "Version": "2016-11-15"}


class Disks(Front):
    """`folder` holds a file for each volume that Polly has made, as long as EC2 has it."""

    def __init__(self, moto_port: int, folder: Path) -> None:
        super().__init__(moto_port)
        self.folder = folder
        self.pulled: list[str] = []
        """Volumes that were taken away while they were in use, with the processes that had them mounted."""
        self.made: set[str] = set()
        """All that Polly ever made."""
        self._plugged: dict[str, str] = {}
        """Volume to its loop device."""

    def volumes(self) -> dict[str, tuple[str, ...]]:
        """Polly's volumes, as moto has them, each with the instances that have it."""
        found = {}
        for item in self.do("DescribeVolumes").iterfind("volumeSet/item"):
            if tags.TOKEN in [text(tag, "key") for tag in item.iterfind("tagSet/item")]:
                holders = [text(one, "instanceId") for one in item.iterfind("attachmentSet/item") if text(one, "status") in ATTACHED]
                found[text(item, "volumeId")] = tuple(holders)
        return found

    def terminate(self, instance: str) -> None:
        """As somebody does in the console: EC2 lets go of its volumes."""
        with self._lock:
            self._do(Call(action="TerminateInstances", parameters={**TERMINATE, "InstanceId.1": instance}))

    def link(self, volume: str) -> Path:
        return BY_ID / f"nvme-Amazon_Elastic_Block_Store_{ids.serial(volume)}"

    def stop(self) -> None:
        super().stop()
        for volume in list(self._plugged):
            self._unplug(volume)
        with _links(), suppress(OSError):  # udev's links are there, or another test's
            BY_ID.rmdir()
            BY_ID.parent.rmdir()

    def _do(self, call: Call) -> Answer:
        answer = super()._do(call)
        if not call.action.startswith("Describe") or call.action == "DescribeVolumes":
            self._follow()
        return answer

    def _follow(self) -> None:
        """Makes the machine as EC2 has it, before EC2 says so."""
        volumes = self.volumes()
        self.made |= volumes.keys()
        for volume in self._plugged.keys() - {volume for volume, holders in volumes.items() if holders}:
            self._unplug(volume)
        for volume in {volume for volume, holders in volumes.items() if holders} - self._plugged.keys():
            self._plug(volume)
        for image in self.folder.glob("vol-*/*.img"):
            if image.parent.name not in volumes:
                image.unlink()
                image.parent.rmdir()

    def _plug(self, volume: str) -> None:
        image = self.folder / volume / f"{ids.serial(volume)}.img"
        image.parent.mkdir(exist_ok=True)
        with image.open("ab") as file:
            file.truncate(GIB)
        command = ["losetup", "--find", "--show", "--", str(image)]
        device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        self._plugged[volume] = device
        with _links():
            BY_ID.mkdir(parents=True, exist_ok=True)
            self.link(volume).symlink_to(f"../../{Path(device).name}")

    def _unplug(self, volume: str) -> None:
        device = self._plugged.pop(volume)
        with suppress(PollyError):
            try:
                eventually(lambda: not devices.in_use(device), UNMOUNT_S, f"{device} is unmounted", every_s=0.1)
            except TimeoutError:
                self.pulled.append(f"{volume}, mounted by {', '.join(_who_mounts(device)) or 'nobody'}")
        self.link(volume).unlink(missing_ok=True)
        subprocess.run(["losetup", "--detach", device], check=True)


def _who_mounts(device: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f" {device} " in (process / "mountinfo").read_text():
                found.append(f"{process.name} {(process / 'comm').read_text().strip()}")
    return found


@contextmanager
def _links() -> Iterator[None]:
    """No other test makes or removes the folder of the links meanwhile."""
    folder = os.open(BY_ID.parents[1], os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
