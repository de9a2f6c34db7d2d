"""Launches that come too late or nowhere: a rescinded offer, an agent that drops the task, an executor that cannot be run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest

from storage.model import Event
from tests.cluster.rig import Rig, counter
from tests.support import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.root]

MakeRig = Callable[..., Rig]


def events(rig: Rig, what: str) -> Sequence[Event]:
    with rig.ledger() as ledger:
        return [event for event in ledger.events(limit=1000).items if event.what == what]


def first_proof(rig: Rig) -> str:
    return events(rig, "claim.freed")[0].why.partition(":")[0]


def ends_clean(rig: Rig) -> None:
    rig.delete("/counter")
    rig.gone()
    rig.settle()
    rig.nothing_left()


def test_an_accept_of_a_rescinded_offer(make_rig: MakeRig) -> None:
    """The agent goes after the claim was committed and before ACCEPT is sent: Mesos drops the launch, which frees the claim."""
    rig = make_rig(1)
    rig.start_broker(die_at="stop before:ACCEPT")
    rig.run_until_stopped(counter())
    assert [claim.state for claim in rig.claims()] == ["RESERVED"]
    rig.cluster.agents[0].kill()
    eventually(lambda: not rig.cluster.active_agents(), what="the master misses the agent")
    rig.go_on()
    eventually(lambda: not rig.claims(), 15, "the claim ends")
    assert first_proof(rig) == "LAUNCH_RULED_OUT"
    rig.settle()
    rig.cluster.agents[0].start()
    task = rig.running()[0]
    assert rig.count(task["id"]) == 1
    assert len(events(rig, "claim.reserved")) == 2
    ends_clean(rig)


@pytest.mark.parametrize("work", ["kept", "lost"])
def test_a_launch_that_dies_with_its_agent(make_rig: MakeRig, work: str) -> None:
    """The agent is killed right after ACCEPT, and comes back with its work folder or as a new agent."""
    rig = make_rig(1)
    rig.start_broker(die_at="stop after:ACCEPT")
    rig.run_until_stopped(counter())
    agent = rig.cluster.agents[0]
    agent.kill_machine()
    if work == "lost":
        shutil.rmtree(agent.folder / "work")
    agent.start()
    rig.cluster.wait_agents()
    rig.go_on()
    eventually(lambda: events(rig, "claim.freed"), 20, "the first claim ends")
    task = rig.running()[0]
    assert rig.count(task["id"]) == 1
    assert first_proof(rig) in ("LAUNCH_RULED_OUT", "NEVER_BORN")
    rig.settle()
    assert len(rig.claims()) == 1
    ends_clean(rig)


def test_an_executor_that_cannot_be_run(make_rig: MakeRig) -> None:
    """Each launch fails on the agent and frees its claim; the waits between them grow as the app says."""
    rig = make_rig(1, settings={"executor": {"command": ["/nowhere/polly-executor"]}})
    rig.start_broker()
    rig.run(counter(backoffSeconds=0.25, backoffFactor=2.0, maxLaunchDelaySeconds=60))
    eventually(lambda: len(events(rig, "claim.freed")) >= 4, 20, "four launches fail")
    waits = [later.at - earlier.at for earlier, later in pairwise(events(rig, "claim.reserved")[:4])]
    assert all(wait >= 0.25 * 2**failures for failures, wait in enumerate(waits)), waits
    (waiting,) = rig.http.get("/v1/apps/counter/explanation").json()["waiting"]
    assert waiting["last_message"].startswith("TASK_FAILED")
    assert waiting["next_try_at"] > events(rig, "claim.freed")[-1].at
    assert {event.why.partition(":")[0] for event in events(rig, "claim.freed")} <= {"NEVER_BORN", "LAUNCH_RULED_OUT"}
    assert not rig.claims()
    assert not rig.volumes()
    ends_clean(rig)
