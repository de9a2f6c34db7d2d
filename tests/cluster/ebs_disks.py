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
from xml.etree.ElementTree import Element

from storage.errors import PollyError
from storage.node import devices
from storage.platforms.ebs import ids, tags
from tests.peers.ec2_front import Front
from tests.peers.ec2_wire import Answer, Call, parse, text
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
        self.silent = False
        """Whether every call is cut off before it is heard."""
        self._plugged: dict[str, str] = {}
        """Volume to its loop device."""

    def volumes(self) -> dict[str, tuple[str, ...]]:
        """Polly's volumes, as moto has them, each with the instances that have it."""
        return {text(item, "volumeId"): _holders(item) for item in self._described()}

    def _described(self) -> list[Element]:
        items = self.do("DescribeVolumes").iterfind("volumeSet/item")
        return [item for item in items if tags.TOKEN in [text(tag, "key") for tag in item.iterfind("tagSet/item")]]

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

    def answer(self, body: bytes, authorization: str) -> Answer | None:
        return None if self.silent else super().answer(body, authorization)

    def _do(self, call: Call) -> Answer:
        answer = super()._do(call)
        self._copy(call, answer)
        if not call.action.startswith("Describe") or call.action == "DescribeVolumes":
            self._follow()
        return answer

    def _copy(self, call: Call, answer: Answer) -> None:
        """A snapshot or a clone is at once what the disk holds at that moment; a volume begins with what its snapshot holds."""
        if call.action == "CreateSnapshot":
            _copied(self._image(call.get("VolumeId")), self._snapshot(text(parse(answer.body), "snapshotId")))
        elif call.action == "CopyVolumes":
            _copied(self._image(call.get("SourceVolumeId")), self._image(text(parse(answer.body), "volumeSet/item/volumeId")))
        elif call.action == "CreateVolume" and call.get("SnapshotId"):
            _copied(self._snapshot(call.get("SnapshotId")), self._image(text(parse(answer.body), "volumeId")))

    def _follow(self) -> None:
        """Makes the machine as EC2 has it, before EC2 says so."""
        found = {text(item, "volumeId"): item for item in self._described()}
        held = {volume for volume, item in found.items() if _holders(item)}
        self.made |= found.keys()
        for volume in self._plugged.keys() - held:
            self._unplug(volume)
        for volume in held:
            self._plug(volume, int(text(found[volume], "size")) * GIB)
        for image in self.folder.glob("vol-*/*.img"):
            if image.parent.name not in found:
                image.unlink()
                image.parent.rmdir()

    def _image(self, volume: str) -> Path:
        return self.folder / volume / f"{ids.serial(volume)}.img"

    def _snapshot(self, snapshot: str) -> Path:
        return self.folder / "snapshots" / snapshot

    def _plug(self, volume: str, size: int) -> None:
        """A disk that is there already may have grown."""
        image = self._image(volume)
        image.parent.mkdir(exist_ok=True)
        with image.open("ab") as file:
            has = file.tell()
            file.truncate(size)
        if device := self._plugged.get(volume):
            if has != size:
                subprocess.run(["losetup", "--set-capacity", device], check=True)
            return
        command = ["losetup", "--find", "--show", "--", str(image)]
        self._plugged[volume] = device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
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


def _holders(item: Element) -> tuple[str, ...]:
    return tuple(text(one, "instanceId") for one in item.iterfind("attachmentSet/item") if text(one, "status") in ATTACHED)


def _copied(source: Path, target: Path) -> None:
    """What was never plugged holds nothing; what is copied already stays as it was then."""
    if source.exists() and not target.exists():
        target.parent.mkdir(exist_ok=True)
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", "--", source, target], check=True)


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
