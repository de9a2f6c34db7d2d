"""Volumes that are folders, without root: marked at birth, known again, shown by a link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from storage.errors import NodeError, NotAsBorn, NotBlank, NotFormatted, UnsafePath
from storage.model import Access, Birth, ExternalId, VolumePlan
from storage.node.births import filesystem_uuid
from storage.node.folders import MARKER, UNFINISHED, mark
from storage.node.journal import Journal
from storage.node.pace import Deadline
from storage.node.publishing import publish, unpublish
from storage.node.releasing import unstage
from storage.node.staged import Staged
from storage.node.staging import stage
from storage.node.steps import Machine
from tests.nodes import LoopPlatform, again, plan

MACHINE = Machine(may_mount=False)
UUID = "11111111-2222-4333-8444-555555555555"


class Node:
    """A node without root whose platform brings folders."""

    def __init__(self, folder: Path) -> None:
        self.platform = LoopPlatform(folder / "pool", device="folder")
        self.staging = folder / "staging"
        self.journal = Journal(folder / "journal", clock=lambda: 1.0)
        self.sandbox = folder / "sandbox"
        self.sandbox.mkdir()
        self.births: list[Birth] = []

    def stage(self, plan: VolumePlan) -> Staged:
        return stage(
            plan,
            self.platform,
            "node",
            staging_dir=self.staging,
            deadline=Deadline.of(60.0),
            journal=self.journal,
            on_birth=lambda staged: self.births.append(staged.birth),
            machine=MACHINE,
        )


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_a_marker_outlives_the_machine_once_the_birth_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the ledger would have a birth certificate of a folder that has lost its marker, and its data were nobody's."""
    synced: list[tuple[str, list[str]]] = []

    def sync(fd: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{fd}"), sorted(os.listdir(tmp_path))))

    monkeypatch.setattr(os, "fsync", sync)
    mark(str(tmp_path), UUID, may_write=True)
    assert synced == [(str(tmp_path / UNFINISHED), [UNFINISHED]), (str(tmp_path), [MARKER])]


def test_a_new_folder_is_marked_and_known_again(node: Node) -> None:
    first = node.stage(plan())
    later = node.stage(again(first.birth))

    assert first.birth == Birth(serial="claim-1", filesystem="folder", filesystem_uuid=filesystem_uuid(plan()))
    assert (first.formatted, later.formatted) == (True, False)
    assert node.births == [first.birth]
    assert Path(first.path, ".polly-volume").read_text().strip() == first.birth.filesystem_uuid


def test_staging_again_before_the_birth_is_stored_finds_the_own_mark(node: Node) -> None:
    first, second = node.stage(plan()), node.stage(plan())

    assert first.birth == second.birth
    assert second.formatted


def test_a_folder_with_data_is_not_taken_for_new(node: Node) -> None:
    (node.platform.folder / "claim-1").mkdir()
    (node.platform.folder / "claim-1" / "data").touch()

    with pytest.raises(NotBlank):
        node.stage(plan())


@pytest.mark.parametrize("marker", ["junk", ""])
def test_a_marker_that_is_none_is_an_error_for_a_person(node: Node, marker: str) -> None:
    first = node.stage(plan())
    Path(first.path, ".polly-volume").write_text(marker)

    with pytest.raises(NodeError, match="badly formed"):
        node.stage(again(first.birth))


def test_another_volumes_folder_is_refused(node: Node) -> None:
    first = node.stage(plan())
    Path(first.path, ".polly-volume").write_text("11111111-2222-3333-4444-555555555555\n")

    with pytest.raises(NotAsBorn, match="filesystem UUID"):
        node.stage(again(first.birth))


def test_an_emptied_folder_is_refused(node: Node) -> None:
    first = node.stage(plan())
    Path(first.path, ".polly-volume").unlink()

    with pytest.raises(NotAsBorn, match="nothing"):
        node.stage(again(first.birth))


def test_an_imported_folder_gets_its_mark(node: Node) -> None:
    (node.platform.folder / "old").mkdir()
    (node.platform.folder / "old" / "data").write_text("kept")
    imported = plan("claim-9", token="import", external_id=ExternalId("old"))

    staged = node.stage(imported)

    assert node.births == [staged.birth]
    assert not staged.formatted
    assert Path(staged.path, "data").read_text() == "kept"
    assert node.stage(again(staged.birth, "claim-10", external_id=ExternalId("old"))).birth == staged.birth


def test_an_imported_folder_without_mark_cannot_begin_as_read_only(node: Node) -> None:
    (node.platform.folder / "old").mkdir()
    (node.platform.folder / "old" / "data").touch()

    with pytest.raises(NotFormatted):
        node.stage(plan("claim-9", token="import", external_id=ExternalId("old"), access=Access.RO))


def test_a_copy_of_a_snapshot_gets_a_mark_of_its_own(node: Node) -> None:
    first = node.stage(plan())
    (node.platform.folder / "claim-5").mkdir()
    (node.platform.folder / "claim-5" / ".polly-volume").write_text(f"{first.birth.filesystem_uuid}\n")

    copy = node.stage(plan("claim-5", snapshot=ExternalId("snap")))

    assert copy.birth.filesystem_uuid == filesystem_uuid(plan("claim-5")) != first.birth.filesystem_uuid


def test_a_copy_that_is_read_first_keeps_the_mark_that_it_brought(node: Node) -> None:
    first = node.stage(plan())
    (node.platform.folder / "claim-5").mkdir()
    (node.platform.folder / "claim-5" / ".polly-volume").write_text(f"{first.birth.filesystem_uuid}\n")

    copy = node.stage(plan("claim-5", source=ExternalId("claim-1"), access=Access.RO))

    assert copy.birth == replace(first.birth, serial=copy.birth.serial)
    assert copy.birth.serial != first.birth.serial


def test_without_root_it_is_linked_and_the_link_goes_again(node: Node) -> None:
    staged = node.stage(plan())

    published = publish(staged, node.sandbox, "deep/data", machine=MACHINE)
    assert publish(staged, node.sandbox, "deep/data", machine=MACHINE) == published
    (node.sandbox / "deep" / "data" / "file").write_text("x")

    assert published.is_link
    assert Path(staged.path, "file").read_text() == "x"
    unpublish(node.sandbox, "deep/data", machine=MACHINE)
    unpublish(node.sandbox, "deep/data", machine=MACHINE)
    assert not (node.sandbox / "deep" / "data").is_symlink()
    assert Path(staged.path, "file").exists()


def test_something_else_at_the_target_stays(node: Node) -> None:
    staged = node.stage(plan())
    (node.sandbox / "data").write_text("mine")
    (node.sandbox / "link").symlink_to("/etc")

    for target in ("data", "link"):
        with pytest.raises(UnsafePath, match="something else"):
            publish(staged, node.sandbox, target, machine=MACHINE)
    assert (node.sandbox / "data").read_text() == "mine"
    assert (node.sandbox / "link").readlink() == Path("/etc")


def test_without_root_nothing_can_be_kept_read_only(node: Node) -> None:
    staged = node.stage(plan())

    with pytest.raises(NodeError, match="may be written"):
        publish(staged, node.sandbox, "data", read_only=True, machine=MACHINE)


def test_unstaging_leaves_the_data(node: Node) -> None:
    staged = node.stage(plan())

    took = unstage(staged.plan, node.platform, "node", staging_dir=node.staging, journal=node.journal, machine=MACHINE)

    assert set(took) == {"detach"}
    assert Path(staged.path, ".polly-volume").exists()
