"""The driver with a real Mesos master and agent."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from framework.mesos.calls import Acceptance
from framework.mesos.driver import Driver
from framework.mesos.events import Disconnected, Errored, Failed, Message, Offers, Status, Subscribed, Updated
from tests.cluster.mesos_cluster import VERSIONS, MesosCluster
from tests.support import eventually
from tests.unit.driving import Eager, Heard

pytestmark = pytest.mark.cluster

Mesos = Callable[..., MesosCluster]
Connect = Callable[..., tuple[Driver, Heard]]

CAPABILITIES = ["MULTI_ROLE", "RESERVATION_REFINEMENT", "PARTITION_AWARE", "REGION_AWARE"]
FRAMEWORK = {
    "name": "polly",
    "user": "root",
    "roles": ["*"],
    "checkpoint": True,
    "failover_timeout": 3600.0,
    "capabilities": [{"type": name} for name in CAPABILITIES],
}
QUICK = {"allocation_interval": "50ms"}
SILENCE_S = 0.6
"""A dozen rounds of the master's allocator."""
RESOURCES = [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.01}, "allocation_info": {"role": "*"}}]
EXECUTOR = Path(__file__).with_name("plain_executor.py")


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Starts drivers on a cluster that end with the test."""
    with ExitStack() as stack:

        def start(cluster: MesosCluster, **options: Any) -> tuple[Driver, Heard]:
            heard = Heard()
            driver = Driver(master=cluster.master.address, sink=heard, rng=Eager(), **({"framework": FRAMEWORK} | options))
            stack.callback(driver.stop)
            driver.start()
            return driver, heard

        yield start


def offered(event: Offers) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(event.data)["offers"]["offers"]
    return found


def task(offer: dict[str, Any], name: str, data: str = "") -> dict[str, Any]:
    executor = {
        "type": "CUSTOM",
        "executor_id": {"value": "plain"},
        "framework_id": offer["framework_id"],
        "command": {"shell": False, "value": sys.executable, "arguments": [sys.executable, str(EXECUTOR)]},
        "resources": RESOURCES,
    }
    task_id = {"value": name}
    return {"name": name, "task_id": task_id, "agent_id": offer["agent_id"], "executor": executor, "resources": RESOURCES, "data": data}


def launch(*tasks: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "LAUNCH", "launch": {"task_infos": list(tasks)}}]


FINISH = "ZmluaXNo"


def start_task(driver: Driver, heard: Heard, name: str = "t1") -> Status:
    """Launches a task that stays, and returns its acknowledged first status."""
    offer = offered(heard.wait(Offers))[0]
    driver.accept([offer["id"]["value"]], launch(task(offer, name)), refuse_s=0)
    status = heard.wait(Updated).status
    assert (status.task_id, status.state, status.data) == (name, "TASK_RUNNING", f"said of {name}".encode())
    acknowledge(driver, status)
    return status


def acknowledge(driver: Driver, *statuses: Status) -> None:
    driver.acknowledge_many([(it.agent_id or "", it.task_id, it.uuid) for it in statuses if it.uuid])


def in_state(cluster: MesosCluster, which: str = "frameworks") -> dict[str, Any]:
    found: dict[str, Any] = next(it for it in cluster.state()[which] if it["name"] == "polly")
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_polly_registers_as_it_is_and_gets_raw_offers(mesos: Mesos, connect: Connect, version: str) -> None:
    cluster = mesos(version=version, region="r1", zone="z1")
    driver, heard = connect(cluster)
    subscribed = heard.wait(Subscribed)
    assert subscribed.framework_id == driver.framework_id
    assert driver.master == cluster.master.address
    assert driver.master_version == tuple(map(int, version.split(".")))
    offer = offered(heard.wait(Offers))[0]
    assert offer["framework_id"]["value"] == subscribed.framework_id
    known = in_state(cluster)
    assert sorted(known["capabilities"]) == sorted(CAPABILITIES)
    assert (known["checkpoint"], known["failover_timeout"], known["roles"]) == (True, 3600.0, ["*"])


def test_a_decline_holds_until_revived(mesos: Mesos, connect: Connect) -> None:
    driver, heard = connect(mesos(master_flags=QUICK))
    first = offered(heard.wait(Offers))
    driver.decline([offer["id"]["value"] for offer in first], refuse_s=0)
    second = offered(heard.wait(Offers, 2))
    driver.decline([offer["id"]["value"] for offer in second], refuse_s=1000)
    with pytest.raises(TimeoutError):
        heard.wait(Offers, 3, SILENCE_S)
    driver.revive()
    heard.wait(Offers, 3)


def test_suppressed_offers_come_back_when_revived(mesos: Mesos, connect: Connect) -> None:
    driver, heard = connect(mesos(master_flags=QUICK))
    offers = offered(heard.wait(Offers))
    driver.suppress()
    driver.decline([offer["id"]["value"] for offer in offers], refuse_s=0)
    with pytest.raises(TimeoutError):
        heard.wait(Offers, 2, SILENCE_S)
    driver.revive(["*"])
    heard.wait(Offers, 2)


def test_an_update_stays_the_last_until_it_is_acknowledged(mesos: Mesos, connect: Connect) -> None:
    driver, heard = connect(mesos())
    offer = offered(heard.wait(Offers))[0]
    driver.accept([offer["id"]["value"]], launch(task(offer, "t1", FINISH)), refuse_s=1000)
    first = heard.wait(Updated).status
    assert (first.state, first.source, first.agent_id) == ("TASK_RUNNING", "SOURCE_EXECUTOR", offer["agent_id"]["value"])
    with pytest.raises(TimeoutError):
        heard.wait(Updated, 2, SILENCE_S)
    acknowledge(driver, first)
    assert heard.wait(Updated, 2).status.state == "TASK_FINISHED"


def test_many_tasks_are_acknowledged_in_batches(mesos: Mesos, connect: Connect) -> None:
    driver, heard = connect(mesos())
    offer = offered(heard.wait(Offers))[0]
    names = [f"t{number}" for number in range(200)]
    driver.accept([offer["id"]["value"]], launch(*(task(offer, name, FINISH) for name in names)), refuse_s=1000)
    done = 0

    def all_finished() -> bool:
        nonlocal done
        statuses = [event.status for event in heard.of(Updated)[done:]]
        acknowledge(driver, *statuses)
        done += len(statuses)
        return {event.status.task_id for event in heard.of(Updated) if event.status.state == "TASK_FINISHED"} == set(names)

    eventually(all_finished, 30, "every task has finished")
    assert len({event.status.uuid for event in heard.of(Updated)}) == 400


def test_reconciliation_explicit_and_implicit(mesos: Mesos, connect: Connect) -> None:
    driver, heard = connect(mesos())
    running = start_task(driver, heard)
    driver.reconcile([("t1", running.agent_id)])
    explicit = heard.wait(Updated, 2).status
    assert (explicit.task_id, explicit.state, explicit.reason, explicit.uuid) == ("t1", "TASK_RUNNING", "REASON_RECONCILIATION", None)
    driver.reconcile([("never", running.agent_id), ("nowhere", "no-such-agent")])
    states = {it.status.task_id: it.status.state for it in (heard.wait(Updated, 3), heard.wait(Updated, 4))}
    assert states == {"never": "TASK_GONE", "nowhere": "TASK_UNKNOWN"}
    driver.reconcile([])
    assert heard.wait(Updated, 5).status.task_id == "t1"


def test_a_launch_on_an_offer_that_is_gone_is_dropped(mesos: Mesos, connect: Connect) -> None:
    driver, heard = connect(mesos())
    offer = offered(heard.wait(Offers))[0]
    driver.decline([offer["id"]["value"]], refuse_s=1000)
    outcomes = driver.accept_many([Acceptance(offer_ids=[offer["id"]["value"]], operations=launch(task(offer, "late")))], refuse_s=0)
    assert outcomes == [None]
    dropped = heard.wait(Updated).status
    assert (dropped.task_id, dropped.state, dropped.reason) == ("late", "TASK_DROPPED", "REASON_INVALID_OFFERS")


def test_messages_kills_and_an_executors_end(mesos: Mesos, connect: Connect) -> None:
    driver, heard = connect(mesos())
    agent_id = start_task(driver, heard).agent_id or ""
    driver.message(agent_id, "plain", b"\x00hello")
    assert heard.wait(Message) == Message(agent_id=agent_id, executor_id="plain", data=b"\x00hello")
    driver.kill("t1", agent_id, 1.0)
    killed = heard.wait(Updated, 2).status
    assert killed.state == "TASK_KILLED"
    acknowledge(driver, killed)
    driver.shutdown_executor("plain", agent_id)
    failed = heard.wait(Failed, timeout_s=20)
    assert (failed.agent_id, failed.executor_id) == (agent_id, "plain")


def test_an_agent_that_dies_is_reported(mesos: Mesos, connect: Connect) -> None:
    cluster = mesos()
    driver, heard = connect(cluster)
    agent_id = start_task(driver, heard).agent_id
    cluster.agents[0].kill_machine()
    assert heard.wait(Failed, timeout_s=30) == Failed(agent_id=agent_id or "")
    assert heard.wait(Updated, 2).status.state == "TASK_UNREACHABLE"


def test_a_second_driver_takes_the_framework_over_and_the_first_does_not_fight(mesos: Mesos, connect: Connect) -> None:
    cluster = mesos()
    first, heard = connect(cluster)
    start_task(first, heard)
    second, heard_too = connect(cluster, framework=FRAMEWORK | {"id": {"value": first.framework_id}})
    assert heard_too.wait(Subscribed).framework_id == first.framework_id
    assert "failed over" in heard.wait(Errored).message
    assert not first.connected
    second.reconcile([])
    assert heard_too.wait(Updated).status.state == "TASK_RUNNING"


def test_a_broker_that_went_away_finds_its_tasks(mesos: Mesos, connect: Connect) -> None:
    cluster = mesos()
    first, heard = connect(cluster)
    start_task(first, heard)
    first.stop()
    eventually(lambda: not in_state(cluster)["active"], what="the master noticed")
    second, heard_too = connect(cluster, framework=FRAMEWORK | {"id": {"value": first.framework_id}})
    heard_too.wait(Subscribed)
    second.reconcile([])
    assert heard_too.wait(Updated).status.task_id == "t1"


def test_a_master_that_dies_and_comes_back(mesos: Mesos, connect: Connect) -> None:
    cluster = mesos(registry="replicated_log")
    driver, heard = connect(cluster)
    agent_id = start_task(driver, heard).agent_id
    framework_id = driver.framework_id
    cluster.master.kill()
    heard.wait(Disconnected)
    cluster.master.start()
    assert heard.wait(Subscribed, 2, 30).framework_id == framework_id
    cluster.wait_agents()
    driver.reconcile([("t1", agent_id)])
    eventually(lambda: heard.of(Updated)[-1].status.reason == "REASON_RECONCILIATION", what="an answer")
    assert heard.of(Updated)[-1].status.state == "TASK_RUNNING"


def test_a_teardown_is_the_frameworks_end(mesos: Mesos, connect: Connect) -> None:
    cluster = mesos()
    driver, heard = connect(cluster)
    heard.wait(Subscribed)
    driver.stop(failover=False)
    assert in_state(cluster, "completed_frameworks")["id"] == driver.framework_id
    _, heard_too = connect(cluster, framework=FRAMEWORK | {"id": {"value": driver.framework_id}})
    assert "removed" in heard_too.wait(Errored).message


def test_the_right_secret_registers(mesos: Mesos, connect: Connect) -> None:
    cluster = mesos(credentials={"polly": "right"})
    driver, heard = connect(cluster, principal="polly", secret="right")
    heard.wait(Subscribed)
    driver.revive()
    heard.wait(Offers)
    assert in_state(cluster)["principal"] == "polly"


@pytest.mark.parametrize("credentials", [{"principal": "polly", "secret": "wrong"}, {"principal": "polly"}, {}])
def test_a_wrong_secret_or_none_says_so(mesos: Mesos, connect: Connect, credentials: dict[str, str]) -> None:
    _, heard = connect(mesos(credentials={"polly": "right"}), **credentials)
    message = heard.wait(Errored).message
    assert "authentication failed" in message
    assert "HTTP 401" in message
    assert "wrong" not in message
    assert len(heard.events) == 1


def test_another_principals_framework_is_refused(mesos: Mesos, connect: Connect) -> None:
    cluster = mesos(credentials={"polly": "right"})
    _, heard = connect(cluster, principal="polly", secret="right", framework=FRAMEWORK | {"principal": "somebody"})
    assert "somebody" in heard.wait(Errored).message
