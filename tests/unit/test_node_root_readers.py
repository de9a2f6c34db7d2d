"""Volumes for reading on real loop devices: shared by several, written to by none, also by the kernel for them."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.errors import DamagedFilesystem, NodeError, PlatformUnavailable
from storage.model import Access, AccessMode, Birth, ExternalId
from storage.node import filesystems, writing
from storage.node.births import filesystem_uuid
from storage.node.pace import Pace
from storage.node.staged import may_be_held
from tests.nodes import Node, again, digest, plan

pytestmark = pytest.mark.root

TICKS = itertools.count()
HASTY = Pace(now=lambda: float(next(TICKS)), wait=lambda seconds: None)
"""Whoever waits has waited long enough after a few looks."""

KINDS = pytest.mark.parametrize(("filesystem", "size_mib"), [("ext4", 64), ("xfs", 320)])


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Node(tmp_path) as node:
        yield node


def crashed(node: Node, **known: Any) -> Birth:
    """A volume that was never unmounted since something was written to it."""
    first = node.stage(plan(**known))
    Path(first.path, "file").write_text("written")
    subprocess.run(["sync", "-f", first.path], check=True)
    left = node.platform.image("claim-1").read_bytes()
    node.unstage(first)
    node.platform.image("claim-1").write_bytes(left)
    return first.birth


def test_a_crashed_volume_is_not_mounted_for_reading_only_from_a_device_that_cannot_be_written(node: Node) -> None:
    birth = crashed(node)
    before = digest(node.platform.image("claim-1"))

    with pytest.raises(DamagedFilesystem, match="journal was not replayed"):
        node.stage(again(birth, access=Access.RO))
    assert digest(node.platform.image("claim-1")) == before


@KINDS
def test_a_reader_replays_no_journal_where_the_device_could_be_written_and_a_writer_then_does(
    node: Node, monkeypatch: pytest.MonkeyPatch, filesystem: str, size_mib: int
) -> None:
    """As volumes are that several nodes have attached at a time: what each of them would replay is read by the others."""
    known: dict[str, Any] = {"filesystem": filesystem, "size_mib": size_mib}
    birth = crashed(node, **known)
    before = digest(node.platform.image("claim-1"))
    set_up = node.platform._set_up
    monkeypatch.setattr(node.platform, "_set_up", lambda external_id, read_only: set_up(external_id, False))

    with pytest.raises(DamagedFilesystem, match="journal was not replayed"):
        node.stage(again(birth, access=Access.RO, **known))
    assert digest(node.platform.image("claim-1")) == before

    later = node.stage(again(birth, **known))
    assert Path(later.path, "file").read_text() == "written"
    node.unstage(later)


@KINDS
def test_a_crashed_filesystem_is_taken_over_by_a_writer_and_not_by_a_reader(node: Node, filesystem: str, size_mib: int) -> None:
    known: dict[str, Any] = {"filesystem": filesystem, "size_mib": size_mib}
    crashed(node, **known)
    imported: dict[str, Any] = {"token": "import", "external_id": ExternalId("claim-1"), **known}

    with pytest.raises(DamagedFilesystem, match="journal was not replayed"):
        node.stage(plan("claim-2", access=Access.RO, **imported))
    staged = node.stage(plan("claim-3", **imported))
    assert Path(staged.path, "file").read_text() == "written"
    node.unstage(staged)


def test_a_device_that_is_mounted_for_writing_stays_one_that_can_be_written(node: Node) -> None:
    writer = node.stage(plan())
    writing.forbid(writer.device)
    said = subprocess.run(["blockdev", "--getro", writer.device], check=True, capture_output=True, text=True).stdout
    node.unstage(writer)
    assert said == "0\n"


def test_a_device_that_can_only_be_read_is_an_error_that_says_so(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up = node.platform._set_up
    monkeypatch.setattr(node.platform, "_set_up", lambda external_id, read_only: set_up(external_id, True))
    with pytest.raises(NodeError, match=r"open for writing failed on /dev/loop\d+: the device can only be read"):
        node.stage(plan())


@KINDS
def test_readers_share_a_device_and_the_last_one_detaches(node: Node, filesystem: str, size_mib: int) -> None:
    shared = {"filesystem": filesystem, "size_mib": size_mib, "access_mode": AccessMode.MULTI_NODE_READER_ONLY}
    writer = node.stage(plan(filesystem=filesystem, size_mib=size_mib))
    Path(writer.path, "file").write_text("read me")
    node.unstage(writer)

    readers = [node.stage(again(writer.birth, claim, access=Access.RO, **shared)) for claim in ("claim-2", "claim-3")]

    assert [Path(reader.path, "file").read_text() for reader in readers] == ["read me", "read me"]
    node.unstage(readers[0], timeout_s=0.2)
    assert Path(readers[1].path, "file").read_text() == "read me"
    node.unstage(readers[1])
    node.platform.let_go("claim-1")


def test_a_reader_whose_attach_brings_no_answer_leaves_the_volume_to_the_reader_beside_it(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = node.stage(plan())
    Path(first.path, "count").write_text("1")
    node.unstage(first)
    shared = {"access": Access.RO, "access_mode": AccessMode.MULTI_NODE_READER_ONLY}
    reader = node.stage(again(first.birth, "reader-1", **shared))
    with monkeypatch.context() as lost:
        lost.setattr(node.platform, "attach", lambda *_, **__: no_answer())
        lost.setattr(node.platform, "detach", lambda *_: pytest.fail("the volume was taken from the reader beside it"))
        with pytest.raises(PlatformUnavailable) as caught:
            node.stage(again(first.birth, "reader-2", epoch=3, **shared), machine=dataclasses.replace(node.machine, pace=HASTY))

    assert not may_be_held(caught.value)
    assert Path(reader.path, "count").read_text() == "1"
    node.unstage(reader)


def test_a_writer_whose_attach_brings_no_answer_takes_nothing_from_whoever_has_the_volume_mounted(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = node.stage(plan())
    with monkeypatch.context() as lost:
        lost.setattr(node.platform, "attach", lambda *_, **__: no_answer())
        lost.setattr(node.platform, "detach", lambda *_: pytest.fail("the volume was taken from under a mount"))
        with pytest.raises(PlatformUnavailable) as caught:
            node.stage(again(before.birth), machine=dataclasses.replace(node.machine, pace=HASTY))

    assert may_be_held(caught.value)
    node.unstage(before)


def no_answer() -> None:
    raise PlatformUnavailable(platform="loops", action="attach", reason="no answer")


def test_a_volume_for_several_nodes_is_made_with_multi_mount_protection(node: Node) -> None:
    made: list[str] = []
    image = node.platform.put("claim-1")
    device = node.platform.attach(ExternalId("claim-1"), "node", epoch=1).device
    contents = filesystems.make(
        device, "ext4", uuid=filesystem_uuid(plan()), mkfs_options=(), size_mib=64, is_shared=True, run=node.machine.run
    )
    made = subprocess.run(["dumpe2fs", "-h", str(image)], check=True, capture_output=True, text=True).stdout.split()

    assert contents.filesystem == "ext4"
    assert "mmp" in made


# --- released ---------------------------------------------------------------------------------------------------
