"""LUNs with several paths: what is mounted, and what must go from the kernel before the LUN is unmapped."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.errors import DeviceInUse
from storage.node import devices
from storage.node.devices import Roots
from storage.node.pace import Pace

SERIAL = "naa.514f0c5000000001"


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    (tmp_path / "dev").mkdir()
    return Roots(dev=tmp_path / "dev", sys=tmp_path / "sys", is_block=lambda path: path.exists())


def disk(roots: Roots, name: str, wwid: str = SERIAL) -> None:
    device = roots.sys / "block" / name / "device"
    device.mkdir(parents=True)
    (device / "wwid").write_text(wwid + "\n")
    (device / "delete").touch()
    (roots.sys / "block" / name / "holders").mkdir()
    (roots.dev / name).touch()


def map_over(roots: Roots, name: str, *paths: str, uuid: str = "mpath-3514f0c5000000001") -> None:
    block = roots.sys / "block" / name
    (block / "dm").mkdir(parents=True)
    (block / "dm" / "uuid").write_text(uuid)
    (block / "holders").mkdir()
    for path in paths:
        (block / "slaves" / path).mkdir(parents=True)
        (roots.sys / "block" / path / "holders" / name).mkdir()
    (roots.dev / name).touch()


def find(roots: Roots) -> str:
    return devices.find(SERIAL, roots=roots, pace=Pace(), timeout_s=0.0)


def deleted(roots: Roots) -> list[str]:
    return sorted(name for name in ("sda", "sdb", "sdc") if (roots.sys / "block" / name / "device" / "delete").read_text() == "1")


def test_the_map_over_the_paths_is_the_device(roots: Roots) -> None:
    for name in ("sda", "sdb"):
        disk(roots, name)
    map_over(roots, "dm-0", "sda", "sdb")
    assert find(roots) == str(roots.dev / "dm-0")
    assert devices.matches(SERIAL, "dm-0", roots)
    devices.refuse_held(find(roots), roots, alone=False)


def test_another_kind_of_map_is_a_holder(roots: Roots) -> None:
    disk(roots, "sda")
    map_over(roots, "dm-0", "sda", uuid="LVM-abc")
    assert find(roots) == str(roots.dev / "sda")
    with pytest.raises(DeviceInUse, match="dm-0"):
        devices.refuse_held(find(roots), roots, alone=False)


def test_all_paths_of_a_map_are_forgotten(roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(devices, "flush", flushed.append)
    for name in ("sda", "sdb"):
        disk(roots, name)
    disk(roots, "sdc", "naa.another")
    map_over(roots, "dm-0", "sda", "sdb")
    devices.forget(str(roots.dev / "dm-0"), roots)
    assert (flushed, deleted(roots)) == ([str(roots.dev / "dm-0")], ["sda", "sdb"])


def test_all_paths_without_a_map_are_forgotten(roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "flush", lambda device: None)
    for name in ("sda", "sdb"):
        disk(roots, name)
    disk(roots, "sdc", "")
    devices.forget(str(roots.dev / "sda"), roots)
    assert deleted(roots) == ["sda", "sdb"]
    devices.forget(str(roots.dev / "sdc"), roots)
    assert deleted(roots) == ["sda", "sdb", "sdc"]


def test_a_disk_of_another_kind_is_left_to_the_kernel(roots: Roots, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(devices, "flush", flushed.append)
    (roots.sys / "block" / "nvme0n1" / "device").mkdir(parents=True)
    devices.forget(str(roots.dev / "nvme0n1"), roots)
    assert (flushed, list((roots.sys / "block" / "nvme0n1" / "device").iterdir())) == ([], [])
