"""A machine of its own and a real Cinder: from the machine's name to a mounted filesystem, and the data on the next machine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.errors import NodeError
from storage.model import Birth, ExternalId
from storage.node import devices, filesystems, identities, mounts, options
from storage.node.steps import Machine
from storage.node.targets import Target
from storage.node.transports import nfs_file, transport_of
from storage.platforms.base import CreateRequest
from storage.platforms.cinder import CinderPlatform
from storage.platforms.cinder.options import BARE_METAL
from tests.contract.cinder_cloud import NODES, POOL, Cloud
from tests.peers._openstack_files import SHARE
from tests.support import eventually

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("cinder")]

UUID = "6b1f0d0e-3f5e-4d4c-9d7c-0f6a3c1b2a10"


@pytest.fixture
def bare(cinder: Cloud) -> Iterator[CinderPlatform]:
    platform = cinder.platform(BARE_METAL)
    yield platform
    platform.close()


@pytest.fixture
def share(cinder: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The share is at its place already, as an operator may have mounted it: this kernel need not have an NFS client."""
    monkeypatch.setattr(nfs_file, "ROOT", tmp_path / "shares")
    place = nfs_file.place(SHARE)
    place.mkdir(parents=True)
    subprocess.run(["mount", "--bind", "--", str(cinder.openstack.files.share), str(place)], check=True)
    yield place
    subprocess.run(["umount", "--", str(place)], check=True)


def loops(volume: str) -> list[str]:
    return [path.parts[3] for path in Path("/sys/block").glob("loop*/loop/backing_file") if volume in path.read_text()]


def test_a_volume_comes_to_a_machine_and_to_the_next_with_its_data(bare: CinderPlatform, share: Path, tmp_path: Path) -> None:
    machine, node = Machine(), identities.identify("connector", Machine(), hostname="unused")
    made = bare.create(CreateRequest(pool=POOL, size_mib=1024, token=f"node-{tmp_path}", name="/shop/db#0/data"))
    attachment = bare.attach(made.external_id, node, epoch=1)
    transport = transport_of(attachment)
    assert transport is nfs_file
    for _ in range(2):
        transport.connect(attachment, machine)

    device = devices.find(attachment.serial, hint=attachment.device, roots=machine.roots, pace=machine.pace, timeout_s=5.0)
    assert loops(made.external_id) == [Path(device).name]
    filesystems.make(device, "ext4", uuid=UUID, mkfs_options=(), size_mib=1024, run=machine.run)
    bare.record_birth(made.external_id, Birth(serial=attachment.serial, filesystem="ext4", filesystem_uuid=UUID), epoch=1)
    written = _mounted(device, tmp_path / "first")
    (written / "file").write_text("kept")
    _unmounted(written)
    for _ in range(2):
        transport.disconnect(attachment, machine)
        bare.detach(made.external_id, node)
    eventually(lambda: not loops(made.external_id), 5, "the loop device goes")

    moved = bare.attach(made.external_id, NODES[1], epoch=2)
    transport.connect(moved, machine)
    device = devices.find(moved.serial, hint=moved.device, roots=machine.roots, pace=machine.pace, timeout_s=5.0)
    read = _mounted(device, tmp_path / "second")
    assert (read / "file").read_text() == "kept"
    _unmounted(read)
    transport.disconnect(moved, machine)
    bare.detach(made.external_id, NODES[1])
    assert (bare.inspect(made.external_id).held_by, bare.inspect(made.external_id).epoch) == ((), 2)


def test_a_volume_grows_under_its_device(bare: CinderPlatform, share: Path, tmp_path: Path) -> None:
    machine = Machine()
    volume = bare.create(CreateRequest(pool=POOL, size_mib=1024, token=f"grown-{tmp_path}")).external_id
    bare.expand(volume, 2048)
    attachment = bare.attach(volume, NODES[0], epoch=1)
    nfs_file.connect(attachment, machine)

    device = devices.find(attachment.serial, roots=machine.roots, pace=machine.pace, timeout_s=5.0)
    assert devices.size_bytes(device) == 2 << 30
    nfs_file.disconnect(attachment, machine)
    bare.detach(volume, NODES[0])


def test_a_volume_with_snapshots_is_refused_by_the_machine_with_the_way_out(bare: CinderPlatform, share: Path, tmp_path: Path) -> None:
    volume = bare.create(CreateRequest(pool=POOL, size_mib=1024, token=f"layers-{tmp_path}")).external_id
    snapshot = bare.snapshot(volume, token=f"layer-{tmp_path}").external_id
    with pytest.raises(NodeError, match="while there are snapshots"):
        nfs_file.connect(bare.attach(volume, NODES[0], epoch=1), Machine())
    bare.detach(volume, NODES[0])
    bare.delete_snapshot(snapshot)

    attachment = bare.attach(ExternalId(volume), NODES[0], epoch=2)
    nfs_file.connect(attachment, Machine())
    assert loops(volume)
    nfs_file.disconnect(attachment, Machine())
    bare.detach(volume, NODES[0])


def _mounted(device: str, folder: Path) -> Path:
    folder.mkdir()
    mounts.mount_device(device, "ext4", Target.below(folder, "volume"), options.check_mount(()))
    return folder / "volume"


def _unmounted(place: Path) -> None:
    subprocess.run(["umount", "--", str(place)], check=True)
