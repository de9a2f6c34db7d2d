"""The master killed and started again from its replicated log. Tasks live on, and the counts must be zero."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from tests.cluster.rig import Rig, counter
from tests.support import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.root]

MakeRig = Callable[..., Rig]


def ends_clean(rig: Rig, *app_ids: str) -> None:
    for app_id in app_ids:
        rig.delete(app_id)
    for app_id in app_ids:
        rig.gone(app_id)
    rig.settle()
    rig.nothing_left()


def steady_app(rig: Rig) -> tuple[str, int]:
    """An app that is to outlive the master: its task, and the process id of its executor."""
    rig.run(counter("/steady"))
    task = rig.running("/steady")[0]["id"]
    assert rig.count(task) == 1
    return task, rig.executor_pid(task)


def lives_on(rig: Rig, steady: tuple[str, int]) -> None:
    task, executor = steady
    assert [found["id"] for found in rig.running("/steady")] == [task]
    assert rig.executor_pid(task) == executor
    assert rig.count(task) == 1
    assert [claim.epoch for claim in rig.claims() if claim.holder.placement == task and claim.state == "MOUNTED"] == [1]


@pytest.mark.parametrize("point", ["stop before:ACCEPT:2", "stop after:ACCEPT:2"])
def test_a_master_that_dies_while_an_app_is_launched(make_rig: MakeRig, point: str) -> None:
    rig = make_rig(2, registry="replicated_log")
    rig.start_broker(die_at=point)
    steady = steady_app(rig)
    rig.run_until_stopped(counter("/launched"))
    rig.cluster.master.kill()
    rig.go_on()
    eventually(lambda: "lost     the Mesos master" in rig.log.read_text(), 20, "the broker misses the master")
    rig.cluster.master.start()
    rig.cluster.wait_agents()
    task = rig.running("/launched")[0]
    assert rig.count(task["id"]) == 1
    lives_on(rig, steady)
    rig.settle()
    assert len(rig.claims()) == 2
    ends_clean(rig, "/steady", "/launched")


def test_a_master_that_dies_while_the_broker_is_away(make_rig: MakeRig) -> None:
    """Meanwhile one task dies. The broker starts before the master is back, and hears of the death when it is."""
    rig = make_rig(2, registry="replicated_log")
    rig.start_broker()
    steady = steady_app(rig)
    rig.run(counter("/struck"))
    first = rig.running("/struck")[0]["id"]
    assert rig.count(first) == 1
    rig.kill_broker()
    rig.cluster.master.kill()
    os.kill(rig.executor_pid(first), signal.SIGKILL)
    rig.start_broker()
    assert rig.http.get("/v1/broker").json()["connected"] is False
    rig.run(counter("/submitted"))
    rig.cluster.master.start()
    rig.cluster.wait_agents()
    second = rig.running("/struck", but=[first])[0]
    assert rig.count(second["id"]) == 2
    assert rig.count(rig.running("/submitted")[0]["id"]) == 1
    lives_on(rig, steady)
    ends_clean(rig, "/steady", "/struck", "/submitted")
