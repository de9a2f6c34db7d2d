"""A platform for tests of the node: images on loop devices that stay when a process dies, as a cloud's disks do."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from storage.errors import StaleEpoch, UnknownVolume, VolumeInUse
from storage.model import Access, Birth, ClaimId, ExternalId, Page, VolumeId, VolumePlan
from storage.node import mountinfo
from storage.node.journal import Journal
from storage.node.pace import Deadline
from storage.node.releasing import unstage
from storage.node.scsi import PAGES, Inquire
from storage.node.staged import Staged
from storage.node.staging import stage
from storage.node.steps import Machine
from storage.platforms.base import Attachment, Capabilities, CreateRequest, Finding, Platform, PoolReport, VolumeReport
from tests.support import eventually

MIB = 1 << 20
VOLUME = VolumeId(f"vol-{os.getpid()}")
"""The tests that run at the same time have others: by it an xfs has its UUID, which can be mounted once on a machine."""


def as_shown(sys: Path) -> Inquire:
    """SCSI disks that say of themselves what a made-up sysfs shows of them."""
    return lambda device, page: (sys / "block" / device.name / "device" / PAGES[page]).read_bytes()


def plan(claim: str = "claim-1", **changes: Any) -> VolumePlan:
    """A plan that creates its volume; `changes` are fields of VolumePlan."""
    fields: dict[str, Any] = {
        "claim_id": ClaimId(claim),
        "volume_id": VOLUME,
        "name": "/app#0/data",
        "epoch": 1,
        "access": Access.RW,
        "platform": "loops",
        "pool": "default",
        "size_mib": 64,
        "token": claim,
    }
    return VolumePlan(**(fields | changes))


def again(staged_birth: Birth, claim: str = "claim-2", **changes: Any) -> VolumePlan:
    """A later claim on the volume that `plan()` has made."""
    return plan(claim, **({"token": "claim-1", "external_id": ExternalId("claim-1"), "birth": staged_birth, "epoch": 2} | changes))


class LoopPlatform(Platform):
    """One image per volume, its token for a name; what it knows lies in files, so that any process sees the same."""

    def __init__(self, folder: Path, *, device: str = "block", marks: bool = True) -> None:
        self.folder = folder
        self._capabilities = Capabilities(marks=marks, device=device, clones=True)
        self.serial: str | None = None
        """A wrong serial to give, for a test of that."""
        self.says_mib: int | None = None
        """A wrong size to give."""
        folder.mkdir(exist_ok=True)

    @property
    def name(self) -> str:
        return "loops"

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def settings(self) -> Mapping[str, str]:
        return {"folder": str(self.folder)}

    def pools(self) -> Sequence[PoolReport]:
        return ()

    def volumes(self, *, after: str | None = None, limit: int = 1000) -> Page[VolumeReport]:
        return Page(items=())

    def image(self, external_id: str) -> Path:
        return self.folder / f"{external_id}.img"

    def serial_of(self, external_id: str) -> str:
        """What its device is found by: the whole path, which no image of a test that runs at the same time has."""
        return str(self.image(external_id)) if self.capabilities.device == "block" else external_id

    def put(self, external_id: str, size_mib: int = 64) -> Path:
        """A blank image that nobody's token made, as an imported volume is."""
        with self.image(external_id).open("wb") as file:
            file.truncate(size_mib * MIB)
        return self.image(external_id)

    def check_parameters(self, parameters: Mapping[str, str], *, pool: str | None = None) -> None:
        """Every one is taken."""

    def create(self, request: CreateRequest) -> VolumeReport:
        if not self.image(request.token).exists() and self.capabilities.device == "block":
            self.put(request.token, request.size_mib)
        elif self.capabilities.device == "folder":
            (self.folder / request.token).mkdir(exist_ok=True)
        return self.inspect(ExternalId(request.token))

    def find(self, token: str) -> VolumeReport | None:
        there = self.image(token).exists() or (self.folder / token).is_dir()
        return self.inspect(ExternalId(token)) if there else None

    def inspect(self, external_id: ExternalId) -> VolumeReport:
        marks = self._marks(external_id)
        birth = Birth(**marks["birth"]) if "birth" in marks else None
        size = self.image(external_id).stat().st_size // MIB if self.capabilities.device == "block" else 64
        size = self.says_mib or size
        return VolumeReport(external_id=external_id, pool="default", size_mib=size, serial=self.serial_of(external_id), birth=birth)

    def delete(self, external_id: ExternalId) -> None:
        self.image(external_id).unlink(missing_ok=True)

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        if self.capabilities.device == "folder":
            return Attachment(external_id=external_id, device=str(self.folder / external_id), serial=external_id)
        if not self.image(external_id).exists():
            raise UnknownVolume(volume=external_id)
        if epoch < self._marks(external_id).get("epoch", 0):
            raise StaleEpoch(volume=external_id, epoch=epoch, found=self._marks(external_id)["epoch"])
        self._mark(external_id, epoch=epoch)
        device = self.device(external_id) or self._set_up(external_id, read_only)
        serial = self.serial or self.serial_of(external_id)
        return Attachment(external_id=external_id, device=device, serial=serial, read_only=read_only)

    def _set_up(self, external_id: str, read_only: bool) -> str:
        command = ["losetup", *(["--read-only"] if read_only else []), "--find", "--show", "--", str(self.image(external_id))]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def detach(self, external_id: ExternalId, node: str) -> None:
        if device := self.device(external_id):
            if any(line.split()[2] == self._number(device) for line in Path("/proc/self/mountinfo").read_text().splitlines()):
                raise VolumeInUse(volume=external_id, holder="a mount")
            subprocess.run(["losetup", "--detach", device], check=True)

    def record_birth(self, external_id: ExternalId, birth: Birth, *, epoch: int) -> None:
        fields = {"serial": birth.serial, "filesystem": birth.filesystem, "filesystem_uuid": birth.filesystem_uuid}
        self._mark(external_id, birth=fields)

    def check(self) -> Sequence[Finding]:
        return ()

    def close(self) -> None:
        """Nothing is open."""

    def device(self, external_id: str) -> str | None:
        """The loop device that the volume has now."""
        for file in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):  # another's was detached meanwhile: there is no file any more, or no device
                if file.read_text().strip() == str(self.image(external_id)):
                    return f"/dev/{file.parts[3]}"
        return None

    def let_go(self, external_id: str) -> None:
        """Waits until the volume has no loop device: another program that looks for a free one opens each for an instant."""
        eventually(lambda: self.device(external_id) is None, what=f"volume {external_id} has no loop device")

    @staticmethod
    def _number(device: str) -> str:
        number = os.stat(device).st_rdev
        return f"{os.major(number)}:{os.minor(number)}"

    def _marks(self, external_id: str) -> dict[str, Any]:
        file = self.folder / f"{external_id}.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def _mark(self, external_id: str, **fields: object) -> None:
        (self.folder / f"{external_id}.json").write_text(json.dumps(self._marks(external_id) | fields))


def digest(image: Path) -> str:
    """What all bytes of an image add up to; its holes are as good as zeros, and cost nothing."""
    size = image.stat().st_size
    found = hashlib.blake2b(str(size).encode())
    with image.open("rb") as file:
        for index in sorted({index for start, end in _extents(file.fileno(), size) for index in range(start // MIB, -(-end // MIB))}):
            block = os.pread(file.fileno(), MIB, index * MIB)
            if block.count(0) != len(block):
                found.update(index.to_bytes(8, "little") + block)
    return found.hexdigest()


def _extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


class Node:
    """A node with a platform of its own in one folder. As a context manager it leaves no loop device behind."""

    def __init__(self, folder: Path) -> None:
        self.platform = LoopPlatform(folder / "pool")
        self.staging = folder / "staging"
        self.journal = Journal(folder / "journal", clock=time.time)
        self.births: list[Birth] = []
        self.machine = Machine()

    def __enter__(self) -> Node:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for mount in mountinfo.read():
            if mount.target.startswith(f"{self.staging}/"):
                subprocess.run(["umount", "--lazy", "--", mount.target], check=True)
        for image in self.platform.folder.glob("*.img"):
            self.platform.detach(ExternalId(image.stem), "node")

    def stage(self, plan: VolumePlan, **changes: Any) -> Staged:
        """Stages with a minute's lease, keeping the births that are told; `changes` are arguments of stage()."""
        arguments: dict[str, Any] = {
            "staging_dir": self.staging,
            "deadline": Deadline.of(60.0),
            "journal": self.journal,
            "on_birth": lambda staged: self.births.append(staged.birth),
            "machine": self.machine,
        }
        return stage(plan, self.platform, "node", **(arguments | changes))

    def unstage(self, staged: Staged, **changes: Any) -> Mapping[str, float]:
        """Unstages as `stage` staged."""
        arguments: dict[str, Any] = {"staging_dir": self.staging, "journal": self.journal, "machine": self.machine}
        return unstage(staged.plan, self.platform, "node", **(arguments | changes))
