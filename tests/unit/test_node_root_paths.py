"""Disks under names that mean another disk by now, and disks of several paths, on real loop devices in a made-up /sys."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from storage.errors import DeviceInUse
from storage.node import disks, mounts, releasing
from storage.node.devices import Roots
from storage.node.options import check_mount
from storage.node.pace import Pace
from storage.node.steps import Machine
from storage.node.targets import Target

pytestmark = pytest.mark.root

SERIAL, OTHER = "naa.514f0c5000000001", "naa.514f0c5000000002"


@contextmanager
def path_to(image: Path) -> Iterator[str]:
    """One more device that leads to the same bytes, as another path of a LUN does."""
    device = subprocess.run(["losetup", "--find", "--show", "--", str(image)], check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    return image


@pytest.fixture
def paths(image: Path) -> Iterator[tuple[str, str]]:
    with path_to(image) as one, path_to(image) as other:
        yield one, other


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(roots=Roots(sys=tmp_path / "sys"), pace=Pace())


def disk(machine: Machine, device: str, wwid: str = SERIAL) -> Path:
    """What sysfs shows of a device; returns the file that makes the kernel forget it."""
    shown = machine.roots.sys / "block" / Path(device).name / "device"
    shown.mkdir(parents=True, exist_ok=True)
    (shown / "wwid").write_text(f"{wwid}\n")
    (shown / "delete").touch()
    return shown / "delete"


@contextmanager
def mounted(device: str, folder: Path) -> Iterator[None]:
    target = Target.below(folder, "mounted")
    mounts.mount_device(device, "ext4", target, check_mount("ext4", []))
    try:
        yield
    finally:
        mounts.unmount(target, pace=Pace())


def test_a_disk_that_is_mounted_by_one_path_is_given_to_nobody_by_another(machine: Machine, paths: tuple[str, str], tmp_path: Path) -> None:
    for path in paths:
        disk(machine, path)
    with mounted(paths[0], tmp_path):
        with pytest.raises(DeviceInUse, match=f"{Path(paths[0]).name}, another path to the same disk"):
            disks.refuse_held(paths[1], machine.roots, alone=True)
        disks.refuse_held(paths[1], machine.roots, alone=False)
    disks.refuse_held(paths[1], machine.roots, alone=True)


def test_a_disk_that_is_mounted_by_one_path_is_not_forgotten_by_another(machine: Machine, paths: tuple[str, str], tmp_path: Path) -> None:
    deletes = [disk(machine, path) for path in paths]
    with mounted(paths[0], tmp_path):
        assert not releasing.let_go(paths[1], (SERIAL,), machine, 0.0)
        assert [delete.read_text() for delete in deletes] == ["", ""]
    assert releasing.let_go(paths[1], (SERIAL,), machine, 0.0)
    assert [delete.read_text() for delete in deletes] == ["1", "1"]


def test_a_disk_that_has_come_up_under_the_name_of_one_that_is_gone_stays(machine: Machine, paths: tuple[str, str]) -> None:
    delete = disk(machine, paths[0], OTHER)
    assert releasing.let_go(paths[0], (SERIAL,), machine, 0.0)
    assert delete.read_text() == ""


def test_a_disk_that_becomes_anothers_while_it_is_waited_for_stays(machine: Machine, paths: tuple[str, str], tmp_path: Path) -> None:
    delete = disk(machine, paths[0])
    with mounted(paths[0], tmp_path):

        def becomes_anothers(seconds: float) -> None:
            disk(machine, paths[0], OTHER)

        waiting = replace(machine, pace=Pace(wait=becomes_anothers))
        assert releasing.let_go(paths[0], (SERIAL,), waiting, 60.0)
    assert delete.read_text() == ""


def test_a_disk_that_says_nothing_for_a_moment_may_still_be_in_use(machine: Machine, paths: tuple[str, str], tmp_path: Path) -> None:
    disk(machine, paths[0], "")
    with mounted(paths[0], tmp_path):
        assert not releasing.let_go(paths[0], (SERIAL,), machine, 0.0)
