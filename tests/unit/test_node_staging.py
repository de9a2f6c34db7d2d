"""The sequence of staging without any device: what is refused early, the lease, and what an error says about the node."""

from __future__ import annotations

import fcntl
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from storage.errors import (
    Invalid,
    LeaseExpired,
    NodeError,
    PlatformUnavailable,
    PollyError,
    StaleEpoch,
    UnknownVolume,
    Unsupported,
    VolumeInUse,
)
from storage.model import Access, AccessMode, ExternalId, VolumePlan
from storage.node.journal import Journal, Mark
from storage.node.pace import Deadline, Pace
from storage.node.releasing import alone
from storage.node.staged import Staged, may_be_held
from storage.node.staging import stage
from storage.node.steps import Machine
from storage.platforms.base import Attachment, CreateRequest, VolumeReport
from tests.nodes import LoopPlatform, plan


class Refusing(LoopPlatform):
    """Brings folders, and fails where a test wants it."""

    def __init__(self, folder: Path, *, device: str = "folder") -> None:
        super().__init__(folder, device=device)
        self.calls: list[str] = []
        self.fails: dict[str, Exception] = {}
        self.hangs_s = 0.0
        self.now = 0.0

    def _call(self, verb: str) -> None:
        self.calls.append(verb)
        self.now += self.hangs_s
        if verb in self.fails:
            raise self.fails[verb]

    def create(self, request: CreateRequest) -> VolumeReport:
        self._call("create")
        return super().create(request)

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        self._call("attach")
        return super().attach(external_id, node, epoch=epoch, read_only=read_only)

    def detach(self, external_id: ExternalId, node: str) -> None:
        self._call("detach")


class Node:
    def __init__(self, folder: Path, device: str = "folder") -> None:
        self.platform = Refusing(folder / "pool", device=device)
        self.staging = folder / "staging"
        self.journal = Journal(folder / "journal", clock=lambda: 1.0)
        self.pace = Pace(now=lambda: self.platform.now, wait=lambda seconds: None)
        self.told: list[str] = []

    def stage(self, plan: VolumePlan, lease_s: float = 60.0, on_birth: object = None) -> Staged:
        return stage(
            plan,
            self.platform,
            "node",
            staging_dir=self.staging,
            deadline=Deadline.of(lease_s, pace=self.pace),
            journal=self.journal,
            on_step=lambda step, took_ms: self.told.append(step),
            on_birth=on_birth or (lambda staged: None),  # type: ignore[arg-type]  # only what the test needs of it
            machine=Machine(may_mount=False, pace=self.pace),
        )


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_each_step_is_journalled_timed_and_told(node: Node) -> None:
    staged = node.stage(plan())

    assert node.told == ["create", "attach", "probe", "mkfs", "birth"]
    assert list(staged.took_ms) == node.told
    marks = [(entry.step, entry.mark) for entry in node.journal.entries()]
    assert marks == [(step, mark) for step in node.told for mark in (Mark.INTENT, Mark.RESULT)]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"filesystem": "btrfs"}, Invalid),
        ({"filesystem": "xfs", "size_mib": 299}, Invalid),
        ({"mount_options": ("suid",)}, Invalid),
        ({"mkfs_options": ("-U", "x")}, Invalid),
        ({"access_mode": AccessMode.MULTI_NODE_MULTI_WRITER}, Unsupported),
        ({"access_mode": AccessMode.MULTI_NODE_SINGLE_WRITER, "access": Access.RO}, Unsupported),
        ({}, Unsupported),
    ],
)
def test_what_no_device_could_change_is_refused_at_once(tmp_path: Path, changes: dict[str, Any], error: type) -> None:
    node = Node(tmp_path, device="block")

    with pytest.raises(error) as caught:
        node.stage(plan(**changes))

    assert node.platform.calls == []
    assert not may_be_held(caught.value)


def test_a_kind_of_volume_that_the_node_does_not_know_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="does not know tape volumes"):
        Node(tmp_path, device="tape").stage(plan())


def test_a_claim_id_that_is_a_path_goes_nowhere(node: Node) -> None:
    with pytest.raises(PollyError):
        node.stage(plan("../../etc"))
    assert node.platform.calls == []


def test_nothing_is_begun_after_the_lease(node: Node) -> None:
    with pytest.raises(LeaseExpired) as caught:
        node.stage(plan(), lease_s=0.0)

    assert node.platform.calls == []
    assert not may_be_held(caught.value)


def test_a_lease_that_ends_on_the_way_is_undone(node: Node) -> None:
    node.platform.hangs_s = 25.0

    with pytest.raises(LeaseExpired, match="before probe") as caught:
        node.stage(plan(), lease_s=50.0)

    assert node.platform.calls == ["create", "attach", "detach"]
    assert not may_be_held(caught.value)


@pytest.mark.parametrize(
    "refusal",
    [VolumeInUse(volume="v", holder="another"), StaleEpoch(volume="v", epoch=1, found=2), UnknownVolume(volume="v")],
)
def test_a_refused_attach_is_not_answered_by_a_detach(node: Node, refusal: PollyError) -> None:
    node.platform.fails["attach"] = refusal

    with pytest.raises(type(refusal)) as caught:
        node.stage(plan())

    assert node.platform.calls == ["create", "attach"]
    assert caught.value is refusal
    assert not may_be_held(caught.value)


def test_an_attach_of_unknown_outcome_is(node: Node) -> None:
    node.platform.fails["attach"] = PlatformUnavailable(platform="p", action="attach", reason="no answer")

    with pytest.raises(PlatformUnavailable) as caught:
        node.stage(plan())

    assert node.platform.calls == ["create", "attach", "detach"]
    assert not may_be_held(caught.value)


def test_an_undo_that_fails_keeps_the_first_error_and_says_that_the_volume_may_be_held(node: Node) -> None:
    node.platform.fails = {
        "attach": PlatformUnavailable(platform="p", action="attach", reason="no answer"),
        "detach": PlatformUnavailable(platform="p", action="detach", reason="no answer again"),
    }

    with pytest.raises(PlatformUnavailable, match="attach") as caught:
        node.stage(plan())

    assert may_be_held(caught.value)
    assert any("no answer again" in note for note in caught.value.__notes__)


def test_a_birth_that_cannot_be_stored_is_undone_and_the_next_try_goes_on(node: Node) -> None:
    def lost(staged: Staged) -> None:
        raise ConnectionError("the broker is gone")

    with pytest.raises(NodeError, match="ConnectionError: the broker is gone") as caught:
        node.stage(plan(), on_birth=lost)
    assert node.platform.calls[-1] == "detach"
    assert not may_be_held(caught.value)

    births: list[Staged] = []
    staged = node.stage(plan(), on_birth=births.append)
    assert [birth.birth for birth in births] == [staged.birth]


def test_an_interrupt_is_undone_and_passes_through(node: Node) -> None:
    def interrupted(staged: Staged) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        node.stage(plan(), on_birth=interrupted)

    assert node.platform.calls[-1] == "detach"
    assert may_be_held(caught.value)


def test_a_volume_that_is_smaller_than_asked_for_is_refused(node: Node) -> None:
    with pytest.raises(NodeError, match="has 64 MiB, 65 MiB were asked for"):
        node.stage(plan(size_mib=65))


def test_a_reader_of_a_volume_that_never_was_creates_none(node: Node) -> None:
    with pytest.raises(UnknownVolume):
        node.stage(plan(access=Access.RO))
    assert node.platform.calls == []


def test_who_stages_a_volume_is_alone_and_leaves_no_file(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(40):
            with alone(tmp_path, "vol-1", 60.0, Pace(wait=lambda seconds: time.sleep(0))):
                inside.append(number)
                most.append(len(inside))
                inside.remove(number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))

    assert (len(most), max(most)) == (160, 1)
    assert list(tmp_path.iterdir()) == []


def test_who_waits_for_a_volume_goes_on_when_it_is_free_and_says_who_keeps_it_else(tmp_path: Path) -> None:
    first = ExitStack()
    first.enter_context(alone(tmp_path, "vol-1", 0.0, Pace()))
    with pytest.raises(NodeError, match="another process stages or unstages this volume"), alone(tmp_path, "vol-1", 0.0, Pace()):
        pass
    with alone(tmp_path, "vol-1", 1.0, Pace(now=lambda: 0.0, wait=lambda seconds: first.close())):
        assert [file.name for file in tmp_path.iterdir()] == [".vol-1.lock"]
    assert list(tmp_path.iterdir()) == []


def test_a_lock_whose_file_went_while_it_was_taken_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, file = fcntl.flock, tmp_path / ".vol-1.lock"
    late = iter([file])

    def flock(fd: int, operation: int) -> None:
        for lost in late:
            lost.unlink()  # its last holder was quicker
        real(fd, operation)

    monkeypatch.setattr("storage.node.releasing.fcntl.flock", flock)
    with alone(tmp_path, "vol-1", 1.0, Pace(wait=lambda seconds: None)):
        assert file.exists()
