"""A platform for tests of the node: images on loop devices that stay when a process dies, as a cloud's disks do."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from storage.errors import StaleEpoch, UnknownVolume, VolumeInUse
from storage.model import Access, Birth, ClaimId, ExternalId, Page, VolumeId, VolumePlan
from storage.platforms.base import Attachment, Capabilities, CreateRequest, Finding, Platform, PoolReport, VolumeReport

MIB = 1 << 20


def plan(claim: str = "claim-1", **changes: Any) -> VolumePlan:
    """A plan that creates its volume; `changes` are fields of VolumePlan."""
    fields: dict[str, Any] = {
        "claim_id": ClaimId(claim),
        "volume_id": VolumeId("vol-1"),
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
        self._capabilities = Capabilities(marks=marks, device=device)
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

    def put(self, external_id: str, size_mib: int = 64) -> Path:
        """A blank image that nobody's token made, as an imported volume is."""
        with self.image(external_id).open("wb") as file:
            file.truncate(size_mib * MIB)
        return self.image(external_id)

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
        return VolumeReport(external_id=external_id, pool="default", size_mib=size, serial=external_id, birth=birth)

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
        return Attachment(external_id=external_id, device=device, serial=external_id, read_only=read_only)

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
            if file.read_text().strip() == str(self.image(external_id)):
                return f"/dev/{file.parts[3]}"
        return None

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
    """What all bytes of an image add up to."""
    with image.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
