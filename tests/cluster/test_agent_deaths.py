"""The agent killed and coming back, killed and not coming back, and cut off while its task lives. Then the counts must be zero."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from storage.model import Event
from tests.cluster.mesos_cluster import Agent
from tests.cluster.rig import Rig, counter
from tests.support import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.root]

MakeRig = Callable[..., Rig]
PROMPT = {"inactiveAfterSeconds": 0, "expungeAfterSeconds": 3600}


def claim_states(rig: Rig) -> list[str]:
    return [str(claim.state) for claim in rig.claims()]


def explanation(rig: Rig, app_id: str = "/counter") -> dict[str, Any]:
    found: dict[str, Any] = rig.http.get(f"/v1/apps{app_id}/explanation").json()
    return found


def freed(rig: Rig) -> Sequence[Event]:
    """The ends of the only volume's claims, oldest first: each with its proof."""
    with rig.ledger() as ledger:
        return [event for event in ledger.events(volume_id=rig.volumes()[0].volume_id).items if event.what == "claim.freed"]


def start_counting(rig: Rig, **fields: Any) -> dict[str, Any]:
    rig.start_broker()
    rig.run(counter(**fields))
    task = rig.running()[0]
    assert rig.count(task["id"]) == 1
    return task


def ends_clean(rig: Rig) -> None:
    rig.delete("/counter")
    rig.gone()
    rig.settle()
    rig.nothing_left()


def test_an_agent_comes_back_to_its_task(make_rig: MakeRig) -> None:
    """Its checkpointed executor is found again: the same task runs on, and can still be ended by Polly."""
    rig = make_rig(1)
    task = start_counting(rig)
    executor, agent = rig.executor_pid(task["id"]), rig.cluster.agents[0]
    agent.kill()
    eventually(lambda: not rig.cluster.active_agents(), what="the master misses the agent")
    agent.start()
    rig.cluster.wait_agents()
    rig.settle()
    assert rig.running()[0]["id"] == task["id"]
    assert rig.executor_pid(task["id"]) == executor
    assert rig.count(task["id"]) == 1
    assert claim_states(rig) == ["MOUNTED"]
    rig.scale("/counter", 0)
    eventually(lambda: not rig.claims(), 20, "the claim ends")
    assert [event.why.partition(":")[0] for event in freed(rig)] == ["RELEASED"]
    ends_clean(rig)


def strand_on_dead_machine(rig: Rig) -> dict[str, Any]:
    """An app that must not be replaced without proof loses its machine for good: its instance waits, and says why."""
    task = start_counting(rig, unreachableStrategy="disabled")
    rig.agent_of(task).kill_machine()
    eventually(lambda: claim_states(rig) == ["STRANDED"], 20, "the claim is stranded")
    waiting = explanation(rig)["waiting"]
    assert len(waiting) == 1
    assert "STRANDED" in waiting[0]["blocked"]
    assert "TASK_UNREACHABLE" in waiting[0]["blocked"]
    assert len(rig.tasks(state="TASK_UNREACHABLE")) == 1
    rig.settle()
    return task


@pytest.mark.parametrize("broker", ["there", "away"])
def test_an_operator_marks_the_agent_gone(make_rig: MakeRig, broker: str) -> None:
    """The broker hears of it, or is away and asks when it is back."""
    rig = make_rig(2)
    first = strand_on_dead_machine(rig)
    if broker == "away":
        rig.kill_broker()
    rig.cluster.mark_gone(first["slaveId"])
    if broker == "away":
        rig.start_broker()
    second = rig.running(but=[first["id"]])[0]
    assert rig.count(second["id"]) == 2
    assert second["host"] != first["host"]
    assert "TASK_GONE_BY_OPERATOR" in freed(rig)[0].why
    with rig.ledger() as ledger:
        assert {node.node_id: node.state for node in ledger.nodes()} == {first["slaveId"]: "GONE", second["slaveId"]: "UP"}
    ends_clean(rig)


def test_an_operator_releases_the_claim(make_rig: MakeRig) -> None:
    rig = make_rig(2)
    first = strand_on_dead_machine(rig)
    claim = rig.claims()[0].claim_id
    answer = rig.http.post(f"/v1/claims/{claim}/release", json={"because": "the machine burnt down"})
    assert answer.status_code == 204, answer.text
    second = rig.running(but=[first["id"]])[0]
    assert rig.count(second["id"]) == 2
    assert "OPERATOR_OVERRIDE" in freed(rig)[0].why
    assert "the machine burnt down" in freed(rig)[0].why
    ends_clean(rig)


def test_a_machine_comes_back_empty(make_rig: MakeRig) -> None:
    """It registers as a new agent. The master says that the task is lost, the platform that nothing holds the volume."""
    rig = make_rig(1)
    first = start_counting(rig, unreachableStrategy=PROMPT)
    agent = rig.cluster.agents[0]
    agent.kill_machine()
    shutil.rmtree(agent.folder / "work")
    agent.start()
    rig.cluster.wait_agents()
    second = rig.running(but=[first["id"]])[0]
    assert rig.count(second["id"]) == 2
    assert second["slaveId"] != first["slaveId"]
    assert [event.why.partition(":")[0] for event in freed(rig)] == ["FENCED"]
    ends_clean(rig)


def cut_off(rig: Rig, task: dict[str, Any]) -> Agent:
    """Stops the agent's process, as a cut network would look to the master, until the master has given it up."""
    agent = rig.agent_of(task)
    for pid in agent.pids:
        os.kill(pid, signal.SIGSTOP)
    eventually(lambda: claim_states(rig) == ["STRANDED"], 20, "the claim is stranded")
    return agent


def mend(rig: Rig, agent: Agent) -> None:
    for pid in agent.pids:
        os.kill(pid, signal.SIGCONT)
    rig.cluster.wait_agents()


def test_a_cut_off_task_that_lives_keeps_its_volume(make_rig: MakeRig) -> None:
    """The platform is asked, and says no as long as the task holds the lock; when the agent is back, the task simply runs."""
    rig = make_rig(2, settings={"claims": {"lease_s": 20.0, "fence_retry_s": 0.2}})
    task = start_counting(rig, unreachableStrategy=PROMPT)
    executor = rig.executor_pid(task["id"])
    agent = cut_off(rig, task)
    eventually(lambda: "something still holds it" in rig.claims()[0].reason, 20, "the platform refuses to fence")
    assert "something still holds it" in explanation(rig)["waiting"][0]["blocked"]
    assert [event.why for event in freed(rig)] == []
    assert rig.volumes()[0].epoch == 1
    assert not rig.tasks()
    assert len(rig.attached()) == 1
    mend(rig, agent)
    assert rig.running()[0]["id"] == task["id"]
    eventually(lambda: claim_states(rig) == ["MOUNTED"], 20, "the claim is the task's again")
    assert rig.executor_pid(task["id"]) == executor
    assert rig.count(task["id"]) == 1
    assert rig.volumes()[0].epoch == 1
    ends_clean(rig)


def test_a_forgotten_task_that_lives_keeps_its_volume_and_ends_when_it_is_back(make_rig: MakeRig) -> None:
    """Its app has given it up, its claim has not: nobody gets the volume before the task was killed and has let go of it."""
    rig = make_rig(2, settings={"claims": {"lease_s": 20.0, "fence_retry_s": 0.2}})
    first = start_counting(rig, unreachableStrategy={"inactiveAfterSeconds": 0, "expungeAfterSeconds": 0})
    agent = cut_off(rig, first)
    eventually(lambda: not rig.tasks(state="TASK_UNREACHABLE"), 20, "the app forgets the task")
    eventually(lambda: "something still holds it" in explanation(rig)["waiting"][0]["blocked"], 20, "the platform refuses to fence")
    assert claim_states(rig) == ["STRANDED"]
    assert len(rig.attached()) == 1
    mend(rig, agent)
    second = rig.running(but=[first["id"]])[0]
    assert rig.count(second["id"]) == 2
    assert [event.why.partition(":")[0] for event in freed(rig)] == ["RELEASED"]
    ends_clean(rig)


def knows(agent: Agent, task_id: str) -> bool:
    frameworks = agent.get("/state")["frameworks"]
    return any(executor["id"] == task_id for framework in frameworks for executor in framework["executors"])


def test_a_cut_off_task_that_dies_loses_its_volume(make_rig: MakeRig) -> None:
    """Its lock is gone with it, which the platform sees: another agent runs the app. When the first agent is back, nothing is doubled."""
    rig = make_rig(2)
    first = start_counting(rig, unreachableStrategy=PROMPT)
    agent = cut_off(rig, first)
    os.kill(rig.executor_pid(first["id"]), signal.SIGKILL)
    second = rig.running(but=[first["id"]])[0]
    assert rig.count(second["id"]) == 2
    assert second["host"] != first["host"]
    assert [event.why.partition(":")[0] for event in freed(rig)] == ["FENCED"]
    mend(rig, agent)
    eventually(lambda: not knows(agent, first["id"]), 20, "the agent gives up the first task")
    assert rig.running()[0]["id"] == second["id"]
    assert claim_states(rig) == ["MOUNTED"]
    assert rig.volumes()[0].epoch == 2
    ends_clean(rig)
