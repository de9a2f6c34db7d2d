"""SIGKILL at every line of the journal of a stage, and in the middle of mkfs; then the same claim is staged again, and a later one.

The device stays attached and, outside of a namespace, the mount stays too, as for a node service that is killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from storage.errors import DamagedFilesystem, NodeError, NotBlank
from storage.model import VolumePlan
from storage.node import mountinfo
from storage.node.commands import Output, run
from storage.node.journal import Journal, Mark
from storage.node.namespaces import private_mount_namespace
from storage.node.releasing import unstage
from storage.node.staged import Staged
from storage.node.steps import Machine
from tests.conftest import leave_out
from tests.nodes import Node, again, plan
from tests.support import eventually

pytestmark = pytest.mark.root

STEPS = ["create", "attach", "probe", "mkfs", "birth", "mount"]
POINTS = [(mark, step) for step in STEPS for mark in (Mark.INTENT, Mark.RESULT)]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Node(tmp_path) as node:
        yield node


class Deadly(Journal):
    """Dies right after it has written one line."""

    point: tuple[Mark, str]

    def _append(self, mark: Mark, step: str, subject: str, facts: Any, durable: bool) -> None:
        super()._append(mark, step, subject, facts, durable)
        if (mark, step) == self.point:
            os.kill(os.getpid(), signal.SIGKILL)


def killed(node: Node, point: tuple[Mark, str], *, private: bool = False, **changes: Any) -> None:
    """Stages in a child that is killed at `point`."""
    child = os.fork()
    if child == 0:
        try:
            if private:
                private_mount_namespace()
            journal = Deadly(node.journal.path, clock=lambda: 1.0)
            journal.point = point
            node.stage(plan(), journal=journal, **changes)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("point", POINTS, ids=lambda point: f"{point[1]}-{point[0]}")
@pytest.mark.parametrize("private", [False, True], ids=["shared", "private"])
def test_killed_at_any_line_the_same_claim_comes_to_the_same_volume(node: Node, point: tuple[Mark, str], private: bool) -> None:
    killed(node, point, private=private)

    cut_off = node.journal.cut_off()
    staged = node.stage(plan())
    Path(staged.path, "file").write_text("x")

    assert [entry.step for entry in cut_off] == ([point[1]] if point[0] is Mark.INTENT else [])
    assert staged.formatted
    assert node.births[-1:] == [staged.birth]
    assert sum(mount.source == staged.device for mount in mountinfo.read()) == 1
    assert [image.name for image in node.platform.folder.glob("*.img")] == ["claim-1.img"]
    node.unstage(staged)
    later = node.stage(again(staged.birth))
    assert Path(later.path, "file").read_text() == "x"
    node.unstage(later)


@pytest.mark.parametrize("point", POINTS, ids=lambda point: f"{point[1]}-{point[0]}")
def test_killed_at_any_line_it_can_be_released_without_memory(node: Node, point: tuple[Mark, str]) -> None:
    killed(node, point)

    for _ in range(2):
        unstage(plan(), node.platform, "node", staging_dir=node.staging, journal=node.journal)

    node.platform.let_go("claim-1")
    assert not any(str(node.staging) in mount.target for mount in mountinfo.read())
    assert not (node.staging / "claim-1").exists()


def test_data_written_before_a_kill_is_there_for_the_next_claim(node: Node) -> None:
    born = node.stage(plan())
    node.unstage(born)
    child = os.fork()
    if child == 0:
        try:
            private_mount_namespace()
            staged = node.stage(again(born.birth))
            with Path(staged.path, "file").open("w") as file:
                file.write("synced")
                file.flush()
                os.fsync(file.fileno())
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.waitpid(child, 0)

    later = eventually(lambda: node.stage(again(born.birth, "claim-3", epoch=3)), 5.0, "the kernel has unmounted")

    assert Path(later.path, "file").read_text() == "synced"
    assert mountinfo.top(later.path, mountinfo.read()) is not None
    node.unstage(later)


def staged_or_refused(node: Node, wanted: VolumePlan) -> Staged | None:
    """None: what is on the device was refused as half-made."""
    try:
        return node.stage(wanted)
    except (NotBlank, DamagedFilesystem):
        return None


@pytest.mark.parametrize(("filesystem", "size_mib"), [("ext4", 64), ("xfs", 320)])
@pytest.mark.parametrize("at", [1, 2, 5, 20, 60])
def test_a_mkfs_that_dies_half_way_never_leads_to_a_mount_of_half_a_filesystem(node: Node, filesystem: str, size_mib: int, at: int) -> None:
    """mkfs is killed by a tracer as it begins its n-th write; the claim then starts over or is refused, and nothing else."""
    if shutil.which("strace") is None:
        leave_out("needs strace, to let mkfs die half way")
    wanted = plan(filesystem=filesystem, size_mib=size_mib)

    def dying(command: Sequence[str], *paths: str, ok: Collection[int] = (0,), timeout_s: float = 60.0, writes: bool = False) -> Output:
        if not command[0].startswith("mkfs."):
            return run(command, *paths, ok=ok, timeout_s=timeout_s, writes=writes)
        tracer = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject=pwrite64:signal=KILL:when={at}"]
        return run([*tracer, *command], *paths, ok=ok, timeout_s=timeout_s)

    with pytest.raises(NodeError, match="strace failed"):
        node.stage(wanted, machine=Machine(run=dying))
    node.platform.let_go("claim-1")
    assert node.births == []

    staged = staged_or_refused(node, wanted)
    if staged is not None:
        node.unstage(staged)
        check = ["e2fsck", "-f", "-n"] if filesystem == "ext4" else ["xfs_repair", "-n"]
        subprocess.run([*check, str(node.platform.image("claim-1"))], check=True, capture_output=True)
    assert node.births == ([staged.birth] if staged else [])
