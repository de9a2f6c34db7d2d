"""What a node does beside mounting: a transport is connected and disconnected at the right moments, whoever lives, and asked who it is."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from storage.errors import Invalid, NodeError, PollyError
from storage.model import ClaimId, ExternalId, VolumePlan
from storage.node import attached, identities, transports
from storage.node.devices import Roots
from storage.node.journal import Journal
from storage.node.pace import Deadline
from storage.node.releasing import sweep, unstage
from storage.node.staged import Staged, may_be_held
from storage.node.staging import stage
from storage.node.steps import Machine
from storage.platforms.base import Attachment
from tests.nodes import LoopPlatform, again, plan

MACHINE = Machine(may_mount=False, roots=Roots(dev=Path("/nowhere"), sys=Path("/nowhere")))
"""Without the disks of this one, on which other tests have images of the same names."""


def module(package: str, name: str, **members: Any) -> ModuleType:
    made = ModuleType(f"{package}.{name}")
    made.__spec__ = ModuleSpec(made.__name__, None)
    for key, value in members.items():
        setattr(made, key, value)
    return made


class Wires(LoopPlatform):
    """Brings folders over a transport, and notes what is done in which order."""

    def __init__(self, folder: Path, done: list[str]) -> None:
        super().__init__(folder, device="folder")
        self.done, self.transport = done, "wire"

    def attach(self, external_id: ExternalId, node: str, *, epoch: int, read_only: bool = False) -> Attachment:
        self.done.append("attach")
        folder = str(self.folder / external_id)
        return Attachment(external_id=external_id, device=folder, serial=external_id, transport=self.transport, context={"lun": "7"})

    def detach(self, external_id: ExternalId, node: str) -> None:
        self.done.append("detach")


class Node:
    def __init__(self, folder: Path) -> None:
        self.done: list[str] = []
        self.fails: set[str] = set()
        self.platform = Wires(folder / "pool", self.done)
        self.staging = folder / "staging"
        self.journal = Journal(folder / "journal", clock=lambda: 1.0)

    def connect(self, attachment: Attachment, machine: Machine) -> None:
        self._do("connect", attachment)

    def disconnect(self, attachment: Attachment, machine: Machine) -> None:
        self._do("disconnect", attachment)

    def _do(self, what: str, attachment: Attachment) -> None:
        self.done.append(f"{what} {attachment.context['lun']}")
        if what in self.fails:
            raise NodeError(command=what, target="wire", reason="it broke")

    def stage(self, plan: VolumePlan, **more: Any) -> Staged:
        more = {"on_birth": lambda staged: None, **more}
        arguments: dict[str, Any] = {"deadline": Deadline.of(60.0), "journal": self.journal, "machine": MACHINE}
        return stage(plan, self.platform, "node", staging_dir=self.staging, **(arguments | more))

    def unstage(self, plan: VolumePlan) -> None:
        unstage(plan, self.platform, "node", staging_dir=self.staging, journal=self.journal, machine=MACHINE)

    def die(self) -> None:
        """What the kernel does with a process' locks. A child that is being started at this moment has a copy of each descriptor."""
        for fd in attached._locks.values():
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)
        attached._locks.clear()


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    made = Node(tmp_path)
    wire = module("storage.node.transports", "wire", connect=made.connect, disconnect=made.disconnect, PROGRAMS={"wirectl": "wire-tools"})
    monkeypatch.setitem(sys.modules, wire.__name__, wire)
    yield made
    made.die()


def test_a_transport_is_connected_after_the_attach_and_disconnected_before_the_detach(node: Node) -> None:
    staged = node.stage(plan())
    assert node.done == ["attach", "connect 7"]
    node.done.clear()
    node.unstage(staged.plan)
    assert node.done == ["disconnect 7", "detach"]
    assert not list(node.staging.glob(".*.attached"))


def test_what_fails_after_the_connection_is_disconnected(node: Node) -> None:
    def lost(staged: Staged) -> None:
        raise ConnectionError("gone")

    with pytest.raises(NodeError, match="gone") as caught:
        node.stage(plan(), on_birth=lost)
    assert node.done == ["attach", "connect 7", "disconnect 7", "detach"]
    assert not may_be_held(caught.value)


def test_a_connection_of_unknown_outcome_is_disconnected(node: Node) -> None:
    node.fails = {"connect"}
    with pytest.raises(NodeError, match="it broke") as caught:
        node.stage(plan())
    assert node.done == ["attach", "connect 7", "disconnect 7", "detach"]
    assert not may_be_held(caught.value)


def test_a_volume_that_stays_connected_stays_attached(node: Node) -> None:
    node.stage(plan())
    node.fails = {"disconnect"}
    with pytest.raises(NodeError, match="it broke") as caught:
        node.unstage(plan())
    assert node.done[-1] == "disconnect 7"
    assert may_be_held(caught.value)


def test_an_unknown_transport_is_said_and_the_volume_detached(node: Node) -> None:
    node.platform.transport = "pigeon"
    with pytest.raises(Invalid, match="knows no such transport") as caught:
        node.stage(plan())
    assert node.done == ["attach", "detach"]
    assert not may_be_held(caught.value)


def test_a_dead_process_is_cleaned_up_after_by_whoever_unstages_its_claim(node: Node) -> None:
    node.stage(plan())
    node.die()
    node.done.clear()
    node.unstage(plan())
    assert node.done == ["disconnect 7", "detach"]


def test_the_next_executor_disconnects_what_a_dead_one_left(node: Node) -> None:
    node.stage(plan())
    node.done.clear()
    sweep(node.staging, MACHINE)
    assert node.done == []
    node.die()
    node.fails = {"disconnect"}
    sweep(node.staging, MACHINE)
    node.fails.clear()
    sweep(node.staging, MACHINE)
    sweep(node.staging, MACHINE)
    assert node.done == ["disconnect 7", "disconnect 7"]


def test_a_record_that_was_never_finished_is_none(node: Node) -> None:
    node.staging.mkdir()
    (node.staging / ".claim-1.attached").write_text('{"claim_id": "cl')
    assert attached.of(node.staging, ClaimId("claim-1")) is None
    sweep(node.staging, MACHINE)
    assert node.done == []


def test_others_on_this_node_are_those_whose_process_lives(node: Node) -> None:
    first = node.stage(plan())
    second = again(first.birth)
    assert attached.has_others(node.staging, second)
    assert not attached.has_others(node.staging, first.plan)
    node.die()
    assert not attached.has_others(node.staging, second)


def test_a_transport_says_what_it_needs(node: Node) -> None:
    assert transports.programs("wire") == {"wirectl": "wire-tools"}


# --- who the node is


def test_a_node_is_called_by_its_hostname_where_the_platform_says_so() -> None:
    assert identities.identify("hostname", MACHINE, hostname="agent-7") == "agent-7"


def test_a_source_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = module("storage.node.identities", "badge", identify=lambda machine: f"badge of {machine is MACHINE}")
    monkeypatch.setitem(sys.modules, asked.__name__, asked)
    assert identities.identify("badge", MACHINE, hostname="agent-7") == "badge of True"


@pytest.mark.parametrize("source", ["nobody", "../x", ""])
def test_an_unknown_source_is_said(source: str) -> None:
    with pytest.raises(PollyError, match="knows no such source"):
        identities.identify(source, MACHINE, hostname="agent-7")
