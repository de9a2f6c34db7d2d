"""Finding EBS volumes in made-up trees of /dev and /sys: NVMe by the serial, Xen by the name that EC2 gave, and never another's."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.errors import DeviceNotFound, WrongDevice
from storage.platforms.ebs import ids
from tests.unit.test_node_devices import FakeTime, Trees, find

VOLUME = "vol-0123456789abcdef0"
SERIAL = ids.serial(VOLUME)
LINK = f"nvme-Amazon_Elastic_Block_Store_{SERIAL}"
OTHER = "vol0fedcba9876543210"


@pytest.fixture
def trees(tmp_path: Path) -> Trees:
    (tmp_path / "dev").mkdir()
    return Trees(tmp_path)


def asked_name(trees: Trees, name: str = "xvdba") -> str:
    """The name that EC2 attached it under, as the adapter hands it on."""
    return str(trees.roots.dev / name)


def xen(trees: Trees, name: str, **files: str) -> str:
    return trees.device(name, device__devtype="vbd\n", **files)


def test_the_serial_is_the_volumes_id_without_its_dash() -> None:
    assert SERIAL == "vol0123456789abcdef0"


@pytest.mark.parametrize("padding", ["", "  \n", " " * 20])
def test_a_nitro_volume_is_found_by_its_serial_whatever_name_was_asked_for(trees: Trees, padding: str) -> None:
    trees.device("nvme0n1", device__serial=OTHER)
    device = trees.device("nvme1n1", device__serial=f"{SERIAL}{padding}")

    assert find(trees, SERIAL, hint=asked_name(trees)) == device


def test_a_nitro_volume_is_found_through_its_link(trees: Trees) -> None:
    device = trees.device("nvme1n1", device__serial=SERIAL)
    trees.link(LINK, "../../nvme1n1")

    assert find(trees, SERIAL, hint=asked_name(trees)) == device


def test_a_partition_under_the_volumes_link_is_not_the_volume(trees: Trees) -> None:
    device = trees.device("nvme1n1", device__serial=SERIAL)
    (trees.root / "dev" / "nvme1n1p1").touch()
    trees.link(f"{LINK}-part1", "../../nvme1n1p1")
    trees.link(f"{LINK}_1", "../../nvme1n1")

    assert find(trees, SERIAL) == device


def test_a_stale_link_does_not_lead_to_another_volume(trees: Trees) -> None:
    trees.device("nvme1n1", device__serial=OTHER)
    trees.link(LINK, "../../nvme1n1")

    with pytest.raises(DeviceNotFound, match=f"No device with serial {SERIAL}"):
        find(trees, SERIAL, hint=asked_name(trees), timeout_s=2.0)


def test_a_link_of_the_asked_name_that_stays_wrong_is_the_wrong_device(trees: Trees) -> None:
    trees.device("nvme1n1", device__serial=OTHER)
    Path(asked_name(trees)).symlink_to("nvme1n1")

    with pytest.raises(WrongDevice, match=f"{OTHER}.*{SERIAL}"):
        find(trees, SERIAL, hint=asked_name(trees), timeout_s=2.0)


def test_a_volume_that_comes_late_is_waited_for(trees: Trees) -> None:
    time = FakeTime(then=lambda: trees.device("nvme2n1", device__serial=SERIAL))

    assert find(trees, SERIAL, hint=asked_name(trees), timeout_s=60.0, time=time) == str(trees.roots.dev / "nvme2n1")


def test_a_xen_volume_is_the_name_that_ec2_gave(trees: Trees) -> None:
    xen(trees, "xvda")
    device = xen(trees, "xvdba")

    assert find(trees, SERIAL, hint=device) == device


def test_a_xen_volume_is_never_guessed(trees: Trees) -> None:
    xen(trees, "xvdbb")

    with pytest.raises(DeviceNotFound):
        find(trees, SERIAL, hint=asked_name(trees), timeout_s=1.0)
    with pytest.raises(DeviceNotFound):
        find(trees, SERIAL, timeout_s=1.0)


def test_the_name_alone_counts_on_xen_only(trees: Trees) -> None:
    trees.device("xvdba", device__devtype="disk")
    trees.device("sdf", device__devtype="vbd")

    for name in ("xvdba", "sdf"):
        with pytest.raises(WrongDevice):
            find(trees, SERIAL, hint=asked_name(trees, name), timeout_s=1.0)


def test_a_xen_disk_that_says_another_serial_is_another(trees: Trees) -> None:
    device = xen(trees, "xvdba", serial=OTHER)

    with pytest.raises(WrongDevice, match=OTHER):
        find(trees, SERIAL, hint=device, timeout_s=1.0)
