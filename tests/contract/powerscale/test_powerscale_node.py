"""PowerScale's volumes through the node's own code. mount(8) and the kernel are made up; the files are those of the cluster's /ifs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from storage.errors import NodeError, StaleEpoch, VolumeInUse
from storage.model import Access, AccessMode, Birth, ExternalId
from storage.node import commands
from storage.node.births import filesystem_uuid
from storage.node.commands import Output
from storage.node.devices import Roots
from storage.node.folders import MARKER
from storage.node.journal import Journal
from storage.node.pace import Deadline, Pace
from storage.node.releasing import unstage
from storage.node.staged import Staged
from storage.node.staging import stage
from storage.node.steps import Machine
from storage.platforms.powerscale.platform import PowerScalePlatform
from tests.contract.powerscale.arena import BASE, NODES, platform_on
from tests.nodes import plan
from tests.peers.powerscale_onefs import OneFs

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("powerscale")]

A, B = NODES
WANTED = {"platform": "nas", "pool": "System", "size_mib": 8, "mount_options": ("vers=4.1",)}


class Node:
    """A machine that mounts what the cluster's exports let it."""

    def __init__(self, folder: Path, front: OneFs, name: str) -> None:
        self.front, self.name, self.platform = front, name, platform_on(front)
        self.staging, self.proc = folder / "staging", folder / "proc"
        (self.proc / "thread-self").mkdir(parents=True)
        self.journal = Journal(folder / "journal", clock=lambda: 1.0)
        self.mounted: dict[str, tuple[str, str]] = {}
        self._show()

    def _show(self) -> None:
        lines = [
            f"{510 + number} 29 0:{53 + number} / {target} {options} shared:200 - nfs4 {source} {options[:2]},vers=4.1"
            for number, (target, (source, options)) in enumerate(self.mounted.items())
        ]
        mountinfo = "".join(f"{line}\n" for line in ["29 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw", *lines])
        (self.proc / "thread-self" / "mountinfo").write_text(mountinfo)

    def run(self, command: Sequence[str], *paths: str, ok: Collection[int] = (0,), timeout_s: float = 60.0, writes: bool = False) -> Output:
        if command[0] == "mount":
            return self._mount(command[4].split(","), *paths)
        if command[0] == "umount":
            del self.mounted[paths[0]]
            self._show()
            return Output(code=0, out="", err="")
        return commands.run(command, str(self.place(paths[0])), *paths[1:], ok=ok, timeout_s=timeout_s)

    def _mount(self, words: list[str], source: str, target: str) -> Output:
        host, _, path = source.partition(":")
        allowed = self.front.cluster.may_mount(path, self.name)
        if host != "nas.example" or not allowed:
            raise NodeError(command="mount", target=source, reason="exit code 32: mount.nfs: access denied by server")
        assert allowed == "rw" or "ro" in words, "a reader's export is mounted for writing"
        self.mounted[target] = (source, f"{'ro' if 'ro' in words else 'rw'},nosuid,nodev,relatime")
        self._show()
        return Output(code=0, out="", err="")

    def place(self, target: str) -> Path:
        """What is mounted there."""
        return self.front.cluster.ifs.real(self.mounted[target][0].partition(":")[2])

    def stage(self, **more: Any) -> Staged:
        return stage(
            plan(**{**WANTED, **more}),
            self.platform,
            self.name,
            staging_dir=self.staging,
            deadline=Deadline.of(600.0),
            journal=self.journal,
            on_birth=lambda staged: None,
            machine=self.machine,
        )

    def unstage(self, staged: Staged) -> None:
        given: dict[str, Any] = {"external_id": staged.external_id, "timeout_s": 5.0, "machine": self.machine}
        unstage(staged.plan, self.platform, self.name, staging_dir=self.staging, journal=self.journal, **given)

    @property
    def machine(self) -> Machine:
        return Machine(roots=Roots(proc=self.proc), pace=Pace(), run=self.run, may_mount=True)


@pytest.fixture
def here(tmp_path: Path, front: OneFs) -> Node:
    return Node(tmp_path / "here", front, A)


@pytest.fixture
def there(tmp_path: Path, front: OneFs) -> Node:
    return Node(tmp_path / "there", front, B)


def later(staged: Staged, number: int, **more: Any) -> dict[str, Any]:
    """The next claim on the volume."""
    claim = {"claim_id": f"claim-{number}", "token": staged.plan.token, "epoch": staged.plan.epoch + number}
    return {**claim, "volume_id": staged.plan.volume_id, "external_id": staged.external_id, "birth": staged.birth, **more}


def test_a_volume_is_made_mounted_marked_and_found_again_elsewhere(front: OneFs, here: Node, there: Node) -> None:
    first = here.stage()
    volume = first.external_id
    assert first.device == f"nas.example:{BASE}/{volume}"
    assert first.birth == Birth(serial=volume, filesystem="folder", filesystem_uuid=filesystem_uuid(first.plan))
    assert here.platform.inspect(volume).birth == first.birth
    (here.place(first.path) / "data").write_text("kept")
    with pytest.raises(VolumeInUse):
        there.stage(**later(first, 1))

    here.unstage(first)
    assert (here.mounted, here.platform.inspect(volume).held_by) == ({}, ())
    second = there.stage(**later(first, 2))
    assert (there.place(second.path) / "data").read_text() == "kept"
    with pytest.raises((VolumeInUse, StaleEpoch)):
        here.stage(**later(first, 1, claim_id="claim-9"))


def test_a_copy_is_marked_as_itself(front: OneFs, here: Node) -> None:
    first = here.stage()
    (here.place(first.path) / "data").write_text("kept")
    snapshot = here.platform.snapshot(first.external_id, token="s1").external_id
    copy = here.stage(claim_id="claim-2", token="claim-2", volume_id="vol-2", snapshot=snapshot)
    assert copy.birth.filesystem_uuid != first.birth.filesystem_uuid
    place = here.place(copy.path)
    assert ((place / "data").read_text(), (place / MARKER).read_text().strip()) == ("kept", copy.birth.filesystem_uuid)


def test_readers_share_and_mount_for_reading(front: OneFs, here: Node, there: Node) -> None:
    born = here.stage(access_mode=AccessMode.MULTI_NODE_READER_ONLY)
    here.unstage(born)
    for number, node in enumerate((here, there), start=1):
        reader = node.stage(**later(born, number, access=Access.RO, access_mode=AccessMode.MULTI_NODE_READER_ONLY))
        assert node.mounted[reader.path][1].startswith("ro,")


def test_writers_share_a_volume_that_was_made_for_it(front: OneFs, here: Node, there: Node) -> None:
    modes = {"access_mode": AccessMode.MULTI_NODE_MULTI_WRITER, "parameters": {"shared": "true"}}
    first = here.stage(**modes)
    second = there.stage(**later(first, 1, **modes))
    (here.place(first.path) / "data").write_text("seen by both")
    assert (there.place(second.path) / "data").read_text() == "seen by both"
    here.unstage(first)
    assert there.platform.inspect(first.external_id).held_by == (B,)


def test_what_a_dead_nodes_task_left_is_fenced_and_taken_over(front: OneFs, platform: PowerScalePlatform, here: Node, there: Node) -> None:
    """The node dies with the volume mounted; the broker detaches it by its name, and its mount may write nothing any more."""
    first = here.stage()
    volume = ExternalId(first.external_id)
    assert platform.fence(volume, 5) is None
    platform.detach(volume, A)
    assert platform.fence(volume, 5)
    assert front.cluster.may_mount(f"{BASE}/{volume}", A) == ""
    there.stage(**later(first, 5))
    with pytest.raises(StaleEpoch):
        here.platform.attach(volume, A, epoch=first.plan.epoch)
