"""A disk of Compute Engine from the control plane to the mounted filesystem, on an instance with SCSI disks and on one with NVMe.

The devices are loop devices here, shown as Google's machines show theirs; everything else is what Polly does on a real node.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from framework.ids import new_id
from storage.errors import DeviceNotFound, VolumeInUse
from storage.model import Access
from storage.node.devices import Roots
from storage.node.staged import Staged
from storage.node.steps import Machine
from storage.platforms.base import Platform
from storage.platforms.gce import GcePlatform
from tests.contract.simulated_node import SimulatedNode
from tests.nodes import as_shown
from tests.peers.gce.cloud import ELSEWHERE, NODE, POOL, Cloud
from tests.peers.gce.world import Resource, World

pytestmark = [pytest.mark.peer, pytest.mark.root, pytest.mark.xdist_group("gce")]

GIB = 1024


@dataclass(kw_only=True)
class Instance(SimulatedNode):
    """A machine that sees disks come and go as Google attaches and detaches them."""

    cloud: Cloud
    name: str
    bus: str
    """`scsi` or `nvme`."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def machine(self) -> Machine:
        sys = self.folder / "sys"
        roots = Roots(dev=self.folder / "dev", sys=sys, identify_namespace=self._identified, inquire=as_shown(sys))
        return Machine(roots=roots, device_wait_s=2.0)

    def _identified(self, device: Path, namespace: int) -> bytes:
        told = next(key for key, (_, name) in self.shown.items() if name == device.name == f"nvme0n{namespace}")
        return (bytes(384) + json.dumps({"device_name": told, "disk_type": "PERSISTENT"}).encode()).ljust(4096, b"\0")

    def look(self) -> None:
        with self.lock:
            entries = {entry["deviceName"]: entry for entry in self.cloud.world.instances[self.name]["disks"][1:]}
            for key in [key for key in self.shown if key not in entries]:
                self.hide(key)
            for key in [key for key in entries if key not in self.shown]:
                self._show(key, entries[key])

    def _show(self, key: str, entry: Resource) -> None:
        backing = self.data / entry["source"].rsplit("/", 1)[1]
        size = int(self.cloud.disk(f"{self.name.split('/')[0]}/{backing.name}")["sizeGb"]) << 30
        names = [f"sd{letter}" for letter in "bcdef"] if self.bus == "scsi" else [f"nvme0n{number}" for number in range(2, 7)]
        name = self.attach_loop(key, backing, names, size=size, read_only=entry["mode"] == "READ_ONLY")
        self._describe(name, key)
        self.link(name, f"google-{key}")

    def _describe(self, name: str, key: str) -> None:
        block = self.folder / "sys/block" / name
        (block / "device").mkdir(parents=True, exist_ok=True)
        if self.bus == "nvme":
            files = {"device/model": "nvme_card-pd", "device/serial": "nvme_card-pd", "nsid": name.removeprefix("nvme0n")}
        else:
            page = f"\2\0\0{chr(len(key))}{key}"
            files = {"device/vendor": "Google  ", "device/model": "PersistentDisk  ", "device/delete": ""}
            files["device/vpd_pg83"] = f"\0\x83\0{chr(len(page))}{page}"
        for file, text in files.items():
            (block / file).write_text(text, encoding="latin-1")

    def called(self, platform: Platform) -> str:
        zone, name = self.name.split("/")
        self.cloud.peer.here = (self.cloud.world.project, zone, name)
        return super().called(platform)

    def stage(self, platform: Platform, **wanted: Any) -> Staged:
        return super().stage(platform, **{"pool": POOL, "size_mib": 10 * GIB, **wanted})


@pytest.fixture
def instances(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Instance]]:
    """One with SCSI disks and one with NVMe, which hear of each change."""
    (tmp_path / "data").mkdir()
    made = []
    for name, bus in ((NODE, "scsi"), (ELSEWHERE, "nvme")):
        (tmp_path / bus / "dev/disk/by-id").mkdir(parents=True)
        made.append(Instance(cloud=cloud, name=name, bus=bus, folder=tmp_path / bus, data=tmp_path / "data"))
    monkeypatch.setenv("GCE_METADATA_HOST", cloud.peer.url.removeprefix("http://"))
    monkeypatch.setattr(World, "settle", told(World.settle, cloud.world, made))
    yield made
    for instance in made:
        instance.end()


def told(settle: Callable[[World], None], world: World, instances: list[Instance]) -> Callable[[World], None]:
    def run(self: World) -> None:
        settle(self)
        for instance in instances if self is world else ():
            instance.look()

    return run


def test_a_disk_is_born_on_scsi_and_lives_on_at_an_instance_with_nvme(
    cloud: Cloud, platform: GcePlatform, instances: list[Instance]
) -> None:
    here, there = instances
    token = new_id()
    first = here.stage(platform, claim=token)
    Path(first.path, "count").write_text("1")
    assert (first.birth.serial, first.formatted) == (first.external_id.split("/")[1], True)

    known = {"claim": "claim-2", "token": token, "external_id": first.external_id, "birth": first.birth, "epoch": 2}
    with pytest.raises(VolumeInUse, match=NODE):
        there.stage(platform, **known)
    here.unstage(platform, first)
    assert (here.shown, platform.inspect(first.external_id).held_by) == ({}, ())
    assert (here.folder / "sys/block/sdb/device/delete").read_text() == "1", "the kernel still knew the disk when it was taken away"

    second = there.stage(platform, **known)
    assert Path(second.path, "count").read_text() == "1"
    assert (second.formatted, second.device.endswith("/nvme0n2")) == (False, True)
    assert platform.inspect(second.external_id).birth == first.birth
    there.unstage(platform, second)
    assert there.shown == {}


@pytest.mark.parametrize("number", [0, 1], ids=["scsi", "nvme"])
def test_another_disk_under_the_old_name_is_passed_over(
    cloud: Cloud, platform: GcePlatform, instances: list[Instance], number: int
) -> None:
    """The link of before still leads to the kernel's name, which another disk has now."""
    here = instances[number]
    token = new_id()
    first = here.stage(platform, claim=token)
    Path(first.path, "whose").write_text("ours")
    here.unstage(platform, first)
    other = here.stage(platform, claim=new_id(), volume_id="vol-2")
    assert other.device == first.device

    known = {"claim": "claim-2", "token": token, "external_id": first.external_id, "birth": first.birth, "epoch": 2}
    second = here.stage(platform, **known)
    assert second.device != first.device
    assert Path(second.path, "whose").read_text() == "ours"


def test_readers_mount_it_on_both(cloud: Cloud, platform: GcePlatform, instances: list[Instance]) -> None:
    here, there = instances
    token = new_id()
    first = here.stage(platform, claim=token)
    Path(first.path, "count").write_text("1")
    here.unstage(platform, first)

    known = {"token": token, "external_id": first.external_id, "birth": first.birth, "access": Access.RO}
    readers = [one.stage(platform, claim=f"claim-{epoch}", epoch=epoch, **known) for epoch, one in enumerate((here, there), start=2)]
    assert [Path(reader.path, "count").read_text() for reader in readers] == ["1", "1"]
    with pytest.raises(OSError, match="Read-only file system"):
        Path(readers[1].path, "count").write_text("2")


def test_a_disk_that_has_grown_is_grown_on_the_node(cloud: Cloud, platform: GcePlatform, instances: list[Instance]) -> None:
    here, there = instances
    token = new_id()
    first = here.stage(platform, claim=token)
    before = os.statvfs(first.path)
    platform.expand(first.external_id, 20 * GIB)
    here.unstage(platform, first)

    known = {"token": token, "external_id": first.external_id, "birth": first.birth, "epoch": 2, "size_mib": 20 * GIB}
    second = there.stage(platform, claim="claim-2", **known)
    assert second.size_mib == 20 * GIB
    assert os.statvfs(second.path).f_blocks > 1.9 * before.f_blocks


def test_a_device_that_never_comes_up_leaves_nothing_attached(
    cloud: Cloud, platform: GcePlatform, instances: list[Instance], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = instances
    monkeypatch.setattr(Instance, "_show", lambda *_: None)

    with pytest.raises(DeviceNotFound, match=r"serial polly-\w+ came up on this node"):
        here.stage(platform, claim="claim-1")
    made = platform.find("claim-1")
    assert made is not None
    assert made.held_by == ()
