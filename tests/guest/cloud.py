"""A cloud around one guest: its volumes are images out here, and attaching plugs them into the guest's machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from storage.errors import StaleEpoch, UnknownVolume, VolumeInUse
from storage.model import ExternalId, VolumePlan
from storage.node.staged import Staged
from storage.platforms.base import Attachment
from tests.guest import inside, target
from tests.nodes import LoopPlatform
from tests.peers.guest import Guest

BY_ID = "/dev/disk/by-id"
LINK = f"{BY_ID}/nvme-Amazon_Elastic_Block_Store_"


class Cloud(LoopPlatform):
    """The platform of the tests, with the guest's disks in place of loop devices. A volume's token is its id and its serial."""

    def __init__(self, guest: Guest, folder: Path, *, kind: str = "nvme") -> None:
        super().__init__(folder)
        self.guest, self.kind = guest, kind
        self.hint = ""
        """What it says of where the device is to be found."""
        self.plugs = True
        """Whether attaching really plugs the disk in."""
        self.shown: str | None = None
        """A serial that the disk shows in place of its own."""

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        if not self.image(external_id).exists():
            raise UnknownVolume(volume=external_id)
        if epoch < self._marks(external_id).get("epoch", 0):
            raise StaleEpoch(volume=external_id, epoch=epoch, found=self._marks(external_id)["epoch"])
        self._mark(external_id, epoch=epoch)
        if self.plugs and external_id not in self.guest.plugged:
            self.plug(external_id)
        return Attachment(external_id=external_id, device=self.hint, serial=self.serial or external_id, read_only=read_only)

    def serial_of(self, external_id: str) -> str:
        return external_id

    def plug(self, external_id: str) -> None:
        self.guest.plug(external_id, self.image(external_id), self.shown or external_id, kind=self.kind)
        if self.kind == "scsi":  # until it is there the node lets the host look at all of its 256 targets, which takes ten seconds
            self.guest.call(inside.numbers_of, external_id, 1)

    def detach(self, external_id: ExternalId, node: str) -> None:
        """As a hypervisor does: whether the guest still has it mounted is not its business, so we look ourselves."""
        if device := self.guest.call(inside.mounted, external_id):
            raise VolumeInUse(volume=external_id, holder=f"a mount of {device}")
        self.unplug(external_id)

    def unplug(self, external_id: str) -> None:
        self.guest.unplug(external_id)

    def grow(self, external_id: str, size_mib: int) -> None:
        """As an array grows a volume: under the disk, if it is plugged in."""
        if external_id in self.guest.plugged:
            self.guest.resize(external_id, size_mib)
        else:
            os.truncate(self.image(external_id), size_mib << 20)

    @contextlib.contextmanager
    def mapped(self, name: str, table: str, *, uuid: str = "") -> Iterator[None]:
        """While it lasts the guest has a map of the device mapper."""
        self.guest.load("dm-mod")
        identity = ["--uuid", uuid] if uuid else []
        self.guest.run("dmsetup", "create", name, *identity, "--noudevsync", "--table", table)
        try:
            yield
        finally:
            self.guest.run("dmsetup", "remove", "--noudevsync", name)

    def stage(self, plan: VolumePlan, **options: Any) -> Staged:
        """Stages the volume in the guest; `options` are those of inside.stage."""
        return self.guest.call(inside.stage, plan, self.capabilities, answering=self, **options)

    def unstage(self, plan: VolumePlan, **options: Any) -> Mapping[str, float]:
        return self.guest.call(inside.unstage, plan, self.capabilities, answering=self, **options)


class Served(Cloud):
    """NVMe disks with EC2's model, which grow under their mounts: the guest's own kernel makes them of other disks."""

    def plug(self, external_id: str) -> None:
        under = f"under-{external_id[-12:]}"
        self.guest.plug(external_id, self.image(external_id), under, kind="virtio")
        for module in ("nvmet", "nvmet-tcp", "nvme-tcp"):
            self.guest.load(module)
        self.guest.call(target.connect, external_id, self.guest.call(inside.device_of, under))

    def unplug(self, external_id: str) -> None:
        self.guest.call(target.disconnect, external_id)
        super().unplug(external_id)
