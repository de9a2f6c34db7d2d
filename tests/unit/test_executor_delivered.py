"""An executor whose broker attaches: it asks, waits within its lease, looks at what came, and lets go before the broker detaches."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from executors.delivered import DeliveredVolume
from executors.wire import ATTACH, BROKER, FAILED, RELEASED, Delivery, Failure, Launch, PlatformSettings, VolumeProgress
from storage.lifecycle import ClaimState
from storage.model import ExternalId, VolumePlan
from storage.node.attacher import obtain
from storage.platforms.base import Attachment
from tests.executing import Disk, Running, launch
from tests.nodes import LoopPlatform
from tests.nodes import plan as planned
from tests.support import eventually

pytestmark = pytest.mark.root

TELL_MODULES = "print('modules', *sorted(sys.modules), flush=True); "
SETTINGS = {"rack": PlatformSettings(kind="an adapter that this node does not have", attach_by=BROKER)}


class Store:
    """The broker's hands: a platform that this process attaches volumes of, when it is asked to."""

    def __init__(self, folder: Path) -> None:
        self.platform = LoopPlatform(folder / "store")
        self.disk = Disk(folder / "unused")
        self.plan = self.disk.plan()
        self.wishes: list[VolumeProgress] = []
        self.changes: dict[str, Any] = {}
        self.answers_after = 1

    def next_plan(self, learnt: VolumeProgress) -> VolumePlan:
        self.disk.learn(learnt)
        self.plan = self.disk.plan()
        return self.plan

    def attach(self, wish: VolumeProgress) -> Delivery | None:
        """The wish's answer, from the time on that a test has set."""
        self.wishes.append(wish)
        if len(self.wishes) < self.answers_after:
            return None
        found = obtain(self.platform, self.plan)
        attachment = self.platform.attach(found.external_id, "i-1", epoch=self.plan.epoch)
        delivery = Delivery(
            claim_id=self.plan.claim_id,
            epoch=self.plan.epoch,
            external_id=found.external_id,
            size_mib=found.size_mib,
            birth=found.birth,
            attachment=attachment,
        )
        return msgspec.structs.replace(delivery, **self.changes)

    def detach(self) -> None:
        for image in self.platform.folder.glob("*.img"):
            # a file's name is the id here
            self.platform.detach(self.platform.inspect(image.stem).external_id, "i-1")  # type: ignore[arg-type]

    @property
    def devices(self) -> list[str]:
        return [device for image in self.platform.folder.glob("*.img") if (device := self.platform.device(image.stem))]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    made.detach()
    assert made.devices == []


def told(store: Store, cmd: str, plan: VolumePlan | None = None, **more: Any) -> Launch:
    return msgspec.structs.replace(launch(cmd, plan or store.plan, **more), platforms=SETTINGS)


@pytest.fixture
def executor(tmp_path: Path, store: Store) -> Iterator[Running]:
    with Running(tmp_path, attaches=store.attach, last=TELL_MODULES) as running:
        yield running


def test_a_task_runs_on_what_the_broker_attached_and_lets_go_before_it_is_detached(executor: Running, store: Store) -> None:
    executor.launch(told(store, "echo kept > data/file"))
    last = executor.ends()
    assert (last.state, last.volume.step, last.volume.held) == ("TASK_FINISHED", RELEASED, False)
    assert executor.states == ["TASK_STARTING", "TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"]
    first, second = executor.statuses[:2]
    assert (first.volume.step, first.volume.wants, first.volume.birth) == (ClaimState.ATTACHING, ATTACH, None)
    assert second.volume.wants == ""
    assert second.volume.birth
    assert second.volume.birth.serial == store.platform.serial_of(store.plan.claim_id)
    assert len(store.devices) == 1  # still attached, and no longer used
    modules = executor.stdout.split()
    assert "modules" in modules
    assert not [name for name in modules if name.startswith("storage.platforms.local")]


def test_the_next_task_finds_its_data(tmp_path: Path, store: Store, executor: Running) -> None:
    executor.launch(told(store, "echo kept > data/file"))
    learnt = executor.ends().volume
    learnt = msgspec.structs.replace(executor.statuses[1].volume, external_id=learnt.external_id)
    store.detach()
    (tmp_path / "two").mkdir()
    with Running(tmp_path / "two", attaches=store.attach) as second:
        second.launch(told(store, "cat data/file", store.next_plan(learnt)))
        last = second.ends()
        assert (last.state, second.stdout) == ("TASK_FINISHED", "kept\n")
        assert "mkfs" not in second.statuses[-2].volume.took_ms


def test_a_wish_is_repeated_until_it_is_answered(executor: Running, store: Store) -> None:
    store.answers_after = 3
    executor.launch(told(store, "true"))
    assert executor.ends().state == "TASK_FINISHED"
    assert [(wish.step, wish.wants) for wish in store.wishes] == [(ClaimState.ATTACHING, ATTACH)] * 3


def test_what_the_broker_was_refused_is_the_tasks_end(tmp_path: Path, store: Store) -> None:
    refusal = Failure(code="PoolFull", message="Pool default has 1 MiB free.", advice="Make room.")
    with Running(tmp_path, attaches=lambda wish: Delivery(claim_id=wish.claim_id, epoch=wish.epoch, error=refusal)) as executor:
        executor.launch(told(store, "true"))
        last = executor.ends()
        assert (last.state, last.message) == ("TASK_FAILED", "Pool default has 1 MiB free. Make room.")
        assert (last.volume.step, last.volume.held, last.volume.error) == (FAILED, False, refusal)


@pytest.mark.parametrize("changes", [{"epoch": 99}, {"claim_id": "another"}])
def test_an_answer_to_another_wish_is_none_and_the_lease_ends(executor: Running, store: Store, changes: dict[str, Any]) -> None:
    store.changes = changes
    executor.launch(told(store, "true", lease_s=2.0))
    last = executor.ends()
    assert (last.state, last.volume.held) == ("TASK_FAILED", False)
    assert "lease of 2.0 s ended before the broker attached volume /shop/db#0/data" in last.message


def test_a_device_that_does_not_come_in_time_is_said(executor: Running, store: Store) -> None:
    store.platform.serial = "a device that never comes"
    executor.launch(told(store, "true", lease_s=4.0))
    last = executor.ends()
    assert (last.state, last.volume.held) == ("TASK_FAILED", False)
    assert last.volume.error
    assert last.volume.error.code in ("WrongDevice", "DeviceNotFound")


def test_a_task_that_is_killed_while_it_waits_ends_at_once(executor: Running, store: Store) -> None:
    store.answers_after = 1000
    executor.launch(told(store, "true"))
    executor.reaches("TASK_STARTING")
    executor.agent.kill("task-1")
    last = executor.ends()
    assert (last.state, last.volume.step, last.volume.held) == ("TASK_KILLED", RELEASED, False)


@pytest.mark.parametrize("state", ["TASK_STARTING", "TASK_RUNNING"])
def test_an_executor_that_is_killed_leaves_no_mount(executor: Running, store: Store, state: str) -> None:
    store.answers_after = 1000 if state == "TASK_STARTING" else 1
    executor.launch(told(store, "sleep 100"))
    executor.reaches(state)
    os.kill(executor.process.pid, signal.SIGKILL)
    executor.process.wait(10)
    store.detach()
    eventually(lambda: not store.devices, what="nothing holds the device any more")


def test_a_clone_is_made_by_the_broker_whatever_the_node_knows_of_its_platform() -> None:
    plan = planned(source=ExternalId("shelf-1"))
    attachment = Attachment(external_id=ExternalId("shelf-2"), device="/dev/loop9", serial="shelf-2")
    delivery = Delivery(claim_id=plan.claim_id, epoch=1, external_id=attachment.external_id, size_mib=64, attachment=attachment)
    assert obtain(DeliveredVolume(plan, SETTINGS["rack"], lambda: delivery), plan).external_id == "shelf-2"
