"""Mounts as the kernel makes them: read back, repeated, refused, busy, bound, private, and gone with their process."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from storage.errors import BusyMount, NodeError, UnsafePath
from storage.model import ExternalId
from storage.node import mountinfo, mounts, syscalls
from storage.node.namespaces import private_mount_namespace
from storage.node.options import check_mount
from storage.node.pace import Pace
from storage.node.publishing import publish, unpublish
from storage.node.targets import Target
from tests.nodes import Node, plan
from tests.support import eventually

pytestmark = pytest.mark.root


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Node(tmp_path) as node:
        yield node


@pytest.fixture
def device(node: Node) -> str:
    """A loop device with ext4."""
    image = node.platform.put("disk")
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    return node.platform.attach(ExternalId("disk"), "node", epoch=1).device


@pytest.fixture
def target(node: Node) -> Target:
    node.staging.mkdir()
    return Target.below(node.staging, "claim")


def options_at(path: str) -> frozenset[str]:
    found = mountinfo.top(path, mountinfo.read())
    assert found is not None
    return found.options


def in_child(body: Callable[[], None]) -> int:
    """Runs `body` in a child process and returns its exit code: 0, or 1 if it raised."""
    child = os.fork()
    if child == 0:
        try:
            body()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# --- mount and unmount --------------------------------------------------------------------------------------


def test_a_mount_has_nosuid_and_nodev_and_again_is_the_same(device: str, target: Target) -> None:
    first = mounts.mount_device(device, "ext4", target, check_mount("ext4", ["noatime"]))
    second = mounts.mount_device(device, "ext4", target, check_mount("ext4", ["noatime"]))

    assert first == second
    assert first.options >= {"rw", "nosuid", "nodev", "noatime"}
    assert [mount.target for mount in mountinfo.read()].count(str(target)) == 1
    assert mounts.unmount(target, device=first.device, pace=Pace())
    assert not mounts.unmount(target, pace=Pace())


def test_other_options_or_another_device_are_not_the_same(node: Node, device: str, target: Target) -> None:
    mounts.mount_device(device, "ext4", target, check_mount("ext4", []))
    subprocess.run(["mkfs.ext4", "-q", "-F", str(node.platform.put("other"))], check=True)
    other = node.platform.attach(ExternalId("other"), "node", epoch=1).device

    for again, words, read_only in ((device, ["noexec"], False), (device, [], True), (other, [], False)):
        with pytest.raises(NodeError, match="something else is mounted there"):
            mounts.mount_device(again, "ext4", target, check_mount("ext4", words), read_only=read_only)
    mounts.unmount(target, pace=Pace())


def test_anothers_mount_is_never_unmounted(device: str, target: Target) -> None:
    mounts.mount_device(device, "ext4", target, check_mount("ext4", []))

    with pytest.raises(NodeError, match="not ours"):
        mounts.unmount(target, device="7:250", pace=Pace())
    assert os.path.ismount(str(target))
    mounts.unmount(target, pace=Pace())


def test_a_link_in_the_targets_place_is_refused(device: str, node: Node, target: Target, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (node.staging / "claim").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(UnsafePath):
        mounts.mount_device(device, "ext4", target, check_mount("ext4", []))
    assert not os.path.ismount(tmp_path / "elsewhere")


def test_a_device_that_holds_no_such_filesystem_is_said(device: str, target: Target) -> None:
    with pytest.raises(NodeError, match="mount -t xfs failed"):
        mounts.mount_device(device, "xfs", target, check_mount("ext4", []))
    assert not os.path.ismount(str(target))


def test_a_busy_mount_names_who_keeps_it_and_stays(device: str, target: Target) -> None:
    mounts.mount_device(device, "ext4", target, check_mount("ext4", []))
    sleeper = subprocess.Popen(["sleep", "60"], cwd=str(target))
    try:
        with pytest.raises(BusyMount, match=rf"in use by {sleeper.pid} \(sleep\) after 0.3 s"):
            mounts.unmount(target, timeout_s=0.3, pace=Pace())
        assert os.path.ismount(str(target))
    finally:
        sleeper.kill()
        sleeper.wait()
    assert mounts.unmount(target, pace=Pace())


def test_an_unmount_waits_for_a_user_that_goes(device: str, target: Target) -> None:
    mounts.mount_device(device, "ext4", target, check_mount("ext4", []))
    sleeper = subprocess.Popen(["sleep", "60"], cwd=str(target))

    def wait(seconds: float) -> None:
        sleeper.kill()
        sleeper.wait()

    assert mounts.unmount(target, timeout_s=5.0, pace=Pace(wait=wait))


def test_only_force_takes_a_busy_mount_out_of_sight(device: str, target: Target) -> None:
    mounts.mount_device(device, "ext4", target, check_mount("ext4", []))
    sleeper = subprocess.Popen(["sleep", "60"], cwd=str(target))
    try:
        assert mounts.unmount(target, timeout_s=0.1, force=True, pace=Pace())
        assert mountinfo.top(str(target), mountinfo.read()) is None
    finally:
        sleeper.kill()
        sleeper.wait()


# --- binds ----------------------------------------------------------------------------------------------------


def test_a_volume_is_bound_for_writing_and_for_reading(node: Node, tmp_path: Path) -> None:
    staged = node.stage(plan(mount_options=("noexec",)))

    write = publish(staged, tmp_path, "box/deep/data", owner=(1234, 1235))
    read = publish(staged, tmp_path, "box/view", read_only=True)
    assert publish(staged, tmp_path, "box/view", read_only=True) == read

    Path(write.path, "file").write_text("seen")
    assert Path(read.path, "file").read_text() == "seen"
    with pytest.raises(OSError, match="Read-only"):
        Path(read.path, "other").touch()
    assert options_at(write.path) >= {"rw", "nosuid", "nodev", "noexec"}
    assert options_at(read.path) >= {"ro", "nosuid", "nodev", "noexec"}
    assert (os.stat(write.path).st_uid, os.stat(tmp_path / "box" / "deep").st_gid) == (1234, 1235)
    for target in ("box/view", "box/deep/data", "box/deep/data"):
        unpublish(tmp_path, target)
    node.unstage(staged)
    assert not os.path.lexists(write.path)


@pytest.mark.parametrize("name", ["da#ta", "da ta", "da\tta", "da\\\\ta", "dätä", "da\nta"])
def test_a_target_of_any_name_is_found_again(node: Node, tmp_path: Path, name: str) -> None:
    staged = node.stage(plan())

    shown = publish(staged, tmp_path, f"box/{name}")

    Path(shown.path, "file").write_text("seen")
    assert Path(staged.path, "file").read_text() == "seen"
    unpublish(tmp_path, f"box/{name}")
    assert not os.path.lexists(shown.path)
    node.unstage(staged)


def test_a_volume_whose_user_has_moved_it_is_taken_away_where_it_is_now(node: Node, tmp_path: Path) -> None:
    staged = node.stage(plan())
    shown = publish(staged, tmp_path, "box/deep/data")
    os.rename(tmp_path / "box", tmp_path / "elsewhere")
    (tmp_path / "box").symlink_to("/etc")

    unpublish(tmp_path, "box/deep/data", mount=shown.mount)

    assert not [mount for mount in mountinfo.read() if mount.target.startswith(str(tmp_path / "elsewhere"))]
    node.unstage(staged)


def test_another_mount_under_the_number_of_one_that_is_gone_stays(node: Node, tmp_path: Path) -> None:
    staged = node.stage(plan())
    shown = publish(staged, tmp_path, "data")
    assert shown.mount is not None
    gone = replace(shown.mount, device="0:0")

    assert mounts.moved(gone) is None
    unpublish(tmp_path, "data", mount=gone)
    node.unstage(staged)


def test_another_volume_at_the_target_is_an_error(node: Node, tmp_path: Path) -> None:
    staged = node.stage(plan())
    other = node.stage(plan("claim-b"))
    publish(staged, tmp_path, "data")

    with pytest.raises(NodeError, match="something else"):
        publish(other, tmp_path, "data")
    with pytest.raises(NodeError, match="something else"):
        publish(staged, tmp_path, "data", read_only=True)
    unpublish(tmp_path, "data")
    for each in (staged, other):
        node.unstage(each)


def test_a_bind_target_that_is_a_link_is_refused(node: Node, tmp_path: Path) -> None:
    staged = node.stage(plan())
    (tmp_path / "box").mkdir()
    (tmp_path / "box" / "data").symlink_to("/etc")
    (tmp_path / "box" / "way").symlink_to("/etc")

    for target in ("box/data", "box/way/data"):
        with pytest.raises(UnsafePath):
            publish(staged, tmp_path, target)
    assert not Path("/etc/data").exists()
    node.unstage(staged)


# --- namespaces -----------------------------------------------------------------------------------------------


def test_what_is_mounted_in_a_private_namespace_is_seen_by_nobody_else_and_goes_with_it(device: str, target: Target) -> None:
    ready_read, ready_write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            private_mount_namespace()
            mounts.mount_device(device, "ext4", target, check_mount("ext4", []))
            Path(str(target), "file").write_text("kept")
            os.write(ready_write, b"x" if os.path.ismount(str(target)) else b"-")
            signal.pause()
        finally:
            os._exit(1)
    try:
        assert os.read(ready_read, 1) == b"x"
        assert not os.path.ismount(str(target))
        assert str(target) not in {mount.target for mount in mountinfo.read()}
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready_read)
        os.close(ready_write)

    assert eventually(lambda: mounts.mount_device(device, "ext4", target, check_mount("ext4", [])), 5.0, "the device is free")
    assert Path(str(target), "file").read_text() == "kept"
    mounts.unmount(target, pace=Pace())


def test_unmounting_inside_takes_nothing_away_outside(device: str, target: Target) -> None:
    mounts.mount_device(device, "ext4", target, check_mount("ext4", []))

    def inside() -> None:
        private_mount_namespace()
        assert mounts.unmount(target, pace=Pace())
        assert not mounts.unmount(target, pace=Pace())

    assert in_child(inside) == 0
    assert os.path.ismount(str(target))
    mounts.unmount(target, pace=Pace())


def test_a_process_with_threads_gets_no_namespace(tmp_path: Path) -> None:
    (tmp_path / "self" / "task").mkdir(parents=True)
    for thread in ("1", "2"):
        (tmp_path / "self" / "task" / thread).touch()

    with pytest.raises(NodeError, match="more than one thread"):
        private_mount_namespace(proc=tmp_path)


def test_a_failing_remount_leaves_no_bind(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staged = node.stage(plan())
    real = syscalls.mount

    def fails_to_remount(source: str, target: str, filesystem: str, flags: int, data: str = "") -> None:
        if flags & syscalls.MS_REMOUNT:
            raise OSError(1, "no")
        real(source, target, filesystem, flags, data)

    with monkeypatch.context() as patched:
        patched.setattr(syscalls, "mount", fails_to_remount)
        with pytest.raises(NodeError, match="mount --bind"):
            publish(staged, tmp_path, "data", read_only=True)

    assert not os.path.ismount(tmp_path / "data")
    node.unstage(staged)
