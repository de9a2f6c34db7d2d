"""A disk of Xen's on its way back: it has no serial, so the name that it was attached under must do, also for who finds it unmounted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from storage.errors import BusyMount
from storage.model import ClaimId, ExternalId
from storage.node import attached
from storage.node.devices import Roots
from storage.node.releasing import sweep
from storage.node.steps import Machine
from storage.platforms.base import Attachment
from tests.nodes import LoopPlatform, Node, plan

pytestmark = pytest.mark.root

CLAIM = ClaimId("claim-1")


class XenPlatform(LoopPlatform):
    """Its loop devices come up under names of Xen's, in trees of their own, and say no serial there."""

    def __init__(self, folder: Path, roots: Roots) -> None:
        super().__init__(folder)
        self.roots = roots

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        found = super().attach(external_id, node, epoch=epoch, read_only=read_only)
        shown = self.roots.dev / "xvdaa"
        if not shown.exists():
            os.mknod(shown, 0o600 | 0o060000, os.stat(found.device).st_rdev)
        kind = self.roots.sys / "block" / shown.name / "device"
        kind.mkdir(parents=True, exist_ok=True)
        (kind / "devtype").write_text("vbd\n")
        return msgspec.structs.replace(found, device=str(shown))

    def detach(self, external_id: ExternalId, node: str) -> None:
        super().detach(external_id, node)
        (self.roots.dev / "xvdaa").unlink(missing_ok=True)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    (tmp_path / "dev").mkdir()
    roots = Roots(dev=tmp_path / "dev", sys=tmp_path / "sys")
    with Node(tmp_path) as node:
        node.platform = XenPlatform(tmp_path / "pool", roots)
        node.machine = replace(Machine(), roots=roots)
        yield node


def test_it_is_mounted_and_released_by_the_name_it_was_attached_under(node: Node) -> None:
    staged = node.stage(plan())

    assert Path(staged.device).name == "xvdaa"
    node.unstage(staged)
    node.platform.let_go("claim-1")
    assert attached.of(node.staging, CLAIM) is None


def test_one_that_only_another_namespace_has_mounted_is_not_detached(node: Node) -> None:
    """As a task has it whose executor died after it had unmounted its own."""
    staged = node.stage(plan())
    other = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    subprocess.run(["umount", "--", staged.path], check=True)
    try:
        with pytest.raises(BusyMount, match="another namespace"):
            node.unstage(staged, timeout_s=0.2)
        assert node.platform.device("claim-1")
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    node.unstage(staged)
    node.platform.let_go("claim-1")


def test_what_the_dead_have_left_of_it_is_forgotten_only_when_nothing_uses_it(node: Node) -> None:
    staged = node.stage(plan())
    for descriptor in attached._locks.values():
        os.close(descriptor)  # as the kernel does for a process that dies
    attached._locks.clear()

    sweep(node.staging, node.machine)
    assert attached.of(node.staging, CLAIM)
    subprocess.run(["umount", "--", staged.path], check=True)
    sweep(node.staging, node.machine)
    assert attached.of(node.staging, CLAIM) is None
