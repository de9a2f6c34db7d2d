"""SIGKILL of the broker before and after what it commits of a volume on EBS and what it asks of EC2, whoever attaches. After each death the
counts must be zero in the ledger, on this machine and at EC2: held twice, lost, leaked claims and attachments, second volumes.

One cluster for a whole walk: a volume comes, its executor may die, and it goes, and a broker dies in each of these.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.cluster.ebs_cloud import Cloud, freed
from tests.cluster.rig import Rig, counter

pytestmark = [pytest.mark.cluster, pytest.mark.root, pytest.mark.peer]

BROKER_ATTACHES = [
    ("after:place", "before:RELEASING"),
    ("before:ATTACHING", "after:RELEASING"),
    ("after:ATTACHING", "before:ec2.detach_volume"),
    ("before:ec2.create_volume", "after:ec2.detach_volume"),
    ("after:ec2.create_volume", "after:ec2.delete_tags"),
    ("before:ec2.attach_volume", "before:free"),
    ("after:ec2.attach_volume", "after:free"),
    ("before:created", "before:ec2.delete_volume"),
    ("after:created", "after:ec2.delete_volume"),
    ("after:ec2.create_tags:2", "before:deleted"),
]
"""While the volume comes; while it goes. The second tags are its birth certificate."""
BETWEEN = {"after:RELEASING", "before:ec2.detach_volume", "after:ec2.detach_volume", "after:ec2.delete_tags", "before:free"}
"""Of the executor's last word the ledger keeps that it has ended, so the platform is asked for a fence, too."""
EXECUTOR_ATTACHES = [
    ("after:place", "before:RELEASING", "before:deleting"),
    ("after:ATTACHING", "after:RELEASING", "after:deleting"),
    ("before:created", "before:ec2.detach_volume", "before:free:2"),
    ("after:born", "after:ec2.detach_volume", "after:free:2"),
    ("before:MOUNTED", "after:ec2.create_tags", "before:ec2.delete_volume"),
    ("after:MOUNTED", "before:free", "after:ec2.delete_volume"),
]
"""While the volume comes; while it is taken from the node of an executor that was killed, the tags being its fence; while it goes: the
second claim that is freed is the one that goes."""


@contextlib.contextmanager
def at(point: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        error.add_note(f"the broker was to die {point}")
        raise


def comes(cloud: Cloud, rig: Rig, point: str, then: str) -> dict[str, Any]:
    """The broker that runs dies at `point` while an app's volume comes. The next one, which will die at `then`, brings it."""
    with at(point):
        before = set(cloud.disks.made)
        with contextlib.suppress(httpx.TransportError):
            rig.run(counter())
        assert rig.died() == -9
        rig.start_broker(die_at=then)
        task = rig.running()[0]
        assert rig.count(task["id"]) == 1
        cloud.settle(rig)
        assert cloud.disks.made - before == {cloud.is_on(task)}
        assert len(rig.claims()) == 1
        return task


def is_lost(cloud: Cloud, rig: Rig, task: dict[str, Any], point: str, then: str) -> None:
    """The task's executor is killed, and the broker dies at `point` while the volume is taken from its node."""
    with at(point):
        volume = cloud.is_on(task)
        os.kill(rig.executor_pid(task["id"]), signal.SIGKILL)
        assert rig.died() == -9
        rig.start_broker(die_at=then)
        again = rig.running(but=[task["id"]])[0]
        assert rig.count(again["id"]) == 2
        cloud.settle(rig)
        assert cloud.is_on(again) == volume


def goes(cloud: Cloud, rig: Rig, point: str, then: str) -> None:
    """The app is deleted, and the broker dies at `point`; the next one, which will die at `then`, takes its volume away."""
    with at(point):
        with contextlib.suppress(httpx.TransportError):
            rig.delete("/counter")
        assert rig.died() == -9
        rig.start_broker(die_at=then)
        rig.gone()
        cloud.nothing_left(rig)


def test_a_broker_that_attaches_dies(cloud: Cloud, make_ebs: Callable[..., Rig]) -> None:
    rig = make_ebs("broker")
    points = [point for pair in BROKER_ATTACHES for point in pair]
    rig.start_broker(die_at=points[0])
    for (up, down), next_up in zip(BROKER_ATTACHES, [*points[2::2], ""], strict=True):
        comes(cloud, rig, up, then=down)
        goes(cloud, rig, down, then=next_up)
    assert len(cloud.disks.made) == len(BROKER_ATTACHES)
    ended = ["TERMINAL_STATUS" if down in BETWEEN else "RELEASED" for _, down in BROKER_ATTACHES]
    assert freed(rig) == ["NEVER_BORN", *ended]


def test_a_broker_dies_whose_executors_attach(cloud: Cloud, make_ebs: Callable[..., Rig]) -> None:
    rig = make_ebs("executor")
    rig.start_broker(die_at=EXECUTOR_ATTACHES[0][0])
    for (up, lost, down), next_up in zip(EXECUTOR_ATTACHES, [*(points[0] for points in EXECUTOR_ATTACHES[1:]), ""], strict=True):
        task = comes(cloud, rig, up, then=lost)
        is_lost(cloud, rig, task, lost, then=down)
        goes(cloud, rig, down, then=next_up)
    assert len(cloud.disks.made) == len(EXECUTOR_ATTACHES)
    assert freed(rig) == ["NEVER_BORN", *["TERMINAL_STATUS", "RELEASED"] * len(EXECUTOR_ATTACHES)]
