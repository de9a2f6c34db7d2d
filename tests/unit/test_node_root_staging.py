"""The whole way of a volume on real loop devices: born, taken up again, grown, copied, imported, released."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from storage.errors import BusyMount, NodeError, NotAsBorn, PlatformUnavailable
from storage.model import Access, Birth, ExternalId, VolumeId
from storage.node import mountinfo
from storage.node.births import filesystem_uuid
from storage.node.commands import Output, run
from storage.node.staged import Staged, may_be_held
from storage.node.steps import Machine
from tests.nodes import Node, again, digest, plan

pytestmark = pytest.mark.root

KINDS = pytest.mark.parametrize(("filesystem", "size_mib"), [("ext4", 64), ("xfs", 320)])


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Node(tmp_path) as node:
        yield node


def said_by_blkid(image: Path) -> tuple[str, str]:
    """Type and UUID as another program sees them."""
    said = subprocess.run(["blkid", "-p", "-o", "export", str(image)], check=True, capture_output=True, text=True).stdout
    words = dict(line.split("=", 1) for line in said.splitlines())
    return words["TYPE"], words["UUID"]


def is_sound(image: Path, filesystem: str) -> bool:
    command = ["e2fsck", "-f", "-n"] if filesystem == "ext4" else ["xfs_repair", "-n"]
    return subprocess.run([*command, str(image)], capture_output=True, check=False).returncode == 0


@KINDS
def test_a_volume_is_born_written_released_and_taken_up_again(node: Node, filesystem: str, size_mib: int) -> None:
    first = node.stage(plan(filesystem=filesystem, size_mib=size_mib))
    Path(first.path, "count").write_text("1")
    took = node.unstage(first)

    assert first.formatted
    assert list(first.took_ms) == ["create", "attach", "probe", "mkfs", "birth", "mount"]
    assert list(took) == ["unmount", "detach"]
    assert said_by_blkid(node.platform.image("claim-1")) == (filesystem, first.birth.filesystem_uuid)
    assert first.birth.filesystem_uuid == filesystem_uuid(first.plan)
    node.platform.let_go("claim-1")
    assert os.listdir(node.staging) == []

    second = node.stage(again(first.birth, filesystem=filesystem, size_mib=size_mib))
    assert Path(second.path, "count").read_text() == "1"
    assert not second.formatted
    assert "mkfs" not in second.took_ms
    assert node.births == [first.birth]
    node.unstage(second)
    assert is_sound(node.platform.image("claim-1"), filesystem)


def test_the_birth_is_told_before_the_first_mount_and_kept_with_the_platform_once_it_was_told(node: Node) -> None:
    seen: list[tuple[bool, Birth | None]] = []

    def on_birth(staged: Staged) -> None:
        mounted = any(mount.source == staged.device for mount in mountinfo.read())
        seen.append((mounted, node.platform.inspect(staged.external_id).birth))

    staged = node.stage(plan(), on_birth=on_birth)

    assert seen == [(False, None)]
    assert node.platform.inspect(staged.external_id).birth == staged.birth
    node.unstage(staged)


def test_staging_twice_mounts_once_and_a_failing_repeat_leaves_the_first(node: Node) -> None:
    first = node.stage(plan())
    with Path(first.path, "file").open("w") as file:
        second = node.stage(plan())
        with pytest.raises(NotAsBorn) as caught:
            node.stage(plan(birth=replace(first.birth, filesystem_uuid="other")))
        file.write("still here")

    assert (second.path, second.birth, second.formatted) == (first.path, first.birth, True)
    assert may_be_held(caught.value)
    assert Path(first.path, "file").read_text() == "still here"
    assert sum(mount.source == first.device for mount in mountinfo.read()) == 1
    node.unstage(first)
    node.unstage(first)


@KINDS
def test_a_grown_volume_grows_its_filesystem_with_its_data(node: Node, filesystem: str, size_mib: int) -> None:
    first = node.stage(plan(filesystem=filesystem, size_mib=size_mib))
    Path(first.path, "data").write_bytes(os.urandom(1 << 20))
    content, total = digest(Path(first.path, "data")), shutil.disk_usage(first.path).total
    node.unstage(first)
    os.truncate(node.platform.image("claim-1"), (size_mib + 64) << 20)

    grown = node.stage(again(first.birth, filesystem=filesystem, size_mib=size_mib + 64))

    assert "grow" in grown.took_ms
    assert grown.size_mib == size_mib + 64
    assert digest(Path(grown.path, "data")) == content
    assert shutil.disk_usage(grown.path).total > total + (50 << 20)
    node.unstage(grown)
    assert is_sound(node.platform.image("claim-1"), filesystem)
    same = node.stage(again(first.birth, filesystem=filesystem, size_mib=size_mib + 64, epoch=3))
    assert "grow" not in same.took_ms
    node.unstage(same)


@KINDS
def test_a_volume_grows_while_it_is_used(node: Node, filesystem: str, size_mib: int) -> None:
    staged = node.stage(plan(filesystem=filesystem, size_mib=size_mib))
    total = shutil.disk_usage(staged.path).total
    larger = plan(filesystem=filesystem, size_mib=size_mib + 64, birth=staged.birth, external_id=staged.external_id)
    with Path(staged.path, "log").open("w") as log:
        log.write("before,")
        os.truncate(node.platform.image("claim-1"), (size_mib + 64) << 20)
        if filesystem == "xfs" or node.machine.may_resize:
            assert "grow" in node.stage(larger).took_ms
            assert shutil.disk_usage(staged.path).total > total + (50 << 20)
        else:
            with pytest.raises(NodeError, match=r"resize2fs failed .* Permission denied"):
                node.stage(larger)
        log.write("after")

    assert Path(staged.path, "log").read_text() == "before,after"
    node.unstage(staged)


@KINDS
def test_an_imported_volume_gets_its_birth_certificate_and_keeps_its_data(
    node: Node, filesystem: str, size_mib: int, tmp_path: Path
) -> None:
    image = node.platform.put("old", size_mib)
    subprocess.run([f"mkfs.{filesystem}", "-q", str(image)], check=True)
    _, uuid = said_by_blkid(image)

    staged = node.stage(plan("claim-9", token="import", external_id=ExternalId("old"), filesystem=filesystem, size_mib=size_mib))

    assert node.births == [Birth(serial=str(image), filesystem=filesystem, filesystem_uuid=uuid)]
    assert not staged.formatted
    assert "mkfs" not in staged.took_ms
    node.unstage(staged)


@KINDS
def test_a_copy_of_a_volume_in_use_can_be_mounted_beside_it(node: Node, filesystem: str, size_mib: int) -> None:
    origin = node.stage(plan(filesystem=filesystem, size_mib=size_mib))
    Path(origin.path, "file").write_text("shared")
    subprocess.run(["sync", "-f", origin.path], check=True)
    shutil.copyfile(node.platform.image("claim-1"), node.platform.image("claim-5"))

    copy = node.stage(plan("claim-5", snapshot=ExternalId("snap"), filesystem=filesystem, size_mib=size_mib))
    again_beside = node.stage(plan("claim-5", snapshot=ExternalId("snap"), filesystem=filesystem, size_mib=size_mib))

    assert Path(copy.path, "file").read_text() == "shared"
    assert not copy.formatted
    assert copy.birth == again_beside.birth
    for staged in (copy, origin):
        node.unstage(staged)
    assert said_by_blkid(node.platform.image("claim-5")) == (filesystem, copy.birth.filesystem_uuid)


@KINDS
def test_a_copy_that_is_read_first_is_not_written_to_and_later_lies_beside_its_origin(node: Node, filesystem: str, size_mib: int) -> None:
    first = node.stage(plan(filesystem=filesystem, size_mib=size_mib))
    Path(first.path, "file").write_text("shared")
    node.unstage(first)
    shutil.copyfile(node.platform.image("claim-1"), node.platform.image("claim-5"))
    origin = node.stage(again(first.birth, filesystem=filesystem, size_mib=size_mib))

    wanted: dict[str, Any] = {
        "source": ExternalId("claim-1"),
        "volume_id": VolumeId("vol-2"),
        "filesystem": filesystem,
        "size_mib": size_mib,
    }
    reader = node.stage(plan("claim-5", access=Access.RO, **wanted))
    assert Path(reader.path, "file").read_text() == "shared"
    assert reader.birth == replace(origin.birth, serial=reader.birth.serial)
    node.unstage(reader)
    writer = node.stage(plan("claim-6", token="claim-5", external_id=ExternalId("claim-5"), birth=reader.birth, epoch=2, **wanted))
    Path(writer.path, "file").write_text("mine")

    assert Path(origin.path, "file").read_text() == "shared"
    for staged in (writer, origin):
        node.unstage(staged)


@KINDS
def test_a_volume_that_was_not_unmounted_is_replayed(node: Node, filesystem: str, size_mib: int) -> None:
    first = node.stage(plan(filesystem=filesystem, size_mib=size_mib))
    Path(first.path, "file").write_text("written")
    subprocess.run(["sync", "-f", first.path], check=True)
    crashed = node.platform.image("claim-1").read_bytes()
    node.unstage(first)
    node.platform.image("claim-1").write_bytes(crashed)

    later = node.stage(again(first.birth, filesystem=filesystem, size_mib=size_mib))

    assert Path(later.path, "file").read_text() == "written"
    node.unstage(later)
    assert is_sound(node.platform.image("claim-1"), filesystem)


def test_a_busy_volume_is_not_detached_and_can_be_released_later(node: Node) -> None:
    staged = node.stage(plan())
    sleeper = subprocess.Popen(["sleep", "60"], cwd=staged.path)
    try:
        for force in (False, True):
            with pytest.raises(BusyMount) as caught:
                node.unstage(staged, timeout_s=0.2, force=force)
            assert node.platform.device("claim-1") == staged.device
            assert may_be_held(caught.value)
    finally:
        sleeper.kill()
        sleeper.wait()
    node.unstage(staged)
    node.platform.let_go("claim-1")


def test_a_volume_that_is_mounted_in_another_namespace_is_not_detached(node: Node) -> None:
    staged = node.stage(plan())
    other = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    try:
        with pytest.raises(BusyMount, match="another namespace"):
            node.unstage(staged, timeout_s=0.2)
        assert node.platform.device("claim-1") == staged.device
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    node.unstage(staged)


def test_a_release_in_a_folder_where_nothing_ever_was_is_fine(node: Node) -> None:
    node.staging.mkdir()

    assert "detach" not in node.unstage(
        Staged(plan=plan(), external_id=ExternalId(""), size_mib=0, device="", birth=Birth(serial="", filesystem="", filesystem_uuid=""))
    )


# --- undone -----------------------------------------------------------------------------------------------------


def test_a_failing_mount_is_undone(node: Node) -> None:
    node.staging.mkdir()
    (node.staging / "claim-1").mkdir()
    (node.staging / "claim-1" / "file").touch()

    with pytest.raises(NodeError, match="not empty") as caught:
        node.stage(plan())

    node.platform.let_go("claim-1")
    assert not may_be_held(caught.value)
    assert (node.staging / "claim-1" / "file").exists()


@pytest.mark.parametrize("may_resize", [True, False])
def test_a_mounted_ext4_is_grown_only_where_the_kernel_lets_us(node: Node, may_resize: bool) -> None:
    first = node.stage(plan())
    node.unstage(first)
    os.truncate(node.platform.image("claim-1"), 128 << 20)
    grown_where: list[bool] = []

    def record(command: Sequence[str], *paths: str, ok: Collection[int] = (0,), timeout_s: float = 60.0, writes: bool = False) -> Output:
        if command[0] == "resize2fs":
            grown_where.append(any(mount.source == paths[0] for mount in mountinfo.read()))
            return Output(code=0, out="", err="")
        return run(command, *paths, ok=ok, timeout_s=timeout_s, writes=writes)

    node.machine = Machine(run=record, may_resize=may_resize)
    node.unstage(node.stage(again(first.birth, size_mib=128)))

    assert grown_where[0] is may_resize


def test_an_undo_that_cannot_detach_says_so(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*arguments: object, **options: object) -> None:
        raise PlatformUnavailable(platform="loops", action="detach", reason="no answer")

    with monkeypatch.context() as patched:
        patched.setattr(node.platform, "detach", lost)
        with pytest.raises(NodeError, match="RuntimeError: the broker said no") as caught:
            node.stage(plan(), on_birth=_raise)

    assert any("no answer" in note for note in caught.value.__notes__)
    assert may_be_held(caught.value)


def _raise(staged: Staged) -> None:
    raise RuntimeError("the broker said no")
