"""Disks that grow under a mounted filesystem, as NVMe, virtio and SCSI show it, and one disk that two paths lead to."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from storage.model import ExternalId
from storage.node import devices
from tests.conftest import leave_out
from tests.guest import inside, multipathing
from tests.guest.array import ENVIRONMENT
from tests.guest.cloud import BY_ID, LINK, Cloud, Served
from tests.nodes import plan
from tests.peers.guest import Guest
from tests.support import EMULATED_S, eventually

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("guest")]

VOLUME = "vol0123456789abcdef0"
PATHS = ("first", "second")
WWN = 0x5000C50015EA71AA


@pytest.mark.parametrize(("filesystem", "size_mib"), [("ext4", 64), ("xfs", 320)])
@pytest.mark.parametrize(("kind", "clouds_class"), [("nvme", Served), ("virtio", Cloud), ("scsi", Cloud)])
def test_a_mounted_filesystem_grows_with_its_disk_while_it_is_used(
    cloud_of: Callable[..., Cloud], kind: str, clouds_class: type[Cloud], filesystem: str, size_mib: int
) -> None:
    cloud = cloud_of(kind, clouds_class)
    first = cloud.stage(plan(VOLUME, filesystem=filesystem, size_mib=size_mib))
    before = cloud.guest.call(inside.size_mib, first.path)
    user = cloud.guest.begin(inside.hold, f"{first.path}/file", "kept")
    user.until("held")
    cloud.grow(VOLUME, size_mib + 128)
    if kind == "virtio":  # the others must be asked, which the node does
        eventually(lambda: cloud.guest.call(devices.size_bytes, first.device) == (size_mib + 128) << 20, EMULATED_S, "the disk has grown")

    large = plan(VOLUME, filesystem=filesystem, size_mib=size_mib + 128, birth=first.birth, external_id=first.external_id)
    grown = cloud.stage(large)

    assert "grow" in grown.took_ms
    assert grown.size_mib == size_mib + 128
    assert cloud.guest.call(inside.size_mib, first.path) >= before + 110
    assert cloud.guest.call(inside.read, f"{first.path}/file") == "kept"
    user.kill()
    cloud.unstage(large)
    check = ["e2fsck", "-f", "-n"] if filesystem == "ext4" else ["xfs_repair", "-n"]
    subprocess.run([*check, str(cloud.image(VOLUME))], check=True, capture_output=True)


@pytest.fixture
def udevd(guest: Guest) -> Iterator[None]:
    """A real udevd, which looks at each disk that comes, and at what was written to it."""
    if not shutil.which("udevadm", path=ENVIRONMENT["PATH"]):
        leave_out("needs udevadm (Debian: udev)")
    guest.begin(multipathing.daemon, *multipathing.UDEVD).until("started")
    guest.call(multipathing.await_udevd)
    yield
    guest.call(multipathing.end_daemons)


@pytest.mark.usefixtures("udevd")
@pytest.mark.parametrize(
    ("kind", "clouds_class", "link"),
    [("nvme", Served, LINK + VOLUME), ("virtio", Cloud, f"{BY_ID}/virtio-{VOLUME}")],
    ids=["as EC2 names its disks", "as OpenStack does"],
)
def test_a_disk_is_where_the_link_leads_that_udev_itself_makes(
    cloud_of: Callable[..., Cloud], kind: str, clouds_class: type[Cloud], link: str
) -> None:
    cloud = cloud_of(kind, clouds_class)
    cloud.hint = link
    first = cloud.stage(plan(VOLUME))
    eventually(lambda: cloud.guest.call(os.path.realpath, link) == first.device, EMULATED_S, "the link")
    assert cloud.stage(plan(VOLUME, birth=first.birth, external_id=first.external_id)).device == first.device
    cloud.unstage(plan(VOLUME))
    assert cloud.guest.call(inside.disks_of, VOLUME) == []


class TwoPaths(Cloud):
    """A LUN that the guest sees over two paths, with the map over them that multipathd would make."""

    def plug(self, external_id: str) -> None:
        for path in PATHS:
            self.guest.plug(path, self.image(external_id), external_id, kind="scsi", share_rw=True, wwn=WWN)
        numbers = self.guest.call(inside.numbers_of, external_id, len(PATHS))
        table = f"0 {self.image(external_id).stat().st_size >> 9} multipath 0 0 1 1 round-robin 0 2 1 {numbers[0]} 1 {numbers[1]} 1"
        self.guest.run("dmsetup", "create", "lun", "--uuid", f"mpath-3{WWN:x}", "--noudevsync", "--table", table)

    def detach(self, external_id: ExternalId, node: str) -> None:
        for path in PATHS:
            self.guest.unplug(path)


def test_two_paths_to_one_disk_are_used_by_their_map_and_go_together(guest: Guest, cloud_of: Callable[..., Cloud]) -> None:
    if not shutil.which("multipath", path=ENVIRONMENT["PATH"]):
        leave_out("needs multipath (Debian: multipath-tools)")
    cloud = cloud_of("scsi", TwoPaths)
    for module in ("dm-mod", "dm-multipath", "dm-round-robin"):
        guest.load(module)

    staged = cloud.stage(plan(VOLUME))

    assert staged.device == "/dev/dm-0"
    assert guest.call(inside.disks_of, VOLUME) == ["dm-0", "sda", "sdb"]
    guest.call(inside.write, f"{staged.path}/file", "kept", sync=True)
    guest.unplug(PATHS[0])
    assert guest.call(inside.read, f"{staged.path}/file") == "kept"
    cloud.unstage(plan(VOLUME))
    assert guest.call(inside.disks_of, VOLUME) == []
