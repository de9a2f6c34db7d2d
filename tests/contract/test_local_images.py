"""What only images on loop devices promise: the lock in the device, growing under a mount, copies while in use."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.errors import PlatformError, StaleEpoch, VolumeInUse
from storage.model import ExternalId
from storage.platforms.base import Attachment, CreateRequest
from storage.platforms.local import LocalOptions, LocalPlatform, loop
from tests.contract.conftest import Holder, mounted, xfs
from tests.support import eventually

pytestmark = pytest.mark.root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def platform(root: Path) -> Iterator[LocalPlatform]:
    platform = LocalPlatform("local", LocalOptions(root=str(root)))
    yield platform
    platform.close()


@pytest.fixture
def volume(platform: LocalPlatform) -> ExternalId:
    return platform.create(CreateRequest(pool="default", size_mib=16, token="claim-1")).external_id


def image_of(root: Path, volume: str) -> Path:
    return next(root.glob(f"default/volumes/*/{volume}.img"))


def backing_file(device: str) -> str:
    file = Path(f"/sys/block/{Path(device).name}/loop/backing_file")
    return file.read_text().strip() if file.exists() else ""


def sectors(device: str) -> int:
    return int(Path(f"/sys/block/{Path(device).name}/size").read_text())


def format_and_mount(attachment: Attachment, target: Path) -> None:
    target.mkdir()
    subprocess.run(["mkfs.ext4", "-q", attachment.device], check=True)
    subprocess.run(["mount", attachment.device, str(target)], check=True)


def test_device_stands_on_the_image_and_goes_by_itself(root: Path, platform: LocalPlatform, volume: ExternalId) -> None:
    attachment = platform.attach(volume, "node-a", epoch=1)
    assert backing_file(attachment.device) == str(image_of(root, volume))
    assert Path(f"/sys/block/{Path(attachment.device).name}/loop/autoclear").read_text().strip() == "1"
    assert image_of(root, volume).stat().st_mode & 0o777 == 0o600
    platform.detach(volume, "node-a")
    assert backing_file(attachment.device) != str(image_of(root, volume))
    assert platform.fence(volume, 1) is not None


def test_read_only_device_cannot_be_written(platform: LocalPlatform, volume: ExternalId) -> None:
    attachment = platform.attach(volume, "node-a", epoch=1, read_only=True)
    assert Path(f"/sys/block/{Path(attachment.device).name}/ro").read_text().strip() == "1"
    with pytest.raises(PermissionError), open(attachment.device, "rb+", buffering=0) as device:
        device.write(b"x" * 4096)


def test_detach_is_refused_while_it_is_mounted(tmp_path: Path, platform: LocalPlatform, volume: ExternalId) -> None:
    attachment = platform.attach(volume, "node-a", epoch=1)
    target = tmp_path / "mount"
    format_and_mount(attachment, target)
    with pytest.raises(VolumeInUse, match="a mount of /dev/loop"):
        platform.detach(volume, "node-a")
    (target / "still").write_text("writable")
    subprocess.run(["umount", str(target)], check=True)
    platform.detach(volume, "node-a")
    assert platform.inspect(volume).held_by == ()


def test_mount_outlives_the_adapter_and_keeps_the_volume(tmp_path: Path, root: Path, platform: LocalPlatform, volume: ExternalId) -> None:
    attachment = platform.attach(volume, "node-a", epoch=1)
    target = tmp_path / "mount"
    format_and_mount(attachment, target)
    platform.close()
    assert platform.fence(volume, 2) is None
    with pytest.raises(VolumeInUse, match="node node-a"):
        platform.detach(volume, "node-a")
    with pytest.raises(VolumeInUse):
        platform.delete(volume)
    subprocess.run(["umount", str(target)], check=True)
    assert platform.fence(volume, 2) is not None
    assert not image_of(root, volume).is_symlink()


def test_killed_holder_keeps_the_volume_until_its_namespace_is_gone(
    tmp_path: Path, root: Path, platform: LocalPlatform, volume: ExternalId, hold: Callable[..., Holder]
) -> None:
    target = tmp_path / "mount"
    target.mkdir()
    holder = hold("image", root, volume, target)
    holder.die()
    assert holder.process.returncode == -9
    assert platform.fence(volume, 2) is None
    assert platform.inspect(volume).held_by == (f"node node-a, pid {holder.process.pid}, epoch 1",)
    with pytest.raises(VolumeInUse):
        platform.attach(volume, "node-b", epoch=2)
    assert platform.inspect(volume).epoch == 1
    holder.end_child()
    assert eventually(lambda: platform.fence(volume, 2), what="the fence, once the namespace is gone")
    assert backing_file(holder.device) != str(image_of(root, volume))
    with pytest.raises(StaleEpoch):
        platform.attach(volume, "node-a", epoch=1)
    assert platform.attach(volume, "node-b", epoch=2).serial == volume


def test_attach_waits_a_moment_for_what_a_dead_holder_leaves(
    tmp_path: Path, root: Path, platform: LocalPlatform, volume: ExternalId, hold: Callable[..., Holder]
) -> None:
    target = tmp_path / "mount"
    target.mkdir()
    holder = hold("image", root, volume, target)
    holder.die()
    holder.end_child()
    assert platform.attach(volume, "node-b", epoch=2).serial == volume


def test_attached_volume_grows_under_its_mount(tmp_path: Path, root: Path, platform: LocalPlatform, volume: ExternalId) -> None:
    attachment = platform.attach(volume, "node-a", epoch=1)
    target = tmp_path / "mount"
    format_and_mount(attachment, target)
    other = LocalPlatform("local", LocalOptions(root=str(root)))
    assert other.expand(volume, 64).size_mib == 64
    assert sectors(attachment.device) == 64 << 11
    (target / "still").write_text("writable")
    subprocess.run(["umount", str(target)], check=True)
    subprocess.run(["fsck.ext4", "-fp", attachment.device], check=True, capture_output=True)
    subprocess.run(["resize2fs", attachment.device], check=True, capture_output=True)
    with mounted(tmp_path / "grown", attachment.device) as grown:
        assert (grown / "still").read_text() == "writable"
        assert os.statvfs(grown).f_blocks * os.statvfs(grown).f_frsize > 40 << 20


def test_grow_that_broke_off_is_finished_by_its_repeat(root: Path, platform: LocalPlatform, volume: ExternalId) -> None:
    attachment = platform.attach(volume, "node-a", epoch=1)
    os.truncate(image_of(root, volume), 32 << 20)
    assert sectors(attachment.device) == 16 << 11
    platform.expand(volume, 32)
    assert sectors(attachment.device) == 32 << 11


def test_kernel_without_the_ioctl_is_named_and_nothing_stays_held(
    platform: LocalPlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_LOOP_CONFIGURE", 0x4CFF)
    with pytest.raises(PlatformError, match=r"LOOP_CONFIGURE, which came with Linux 5\.8"):
        platform.attach(volume, "node-a", epoch=1)
    assert platform.inspect(volume).held_by == ()
    monkeypatch.undo()
    assert platform.attach(volume, "node-a", epoch=1).serial == volume


def test_device_that_others_took_first_is_not_ours(
    root: Path, platform: LocalPlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = platform.attach(volume, "node-a", epoch=1)
    second = platform.create(CreateRequest(pool="default", size_mib=16, token="claim-2")).external_id
    free, answers = loop._free_number, iter([int(taken.device.removeprefix("/dev/loop"))])
    monkeypatch.setattr(loop, "_free_number", lambda: next(answers, None) or free())
    attachment = platform.attach(second, "node-a", epoch=1)
    assert attachment.device != taken.device
    assert backing_file(taken.device) == str(image_of(root, volume))


def test_volume_without_root_is_refused_in_words(platform: LocalPlatform, volume: ExternalId, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden() -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(loop, "_free_number", forbidden)
    with pytest.raises(PlatformError, match="loop devices need root"):
        platform.attach(volume, "node-a", epoch=1)
    assert platform.inspect(volume).held_by == ()
    assert [finding.ok for finding in platform.check()][-1] is False


def test_copy_keeps_holes_and_data(root: Path, platform: LocalPlatform) -> None:
    made = platform.create(CreateRequest(pool="default", size_mib=512, token="sparse")).external_id
    with open(image_of(root, made), "rb+") as image:
        image.seek(300 << 20)
        image.write(b"deep inside")
    snapshot = platform.snapshot(made, token="snap-1").external_id
    copy = platform.create(CreateRequest(pool="default", size_mib=512, token="copy", snapshot=snapshot))
    path = image_of(root, copy.external_id)
    with open(path, "rb") as image:
        image.seek(300 << 20)
        assert image.read(11) == b"deep inside"
    assert path.stat().st_size == 512 << 20
    assert path.stat().st_blocks * 512 < 1 << 20


def test_volume_cannot_be_attached_for_writing_while_it_is_copied(platform: LocalPlatform, volume: ExternalId) -> None:
    with platform._records.known(volume) as known, platform._snapshots._nobody_writes(known, "clone"):
        pass
    with platform._records.known(volume) as known:
        quiet = platform._snapshots._nobody_writes(known, "clone")
        quiet.__enter__()
    with pytest.raises(VolumeInUse):
        platform.attach(volume, "node-a", epoch=1)
    quiet.__exit__(None, None, None)
    assert platform.attach(volume, "node-a", epoch=1).serial == volume


def test_snapshot_under_a_writer_is_what_a_crash_would_leave(tmp_path: Path) -> None:
    with xfs(tmp_path) as folder:
        platform = LocalPlatform("local", LocalOptions(root=str(folder)))
        volume = platform.create(CreateRequest(pool="default", size_mib=32, token="written")).external_id
        target = tmp_path / "mount"
        format_and_mount(platform.attach(volume, "node-a", epoch=1), target)
        (target / "synced").write_text("on disk")
        os.sync()
        snapshot = platform.snapshot(volume, token="snap").external_id
        (target / "later").write_text("not in the snapshot")
        subprocess.run(["umount", str(target)], check=True)
        copy = platform.create(CreateRequest(pool="default", size_mib=32, token="copy", snapshot=snapshot)).external_id
        device = platform.attach(copy, "node-a", epoch=1).device
        with mounted(tmp_path / "copy", device) as restored:
            assert [file.name for file in restored.iterdir() if file.is_file()] == ["synced"]
            assert (restored / "synced").read_text() == "on disk"
        assert subprocess.run(["fsck.ext4", "-fn", device], capture_output=True, check=False).returncode == 0
        platform.close()
