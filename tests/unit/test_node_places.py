"""The folders that volumes are mounted on: whose process is dead leaves none for ever, and no other loses what is mounted on his."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.errors import UnsafePath
from storage.node import mountinfo, places, targets
from storage.node.journal import Mark
from storage.node.namespaces import private_mount_namespace
from storage.node.releasing import sweep
from storage.node.steps import Machine
from storage.node.targets import Target
from tests.nodes import Node, plan
from tests.unit.test_node_root_kills import killed

pytestmark = pytest.mark.root


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Node(tmp_path) as node:
        yield node


@pytest.fixture
def fork() -> Iterator[Callable[[Callable[[], None]], int]]:
    """Runs something in a process that then waits to be killed; returns once it waits."""
    children: list[int] = []

    def start(do: Callable[[], None]) -> int:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                do()
                os.write(writing, b"x")
                signal.pause()
            finally:
                os._exit(1)
        children.append(child)
        os.close(writing)
        with os.fdopen(reading, "rb") as said:
            assert said.read(1) == b"x"
        return child

    yield start
    for child in children:
        kill(child)


def kill(child: int) -> None:
    try:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def test_what_a_killed_process_has_mounted_on_goes_with_the_next_sweep(node: Node) -> None:
    killed(node, (Mark.RESULT, "mount"), private=True)
    assert (node.staging / "claim-1").is_dir()

    sweep(node.staging, Machine())

    assert not (node.staging / "claim-1").exists()


def test_a_live_process_keeps_its_folder_and_its_mount(node: Node, fork: Callable[[Callable[[], None]], int]) -> None:
    def hold() -> None:
        private_mount_namespace()
        node.stage(plan())

    holder = fork(hold)
    before = Path(f"/proc/{holder}/mountinfo").read_text()
    sweep(node.staging, Machine())
    assert Path(f"/proc/{holder}/mountinfo").read_text() == before
    assert str(node.staging / "claim-1") in before

    kill(holder)
    sweep(node.staging, Machine())
    assert not (node.staging / "claim-1").exists()


def test_before_it_is_mounted_on_a_folder_is_held_already(tmp_path: Path, fork: Callable[[Callable[[], None]], int]) -> None:
    holder = fork(lambda: places.hold(Target.below(tmp_path, "claim-1")))
    places.remove_left(tmp_path)
    assert (tmp_path / "claim-1").is_dir()
    kill(holder)
    places.remove_left(tmp_path)
    assert not (tmp_path / "claim-1").exists()


def test_a_mount_of_who_holds_no_folder_stays(tmp_path: Path, fork: Callable[[Callable[[], None]], int]) -> None:
    """Such as that of an executor of an earlier version: the kernel would take it away with the folder."""

    def mount() -> None:
        private_mount_namespace()
        subprocess.run(["mount", "-t", "tmpfs", "x", str(tmp_path / "claim-1")], check=True)

    (tmp_path / "claim-1").mkdir()
    fork(mount)
    places.remove_left(tmp_path)
    assert (tmp_path / "claim-1").is_dir()


def test_what_is_no_empty_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("full")
    (tmp_path / ".lock").touch()
    places.remove_left(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "file", "full", "link"]


def test_its_own_folders_a_process_never_sweeps_and_leaves_them_by_itself(tmp_path: Path) -> None:
    target = Target.below(tmp_path, "claim-1")
    for _ in range(2):
        places.hold(target)
    places.remove_left(tmp_path)
    assert Path(str(target)).stat().st_mode & 0o777 == 0o700
    for _ in range(2):
        places.leave(target)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_swept_while_it_is_taken_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, enter = Target.below(tmp_path, "claim-1"), targets.enter
    swept: list[str] = []

    def late(parent: int, name: str, path: str, flags: int) -> int:
        if len(swept) < 2:
            swept.append(name)
            fd = enter(parent, name, path, flags) if len(swept) == 2 else None
            os.rmdir(tmp_path / name)
            return enter(parent, name, path, flags) if fd is None else fd
        return enter(parent, name, path, flags)

    monkeypatch.setattr(places, "enter", late)
    places.hold(target)
    assert swept == ["claim-1", "claim-1"]
    assert (tmp_path / "claim-1").is_dir()
    places.leave(target)


def test_a_link_is_no_place(tmp_path: Path) -> None:
    (tmp_path / "claim-1").symlink_to("/etc")
    with pytest.raises(UnsafePath, match="link"):
        places.hold(Target.below(tmp_path, "claim-1"))


def test_what_is_mounted_on_here_is_not_opened(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead server's export would hang whoever opens it."""
    staged = node.stage(plan())
    target = Target.below(node.staging, "claim-1")
    assert mountinfo.at(str(target)) is not None
    places._held.clear()
    monkeypatch.setattr(places, "enter", lambda *_: 1 / 0)
    places.hold(target)
    places.remove_left(node.staging)
    monkeypatch.undo()
    node.unstage(staged)
